"""What EC2 and its sisters refuse, by their codes, in our words.

The codes are of https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
(as of 2026-11-21). That capacity is missing EC2 says as a failure on its side, with status 500.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import (
    AuthError,
    ConfigError,
    GpucloudError,
    NoCapacity,
    NotFound,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
    Unsupported,
)
from gpucloud.replies import Rows

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError

    from gpucloud_aws.quotas import Quota

FORBIDDEN: Final = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
"""The credentials are good, and do not allow this."""

NOT_KNOWN: Final = {
    "AuthFailure",
    "Blocked",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "MissingAuthenticationToken",
    "PendingVerification",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
TOO_OFTEN: Final = {
    "CapacityBlockDescribeLimitExceeded",
    "EC2ThrottledException",
    "MaxConfigLimitExceeded",
    "RequestLimitExceeded",
    "RequestThrottled",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
CAPACITY: Final = {
    "InsufficientCapacity",
    "InsufficientCapacityOnHost",
    "InsufficientHostCapacity",
    "InsufficientInstanceCapacity",
    "InsufficientReservedInstanceCapacity",
    "InvalidCapacityBlockOfferingIdExpired",
    "InvalidCapacityBlockOfferingIdNotFound",
    "UnfulfillableCapacity",
}
NOT_NOW: Final = {
    "InsufficientFreeAddressesInSubnet",
    "InvalidCapacityReservationState.PendingActivation",
    "InvalidPlacementGroup.Unknown",
    "ReservationCapacityExceeded",
    "SpotMaxPriceTooLow",
}
"""What stands against this launch alone; the next may go well."""

ADDRESSES: Final = "AddressLimitExceeded"
OVER_QUOTA: Final[Mapping[str, str]] = {
    ADDRESSES: "EC2-VPC Elastic IPs",
    "InstanceLimitExceeded": "running instances",
    "InternetGatewayLimitExceeded": "Internet gateways per Region",
    "MaxSpotInstanceCountExceeded": "Spot Instance Requests",
    "NetworkInterfaceLimitExceeded": "Network interfaces per Region",
    "PlacementGroupLimitExceeded": "placement groups per Region",
    "RulesPerSecurityGroupLimitExceeded": "Inbound or outbound rules per security group",
    "SecurityGroupLimitExceeded": "VPC security groups per Region",
    "SpotInstanceCountLimitExceeded": "Spot Instance Requests",
    "SubnetLimitExceeded": "Subnets per VPC",
    "VcpuLimitExceeded": "running instances, in vCPUs",
    "VolumeLimitExceeded": "volumes",
    "MaxIOPSLimitExceeded": "IOPS of volumes",
    "VpcLimitExceeded": "VPCs per Region",
}
"""Which quota is used up, where EC2's own text does not name it."""

OF_INSTANCES: Final = {
    "InstanceLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "SpotInstanceCountLimitExceeded",
    "VcpuLimitExceeded",
}
"""What is refused for the quota of the instance type's family and market."""

UNABLE: Final = {"UnsupportedOperation", "UnsupportedHibernationConfiguration"}
NOT_SOLD: Final = "Unsupported"
"""What RunInstances says of a type that is not sold in a zone, or not in that market."""

MISSING: Final = {
    "InvalidInstanceID.Malformed",
    "InvalidVolumeID.Malformed",
    "InvalidNetworkInterfaceId.Malformed",
    "ParameterNotFound",
    "NoSuchResourceException",
}
IN_USE: Final = {
    "DependencyViolation",
    "IncorrectInstanceState",
    "InvalidIPAddress.InUse",
    "InvalidNetworkInterface.InUse",
    "InvalidPlacementGroup.InUse",
    "VolumeInUse",
}
NOT_YET: Final = {"InvalidAllocationID.NotFound", "InvalidNetworkInterfaceID.NotFound"}
"""What EC2 may say of an address or an interface that was made a moment before."""

IMAGES: Final = "InvalidAMIID"
CLOSED_REGION: Final = "OptInRequired"
MISMATCH: Final = "IdempotentParameterMismatch"
"""There is an instance of this client token already, and it was asked for in other words."""

GIVE: Final = "aws configure, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
ADDRESS: Final = "https://ec2.us-east-1.amazonaws.com"
PERMISSIONS: Final = "https://console.aws.amazon.com/iam"
LAUNCH: Final = "RunInstances"
MAKING: Final = {LAUNCH, "PurchaseCapacityBlock"}
"""After a failure on Amazon's side these may have taken effect."""

SERVICES: Final = {
    "AssumeRole": "sts",
    "AssumeRoleWithWebIdentity": "sts",
    "GetParameter": "ssm",
    "GetProducts": "pricing",
    "GetRoleCredentials": "sso",
    "ListServiceQuotas": "servicequotas",
}
"""Whose the operations are that are not of EC2, as policies name them."""

ASKED_FOR_HISTORY: Final = "ec2:DescribeInstanceTypes and ec2:DescribeSpotPriceHistory"


@contextmanager
def translated(provider: str, region: str = "", quota: Quota | None = None) -> Iterator[None]:
    """Inside, what botocore raises is raised in our words. ``quota`` is the one of a launch."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise refused(provider, region, error, quota) from error
    except BotoCoreError as error:
        raise failed(provider, region, error) from error
    except (ResponseParserError, ValueError) as error:
        raise Rows(provider).bad(str(error)) from error


def refused(provider: str, region: str, error: ClientError, quota: Quota | None = None) -> ProviderError:
    """What AWS answered, in our words. ``quota`` is the one that a launch is subject to."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    told = error.response.get("Error", {})
    code, text = told.get("Code", ""), told.get("Message", "")
    words: dict[str, Any] = {"provider": provider, "vendor_code": code, "vendor_text": text}
    words["why"] = f"{code} in {region}: {text}" if region else f"{code}: {text}"
    where = f"{provider} in {region}" if region else provider
    if code in CAPACITY or code in NOT_NOW:
        return NoCapacity(f"{where} has no capacity for this", lasting=code in CAPACITY, **words)
    if code == NOT_SOLD and error.operation_name == LAUNCH:
        return NoCapacity(f"{where} does not sell this there", **words)
    if code in OVER_QUOTA:
        return _over_quota(where, region, code, words, quota if code in OF_INSTANCES else None)
    if code in TOO_OFTEN or status == 429:
        limited = RateLimited(f"{provider} was asked too often in {region} ({code})", provider=provider)
        limited.vendor_code, limited.vendor_text = code, text
        # Of a first try that was lost, only the throttling of the second is told.
        limited.outcome_unknown = _is_unsure(error)
        return limited
    if code == CLOSED_REGION:
        return NotFound(
            f"{provider} has not opened the region {region} to this account", **words, hint=_open(region)
        )
    if code in FORBIDDEN:
        return AuthError(
            f"{provider} does not allow this with these credentials", **words, hint=_allow(error)
        )
    if code in NOT_KNOWN:
        # EC2 says the same of credentials that are wrong and of a region that is not open to them.
        hint = f"aws sts get-caller-identity; if that is right: {_open(region)}"
        return AuthError(f"{provider} refused the credentials", **words, hint=hint)
    return _wrong(where, status, code, words, error)


def failed(provider: str, region: str, error: BotoCoreError) -> GpucloudError:
    """What went wrong before AWS could answer, or in reading its answer, in our words."""
    from botocore import exceptions as of_boto

    place, why = f"{provider} in {region}" if region else provider, str(error)
    if isinstance(error, of_boto.ConnectionError | of_boto.HTTPClientError):
        return Unreachable(f"{place} cannot be reached", provider=provider, why=why)
    if isinstance(error, of_boto.PaginationError | of_boto.ChecksumError | of_boto.IncompleteReadError):
        return Rows(provider).bad(why)
    if isinstance(error, of_boto.ParamValidationError):
        return Rejected(
            f"{provider} cannot be asked for this",
            provider=provider,
            why=why,
            hint="check what was asked for",
        )
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


def misconfigured(provider: str, why: str) -> ConfigError:
    """The settings cannot be meant so."""
    return ConfigError(
        f"the settings for {provider} are wrong",
        why=why,
        hint=f"gpucloud config show; endpoint_url, if there is one, is like {ADDRESS}",
    )


def forbidden(error: ProviderError) -> str | None:
    """The permission that is missing, when the credentials are good; ``None`` for any other failure."""
    operation = getattr(error.__cause__, "operation_name", None)
    return _permission(operation) if operation and error.vendor_code in FORBIDDEN else None


def _over_quota(
    where: str, region: str, code: str, words: dict[str, Any], quota: Quota | None
) -> QuotaExceeded:
    name = f"{quota.name} ({quota.code})" if quota else OVER_QUOTA[code]
    page = f"https://{region}.console.aws.amazon.com/servicequotas/home/services/ec2/quotas"
    return QuotaExceeded(
        f"{where}: the quota {name!r} is used up", **words, hint=quota.to_raise(region) if quota else page
    )


def _wrong(where: str, status: int, code: str, words: dict[str, Any], error: ClientError) -> ProviderError:
    """What is wrong with the request, or with AWS."""
    if code in UNABLE:
        return Unsupported(f"{where} cannot do this with it", **words)
    if code.startswith(IMAGES):
        hint = "take an image of that region: aws ec2 describe-images, then --image ami-..."
        return Rejected(f"{where} has no such image", **words, hint=hint)
    if code in MISSING or (code.endswith(".NotFound") and error.operation_name != LAUNCH):
        return NotFound(f"{where} knows no such thing", **words)
    if code in IN_USE:
        return Rejected(f"{where} refuses it in this state", **words, hint="try again in a minute")
    if status >= 500:
        unsure = error.operation_name in MAKING
        return Unreachable(f"{where} failed on its side", **words, outcome_unknown=unsure)
    return Rejected(f"{where} refused the request", **words)


def _is_unsure(error: ClientError) -> bool:
    tries = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0)
    return error.operation_name in MAKING and tries > 0


def _allow(error: ClientError) -> str:
    # Credentials may have to be fetched first, from who may refuse it, too.
    asked = error.operation_name
    what = ASKED_FOR_HISTORY if asked in ASKED_FOR_HISTORY else _permission(asked)
    return f"allow {what} in the policies of who asks: {PERMISSIONS}"


def _permission(operation: str) -> str:
    return f"{SERVICES.get(operation, 'ec2')}:{operation}"


def _open(region: str) -> str:
    return f"aws account enable-region --region-name {region}"
