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


def test_each_interruption_is_for_one_spot_instance_in_their_order(
    sim: MakeMarket, spot: Offer, offer: Offer, launch: Launch
) -> None:
    market = sim("interrupt@1h,interrupt@2h")
    made = [launch(market, which) for which in (offer, spot, offer, spot, spot)]
    folder = market.settings.state_dir / "instances"
    assert [read(folder / instance.ref.id).spec.interrupt_after_s for instance in made] == [
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
