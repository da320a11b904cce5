"""Machines at Azure for who has IPv6 alone, and the network that they share with all others."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import NoCapacity, Rejected
from gpucloud.model import Offer
from gpucloud.remote.keys import Identity, identity
from gpucloud_azure import Azure
from tests.harness.azure import Cloud, Refusal
from tests.harness.azure.cloud import ADDRESS, GROUP, INTERFACE, NETWORK, SECURITY
from tests.harness.azure.market import A100
from tests.harness.azure.networking import configurations, prefixes
from tests.providers.rented import a_spec

HERE = ("2001:db8:1::7/128", "2001:db8:2::/48")
OF_SUBNET = {"addressPrefixes": ["10.28.0.0/16"]}


@pytest.fixture
def key(tmp_path: Path) -> Identity:
    """Whose machines they are."""
    return identity(tmp_path)


def old_network(cloud: Cloud, subnet: dict[str, Any] = OF_SUBNET) -> None:
    """A network of IPv4 alone, with something in it that somebody else has added."""
    group = "/subscriptions/S/resourceGroups/gpucloud"
    ours = {"name": "gpucloud-eastus", "properties": subnet}
    theirs = {"name": "theirs", "properties": {"addressPrefixes": ["10.99.0.0/24"]}}
    body: dict[str, Any] = {
        "location": "eastus",
        "tags": {"gpucloud": "shared", "cost-centre": "42"},
        "properties": {
            "addressSpace": {"addressPrefixes": ["10.28.0.0/16", "10.99.0.0/16"]},
            "dhcpOptions": {"dnsServers": ["10.99.0.4"]},
            "subnets": [ours, theirs],
        },
    }
    cloud.put(group, GROUP, {"location": "eastus"})
    cloud.put(f"{group}/providers/Microsoft.Network/virtualNetworks/gpucloud-eastus", NETWORK, body)


def versions(cloud: Cloud) -> dict[str, list[int]]:
    """Of which kinds the prefixes of each subnet are."""
    (network,) = cloud.things(NETWORK)
    return {
        name: sorted(prefix.version for prefix in listed) for name, listed in prefixes(network.body).items()
    }


def writes(cloud: Cloud) -> int:
    """How often a network was written."""
    return sum(method == "PUT" and "/virtualNetworks/" in path for method, path in cloud.requests)


def test_who_has_ipv6_alone_reaches_a_machine_at_an_address_of_ipv6(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    spec = a_spec(key, ssh_from=HERE)
    instance = azure.launch(offer, spec)
    assert instance.ssh is not None
    assert (instance.ssh.host, instance.ssh.user) == ("2001:db8::10", "azureuser")
    assert azure.get(instance.ref).ssh == instance.ssh
    assert [each.ssh for each in azure.instances()] == [instance.ssh]
    (address,) = cloud.things(ADDRESS)
    assert address.body["tags"] == spec.tags
    assert address.body["sku"] == {"name": "Standard"}
    asked = address.properties
    assert (asked["publicIPAddressVersion"], asked["publicIPAllocationMethod"]) == ("IPv6", "Static")


def test_its_network_has_both_kinds_and_its_interface_an_address_of_ipv4_inside(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    azure.launch(offer, a_spec(key, ssh_from=HERE))
    (network,), (interface,), (address,) = (cloud.things(kind) for kind in (NETWORK, INTERFACE, ADDRESS))
    (subnet,) = network.properties["subnets"]
    space = [ipaddress.ip_network(each) for each in network.properties["addressSpace"]["addressPrefixes"]]
    assert [each.version for each in space] == [4, 6]
    assert all(each.is_private for each in space)
    assert [each.rpartition("/")[2] for each in subnet["properties"]["addressPrefixes"]] == ["16", "64"]
    first, second = configurations(interface.body)
    assert (first["primary"], first["privateIPAddressVersion"]) == (True, "IPv4")
    assert "publicIPAddress" not in first
    assert (second.get("primary", False), second["privateIPAddressVersion"]) == (False, "IPv6")
    assert second["publicIPAddress"]["id"].lower() == address.id.lower()
    assert second["publicIPAddress"]["properties"] == {"deleteOption": "Delete"}
    assert {part["subnet"]["id"].lower() for part in (first, second)} == {subnet["id"].lower()}


def test_its_firewall_lets_in_these_networks_alone(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    azure.launch(offer, a_spec(key, ssh_from=HERE))
    (firewall,) = cloud.things(SECURITY)
    rules = [rule["properties"] for rule in firewall.properties["securityRules"]]
    assert {rule["sourceAddressPrefix"] for rule in rules} == set(HERE)
    assert {(rule["destinationAddressPrefix"], rule["destinationPortRange"]) for rule in rules} == {
        ("*", "22")
    }


@pytest.mark.parametrize("ssh_from", [(), ("203.0.113.7/32",), ("2001:db8:1::7/128", "203.0.113.7/32")])
def test_everybody_else_has_a_machine_with_an_address_of_ipv4(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity, ssh_from: tuple[str, ...]
) -> None:
    old_network(cloud)
    instance = azure.launch(offer, a_spec(key, ssh_from=ssh_from))
    assert instance.ssh is not None
    assert instance.ssh.host == "203.0.113.10"
    (address,), (interface,) = cloud.things(ADDRESS), cloud.things(INTERFACE)
    assert address.properties["publicIPAddressVersion"] == "IPv4"
    (only,) = configurations(interface.body)
    assert only["publicIPAddress"]["id"].lower() == address.id.lower()
    assert writes(cloud) == 0
    assert versions(cloud) == {"gpucloud-eastus": [4], "theirs": [4]}


@pytest.mark.parametrize("subnet", [OF_SUBNET, {"addressPrefix": "10.28.0.0/16"}])
def test_an_old_network_of_ipv4_gets_ipv6_once_and_loses_nothing(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity, subnet: dict[str, Any]
) -> None:
    old_network(cloud, subnet)
    for _ in range(2):
        azure.launch(offer, a_spec(key, ssh_from=HERE))
    assert writes(cloud) == 1
    assert versions(cloud) == {"gpucloud-eastus": [4, 6], "theirs": [4]}
    (network,) = cloud.things(NETWORK)
    assert all("addressPrefix" not in each["properties"] for each in network.properties["subnets"])
    assert network.body["tags"] == {"gpucloud": "shared", "cost-centre": "42"}
    assert network.properties["dhcpOptions"] == {"dnsServers": ["10.99.0.4"]}
    assert network.properties["addressSpace"]["addressPrefixes"][:2] == ["10.28.0.0/16", "10.99.0.0/16"]


def test_a_new_network_needs_no_other_writing_for_ipv6(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    for ssh_from in ((), HERE, ("203.0.113.7/32",)):
        azure.launch(offer, a_spec(key, ssh_from=ssh_from))
    assert writes(cloud) == 1


def test_two_launches_may_add_ipv6_to_an_old_network_at_once(
    cloud: Cloud, make: Callable[..., Azure], azure: Azure, offer: Offer, key: Identity
) -> None:
    old_network(cloud)
    cloud.hooks["PUT", "virtualnetworks"] = lambda: make().launch(offer, a_spec(key, ssh_from=HERE))
    azure.launch(offer, a_spec(key, ssh_from=HERE))
    assert len(cloud.instances()) == 2
    assert versions(cloud) == {"gpucloud-eastus": [4, 6], "theirs": [4]}


def test_what_somebody_adds_to_an_old_network_meanwhile_stays(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    old_network(cloud)
    (network,) = cloud.things(NETWORK)

    def add() -> None:
        body = {key: each for key, each in network.body.items() if key != "etag"}
        later = {"name": "later", "properties": {"addressPrefixes": ["10.99.1.0/24"]}}
        properties = {**network.properties, "subnets": [*network.properties["subnets"], later]}
        cloud.put(network.id, NETWORK, {**body, "properties": properties})

    cloud.hooks["PUT", "virtualnetworks"] = add
    azure.launch(offer, a_spec(key, ssh_from=HERE))
    assert versions(cloud) == {"gpucloud-eastus": [4, 6], "theirs": [4], "later": [4]}


def test_a_network_that_changes_all_the_time_is_given_up(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    old_network(cloud)
    for _ in range(5):
        cloud.refuse("PUT", "virtualnetworks", Refusal(412, "PreconditionFailed", "Etag does not match."))
    with pytest.raises(Rejected) as refused:
        azure.launch(offer, a_spec(key, ssh_from=HERE))
    assert refused.value.vendor_code == "PreconditionFailed"
    assert not refused.value.outcome_unknown
    assert cloud.billing() == []


def test_its_address_goes_with_it_and_nothing_is_left_that_bills(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    spec = a_spec(key, ssh_from=HERE)
    instance = azure.launch(offer, spec)
    beside = [each for each in azure.side_resources() if each.kind == "Microsoft.Network/publicIPAddresses"]
    assert [each.token for each in beside] == [spec.token]
    azure.terminate(instance.ref)
    azure.get(instance.ref)
    assert list(azure.instances()) == []
    assert cloud.billing() == []
    assert cloud.things(INTERFACE) == []


def test_a_refused_one_leaves_nothing_that_bills(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    cloud.out_of(A100, "eastus")
    with pytest.raises(NoCapacity):
        azure.launch(offer, a_spec(key, ssh_from=HERE))
    assert cloud.billing() == []
    assert cloud.things(INTERFACE) == []


def test_who_is_admitted_later_gets_in_by_ipv6_too(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    instance = azure.launch(offer, a_spec(key, ssh_from=HERE))
    azure.admit(instance.ref, ("2001:db8:3::/64",))
    (firewall,) = cloud.things(SECURITY)
    sources = {rule["properties"]["sourceAddressPrefix"] for rule in firewall.properties["securityRules"]}
    assert sources == {*HERE, "2001:db8:3::/64"}


def test_nodes_reach_each_other_by_ipv4_all_the_same(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    instance = azure.launch(offer, a_spec(key, ssh_from=HERE, group="g", nodes=2))
    (interface,) = cloud.things(INTERFACE)
    first, _ = configurations(interface.body)
    assert instance.ssh is not None
    assert instance.ssh.inside == first["privateIPAddress"]
    interface.properties["ipConfigurations"].reverse()
    assert azure.get(instance.ref).ssh == instance.ssh
