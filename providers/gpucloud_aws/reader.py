"""What a listing reads, in AWS's own two protocols: signed and sent by botocore, without its clients.

A client is for one service of one region, and a listing asks three services of all of them. A cold one of 38
regions and 17,100 offers took the processor 310 starts of Python and 178 MiB with clients, and takes 140 and
77 so (2026-11-21, a busy virtual machine with two x86-64 cores, Python 3.11). Most of that was looking for
descriptions of services on the disk, in each thread anew, making 77 clients, and an object for every element
of a reply. What changes something, and what is asked for one instance, goes through clients: they
know the whole of a service. botocore's own connections are used because proxies and certificates are then
those that AWS's tools are set to, and what breaks is told by the same table.

Credentials, addresses and the number of attempts are those of AWS's tools, too. The protocol is that of
https://docs.aws.amazon.com/ec2/latest/devguide/ec2-query-api.html (as of 2026-11-21)
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode

from gpucloud.calls import sending
from gpucloud.errors import RateLimited, Unreachable
from gpucloud.replies import Rows
from gpucloud_aws.errors import misconfigured, translated

if TYPE_CHECKING:
    from xml.etree import ElementTree

    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from botocore.credentials import Credentials
    from botocore.httpsession import URLLib3Session
    from botocore.regions import EndpointResolver
    from botocore.session import Session

    from gpucloud_aws.api import Page

log = logging.getLogger(__name__)

CONNECT_S: Final = 5
READ_S: Final = 30
DEADLINE_S: Final = 60
"""Until when a read is tried again."""

LONGEST_WAIT_S: Final = 20

CONNECTIONS: Final = 64
"""How many connections to one address are kept: with an address of their own, all regions share it."""

EC2_VERSION: Final = "2016-11-15"
LISTED: Final = ("Item", "Member")
"""What the elements of a list are called."""


class Service(NamedTuple):
    """A service by boto3's name, by those in addresses and signatures, and by that of its JSON protocol."""

    name: str
    host: str
    signed_as: str
    target: str = ""


EC2: Final = Service("ec2", "ec2", "ec2")
PRICING: Final = Service("pricing", "api.pricing", "pricing", "AWSPriceListService")
QUOTAS: Final = Service("service-quotas", "servicequotas", "servicequotas", "ServiceQuotasV20190624")


class Reader:
    """Reads for one account; may be used in threads. ``credentials`` are asked for before each request.

    Reads raise ``AuthError``, ``NotFound``, ``Rejected``, ``RateLimited``, ``Unreachable`` or ``BadReply``.
    """

    def __init__(
        self,
        provider: str,
        session: Session,
        credentials: Callable[[], Credentials],
        environ: Mapping[str, str],
        endpoint: str | None,
    ) -> None:
        self._provider = provider
        self._session = session
        self._credentials = credentials
        self._environ = environ
        self._endpoint = endpoint
        # botocore's sessions are not made for threads; its connections are.
        self._lock = threading.Lock()
        self._addresses: dict[tuple[Service, str], str] = {}
        self._connections: dict[str, URLLib3Session] = {}
        self._pools: dict[str, URLLib3Session] = {}
        self._resolver: EndpointResolver | None = None

    def ec2(self, region: str, action: str, words: Mapping[str, Any], rows: str) -> Iterator[Any]:
        """All items of the set ``rows`` on all pages, in the words that boto3 has for them.

        ``words`` are those of the query protocol; a list is written as ``Filter.1``, ``Filter.2``.
        """
        more: dict[str, str] = {}
        while True:
            asked = dict(_flat({"Action": action, "Version": EC2_VERSION, **words, **more}))
            headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
            body = self._read(EC2, region, action, urlencode(asked).encode(), headers)
            told = self._reply(region, action, body)
            found = told.get(rows) or []
            if not (isinstance(found, list) and all(isinstance(row, dict) for row in found)):
                raise Rows(self._provider).bad(f"{region}: {rows} is no set")
            yield from found
            if not (more := self._next(told.get("NextToken"), more)):
                return

    def json(
        self, service: Service, region: str, operation: str, words: Mapping[str, Any], page: type[Page]
    ) -> Iterator[Any]:
        """The rows of all pages, each read as ``page``."""
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"{service.target}.{operation}",
        }
        more: dict[str, str] = {}
        while True:
            asked = json.dumps({**words, **more}).encode()
            body = self._read(service, region, operation, asked, headers)
            told = Rows(self._provider).envelope(page.model_validate_json, body)
            yield from told.rows
            if not (more := self._next(told.token, more)):
                return

    def address(self, service: Service, region: str) -> str:
        """Where a service of a region is."""
        from botocore.utils import is_valid_endpoint_url, validate_region_name

        with self._lock:
            if (service, region) not in self._addresses:
                validate_region_name(region)
                configured = self._endpoint or self._configured(service)
                address = configured or f"https://{self._host(service, region)}"
                if not is_valid_endpoint_url(address):
                    raise misconfigured(self._provider, f"{address} is no address")
                self._addresses[service, region] = address
            return self._addresses[service, region]

    def _reply(self, region: str, action: str, body: bytes) -> dict[str, Any]:
        from xml.etree import ElementTree

        try:
            root = ElementTree.fromstring(body)
        except ElementTree.ParseError as error:
            raise Rows(self._provider).bad(f"{region}: {error}") from error
        told = _told(root)
        # What a proxy says instead may be XML as well, and would be taken for a region without anything.
        if _name(root.tag) != f"{action}Response" or not isinstance(told, dict):
            raise Rows(self._provider).bad(f"{region}: {_name(root.tag)} is no answer to {action}")
        return told

    def _next(self, token: str | None, before: Mapping[str, str]) -> dict[str, str]:
        if token and token == before.get("NextToken"):
            raise Rows(self._provider).bad("it has the same page again and again")
        return {"NextToken": token} if token else {}

    def _read(
        self, service: Service, region: str, operation: str, body: bytes, headers: Mapping[str, str]
    ) -> bytes:
        from tenacity import (
            Retrying,
            retry_if_exception,
            stop_after_attempt,
            stop_after_delay,
            wait_random_exponential,
        )

        ask = partial(self._asked, service, region, operation, body, headers)
        attempts = self._session.get_config_variable("max_attempts")
        retrying = Retrying(
            retry=retry_if_exception(_is_passing),
            wait=wait_random_exponential(max=LONGEST_WAIT_S),
            stop=stop_after_attempt(attempts) | stop_after_delay(DEADLINE_S),
            reraise=True,
        )
        return retrying(ask)

    def _asked(
        self, service: Service, region: str, operation: str, body: bytes, headers: Mapping[str, str]
    ) -> bytes:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        with translated(self._provider, region):
            address = self.address(service, region)
            agent = {"User-Agent": self._session.user_agent()}
            request = AWSRequest("POST", address, {**headers, **agent}, body)
            frozen = self._credentials().get_frozen_credentials()
            SigV4Auth(frozen, service.signed_as, region).add_auth(request)
            prepared = request.prepare()
            tell_of(prepared, changes=False)
            reply = self._connection(address).send(prepared)
            log.debug("%s %s in %s: %s", service.name, operation, region, reply.status_code)
            if reply.status_code != 200:
                raise _refusal(reply, operation)
            content: bytes = reply.content
            return content

    def _connection(self, address: str) -> URLLib3Session:
        with self._lock:
            if address not in self._connections:
                self._connections[address] = self._through(address)
            return self._connections[address]

    def _through(self, address: str) -> URLLib3Session:
        """The connections to an address: one pool for all that are reached through the same proxies."""
        from botocore.httpsession import URLLib3Session
        from botocore.utils import get_environ_proxies

        proxies = get_environ_proxies(address)
        key = json.dumps(proxies, sort_keys=True)
        if key not in self._pools:
            bundle = self._session.get_config_variable("ca_bundle")
            # The stubs know neither a file of certificates nor two timeouts.
            options: dict[str, Any] = {
                "verify": bundle or os.environ.get("REQUESTS_CA_BUNDLE") or True,
                "timeout": (CONNECT_S, READ_S),
            }
            self._pools[key] = URLLib3Session(proxies=proxies, max_pool_connections=CONNECTIONS, **options)
        return self._pools[key]

    def _configured(self, service: Service) -> str | None:
        """The address that the person has given AWS's own tools."""
        from botocore.configprovider import ConfiguredEndpointProvider

        if self._session.get_config_variable("ignore_configured_endpoint_urls"):
            return None
        full, scoped = self._session.full_config, self._session.get_scoped_config()
        url: str | None = ConfiguredEndpointProvider(full, scoped, service.name, self._environ).provide()
        return url

    def _host(self, service: Service, region: str) -> str:
        from botocore.regions import EndpointResolver

        if self._resolver is None:
            self._resolver = EndpointResolver(
                self._session.get_component("data_loader").load_data("endpoints")
            )
        found = self._resolver.construct_endpoint(
            service.host,
            region,
            use_dualstack_endpoint=bool(self._session.get_config_variable("use_dualstack_endpoint")),
            use_fips_endpoint=bool(self._session.get_config_variable("use_fips_endpoint")),
        )
        return str(found["hostname"]) if found else f"{service.host}.{region}.amazonaws.com"


def tell_of(request: AWSPreparedRequest, *, changes: bool) -> None:
    """Tell whoever wants to know of a request that is about to be sent."""
    body = request.body if isinstance(request.body, str | bytes) else None
    sending(request.method, request.url, dict(request.headers), body, changes=changes)


def written(moment: datetime) -> str:
    """A time as EC2 takes it, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, RateLimited | Unreachable) and error.retryable


def _refusal(reply: AWSResponse, operation: str) -> Exception:
    """What was answered instead, as boto3 would raise it."""
    from botocore.exceptions import ClientError

    code, text = _words(reply.content)
    told: Any = {
        "Error": {"Code": code, "Message": text},
        "ResponseMetadata": {"HTTPStatusCode": reply.status_code},
    }
    return ClientError(told, operation)


def _words(body: bytes) -> tuple[str, str]:
    """The code and the text of an error, in XML or JSON; empty for what is neither, as of a proxy."""
    from xml.etree import ElementTree

    try:
        if body.lstrip().startswith(b"<"):
            error = ElementTree.fromstring(body).find(".//{*}Error")
            found = {} if error is None else {_name(each.tag): each.text or "" for each in error}
            return found.get("Code", ""), found.get("Message", "")
        told = json.loads(body)
        code = str(told.get("__type") or told.get("code") or "").rpartition("#")[2].partition(":")[0]
        return code, str(told.get("message") or told.get("Message") or "")
    except (ElementTree.ParseError, ValueError, AttributeError):
        return "", ""


def _told(element: ElementTree.Element) -> Any:
    """An element in the words that boto3 has for it: a text, a list or, by names in capitals, a table.

    Something empty is left out of a table, as it does not say which of the three it is.
    """
    if not len(element):
        return element.text
    names = [_name(each.tag) for each in element]
    if names[0] in LISTED:
        return [_told(each) for each in element]
    told = zip(names, map(_told, element), strict=True)
    return {name: value for name, value in told if value is not None}


@cache
def _name(tag: str) -> str:
    name = tag.rpartition("}")[2]
    return name[:1].upper() + name[1:]


def _flat(words: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Parameters as the query protocol writes them."""
    for name, value in words.items():
        if isinstance(value, Mapping):
            yield from _flat({f"{name}.{inner}": each for inner, each in value.items()})
        elif isinstance(value, list):
            yield from _flat({f"{name}.{number}": each for number, each in enumerate(value, 1)})
        else:
            yield name, value
