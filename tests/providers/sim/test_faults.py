"""Each word of a script strikes exactly as it says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import pytest

from gpucloud.errors import (
    AuthError,
    NoCapacity,
    NotFound,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud.model import Instance, InstanceRef, InstanceState, Market, Offer, Requirements, utcnow
from gpucloud.remote.keys import Identity
from gpucloud_local.api import read
from gpucloud_sim import Sim
from tests.harness.waiting import eventually
from tests.providers.rented import Rented, a_spec, running
from tests.providers.sim.conftest import MakeMarket

Launch = Callable[..., Instance]


def outcome(action: Callable[[], object]) -> type[ProviderError] | None:
    """How a request fails; ``None`` when it does not."""
    try:
        action()
    except ProviderError as error:
        return type(error)
    return None


def prices(provider: Sim) -> dict[str, Decimal]:
    """The price list."""
    return {offer.id: offer.usd_per_hour for offer in provider.offers(Requirements(markets=()))}


def listed(provider: Sim) -> dict[str, InstanceState]:
    """One listing."""
    return {instance.ref.id: instance.state for instance in provider.instances()}


def test_stockout_refuses_so_many_launches(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("stockout=2")
    for _ in range(2):
        with pytest.raises(NoCapacity) as caught:
            launch(market, offer)
        assert (caught.value.vendor_code, caught.value.lasting) == ("STOCKOUT", True)
        assert not caught.value.outcome_unknown
    assert listed(market) == {}
    instance = launch(market, offer)
    assert set(listed(market)) == {instance.ref.id}


def test_quota_refuses_so_many_launches_and_before_the_stock_is_asked(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("quota=1,stockout=1")
    assert [outcome(lambda: launch(market, offer)) for _ in range(3)] == [QuotaExceeded, NoCapacity, None]


def test_boot_is_how_long_ssh_takes(sim: MakeMarket, offer: Offer, launch: Launch, key: Identity) -> None:
    market = sim("boot=1s")
    instance = launch(market, offer)
    assert (instance.state, instance.ssh) == (InstanceState.PENDING, None)
    assert instance.created_at is not None
    up = running(market, instance)
    assert utcnow() - instance.created_at >= timedelta(seconds=1)
    assert Rented(market, up, key).say("echo up") == "up"


def test_a_bad_host_never_answers_and_the_next_one_does(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("badhost=1")
    bad, good = launch(market, offer), launch(market, offer)
    running(market, good)
    assert market.get(bad.ref).state is InstanceState.PENDING
    assert market.host_keys(bad.ref) == ()
    market.terminate(bad.ref)
    eventually(lambda: set(listed(market)) == {good.ref.id})


def test_a_spot_instance_is_warned_and_then_taken_back(
    sim: MakeMarket, spot: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("interrupt@3s,notice=2s")
    instance = launch(market, spot)
    assert instance.created_at is not None
    machine = Rented(market, running(market, instance), key)
    home = market.settings.state_dir / "instances" / instance.ref.id / "home"
    notice = home / ".interruption-notice"
    probe = market.traits.notice_probe
    eventually(notice.exists)
    assert utcnow() - instance.created_at >= timedelta(seconds=1)
    assert machine.run(probe).status == 0
    assert market.get(instance.ref).state is InstanceState.RUNNING

    eventually(lambda: market.get(instance.ref).state is InstanceState.TERMINATED)
    assert utcnow() - instance.created_at >= timedelta(seconds=3)
    over = market.get(instance.ref)
    assert (over.interrupted, over.alive, over.ssh) == (True, False, None)
    (shown,) = market.instances()
    assert shown == over
    eventually(lambda: not read(home.parent).alive)
    assert not home.exists()
    market.terminate(instance.ref)
    eventually(lambda: listed(market) == {})


def test_the_warning_is_not_there_before_its_time(
    sim: MakeMarket, spot: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("interrupt@1h")
    machine = Rented(market, running(market, launch(market, spot)), key)
    assert machine.run(market.traits.notice_probe).status == 1


def test_a_job_can_ask_for_the_interruption_that_is_in_store(
    sim: MakeMarket, spot: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("interrupt@asked,notice=0s")
    instance = launch(market, spot)
    machine = Rented(market, running(market, instance), key)
    assert machine.run(market.traits.notice_probe).status == 1
    assert machine.run("touch ~/.interrupt").status == 0
    eventually(lambda: market.get(instance.ref).interrupted)


def test_each_interruption_is_for_one_spot_instance_in_their_order(
    sim: MakeMarket, spot: Offer, offer: Offer, launch: Launch
) -> None:
    market = sim("interrupt@1h,interrupt@2h")
    made = [launch(market, which) for which in (offer, spot, offer, spot, spot)]
    folder = market.settings.state_dir / "instances"
    assert [read(folder / instance.ref.id).spec.interrupt_at for instance in made] == [
        None,
        3600,
        None,
        7200,
        None,
    ]


def test_prices_change_when_the_script_says(sim: MakeMarket) -> None:
    market = sim("price*2@1s,price*1.5@1s")
    before, opened_by = prices(market), utcnow()
    eventually(lambda: prices(market) != before)
    assert utcnow() - opened_by >= timedelta(seconds=0.5)
    assert prices(market) == pytest.approx(
        {id: price * 3 for id, price in before.items()}, abs=Decimal("0.0002")
    )


def test_a_price_without_a_time_is_there_from_the_beginning(sim: MakeMarket) -> None:
    plain = prices(sim("", "plain"))
    assert prices(sim("price*2", "dear")) == pytest.approx(
        {id: price * 2 for id, price in plain.items()}, abs=Decimal("0.0001")
    )


def test_what_runs_as_spot_costs_what_spot_has_come_to_cost(
    sim: MakeMarket, spot: Offer, offer: Offer, launch: Launch
) -> None:
    market = sim("price*3,price*2@2s,price*1.5@2s,price*9@1h")
    agreed = launch(market, offer)
    moving = [launch(market, spot)]
    assert moving[0].usd_per_hour == spot.usd_per_hour
    eventually(lambda: market.get(moving[0].ref).usd_per_hour != spot.usd_per_hour)
    assert market.get(moving[0].ref).usd_per_hour == spot.usd_per_hour * 3
    moving.append(launch(market, spot))
    shown = {instance.ref: instance.usd_per_hour for instance in market.instances()}
    assert shown == {
        agreed.ref: offer.usd_per_hour,
        moving[0].ref: spot.usd_per_hour * 3,
        moving[1].ref: spot.usd_per_hour,
    }


def test_throttle_refuses_so_many_requests_and_a_launch_is_not_repeated(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("throttle=3")
    assert [outcome(lambda: launch(market, offer)) for _ in range(4)] == [RateLimited] * 3 + [None]
    assert len(listed(market)) == 1


def test_reads_are_repeated_while_the_vendor_is_out_of_sorts(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    assert prices(sim("throttle=3,api500=2", "one"))
    assert listed(sim("throttle=2,api500=2", "two")) == {}
    with pytest.raises(NotFound):
        sim("api500=2", "three").get(InstanceRef("gc-missing"))


def test_the_market_of_the_manual_can_be_asked_for_prices(sim: MakeMarket) -> None:
    script = "stockout=2,boot=5s,interrupt@40s,badhost=1,price*1.2@30s"
    assert prices(sim(f"{script},throttle=3,api500=2,lost-reply=1,slow-list=3")) == prices(sim("", "plain"))


def test_a_vendor_that_stays_out_of_sorts_is_given_up(sim: MakeMarket) -> None:
    with pytest.raises(Unreachable):
        prices(sim("throttle=1,api500=999"))


def test_a_failure_inside_the_provider_leaves_the_outcome_of_a_launch_unknown(
    sim: MakeMarket, offer: Offer, launch: Launch
) -> None:
    market = sim("api500=1")
    with pytest.raises(Unreachable) as caught:
        launch(market, offer)
    assert (caught.value.outcome_unknown, caught.value.vendor_code) == (True, "500")
    assert listed(market) == {}
    launch(market, offer)


def test_a_failure_inside_the_provider_is_known_to_have_read_nothing(sim: MakeMarket) -> None:
    market = sim("api500=1")
    with pytest.raises(Unreachable) as caught:
        market.terminate(InstanceRef("gc-missing"))
    assert not caught.value.outcome_unknown
    market.terminate(InstanceRef("gc-missing"))


def test_a_lost_reply_has_launched(sim: MakeMarket, offer: Offer, key: Identity, launch: Launch) -> None:
    market, spec = sim("lost-reply=1"), a_spec(key)
    with pytest.raises(Unreachable) as caught:
        market.launch(offer, spec)
    assert caught.value.outcome_unknown
    (found,) = market.instances()
    assert (found.token, found.cluster, found.owner) == (spec.token, spec.cluster, spec.owner)
    assert Rented(market, running(market, found), key).say("echo there") == "there"
    assert launch(market, offer).token != spec.token


def test_an_error_reply_may_hide_an_instance(
    sim: MakeMarket, offer: Offer, key: Identity, launch: Launch
) -> None:
    market, spec = sim("error-but-created=1"), a_spec(key)
    with pytest.raises(Rejected) as caught:
        market.launch(offer, spec)
    assert (caught.value.outcome_unknown, caught.value.vendor_code) == (True, "ALLOCATION_FAILED")
    (found,) = market.instances()
    assert (found.token, found.owner) == (spec.token, spec.owner)
    assert Rented(market, running(market, found), key).say("echo there") == "there"
    assert launch(market, offer).token != spec.token


def test_a_launch_that_was_done_twice_made_two_with_one_token(
    sim: MakeMarket, offer: Offer, key: Identity, launch: Launch
) -> None:
    market = sim("twice=1")
    instance = launch(market, offer)
    one, other = market.instances()
    assert one.token == other.token == instance.token
    assert instance.ref in {one.ref, other.ref}
    assert one.ref != other.ref
    assert one.usd_per_hour == other.usd_per_hour == offer.usd_per_hour
    for twin in (one, other):
        assert Rented(market, running(market, twin), key).say("echo there") == "there"
    assert len(list(market.side_resources())) == 4
    market.terminate(one.ref)
    eventually(lambda: set(listed(market)) == {other.ref.id})
    market.terminate(other.ref)
    eventually(lambda: listed(market) == {})
    launch(market, offer)
    assert len(listed(market)) == 1


def test_an_instance_is_listed_before_it_is_found(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("forget=2")
    first, second = launch(market, offer), launch(market, offer)
    assert set(listed(market)) == {first.ref.id, second.ref.id}
    for instance in (first, second):
        found = [outcome(lambda ref=instance.ref: market.get(ref)) for _ in range(3)]  # type: ignore[misc]
        assert found == [NotFound, NotFound, None]
    market.terminate(first.ref)
    eventually(lambda: set(listed(market)) == {second.ref.id})


def test_so_many_listings_fail_however_patient_one_is(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("nolist=2")
    instance = launch(market, offer)
    for _ in range(2):
        with pytest.raises(Unreachable) as caught:
            market.instances()
        assert caught.value.retryable
    assert set(listed(market)) == {instance.ref.id}


def test_so_many_terminates_fail_and_end_nothing(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("terminate500=2")
    instance = running(market, launch(market, offer))
    for _ in range(2):
        with pytest.raises(Unreachable) as caught:
            market.terminate(instance.ref)
        assert caught.value.vendor_code == "500"
        assert Rented(market, instance, key).say("echo still on") == "still on"
        assert listed(market) == {instance.ref.id: InstanceState.RUNNING}
    market.terminate(instance.ref)
    eventually(lambda: listed(market) == {})


def test_a_terminate_whose_answer_is_lost_has_ended_it(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("lost-terminate=1")
    instance = launch(market, offer)
    with pytest.raises(Unreachable):
        market.terminate(instance.ref)
    eventually(lambda: listed(market) == {})
    market.terminate(instance.ref)


def test_what_is_terminated_says_so_until_it_is_gone(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    market.terminate(instance.ref)
    assert listed(market) in ({}, {instance.ref.id: InstanceState.TERMINATING})
    eventually(lambda: listed(market) == {})


def test_a_slow_listing_shows_an_instance_late(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("slow-list=2")
    first = launch(market, offer)
    assert market.get(first.ref).token == first.token
    assert listed(market) == {}
    second = launch(market, offer)
    assert [set(listed(market)) for _ in range(3)] == [
        set(),
        {first.ref.id},
        {first.ref.id, second.ref.id},
    ]


def test_a_stuck_instance_goes_on_until_it_was_listed_often_enough(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("stuck=2")
    instance = running(market, launch(market, offer))
    market.terminate(instance.ref)
    assert market.get(instance.ref).state is InstanceState.TERMINATING
    assert Rented(market, instance, key).say("echo still on") == "still on"
    market.terminate(instance.ref)  # does not help
    assert listed(market) == {instance.ref.id: InstanceState.TERMINATING}
    assert Rented(market, instance, key).say("echo still on") == "still on"
    assert listed(market) == {instance.ref.id: InstanceState.TERMINATING}
    eventually(lambda: listed(market) == {})
    with pytest.raises(NotFound):
        market.get(instance.ref)


def test_without_credentials_nothing_works(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market, ref = sim("auth"), InstanceRef("gc-missing")
    for verb in (
        lambda: prices(market),
        lambda: launch(market, offer),
        lambda: market.get(ref),
        lambda: list(market.instances()),
        lambda: market.terminate(ref),
        lambda: market.host_keys(ref),
        lambda: market.stop(ref),
        lambda: market.start(ref),
        lambda: market.expire(ref, utcnow()),
    ):
        with pytest.raises(AuthError):
            verb()
    assert list((market.settings.state_dir).glob("instances/*")) == []


def test_terminate_while_it_boots_ends_it(sim: MakeMarket, offer: Offer, launch: Launch) -> None:
    market = sim("boot=1h")
    instance = launch(market, offer)
    market.terminate(instance.ref)
    eventually(lambda: listed(market) == {})
    eventually(lambda: list((market.settings.state_dir / "instances").iterdir()) == [])


def test_the_provider_tells_the_host_key_that_the_instance_shows(
    sim: MakeMarket, offer: Offer, launch: Launch, key: Identity
) -> None:
    market = sim("boot=0s")
    instance = running(market, launch(market, offer))
    (reported,) = market.host_keys(instance.ref)
    with Rented(market, instance, key).connect(pinned=reported) as connection:
        assert connection.host_key == reported
    assert market.host_keys(InstanceRef("gc-missing")) == ()


def test_every_type_is_offered_everywhere_on_demand_and_for_less_as_spot(sim: MakeMarket) -> None:
    offers = list(sim().offers(Requirements(markets=())))
    by_place = {(o.instance_type, o.region, o.market): o for o in offers}
    assert len(by_place) == len(offers)
    for (instance_type, region, market), offer in by_place.items():
        if market is Market.SPOT:
            assert offer.usd_per_hour < by_place[instance_type, region, Market.ON_DEMAND].usd_per_hour
        assert (offer.source, offer.confidence) == ("simulation", "simulated")
    assert {str(o.gpu) for o in offers if o.gpu} == {"RTX4090-24", "H100-SXM-80"}
