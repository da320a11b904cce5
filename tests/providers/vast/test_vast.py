"""Vast.ai against the contract of all adapters, and what is its own."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from werkzeug import Response

from gpucloud.errors import (
    AuthError,
    BadReply,
    BalanceExhausted,
    NoCapacity,
    ProviderError,
    RateLimited,
    Rejected,
)
from gpucloud.http import HttpClient
from gpucloud.model import (
    Availability,
    GpuWish,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SshAddress,
    utcnow,
)
from gpucloud.testing import ProviderConformance
from gpucloud_vast import Vast
from gpucloud_vast.container import SELF_END, on_start
from tests.harness.acme.faults import Verb
from tests.harness.catalogs import Clock
from tests.harness.rental.document import Deviation
from tests.harness.rental.market import Served, serving
from tests.harness.rental.vast import VastAi, own_key
from tests.harness.waiting import eventually
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, identity_in

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

ASK = "/api/v0/asks/.*"
SEARCH = "/api/v0/bundles/"
CHANGE = "/api/v0/instances/.*"


class AsMet(VastAi):
    """With refusals that the document leaves out."""

    deviations = (
        Deviation(
            "PUT /api/v0/asks/.*", "'(insufficient_credit|no_such_ask)' is not one of", "its customers, 2026"
        ),
        Deviation("DELETE /api/v0/instances/.*", "status: 401", "the other operations of the document"),
    )


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(AsMet()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Vast:
    return adapter_at(Vast, served, tmp_path)


@pytest.fixture
def launch(provider: Vast, tmp_path: Path) -> Callable[..., InstanceRef]:
    """Rents by the first offer of a market, and returns what of."""

    def launch(market: Market = Market.ON_DEMAND, **given: Any) -> InstanceRef:
        offer = an_offer(provider, gpu_count=8, market=market)
        return provider.launch(offer, a_spec(identity_in(tmp_path), **given)).ref

    return launch


class TestVast(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Vast) -> Vast:
        return provider


# -- offers ----------------------------------------------------------------------------------------


def asked(served: Served, **wanted: Any) -> list[dict[str, Any]]:
    """The searches of what these requirements ask for."""
    provider = Vast(served.settings(Path()))
    list(provider.offers(Requirements(**wanted)))
    found: list[dict[str, Any]] = served.market.asked("POST", SEARCH)
    return found


def test_on_demand_and_bids_are_two_markets(provider: Vast) -> None:
    found = list(provider.offers(Requirements(markets=())))
    by = {(offer.instance_type, offer.market): offer for offer in found}
    assert len(by) == len(found) == 7
    h100, bid = by["H100 SXM", Market.ON_DEMAND], by["H100 SXM", Market.SPOT]
    assert (h100.usd_per_hour, bid.usd_per_hour) == (Decimal("17.6"), Decimal("9.2"))
    assert (str(h100.gpu), h100.gpu_count, h100.interconnect) == ("H100-SXM-80", 8, "nvlink")
    assert (h100.ref, h100.country, h100.secure, h100.confidence) == ("21000101", "US", True, "live")
    assert (h100.availability, h100.availability_detail) == (Availability.AVAILABLE, "for 22 days")
    assert ("H200 NVL", Market.SPOT) not in by
    assert by["H200 NVL", Market.ON_DEMAND].availability_detail is None


def test_only_the_markets_that_are_wanted_are_searched(served: Served) -> None:
    assert [body["type"] for body in asked(served, markets=(Market.SPOT,))] == ["bid"]


def test_what_is_surely_not_wanted_is_not_asked_for(served: Served) -> None:
    wishes = (GpuWish.parse("H100:8"), GpuWish.parse("RTX4090:2"))
    place: dict[str, Any] = {"countries": ("us", "CA"), "verified_only": True}
    (body,) = asked(served, gpus=wishes, min_disk_gib=500, min_vcpus=16, **place)
    assert body["num_gpus"] == {"in": [2, 8]}
    assert body["geolocation"] == {"in": ["US", "CA"]}
    assert (body["disk_space"], body["cpu_cores_effective"]) == ({"gte": 500}, {"gte": 16})
    assert body["verified"] == {"eq": True}
    unwanted = set(body["gpu_name"]["notin"])
    assert {"RTX 3090", "H200", "RTX 4090D"} <= unwanted
    assert not unwanted & {"H100 SXM", "H100 PCIE", "H100 NVL", "RTX 4090"}


def test_a_wish_for_memory_is_asked_for_with_what_is_left_of_it(served: Served, provider: Vast) -> None:
    wanted = (GpuWish.parse("24GB+:2"),)
    (body,) = asked(served, gpus=wanted)
    assert body["gpu_ram"] == {"gte": 20889}
    assert "gpu_name" not in body
    assert {str(offer.gpu) for offer in provider.offers(Requirements(gpus=wanted))} == {"RTX4090-24"}


def test_a_region_that_is_no_country_is_not_asked_for(served: Served) -> None:
    (body,) = asked(served, regions=("the moon",))
    assert "geolocation" not in body


def many(served: Served, count: int) -> None:
    """Fill the market with so many offers, from a cent on."""
    (like,) = [offer for offer in served.market.offers if offer["num_gpus"] == 1 and offer["min_bid"]]
    served.market.offers[:] = [
        {**like, "id": number, "dph_base": number / 100, "dph_total": number / 100 + 0.001}
        for number in range(1, count + 1)
    ]


def test_all_pages_are_read(served: Served, provider: Vast) -> None:
    many(served, 150)
    assert {int(offer.ref) for offer in provider.offers(Requirements())} == set(range(1, 151))
    assert len(served.market.asked("POST", SEARCH)) == 3


def test_dearer_pages_than_the_cap_are_not_read(served: Served, provider: Vast) -> None:
    many(served, 300)
    found = list(provider.offers(Requirements(max_usd_per_hour=Decimal("0.30"))))
    assert {offer.usd_per_hour for offer in found} >= {Decimal(cents) / 100 for cents in range(1, 31)}
    assert len(served.market.asked("POST", SEARCH)) == 2


def test_a_row_at_fault_is_left_out_and_all_are_an_error(served: Served, provider: Vast) -> None:
    served.market.offers[0]["dph_base"] = 0
    assert {offer.ref for offer in provider.offers(Requirements())} == {"21000202", "21000303", "21000404"}
    served.market.offers[:] = served.market.offers[:1]
    with pytest.raises(BadReply):
        list(provider.offers(Requirements()))


def test_the_quota_of_a_day_is_told_with_its_end(tmp_path: Path) -> None:
    body = '{"success": false, "error": "search_quota_exceeded", "msg": "daily search quota exceeded"}'
    refusal = Response(body, 429, {"Retry-After": "20000"}, content_type="application/json")
    calls: list[str] = []

    def refusing(market: Any) -> Callable[..., Iterable[bytes]]:
        def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            calls.append(environ["PATH_INFO"])
            return refusal(environ, start)

        return answer

    with serving(VastAi(), around=refusing) as served, pytest.raises(RateLimited) as limited:
        list(adapter_at(Vast, served, tmp_path).offers(Requirements()))
    assert calls == [SEARCH]
    assert limited.value.retry_after == 20_000
    assert "00:00 UTC" in limited.value.hint


# -- launch ----------------------------------------------------------------------------------------


def test_an_offer_is_accepted_without_touching_the_account(
    served: Served, launch: Callable[..., InstanceRef]
) -> None:
    launch()
    (body,) = served.market.asked("PUT", ASK)
    assert (body["runtype"], body["cancel_unavail"], body["disk"]) == ("ssh_direct", True, 32)
    assert body["image"] == "vastai/base-image:@vastai-automatic-tag"
    assert "price" not in body
    assert {request.path for request in served.market.requests} == {SEARCH, "/api/v0/asks/21000101/"}


def test_an_image_and_a_disk_are_taken_as_they_are_asked_for(
    served: Served, launch: Callable[..., InstanceRef]
) -> None:
    launch(image="nvidia/cuda:13.0.1-devel-ubuntu24.04", disk_gib=200)
    (body,) = served.market.asked("PUT", ASK)
    assert (body["image"], body["disk"]) == ("nvidia/cuda:13.0.1-devel-ubuntu24.04", 200)


def test_the_least_bid_is_made_and_is_what_is_paid(
    served: Served, provider: Vast, launch: Callable[..., InstanceRef]
) -> None:
    ref = launch(Market.SPOT, max_usd_per_hour=Decimal(12))
    (body,) = served.market.asked("PUT", ASK)
    assert body["price"] == 9.2
    told = provider.get(ref)
    assert (told.market, told.usd_per_hour) == (Market.SPOT, Decimal("9.2"))


def test_a_bid_is_never_above_the_cap_and_too_low_a_one_says_that_the_price_has_changed(
    served: Served, launch: Callable[..., InstanceRef]
) -> None:
    with pytest.raises(NoCapacity, match="price has changed"):
        launch(Market.SPOT, max_usd_per_hour=Decimal("9.1"))
    assert served.market.asked("PUT", ASK)[0]["price"] == 9.1
    assert not served.market.instances()


def test_the_lease_is_in_the_label_too(provider: Vast, launch: Callable[..., InstanceRef]) -> None:
    until = utcnow().replace(microsecond=0) + timedelta(hours=3)
    assert provider.get(launch(expires_at=until)).expires_at == until


def test_contracts_are_made_as_far_apart_as_it_wants(
    provider: Vast, launch: Callable[..., InstanceRef]
) -> None:
    time = Clock()
    provider.client = partial(HttpClient, sleep=time.sleep, clock=lambda: time.now)
    offer: Offer = an_offer(provider, gpu_count=8)
    before = time.now
    for _ in range(3):
        provider.launch(offer, a_spec(identity_in(provider.settings.state_dir)))
    assert time.now - before == 9


@pytest.mark.parametrize(
    ("status", "code", "text", "kind"),
    [
        (
            404,
            "invalid_args",
            "error 404/3603: no_such_ask Instance type by id 7 is not available.",
            NoCapacity,
        ),
        (
            410,
            "no_such_ask",
            "error 410/3907: no_such_ask Instance type 7 is no longer available.",
            NoCapacity,
        ),
        (400, "no_such_ask", "", NoCapacity),
        (200, "no_such_ask", "", NoCapacity),
        (200, "invalid_args", "no_such_ask", NoCapacity),
        (400, "invalid_price", "the bid is too low", NoCapacity),
        (400, "insufficient_credit", "Your account lacks credit.", BalanceExhausted),
        (400, "invalid_args", "not enough credit; insufficient_credit", BalanceExhausted),
        (200, "insufficient_credit", "", BalanceExhausted),
        (400, "invalid_args", "error 400/3467: Invalid args", Rejected),
        (200, "invalid_args", "something else", Rejected),
        (403, "invalid_args", "Hosts can only rent their own machines.", Rejected),
        (403, "forbidden", "No permission.", AuthError),
        (401, "auth_error", "Invalid user key", AuthError),
    ],
)
def test_vast_says_no_in_codes_and_in_prose(
    served: Served,
    launch: Callable[..., InstanceRef],
    status: int,
    code: str,
    text: str,
    kind: type[ProviderError],
) -> None:
    served.market.refuse(Verb.CREATE, status, {"success": False, "error": code, "msg": text})
    with pytest.raises(kind) as refused:
        launch()
    assert type(refused.value) is kind
    assert text in refused.value.vendor_text or text in refused.value.why
    assert not refused.value.outcome_unknown
    assert not served.market.instances()


def test_a_key_that_is_not_known_to_the_search_is_no_missing_page(served: Served, provider: Vast) -> None:
    served.market.refuse(Verb.OFFERS, 404, {"error": "invalid_request", "msg": "Invalid user key"})
    with pytest.raises(AuthError):
        list(provider.offers(Requirements()))


# -- what the container does -----------------------------------------------------------------------


def in_container(
    script: str, served: Served, root: Path, id: str, key: str
) -> subprocess.CompletedProcess[str]:
    """Run a script of the container's as if ``root`` were its ``/root``; the fake is where Vast.ai is."""
    first = root / "environ"
    first.write_text(f"PATH=/bin\0CONTAINER_ID={id}\0CONTAINER_API_KEY={key}\0LAST=1")
    for name, here in {
        "/proc/1/environ": str(first),
        "https://console.vast.ai": served.url,
        "/root/": f"{root}/",
        "/home/": f"{root}/home/",
    }.items():
        script = script.replace(name, here)
    return subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30, check=False)


def test_a_container_lets_our_key_in_once_however_often_it_starts(served: Served, tmp_path: Path) -> None:
    spec = a_spec(identity_in(tmp_path))
    authorised = tmp_path / ".ssh" / "authorized_keys"
    authorised.parent.mkdir()
    authorised.write_text("ssh-ed25519 AAAAof-the-account\n")
    for _ in range(2):
        done = in_container(on_start(spec), served, tmp_path, "1", "")
        assert (done.returncode, done.stderr) == (0, "")
    assert authorised.read_text().splitlines() == ["ssh-ed25519 AAAAof-the-account", spec.public_key]
    assert authorised.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".no_auto_tmux").exists()


def test_what_a_container_does_at_its_start_is_no_longer_than_vast_takes(tmp_path: Path) -> None:
    spec = a_spec(identity_in(tmp_path), expires_at=utcnow(), public_key=f"ssh-rsa {'A' * 740} it's me")
    assert len(on_start(spec)) < 4048


def test_a_container_ends_itself_with_its_own_key_and_nobody_else(
    served: Served, launch: Callable[..., InstanceRef], tmp_path: Path
) -> None:
    one, other = launch(), launch()
    assert in_container(SELF_END, served, tmp_path, other.id, own_key(one.id)).returncode != 0
    assert served.market.billing() == [one.id, other.id]
    assert in_container(SELF_END, served, tmp_path, one.id, own_key(one.id)).returncode == 0
    assert served.market.billing() == [other.id]


def test_without_a_login_a_container_ends_itself_with_its_lease(
    served: Served, launch: Callable[..., InstanceRef], tmp_path: Path
) -> None:
    visited, lonely = launch(), launch()
    script = on_start(a_spec(identity_in(tmp_path), expires_at=utcnow() - timedelta(seconds=1)))
    for ref in visited, lonely:
        (tmp_path / ref.id / "home/user").mkdir(parents=True)
    (tmp_path / visited.id / "home/user/.gpucloud").mkdir()
    for ref in visited, lonely:
        # What goes on in the background is seen to its end.
        done = in_container(f"{script}wait", served, tmp_path / ref.id, ref.id, own_key(ref.id))
        assert (done.returncode, done.stderr) == (0, "")
    assert served.market.billing() == [visited.id]


# -- instances -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direct", "address"),
    [(True, SshAddress("203.0.113.5", 22)), (False, SshAddress("ssh5.vast.ai", 22822))],
)
def test_ssh_is_a_port_of_the_machine_or_a_relay(
    served: Served,
    provider: Vast,
    launch: Callable[..., InstanceRef],
    tmp_path: Path,
    direct: bool,
    address: SshAddress,
) -> None:
    served.market.direct = direct
    ref = launch()
    assert provider.get(ref).ssh is None
    assert provider.get(ref).ssh == address


def test_a_port_that_is_mapped_elsewhere_is_told(
    served: Served, provider: Vast, launch: Callable[..., InstanceRef]
) -> None:
    ref = launch()
    port = {"HostIp": "0.0.0.0", "HostPort": "33526"}
    served.market.told = {
        "actual_status": "running",
        "public_ipaddr": " 198.51.100.7\n",
        "ports": {"22/tcp": [port]},
    }
    assert provider.get(ref).ssh == SshAddress("198.51.100.7", 33526)


HALTED = {"intended_status": "stopped", "cur_state": "stopped"}
STARTING = {"intended_status": "running", "cur_state": "running"}


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({"actual_status": None}, InstanceState.PENDING),
        ({"actual_status": "created"}, InstanceState.PENDING),
        ({"actual_status": "rebooting"}, InstanceState.PENDING),
        ({"actual_status": "running"}, InstanceState.RUNNING),
        ({"actual_status": "running", "intended_status": "stopped"}, InstanceState.STOPPING),
        ({"actual_status": "exited", **HALTED}, InstanceState.STOPPED),
        ({"actual_status": "stopped", **HALTED}, InstanceState.STOPPED),
        ({"actual_status": "exited", **STARTING}, InstanceState.PENDING),
        (
            {"actual_status": "exited", "intended_status": "running", "cur_state": "stopped"},
            InstanceState.STOPPED,
        ),
        ({"actual_status": "loading", **HALTED}, InstanceState.STOPPED),
        ({"actual_status": "loading", "intended_status": "stopped"}, InstanceState.STOPPING),
        ({"actual_status": "frozen"}, InstanceState.UNKNOWN),
        ({"actual_status": "unknown"}, InstanceState.UNKNOWN),
        ({"actual_status": "dreaming"}, InstanceState.UNKNOWN),
        ({"actual_status": "offline"}, InstanceState.FAILED),
        (
            {"actual_status": "created", "status_msg": "Error: OCI runtime create failed: no such device"},
            InstanceState.FAILED,
        ),
        (
            {"actual_status": "loading", "status_msg": "failed to resolve reference nobody/nothing"},
            InstanceState.FAILED,
        ),
        ({"actual_status": "running", "status_msg": "unauthorized: in a job"}, InstanceState.RUNNING),
    ],
)
def test_states_are_told_by_what_is_and_by_what_should_be(
    served: Served,
    provider: Vast,
    launch: Callable[..., InstanceRef],
    told: dict[str, Any],
    state: InstanceState,
) -> None:
    ref = launch()
    served.market.told = told
    assert provider.get(ref).state is state


@pytest.mark.parametrize(("market", "interrupted"), [(Market.SPOT, True), (Market.ON_DEMAND, False)])
def test_a_bid_that_was_beaten_was_taken_back(
    served: Served,
    provider: Vast,
    launch: Callable[..., InstanceRef],
    market: Market,
    interrupted: bool,
) -> None:
    ref = launch(market)
    assert not running(provider, provider.get(ref)).interrupted
    served.market.told = {"actual_status": "exited", **HALTED}
    assert provider.get(ref).interrupted is interrupted


def test_a_start_that_would_wait_for_its_gpu_is_called_off(
    served: Served, provider: Vast, launch: Callable[..., InstanceRef]
) -> None:
    ref = launch()
    provider.stop(ref)
    served.market.occupied = True
    with pytest.raises(NoCapacity):
        provider.start(ref)
    assert [body["state"] for body in served.market.asked("PUT", CHANGE)] == ["stopped", "running", "stopped"]
    assert served.market.things[ref.id].more["meant"] == "stopped"
    served.market.occupied = False
    provider.start(ref)
    assert eventually(lambda: provider.get(ref).state is InstanceState.RUNNING)


def test_all_pages_of_instances_are_listed_and_those_of_others_are_left_out(
    served: Served, provider: Vast, tmp_path: Path
) -> None:
    offer, key = an_offer(provider, gpu_count=8), identity_in(tmp_path)
    made = [provider.launch(offer, a_spec(key)) for _ in range(60)]
    served.market.things[made[7].ref.id].asked["label"] = "my own"
    found = {instance.token for instance in provider.instances()}
    assert found == {instance.token for instance in made} - {made[7].token}
    assert served.market.things[made[7].ref.id].living


def test_a_listing_without_end_is_an_error(tmp_path: Path) -> None:
    body = '{"instances": [], "next_token": "again"}'

    def repeating(market: Any) -> Callable[..., Iterable[bytes]]:
        return Response(body, content_type="application/json")

    with serving(VastAi(), around=repeating) as served, pytest.raises(BadReply):
        list(adapter_at(Vast, served, tmp_path).instances())


def test_a_change_that_is_not_made_is_told_although_its_status_is_that_of_success(
    served: Served, provider: Vast, launch: Callable[..., InstanceRef]
) -> None:
    ref = launch()
    served.market.refuse(Verb.TERMINATE, 200, {"success": False, "msg": "not now"})
    with pytest.raises(Rejected) as refused:
        provider.terminate(ref)
    assert refused.value.why == "not now"
    assert served.market.billing() == [ref.id]
