"""Nodes with several network cards: an interface for each with EFA, and an address that outlives them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import AuthError, NoCapacity, ProviderError, Unreachable
from gpucloud.model import InstanceState, Market, Offer, Requirements
from gpucloud.provider import LaunchSpec
from gpucloud_aws import Aws
from gpucloud_aws.api import InstanceType
from tests.harness.acme.faults import Fault, Trouble, Verb
from tests.harness.aws import Cloud, Refusal, backend, serving
from tests.harness.faulty import Faulty
from tests.providers.aws.conftest import Find, MakeAdapter, a_spec, an_adapter

EAST, FAST, CARDS = "us-east-1", "p5.48xlarge", 32
OF_ADDRESSES = "L-0263D0A3"
STEPS = ("AllocateAddress", "CreateNetworkInterface", "AssociateAddress", "RunInstances")
"""What a launch of such a node changes, in this order."""


def node(token: str = "gc-token", rank: int = 0) -> LaunchSpec:
    """One of two that are rented together."""
    return a_spec(token, rank=rank, group="gc-both", nodes=2)


def offer_of(adapter: Aws) -> Offer:
    """One of a type with many cards."""
    wanted = Requirements(markets=(Market.ON_DEMAND,), regions=("us-east-1a",), instance_types=(FAST,))
    return next(iter(adapter.offers(wanted)))


def request(cloud: Cloud) -> list[dict[str, Any]]:
    """The interfaces that RunInstances was last asked for."""
    asked: list[dict[str, Any]] = cloud.of("RunInstances")[-1].words["NetworkInterfaces"]
    return asked


def left(adapter: Aws, token: str = "gc-token") -> Counter[str]:
    """What is listed beside the instance of a token, by its kind."""
    return Counter(each.kind for each in adapter.side_resources() if each.token == token)


def made() -> list[Any]:
    """Addresses and interfaces, which are all of the account that a launch makes alone."""
    return [*backend(EAST).addresses, *backend(EAST).enis.values()]


def remove_all(adapter: Aws) -> None:
    """End what there is, as the core does: again and again, until nothing is listed."""
    for _ in range(4):
        for instance in adapter.instances():
            adapter.terminate(instance.ref)
        for resource in list(adapter.side_resources()):
            adapter.remove(resource)


# what is asked for


def test_a_node_has_an_interface_for_each_network_card_and_keeps_a_plain_one_for_the_rest(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    adapter.launch(find(FAST), node())
    primary, *fast = request(cloud)
    (machine,) = cloud.instances()
    assert primary.keys() == {"NetworkInterfaceId", "NetworkCardIndex", "DeviceIndex"}
    assert primary["NetworkInterfaceId"] == machine.thing.nics[0].id
    assert [each["NetworkCardIndex"] for each in fast] == list(range(CARDS))
    assert [each["DeviceIndex"] for each in fast] == [1] + [0] * (CARDS - 1)
    assert {each["InterfaceType"] for each in fast} == {"efa-only"}
    assert all(each["DeleteOnTermination"] for each in fast)
    assert {(each["SubnetId"], *each["Groups"]) for each in fast} == {(machine.subnet, *machine.groups)}


def test_a_node_is_reached_by_an_address_of_its_own_that_carries_its_tags(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    spec = node()
    instance = adapter.launch(find(FAST), spec)
    (address,) = backend(EAST).addresses
    (machine,) = cloud.instances()
    assert spec.tags.items() <= {tag["key"]: tag["value"] for tag in address.get_tags()}.items()
    assert address.eni is machine.thing.nics[0]
    adapter.get(instance.ref)
    up = adapter.get(instance.ref)
    assert up.ssh is not None
    assert up.ssh.host == address.public_ip
    (listed,) = [each for each in adapter.side_resources() if each.kind == "elastic-ip"]
    assert (listed.ref.id, listed.ref.region) == (address.allocation_id, EAST)
    assert (listed.token, listed.owner, listed.usd_per_hour) == (spec.token, spec.owner, None)


def test_the_primary_interface_has_ipv6_where_the_subnet_has_it(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    cloud.add_ipv6(EAST)
    adapter.launch(find(FAST), node())
    (asked,) = cloud.of("CreateNetworkInterface")
    assert asked.words["Ipv6AddressCount"] == 1


@pytest.mark.parametrize("name", ["g6.12xlarge", "g5.xlarge"])
def test_nodes_with_one_card_take_no_address(adapter: Aws, cloud: Cloud, find: Find, name: str) -> None:
    adapter.launch(find(name), node())
    assert len(request(cloud)) == 1
    assert not cloud.of("AllocateAddress") + cloud.of("DescribeAddresses")


def test_an_instance_alone_takes_no_address(adapter: Aws, cloud: Cloud, find: Find) -> None:
    instance = adapter.launch(find(FAST), a_spec())
    adapter.terminate(instance.ref)
    assert len(request(cloud)) == 1
    assert not cloud.of("AllocateAddress") + cloud.of("DescribeAddresses")


@pytest.mark.parametrize(
    ("cards", "most", "indexes"),
    [
        (1, 1, range(1)),
        (4, 4, range(4)),
        (17, 16, range(1, 17)),
        (17, 8, range(1)),
        (2, 1, range(1)),
        (1, 2, range(1)),
    ],
)
def test_which_cards_have_efa_is_told_by_how_many_there_are_of_both(
    cards: int, most: int, indexes: range
) -> None:
    network = {
        "EfaSupported": True,
        "MaximumNetworkCards": cards,
        "EfaInfo": {"MaximumEfaInterfaces": most},
    }
    told = {"InstanceType": "x.large", "NetworkInfo": network}
    assert InstanceType.model_validate(told).network.efa_cards == indexes


def test_on_spot_it_is_the_same(adapter: Aws, cloud: Cloud, find: Find) -> None:
    adapter.launch(find(FAST, market=Market.SPOT), node())
    assert len(request(cloud)) == 1 + CARDS


# the end


def test_the_address_and_its_interface_stay_while_an_instance_has_them(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    instance = adapter.launch(find(FAST), node())
    adapter.get(instance.ref)
    for resource in list(adapter.side_resources()):
        if resource.kind != "volume":
            adapter.remove(resource)
    (address,) = backend(EAST).addresses
    assert address.eni is cloud.machines[instance.ref.id].thing.nics[0]
    assert left(adapter)["network-interface"] == 1 + CARDS


def test_terminate_releases_the_address_at_once(adapter: Aws, cloud: Cloud, find: Find) -> None:
    instance = adapter.launch(find(FAST), node())
    adapter.terminate(instance.ref)
    assert not backend(EAST).addresses
    assert left(adapter) == {"network-interface": 1}
    remove_all(adapter)
    assert not made()
    assert not cloud.billing()


def test_an_address_that_ec2_does_not_let_go_of_yet_is_released_by_the_next_terminate(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    instance = adapter.launch(find(FAST), node())
    cloud.refusals["DisassociateAddress"] = [Refusal(400, "IncorrectInstanceState")]
    adapter.terminate(instance.ref)
    assert left(adapter)["elastic-ip"] == 1
    adapter.terminate(instance.ref)
    assert left(adapter)["elastic-ip"] == 0


def test_what_is_left_of_an_instance_that_ended_by_itself_is_listed_and_removed(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    instance = adapter.launch(find(FAST), node())
    cloud.power_off(instance.ref.id)
    for _ in range(2):
        list(adapter.instances())
    assert left(adapter) == {"elastic-ip": 1, "network-interface": 1, "placement-group": 1}
    for resource in list(adapter.side_resources()) * 2:
        adapter.remove(resource)
    assert not left(adapter)
    assert not made()


def test_an_address_that_is_gone_already_is_removed_with_success(adapter: Aws, find: Find) -> None:
    adapter.launch(find(FAST), node())
    (listed,) = [each for each in adapter.side_resources() if each.kind == "elastic-ip"]
    remove_all(adapter)
    adapter.remove(listed)
    assert not made()


def test_stop_and_start_keep_the_address(adapter: Aws, cloud: Cloud, find: Find) -> None:
    instance = adapter.launch(find(FAST), node())
    adapter.get(instance.ref)
    before = adapter.get(instance.ref).ssh
    adapter.stop(instance.ref)
    adapter.get(instance.ref)
    assert adapter.get(instance.ref).state is InstanceState.STOPPED
    adapter.start(instance.ref)
    adapter.get(instance.ref)
    assert adapter.get(instance.ref).ssh == before
    assert len(cloud.of("AllocateAddress")) == 1


# once


def test_the_same_launch_in_another_process_takes_what_is_there(
    adapter: Aws, cloud: Cloud, find: Find, make_adapter: MakeAdapter
) -> None:
    first = adapter.launch(find(FAST), node())
    assert make_adapter().launch(find(FAST), node()).ref == first.ref
    assert len(cloud.instances()) == 1
    assert len(backend(EAST).addresses) == 1
    assert len(backend(EAST).enis) == 1 + CARDS


@pytest.mark.parametrize("step", STEPS)
def test_a_launch_that_was_cut_off_is_gone_on_with(
    adapter: Aws, cloud: Cloud, find: Find, make_adapter: MakeAdapter, step: str
) -> None:
    offer = find(FAST)
    cloud.refusals[step] = [Refusal(500, "InternalError")]
    with pytest.raises(ProviderError) as caught:
        adapter.launch(offer, node())
    assert caught.value.outcome_unknown
    make_adapter().launch(offer, node())
    assert len(cloud.instances()) == 1
    assert len(backend(EAST).addresses) == 1
    assert len(backend(EAST).enis) == 1 + CARDS
    remove_all(adapter)
    assert not made()


def test_an_instance_of_an_earlier_try_keeps_its_address_when_the_next_try_fails(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    offer = find(FAST)
    instance = adapter.launch(offer, node())
    cloud.refusals["RunInstances"] = [Refusal(400, "VcpuLimitExceeded")]
    with pytest.raises(ProviderError) as caught:
        adapter.launch(offer, node())
    assert caught.value.outcome_unknown
    (address,) = backend(EAST).addresses
    assert address.eni is cloud.machines[instance.ref.id].thing.nics[0]


def test_an_earlier_instance_with_one_card_is_found_and_nothing_more_is_kept(
    adapter: Aws, cloud: Cloud, find: Find
) -> None:
    offer = find(FAST)
    cloud.quotas[EAST, OF_ADDRESSES] = 0
    first = adapter.launch(offer, node())
    cloud.quotas[EAST, OF_ADDRESSES] = 5
    assert adapter.launch(offer, node()).ref == first.ref
    assert not backend(EAST).addresses
    assert len(backend(EAST).enis) == 1


def test_what_has_just_been_made_and_is_not_known_yet_is_asked_for_again(
    make_adapter: MakeAdapter, cloud: Cloud, find: Find
) -> None:
    cloud.refusals["AssociateAddress"] = [Refusal(400, "InvalidAllocationID.NotFound")]
    cloud.refusals["RunInstances"] = [Refusal(400, "InvalidNetworkInterfaceID.NotFound")]
    make_adapter(attempts=2).launch(find(FAST), node())
    assert len(request(cloud)) == 1 + CARDS


# no


def test_a_launch_without_capacity_leaves_nothing(adapter: Aws, cloud: Cloud, find: Find) -> None:
    cloud.capacity[FAST, "us-east-1a"] = 0
    with pytest.raises(NoCapacity) as caught:
        adapter.launch(find(FAST), node())
    assert caught.value.lasting
    assert not caught.value.outcome_unknown
    assert not made()
    assert not left(adapter)


@pytest.mark.parametrize("step", ["ReleaseAddress", "DeleteNetworkInterface"])
def test_what_cannot_be_taken_back_is_to_be_looked_for(
    adapter: Aws, cloud: Cloud, find: Find, step: str
) -> None:
    cloud.capacity[FAST, "us-east-1a"] = 0
    cloud.refusals[step] = [Refusal(400, "IncorrectInstanceState")]
    with pytest.raises(NoCapacity) as caught:
        adapter.launch(find(FAST), node())
    assert caught.value.outcome_unknown
    assert len(made()) == sum(left(adapter).values()) > 0
    remove_all(adapter)
    assert not made()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


def test_where_the_quota_allows_no_address_a_node_has_one_card_and_a_warning_says_so(
    adapter: Aws, cloud: Cloud, find: Find, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.quotas[EAST, OF_ADDRESSES] = 0
    instance = adapter.launch(find(FAST), node())
    (interface,) = request(cloud)
    assert interface["InterfaceType"] == "efa"
    (warning,) = warnings(caplog)
    assert "one EFA card" in warning
    assert "EC2-VPC Elastic IPs" in warning
    adapter.get(instance.ref)
    assert adapter.get(instance.ref).ssh is not None
    assert left(adapter) == {"volume": 1, "network-interface": 1}


@pytest.mark.parametrize(
    "action", ["DescribeAddresses", "AllocateAddress", "CreateNetworkInterface", "AssociateAddress"]
)
def test_where_an_address_is_not_allowed_a_node_has_one_card_and_the_permission_is_named(
    adapter: Aws, cloud: Cloud, find: Find, caplog: pytest.LogCaptureFixture, action: str
) -> None:
    cloud.forbidden.add((f"ec2:{action}", None))
    adapter.launch(find(FAST), node())
    assert len(request(cloud)) == 1
    (warning,) = warnings(caplog)
    assert f"ec2:{action} is not allowed" in warning
    assert not backend(EAST).addresses
    assert len(backend(EAST).enis) == 1


def test_a_region_whose_addresses_cannot_be_listed_is_not_left_out(adapter: Aws, cloud: Cloud) -> None:
    cloud.forbidden.add(("ec2:DescribeAddresses", "us-west-2"))
    with pytest.raises(AuthError, match="does not allow"):
        list(adapter.side_resources())


# answers that are lost


def troubled(action: str, trouble: Trouble) -> Callable[[Any], Faulty]:
    """The cloud, which carries out the first request of an action, and does not say so."""

    def around(app: Any) -> Faulty:
        faulty = Faulty(app, lambda _, body: Verb.CREATE if f"Action={action}&".encode() in body else None)
        faulty.strike(Fault(Verb.CREATE, trouble))
        return faulty

    return around


@pytest.mark.parametrize("trouble", [Trouble.LOST_REPLY, Trouble.ERROR_BUT_DONE])
@pytest.mark.parametrize("step", STEPS)
def test_of_a_launch_whose_answer_is_lost_all_is_listed_and_a_second_try_takes_it(
    elsewhere_nothing: None, tmp_path: Path, step: str, trouble: Trouble
) -> None:
    with serving(around=troubled(step, trouble)) as served:
        adapter = an_adapter(served, tmp_path)
        offer = offer_of(adapter)
        with pytest.raises(ProviderError) as caught:
            adapter.launch(offer, node())
        assert caught.value.outcome_unknown
        assert sum(left(adapter)[kind] for kind in ("elastic-ip", "network-interface")) == len(made()) > 0
        adapter.launch(offer, node())
        assert len(served.cloud.instances()) == len(backend(EAST).addresses) == 1
        assert len(backend(EAST).enis) == 1 + CARDS
        remove_all(adapter)
        assert not made()
        assert not served.cloud.billing()


@pytest.mark.parametrize("step", ["CreateNetworkInterface", "AssociateAddress", "RunInstances"])
def test_what_may_be_sent_twice_is_sent_twice_when_an_answer_is_lost(
    elsewhere_nothing: None, tmp_path: Path, step: str
) -> None:
    with serving(around=troubled(step, Trouble.LOST_REPLY)) as served:
        adapter = an_adapter(served, tmp_path, attempts=2)
        adapter.launch(offer_of(adapter), node())
        assert len(served.cloud.of(step)) == 2
        assert len(backend(EAST).enis) == 1 + CARDS


def test_an_address_is_not_asked_for_twice(elsewhere_nothing: None, tmp_path: Path) -> None:
    with serving(around=troubled("AllocateAddress", Trouble.LOST_REPLY)) as served:
        adapter = an_adapter(served, tmp_path, attempts=4)
        with pytest.raises(ProviderError):
            adapter.launch(offer_of(adapter), node())
        assert len(served.cloud.of("AllocateAddress")) == len(backend(EAST).addresses) == 1


@pytest.mark.parametrize("step", ["DisassociateAddress", "ReleaseAddress", "DeleteNetworkInterface"])
def test_an_end_of_which_an_answer_is_lost_is_gone_on_with(
    elsewhere_nothing: None, tmp_path: Path, step: str
) -> None:
    with serving(around=troubled(step, Trouble.LOST_REPLY)) as served:
        adapter = an_adapter(served, tmp_path)
        instance = adapter.launch(offer_of(adapter), node())
        served.cloud.power_off(instance.ref.id)
        for _ in range(2):
            list(adapter.instances())
        failures = 0
        for _ in range(3):
            for resource in list(adapter.side_resources()):
                try:
                    adapter.remove(resource)
                except Unreachable:
                    failures += 1
        assert failures == 1
        assert not left(adapter)
        assert not made()
