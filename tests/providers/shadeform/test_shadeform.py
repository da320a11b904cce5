"""Shadeform against the contract of all adapters, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import BalanceExhausted, NoCapacity, ProviderError, QuotaExceeded, Rejected
from gpucloud.labels import key_name
from gpucloud.model import Availability, InstanceState, Market, Requirements, SshAddress, utcnow
from gpucloud.provider import LaunchSpec
from gpucloud.testing import ProviderConformance
from gpucloud_shadeform import Shadeform
from gpucloud_shadeform.adapter import newest
from tests.harness.acme.faults import Verb
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import Served, answers, serving
from tests.harness.rental.shadeform import ShadeformCloud
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, cheapest, identity_in


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(ShadeformCloud()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Shadeform:
    return adapter_at(Shadeform, served, tmp_path)


UNNAMED = Deviation("GET .*", "is not one of", "a word that is new, which no document names yet")


def key_of(spec: LaunchSpec) -> dict[str, str]:
    """The spec's key as the account has it after a launch."""
    return {"name": key_name(spec), "public_key": spec.public_key}


class TestShadeform(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Shadeform) -> Shadeform:
        return provider


def test_offers_are_of_each_region_and_name_whose_machine_it_is(provider: Shadeform) -> None:
    found = {(o.upstream, o.region, o.market): o for o in provider.offers(Requirements())}
    h100 = found["hyperstack", "montreal-canada-2", Market.ON_DEMAND]
    assert (h100.instance_type, str(h100.gpu), h100.gpu_count) == (
        "hyperstack/H100_sxm5x8",
        "H100-SXM-80",
        8,
    )
    assert (h100.usd_per_hour, h100.amount, h100.currency) == (Decimal("19.2"), Decimal("19.2"), "USD")
    assert (h100.confidence, h100.country, h100.availability) == ("live", "CA", Availability.AVAILABLE)
    assert found["hyperstack", "montreal-canada-2", Market.SPOT].usd_per_hour == Decimal("9.60")
    assert found["hyperstack", "houston-usa-1", Market.ON_DEMAND].availability is Availability.UNAVAILABLE
    assert found["verda", "helsinki-finland-1", Market.ON_DEMAND].usd_per_hour == Decimal("22.96")
    assert found["massedcompute", "desmoines-usa-1", Market.ON_DEMAND].gpu_count == 1


class Twins(ShadeformCloud):
    """Of one type there is a second line, which has none of what the first has but its price is higher."""

    def _types(self) -> list[dict[str, Any]]:
        first, *others = super()._types()
        return [first, {**first, "cloud_instance_type": "n3-H100-SXM5x8-b", "hourly_price": 2500}, *others]


def test_of_lines_that_a_launch_cannot_choose_between_the_dearest_counts(tmp_path: Path) -> None:
    with serving(Twins()) as served:
        provider = adapter_at(Shadeform, served, tmp_path)
        wanted = {"upstream": "hyperstack", "region": "montreal-canada-2", "market": Market.ON_DEMAND}
        assert an_offer(provider, **wanted).usd_per_hour == Decimal("25")


def test_a_launch_says_all_that_shadeform_wants_to_know(
    served: Served, provider: Shadeform, tmp_path: Path
) -> None:
    ends = utcnow() + timedelta(hours=2)
    offer = an_offer(provider, region="montreal-canada-2", market=Market.ON_DEMAND)
    provider.launch(offer, a_spec(identity_in(tmp_path), expires_at=ends))
    (asked,) = served.market.asked("POST", "/v1/instances/create")
    assert (asked["cloud"], asked["shade_instance_type"]) == ("hyperstack", "H100_sxm5x8")
    assert (asked["shade_cloud"], asked["rental_type"]) == (True, "on_demand")
    assert asked["os"] == "ubuntu22.04_cuda12.8_shade_os"
    ending = asked["auto_delete"]
    assert datetime.fromisoformat(ending["date_threshold"]) == ends.replace(microsecond=0)
    # Two hours are $38.40 at most.
    assert ending["spend_threshold"] == "39"


def test_without_a_lease_nothing_ends_by_itself(served: Served, provider: Shadeform, tmp_path: Path) -> None:
    provider.launch(cheapest(provider), a_spec(identity_in(tmp_path)))
    (asked,) = served.market.asked("POST", "/v1/instances/create")
    assert "auto_delete" not in asked


def test_spot_is_rented_as_spot(served: Served, provider: Shadeform, tmp_path: Path) -> None:
    instance = provider.launch(an_offer(provider, market=Market.SPOT), a_spec(identity_in(tmp_path)))
    found = running(provider, instance)
    assert (found.market, found.usd_per_hour) == (Market.SPOT, Decimal("9.60"))
    served.market.things[found.ref.id].state = "deleting"
    assert not provider.get(found.ref).interrupted


class TakenBack(ShadeformCloud):
    """Every machine has been taken back."""

    def _row(self, thing: Any) -> dict[str, Any]:
        return {**super()._row(thing), "status": "deleting", "status_details": "preempted"}


def test_what_shadeform_takes_back_is_interrupted(tmp_path: Path) -> None:
    with serving(TakenBack()) as served:
        provider = adapter_at(Shadeform, served, tmp_path)
        provider.launch(an_offer(provider, market=Market.SPOT), a_spec(identity_in(tmp_path)))
        (found,) = provider.instances()
    assert (found.state, found.interrupted) == (InstanceState.TERMINATING, True)


def test_a_moved_expiry_moves_what_may_be_spent_until_then(
    served: Served, provider: Shadeform, tmp_path: Path
) -> None:
    spec = a_spec(identity_in(tmp_path), expires_at=utcnow() + timedelta(hours=1))
    offer = an_offer(provider, region="montreal-canada-2", market=Market.ON_DEMAND)
    instance = provider.launch(offer, spec)
    until = datetime(2099, 1, 1, tzinfo=UTC)
    provider.expire(instance.ref, utcnow() + timedelta(hours=10))
    provider.expire(instance.ref, until)
    sooner, later = (one["auto_delete"] for one in served.market.asked("POST", "/v1/instances/.*/update"))
    assert sooner["spend_threshold"] == "192"
    assert Decimal(later["spend_threshold"]) > 1_000_000
    assert provider.get(instance.ref).expires_at == until


@pytest.mark.parametrize("told", ["", "soon", "2099-13-01T00:00:00"])
def test_a_date_that_makes_no_sense_is_that_of_the_tag(
    served: Served, provider: Shadeform, tmp_path: Path, told: str
) -> None:
    ends = utcnow().replace(microsecond=0) + timedelta(hours=1)
    instance = provider.launch(cheapest(provider), a_spec(identity_in(tmp_path), expires_at=ends))
    served.market.things[instance.ref.id].more["shown"] = told
    assert provider.get(instance.ref).expires_at == ends


def test_a_mapped_port_and_the_name_of_a_host_are_an_address(
    served: Served, provider: Shadeform, tmp_path: Path
) -> None:
    served.market.on_boot = lambda boot: SshAddress("gpu.example.net", 31022)
    instance = provider.launch(cheapest(provider), a_spec(identity_in(tmp_path)))
    assert provider.get(instance.ref).ssh is None
    assert running(provider, instance).ssh == SshAddress("gpu.example.net", 31022, "shadeform")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("error", InstanceState.FAILED),
        ("deleted", InstanceState.TERMINATED),
        ("on fire", InstanceState.UNKNOWN),
    ],
)
def test_states(served: Served, provider: Shadeform, tmp_path: Path, word: str, state: InstanceState) -> None:
    instance = provider.launch(cheapest(provider), a_spec(identity_in(tmp_path)))
    served.market.things[instance.ref.id].state = word
    served.market.deviations += (UNNAMED,)
    assert provider.get(instance.ref).state is state


def test_a_key_is_added_once_and_nobody_else_s_is_touched(
    served: Served, provider: Shadeform, tmp_path: Path
) -> None:
    key = identity_in(tmp_path)
    one, other = (provider.launch(cheapest(provider), a_spec(key)) for _ in range(2))
    assert [thing.more["name"] == "Shadeform Managed" for thing in served.market.beside()] == [True, False]
    assert len({machine.asked["ssh_key_id"] for machine in served.market.instances()}) == 1
    provider.terminate(one.ref)
    (shared,) = provider.shared_resources()
    with pytest.raises(Rejected, match="refused"):
        provider.remove_shared(shared)
    provider.terminate(other.ref)
    provider.remove_shared(shared)
    assert [thing.more["name"] for thing in served.market.beside()] == ["Shadeform Managed"]


class Slow(ShadeformCloud):
    """A key that is added shows only once somebody has tried to add it again."""

    @answers("GET", "/v1/sshkeys")
    def keys(self, request: Any) -> Any:
        """All but ours, the first time."""
        told = super().keys(request)
        tried = len(self.asked("POST", "/v1/sshkeys/add"))
        return {"ssh_keys": told["ssh_keys"][: 1 + tried]}


def test_a_key_that_another_launch_adds_at_the_same_time_is_used(tmp_path: Path) -> None:
    with serving(Slow()) as served:
        provider, key = adapter_at(Shadeform, served, tmp_path), identity_in(tmp_path)
        spec = a_spec(key)
        known = served.market.put("ssh-key", {}, bills=False, **key_of(spec))
        provider.launch(cheapest(provider), spec)
        assert served.market.instances()[0].asked["ssh_key_id"] == known.id


class Dearer(ShadeformCloud):
    """After the first look everything costs a cent more."""

    def _types(self) -> list[dict[str, Any]]:
        looks = len(self.asked("GET", "/v1/instances/types"))
        return [{**kind, "hourly_price": kind["hourly_price"] + looks - 1} for kind in super()._types()]


def test_what_costs_more_than_it_did_is_not_rented(tmp_path: Path) -> None:
    with serving(Dearer()) as served:
        provider = adapter_at(Shadeform, served, tmp_path)
        offer = an_offer(provider, market=Market.ON_DEMAND, region="helsinki-finland-1")
        with pytest.raises(NoCapacity, match="has changed") as refused:
            provider.launch(offer, a_spec(identity_in(tmp_path)))
        assert refused.value.why == "it is $22.97 an hour and was $22.96"
        assert not served.market.instances()


def test_what_is_not_listed_any_more_is_not_rented(
    served: Served, provider: Shadeform, tmp_path: Path
) -> None:
    offer = an_offer(provider, availability=Availability.UNAVAILABLE)
    with pytest.raises(NoCapacity, match="not sold any more"):
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert len(served.market.beside()) == 1


@pytest.mark.parametrize(
    ("status", "code", "text", "kind"),
    [
        (400, "INSUFFICIENT_FUNDS", "Please top up.", BalanceExhausted),
        (409, "OUT_OF_STOCK", "The requested instance is out of stock.", NoCapacity),
        (400, "BAD_REQUEST", "instance type is not available in this region", NoCapacity),
        (403, "FORBIDDEN", "quota for this instance type exceeded", QuotaExceeded),
        (422, "BAD_REQUEST", "name is too long", Rejected),
    ],
)
def test_shadeform_says_no(
    served: Served,
    provider: Shadeform,
    tmp_path: Path,
    status: int,
    code: str,
    text: str,
    kind: type[ProviderError],
) -> None:
    offer = cheapest(provider)
    served.market.refuse(Verb.CREATE, status, {"error_code": code, "error": text})
    with pytest.raises(kind) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert (refused.value.vendor_code, refused.value.vendor_text) == (code, text)
    assert not refused.value.outcome_unknown


@pytest.mark.parametrize(
    ("systems", "chosen"),
    [
        (
            ["ubuntu22.04_cuda12.8_shade_os", "ubuntu22.04_cuda12.10_shade_os"],
            "ubuntu22.04_cuda12.10_shade_os",
        ),
        (["ubuntu22.04_cuda12.8_shade_os", "ubuntu24.04_cuda12.4_shade_os"], "ubuntu24.04_cuda12.4_shade_os"),
        (["ubuntu24.04"], None),
        ([], None),
    ],
)
def test_the_newest_system_with_a_driver_is_chosen(systems: list[str], chosen: str | None) -> None:
    assert newest(systems) == chosen
