"""One market for all processes, which opens when it says and does the same every time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from gpucloud.errors import NoCapacity, ProviderError, Rejected
from gpucloud.model import Instance, InstanceRef, InstanceState, Offer, Requirements
from gpucloud.remote.keys import Identity
from gpucloud_local.api import read
from tests.harness.waiting import eventually
from tests.providers.rented import a_spec
from tests.providers.sim.conftest import MakeMarket

Launch = Callable[..., Instance]

LAUNCHER = """\
import sys
from pathlib import Path
from gpucloud.errors import ProviderError
from gpucloud.model import Requirements
from gpucloud.provider import LaunchSpec, ProviderSettings
from gpucloud_sim import Sim
state, script, token, public_key = sys.argv[1:]
market = Sim(ProviderSettings("sim", Path(state), script=script))
offer = next(iter(market.offers(Requirements())))
try:
    print(market.launch(offer, LaunchSpec(token, "test", 0, "me", public_key)).token)
except ProviderError as error:
    print(error.code)
"""

EVENTS = "stockout=1,quota=1,badhost=1,lost-reply=1,interrupt@1h,interrupt@2h,slow-list=1,api500=1"


def launcher(folder: Path, script: str, token: str, key: Identity) -> subprocess.Popen[str]:
    """A process of its own that launches one instance and says how it went."""
    words = [sys.executable, "-c", LAUNCHER, str(folder), script, token, key.public]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def story(sim: MakeMarket, folder: str, script: str, key: Identity) -> list[object]:
    """All that can be seen of a market in a fixed course of events, times and ports apart."""
    market = sim(script, folder)
    seen: list[object] = [(o.id, o.usd_per_hour) for o in market.offers(Requirements(markets=()))]
    spot = [o for o in market.offers(Requirements(markets=())) if o.market == "spot"]
    for turn in range(6):
        spec = a_spec(key, token=f"gc-{turn}")
        try:
            seen.append(market.launch(spot[turn], spec).ref)
        except ProviderError as error:
            seen.append((type(error), error.message, error.outcome_unknown))
        seen.append(sorted(str(instance.token) for instance in market.instances()))
    for instance in market.instances():
        spec_made = read(market.settings.state_dir / "instances" / instance.ref.id).spec
        seen.append((spec_made.token, spec_made.dead, spec_made.interrupt_at, spec_made.usd_per_hour))
    return seen


def test_the_same_script_and_seed_tell_the_same_story(sim: MakeMarket, key: Identity) -> None:
    script = f"{EVENTS},seed=7"
    first = story(sim, "first", script, key)
    assert first == story(sim, "second", script, key)
    assert {entry[0] for entry in first if isinstance(entry, tuple)} >= {NoCapacity, "gc-5"}


def test_another_seed_has_other_prices(sim: MakeMarket) -> None:
    def prices(seed: int) -> list[Decimal]:
        return [o.usd_per_hour for o in sim(f"seed={seed}", str(seed)).offers(Requirements(markets=()))]

    lists = [prices(seed) for seed in (1, 2, 3, 4)]
    assert all(one != other for one in lists for other in lists if one is not other)
    assert prices(1) == lists[0]


def test_a_fault_that_struck_does_not_strike_again_in_a_later_process(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("stockout=2")
    with pytest.raises(NoCapacity):
        launch(market, offer)
    with pytest.raises(NoCapacity):
        launch(market, offer)
    alive = launch(market, offer)
    later = launcher(market.settings.state_dir, "stockout=2", "gc-later", key)
    assert later.communicate()[0] == "gc-later\n"
    assert {i.token for i in market.instances()} == {alive.token, "gc-later"}


def test_ten_processes_share_one_market(sim: MakeMarket, offer: Offer, launch: Launch, key: Identity) -> None:
    market = sim("stockout=5")
    folder = market.settings.state_dir
    everyone = [launcher(folder, "", "gc-first", key)]
    assert everyone[0].communicate()[0] == "gc-first\n"  # from here on something is alive in the market
    with pytest.raises(NoCapacity):
        launch(market, offer)  # opens it anew, with the script
    everyone = [launcher(folder, "stockout=5", f"gc-{number}", key) for number in range(10)]
    said = [process.communicate()[0].strip() for process in everyone]
    assert said.count("no-capacity") == 4
    lucky = {answer for answer in said if answer != "no-capacity"}
    assert len(lucky) == 6
    assert {i.token for i in market.instances()} == {*lucky, "gc-first"}


def test_a_market_goes_on_while_something_is_alive_in_it(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    first = sim("stockout=1")
    with pytest.raises(NoCapacity):
        launch(first, offer)
    launch(first, offer)
    launch(sim("stockout=1"), offer)
    launch(sim(), offer)  # without a script the current one goes on
    assert len(list(first.instances())) == 3


def test_a_market_opens_anew_when_nothing_is_alive_in_it(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    for _ in range(2):
        market = sim("stockout=1")
        with pytest.raises(NoCapacity):
            launch(market, offer)
        instance = launch(market, offer)
        market.terminate(instance.ref)
        eventually(lambda: not list(sim().instances()))


def test_a_process_that_has_joined_a_market_stays_in_it(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("stockout=1")
    with pytest.raises(NoCapacity):
        launch(market, offer)
    list(market.offers(Requirements()))
    launch(market, offer)


def test_another_script_opens_the_market_anew(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    alive = launch(sim("boot=0s"), offer)
    other = sim("stockout=1")
    with pytest.raises(NoCapacity):
        launch(other, offer)
    assert [i.ref for i in other.instances()] == [alive.ref]


def test_looking_and_ending_never_open_a_market(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("stockout=1")
    with pytest.raises(NoCapacity):
        launch(market, offer)
    instance = launch(market, offer)
    looking = sim("stockout=7,auth")
    assert [i.ref for i in looking.instances()] == [instance.ref]
    assert looking.get(instance.ref).ref == instance.ref
    looking.terminate(instance.ref)
    eventually(lambda: not list(looking.instances()))
    assert '"script":"stockout=1"' in (market.settings.state_dir / "market.json").read_text()


def test_what_is_said_of_an_instance_outlasts_the_opening_of_another_market(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    first = sim("stuck=3,slow-list=1")
    dying, hidden = launch(first, offer), launch(first, offer)
    list(first.instances())
    first.terminate(dying.ref)
    late = launch(first, offer)
    second = sim("boot=1s")
    list(second.offers(Requirements()))
    shown = {instance.ref: instance.state for instance in second.instances()}
    assert shown[dying.ref] is InstanceState.TERMINATING
    assert hidden.ref in shown
    assert late.ref not in shown
    eventually(lambda: dying.ref not in {instance.ref for instance in second.instances()})
    assert {hidden.ref, late.ref} <= {instance.ref for instance in second.instances()}


def test_a_market_that_ended_something_forgets_it(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("stuck=1,slow-list=1")
    instance = launch(market, offer)
    list(market.instances())
    market.terminate(instance.ref)
    eventually(lambda: not list(market.instances()))
    assert instance.ref.id not in (market.settings.state_dir / "market.json").read_text()


def test_a_damaged_market_is_an_error(sim: MakeMarket) -> None:
    market = sim("boot=0s")
    list(market.offers(Requirements()))
    (market.settings.state_dir / "market.json").write_text("{")
    with pytest.raises(Rejected) as caught:
        list(market.instances())
    assert "market.json" in caught.value.why


@pytest.mark.parametrize("reference", ["", "..", "../../elsewhere"])
def test_what_is_no_id_leads_nowhere(sim: MakeMarket, tmp_path: Path, reference: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    market = sim("stuck=1")
    list(market.offers(Requirements()))
    market.terminate(InstanceRef(reference))
    assert (tmp_path / "elsewhere").is_dir()
