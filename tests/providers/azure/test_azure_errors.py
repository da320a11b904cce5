"""What Azure refuses, through its own clients, in our words."""

from __future__ import annotations

from pathlib import Path

import pytest

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
from gpucloud.model import Offer
from gpucloud.remote.keys import identity
from gpucloud_azure import Azure
from gpucloud_azure.errors import classify, refusal
from tests.harness.azure import Cloud, Refusal
from tests.harness.azure.market import A100
from tests.providers.rented import a_spec

DENIED = (
    "The client 'us' does not have authorization to perform action 'Microsoft.Compute/virtualMachines/write'"
)


@pytest.mark.parametrize(
    ("status", "code", "text", "kind"),
    [
        (409, "SkuNotAvailable", "Not in eastus.", NoCapacity),
        (409, "AllocationFailed", "None left.", NoCapacity),
        (409, "ZonalAllocationFailed", "None left.", NoCapacity),
        (409, "OverconstrainedAllocationRequest", "None left.", NoCapacity),
        (409, "OverconstrainedZonalAllocationRequest", "None left.", NoCapacity),
        (409, "SpotPriceGreaterThanProvidedMaxPrice", "It costs more.", NoCapacity),
        (409, "OperationNotAllowed", "exceeding approved cores quota", QuotaExceeded),
        (403, "QuotaExceeded", "exceeding approved LowPriorityCores quota", QuotaExceeded),
        (400, "ResourceQuotaExceeded", "No more of these.", QuotaExceeded),
        (400, "PublicIPCountLimitReached", "Only 10.", QuotaExceeded),
        (409, "AzureSpotFeatureNotEnabledForSubscription", "No spot for you.", QuotaExceeded),
        (409, "OperationNotAllowed", "The machine is being deleted.", Rejected),
        (403, "AuthorizationFailed", DENIED, AuthError),
        (403, "LinkedAuthorizationFailed", DENIED, AuthError),
        (403, "RequestDisallowedByPolicy", "A policy says no.", AuthError),
        (409, "ReadOnlyDisabledSubscription", "It is read-only.", AuthError),
        (401, "InvalidAuthenticationToken", "Expired.", AuthError),
        (404, "SubscriptionNotFound", "There is no such subscription.", AuthError),
        (404, "ResourceNotFound", "There is no such thing.", NotFound),
        (409, "MissingSubscriptionRegistration", "Not registered.", Rejected),
        (400, "InvalidParameter", "Wrong.", Rejected),
    ],
)
def test_every_refusal_of_an_order_has_its_error(
    cloud: Cloud,
    azure: Azure,
    offer: Offer,
    tmp_path: Path,
    status: int,
    code: str,
    text: str,
    kind: type[ProviderError],
) -> None:
    cloud.refuse("PUT", "virtualmachines", Refusal(status, code, text))
    with pytest.raises(kind) as refused:
        azure.launch(offer, a_spec(identity(tmp_path)))
    error = refused.value
    assert (type(error), error.provider) == (kind, "azure")
    assert (error.vendor_code, error.vendor_text) == (code, text)
    assert code in error.why
    assert error.hint
    assert cloud.billing() == []


def test_only_a_spot_price_above_the_cap_is_soon_forgotten() -> None:
    codes = ("SpotPriceGreaterThanProvidedMaxPrice", "AllocationFailed", "SkuNotAvailable")
    errors = [refusal("azure", 409, code, "") for code in codes]
    assert [isinstance(error, NoCapacity) and error.lasting for error in errors] == [False, True, True]


@pytest.mark.parametrize(("name", "size"), [("standardNCADSA100v4Family", A100)])
def test_a_quota_is_named_with_the_page_to_raise_it_on(
    cloud: Cloud, azure: Azure, offer: Offer, tmp_path: Path, name: str, size: str
) -> None:
    assert offer.instance_type == size
    cloud.quota("eastus", name, 12)
    with pytest.raises(QuotaExceeded) as refused:
        azure.launch(offer, a_spec(identity(tmp_path)))
    assert f"{name} Cores" in refused.value.message
    assert "https://aka.ms/ProdportalCRP/ask" in refused.value.hint
    assert "Current Limit: 12" in refused.value.vendor_text


def test_the_quota_of_spot_machines_is_another(
    cloud: Cloud, azure: Azure, spot: Offer, tmp_path: Path
) -> None:
    cloud.quota("eastus", "lowPriorityCores", 3)
    with pytest.raises(QuotaExceeded) as refused:
        azure.launch(spot, a_spec(identity(tmp_path)))
    assert "lowPriorityCores" in refused.value.message


def test_a_quota_without_a_page_of_its_own_leads_to_the_page_of_all() -> None:
    error = refusal("azure", 409, "OperationNotAllowed", "exceeding approved cores quota.")
    assert "portal.azure.com" in error.hint


def test_a_missing_permission_is_named(cloud: Cloud, azure: Azure, offer: Offer, tmp_path: Path) -> None:
    cloud.forbid("Microsoft.Network/virtualNetworks/write", "/virtualnetworks/")
    with pytest.raises(AuthError) as refused:
        azure.launch(offer, a_spec(identity(tmp_path)))
    assert "Microsoft.Network/virtualNetworks/write" in refused.value.hint


def test_an_order_that_is_throttled_is_given_again(
    cloud: Cloud, azure: Azure, offer: Offer, tmp_path: Path
) -> None:
    for _ in range(3):
        cloud.refuse(
            "PUT", "virtualmachines", Refusal(429, "TooManyRequests", "Slow down.", retry_after=0.001)
        )
    azure.launch(offer, a_spec(identity(tmp_path)))
    assert len(cloud.instances()) == 1


def test_an_order_that_goes_on_being_throttled_is_given_up(
    cloud: Cloud, azure: Azure, offer: Offer, tmp_path: Path
) -> None:
    for _ in range(5):
        cloud.refuse(
            "PUT", "virtualmachines", Refusal(429, "TooManyRequests", "Slow down.", retry_after=0.001)
        )
    with pytest.raises(RateLimited):
        azure.launch(offer, a_spec(identity(tmp_path)))
    assert cloud.billing() == []


def test_a_listing_that_is_throttled_is_asked_for_again(cloud: Cloud, azure: Azure) -> None:
    cloud.throttle(3)
    assert list(azure.instances()) == []


def test_who_cannot_be_reached_is_unreachable(azure: Azure, offer: Offer, tmp_path: Path) -> None:
    assert list(azure.instances()) == []
    azure._account.arm = "https://127.0.0.1:9"
    with pytest.raises(Unreachable):
        list(azure.instances())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"value": []}),
        (503, {"error": {"code": "Busy"}}),
        (400, None),
        (400, {"error": "no"}),
        (400, ["no"]),
    ],
)
def test_what_azure_says_nothing_in_particular_of_is_left_to_its_status(status: int, body: object) -> None:
    assert classify(status, body) is None
