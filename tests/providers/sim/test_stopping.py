"""Stopping, starting and expiring: the disk stays, nothing else does, and nobody can come between."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.errors import NoCapacity, NotFound
from gpucloud.model import Instance, InstanceState, Offer, utcnow
from gpucloud.provider import MovesExpiry, StoppedBilling, Stops
from gpucloud.remote.keys import Identity
from gpucloud_local.api import machines, read
from gpucloud_sim import Sim
from gpucloud_sim.market import DISK_USD_PER_HOUR
from tests.harness.waiting import eventually
from tests.providers.rented import Rented, processes, running
from tests.providers.sim.conftest import MakeMarket

Launch = Callable[..., Instance]

CLIENT = """\
import sys
from datetime import timedelta
from pathlib import Path
from gpucloud.errors import NotFound
from gpucloud.model import InstanceRef, utcnow
from gpucloud.provider import ProviderSettings
from gpucloud_sim import Sim
state, token, *verbs = sys.argv[1:]
market, ref = Sim(ProviderSettings("sim", Path(state))), InstanceRef(token)
for verb in verbs:
    print(verb, flush=True)
    try:
        if verb == "expire":
            market.expire(ref, utcnow() + timedelta(hours=1))
        elif verb == "instances":
            list(market.instances())
        else:
            getattr(market, verb)(ref)
    except NotFound:
        print("not found", flush=True)
"""


def client(market: Sim, instance: Instance, *verbs: str) -> subprocess.Popen[str]:
    """A process of its own that does to an instance what the verbs say, one after the other."""
    words = [sys.executable, "-c", CLIENT, str(market.settings.state_dir), instance.ref.id, *verbs]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def folder(market: Sim, instance: Instance) -> Path:
    """Where an instance is."""
    return market.settings.state_dir / "instances" / instance.ref.id


def state(market: Sim, instance: Instance) -> InstanceState:
    """What the market says of an instance."""
    return market.get(instance.ref).state


def stopped(market: Sim, instance: Instance) -> Instance:
    """Stop an instance, and wait until it is."""
    market.stop(instance.ref)
    eventually(lambda: state(market, instance) is InstanceState.STOPPED)
    return market.get(instance.ref)


def price_of(market: Sim, instance: Instance) -> Decimal | None:
    """What the listing says that an instance costs."""
    (price,) = [found.usd_per_hour for found in market.instances() if found.ref == instance.ref]
    return price


def test_it_says_what_it_can(sim: MakeMarket) -> None:
    market = sim()
    assert isinstance(market, Stops)
    assert isinstance(market, MovesExpiry)
    assert market.traits.billed_while_stopped is StoppedBilling.STORAGE


def test_a_stopped_instance_keeps_its_files_and_nothing_runs(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("boot=0s")
    before = running(market, launch(market, offer))
    machine = Rented(market, before, key)
    mark = f"20{os.getpid()}.5"
    machine.say(f"echo data >file; setsid sleep {mark} >/dev/null 2>&1 </dev/null &")
    eventually(lambda: processes(mark))
    (host_key,) = market.host_keys(before.ref)

    over = stopped(market, before)
    assert (over.ssh, over.alive, over.ref) == (None, True, before.ref)
    assert [(i.ref, i.state) for i in market.instances()] == [(before.ref, InstanceState.STOPPED)]
    assert processes(mark) == []
    eventually(lambda: processes(str(folder(market, before))) == [])
    assert (folder(market, before) / "home" / "file").read_text() == "data\n"
    assert market.host_keys(before.ref) == ()

    market.start(before.ref)
    again = Rented(market, running(market, before), key)
    assert again.say("cat file") == "data"
    assert market.host_keys(before.ref) == (host_key,)
    with again.connect(pinned=host_key) as connection:
        assert connection.host_key == host_key
    assert again.instance.created_at == before.created_at


def test_a_stopped_instance_costs_what_its_disk_does(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    assert price_of(market, instance) == offer.usd_per_hour
    assert stopped(market, instance).usd_per_hour == DISK_USD_PER_HOUR
    assert price_of(market, instance) == DISK_USD_PER_HOUR
    (disk,) = [resource for resource in market.side_resources() if resource.kind == "disk"]
    assert disk.usd_per_hour == DISK_USD_PER_HOUR
    market.start(instance.ref)
    running(market, instance)
    assert price_of(market, instance) == offer.usd_per_hour


def test_a_start_takes_as_long_to_boot_as_a_launch(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("boot=1h")
    instance = launch(market, offer)
    assert stopped(market, instance).ssh is None
    market.start(instance.ref)
    assert state(market, instance) is InstanceState.PENDING


def test_start_right_after_stop_makes_a_new_server(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    for _ in range(3):
        before = (folder(market, instance) / "pid").read_text()
        market.stop(instance.ref)
        market.start(instance.ref)
        assert (folder(market, instance) / "pid").read_text() != before
    assert Rented(market, running(market, instance), key).say("echo up") == "up"
    assert len(processes(str(folder(market, instance)))) == 1


def test_terminate_right_after_stop_or_start_is_not_lost(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("boot=0s")
    for verbs in ([market.stop], [market.stop, market.start], [market.stop] * 2):
        instance = launch(market, offer)
        for verb in verbs:
            verb(instance.ref)
        market.terminate(instance.ref)
        eventually(lambda: not list(market.instances()))
        eventually(lambda: not list((market.settings.state_dir / "instances").iterdir()))


def test_terminate_while_a_stop_is_on_its_way_is_not_lost(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("boot=0s")
    for _ in range(4):
        instance = launch(market, offer)
        stopping = client(market, instance, "stop")
        assert stopping.stdout is not None
        stopping.stdout.readline()
        market.terminate(instance.ref)
        stopping.communicate()
        eventually(lambda: not list(market.instances()))
    eventually(lambda: not list((market.settings.state_dir / "instances").iterdir()))


def test_an_instance_whose_server_was_killed_can_be_stopped_and_started(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    mark = f"21{os.getpid()}.5"
    Rented(market, instance, key).say(f"setsid sleep {mark} >/dev/null 2>&1 </dev/null &")
    eventually(lambda: processes(mark))
    os.kill(int((folder(market, instance) / "pid").read_text()), signal.SIGKILL)
    eventually(lambda: state(market, instance) is InstanceState.FAILED)
    market.stop(instance.ref)
    assert state(market, instance) is InstanceState.STOPPED
    assert processes(mark) == []
    market.start(instance.ref)
    assert Rented(market, running(market, instance), key).say("echo up") == "up"


def test_what_a_killed_server_left_behind_does_not_go_on_beside_the_next(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    mark = f"22{os.getpid()}.5"
    Rented(market, instance, key).say(f"setsid sleep {mark} >/dev/null 2>&1 </dev/null &")
    eventually(lambda: processes(mark))
    os.kill(int((folder(market, instance) / "pid").read_text()), signal.SIGKILL)
    eventually(lambda: state(market, instance) is InstanceState.FAILED)
    market.start(instance.ref)
    running(market, instance)
    assert processes(mark) == []


def test_starts_of_many_processes_make_one_server(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    stopped(market, instance)
    everyone = [client(market, instance, "start") for _ in range(4)]
    assert [process.communicate() and process.returncode for process in everyone] == [0] * 4
    assert Rented(market, running(market, instance), key).say("echo up") == "up"
    assert len(processes(str(folder(market, instance)))) == 1


def test_a_start_whose_client_is_killed_is_finished_by_the_next(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    for _ in range(3):
        stopped(market, instance)
        (folder(market, instance) / "server.log").unlink()
        killed = client(market, instance, "start")
        # From here on the server is being started, and has not yet said that it was.
        eventually((folder(market, instance) / "server.log").exists)
        killed.kill()
        killed.communicate()
        market.start(instance.ref)
        assert Rented(market, running(market, instance), key).say("echo up") == "up"
        assert len(processes(str(folder(market, instance)))) == 1


def test_a_stopped_instance_expires_all_the_same(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    stopped(market, instance)
    market.expire(instance.ref, utcnow() + timedelta(hours=1))
    assert state(market, instance) is InstanceState.STOPPED
    market.expire(instance.ref, utcnow())
    assert [i.state for i in market.instances()] == [InstanceState.TERMINATED]
    assert not (folder(market, instance) / "home").exists()
    assert list(market.side_resources()) == []
    for verb in (market.stop, market.start):
        with pytest.raises(NotFound):
            verb(instance.ref)
    market.terminate(instance.ref)
    eventually(lambda: not list(market.instances()))


def test_an_expiry_can_be_moved_in_both_directions(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("boot=0s")
    soon = utcnow() + timedelta(seconds=2)
    first, second = launch(market, offer, expires_at=soon), launch(market, offer)
    market.expire(first.ref, soon + timedelta(hours=1))
    market.expire(second.ref, soon)
    eventually(lambda: state(market, second) is InstanceState.TERMINATED)
    assert utcnow() >= soon
    ended = read(folder(market, second)).ended
    assert ended is not None
    assert ended.reason == "expired"
    assert state(market, first) in {InstanceState.PENDING, InstanceState.RUNNING}
    with pytest.raises(NotFound):
        market.expire(second.ref, utcnow() + timedelta(hours=1))


def test_a_moved_expiry_outlasts_a_stop(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    soon = utcnow() + timedelta(seconds=3)
    market.expire(instance.ref, soon)
    stopped(market, instance)
    market.start(instance.ref)
    eventually(lambda: state(market, instance) is InstanceState.TERMINATED)
    assert utcnow() >= soon


def test_a_market_goes_on_while_something_is_stopped_in_it(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    first = sim("stockout=1")
    with pytest.raises(NoCapacity):
        launch(first, offer)
    stopped(first, launch(first, offer))
    launch(sim("stockout=1"), offer)
    assert len(list(first.instances())) == 2


def test_clients_at_odds_that_are_killed_leave_one_whole_instance(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market, chance = sim("boot=0s"), random.Random(7)
    instance = running(market, launch(market, offer))
    verbs = ["stop", "start", "expire", "get", "instances"]
    everyone = [client(market, instance, *chance.choices(verbs, k=8)) for _ in range(4)]
    for number, process in enumerate(everyone):
        assert process.stdout is not None
        for _ in range(2 * number + 1):
            process.stdout.readline()
        process.kill()
        process.communicate()
    market.start(instance.ref)
    assert Rented(market, running(market, instance), key).say("echo up") == "up"
    assert len(processes(str(folder(market, instance)))) == 1
    ending = [client(market, instance, verb) for verb in ("terminate", "stop", "start", "terminate")]
    assert [process.communicate() and process.returncode for process in ending] == [0] * 4
    eventually(lambda: not list(machines(market.settings.state_dir / "instances")))
    assert list(market.side_resources()) == []
    eventually(lambda: processes(str(folder(market, instance))) == [])
