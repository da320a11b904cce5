"""What one launch asks EC2 for, and what becomes of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from gpucloud.errors import (
    NoCapacity,
    NotFound,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unsupported,
)
from gpucloud.model import InstanceRef, InstanceState, Market, SshAddress, utcnow
from gpucloud.provider import HostKeyPair
from gpucloud_aws import Aws
from tests.harness.aws import BootInfo, Cloud, Refusal, backend
from tests.providers.aws.conftest import Find, MakeAdapter, a_spec

NVIDIA_X86, NVIDIA_ARM = "ami-00000000000000a01", "ami-00000000000000a02"
NEURON, UBUNTU, AMAZON_LINUX = "ami-00000000000000a03", "ami-00000000000000a04", "ami-00000000000000a06"


def request(cloud: Cloud) -> Mapping[str, Any]:
    """What RunInstances was last asked for."""
    return cloud.of("RunInstances")[-1].words


# what is asked for


def test_an_instance_carries_all_tags_and_so_do_its_volume_and_interface(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    spec = a_spec(cluster="größe: 7/b", expires_at=utcnow() + timedelta(hours=2))
    instance = adapter.launch(find(), spec)
    (machine,) = cloud.instances()
    assert spec.tags.items() <= machine.tags.items()
    assert (instance.cluster, instance.rank, instance.owner) == (spec.cluster, spec.rank, spec.owner)
    assert spec.expires_at is not None
    assert instance.expires_at == spec.expires_at.replace(microsecond=0)
    assert {(each.kind, each.token, each.cluster) for each in adapter.side_resources()} == {
        ("volume", spec.token, spec.cluster),
        ("network-interface", spec.token, spec.cluster),
    }


def test_the_machine_knows_our_key_and_its_host_key_by_its_user_data_alone(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    booted: list[BootInfo] = []
    cloud.on_boot = lambda info: booted.append(info) or "203.0.113.77"  # type: ignore[func-returns-value]
    spec = a_spec(host_key=HostKeyPair("PRIVATE", "ssh-ed25519 HOST"))
    instance = adapter.launch(find(), spec)
    (info,) = booted
    told = json.loads(info.user_data.removeprefix("#cloud-config\n"))
    assert info.id == instance.ref.id
    assert told["ssh_authorized_keys"] == [spec.public_key]
    assert told["ssh_keys"] == {"ed25519_private": "PRIVATE", "ed25519_public": "ssh-ed25519 HOST"}
    assert "KeyName" not in request(cloud)
    assert "IamInstanceProfile" not in request(cloud)


def test_a_shutdown_terminates_and_metadata_want_a_token(adapter: Aws, cloud: Cloud, find: Find) -> None:
    instance = adapter.launch(find(), a_spec())
    assert request(cloud)["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert request(cloud)["MetadataOptions"]["HttpTokens"] == "required"
    cloud.power_off(instance.ref.id)
    assert adapter.get(instance.ref).state is InstanceState.TERMINATING
    assert not cloud.billing()


@pytest.mark.parametrize(("wanted", "made"), [(None, 100), (500, 500), (20, 75)])
def test_the_disk_is_as_large_as_was_asked_for_and_never_smaller_than_the_image(
    adapter: Aws, cloud: Cloud, find: Find, wanted: int | None, made: int
) -> None:
    adapter.launch(find(), a_spec(disk_gib=wanted))
    (disk,) = request(cloud)["BlockDeviceMappings"]
    assert disk["DeviceName"] == "/dev/sda1"
    assert disk["Ebs"] == {"VolumeType": "gp3", "VolumeSize": made, "DeleteOnTermination": True}


def test_on_spot_it_is_bought_once_and_for_no_more_than_the_cap(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    instance = adapter.launch(find(market=Market.SPOT), a_spec(max_usd_per_hour=Decimal("0.75")))
    assert instance.market is Market.SPOT
    assert request(cloud)["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {
            "MaxPrice": "0.75",
            "SpotInstanceType": "one-time",
            "InstanceInterruptionBehavior": "terminate",
        },
    }
    with pytest.raises(Unsupported):
        adapter.stop(instance.ref)


def test_on_demand_the_cap_is_not_the_vendor_s_matter(adapter: Aws, cloud: Cloud, find: Find) -> None:
    adapter.launch(find(), a_spec(max_usd_per_hour=Decimal("0.75")))
    assert "InstanceMarketOptions" not in request(cloud)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("p5.48xlarge", NVIDIA_X86),
        ("g5g.xlarge", NVIDIA_ARM),
        ("trn1.32xlarge", NEURON),
        ("inf2.xlarge", NEURON),
        ("c6i.large", UBUNTU),
    ],
)
def test_the_image_suits_the_accelerator(
    adapter: Aws, cloud: Cloud, find: Find, name: str, image: str
) -> None:
    adapter.launch(find(name), a_spec())
    assert request(cloud)["ImageId"] == image


def test_an_image_may_be_named_and_its_name_says_who_logs_in(adapter: Aws, cloud: Cloud, find: Find) -> None:
    instance = adapter.launch(find(), a_spec(image=AMAZON_LINUX))
    adapter.get(instance.ref)
    assert request(cloud)["ImageId"] == AMAZON_LINUX
    address = adapter.get(instance.ref).ssh
    assert address is not None
    assert replace(address, inside=None) == SshAddress("203.0.113.10", 22, "ec2-user")
    assert (address.inside or "").startswith("172.31.")


def test_an_image_may_be_named_by_a_parameter(adapter: Aws, cloud: Cloud, find: Find) -> None:
    name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
    adapter.launch(find(), a_spec("gc-1", image=name))
    adapter.launch(find(), a_spec("gc-2", image=f"resolve:ssm:{name}"))
    assert [asked.words["ImageId"] for asked in cloud.of("RunInstances")] == [UBUNTU, UBUNTU]


@pytest.mark.parametrize("image", ["ami-0123456789abcdef0", "ubuntu", "/aws/service/none"])
def test_an_image_that_is_not_there_is_refused_before_anything_is_made(
    adapter: Aws, cloud: Cloud, find: Find, image: str
) -> None:
    with pytest.raises(Rejected, match=r"no (such )?image") as caught:
        adapter.launch(find(), a_spec(image=image))
    assert "--image" in caught.value.hint
    assert not cloud.instances()


# once


def test_the_same_launch_in_another_process_is_the_same_instance(
    adapter: Aws, cloud: Cloud, find: Find, make_adapter: MakeAdapter
) -> None:
    first = adapter.launch(find(), a_spec())
    assert make_adapter().launch(find(), a_spec()).ref == first.ref
    assert len(cloud.instances()) == 1


def test_a_launch_whose_lease_has_moved_on_is_the_same_instance(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    first = adapter.launch(find(), a_spec(expires_at=utcnow() + timedelta(hours=2)))
    again = adapter.launch(find(), a_spec(expires_at=utcnow() + timedelta(hours=1)))
    assert again.ref == first.ref
    assert len(cloud.instances()) == 1


def test_when_the_earlier_instance_is_not_listed_yet_the_outcome_is_unknown(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    cloud.listing_lag = 5
    adapter.launch(find(), a_spec(disk_gib=200))
    with pytest.raises(ProviderError) as caught:
        adapter.launch(find(), a_spec(disk_gib=300))
    assert caught.value.outcome_unknown


def test_throttling_is_waited_out_and_makes_one_instance(
    make_adapter: MakeAdapter, cloud: Cloud, find: Find
) -> None:
    cloud.throttled["RunInstances"] = 1
    make_adapter(attempts=2).launch(find(), a_spec())
    assert len(cloud.of("RunInstances")) == 2
    assert len(cloud.instances()) == 1


def test_throttling_that_does_not_end_is_told(adapter: Aws, cloud: Cloud, find: Find) -> None:
    offer = find()
    cloud.throttled["RunInstances"] = 9
    with pytest.raises(RateLimited) as caught:
        adapter.launch(offer, a_spec())
    assert caught.value.vendor_code == "RequestLimitExceeded"
    assert not caught.value.outcome_unknown


def test_after_a_try_that_may_have_been_lost_the_outcome_is_unknown(
    make_adapter: MakeAdapter, cloud: Cloud, find: Find
) -> None:
    cloud.refusals["RunInstances"] = [Refusal(503, "Unavailable"), Refusal(503, "RequestLimitExceeded")]
    with pytest.raises(RateLimited) as caught:
        make_adapter(attempts=2).launch(find(), a_spec())
    assert caught.value.outcome_unknown


@pytest.mark.parametrize("code", ["InternalError", "ServiceUnavailable"])
def test_a_failure_on_amazon_s_side_leaves_the_outcome_open(
    adapter: Aws, cloud: Cloud, find: Find, code: str
) -> None:
    cloud.refusals["RunInstances"] = [Refusal(500, code)]
    with pytest.raises(ProviderError) as caught:
        adapter.launch(find(), a_spec())
    assert caught.value.outcome_unknown


# no


def test_missing_capacity_is_told_at_once_though_it_comes_as_a_failure_of_the_server(
    make_adapter: MakeAdapter, cloud: Cloud, find: Find
) -> None:
    cloud.capacity["g5.xlarge", "us-east-1a"] = 0
    with pytest.raises(NoCapacity) as caught:
        make_adapter(attempts=4).launch(find(), a_spec())
    assert caught.value.lasting
    assert caught.value.vendor_code == "InsufficientInstanceCapacity"
    assert not caught.value.outcome_unknown
    assert len(cloud.of("RunInstances")) == 1


def test_capacity_is_a_matter_of_the_zone(adapter: Aws, cloud: Cloud, find: Find) -> None:
    cloud.capacity["g5.xlarge", "us-east-1a"] = 0
    adapter.launch(find(zone="us-east-1b"), a_spec())
    assert [machine.zone for machine in cloud.instances()] == ["us-east-1b"]


def test_a_type_that_the_zone_does_not_have_moves_on(adapter: Aws, cloud: Cloud, find: Find) -> None:
    offer = find()
    cloud.not_offered.add(("g5.xlarge", "us-east-1a"))
    with pytest.raises(NoCapacity):
        adapter.launch(offer, a_spec())


def test_a_cap_below_the_spot_price_is_not_remembered_as_missing_capacity(adapter: Aws, find: Find) -> None:
    with pytest.raises(NoCapacity) as caught:
        adapter.launch(find(market=Market.SPOT), a_spec(max_usd_per_hour=Decimal("0.1")))
    assert not caught.value.lasting


@pytest.mark.parametrize(
    ("market", "code", "name"),
    [
        (Market.ON_DEMAND, "L-417A185B", "Running On-Demand P instances"),
        (Market.SPOT, "L-C4BD4855", "All P5 Spot Instance Requests"),
    ],
)
def test_a_quota_is_named_with_the_command_that_raises_it(
    adapter: Aws, cloud: Cloud, find: Find, market: Market, code: str, name: str
) -> None:
    offer = find("p5.48xlarge", market=market)
    cloud.quotas["us-east-1", code] = 8
    with pytest.raises(QuotaExceeded, match=name) as caught:
        adapter.launch(offer, a_spec())
    assert "request-service-quota-increase" in caught.value.hint
    assert f"--quota-code {code} --region us-east-1" in caught.value.hint


def test_a_type_that_is_no_more_is_not_found(adapter: Aws, cloud: Cloud, find: Find) -> None:
    offer = find()
    cloud.types = ("p5.48xlarge",)
    with pytest.raises(ProviderError):
        adapter.launch(offer, a_spec())
    assert not cloud.of("RunInstances")


# afterwards


def test_an_instance_that_fails_while_it_starts_is_over_and_bills_nothing(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    cloud.fails_after_creation["g5.xlarge"] = "Server.InsufficientInstanceCapacity"
    instance = adapter.launch(find(), a_spec())
    assert adapter.get(instance.ref).state is InstanceState.PENDING
    over = adapter.get(instance.ref)
    assert (over.state, over.interrupted) == (InstanceState.TERMINATED, False)
    assert not cloud.billing()


def test_an_instance_that_amazon_takes_back_is_interrupted(adapter: Aws, cloud: Cloud, find: Find) -> None:
    instance = adapter.launch(find(market=Market.SPOT), a_spec())
    cloud.interrupt(instance.ref.id)
    over = adapter.get(instance.ref)
    assert (over.state, over.interrupted) == (InstanceState.TERMINATED, True)


def test_what_others_have_rented_is_not_listed(adapter: Aws, cloud: Cloud, find: Find) -> None:
    mine, other = (adapter.launch(find(), a_spec(token)) for token in ("gc-1", "gc-2"))
    backend("us-east-1").delete_tags([other.ref.id], {"gpucloud-token": None})
    assert [instance.ref for instance in adapter.instances()] == [mine.ref]


def test_an_instance_is_found_and_ended_without_its_region(adapter: Aws, cloud: Cloud, find: Find) -> None:
    instance = adapter.launch(find(zone="us-west-2b"), a_spec())
    bare = InstanceRef(instance.ref.id)
    assert adapter.get(bare).ref.region == "us-west-2"
    adapter.terminate(bare)
    assert not cloud.billing()


def test_a_region_that_cannot_be_listed_is_not_left_out(adapter: Aws, cloud: Cloud, find: Find) -> None:
    adapter.launch(find(), a_spec())
    cloud.forbidden.add(("ec2:DescribeInstances", "us-west-2"))
    with pytest.raises(ProviderError, match="does not allow") as caught:
        list(adapter.instances())
    assert "ec2:DescribeInstances" in caught.value.hint


def test_the_setting_for_regions_hides_no_instance(
    make_adapter: MakeAdapter, adapter: Aws, find: Find
) -> None:
    instance = adapter.launch(find(zone="us-west-2b"), a_spec())
    assert [each.ref for each in make_adapter(regions=["us-east-1"]).instances()] == [instance.ref]


def test_starting_again_may_find_no_capacity(adapter: Aws, cloud: Cloud, find: Find) -> None:
    instance = adapter.launch(find(), a_spec())
    adapter.get(instance.ref)
    adapter.stop(instance.ref)
    adapter.get(instance.ref)
    assert adapter.get(instance.ref).state is InstanceState.STOPPED
    cloud.capacity["g5.xlarge", "us-east-1a"] = 0
    with pytest.raises(NoCapacity):
        adapter.start(instance.ref)


def test_an_instance_of_another_region_is_not_found(adapter: Aws, find: Find) -> None:
    instance = adapter.launch(find(), a_spec())
    with pytest.raises(NotFound):
        adapter.get(InstanceRef(instance.ref.id, "us-west-2"))


# several


def test_nodes_stand_together_in_a_group_that_goes_with_the_last(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    offer, group = find("p5.48xlarge"), {"group": "gc-both", "nodes": 2}
    one = adapter.launch(offer, a_spec("gc-1", rank=0, **group))
    other = adapter.launch(offer, a_spec("gc-2", rank=1, **group))
    assert [machine.placement_group for machine in cloud.instances()] == ["gpucloud-gc-both"] * 2
    adapter.terminate(one.ref)
    list(adapter.instances())
    adapter.terminate(one.ref)
    assert cloud.placement_groups
    adapter.terminate(other.ref)
    list(adapter.instances())
    adapter.terminate(other.ref)
    assert not cloud.placement_groups


def test_a_group_that_is_left_is_listed_for_each_of_its_nodes_and_can_be_removed(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    offer, group = find("p5.48xlarge"), {"group": "gc-both", "nodes": 2}
    refs = [adapter.launch(offer, a_spec(token, **group)).ref for token in ("gc-1", "gc-2")]
    assert not [each for each in adapter.side_resources() if each.kind == "placement-group"]
    for ref in refs:
        adapter.terminate(ref)
    list(adapter.instances())
    left = [each for each in adapter.side_resources() if each.kind == "placement-group"]
    assert {each.token for each in left} == {"gc-1", "gc-2"}
    for each in left:
        adapter.remove(each)
    assert not cloud.placement_groups


def test_a_launch_that_fails_leaves_no_group_behind(adapter: Aws, cloud: Cloud, find: Find) -> None:
    cloud.capacity["p5.48xlarge", "us-east-1a"] = 0
    with pytest.raises(NoCapacity):
        adapter.launch(find("p5.48xlarge"), a_spec(group="gc-both", nodes=2))
    assert not cloud.placement_groups
    assert not cloud.billing()


def test_a_launch_of_which_nothing_is_known_keeps_its_group(adapter: Aws, cloud: Cloud, find: Find) -> None:
    cloud.refusals["RunInstances"] = [Refusal(500, "InternalError")]
    with pytest.raises(ProviderError):
        adapter.launch(find("p5.48xlarge"), a_spec(group="gc-both", nodes=2))
    left = [each for each in adapter.side_resources() if each.kind == "placement-group"]
    assert [each.token for each in left] == ["gc-token"]


def test_nodes_of_types_that_have_it_get_the_fast_network(adapter: Aws, cloud: Cloud, find: Find) -> None:
    adapter.launch(find("g6.12xlarge"), a_spec("gc-1", group="gc-both", nodes=2))
    (fast,) = request(cloud)["NetworkInterfaces"]
    adapter.launch(find("p5.48xlarge"), a_spec("gc-2"))
    (alone,) = request(cloud)["NetworkInterfaces"]
    adapter.launch(find("g5.xlarge"), a_spec("gc-3", group="gc-slow", nodes=2))
    (without,) = request(cloud)["NetworkInterfaces"]
    assert fast["InterfaceType"] == "efa"
    assert "InterfaceType" not in alone
    assert "InterfaceType" not in without
