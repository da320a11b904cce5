"""The person's account: who asks, by boto3's own chain, and its refusals in our words.

boto3 looks for credentials in variables, files, containers and the machine it is on. Here the variables, and
the files that they lead to, are those of the settings; what a container or an EC2 instance is given, and what
a profile says is in variables, boto3 finds by the environment of the process. See
https://boto3.amazonaws.com/v1/documentation/api/latest/guide/credentials.html
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import (
    AuthError,
    BadReply,
    ConfigError,
    GpucloudError,
    NotFound,
    ProviderError,
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud.replies import Rows

if TYPE_CHECKING:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError
    from types_boto3_ec2 import EC2Client

    from gpucloud.provider import ProviderSettings

CONNECT_S: Final = 5
READ_S: Final = 30
ATTEMPTS: Final = 4
"""How often a request is made in all, unless the person has told AWS's tools otherwise."""

NOT_ALLOWED: Final = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"}
NOT_KNOWN: Final = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
TOO_OFTEN: Final = {
    "EC2ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
ADDRESS: Final = "https://ec2.us-east-1.amazonaws.com"
CLOSED_REGION: Final = "OptInRequired"

ASKED: Final = "ec2:DescribeInstanceTypes and ec2:DescribeSpotPriceHistory"
GIVE: Final = "aws configure, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


class Account:
    """Makes clients for one account. They may be used in threads; making them is for one thread.

    Raises ``ConfigError`` when boto3 or the profile is not there.
    """

    def __init__(self, settings: ProviderSettings) -> None:
        self.provider = settings.name
        self._endpoint = _text(settings, "endpoint_url")
        _is_there(self.provider)
        with self._set_up():
            self._session = _session(settings)

    def check(self) -> None:
        """Raises ``AuthError`` when there are no credentials, or none can be had."""
        with self.translated():
            if self._session.get_credentials() is None:
                raise AuthError(
                    f"there are no credentials for {self.provider}",
                    provider=self.provider,
                    why="past Spot prices are told only to who has an account",
                    hint=GIVE,
                )

    def regions(self) -> list[list[str]]:
        """The regions that boto3 knows: first those that most accounts are of, then China's and the others.

        No account can be used in the regions of two of these lists.
        """
        partitions = self._session.get_available_partitions()
        return [self._session.get_available_regions("ec2", partition) for partition in partitions]

    def ec2(self, region: str) -> EC2Client:
        """What asks EC2 in a region. Connects to nothing yet."""
        from botocore.config import Config

        config = Config(connect_timeout=CONNECT_S, read_timeout=READ_S)
        with self._set_up():
            return self._session.client("ec2", region_name=region, endpoint_url=self._endpoint, config=config)

    @contextmanager
    def translated(self, region: str = "") -> Iterator[None]:
        """Inside, what boto3 raises is raised in our words."""
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            yield
        except ClientError as error:
            raise _refused(self.provider, region, error) from error
        except BotoCoreError as error:
            raise _failed(self.provider, region, error) from error
        except (ResponseParserError, ValueError) as error:
            raise Rows(self.provider).bad(str(error)) from error

    @contextmanager
    def _set_up(self) -> Iterator[None]:
        """Inside, nobody is asked anything, so what makes no sense was set so."""
        try:
            with self.translated():
                yield
        except BadReply as error:
            raise ConfigError(
                f"the settings for {self.provider} are wrong",
                why=error.why,
                hint=f"gpucloud config show; endpoint_url, if there is one, is like {ADDRESS}",
            ) from error


def _text(settings: ProviderSettings, key: str) -> str | None:
    value = settings.table.get(key)
    return str(value) if value else None


def _is_there(provider: str) -> None:
    """Raises ``ConfigError`` without boto3, which is not installed unless it is asked for."""
    try:
        import boto3  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"{provider} can be asked for this only with boto3",
            why=f"it cannot be imported: {error}",
            hint="pip install 'gpucloud[aws]'",
        ) from error


def _session(settings: ProviderSettings) -> boto3.Session:
    import boto3
    import botocore.session
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES, ConfigChainFactory
    from botocore.credentials import EnvProvider

    environ, profile = dict(settings.environ), _text(settings, "profile")
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or "~")
    ours = {
        "config_file": str(home / ".aws" / "config"),
        "credentials_file": str(home / ".aws" / "credentials"),
        "retry_mode": "standard",
        "max_attempts": ATTEMPTS,
    }
    core = botocore.session.Session(profile=profile)
    store, chains = core.get_component("config_store"), ConfigChainFactory(session=core, environ=environ)
    for name, (key, variables, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items():
        chain = chains.create_config_chain(name, variables, key, ours.get(name, default), convert)
        store.set_config_provider(name, chain)
    # A profile that is named counts more than keys in variables, so there that link is missing.
    if profile is None:
        links = core.get_component("credential_provider")
        links.insert_after(EnvProvider.METHOD, EnvProvider(environ))
        links.remove(EnvProvider.METHOD)  # Of two it removes the first.
    return boto3.Session(botocore_session=core)


def _refused(provider: str, region: str, error: ClientError) -> ProviderError:
    """What EC2 answered, in our words."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code, text = (error.response.get("Error", {}).get(key, "") for key in ("Code", "Message"))
    words: dict[str, Any] = {"provider": provider, "vendor_code": code, "vendor_text": text}
    words["why"] = f"{code} in {region}: {text}" if region else f"{code}: {text}"
    if code in TOO_OFTEN or status == 429:
        return RateLimited(f"{provider} was asked too often in {region} ({code})", provider=provider)
    if code == CLOSED_REGION:
        return NotFound(
            f"{provider} has not opened the region {region} to this account", **words, hint=_open(region)
        )
    if code in NOT_ALLOWED:
        return AuthError(
            f"{provider} does not allow this with these credentials", **words, hint=_allow(error)
        )
    if code in NOT_KNOWN:
        # EC2 says the same of credentials that are wrong and of a region that is not open to them.
        hint = f"aws sts get-caller-identity; if that is right: {_open(region)}"
        return AuthError(f"{provider} refused the credentials", **words, hint=hint)
    if status >= 500:
        return Unreachable(f"{provider} failed on its side", **words)
    return Rejected(f"{provider} refused the request", **words)


def _allow(error: ClientError) -> str:
    # Credentials may have to be fetched first, from who may refuse it, too.
    asked = error.operation_name
    return f"allow {ASKED if asked in ASKED else asked} in the policies of who asks"


def _open(region: str) -> str:
    return f"aws account enable-region --region-name {region}"


def _failed(provider: str, region: str, error: BotoCoreError) -> GpucloudError:
    """What went wrong before EC2 could answer, or in reading its answer, in our words."""
    from botocore import exceptions as of_boto

    place, why = f"{provider} in {region}" if region else provider, str(error)
    if isinstance(error, of_boto.ConnectionError | of_boto.HTTPClientError):
        return Unreachable(f"{place} cannot be reached", provider=provider, why=why)
    if isinstance(error, of_boto.PaginationError | of_boto.ChecksumError | of_boto.IncompleteReadError):
        return Rows(provider).bad(why)
    if isinstance(
        error,
        of_boto.ProfileNotFound
        | of_boto.ConfigParseError
        | of_boto.ConfigNotFound
        | of_boto.InvalidConfigError
        | of_boto.ValidationError
        | of_boto.InvalidRetryConfigurationError,
    ):
        return ConfigError(f"the settings for {place} are wrong", why=why, hint="aws configure list")
    # What is left is of looking for credentials: none, half of them, a sign-in that is over.
    return AuthError(
        f"no credentials for {place} can be had", provider=provider, why=why, hint=f"aws sso login, or {GIVE}"
    )
