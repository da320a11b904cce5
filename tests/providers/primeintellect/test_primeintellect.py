"""Prime Intellect against the contract of all adapters, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import BadReply, BalanceExhausted, NoCapacity, ProviderError, QuotaExceeded, Rejected
from gpucloud.labels import from_text
from gpucloud.model import Availability, Gpu, GpuWish, InstanceState, Market, Offer, Requirements, SshAddress
from gpucloud.testing import ProviderConformance
from gpucloud_primeintellect import Primeintellect
from gpucloud_primeintellect.adapter import address
from tests.harness.acme.faults import Verb
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import Served, serving
from tests.harness.rental.primeintellect import PrimeIntellectCloud
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, cheapest, identity_in

UNNAMED = Deviation(
    "GET .*", "is not (one of|valid under any)", "a word that is new, which no document names yet"
)


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(PrimeIntellectCloud()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Primeintellect:
    adapter = adapter_at(Primeintellect, served, tmp_path)
    adapter.settings = replace(adapter.settings, rates={"EUR": Decimal("1.25")})
    return adapter


class TestPrimeIntellect(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Primeintellect) -> Primeintellect:
        return provider


def sold(provider: Primeintellect, **wanted: Any) -> dict[str, Offer]:
    """The offers by whose machines they are."""
    return {str(offer.upstream): offer for offer in provider.offers(Requirements(**wanted))}


def test_every_page_is_read(served: Served, provider: Primeintellect) -> None:
    assert len(list(provider.offers(Requirements()))) == 7
    assert [request.args["page"] for request in served.market.requests] == ["1", "2", "3"]


def test_offers_are_told_as_prime_intellect_means_them(provider: Primeintellect) -> None:
    h100 = sold(provider)["hyperstack"]
    assert (h100.instance_type, str(h100.gpu), h100.gpu_count) == (
        "hyperstack/8xH100_80GB",
        "H100-SXM-80",
        8,
    )
    assert (h100.usd_per_hour, h100.currency, h100.secure) == (Decimal("19.2"), "USD", True)
    assert (h100.region, h100.zone, h100.country) == ("canada", "CANADA-1", "CA")
    assert (h100.vcpus, h100.memory_gib, h100.disk_gib) == (192, Decimal(1800), Decimal(100))
    assert (h100.availability, h100.availability_detail) == (Availability.AVAILABLE, "Available")
    assert h100.interconnect == "infiniband"


def test_what_costs_on_top_is_in_the_price(provider: Primeintellect) -> None:
    found = {(o.upstream, o.gpu_count): o for o in provider.offers(Requirements())}
    low = found["runpod", 8]
    # 80 GB of disk at $0.00014.
    assert (low.usd_per_hour, low.disk_gib) == (Decimal("21.5312"), Decimal(80))
    assert (low.availability, low.inet_down_mbps) == (Availability.LIMITED, 10_000)
    assert low.interconnect == "nvlink"
    # 100 GB at $0.001, 64 CPUs at $0.01 and 512 GB at $0.005.
    assert found["tensordock", 8].usd_per_hour == Decimal("21.3")
    # The usual disk is in the price.
    community = found["runpod", 1]
    assert (community.usd_per_hour, community.secure) == (Decimal("20.34"), False)


def test_euros_are_dollars_by_the_rate_of_the_day(provider: Primeintellect) -> None:
    spot = sold(provider)["verda"]
    assert (spot.usd_per_hour, spot.amount, spot.currency) == (Decimal("25"), Decimal("20"), "EUR")
    assert spot.market is Market.SPOT


def test_hours_that_are_paid_ahead_are_the_least_that_is_billed(provider: Primeintellect) -> None:
    prepaid = sold(provider)["massedcompute"]
    assert (prepaid.minimum_s, prepaid.availability) == (86_400, Availability.UNAVAILABLE)


def test_a_machine_without_gpus_is_whose_the_account_is(provider: Primeintellect) -> None:
    bare = sold(provider)["None"]
    assert (bare.gpu, bare.gpu_count, bare.vcpus) == (None, 0, 32)


def test_only_the_wanted_number_of_gpus_is_asked_for(served: Served, provider: Primeintellect) -> None:
    found = sold(provider, gpus=(GpuWish(8, Gpu("H100")), GpuWish(8, Gpu("H200"))))
    assert {offer.gpu_count for offer in found.values()} == {8}
    assert {request.args["gpu_count"] for request in served.market.requests} == {"8"}


@pytest.mark.parametrize(
    ("wanted", "disk", "usd"),
    [(None, 80, "21.5312"), (60, 80, "21.5312"), (101, 110, "21.5354"), (1001, 80, "21.5312")],
)
def test_a_larger_disk_is_priced_and_rented(
    served: Served,
    provider: Primeintellect,
    tmp_path: Path,
    wanted: int | None,
    disk: int,
    usd: str,
) -> None:
    offer = next(o for o in provider.offers(Requirements(min_disk_gib=wanted)) if o.zone == "US-KS-2")
    assert (offer.disk_gib, offer.usd_per_hour) == (Decimal(disk), Decimal(usd))
    provider.launch(offer, a_spec(identity_in(tmp_path), disk_gib=wanted))
    assert served.market.instances()[0].asked.get("diskSize") == (disk if wanted else None)


class Odd(PrimeIntellectCloud):
    """One line with something about it, and a good one."""

    def __init__(self, **odd: Any) -> None:
        super().__init__()
        self.odd = odd

    def _gpus(self) -> list[dict[str, Any]]:
        first, *others = super()._gpus()
        return [{**first, **self.odd}, others[0]]


NOT_TOLD = {"defaultCount": 100, "pricePerUnit": 0.01, "defaultIncludedInPrice": None}


@pytest.mark.parametrize(
    "odd",
    [
        {"disk": NOT_TOLD},
        {"vcpu": NOT_TOLD},
        {"memory": {"defaultCount": 100, "defaultIncludedInPrice": False}},
        {"memory": {}},
        {"sharedDisk": NOT_TOLD},
        {"prices": {"onDemand": None, "communityPrice": 1, "currency": "USD"}},
        {"prices": {"onDemand": 0, "currency": "USD"}},
        {"security": "community_cloud"},
        {"gpuCount": 0},
    ],
)
def test_a_price_that_is_not_certain_is_no_offer(tmp_path: Path, odd: dict[str, Any]) -> None:
    with serving(Odd(**odd)) as served:
        (offer,) = adapter_at(Primeintellect, served, tmp_path).offers(Requirements())
    assert offer.upstream == "runpod"


def test_a_shared_disk_counts_in_the_price(tmp_path: Path) -> None:
    shared = {"defaultCount": 100, "pricePerUnit": 0.01, "defaultIncludedInPrice": False}
    with serving(Odd(sharedDisk=shared)) as served:
        found = sold(adapter_at(Primeintellect, served, tmp_path))
    assert found["hyperstack"].usd_per_hour == Decimal("20.2")


class Foreign(Odd):
    """The line has the price of a currency that nobody has a rate of."""

    deviations = (*PrimeIntellectCloud.deviations, UNNAMED)


def test_an_unknown_currency_is_no_offer(tmp_path: Path) -> None:
    with serving(Foreign(prices={"onDemand": 1, "currency": "XTS"})) as served:
        assert sold(adapter_at(Primeintellect, served, tmp_path)).keys() == {"runpod"}


class Endless(PrimeIntellectCloud):
    """Whatever page is asked for, there is one."""

    def _gpus(self) -> list[dict[str, Any]]:
        return super()._gpus()[:1] * 1000


def test_a_listing_without_end_is_a_bad_reply(tmp_path: Path) -> None:
    with serving(Endless()) as served, pytest.raises(BadReply, match="without end"):
        list(adapter_at(Primeintellect, served, tmp_path).offers(Requirements()))


def test_all_machines_are_listed_page_by_page(
    served: Served, provider: Primeintellect, tmp_path: Path
) -> None:
    key, offer = identity_in(tmp_path), cheapest(provider)
    launched = {provider.launch(offer, a_spec(key)).ref for _ in range(4)}
    assert {instance.ref for instance in provider.instances()} == launched


def test_a_launch_says_all_that_prime_intellect_wants_to_know(
    served: Served, provider: Primeintellect, tmp_path: Path
) -> None:
    spec = a_spec(identity_in(tmp_path), owner="Zoë@home")
    instance = provider.launch(sold(provider)["hyperstack"], spec)
    (body,) = served.market.asked("POST", "/api/v1/pods/")
    assert body["provider"] == {"type": "hyperstack"}
    pod = body["pod"]
    assert (pod["cloudId"], pod["gpuType"], pod["socket"], pod["gpuCount"]) == (
        "n3-H100-SXM5x8",
        "H100_80GB",
        "SXM5",
        8,
    )
    assert (pod["dataCenterId"], pod["country"], pod["security"]) == ("CANADA-1", "CA", "secure_cloud")
    assert pod["image"] == "ubuntu_22_cuda_12"
    assert not {"maxPrice", "diskSize"} & pod.keys()
    assert from_text(pod["name"]) == spec.tags
    assert provider.get(instance.ref).owner == "Zoë@home"


def test_a_machine_without_gpus_is_one_of_them(tmp_path: Path) -> None:
    with serving(Odd(gpuType="CPU_NODE", gpuCount=0, gpuMemory=0)) as served:
        provider = adapter_at(Primeintellect, served, tmp_path)
        with pytest.raises(NoCapacity):
            # The fake knows it by another number than the one under which it is ordered.
            provider.launch(sold(provider)["hyperstack"], a_spec(identity_in(tmp_path)))
        assert served.market.asked("POST", "/api/v1/pods/")[0]["pod"]["gpuCount"] == 1


@pytest.mark.parametrize(("upstream", "most"), [("hyperstack", 30), ("verda", 24)])
def test_the_cap_is_never_more_than_what_was_said(
    served: Served, provider: Primeintellect, tmp_path: Path, upstream: str, most: float
) -> None:
    spec = a_spec(identity_in(tmp_path), max_usd_per_hour=Decimal(30))
    provider.launch(sold(provider)[upstream], spec)
    assert served.market.instances()[0].asked["maxPrice"] == most


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        ("cuda_12_6_pytorch_2_7", {"image": "cuda_12_6_pytorch_2_7"}),
        (
            "cm2szl4a20001tl3pyq7ua6o7",
            {"image": "custom_template", "customTemplateId": "cm2szl4a20001tl3pyq7ua6o7"},
        ),
    ],
)
def test_an_image_is_a_name_or_a_template(
    served: Served, provider: Primeintellect, tmp_path: Path, wanted: str, sent: dict[str, str]
) -> None:
    provider.launch(sold(provider)["hyperstack"], a_spec(identity_in(tmp_path), image=wanted))
    assert sent.items() <= served.market.instances()[0].asked.items()


def test_where_the_usual_image_is_not_to_be_had_the_first_one_is_taken(
    served: Served, provider: Primeintellect, tmp_path: Path
) -> None:
    provider.launch(an_offer(provider, secure=False), a_spec(identity_in(tmp_path)))
    assert served.market.instances()[0].asked["image"] == "cuda_12_4_pytorch_2_6"


@pytest.mark.parametrize(
    ("connection", "found"),
    [
        ("root@135.23.125.123 -p 22", SshAddress("135.23.125.123", 22, "root")),
        ("ssh ubuntu@gpu.example.net -p 31022 -i key", SshAddress("gpu.example.net", 31022, "ubuntu")),
        ("ubuntu@192.0.2.1", SshAddress("192.0.2.1", 22, "ubuntu")),
        (["root@192.0.2.1 -p 40001", "root@192.0.2.2 -p 40001"], SshAddress("192.0.2.1", 40001, "root")),
        ([None, "root@192.0.2.2 -p 22"], SshAddress("192.0.2.2", 22, "root")),
        ([None], None),
        ([], None),
        ("", None),
        (None, None),
        ({"host": "192.0.2.1"}, None),
    ],
)
def test_addresses_come_in_many_forms(connection: object, found: SshAddress | None) -> None:
    assert address(connection) == found


def test_an_address_that_only_the_status_has_is_found(tmp_path: Path) -> None:
    with serving(PrimeIntellectCloud()) as served:
        served.market.shows_addresses = False
        served.market.on_boot = lambda boot: SshAddress("192.0.2.7", 31022)
        provider = adapter_at(Primeintellect, served, tmp_path)
        instance = provider.launch(cheapest(provider), a_spec(identity_in(tmp_path)))
        assert running(provider, instance).ssh == SshAddress("192.0.2.7", 31022, "root")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("ERROR", InstanceState.FAILED),
        ("STOPPED", InstanceState.STOPPED),
        ("DELETING", InstanceState.TERMINATING),
        ("TERMINATED", InstanceState.TERMINATED),
        ("UNKNOWN", InstanceState.UNKNOWN),
        ("MIGRATING", InstanceState.UNKNOWN),
    ],
)
def test_states(
    served: Served, provider: Primeintellect, tmp_path: Path, word: str, state: InstanceState
) -> None:
    instance = provider.launch(cheapest(provider), a_spec(identity_in(tmp_path)))
    served.market.things[instance.ref.id].state = word
    served.market.deviations += (UNNAMED,)
    assert provider.get(instance.ref).state is state


def test_a_pod_whose_image_could_not_be_installed_has_failed(
    served: Served, provider: Primeintellect, tmp_path: Path
) -> None:
    instance = running(provider, provider.launch(cheapest(provider), a_spec(identity_in(tmp_path))))
    assert provider.get(instance.ref).state is InstanceState.RUNNING
    served.market.things[instance.ref.id].more["installed"] = "ERROR"
    assert provider.get(instance.ref).state is InstanceState.FAILED


def test_a_key_is_added_once_and_nobody_else_s_is_touched(
    served: Served, provider: Primeintellect, tmp_path: Path
) -> None:
    for number in range(4):
        served.market.put("ssh-key", {}, bills=False, name=f"theirs-{number}", publicKey=f"ssh-rsa A{number}")
    key = identity_in(tmp_path)
    for _ in range(2):
        provider.launch(cheapest(provider), a_spec(key))
    assert len(served.market.beside()) == 5
    assert len({machine.asked["sshKeyId"] for machine in served.market.instances()}) == 1
    for resource in list(provider.shared_resources()):
        provider.remove_shared(resource)
    assert [key.more["name"][:6] for key in served.market.beside()] == ["theirs"] * 4


class Dearer(PrimeIntellectCloud):
    """After the first three pages everything costs a dollar more."""

    def _gpus(self) -> list[dict[str, Any]]:
        rows = super()._gpus()
        if len(self.asked("GET", "/api/v1/availability/gpus")) > 3:
            for row in rows:
                row["prices"]["onDemand"] = (row["prices"]["onDemand"] or 0) + 1
        return rows


def test_what_costs_more_than_it_did_is_not_rented(tmp_path: Path) -> None:
    with serving(Dearer()) as served:
        provider = adapter_at(Primeintellect, served, tmp_path)
        offer = sold(provider)["hyperstack"]
        with pytest.raises(NoCapacity, match="has changed") as refused:
            provider.launch(offer, a_spec(identity_in(tmp_path)))
        assert refused.value.why == "it is $20.2 an hour and was $19.2"
        assert not served.market.instances()


@pytest.mark.parametrize(
    ("status", "details", "kind"),
    [
        (402, "Insufficient balance. Please add funds to continue.", BalanceExhausted),
        (422, "Insufficient funds in the wallet", BalanceExhausted),
        (422, "The price is higher than maxPrice", NoCapacity),
        (422, "No capacity for this GPU", NoCapacity),
        (400, "The GPU is unavailable", NoCapacity),
        (403, "Quota exceeded for B200_180GB", QuotaExceeded),
        (422, "value is not a valid integer", Rejected),
    ],
)
def test_prime_intellect_says_no(
    served: Served,
    provider: Primeintellect,
    tmp_path: Path,
    status: int,
    details: str,
    kind: type[ProviderError],
) -> None:
    offer = cheapest(provider)
    served.market.refuse(Verb.CREATE, status, {"errors": [{"param": "pod", "details": details}]})
    with pytest.raises(kind) as refused:
        provider.launch(offer, a_spec(identity_in(tmp_path)))
    assert type(refused.value) is kind
    assert refused.value.vendor_text == details
    assert not refused.value.outcome_unknown
    assert not served.market.instances()
