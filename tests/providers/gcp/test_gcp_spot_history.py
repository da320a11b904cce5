"""Google's past spot prices, from a server that gives out tokens and answers in Google's format."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from gpucloud.errors import AuthError, BadReply, ConfigError, NotFound, RateLimited, Rejected, Unreachable
from gpucloud.http import HttpClient
from gpucloud.model import Market, Offer, utcnow
from gpucloud.provider import ProviderSettings
from gpucloud.testing.catalog import SpotHistoryConformance
from gpucloud_gcp import Gcp

TOKEN = "ya29.made-in-a-test"
NOW = utcnow().replace(microsecond=0)
ALWAYS = NOW - timedelta(days=366)


def day(ago: float) -> datetime:
    """So many days ago."""
    return NOW - timedelta(days=ago)


def interval(start: datetime, end: datetime | None) -> dict[str, str]:
    """A time as Google writes it."""
    times = {"startTime": start, "endTime": end}
    return {name: f"{at:%Y-%m-%dT%H:%M:%SZ}" for name, at in times.items() if at}


def price(
    start: datetime, end: datetime | None, units: str | None = "1", nanos: int | None = None, **other: Any
) -> dict[str, Any]:
    """A price record; a part of the amount that is zero is not told."""
    parts = {"currencyCode": "USD", "units": units, "nanos": nanos, **other}
    money = {name: part for name, part in parts.items() if part is not None}
    return {"interval": interval(start, end), "listPrice": money}


def preemption(start: datetime, end: datetime, rate: float) -> dict[str, Any]:
    """A preemption record."""
    return {"interval": interval(start, end), "preemptionRate": rate}


def machine(name: str, accelerator: str | None = None, count: int = 1, **other: Any) -> dict[str, Any]:
    """A machine type in the list."""
    fitted = [{"guestAcceleratorType": accelerator, "guestAcceleratorCount": count}] if accelerator else []
    return {
        "kind": "compute#machineType",
        "id": "1000012",
        "creationTimestamp": "1969-12-31T16:00:00.000-08:00",
        "name": name,
        "guestCpus": 12,
        "memoryMb": 87040,
        "isSharedCpu": False,
        "architecture": "X86_64",
        **({"accelerators": fitted} if fitted else {}),
        **other,
    }


def problem(code: int, message: str, reason: str, status: str) -> tuple[int, dict[str, Any]]:
    """An error as Google tells it."""
    told = {"message": message, "domain": "global", "reason": reason}
    return code, {"error": {"code": code, "message": message, "errors": [told], "status": status}}


SWITCHED_OFF = problem(
    403,
    "Compute Engine API has not been used in project acme before or it is disabled.",
    "accessNotConfigured",
    "PERMISSION_DENIED",
)
TOO_OFTEN = problem(403, "Rate Limit Exceeded", "rateLimitExceeded", "RESOURCE_EXHAUSTED")
NOT_SPOT = problem(400, "Machine type a2-highgpu-1g is not for Spot.", "invalid", "INVALID_ARGUMENT")

A100 = machine("a2-highgpu-1g", "nvidia-tesla-a100")
NO_RESULTS = {"warning": {"code": "NO_RESULTS_ON_PAGE", "message": "There are no results."}}


@pytest.fixture(scope="session")
def key() -> rsa.RSAPrivateKey:
    """The key of a service account."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def one_server() -> Iterator[HTTPServer]:
    """A server that answers several requests at a time; to end it takes a while."""
    with HTTPServer(threaded=True) as started:
        yield started


@pytest.fixture
def server(one_server: HTTPServer) -> Iterator[HTTPServer]:
    """The server, which has nothing to tell yet."""
    one_server.clear()
    yield one_server
    one_server.check_assertions()


@dataclass
class Google:
    """What a project of Google has to tell. An answer is a body, or a status and a body, or bytes.

    ``pages`` are the machine types by zone, page by page; ``pasts`` the answers by region and machine type.
    """

    server: HTTPServer
    key: rsa.RSAPrivateKey
    home: Path
    pages: list[Any] = field(default_factory=lambda: [{"us-central1-a": [A100]}])
    pasts: dict[tuple[str, str], Any] = field(default_factory=dict)
    regions: tuple[str, ...] = ("us-central1", "us-east4", "us-west1", "europe-west4")
    refuses_tokens: tuple[int, Any] | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    questions: list[Any] = field(default_factory=list)
    users: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        for path, handler in {
            "/token": self._token,
            "/compute/v1/projects/acme/aggregated/machineTypes": self._machine_types,
        }.items():
            self.server.expect_request(path).respond_with_handler(handler)
        for region in (*self.regions, "mars-north1"):
            path = f"/compute/v1/projects/acme/regions/{region}"
            self.server.expect_request(path).respond_with_handler(self._region)
            self.server.expect_request(f"{path}/advice/capacityHistory").respond_with_handler(self._past)

    @property
    def token_uri(self) -> str:
        return self.server.url_for("/token")

    def account(self, **other: Any) -> Path:
        """The file of a service account of the project."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return self.file(
            type="service_account",
            project_id="acme",
            private_key_id="0123",
            private_key=pem.decode(),
            client_email="reader@acme.iam.gserviceaccount.com",
            token_uri=self.token_uri,
            **other,
        )

    def file(self, **content: Any) -> Path:
        """A file of credentials."""
        self.home.mkdir(exist_ok=True)
        file = self.home / "credentials.json"
        file.write_text(json.dumps(content))
        return file

    def adapter(self, file: Path | None = None, deadline_s: float = 5, **table: Any) -> Gcp:
        """An adapter without waits that has these credentials, else those of the service account."""
        settings = ProviderSettings(
            "gcp",
            self.home,
            table={"endpoint_url": self.server.url_for(""), **table},
            environ={"GOOGLE_APPLICATION_CREDENTIALS": str(file or self.account()), "HOME": str(self.home)},
        )
        adapter = Gcp(settings)
        adapter.client = partial(HttpClient, sleep=lambda _: None, deadline_s=deadline_s)
        return adapter

    def tells(self, *prices: Any, **other: Any) -> None:
        """The past of the one machine type there is at first."""
        self.pasts["us-central1", "a2-highgpu-1g"] = past(*prices, **other)

    def _token(self, request: Request) -> Response:
        if self.refuses_tokens:
            return reply(self.refuses_tokens)
        if request.form["grant_type"] == "refresh_token":
            assert request.form["refresh_token"] == "1//made-in-a-test"
        else:
            self._verify(request.form["assertion"])
        return reply({"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"})

    def _verify(self, assertion: str) -> None:
        """Raises for what the account did not sign."""
        signed, _, signature = assertion.rpartition(".")
        self.key.public_key().verify(
            unpadded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256()
        )
        claims = json.loads(unpadded(signed.partition(".")[2]))
        assert claims["iss"] == "reader@acme.iam.gserviceaccount.com"
        assert claims["scope"] == "https://www.googleapis.com/auth/compute"

    def _heard(self, request: Request) -> tuple[int, Any] | None:
        """Take down a request; the refusal of one that carries no token of ours."""
        self.asked.append((request.method, request.path.removeprefix("/compute/v1/projects/acme/")))
        self.users.append(request.headers.get("x-goog-user-project"))
        if request.headers["Authorization"] == f"Bearer {TOKEN}":
            return None
        return problem(401, "Request had invalid authentication credentials.", "authError", "UNAUTHENTICATED")

    def _machine_types(self, request: Request) -> Response:
        refused = self._heard(request)
        number = int(request.args.get("pageToken", "page-0").removeprefix("page-"))
        page = self.pages[number]
        if refused or not isinstance(page, dict):
            return reply(refused or page)
        assert request.args["filter"] == "name eq '[ag][0-9].*'"
        body: dict[str, Any] = {
            "kind": "compute#machineTypeAggregatedList",
            "id": "projects/acme/aggregated/machineTypes",
            "items": {
                f"zones/{zone}": {"machineTypes": types} if types else NO_RESULTS
                for zone, types in page.items()
            },
        }
        if number + 1 < len(self.pages):
            body["nextPageToken"] = f"page-{number + 1}"
        return reply(body)

    def _region(self, request: Request) -> Response:
        refused = self._heard(request)
        name = request.path.rpartition("/")[2]
        unknown = problem(404, f"The resource '{request.path}' was not found", "notFound", "NOT_FOUND")
        return reply(
            refused or ({"kind": "compute#region", "name": name} if name in self.regions else unknown)
        )

    def _past(self, request: Request) -> Response:
        refused = self._heard(request)
        asked = request.get_json()
        self.questions.append(asked)
        region = request.path.split("/")[-3]
        return reply(refused or self.pasts[region, asked["instanceProperties"]["machineType"]])


def past(*prices: Any, rates: Sequence[Any] = (), location: str = "regions/us-central1") -> dict[str, Any]:
    """The past of a machine type."""
    return {
        "machineType": "a2-highgpu-1g",
        "location": f"https://www.googleapis.com/compute/v1/projects/acme/{location}",
        "priceHistory": list(prices),
        "preemptionHistory": list(rates),
    }


def reply(answer: Any) -> Response:
    """An answer as a response."""
    status, body = answer if isinstance(answer, tuple) else (200, answer)
    content = body if isinstance(body, bytes) else json.dumps(body)
    return Response(content, status, content_type="application/json; charset=UTF-8")


def unpadded(text: str) -> bytes:
    """The bytes of a part of a signed token."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def read(adapter: Gcp, since: datetime = ALWAYS, *regions: str) -> list[Offer]:
    """Its offers by place, machine and time."""
    told = adapter.spot_history(since, regions)
    return sorted(told, key=lambda offer: (offer.region or "", offer.instance_type, offer.as_of))


@pytest.fixture
def google(server: HTTPServer, key: rsa.RSAPrivateKey, tmp_path: Path) -> Google:
    """A project with one machine type with a GPU, in one zone."""
    return Google(server, key, tmp_path / "home")


class TestGcpSpotHistory(SpotHistoryConformance):
    @pytest.fixture
    def teller(self, google: Google) -> Gcp:
        google.tells(price(day(9), day(4), nanos=340_000_000), price(day(4), None, nanos=280_000_000))
        return google.adapter()


def test_a_price_is_that_of_the_whole_machine(google: Google) -> None:
    google.pages = [{"us-central1-a": [machine("a3-highgpu-8g", "nvidia-h100-80gb", 8, guestCpus=208)]}]
    google.pasts["us-central1", "a3-highgpu-8g"] = past(price(day(3), day(1), "21", 478_720_000))
    (offer,) = read(google.adapter())
    assert offer.usd_per_hour == offer.amount == Decimal("21.47872")
    assert (offer.currency, offer.market, offer.confidence) == ("USD", Market.SPOT, "history")
    assert (str(offer.gpu), offer.gpu_count) == ("H100-SXM-80", 8)
    assert (offer.vcpus, offer.memory_gib) == (208, Decimal(85))
    assert (offer.region, offer.zone, offer.as_of) == ("us-central1", None, day(3))
    assert offer.source == "compute.googleapis.com advice.capacityHistory"
    assert offer.interruptions_per_hour is None


def test_what_is_asked(google: Google) -> None:
    google.tells()
    assert read(google.adapter(), ALWAYS, "us-central1") == []
    assert google.asked == [
        ("GET", "aggregated/machineTypes"),
        ("POST", "regions/us-central1/advice/capacityHistory"),
    ]
    assert google.questions == [
        {
            "instanceProperties": {
                "machineType": "a2-highgpu-1g",
                "scheduling": {"provisioningModel": "SPOT"},
            },
            "types": ["PRICE", "PREEMPTION"],
        }
    ]


@pytest.mark.parametrize(
    ("money", "usd"),
    [
        ({"units": "3"}, "3"),
        ({"units": None, "nanos": 99_000_000}, "0.099"),
        ({"units": "0", "nanos": 1}, "1E-9"),
        ({"units": "12", "nanos": 5}, "12.000000005"),
    ],
)
def test_money_is_units_and_nanos(google: Google, money: dict[str, Any], usd: str) -> None:
    google.tells(price(day(2), None, **money))
    (offer,) = read(google.adapter())
    assert offer.usd_per_hour == Decimal(usd)


def test_another_currency_is_converted_and_kept(google: Google) -> None:
    google.tells(price(day(2), None, "2", currencyCode="EUR"))
    adapter = google.adapter()
    adapter.settings = replace(adapter.settings, rates={"EUR": Decimal("1.25")})
    (offer,) = read(adapter)
    assert (offer.usd_per_hour, offer.amount, offer.currency) == (Decimal("2.50"), Decimal(2), "EUR")


def test_regions_and_pages_are_all_read_and_a_machine_is_asked_for_once_in_each(google: Google) -> None:
    small = machine("g2-standard-4", "nvidia-l4")
    google.pages = [
        {"us-central1-a": [A100, machine("g1-small")], "us-central1-b": None, "asia-east1-a": [A100]},
        {"us-central1-b": [A100, small], "europe-west4-a": [small]},
    ]
    for region, name in ("us-central1", "a2-highgpu-1g"), ("us-central1", "g2-standard-4"):
        google.pasts[region, name] = past(price(day(5), None))
    google.pasts["europe-west4", "g2-standard-4"] = past(price(day(5), None, "2"))
    told = read(google.adapter(), ALWAYS, "us-central1", " Europe-West4 ", "us-central1")
    assert [(offer.region, offer.instance_type, str(offer.gpu)) for offer in told] == [
        ("europe-west4", "g2-standard-4", "L4-24"),
        ("us-central1", "a2-highgpu-1g", "A100-SXM-40"),
        ("us-central1", "g2-standard-4", "L4-24"),
    ]
    assert len(google.questions) == 3


def test_many_machines_are_all_asked_for(google: Google) -> None:
    names = [f"g2-standard-{number}" for number in range(9)]
    google.pages = [{"us-central1-a": [machine(name, "nvidia-l4") for name in names]}]
    google.pasts = {("us-central1", name): past(price(day(1), None)) for name in names}
    assert [offer.instance_type for offer in read(google.adapter())] == names


def test_an_accelerator_that_nobody_knows_is_seen(google: Google) -> None:
    google.pages = [{"us-central1-a": [machine("a9-ultragpu-4g", "nvidia-zeta-900", 4)]}]
    google.pasts["us-central1", "a9-ultragpu-4g"] = past(price(day(1), None))
    (offer,) = read(google.adapter())
    assert (str(offer.gpu), offer.gpu_count) == ("nvidiazeta900", 4)


@pytest.mark.parametrize(
    ("accelerator", "gpu"),
    [
        ("nvidia-a100-80gb", "A100-SXM-80"),
        ("nvidia-h100-mega-80gb", "H100-SXM-80"),
        ("nvidia-h200-141gb", "H200-SXM-141"),
        ("nvidia-b200", "B200-SXM-180"),
        ("nvidia-rtx-pro-6000", "RTXPRO6000-96"),
    ],
)
def test_google_s_names_of_gpus_are_known(google: Google, accelerator: str, gpu: str) -> None:
    google.pages = [{"us-central1-a": [machine("a2-highgpu-1g", accelerator)]}]
    google.tells(price(day(1), None))
    (offer,) = read(google.adapter())
    assert str(offer.gpu) == gpu


def test_only_intervals_that_reach_into_the_time_are_told(google: Google) -> None:
    google.tells(
        price(day(30), day(20), "1"),
        price(day(20), day(10), "2"),
        price(day(10), day(4), "3"),
        price(day(4), day(4), "4"),
        price(day(4), day(-1), "5"),
        price(day(-1), None, "6"),
    )
    told = read(google.adapter(), day(7))
    assert [(offer.usd_per_hour, offer.as_of) for offer in told] == [
        (Decimal(3), day(10)),
        (Decimal(5), day(4)),
    ]


def test_the_price_that_holds_since_before_that_time_is_told(google: Google) -> None:
    google.tells(price(day(45), None))
    (offer,) = read(google.adapter(), day(7))
    assert offer.as_of == day(45)


def test_an_interval_without_a_price_is_left_out(google: Google) -> None:
    free = price(day(3), day(2), "0")
    google.tells({"interval": interval(day(4), day(3))}, free, price(day(2), None))
    (offer,) = read(google.adapter())
    assert offer.as_of == day(2)


def test_a_record_at_fault_costs_no_other(google: Google) -> None:
    google.tells(
        {"interval": {"endTime": "2026-01-01T00:00:00Z"}, "listPrice": {"currencyCode": "USD", "units": "1"}},
        price(day(3), day(2), "1", currencyCode="XXX"),
        price(day(3), day(2), "much"),
        "a text",
        price(day(2), None),
    )
    (offer,) = read(google.adapter())
    assert offer.as_of == day(2)


def test_the_last_preemption_rate_of_the_time_is_told_in_google_s_words(google: Google) -> None:
    rates = [
        preemption(day(2), day(1), 0.125),
        preemption(day(4), day(3), 0.5),
        preemption(day(3), day(2), 0.25),
        preemption(day(2), day(1), 7),
        {"interval": interval(day(1), NOW)},
    ]
    google.tells(
        price(day(9), day(8), "1"), price(day(6), day(3), "2"), price(day(3), None, "3"), rates=rates
    )
    assert [offer.availability_detail for offer in read(google.adapter())] == [
        None,
        "preemptionRate 0.5",
        "preemptionRate 0.125",
    ]


def test_a_zone_is_told_where_the_answer_is_of_one(google: Google) -> None:
    google.tells(price(day(1), None), location="zones/us-central1-f")
    (offer,) = read(google.adapter())
    assert (offer.region, offer.zone) == ("us-central1", "us-central1-f")


@pytest.mark.parametrize("wanted", ["us-east4, us-west1", ["us-east4", "us-west1"]])
def test_the_usual_regions_are_those_of_the_settings(google: Google, wanted: Any) -> None:
    google.pages = [{"us-central1-a": [A100], "us-east4-a": [A100], "us-west1-b": [A100]}]
    for region in "us-east4", "us-west1":
        google.pasts[region, "a2-highgpu-1g"] = past(price(day(1), None))
    told = read(google.adapter(catalog_regions=wanted))
    assert [offer.region for offer in told] == ["us-east4", "us-west1"]


def test_a_region_without_gpus_tells_nothing(google: Google) -> None:
    google.pages = [{"us-west1-a": [machine("g1-small")]}]
    assert read(google.adapter(), ALWAYS, "us-west1") == []


@pytest.mark.parametrize("region", ["mars-north1", "../zones", "US central"])
def test_an_unknown_region_is_not_found(google: Google, region: str) -> None:
    with pytest.raises(NotFound) as caught:
        read(google.adapter(), ALWAYS, region)
    assert region.lower() in caught.value.message
    assert caught.value.hint == "gcloud compute regions list"


def test_a_machine_that_google_refuses_costs_no_other(google: Google) -> None:
    google.pages = [{"us-central1-a": [A100, machine("g2-standard-4", "nvidia-l4")]}]
    google.pasts["us-central1", "a2-highgpu-1g"] = NOT_SPOT
    google.pasts["us-central1", "g2-standard-4"] = past(price(day(1), None))
    (offer,) = read(google.adapter())
    assert offer.instance_type == "g2-standard-4"


def test_when_google_refuses_all_machines_it_says_why(google: Google) -> None:
    google.pasts["us-central1", "a2-highgpu-1g"] = NOT_SPOT
    with pytest.raises(Rejected, match="refused") as caught:
        read(google.adapter())
    assert "is not for Spot" in caught.value.why


def test_an_interface_that_is_switched_off_says_so(google: Google) -> None:
    google.pages = [SWITCHED_OFF]
    with pytest.raises(AuthError) as caught:
        read(google.adapter())
    assert "has not been used in project acme" in caught.value.why


def test_prices_that_the_account_may_not_see_say_so(google: Google) -> None:
    missing = "Required 'compute.advice.capacityHistory' permission for 'projects/acme'"
    google.pasts["us-central1", "a2-highgpu-1g"] = problem(403, missing, "forbidden", "PERMISSION_DENIED")
    with pytest.raises(AuthError) as caught:
        read(google.adapter())
    assert missing in caught.value.why


@pytest.mark.parametrize("answer", [TOO_OFTEN, (429, TOO_OFTEN[1])])
def test_asking_too_often_is_told(google: Google, answer: Any) -> None:
    google.pasts["us-central1", "a2-highgpu-1g"] = answer
    with pytest.raises(RateLimited):
        read(google.adapter(deadline_s=0.2))


def test_a_question_about_the_past_is_asked_again_like_a_read(google: Google) -> None:
    told = iter([(503, b"later"), TOO_OFTEN, past(price(day(1), None))])
    google.pasts = _Each(told)
    assert len(read(google.adapter(deadline_s=60))) == 1
    assert len(google.questions) == 3


class _Each(dict[tuple[str, str], Any]):
    """Another answer each time."""

    def __init__(self, answers: Iterator[Any]) -> None:
        super().__init__()
        self._answers = answers

    def __getitem__(self, _: tuple[str, str]) -> Any:
        return next(self._answers)


@pytest.mark.parametrize("garbage", [[], "text", {"items": {}}, b"<html>", (200, b"")])
def test_a_list_that_cannot_be_read_is_a_bad_reply(google: Google, garbage: Any) -> None:
    google.pages = [garbage if not isinstance(garbage, dict) else (200, garbage)]
    with pytest.raises(BadReply):
        read(google.adapter())


@pytest.mark.parametrize("garbage", [[], "text", {"priceHistory": "cheap"}, past({"interval": 1}), b"<html>"])
def test_a_past_that_cannot_be_read_is_a_bad_reply(google: Google, garbage: Any) -> None:
    google.pasts["us-central1", "a2-highgpu-1g"] = garbage
    with pytest.raises(BadReply):
        read(google.adapter())


def test_machines_that_cannot_be_read_are_a_bad_reply(google: Google) -> None:
    both = machine("a2-highgpu-1g", "nvidia-l4")
    both["accelerators"] *= 2
    google.pages = [{"us-central1-a": [both, machine("", "nvidia-l4"), {"name": 1}]}]
    with pytest.raises(BadReply, match="prices"):
        read(google.adapter())


def test_pages_that_go_in_a_circle_are_a_bad_reply(google: Google) -> None:
    circle = {"kind": "compute#machineTypeAggregatedList", "items": {}, "nextPageToken": "page-0"}
    google.pages = [(200, circle)]
    with pytest.raises(BadReply):
        read(google.adapter())


def test_a_token_that_is_refused_is_told_in_google_s_words(google: Google) -> None:
    words = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
    google.refuses_tokens = (400, words)
    with pytest.raises(AuthError, match="refused") as caught:
        read(google.adapter())
    assert "Invalid JWT Signature." in caught.value.why
    assert google.asked == []


@pytest.mark.parametrize("garbage", [[], "text", {"expires_in": "soon", "access_token": 1}])
def test_a_token_that_cannot_be_read_is_a_bad_reply(google: Google, garbage: Any) -> None:
    google.refuses_tokens = (200, garbage)
    with pytest.raises(BadReply):
        read(google.adapter())


def test_nobody_where_tokens_are_given_out_is_unreachable(google: Google, unused_tcp_port: int) -> None:
    google.account()
    nowhere = json.loads((google.home / "credentials.json").read_text())
    nowhere["token_uri"] = f"http://127.0.0.1:{unused_tcp_port}/token"
    with pytest.raises(Unreachable, match="tokens"):
        read(google.adapter(google.file(**nowhere)))


@pytest.fixture
def unused_tcp_port() -> int:
    """A port at which nobody listens."""
    with HTTPServer() as gone:
        return gone.port


def test_a_token_that_google_does_not_take_is_refused(google: Google) -> None:
    google.refuses_tokens = (200, {"access_token": "ya29.of-somebody-else", "expires_in": 3599})
    with pytest.raises(AuthError):
        read(google.adapter())


def test_the_login_of_gcloud_counts_and_its_project_is_billed(google: Google) -> None:
    user = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "token_uri": google.token_uri}
    folder = google.home / ".config" / "gcloud"
    folder.mkdir(parents=True)
    file = folder / "application_default_credentials.json"
    file.write_text(json.dumps({**user, "refresh_token": "1//made-in-a-test", "quota_project_id": "acme"}))
    google.tells(price(day(1), None))
    adapter = google.adapter()
    adapter.settings = replace(adapter.settings, environ={"HOME": str(google.home)})
    assert len(read(adapter)) == 1
    assert set(google.users) == {"acme"}


def test_gcloud_s_folder_may_be_elsewhere(google: Google, tmp_path: Path) -> None:
    google.tells(price(day(1), None))
    google.account().rename(tmp_path / "application_default_credentials.json")
    adapter = google.adapter()
    adapter.settings = replace(adapter.settings, environ={"CLOUDSDK_CONFIG": str(tmp_path)})
    assert len(read(adapter)) == 1


@pytest.mark.parametrize(
    ("table", "environ"),
    [({"project": "acme"}, {"GOOGLE_CLOUD_PROJECT": "other"}), ({}, {"GOOGLE_CLOUD_PROJECT": "acme"})],
)
def test_the_project_is_that_of_the_settings_then_of_the_environment(
    google: Google, table: dict[str, Any], environ: dict[str, str]
) -> None:
    google.tells(price(day(1), None))
    content = json.loads(google.account().read_text()) | {"project_id": "of-the-file"}
    adapter = google.adapter(google.file(**content), **table)
    adapter.settings = replace(adapter.settings, environ={**adapter.settings.environ, **environ})
    assert len(read(adapter)) == 1


def test_without_a_project_it_says_so(google: Google) -> None:
    content = json.loads(google.account().read_text())
    del content["project_id"]
    with pytest.raises(AuthError, match="no project"):
        read(google.adapter(google.file(**content)))


def test_a_file_that_is_named_and_missing_is_not_replaced_by_another(google: Google, tmp_path: Path) -> None:
    with pytest.raises(AuthError, match="no credentials") as caught:
        read(google.adapter(tmp_path / "missing.json"))
    assert "missing.json" in caught.value.why


@pytest.mark.parametrize(
    "content",
    [
        {"type": "external_account", "project_id": "acme"},
        {"type": "service_account", "project_id": "acme"},
        {"type": "authorized_user", "client_id": "c", "quota_project_id": "acme"},
        {"project_id": "acme"},
    ],
)
def test_credentials_that_cannot_be_used_say_so(google: Google, content: dict[str, str]) -> None:
    with pytest.raises(AuthError, match="cannot be used"):
        read(google.adapter(google.file(**content)))


@pytest.mark.parametrize("text", ["", "[]", "{", "\N{SNOWMAN}"])
def test_a_file_that_is_none_of_credentials_says_so(google: Google, text: str) -> None:
    file = google.account()
    file.write_text(text)
    with pytest.raises(AuthError, match="cannot be used"):
        read(google.adapter(file))


def test_a_key_that_is_none_is_not_shown(google: Google) -> None:
    content = json.loads(google.account().read_text())
    content["private_key"] = (
        "-----BEGIN PRIVATE KEY-----\nbm90IGEga2V5IGF0IGFsbA==\n-----END PRIVATE KEY-----\n"
    )
    with pytest.raises(AuthError, match="cannot be used") as caught:
        read(google.adapter(google.file(**content)))
    assert "bm90IGEga2V5" not in f"{caught.value.message}{caught.value.why}"


def test_without_google_auth_it_says_what_to_install(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth.exceptions", None)
    with pytest.raises(ConfigError, match="google-auth") as caught:
        read(google.adapter())
    assert caught.value.hint == "pip install 'gpucloud[gcp]'"
