"""The network that launches share: made once, found again, opened for those who were named."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from gpucloud.errors import QuotaExceeded, Rejected
from gpucloud.model import SideResource
from gpucloud.parallel import results, run_all
from gpucloud_aws import Aws
from tests.harness.aws import Cloud, Refusal, backend
from tests.providers.aws.conftest import Find, MakeAdapter, a_spec

EAST = "us-east-1"


def groups() -> list[Any]:
    """The security groups of ours."""
    return [group for group in backend(EAST).describe_security_groups() if group.name == "gpucloud-ssh"]


def opened() -> set[tuple[str, int, int, str]]:
    """Who gets in where."""
    (group,) = groups()
    return {
        (rule.ip_protocol, rule.from_port, rule.to_port, rule.cidr_ipv4 or rule.cidr_ipv6)
        for rule in group.ingress_rules
        if rule.ip_range
    }


def kinds(resources: list[SideResource]) -> list[str]:
    return [resource.kind for resource in resources]


def test_the_default_network_of_the_zone_is_used_and_nothing_else_is_made(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    adapter.launch(find(), a_spec())
    (machine,) = cloud.instances()
    assert machine.zone == "us-east-1a"
    assert not cloud.of("CreateVpc") + cloud.of("CreateSubnet")
    shared = list(adapter.shared_resources())
    assert kinds(shared) == ["security-group"]
    assert [resource.token for resource in shared] == [None]


def test_ssh_is_open_only_to_those_who_were_named(adapter: Aws, find: Find) -> None:
    adapter.launch(find(), a_spec(ssh_from=("203.0.113.7/32", "2001:db8::/64")))
    assert opened() == {("tcp", 22, 22, "203.0.113.7/32"), ("tcp", 22, 22, "2001:db8::/64")}


def test_who_is_admitted_later_gets_in_beside_the_others(adapter: Aws, find: Find) -> None:
    instance = adapter.launch(find(), a_spec(ssh_from=("203.0.113.7/32",)))
    adapter.admit(instance.ref, ("203.0.113.8/32",))
    assert opened() == {("tcp", 22, 22, "203.0.113.7/32"), ("tcp", 22, 22, "203.0.113.8/32")}


def test_without_names_ssh_is_open_to_everybody(adapter: Aws, find: Find) -> None:
    adapter.launch(find(), a_spec())
    assert {network for _, _, _, network in opened()} == {"0.0.0.0/0", "::/0"}


def test_later_names_are_added_and_what_somebody_else_opened_stays(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    adapter.launch(find(), a_spec("gc-1", ssh_from=("203.0.113.7/32",)))
    (group,) = groups()
    rule = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}
    adapter._account.ec2(EAST).authorize_security_group_ingress(GroupId=group.id, IpPermissions=[rule])  # type: ignore[list-item]
    asked = len(cloud.of("AuthorizeSecurityGroupIngress"))
    adapter.launch(find(), a_spec("gc-2", ssh_from=("203.0.113.7/32",)))
    assert len(cloud.of("AuthorizeSecurityGroupIngress")) == asked
    adapter.launch(find(), a_spec("gc-3", ssh_from=("198.51.100.1/32",)))
    assert opened() == {
        ("tcp", 22, 22, "203.0.113.7/32"),
        ("tcp", 22, 22, "198.51.100.1/32"),
        ("tcp", 443, 443, "192.0.2.0/24"),
    }


def test_nodes_of_one_cluster_reach_each_other_both_ways(adapter: Aws, find: Find) -> None:
    for rank in (0, 1):
        adapter.launch(find("p5.48xlarge"), a_spec(f"gc-{rank}", rank=rank, group="gc-both", nodes=2))
    (group,) = groups()
    for rules in (group.ingress_rules, group.egress_rules):
        to_itself = [rule for rule in rules if rule.source_group.get("GroupId") == group.id]
        assert [rule.ip_protocol for rule in to_itself] == ["-1"]


def test_two_processes_at_once_make_one_security_group(
    make_adapter: MakeAdapter, cloud: Cloud, find: Find
) -> None:
    offer, start = find(), threading.Barrier(4)

    def launch(number: int) -> Callable[[], object]:
        adapter, spec = make_adapter(), a_spec(f"gc-{number}", ssh_from=(f"203.0.113.{number}/32",))

        def go() -> object:
            start.wait()
            return adapter.launch(offer, spec)

        return go

    results(run_all({number: launch(number) for number in range(4)}))
    assert len(cloud.instances()) == 4
    assert {network for _, _, _, network in opened()} == {f"203.0.113.{number}/32" for number in range(4)}


def test_where_there_is_no_default_network_one_is_made_and_used_again(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    cloud.without_default_vpc(EAST)
    for token, zone in (("gc-1", "us-east-1a"), ("gc-2", "us-east-1b"), ("gc-3", "us-east-1a")):
        adapter.launch(find(zone=zone), a_spec(token))
    assert [machine.zone for machine in cloud.instances()] == ["us-east-1a", "us-east-1b", "us-east-1a"]
    (vpc,) = backend(EAST).describe_vpcs()
    assert len(backend(EAST).describe_subnets()) == 2
    (gateway,) = backend(EAST).describe_internet_gateways()
    assert gateway.vpc.id == vpc.id
    (table,) = backend(EAST).describe_route_tables()
    assert "0.0.0.0/0" in {route.destination_cidr_block for route in table.routes}


def test_two_processes_at_once_agree_on_one_network(
    make_adapter: MakeAdapter, cloud: Cloud, find: Find
) -> None:
    offer, start = find(), threading.Barrier(2)
    cloud.without_default_vpc(EAST)

    def launch(number: int) -> Callable[[], object]:
        adapter = make_adapter()

        def go() -> object:
            start.wait()
            return adapter.launch(offer, a_spec(f"gc-{number}"))

        return go

    results(run_all({number: launch(number) for number in range(2)}))
    list(make_adapter().instances())
    assert len({machine.subnet for machine in cloud.instances()}) == 1
    assert len(backend(EAST).describe_vpcs()) == 1
    assert len(backend(EAST).describe_internet_gateways()) == 1


def test_a_network_is_not_asked_for_twice_when_the_first_answer_is_lost(
    make_adapter: MakeAdapter, cloud: Cloud, find: Find
) -> None:
    offer = find()
    cloud.without_default_vpc(EAST)
    cloud.refusals["CreateVpc"] = [Refusal(503, "Unavailable")]
    with pytest.raises(Exception, match="failed on its side"):
        make_adapter(attempts=4).launch(offer, a_spec())
    assert len(cloud.of("CreateVpc")) == 1


def test_ipv6_is_asked_for_where_the_subnet_has_it(adapter: Aws, cloud: Cloud, find: Find) -> None:
    adapter.launch(find(), a_spec("gc-1"))
    cloud.add_ipv6(EAST)
    adapter.launch(find(), a_spec("gc-2"))
    interfaces = [asked.words["NetworkInterfaces"][0] for asked in cloud.of("RunInstances")]
    assert [interface.get("Ipv6AddressCount") for interface in interfaces] == [None, 1]


def test_what_is_shared_is_refused_while_in_use_and_removed_in_the_order_that_is_told(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    cloud.without_default_vpc(EAST)
    instance = adapter.launch(find(), a_spec())
    shared = list(adapter.shared_resources())
    assert kinds(shared) == ["security-group", "subnet", "internet-gateway", "vpc"]
    for resource in (shared[0], shared[1], shared[3]):
        with pytest.raises(Rejected) as caught:
            adapter.remove_shared(resource)
        assert caught.value.vendor_code == "DependencyViolation"
    adapter.terminate(instance.ref)
    list(adapter.instances())
    for resource in shared * 2:
        adapter.remove_shared(resource)
    assert not list(adapter.shared_resources())
    assert not backend(EAST).describe_vpcs()


def test_a_quota_of_the_network_is_named(adapter: Aws, cloud: Cloud, find: Find) -> None:
    cloud.refusals["CreateSecurityGroup"] = [Refusal(400, "SecurityGroupLimitExceeded")]
    with pytest.raises(QuotaExceeded, match="VPC security groups per Region") as caught:
        adapter.launch(find(), a_spec())
    assert "servicequotas" in caught.value.hint
    assert not cloud.instances()


def test_a_volume_that_was_left_is_listed_and_removed(adapter: Aws, cloud: Cloud, find: Find) -> None:
    instance = adapter.launch(find(), a_spec())
    (disk,) = cloud.machines[instance.ref.id].thing.block_device_mapping.values()
    disk.delete_on_termination = False
    adapter.terminate(instance.ref)
    list(adapter.instances())
    (left,) = list(adapter.side_resources())
    assert (left.kind, left.token, left.ref.region) == ("volume", "gc-token", EAST)
    assert cloud.billing() == [left.ref.id]
    adapter.remove(left)
    assert not cloud.billing()
