"""Every refusal that is known, through the real SDK: its kind, and what a person is told."""

from __future__ import annotations

import pytest

from gpucloud.errors import (
    AuthError,
    BadReply,
    NoCapacity,
    NotFound,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
    Unsupported,
)
from gpucloud_aws import Aws
from gpucloud_aws.errors import CAPACITY, FORBIDDEN, NOT_KNOWN, NOT_NOW, OVER_QUOTA, TOO_OFTEN
from tests.harness.aws import Cloud, Refusal, Served
from tests.providers.aws.conftest import Find, MakeAdapter, a_spec

OF_LAUNCH: dict[str, tuple[int, type[ProviderError]]] = {
    **dict.fromkeys(CAPACITY, (500, NoCapacity)),
    **dict.fromkeys(NOT_NOW, (400, NoCapacity)),
    "Unsupported": (400, NoCapacity),
    **dict.fromkeys(OVER_QUOTA, (400, QuotaExceeded)),
    **dict.fromkeys(TOO_OFTEN, (503, RateLimited)),
    **dict.fromkeys(FORBIDDEN | NOT_KNOWN, (403, AuthError)),
    "OptInRequired": (401, NotFound),
    "UnsupportedOperation": (400, Unsupported),
    "InvalidAMIID.NotFound": (400, Rejected),
    "InvalidAMIID.Unavailable": (400, Rejected),
    "InvalidSubnetID.NotFound": (400, Rejected),
    "InvalidKeyPair.NotFound": (400, Rejected),
    "InvalidParameterValue": (400, Rejected),
    "InvalidBlockDeviceMapping": (400, Rejected),
    "IncorrectInstanceState": (400, Rejected),
    "InternalError": (500, Unreachable),
    "Unavailable": (503, Unreachable),
    "SomethingNew": (400, Rejected),
}
OF_END: dict[str, tuple[int, type[ProviderError]]] = {
    "IncorrectInstanceState": (400, Rejected),
    "OperationNotPermitted": (400, Rejected),
    "UnauthorizedOperation": (403, AuthError),
    "RequestLimitExceeded": (503, RateLimited),
    "InternalError": (500, Unreachable),
}


@pytest.mark.parametrize("code", sorted(OF_LAUNCH))
def test_a_refused_launch_says_what_why_and_what_next(
    adapter: Aws, cloud: Cloud, find: Find, code: str
) -> None:
    status, kind = OF_LAUNCH[code]
    offer = find()
    cloud.refusals["RunInstances"] = [Refusal(status, code, "the vendor's own text")]
    with pytest.raises(kind) as caught:
        adapter.launch(offer, a_spec())
    error = caught.value
    assert type(error) is kind
    assert (error.provider, error.vendor_code, error.vendor_text) == ("aws", code, "the vendor's own text")
    assert error.message and error.why and error.hint
    assert error.outcome_unknown == (kind is Unreachable)
    assert not cloud.instances()


@pytest.mark.parametrize("code", sorted(OF_END))
def test_a_refused_end_is_told(adapter: Aws, cloud: Cloud, find: Find, code: str) -> None:
    status, kind = OF_END[code]
    instance = adapter.launch(find(), a_spec())
    cloud.refusals["TerminateInstances"] = [Refusal(status, code)]
    with pytest.raises(kind):
        adapter.terminate(instance.ref)
    adapter.terminate(instance.ref)
    assert not cloud.billing()


def test_what_the_instance_still_uses_stays_listed(adapter: Aws, cloud: Cloud, find: Find) -> None:
    adapter.launch(find(), a_spec())
    before = list(adapter.side_resources())
    cloud.refusals["DeleteVolume"] = [Refusal(400, "VolumeInUse")]
    cloud.refusals["DeleteNetworkInterface"] = [Refusal(400, "InvalidParameterValue", "is currently in use")]
    for resource in before:
        adapter.remove(resource)
    assert list(adapter.side_resources()) == before


def test_a_permission_that_a_launch_lacks_is_named(adapter: Aws, cloud: Cloud, find: Find) -> None:
    offer = find()
    cloud.forbidden |= {("ssm:GetParameter", None)}
    with pytest.raises(AuthError) as caught:
        adapter.launch(offer, a_spec())
    assert "ssm:GetParameter" in caught.value.hint


def test_an_answer_that_is_no_xml_leaves_the_outcome_open(make_adapter: MakeAdapter, find: Find) -> None:
    offer = find()

    def garbled(parsed: object, **_: object) -> None:
        raise ValueError("not well-formed")

    adapter = make_adapter()
    adapter._account.ec2("us-east-1").meta.events.register("after-call.ec2.RunInstances", garbled)
    with pytest.raises(BadReply) as caught:
        adapter.launch(offer, a_spec())
    assert caught.value.outcome_unknown
    assert [instance.token for instance in adapter.instances()] == ["gc-token"]


def test_nobody_there_is_unreachable(make_adapter: MakeAdapter, served: Served) -> None:
    adapter = make_adapter(endpoint_url="http://127.0.0.1:9")
    with pytest.raises(Unreachable):
        list(adapter.instances())
