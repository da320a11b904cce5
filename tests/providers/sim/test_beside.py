"""What bills beside an instance: it comes and goes with it, but for the disk that a script leaves behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest

from gpucloud.errors import AuthError, NoCapacity, Rejected, Unreachable
from gpucloud.model import Instance, InstanceRef, InstanceState, Offer, Requirements, SideResource, utcnow
from gpucloud.provider import HasSideResources
from gpucloud_sim import Sim
from tests.harness.waiting import eventually
from tests.providers.rented import end, running
from tests.providers.sim.conftest import MakeMarket

Launch = Callable[..., Instance]


def kinds(market: Sim) -> list[str]:
    """One listing."""
    return sorted(resource.kind for resource in market.side_resources())


def leaked(market: Sim, offer: Offer, launch: Launch) -> SideResource:
    """The disk that an instance has left behind."""
    end(market, launch(market, offer))
    (disk,) = market.side_resources()
    return disk


def test_an_instance_has_a_disk_and_an_address(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("boot=0s")
    assert isinstance(market, HasSideResources)
    assert list(market.side_resources()) == []
    instance = launch(market, offer)
    disk, address = sorted(market.side_resources(), key=lambda resource: resource.kind, reverse=True)
    assert (disk.kind, disk.usd_per_hour) == ("disk", Decimal("0.01"))
    assert (address.kind, address.usd_per_hour) == ("address", Decimal("0.005"))
    for resource in (disk, address):
        assert (resource.token, resource.cluster, resource.owner) == (
            instance.token,
            instance.cluster,
            instance.owner,
        )
        assert resource.ref.region == instance.ref.region
    launch(market, offer)
    assert kinds(market) == ["address", "address", "disk", "disk"]
    assert len({resource.ref for resource in market.side_resources()}) == 4


def test_what_is_beside_an_instance_goes_with_it(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("boot=0s")
    one, other = launch(market, offer), launch(market, offer)
    end(market, one)
    assert {resource.token for resource in market.side_resources()} == {other.token}
    assert kinds(market) == ["address", "disk"]


def test_an_instance_that_ends_by_itself_leaves_nothing(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("boot=0s")
    instance = launch(market, offer, expires_at=utcnow() + timedelta(seconds=0.5))
    eventually(lambda: market.get(instance.ref).state is InstanceState.TERMINATED)
    assert kinds(market) == []


def test_an_instance_that_failed_has_its_disk_until_it_is_ended(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    pid = market.settings.state_dir / "instances" / instance.ref.id / "pid"
    os.kill(int(pid.read_text()), signal.SIGKILL)
    eventually(lambda: market.get(instance.ref).state is InstanceState.FAILED)
    assert kinds(market) == ["address", "disk"]
    end(market, instance)
    assert kinds(market) == []


def test_what_an_instance_uses_cannot_be_removed(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("boot=0s")
    instance = launch(market, offer)
    for resource in list(market.side_resources()):
        with pytest.raises(Rejected) as caught:
            market.remove(resource)
        assert resource.ref.id in caught.value.message
        assert instance.ref.id in caught.value.why
    assert kinds(market) == ["address", "disk"]


def test_a_leaked_disk_bills_until_it_is_removed(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("leak=1")
    disk = leaked(market, offer, launch)
    assert (disk.kind, disk.usd_per_hour, disk.owner) == ("disk", Decimal("0.01"), "me")
    later = sim("seed=2")
    list(later.offers(Requirements()))  # opens the market anew
    assert list(later.side_resources()) == [disk]
    later.remove(disk)
    later.remove(disk)
    assert list(later.side_resources()) == []


def test_so_many_terminated_instances_leave_their_disks(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("leak=2,stuck=1")
    made = [launch(market, offer) for _ in range(3)]
    for instance in made:
        market.terminate(instance.ref)
        market.terminate(instance.ref)  # counts once
    eventually(lambda: not list(market.instances()))
    assert {resource.token for resource in market.side_resources()} == {made[0].token, made[1].token}
    assert kinds(market) == ["disk", "disk"]


def test_a_disk_that_is_to_stay_behind_is_there_once(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("leak=1,stuck=2")
    instance = launch(market, offer)
    market.terminate(instance.ref)
    assert kinds(market) == ["address", "disk"]
    eventually(lambda: not list(market.instances()))
    assert kinds(market) == ["disk"]


def test_an_expired_instance_has_no_disk_to_leave(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("leak=1")
    over, alive = launch(market, offer, expires_at=utcnow()), launch(market, offer)
    eventually(lambda: market.get(over.ref).state is InstanceState.TERMINATED)
    end(market, over)
    assert {resource.token for resource in market.side_resources()} == {alive.token}
    end(market, alive)
    assert [resource.token for resource in market.side_resources()] == [alive.token]


def test_the_listing_lags_like_that_of_instances(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("slow-list=2")
    launch(market, offer)
    assert [len(list(market.side_resources())) for _ in range(3)] == [0, 0, 2]
    assert [len(list(market.instances())) for _ in range(3)] == [0, 0, 1]


def test_the_listing_fails_like_any_other_request(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    assert kinds(sim("throttle=2,api500=2", "patient")) == []
    with pytest.raises(Unreachable):
        kinds(sim("api500=999", "broken"))
    anything = SideResource("sim", "disk", InstanceRef("disk-gc-missing"))
    with pytest.raises(Unreachable):
        sim("api500=1", "once").remove(anything)
    for verb in (lambda: kinds(sim("auth", "closed")), lambda: sim("auth", "closed").remove(anything)):
        with pytest.raises(AuthError):
            verb()


def test_a_launch_that_failed_has_made_nothing_beside_it(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("stockout=1")
    with pytest.raises(NoCapacity):
        launch(market, offer)
    assert kinds(market) == []
