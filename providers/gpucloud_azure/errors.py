"""Azure's refusals in our words, as data.

The codes are those of https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors
and https://learn.microsoft.com/azure/virtual-machines/error-codes-spot (November 2026). A quota is refused
under a code that means many things, and only the text tells which.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any, Final

from gpucloud.errors import (
    AuthError,
    NoCapacity,
    NotFound,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
)

PROVIDER: Final = "azure"
QUOTAS: Final = "https://portal.azure.com/#view/Microsoft_Azure_Capacity/QuotaMenuBlade/~/myQuotas"

NO_CAPACITY: Final = {
    "AllocationFailed": True,
    "OverconstrainedAllocationRequest": True,
    "OverconstrainedZonalAllocationRequest": True,
    "SkuNotAvailable": True,
    "SpotPriceGreaterThanProvidedMaxPrice": False,
    "ZonalAllocationFailed": True,
}
"""No machine can be had; whether that is worth remembering. A spot price above the maximum soon changes."""

NO_QUOTA: Final = {"QuotaExceeded", "ResourceQuotaExceeded", "AzureSpotFeatureNotEnabledForSubscription"}
MAYBE_QUOTA: Final = "OperationNotAllowed"
LIMIT: Final = "LimitReached"
"""How the codes of what a subscription may have only so many of end."""

NOT_ALLOWED: Final = {
    "AuthorizationFailed",
    "ClientAuthenticationError",
    "ExpiredAuthenticationToken",
    "InvalidAuthenticationToken",
    "InvalidAuthenticationTokenTenant",
    "LinkedAuthorizationFailed",
    "ReadOnlyDisabledSubscription",
    "RequestDisallowedByPolicy",
    "SubscriptionNotFound",
}
TOO_OFTEN: Final = {"RetryableError", "SubscriptionRequestsThrottled", "TooManyRequests"}
NOT_THERE: Final = {"NotFound", "ParentResourceNotFound", "ResourceGroupNotFound", "ResourceNotFound"}
UNREGISTERED: Final = {"MissingSubscriptionRegistration", "SubscriptionNotRegistered"}

_QUOTA: Final = re.compile(r"exceeding approved (.+?) quota", re.IGNORECASE)
_REQUEST: Final = re.compile(r"quota increase at (https://[^\s\"']+)", re.IGNORECASE)
_ACTION: Final = re.compile(r"perform (?:the )?action(?:\(s\))? '([^']+)'", re.IGNORECASE)


def refusal(provider: str, status: int, code: str, text: str) -> ProviderError:
    """What Azure answered, or an operation ended with, as an error of ours."""
    why = ": ".join(filter(None, [code, " ".join(text.split())]))
    words: dict[str, Any] = {"provider": provider, "vendor_code": code, "vendor_text": text, "why": why}
    if code in NO_CAPACITY:
        return NoCapacity(f"{provider} cannot give such a machine now", **words, lasting=NO_CAPACITY[code])
    if code in NO_QUOTA or code.endswith(LIMIT) or (code == MAYBE_QUOTA and "quota" in text.lower()):
        return _over_quota(text, words)
    if code in TOO_OFTEN or status == 429:
        return RateLimited(f"{provider} was asked too often ({code or status})", provider=provider)
    if code in NOT_ALLOWED or status in {401, 403}:
        return AuthError(f"{provider} does not allow this with these credentials", **words, hint=_allow(text))
    # Azure answers 204 to who deletes what is not there, which not all of its clients know.
    if code in NOT_THERE or status in {204, 404}:
        return NotFound(f"{provider} knows no such thing", **words)
    if code in UNREGISTERED:
        hint = "az provider register --namespace Microsoft.Compute, and Microsoft.Network"
        return Rejected(f"{provider}: the subscription is not registered for this", **words, hint=hint)
    if status >= 500:
        return Unreachable(f"{provider} failed on its side", **words, outcome_unknown=True)
    return Rejected(f"{provider} refused the request", **words)


def classify(status: int, body: Any) -> ProviderError | None:
    """What a reply over plain HTTP means; ``None`` for what Azure has said nothing in particular of.

    The body may be the text of JSON: so it comes where a reply is not read as a whole.
    """
    if isinstance(body, str):
        with suppress(ValueError):
            body = json.loads(body)
    error = body.get("error") if isinstance(body, dict) else None
    code, text = (
        (str(error.get(key) or "") for key in ("code", "message")) if isinstance(error, dict) else ("", "")
    )
    if status < 400 or status >= 500 or not code:
        return None
    return refusal(PROVIDER, status, code, text)


def no_login(provider: str, error: Exception, hint: str) -> AuthError:
    """Nobody is signed in, or no longer."""
    told = str(getattr(error, "vendor_text", "") or error)
    why = next(iter(told.strip().splitlines()), "")
    return AuthError(
        f"no credentials for {provider} can be had", provider=provider, why=why, vendor_text=told, hint=hint
    )


def permission(error: ProviderError, usual: str) -> str:
    """The action that was not allowed; ``usual`` where Azure does not say."""
    match = _ACTION.search(error.vendor_text)
    return match[1] if match else usual


def _over_quota(text: str, words: dict[str, Any]) -> QuotaExceeded:
    named, request = _QUOTA.search(text), _REQUEST.search(text)
    what = f"the quota {named[1]}" if named else f"a quota ({words['vendor_code']})"
    hint = f"ask for more: {request[1] if request else QUOTAS}"
    return QuotaExceeded(f"{words['provider']}: {what} does not suffice", **words, hint=hint)


def _allow(text: str) -> str:
    match = _ACTION.search(text)
    if match:
        return f"give who asks a role that allows {match[1]}: az role assignment create --help"
    return "az account show; if that is right: az login"
