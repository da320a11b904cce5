"""What an account is offered at Azure: live prices, quotas, restrictions, and what is told of spot."""

from __future__ import annotations

import json
import logging
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from gpucloud.errors import AuthError, ProviderError, Unreachable
from gpucloud.model import Availability, GpuWish, Market, Offer, Requirements
from gpucloud.provider import ProviderSettings
from gpucloud_azure import Azure
from gpucloud_azure.stock import PRICES_AT_ONCE
from tests.harness.azure import Cloud, Refusal, serving
from tests.harness.azure.market import A100, CPU, GB200, H100, MI300X, SEALED, T4, V100, restriction, sku

Make = Callable[..., Azure]
ANY = Requirements(markets=())


def by_place(offers: Any) -> dict[tuple[str, str | None, Market], Offer]:
    """Offers by size, region and market."""
    return {(offer.instance_type, offer.region, offer.market): offer for offer in offers}


def restrict(cloud: Cloud, size: str, reason: str) -> None:
    """Let a size not be had in Virginia."""
    (row,) = (each for each in cloud.skus["eastus"] if each["name"] == size)
    row["restrictions"] = [restriction("eastus", reason)]


@contextmanager
def running(service: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server that is there inside, at this address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_gpu_size_is_offered_in_every_region_on_demand_and_as_spot(azure: Azure) -> None:
    found = by_place(azure.offers(ANY))
    sizes = {A100, T4, H100, MI300X, V100, GB200}
    expected = {
        (size, region, market)
        for size in sizes
        for region in ("eastus", "westeurope")
        for market in (Market.ON_DEMAND, Market.SPOT)
        if (size, market) != (H100, Market.SPOT)
    }
    assert set(found) == expected
    assert CPU not in {size for size, _, _ in found}


def test_an_offer_says_what_the_size_has(azure: Azure) -> None:
    offer = by_place(azure.offers(ANY))[A100, "eastus", Market.SPOT]
    assert (str(offer.gpu), offer.gpu_count) == ("A100-PCIe-80", 1)
    assert (offer.vcpus, offer.memory_gib, offer.disk_gib) == (24, Decimal(220), Decimal(64))
    assert (offer.usd_per_hour, offer.source, offer.confidence) == (
        Decimal("0.9183"),
        "prices.azure.com",
        "live",
    )
    assert (offer.country, offer.zone, offer.currency) == ("US", None, "USD")
    assert offer.availability is Availability.UNKNOWN


def test_a_size_that_needs_an_image_of_its_own_is_not_offered(azure: Azure) -> None:
    assert SEALED not in {offer.instance_type for offer in azure.offers(ANY)}


def test_what_is_wanted_saves_questions(cloud: Cloud, azure: Azure) -> None:
    wanted = Requirements(gpus=(GpuWish.parse("A100"),), regions=("West Europe",), markets=(Market.SPOT,))
    (offer,) = azure.offers(wanted)
    assert (offer.instance_type, offer.region, offer.market) == (A100, "westeurope", Market.SPOT)
    assert not any("/locations/eastus/" in path for _, path in cloud.requests)


def test_a_region_without_what_is_wanted_is_not_asked_for_prices(cloud: Cloud, azure: Azure) -> None:
    for region, rows in cloud.skus.items():
        cloud.skus[region] = [row for row in rows if row["name"] != V100]
    assert list(azure.offers(Requirements(instance_types=(V100,), markets=()))) == []
    assert cloud.requests
    assert not any(path == "/api/retail/prices" for _, path in cloud.requests)


def test_for_what_no_size_has_nothing_is_asked(cloud: Cloud, azure: Azure) -> None:
    assert list(azure.offers(Requirements(gpus=(GpuWish.parse("B200"),)))) == []
    assert cloud.requests == []


def test_a_size_on_a_later_page_is_offered_too(cloud: Cloud, azure: Azure) -> None:
    plain = [sku("eastus", f"Standard_D{number}s_v5", 4, 0, 16, "standardDSv5Family") for number in range(60)]
    cloud.skus["eastus"] = plain + cloud.skus["eastus"]
    assert (A100, "eastus", Market.ON_DEMAND) in by_place(azure.offers(ANY))


@pytest.mark.parametrize("wrong", ["many", [7], [{"name": "GPUs"}], [{"name": "GPUs", "value": 1}]])
def test_a_size_that_cannot_be_read_does_not_hide_the_others(cloud: Cloud, azure: Azure, wrong: Any) -> None:
    (row,) = (each for each in cloud.skus["eastus"] if each["name"] == T4)
    row["capabilities"] = wrong
    found = by_place(azure.offers(ANY))
    assert (T4, "eastus", Market.ON_DEMAND) not in found
    assert (A100, "eastus", Market.ON_DEMAND) in found


def test_of_a_capability_that_is_told_twice_the_first_counts(cloud: Cloud, azure: Azure) -> None:
    (row,) = (each for each in cloud.skus["eastus"] if each["name"] == T4)
    row["capabilities"].append({"name": "vCPUs", "value": "400"})
    assert by_place(azure.offers(ANY))[T4, "eastus", Market.ON_DEMAND].vcpus == 4


@pytest.mark.parametrize("regions", ["eastus", ["East US"]])
def test_the_regions_can_be_restricted_by_a_setting(make: Make, regions: Any) -> None:
    assert {offer.region for offer in make(regions=regions).offers(ANY)} == {"eastus"}


# -- quotas and restrictions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quota", "limit", "market"),
    [
        ("standardNCADSA100v4Family", 20, Market.ON_DEMAND),
        ("cores", 23, Market.ON_DEMAND),
        ("lowPriorityCores", 23, Market.SPOT),
    ],
)
def test_a_quota_that_does_not_suffice_is_named_with_its_figures(
    cloud: Cloud, azure: Azure, quota: str, limit: int, market: Market
) -> None:
    cloud.quota("eastus", quota, limit, used=5)
    found = by_place(azure.offers(Requirements(instance_types=(A100,), markets=())))
    refused = {key for key, offer in found.items() if offer.availability is Availability.NO_QUOTA}
    assert refused == {(A100, "eastus", market)}
    detail = found[A100, "eastus", market].availability_detail
    assert detail == f"{quota}: 5 of {limit} vCPUs are used, and it takes 24"


def test_a_quota_is_used_up_to_its_last_core(cloud: Cloud, azure: Azure) -> None:
    cloud.quota("eastus", "StandardNCADSA100V4Family", 48, used=24)
    found = by_place(azure.offers(Requirements(instance_types=(A100,), markets=())))
    assert found[A100, "eastus", Market.ON_DEMAND].availability is Availability.UNKNOWN


def test_a_size_that_the_subscription_may_not_have_is_left_out(cloud: Cloud, azure: Azure) -> None:
    restrict(cloud, A100, "NotAvailableForSubscription")
    assert (A100, "eastus", Market.ON_DEMAND) not in by_place(azure.offers(ANY))
    assert (A100, "westeurope", Market.ON_DEMAND) in by_place(azure.offers(ANY))


def test_a_size_that_the_kind_of_subscription_excludes_has_no_quota(cloud: Cloud, azure: Azure) -> None:
    restrict(cloud, A100, "QuotaId")
    offer = by_place(azure.offers(ANY))[A100, "eastus", Market.ON_DEMAND]
    assert offer.availability is Availability.NO_QUOTA
    assert "QuotaId" in (offer.availability_detail or "")


def test_a_zone_that_is_closed_does_not_close_the_region(cloud: Cloud, azure: Azure) -> None:
    (row,) = (each for each in cloud.skus["eastus"] if each["name"] == A100)
    closed = restriction("eastus", "NotAvailableForSubscription")
    row["restrictions"] = [{**closed, "type": "Zone", "restrictionInfo": {"zones": ["1"]}}]
    assert (A100, "eastus", Market.ON_DEMAND) in by_place(azure.offers(ANY))


def test_quotas_that_may_not_be_read_leave_the_offers_unknown_and_are_told_once(
    cloud: Cloud, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.forbid("Microsoft.Compute/locations/usages/read", "/usages")
    found = by_place(azure.offers(ANY))
    assert {offer.availability for offer in found.values()} == {Availability.UNKNOWN}
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "Microsoft.Compute/locations/usages/read" in line


def test_a_region_that_is_refused_does_not_hide_the_others(
    cloud: Cloud, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.forbid("Microsoft.Compute/skus/read", "location eq 'eastus'")
    assert {offer.region for offer in azure.offers(ANY)} == {"westeurope"}
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "eastus" in line
    assert "Microsoft.Compute/skus/read" in line


def test_where_nothing_may_be_read_there_is_an_error(cloud: Cloud, azure: Azure) -> None:
    cloud.forbid("Microsoft.Compute/skus/read", "/skus")
    with pytest.raises(AuthError) as refused:
        list(azure.offers(ANY))
    assert "Microsoft.Compute/skus/read" in refused.value.hint


def test_a_region_that_fails_does_not_hide_the_others(
    cloud: Cloud, azure: Azure, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.refuse("GET", "/locations/eastus/usages", Refusal(400, "Broken", "Not today."))
    assert {offer.region for offer in azure.offers(ANY)} == {"westeurope"}
    assert "eastus is left out" in caplog.text


def test_without_a_live_price_there_is_no_offer(cloud: Cloud, azure: Azure) -> None:
    cloud.prices["eastus"].clear()
    assert {offer.region for offer in azure.offers(ANY)} == {"westeurope"}


def test_prices_that_cannot_be_read_anywhere_are_an_error(make: Make) -> None:
    with pytest.raises(Unreachable):
        list(make(catalog_url="http://127.0.0.1:9").offers(ANY))


def test_a_listing_of_many_regions_is_asked_all_at_once(make: Make, cloud: Cloud) -> None:
    together = threading.Barrier(2, timeout=20)
    for region in ("eastus", "westeurope"):
        cloud.hooks["GET", f"/locations/{region}/usages"] = together.wait
    assert {offer.region for offer in make().offers(ANY)} == {"eastus", "westeurope"}


def test_connections_for_prices_are_kept_from_region_to_region(tmp_path: Path) -> None:
    connections: list[object] = []
    asked: list[str] = []
    content = json.dumps({"Items": [], "NextPageLink": None}).encode()

    class Prices(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            connections.append(self.client_address)
            super().setup()

        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    regions = tuple(f"region{number}" for number in range(PRICES_AT_ONCE * 3))
    with serving(tmp_path, Cloud(regions)) as server, running(Prices) as url:
        environ = {**server.environ, "HOME": str(tmp_path)}
        table = {**server.table, "catalog_url": url}
        assert list(Azure(ProviderSettings("azure", tmp_path / "state", table, environ)).offers(ANY)) == []
    assert len(asked) == len(regions)
    assert len(connections) <= PRICES_AT_ONCE


# -- advice ----------------------------------------------------------------------------------------


def spots(azure: Azure, *sizes: str) -> list[Offer]:
    """Spot offers in Virginia."""
    wanted = Requirements(instance_types=sizes, regions=("eastus",), markets=(Market.SPOT,))
    return sorted(azure.offers(wanted), key=lambda offer: offer.id)


@pytest.mark.parametrize(
    ("score", "quota", "availability"),
    [
        ("High", True, Availability.AVAILABLE),
        ("Medium", True, Availability.LIMITED),
        ("Low", True, Availability.LIMITED),
        ("RestrictedSkuNotAvailable", True, Availability.UNAVAILABLE),
        ("DataNotFoundOrStale", True, Availability.UNKNOWN),
        ("Splendid", True, Availability.UNKNOWN),
        ("High", False, Availability.NO_QUOTA),
    ],
)
def test_a_placement_score_is_an_availability(
    cloud: Cloud, azure: Azure, score: str, quota: bool, availability: Availability
) -> None:
    cloud.scores[A100, "eastus"] = (score, quota)
    (offer,) = azure.advise(spots(azure, A100), 2)
    assert offer.availability is availability
    assert f"placement score {score}" in (offer.availability_detail or "")
    assert offer.interruptions_per_hour is None


@pytest.mark.parametrize(("band", "share"), [("0-5", "0.05"), ("10-15", "0.15"), ("20+", "0.2")])
def test_an_eviction_rate_is_told_by_its_worse_end(cloud: Cloud, azure: Azure, band: str, share: str) -> None:
    cloud.evictions[A100, "eastus"] = band
    (offer,) = azure.advise(spots(azure, A100), 1)
    assert offer.interruptions_per_hour == Decimal(share)
    assert f"{band}%" in (offer.availability_detail or "")


def test_all_pages_of_the_eviction_rates_are_read(cloud: Cloud, azure: Azure) -> None:
    cloud.evictions = {(size, "eastus"): "0-5" for size in (A100, T4, V100)}
    advised = list(azure.advise(spots(azure, A100, T4, V100), 1))
    assert [offer.interruptions_per_hour for offer in advised] == [Decimal("0.05")] * 3


def test_scores_are_asked_for_in_parts_that_azure_takes(cloud: Cloud, azure: Azure) -> None:
    sizes = (A100, T4, V100, MI300X, GB200)
    offers = spots(azure, *sizes)
    more = [*offers, *(o for o in azure.offers(ANY) if o.market is Market.SPOT and o.region == "westeurope")]
    assert len(list(azure.advise(more, 1))) == len(more)


def test_on_demand_offers_have_no_score(cloud: Cloud, azure: Azure) -> None:
    offers = [offer for offer in azure.offers(ANY) if offer.market is Market.ON_DEMAND]
    asked = len(cloud.requests)
    assert list(azure.advise(offers, 1)) == []
    assert len(cloud.requests) == asked


@pytest.mark.parametrize("path", ["placementscores", "resourcegraph"])
def test_one_measure_that_may_not_be_read_leaves_the_other(
    cloud: Cloud, azure: Azure, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    cloud.scores[A100, "eastus"] = ("High", True)
    cloud.evictions[A100, "eastus"] = "0-5"
    offers = spots(azure, A100)
    cloud.forbid(f"Microsoft.Some/{path}/action", path)
    (offer,) = azure.advise(offers, 1)
    assert (offer.availability is Availability.AVAILABLE) == (path == "resourcegraph")
    assert (offer.interruptions_per_hour is None) == (path == "resourcegraph")
    assert f"Microsoft.Some/{path}/action" in caplog.text


def test_where_neither_measure_may_be_read_there_is_an_error(cloud: Cloud, azure: Azure) -> None:
    offers = spots(azure, A100)
    cloud.forbid("Microsoft.Some/action", "placementscores")
    cloud.forbid("Microsoft.Some/action", "resourcegraph")
    with pytest.raises(ProviderError):
        list(azure.advise(offers, 1))


# -- the notice on the host ------------------------------------------------------------------------


@pytest.fixture
def metadata() -> Iterator[tuple[str, list[dict[str, Any]], list[str]]]:
    """The metadata service of a machine: its address, its events, and the headers that it saw."""
    events: list[dict[str, Any]] = []
    headers: list[str] = []

    class Service(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            headers.append(self.headers.get("Metadata", ""))
            body = json.dumps({"DocumentIncarnation": 1, "Events": events}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with running(Service) as url:
        yield url.removeprefix("http://"), events, headers


@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_the_notice_of_an_interruption_is_heard_with_either_tool(
    azure: Azure, metadata: tuple[str, list[dict[str, Any]], list[str]], tmp_path: Path, tool: str
) -> None:
    if not which(tool):
        pytest.skip(f"there is no {tool} here")
    address, events, headers = metadata
    probe = azure.traits.notice_probe.replace("169.254.169.254", address)
    for name in (tool, "grep", "sh"):
        (tmp_path / name).symlink_to(which(name) or name)
    environ = {"PATH": str(tmp_path), "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}

    def heard() -> bool:
        return subprocess.run(["sh", "-c", probe], env=environ, check=False).returncode == 0

    assert not heard()
    events.append({"EventId": "1", "EventType": "Reboot", "Resources": ["gc-1"]})
    assert not heard()
    events.append({"EventId": "2", "EventType": "Preempt", "Resources": ["gc-1"], "NotBefore": ""})
    assert heard()
    assert set(headers) == {"true"}


def test_without_a_metadata_service_there_is_no_notice(azure: Azure) -> None:
    probe = azure.traits.notice_probe.replace("169.254.169.254", "127.0.0.1:9")
    assert subprocess.run(["sh", "-c", probe], check=False).returncode != 0
