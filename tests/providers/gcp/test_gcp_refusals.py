"""How Google says no, and what is made of it, through its own SDK."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from gpucloud.errors import (
    AuthError,
    BalanceExhausted,
    ConfigError,
    NoCapacity,
    NotFound,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud.model import InstanceRef, InstanceState, Market, Offer
from gpucloud_gcp import Gcp
from gpucloud_gcp.errors import MEANINGS
from tests.harness.gcp import Project
from tests.providers.gcp.conftest import MakeAdapter, MakeSpec

FindOffer = Callable[..., Offer]
INSERT = "compute.instances.insert"


def refused(gcp: Gcp, offered: Offer, spec: MakeSpec, **given: object) -> ProviderError:
    """The error that a launch ends with."""
    with pytest.raises(ProviderError) as caught:
        gcp.launch(offered, spec(**given))
    return caught.value


@pytest.mark.parametrize("code", sorted(code for code in MEANINGS if code[0].isupper()))
def test_a_refusal_inside_the_operation_is_understood(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project, code: str
) -> None:
    project.full = {("g2-standard-4", "us-central1-a")}
    project.stock_out = (code, "Google's own words about {zone}.")
    offered = offer()
    error = refused(gcp, offered, spec)
    meant = MEANINGS[code]
    # What a machine lacks is no machine that cannot be found.
    assert type(error) is (Rejected if meant is NotFound else meant)
    assert (error.vendor_code, error.vendor_text) == (code, "Google's own words about us-central1-a.")
    assert error.why and error.hint
    assert error.outcome_unknown is (meant is Unreachable)
    assert project.instances() == []


@pytest.mark.parametrize(
    ("code", "lasting"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", True),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", True),
        ("UNSUPPORTED_OPERATION", False),
        ("RESOURCE_NOT_READY", False),
    ],
)
def test_only_a_lack_of_machines_is_remembered(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project, code: str, lasting: bool
) -> None:
    offered = offer()
    project.full, project.stock_out = {("g2-standard-4", "us-central1-a")}, (code, "no")
    error = refused(gcp, offered, spec)
    assert isinstance(error, NoCapacity)
    assert error.lasting is lasting


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (403, "quotaExceeded", QuotaExceeded),
        (403, "forbidden", AuthError),
        (403, "accessNotConfigured", AuthError),
        (401, "authError", AuthError),
        (403, "BILLING_DISABLED", BalanceExhausted),
        (400, "invalid", Rejected),
        (412, "conditionNotMet", Rejected),
        (404, "notFound", Rejected),
        (400, "insufficientCapacity", NoCapacity),
    ],
)
def test_a_refusal_in_the_reply_is_understood(
    gcp: Gcp,
    offer: FindOffer,
    spec: MakeSpec,
    project: Project,
    status: int,
    reason: str,
    kind: type[ProviderError],
) -> None:
    offered = offer()
    project.throttling, project.throttled = (status, reason), {INSERT: 10}
    error = refused(gcp, offered, spec)
    assert type(error) is kind
    assert error.vendor_code == reason
    assert not error.outcome_unknown


def test_a_quota_is_named_with_the_page_that_raises_it(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    offered = offer()
    project.limits = {("us-central1", "NVIDIA_L4_GPUS"): 0}
    error = refused(gcp, offered, spec)
    assert isinstance(error, QuotaExceeded)
    assert "NVIDIA_L4_GPUS" in error.message
    assert "Limit: 0 in region us-central1" in error.why
    assert error.hint == "raise it at https://console.cloud.google.com/iam-admin/quotas?project=acme"


def test_a_quota_in_the_reply_is_named_too(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    offered = offer()
    project.throttling = (403, "quotaExceeded")
    project.throttled = {INSERT: 1}
    assert refused(gcp, offered, spec).message.startswith("gcp: the quota ")


@pytest.mark.parametrize(
    "how",
    [
        (429, "rateLimitExceeded"),
        (403, "rateLimitExceeded"),
        (503, "backendError"),
        (400, "resourceNotReady"),
    ],
)
def test_a_change_is_tried_again_when_google_is_busy(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project, how: tuple[int, str]
) -> None:
    offered = offer()
    project.throttling, project.throttled = how, {INSERT: 2}
    gcp.launch(offered, spec())
    assert len(project.instances()) == 1


@pytest.mark.parametrize(
    ("how", "kind", "unknown"),
    [((429, "rateLimitExceeded"), RateLimited, False), ((503, "backendError"), Unreachable, True)],
)
def test_a_change_is_not_tried_again_for_ever(
    adapter: MakeAdapter,
    offer: FindOffer,
    spec: MakeSpec,
    project: Project,
    how: tuple[int, str],
    kind: type[ProviderError],
    unknown: bool,
) -> None:
    offered = offer()
    project.throttling, project.throttled = how, {INSERT: 10**6}
    error = refused(adapter(patience_s=0.1), offered, spec)
    assert type(error) is kind
    assert error.outcome_unknown is unknown


def test_an_image_that_is_not_there_is_a_wrong_request(gcp: Gcp, offer: FindOffer, spec: MakeSpec) -> None:
    error = refused(gcp, offer(), spec, image="no-such-image")
    assert isinstance(error, Rejected)
    assert "no-such-image" in error.why


def test_a_machine_type_that_left_the_zone_is_a_wrong_request(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    offered = offer()
    project.machines["us-central1-a"] = []
    error = refused(gcp, offered, spec)
    assert isinstance(error, Rejected)
    assert "--image" in error.hint


def test_what_a_failed_creation_left_behind_is_told_and_can_be_removed(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    project.breaks, wanted = {"us-central1-a"}, spec()
    offered = offer()
    with pytest.raises(Unreachable) as caught:
        gcp.launch(offered, wanted)
    assert caught.value.outcome_unknown
    assert [name.partition("/")[0] for name in project.billing()] == ["disks"]
    (left,) = gcp.side_resources()
    assert (left.kind, left.token, left.owner) == ("disk", wanted.token, wanted.owner)
    gcp.terminate(left.ref)
    assert project.billing() == []
    assert list(gcp.side_resources()) == []


def test_a_refusal_that_comes_too_late_is_told_by_a_look_at_the_instance(
    adapter: MakeAdapter, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    offered = offer()
    gcp.launch(offer(zone="us-central1-b"), spec())
    project.full, project.slow = {("g2-standard-4", "us-central1-a")}, 10**6
    gcp = adapter(refusal_s=0.2)
    made = gcp.launch(offered, spec())
    project.finish()
    with pytest.raises(NotFound, match="it was never made, because of ZONE_RESOURCE_POOL_EXHAUSTED"):
        gcp.get(made.ref)


def test_a_machine_that_was_taken_back_is_interrupted_and_then_gone(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    made = gcp.launch(offer(market=Market.SPOT), spec())
    assert gcp.get(made.ref).state is InstanceState.RUNNING
    project.preempt(made.ref.id)
    seen = gcp.get(made.ref)
    assert (seen.state, seen.interrupted) == (InstanceState.STOPPING, True)
    assert list(gcp.instances()) == []
    with pytest.raises(NotFound, match="it was taken back"):
        gcp.get(made.ref)
    assert project.billing() == []


def test_a_spot_machine_that_was_stopped_is_not_interrupted(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec
) -> None:
    made = gcp.launch(offer(market=Market.SPOT), spec())
    gcp.get(made.ref)
    gcp.stop(made.ref)
    assert gcp.get(made.ref).state in {InstanceState.STOPPING, InstanceState.STOPPED}
    assert not gcp.get(made.ref).interrupted


def test_a_machine_that_cannot_be_started_again_says_why(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    made = gcp.launch(offer(), spec())
    gcp.get(made.ref)
    gcp.stop(made.ref)
    assert gcp.get(made.ref).state in {InstanceState.STOPPING, InstanceState.STOPPED}
    assert gcp.get(made.ref).state is InstanceState.STOPPED
    project.full = {("g2-standard-4", "us-central1-a")}
    with pytest.raises(NoCapacity):
        gcp.start(made.ref)
    assert gcp.get(made.ref).state is InstanceState.STOPPED


def test_a_machine_with_local_disks_can_be_stopped(gcp: Gcp, offer: FindOffer, spec: MakeSpec) -> None:
    made = gcp.launch(offer("a3-highgpu-8g"), spec())
    gcp.get(made.ref)
    gcp.stop(made.ref)
    assert gcp.get(made.ref).state in {InstanceState.STOPPING, InstanceState.STOPPED}


def test_without_the_sdk_it_says_what_to_install(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = offer()
    monkeypatch.setitem(sys.modules, "google.cloud.compute_v1", None)
    monkeypatch.delattr("google.cloud.compute_v1", raising=False)
    with pytest.raises(ConfigError, match="google-cloud-compute") as caught:
        gcp.launch(offered, spec())
    assert caught.value.hint == "pip install 'gpucloud[gcp]'"


def test_a_missing_instance_is_looked_for_in_all_zones(gcp: Gcp, offer: FindOffer, spec: MakeSpec) -> None:
    made = gcp.launch(offer(), spec())
    assert gcp.get(InstanceRef(made.ref.id)).ref == made.ref
