"""What a listing reads without boto3's clients: asked where, by whom and how as they would ask."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.credentials import Credentials
from werkzeug import Request, Response

from gpucloud.errors import (
    AuthError,
    BadReply,
    ConfigError,
    NotFound,
    ProviderError,
    RateLimited,
    Unreachable,
)
from gpucloud.model import Market, Requirements
from gpucloud.provider import ProviderSettings
from gpucloud_aws import Aws
from gpucloud_aws.account import Account
from gpucloud_aws.reader import EC2, PRICING, QUOTAS, Service
from tests.harness.acme.faults import Fault, Trouble, Verb
from tests.harness.aws import LOGIN, Cloud, Refusal, Served, serving
from tests.harness.faulty import Faulty
from tests.providers.aws.conftest import MakeAdapter, an_adapter

ONE = Requirements(markets=(), regions=("us-east-1",), instance_types=("g5.xlarge",))


REGIONS = "<DescribeRegionsResponse><regionInfo>{}</regionInfo>{}</DescribeRegionsResponse>"

ASKS: dict[Service, tuple[str, dict[str, str]]] = {
    EC2: ("describe_regions", {}),
    PRICING: ("get_products", {"ServiceCode": "AmazonEC2"}),
    QUOTAS: ("list_service_quotas", {"ServiceCode": "ec2"}),
}
"""What a client of each service can be asked."""


def an_account(home: Path, table: Mapping[str, Any] | None = None, /, **environ: str) -> Account:
    """An account of somebody who may have more in the environment than keys."""
    environ = {**LOGIN, "HOME": str(home), "AWS_MAX_ATTEMPTS": "1", **environ}
    return Account(ProviderSettings("aws", home / "state", table=table or {}, environ=environ))


class Recorder:
    """Keeps every request as it came, and answers some of them itself."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.requests: list[Request] = []
        self.answers: list[Response] = []
        self.instead: dict[str, str] = {}

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        request = Request(environ)
        request.get_data(cache=True)
        self.requests.append(request)
        if self.answers:
            return self.answers.pop(0)(environ, start_response)
        if text := self.instead.get(request.headers.get("X-Amz-Target", "")):
            return Response(text)(environ, start_response)
        environ["wsgi.input"] = io.BytesIO(request.get_data())
        answer: Iterable[bytes] = self._app(environ, start_response)
        return answer


@pytest.fixture
def recorded(elsewhere_nothing: None) -> Any:
    """A cloud, and what comes to it."""
    kept: list[Recorder] = []

    def around(app: Any) -> Recorder:
        kept.append(Recorder(app))
        return kept[0]

    with serving(around=around) as served:
        yield served, kept[0]


# where


@pytest.mark.parametrize("service", [EC2, PRICING, QUOTAS], ids=lambda service: service.name)
@pytest.mark.parametrize(
    ("region", "environ"),
    [
        ("us-east-1", {}),
        ("ap-southeast-5", {}),
        ("cn-north-1", {}),
        ("us-gov-west-1", {}),
        ("us-iso-east-1", {}),
        ("xx-nowhere-1", {}),
        ("us-east-1", {"AWS_USE_FIPS_ENDPOINT": "true"}),
        ("us-west-2", {"AWS_USE_DUALSTACK_ENDPOINT": "true"}),
    ],
)
def test_a_service_is_where_boto3_has_it(
    tmp_path: Path, elsewhere_nothing: None, service: Service, region: str, environ: dict[str, str]
) -> None:
    account, asked = an_account(tmp_path, **environ), []
    client = account._core.create_client(service.name, region_name=region)

    def sent(request: AWSPreparedRequest, **_: object) -> None:
        asked.append(request.url)
        raise InterruptedError

    client.meta.events.register("before-send", sent)
    operation, words = ASKS[service]
    with pytest.raises(InterruptedError):
        getattr(client, operation)(**words)
    assert asked == [f"{account.reader.address(service, region)}/"]


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_EC2"])
def test_an_address_may_be_given_as_amazon_s_own_tools_take_it(
    served: Served, tmp_path: Path, name: str
) -> None:
    assert an_account(tmp_path, **{name: served.url}).opened() == sorted(served.cloud.regions)
    ignoring = an_account(tmp_path, **{name: served.url, "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"})
    assert ignoring.reader.address(EC2, "us-east-1") == "https://ec2.us-east-1.amazonaws.com"


def test_an_address_may_be_given_in_a_profile(served: Served, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        f"[profile work]\nservices = here\n[services here]\nec2 =\n  endpoint_url = {served.url}\n"
    )
    account = an_account(tmp_path, {"profile": "work"}, AWS_CONFIG_FILE=str(config))
    assert account.reader.address(EC2, "us-east-1") == served.url
    assert account.reader.address(PRICING, "us-east-1") == "https://api.pricing.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("table", "environ"),
    [({"endpoint_url": "nowhere"}, {}), ({}, {"AWS_ENDPOINT_URL": "nowhere"}), ({}, {"AWS_REGION": "a/b"})],
)
def test_an_address_that_is_none_is_a_wrong_setting(
    tmp_path: Path, elsewhere_nothing: None, table: dict[str, str], environ: dict[str, str]
) -> None:
    settings = {**environ, "AWS_DEFAULT_REGION": environ.get("AWS_REGION", "us-east-1")}
    with pytest.raises(ConfigError, match="wrong"):
        an_account(tmp_path, table, **settings).opened()


def test_a_proxy_is_asked_as_amazon_s_own_tools_ask_it(
    recorded: tuple[Served, Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, recorder = recorded
    monkeypatch.setenv("HTTP_PROXY", served.url)
    recorder.answers = [Response("", 407)]
    with pytest.raises(ProviderError):
        an_account(tmp_path, {"endpoint_url": "http://ec2.example"}).opened()
    (request,) = recorder.requests
    assert request.host == "ec2.example"


# by whom


@pytest.mark.parametrize("token", ["", "TOKEN/of+a=session"])
def test_every_request_is_signed_as_it_arrives(
    recorded: tuple[Served, Recorder], tmp_path: Path, token: str
) -> None:
    served, recorder = recorded
    environ = {**LOGIN, "HOME": str(tmp_path), "AWS_MAX_ATTEMPTS": "1", "AWS_SESSION_TOKEN": token}
    table = {"endpoint_url": served.url}
    assert list(Aws(ProviderSettings("aws", tmp_path, table=table, environ=environ)).offers(ONE))
    kinds = {request.headers.get("X-Amz-Target") or request.form["Action"] for request in recorder.requests}
    assert len(kinds) == 6
    for request in recorder.requests:
        assert request.headers.get("X-Amz-Security-Token", "") == token
        assert _signature(request) == request.headers["Authorization"].rpartition("Signature=")[2]


def _signature(request: Request) -> str:
    """What the signature must be, of what has arrived."""
    told = re.match(
        r"AWS4-HMAC-SHA256 Credential=[^/]+/\d+/([^/]+)/([^/]+)/aws4_request, SignedHeaders=([^,]+),",
        request.headers["Authorization"],
    )
    assert told is not None
    region, service, names = told.groups()
    headers = {name: request.headers[name] for name in names.split(";")}
    arrived = AWSRequest(request.method, request.url, headers, request.get_data())
    arrived.context["timestamp"] = request.headers["X-Amz-Date"]
    auth = SigV4Auth(Credentials(*LOGIN.values()), service, region)
    signature: str = auth.signature(auth.string_to_sign(arrived, auth.canonical_request(arrived)), arrived)
    return signature


def test_the_login_of_a_profile_is_used(served: Served, tmp_path: Path) -> None:
    login = {
        "Version": 1,
        "AccessKeyId": LOGIN["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": LOGIN["AWS_SECRET_ACCESS_KEY"],
    }
    (tmp_path / "login.json").write_text(json.dumps(login))
    script = f"import pathlib; print(pathlib.Path({str(tmp_path / 'login.json')!r}).read_text())"
    (tmp_path / "tell.py").write_text(script)
    config = tmp_path / "config"
    config.write_text(f"[profile work]\ncredential_process = {sys.executable} {tmp_path / 'tell.py'}\n")
    environ = {"AWS_CONFIG_FILE": str(config), "HOME": str(tmp_path), "AWS_MAX_ATTEMPTS": "1"}
    table = {"endpoint_url": served.url, "profile": "work"}
    assert list(Aws(ProviderSettings("aws", tmp_path, table=table, environ=environ)).offers(ONE))


def test_a_listing_loads_neither_boto3_nor_the_description_of_a_service(
    served: Served, tmp_path: Path
) -> None:
    script = f"""
import sys
from pathlib import Path
loaded = []
sys.addaudithook(lambda event, of: event == "open" and "service-2" in str(of[0]) and loaded.append(of[0]))
from gpucloud.model import Requirements
from gpucloud.provider import ProviderSettings
from gpucloud_aws import Aws
table, environ = {{"endpoint_url": {served.url!r}}}, {{**{LOGIN!r}, "HOME": {str(tmp_path)!r}}}
assert list(Aws(ProviderSettings("aws", Path("state"), table=table, environ=environ)).offers(Requirements()))
sys.exit(str([*loaded, *({{"boto3", "httpx"}} & sys.modules.keys())]))
"""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, cwd=tmp_path, stderr=subprocess.PIPE, check=False
    )
    assert done.stderr.decode().strip() == "[]"


# what is answered


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (200, "<DescribeRegionsResponse", BadReply),
        (200, '{"regions": []}', BadReply),
        (200, "<html><body>Sign in to the hotel</body></html>", BadReply),
        (200, "<DescribeRegionsResponse/>", BadReply),
        (200, REGIONS.format("", ""), BadReply),
        (200, REGIONS.format("somewhere", ""), BadReply),
        (200, REGIONS.format("<item>somewhere</item>", ""), BadReply),
        (503, "<html><body>Service Unavailable</body></html>", Unreachable),
        (502, "<html><br></html>", Unreachable),
        (500, "", Unreachable),
        (429, "slow down", RateLimited),
        (401, '{"__type": "com.amazon.coral#OptInRequired", "Message": "no"}', NotFound),
    ],
)
def test_an_answer_that_is_none_is_told_as_what_it_is(
    recorded: tuple[Served, Recorder], tmp_path: Path, status: int, text: str, kind: type[ProviderError]
) -> None:
    served, recorder = recorded
    recorder.answers = [Response(text, status)]
    with pytest.raises(kind) as caught:
        an_account(tmp_path, {"endpoint_url": served.url}).opened()
    assert type(caught.value) is kind


@pytest.mark.parametrize("text", ["{}", '{"PriceList": null}', "[]", "prices", '{"PriceList": ["{}"]}'])
def test_a_price_list_that_is_none_is_not_taken_for_an_empty_one(
    recorded: tuple[Served, Recorder], tmp_path: Path, text: str
) -> None:
    served, recorder = recorded
    adapter = an_adapter(served, tmp_path)
    recorder.instead["AWSPriceListService.GetProducts"] = text
    with pytest.raises(BadReply):
        list(adapter.offers(replace(ONE, markets=(Market.ON_DEMAND,))))


def test_a_page_that_comes_again_and_again_ends_the_reading(
    recorded: tuple[Served, Recorder], tmp_path: Path
) -> None:
    served, recorder = recorded
    page = REGIONS.format("<item><regionName>a</regionName></item>", "<nextToken>1</nextToken>")
    recorder.answers = [Response(page) for _ in range(9)]
    with pytest.raises(BadReply, match="cannot be read"):
        an_account(tmp_path, {"endpoint_url": served.url}).opened()
    assert len(recorder.requests) == 2


def test_a_refusal_is_told_by_the_same_table_as_that_of_a_client(adapter: Aws, cloud: Cloud) -> None:
    cloud.refusals["DescribeRegions"] = [Refusal(400, "RequestExpired", "the vendor's own text")]
    with pytest.raises(AuthError) as caught:
        list(adapter.offers(ONE))
    assert (caught.value.vendor_code, caught.value.vendor_text) == ("RequestExpired", "the vendor's own text")


def test_nothing_is_asked_more_often_than_amazon_s_own_tools_are_told_to(
    make_adapter: MakeAdapter, cloud: Cloud
) -> None:
    cloud.throttled["DescribeRegions"] = 9
    with pytest.raises(RateLimited):
        list(make_adapter(attempts=2).offers(ONE))
    assert len(cloud.of("DescribeRegions")) == 2


def test_a_refusal_that_stays_is_asked_for_once(make_adapter: MakeAdapter, cloud: Cloud) -> None:
    cloud.forbidden.add(("ec2:DescribeRegions", None))
    with pytest.raises(AuthError):
        list(make_adapter(attempts=4).offers(ONE))
    assert len(cloud.of("DescribeRegions")) == 1


def test_a_connection_that_breaks_is_made_again(elsewhere_nothing: None, tmp_path: Path) -> None:
    def around(app: Any) -> Faulty:
        faulty = Faulty(app, lambda _, body: Verb.LIST if b"DescribeRegions" in body else None)
        faulty.strike(Fault(Verb.LIST, Trouble.DROPPED_CONNECTION))
        return faulty

    with serving(around=around) as served:
        assert list(an_adapter(served, tmp_path, attempts=2).offers(ONE))
