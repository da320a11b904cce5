"""The person's account: who asks, by boto3's own chain, and its clients for each service and region.

boto3 looks for credentials in variables, files, containers and the machine it is on. Here the variables, and
the files that they lead to, are those of the settings; what a container or an EC2 instance is given, and what
a profile says is in variables, boto3 finds by the environment of the process. See
https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from gpucloud.errors import AuthError, BadReply, ConfigError
from gpucloud.replies import Rows
from gpucloud_aws.errors import CAPACITY, GIVE, NOT_YET, misconfigured, translated
from gpucloud_aws.reader import CONNECT_S, READ_S, Reader, tell_of

if TYPE_CHECKING:
    import boto3
    from botocore.credentials import Credentials
    from botocore.session import Session
    from types_boto3_ec2 import EC2Client
    from types_boto3_ssm import SSMClient

    from gpucloud.provider import ProviderSettings
    from gpucloud_aws.quotas import Quota

ATTEMPTS: Final = 4
"""How often a request is made in all, unless the person has told AWS's tools otherwise."""

CONNECTIONS: Final = 32
"""How many threads may ask one service of one region at once without waiting for each other."""

HOME: Final = "us-east-1"
"""Who is asked which regions there are, unless the person's own settings name a region."""

LOGIN_VARIABLES: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
LOGIN_KEYS: Final = ("profile", "regions")
"""Settings by which a person says that the account is to be used, as on an EC2 instance with a role."""

_LOGIN_IN_FILE: Final = re.compile(
    r"^\s*(?:aws_access_key_id|credential_process|login_session|role_arn|sso_session|sso_start_url)\s*=",
    re.MULTILINE,
)
_READING: Final = ("Describe", "Get", "List")
_STARTING: Final = ("RunInstances", "StartInstances")
_USING: Final = ("AssociateAddress", "RunInstances")
"""What names things that were made a moment before; sent twice, it does the same."""


def has_login(settings: ProviderSettings) -> bool:
    """Whether AWS's own tools have been given credentials, or the settings say so; only files are read."""
    environ = settings.environ
    if any(environ.get(name) for name in LOGIN_VARIABLES) or any(
        settings.table.get(key) for key in LOGIN_KEYS
    ):
        return True
    files = _files(settings)
    ours = (
        environ.get("AWS_SHARED_CREDENTIALS_FILE", files["credentials_file"]),
        environ.get("AWS_CONFIG_FILE", files["config_file"]),
    )
    return any(map(_names_a_login, ours))


class Account:
    """Makes a reader and clients for one account, for use in threads, and translates what clients raise.

    Raises ``ConfigError`` when boto3 or the profile is not there.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.provider = settings.name
        self._endpoint = _text(settings, "endpoint_url")
        self._clients: dict[tuple[str, str, bool], Any] = {}
        # boto3's sessions are not made for threads; its clients are.
        self._lock = threading.Lock()
        _is_there(self.provider)
        with self._set_up():
            self._core = _session(settings)
        self._boto: boto3.Session | None = None
        self._found: Credentials | None = None
        self.reader = Reader(self.provider, self._core, self._credentials, settings.environ, self._endpoint)

    def check(self, why: str = "what is sold and rented is told only to who has an account") -> None:
        """Raises ``AuthError`` when there are no credentials, or none can be had."""
        with self.translated():
            self._credentials(why)

    def regions(self) -> list[list[str]]:
        """The regions that boto3 knows: first those that most accounts are of, then China's and the others.

        No account can be used in the regions of two of these lists.
        """
        partitions = self._core.get_available_partitions()
        return [self._core.get_available_regions("ec2", partition) for partition in partitions]

    def opened(self) -> list[str]:
        """The regions that are open to the account, as EC2 tells them."""
        home = self._core.get_config_variable("region") or HOME
        told = self.reader.ec2(home, "DescribeRegions", {"AllRegions": "false"}, "RegionInfo")
        opened = sorted(region["RegionName"] for region in told if "RegionName" in region)
        if not opened:
            # Nothing would be looked for anywhere, and so nothing found.
            raise Rows(self.provider).bad(f"{home}: no region is open to the account")
        return opened

    def ec2(self, region: str, *, once: bool = False) -> EC2Client:
        """What asks EC2 in a region; with ``once`` nothing is sent a second time."""
        client: EC2Client = self._client("ec2", region, once)
        return client

    def parameters(self, region: str) -> SSMClient:
        """What asks for the parameters that AWS publishes in a region."""
        client: SSMClient = self._client("ssm", region)
        return client

    @contextmanager
    def translated(self, region: str = "", quota: Quota | None = None) -> Iterator[None]:
        """Inside, what boto3 raises is raised in our words."""
        with translated(self.provider, region, quota):
            yield

    def _credentials(self, why: str = "nobody can be asked without any") -> Credentials:
        with self._lock:
            self._found = self._found or self._core.get_credentials()
        if self._found is None:
            raise AuthError(
                f"there are no credentials for {self.provider}", provider=self.provider, why=why, hint=GIVE
            )
        return self._found

    def _client(self, service: Literal["ec2", "ssm"], region: str, once: bool = False) -> Any:
        """Connects to nothing yet."""
        import boto3
        from botocore.config import Config

        key = (service, region, once)
        with self._lock:
            if key not in self._clients:
                config = Config(
                    connect_timeout=CONNECT_S,
                    read_timeout=READ_S,
                    max_pool_connections=CONNECTIONS,
                    retries={"total_max_attempts": 1} if once else None,
                )
                with self._set_up():
                    self._boto = self._boto or boto3.Session(botocore_session=self._core)
                    client = self._boto.client(
                        service, region_name=region, endpoint_url=self._endpoint, config=config
                    )
                if service == "ec2":
                    # All clients share this, and in threads each of them would look for it on the disk.
                    client.can_paginate("describe_instances")
                    for operation in _STARTING:
                        client.meta.events.register_first(f"needs-retry.ec2.{operation}", _take_the_answer)
                    for operation in _USING:
                        client.meta.events.register_first(f"needs-retry.ec2.{operation}", _ask_again)
                self._clients[key] = client
            return self._clients[key]

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        """Inside, nobody is asked anything, so what makes no sense was set so."""
        try:
            with self.translated():
                yield
        except BadReply as error:
            raise misconfigured(self.provider, error.why) from error


def _tell_of(**event: Any) -> None:
    """Its name is such as ``before-send.ec2.RunInstances``; for a login other services are asked."""
    _, service, operation = event["event_name"].split(".", 2)
    tell_of(event["request"], changes=service == "ec2" and not operation.startswith(_READING))


def _take_the_answer(response: Any, **_: Any) -> None:
    """Missing capacity comes with status 500, for which boto3 would ask again, for seconds and in vain."""
    if response is not None and response[1].get("Error", {}).get("Code") in CAPACITY:
        response[0].status_code = 400


def _ask_again(response: Any, **_: Any) -> None:
    """What has just been made may not be known everywhere yet, which boto3 would take for the last word."""
    if response is not None and response[1].get("Error", {}).get("Code") in NOT_YET:
        response[0].status_code = 503


def _text(settings: ProviderSettings, key: str) -> str | None:
    value = settings.table.get(key)
    return str(value) if value else None


def _files(settings: ProviderSettings) -> dict[str, str]:
    home = Path(settings.environ.get("HOME") or settings.environ.get("USERPROFILE") or "~") / ".aws"
    return {"config_file": str(home / "config"), "credentials_file": str(home / "credentials")}


def _names_a_login(file: str) -> bool:
    with suppress(OSError, ValueError):
        return _LOGIN_IN_FILE.search(Path(file).read_text()) is not None
    return False


def _is_there(provider: str) -> None:
    """Raises ``ConfigError`` without boto3, which is not installed unless it is asked for."""
    # It is not imported, because a listing goes without and would wait for that.
    if not (find_spec("boto3") and find_spec("botocore")):
        raise ConfigError(
            f"{provider} can be asked for this only with boto3",
            why="it is not installed",
            hint="pip install 'gpucloud[aws]'",
        )


def _moment(told: Any) -> datetime:
    """What botocore makes of a time, ten times as fast: a listing of prices has thousands of them."""
    from botocore.utils import parse_timestamp

    try:
        moment = datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return parse_timestamp(told)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _session(settings: ProviderSettings) -> Session:
    import botocore.session
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES, ConfigChainFactory
    from botocore.credentials import EnvProvider

    environ, profile = dict(settings.environ), _text(settings, "profile")
    ours = {**_files(settings), "retry_mode": "standard", "max_attempts": ATTEMPTS}
    core = botocore.session.Session(profile=profile)
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    store, chains = core.get_component("config_store"), ConfigChainFactory(session=core, environ=environ)
    for name, (key, variables, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items():
        chain = chains.create_config_chain(name, variables, key, ours.get(name, default), convert)
        store.set_config_provider(name, chain)
    # A profile that is named counts more than keys in variables, so there that link is missing.
    if profile is None:
        links = core.get_component("credential_provider")
        links.insert_after(EnvProvider.METHOD, EnvProvider(environ))
        links.remove(EnvProvider.METHOD)  # Of two it removes the first.
    core.register("before-send", _tell_of)
    # Only now it is told that there is no such profile.
    core.get_scoped_config()
    return core
