"""The network that launches at Azure share, and whom its firewall lets in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import Rejected
from gpucloud.model import InstanceState, Offer
from gpucloud.remote.keys import Identity, identity
from gpucloud_azure import Azure
from gpucloud_azure.network import rule_name
from tests.harness.azure import Cloud, Refusal
from tests.harness.azure.cloud import GROUP, NETWORK, SECURITY
from tests.providers.rented import a_spec


@pytest.fixture
def key(tmp_path: Path) -> Identity:
    """Whose machines they are."""
    return identity(tmp_path)


def rules(cloud: Cloud, region: str = "eastus") -> dict[str, dict[str, Any]]:
    """The rules of the firewall of a region, by what they let in."""
    (firewall,) = (each for each in cloud.things(SECURITY) if each.name == f"gpucloud-{region}")
    found = (rule["properties"] for rule in firewall.properties["securityRules"])
    return {rule["sourceAddressPrefix"]: rule for rule in found}


def theirs(priority: int) -> dict[str, Any]:
    """A rule that somebody else has added."""
    wanted = {"access": "Allow", "direction": "Inbound", "priority": priority, "protocol": "Tcp"}
    ports = {"sourcePortRange": "*", "destinationPortRange": "443", "destinationAddressPrefix": "*"}
    return {
        "name": f"theirs-{priority}",
        "properties": {**wanted, **ports, "sourceAddressPrefix": "192.0.2.0/24"},
    }


def test_the_network_of_a_region_is_made_once(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    for _ in range(2):
        azure.launch(offer, a_spec(key))
    azure.launch(replace(offer, region="westeurope"), a_spec(key))
    assert [each.name for each in cloud.things(NETWORK)] == ["gpucloud-eastus", "gpucloud-westeurope"]
    assert [each.name for each in cloud.things(SECURITY)] == ["gpucloud-eastus", "gpucloud-westeurope"]
    assert [each.name for each in cloud.things(GROUP)] == ["gpucloud"]
    shared = [each for kind in (NETWORK, SECURITY, GROUP) for each in cloud.things(kind)]
    assert all(each.body["tags"] == {"gpucloud": "shared"} for each in shared)
    puts = [path for method, path in cloud.requests if method == "PUT" and path.endswith("/gpucloud-eastus")]
    assert len(puts) == 2


def test_ssh_is_open_to_these_networks_and_to_nothing_else(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    azure.launch(offer, a_spec(key, ssh_from=("203.0.113.7/32", "2001:db8::/48")))
    found = rules(cloud)
    assert set(found) == {"203.0.113.7/32", "2001:db8::/48"}
    for rule in found.values():
        assert (rule["destinationPortRange"], rule["access"], rule["direction"]) == ("22", "Allow", "Inbound")
    assert len({rule["priority"] for rule in found.values()}) == 2
    (network,) = cloud.things(NETWORK)
    (subnet,) = network.properties["subnets"]
    (firewall,) = cloud.things(SECURITY)
    assert subnet["properties"]["networkSecurityGroup"]["id"].lower() == firewall.id.lower()


def test_who_is_admitted_later_gets_in_beside_the_others(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    instance = azure.launch(offer, a_spec(key, ssh_from=("203.0.113.7/32",)))
    azure.admit(instance.ref, ("203.0.113.8/32",))
    assert set(rules(cloud)) == {"203.0.113.7/32", "203.0.113.8/32"}


def test_without_networks_ssh_is_open_to_everybody(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    azure.launch(offer, a_spec(key))
    assert set(rules(cloud)) == {"*"}


def test_another_launch_adds_its_networks_to_those_that_are_there(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    azure.launch(offer, a_spec(key, ssh_from=("203.0.113.7/32",)))
    azure.launch(offer, a_spec(key, ssh_from=("203.0.113.7/32", "198.51.100.0/24")))
    assert set(rules(cloud)) == {"203.0.113.7/32", "198.51.100.0/24"}


def test_other_people_s_rules_and_their_priorities_are_left_alone(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    azure.launch(offer, a_spec(key))
    (firewall,) = cloud.things(SECURITY)
    firewall.properties["securityRules"] += [theirs(1001), theirs(1002)]
    azure.launch(offer, a_spec(key, ssh_from=("198.51.100.0/24",)))
    found = rules(cloud)
    assert found["198.51.100.0/24"]["priority"] == 1003
    names = [rule["name"] for rule in firewall.properties["securityRules"]]
    assert {"theirs-1001", "theirs-1002"} <= set(names)


def test_a_priority_that_somebody_takes_meanwhile_is_given_up(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    azure.launch(offer, a_spec(key))
    (firewall,) = cloud.things(SECURITY)
    cloud.hooks["PUT", "securityrules"] = lambda: firewall.properties["securityRules"].append(theirs(1001))
    azure.launch(offer, a_spec(key, ssh_from=("198.51.100.0/24",)))
    assert rules(cloud)["198.51.100.0/24"]["priority"] == 1002


@pytest.mark.parametrize(
    "kind", ["networksecuritygroups", "virtualnetworks", "securityrules", "networkinterfaces"]
)
def test_what_another_launch_is_changing_is_changed_after_it(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity, kind: str
) -> None:
    cloud.refuse("PUT", kind, Refusal(409, "AnotherOperationInProgress", "Another operation is in progress."))
    azure.launch(offer, a_spec(key))
    assert len(cloud.instances()) == 1


def test_what_another_launch_is_changing_is_used_after_it(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    text = "Cannot proceed with operation because the network is not in Succeeded state."
    cloud.refuse("PUT", "networkinterfaces", Refusal(409, "ReferencedResourceNotProvisioned", text))
    azure.launch(offer, a_spec(key))
    assert len(cloud.instances()) == 1


def test_two_processes_may_make_the_firewall_at_once(
    cloud: Cloud, make: Callable[..., Azure], azure: Azure, offer: Offer, key: Identity
) -> None:
    cloud.hooks["PUT", "networksecuritygroups"] = lambda: make().launch(
        offer, a_spec(key, ssh_from=("198.51.100.0/24",))
    )
    azure.launch(offer, a_spec(key, ssh_from=("203.0.113.7/32",)))
    assert "203.0.113.7/32" in rules(cloud)
    assert len(cloud.instances()) == 2


def test_rules_that_were_lost_to_another_process_are_written_again(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    def wipe() -> None:
        (firewall,) = cloud.things(SECURITY)
        firewall.properties["securityRules"].clear()

    cloud.hooks["PUT", "networkinterfaces"] = wipe
    azure.launch(offer, a_spec(key, ssh_from=("203.0.113.7/32",)))
    assert set(rules(cloud)) == {"203.0.113.7/32"}


def test_two_processes_may_make_the_group_for_two_regions_at_once(
    cloud: Cloud, make: Callable[..., Azure], azure: Azure, offer: Offer, key: Identity
) -> None:
    there = replace(offer, region="westeurope")
    cloud.hooks["PUT", "resourcegroups"] = lambda: make().launch(there, a_spec(key))
    azure.launch(offer, a_spec(key))
    assert [each.name for each in cloud.things(GROUP)] == ["gpucloud"]
    assert len(cloud.instances()) == 2


def test_two_spellings_of_a_network_have_one_rule() -> None:
    assert rule_name("2001:db8::1/64") == rule_name("2001:0DB8::/64")
    assert rule_name("203.0.113.7/32") != rule_name("203.0.113.7/31")


def test_what_is_shared_goes_in_the_order_in_which_it_is_told(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    instance = azure.launch(offer, a_spec(key, group="g", nodes=2))
    shared = list(azure.shared_resources())
    assert [resource.kind.rpartition("/")[2] for resource in shared] == [
        "proximityPlacementGroups",
        "virtualNetworks",
        "networkSecurityGroups",
        "resourceGroups",
    ]
    assert all(resource.token is None for resource in shared)
    for resource in shared:
        with pytest.raises(Rejected):
            azure.remove_shared(resource)
    azure.terminate(instance.ref)
    assert azure.get(instance.ref).state is InstanceState.TERMINATING
    assert list(azure.instances()) == []
    for resource in [*shared, *shared]:
        azure.remove_shared(resource)
    assert list(azure.shared_resources()) == []
    assert [each for kind in (NETWORK, SECURITY, GROUP) for each in cloud.things(kind)] == []


def test_a_group_with_other_people_s_things_in_it_stays(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    instance = azure.launch(offer, a_spec(key))
    cloud.put_by_others(NETWORK, "gpucloud", "theirs", {"location": "eastus"})
    azure.terminate(instance.ref)
    assert azure.get(instance.ref).state is InstanceState.TERMINATING
    assert list(azure.instances()) == []
    *parts, group = azure.shared_resources()
    for resource in parts:
        azure.remove_shared(resource)
    with pytest.raises(Rejected) as refused:
        azure.remove_shared(group)
    assert "theirs" in refused.value.why
    assert [each.name for each in cloud.things(NETWORK)] == ["theirs"]


def test_a_group_that_was_there_before_is_not_ours_to_remove(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    cloud.put("/subscriptions/S/resourceGroups/gpucloud", GROUP, {"location": "westeurope"})
    azure.launch(offer, a_spec(key))
    assert all(not resource.kind.endswith("resourceGroups") for resource in azure.shared_resources())
