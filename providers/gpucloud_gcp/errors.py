"""What Google's refusals mean, wherever they come: in a reply over HTTP, from the SDK or in an operation.

The codes of operations are those of
https://docs.cloud.google.com/compute/docs/troubleshooting/troubleshooting-vm-creation, the reasons of replies
those of https://docs.cloud.google.com/compute/docs/reference/rest/v1/ (as of 2026-11-21).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gpucloud.errors import (
    AuthError,
    BalanceExhausted,
    NoCapacity,
    NotFound,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud_gcp.auth import LOGIN

PROVIDER: Final = "gcp"
QUOTAS: Final = "https://console.cloud.google.com/iam-admin/quotas?project={project}"
EXISTS: Final = {"alreadyExists", "RESOURCE_ALREADY_EXISTS"}
IN_USE: Final = {"resourceInUseByAnotherResource", "RESOURCE_IN_USE_BY_ANOTHER_RESOURCE"}

MEANINGS: Final[Mapping[str, type[ProviderError]]] = {
    "ZONE_RESOURCE_POOL_EXHAUSTED": NoCapacity,
    "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS": NoCapacity,
    "REGION_RESOURCE_POOL_EXHAUSTED": NoCapacity,
    "RESOURCE_POOL_EXHAUSTED": NoCapacity,
    "insufficientCapacity": NoCapacity,
    # What a spot machine gets that is taken back while it is made.
    "UNSUPPORTED_OPERATION": NoCapacity,
    "RESOURCE_NOT_READY": NoCapacity,
    "resourceNotReady": NoCapacity,
    "QUOTA_EXCEEDED": QuotaExceeded,
    "quotaExceeded": QuotaExceeded,
    "rateLimitExceeded": RateLimited,
    "userRateLimitExceeded": RateLimited,
    "RATE_LIMIT_EXCEEDED": RateLimited,
    "RESOURCE_OPERATION_RATE_EXCEEDED": RateLimited,
    "operationRateExceeded": RateLimited,
    "BILLING_DISABLED": BalanceExhausted,
    "accessNotConfigured": AuthError,
    "SERVICE_DISABLED": AuthError,
    "authError": AuthError,
    "forbidden": AuthError,
    "required": Rejected,
    "PERMISSIONS_ERROR": AuthError,
    "notFound": NotFound,
    "RESOURCE_NOT_FOUND": NotFound,
    "INTERNAL_ERROR": Unreachable,
    "internalError": Unreachable,
    "backendError": Unreachable,
}
"""What a code, or a reason, means."""

PASSING: Final = {"UNSUPPORTED_OPERATION", "RESOURCE_NOT_READY", "resourceNotReady"}
"""What is called a lack of capacity here and is not worth remembering."""

BY_STATUS: Final[Mapping[int, type[ProviderError]]] = {
    401: AuthError,
    402: BalanceExhausted,
    403: AuthError,
    404: NotFound,
    429: RateLimited,
}

MESSAGES: Final[Mapping[type[ProviderError], tuple[str, str]]] = {
    NoCapacity: ("{provider} has none left there", "try again later, or take another zone"),
    QuotaExceeded: ("{provider}: the quota {quota} does not suffice", "raise it at {quotas}"),
    RateLimited: ("{provider} was asked too often", "run it again in a minute"),
    BalanceExhausted: ("{provider}: the project {project} has no billing", "gcloud billing projects link"),
    AuthError: ("{provider} does not allow this", LOGIN + ", or ask for the permission"),
    NotFound: ("{provider} knows no such thing", "gpucloud ps"),
    Rejected: ("{provider} refused the request", "run it again with --debug to see request and reply"),
    Unreachable: ("{provider} failed on its side", "try again later"),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A refusal in Google's words. ``status`` is that of HTTP; ``quota`` names the one that is exceeded."""

    code: str
    message: str
    status: int = 0
    quota: str = ""


def translate(fault: Fault, project: str) -> ProviderError:
    """The error of ours for a refusal; that of an error inside of Google leaves open what was made."""
    kind = MEANINGS.get(fault.code) or BY_STATUS.get(fault.status)
    if kind is None:
        kind = Unreachable if fault.status >= 500 else Rejected
    text = " ".join(fault.message.split())
    quota = fault.quota or _quota_named(text)
    told = {
        "provider": PROVIDER,
        "project": project,
        "quota": quota or "of the project",
        "quotas": QUOTAS.format(project=project),
    }
    message, hint = (part.format_map(told) for part in MESSAGES[kind])
    if kind is NoCapacity:
        return NoCapacity(
            message,
            provider=PROVIDER,
            why=text,
            hint=hint,
            lasting=fault.code not in PASSING,
            vendor_code=fault.code,
            vendor_text=text,
        )
    error = kind(message, provider=PROVIDER, hint=hint)
    error.why = text or error.why
    error.vendor_code, error.vendor_text = fault.code, text
    error.outcome_unknown = kind is Unreachable
    return error


def _quota_named(text: str) -> str:
    """The quota that a sentence such as "Quota 'NVIDIA_L4_GPUS' exceeded." is about."""
    found = re.search(r"[Qq]uota '([^']+)'", text)
    return found[1] if found else ""
