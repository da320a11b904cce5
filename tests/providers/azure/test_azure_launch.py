"""What a launch at Azure makes, what it leaves when it is refused, and what ends with the machine."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import NoCapacity, NotFound, ProviderError, QuotaExceeded, Unreachable, Unsupported
from gpucloud.model import Gpu, Instance, InstanceRef, InstanceState, Market, Offer, Requirements
from gpucloud.provider import LaunchSpec
from gpucloud.remote.keys import Identity, identity, new_key_pair
from gpucloud_azure import Azure
from tests.harness.azure import BootInfo, Cloud, Machine, Refusal
from tests.harness.azure.cloud import ADDRESS, DISK, INTERFACE, MACHINE, PLACEMENT
from tests.harness.azure.market import A100, CPU, GB200, MI300X, T4, V100
from tests.providers.rented import a_spec

Launch = Callable[..., Instance]


@pytest.fixture
def key(tmp_path: Path) -> Identity:
    """Whose machines they are."""
    return identity(tmp_path)


@pytest.fixture
def launch(azure: Azure, key: Identity) -> Launch:
    """``launch(offer, ...)`` rents one, with these fields of its specification."""

    def launch(offer: Offer, **given: Any) -> Instance:
        return azure.launch(offer, a_spec(key, **given))

    return launch


def properties(machine: Machine) -> Any:
    """What was asked of it."""
    return machine.body["properties"]


def sized(azure: Azure, size: str, market: Market = Market.ON_DEMAND) -> Offer:
    """An offer of one size in Virginia."""
    wanted = Requirements(instance_types=(size,), regions=("eastus",), markets=(market,))
    (offer,) = azure.offers(wanted)
    return offer


def left(cloud: Cloud) -> list[str]:
    """The names of what was made for instances and is still there."""
    return [each.name for kind in (MACHINE, INTERFACE, ADDRESS, DISK) for each in cloud.things(kind)]


# -- what is made ----------------------------------------------------------------------------------


def test_a_machine_lets_in_our_key_alone_and_is_known_by_our_host_key(
    cloud: Cloud, launch: Launch, offer: Offer, key: Identity
) -> None:
    host_key = new_key_pair()
    launch(offer, host_key=host_key)
    (machine,) = cloud.instances()
    system = properties(machine)["osProfile"]
    (known,) = system["linuxConfiguration"]["ssh"]["publicKeys"]
    assert system["linuxConfiguration"]["disablePasswordAuthentication"] is True
    assert "adminPassword" not in system
    assert known == {"path": "/home/azureuser/.ssh/authorized_keys", "keyData": key.public}
    told = base64.b64decode(system["customData"]).decode()
    assert told.startswith("#cloud-config\n")
    config = json.loads(told.partition("\n")[2])
    assert config["ssh_authorized_keys"] == [key.public]
    assert config["ssh_keys"]["ed25519_public"] == host_key.public


def test_a_machine_has_no_identity_in_the_cloud(cloud: Cloud, launch: Launch, offer: Offer) -> None:
    launch(offer)
    (machine,) = cloud.instances()
    assert "identity" not in machine.body


def test_who_boots_is_told_to_the_harness_and_has_the_address_it_says(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    booted: list[BootInfo] = []

    def boot(info: BootInfo) -> str:
        booted.append(info)
        return "203.0.113.77"

    cloud.on_boot = boot
    instance = launch(offer)
    assert [info.id.lower() for info in booted] == [instance.ref.id.lower()]
    found = azure.get(instance.ref)
    assert found.ssh is not None
    assert (found.ssh.host, found.ssh.user) == ("203.0.113.77", "azureuser")


def test_the_tags_are_read_again_as_they_were(launch: Launch, azure: Azure, offer: Offer) -> None:
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    instance = launch(offer, cluster="Träining 1", rank=7, owner="Ada / Lab", expires_at=ends)
    (found,) = azure.instances()
    assert found == azure.get(instance.ref)
    assert (found.token, found.cluster, found.rank) == (instance.token, "Träining 1", 7)
    assert (found.owner, found.expires_at) == ("Ada / Lab", ends)
    assert (found.instance_type, found.market) == (A100, Market.ON_DEMAND)


def test_everything_that_bills_carries_the_token(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    instance = launch(offer, owner="ada")
    beside = list(azure.side_resources())
    assert sorted(resource.kind for resource in beside) == [
        "Microsoft.Compute/disks",
        "Microsoft.Network/networkInterfaces",
        "Microsoft.Network/publicIPAddresses",
    ]
    assert {(resource.token, resource.owner) for resource in beside} == {(instance.token, "ada")}
    known = {resource.ref.id.lower() for resource in beside} | {instance.ref.id.lower()}
    assert {billed.lower() for billed in cloud.billing()} <= known


def test_disk_interface_and_address_go_with_the_machine(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    ended: list[str] = []
    cloud.on_end = ended.append
    instance = launch(offer)
    assert len(left(cloud)) == 4
    azure.terminate(instance.ref)
    assert azure.get(instance.ref).state is InstanceState.TERMINATING
    with pytest.raises(NotFound):
        azure.get(instance.ref)
    assert left(cloud) == []
    assert cloud.billing() == []
    assert [each.lower() for each in ended] == [instance.ref.id.lower()]


def test_a_spot_machine_is_deleted_when_it_is_taken_back(
    cloud: Cloud, launch: Launch, azure: Azure, spot: Offer
) -> None:
    instance = launch(spot)
    (machine,) = cloud.instances()
    asked = properties(machine)
    assert (asked["priority"], asked["evictionPolicy"]) == ("Spot", "Delete")
    assert asked["billingProfile"] == {"maxPrice": -1}
    assert azure.get(instance.ref).market is Market.SPOT
    cloud.evict(machine.id.rpartition("/")[2])
    assert list(azure.instances()) == []
    assert cloud.billing() == []


def test_a_cap_is_the_maximum_price_and_is_never_rounded_up(
    cloud: Cloud, launch: Launch, spot: Offer
) -> None:
    launch(spot, max_usd_per_hour=Decimal("1.2345678"))
    (machine,) = cloud.instances()
    assert properties(machine)["billingProfile"] == {"maxPrice": 1.23456}


def test_on_demand_has_no_maximum_price(cloud: Cloud, launch: Launch, offer: Offer) -> None:
    launch(offer, max_usd_per_hour=Decimal(5))
    (machine,) = cloud.instances()
    assert not {"priority", "billingProfile", "evictionPolicy"} & set(properties(machine))


def test_the_disk_is_as_large_as_was_asked_for(cloud: Cloud, launch: Launch, offer: Offer) -> None:
    launch(offer, disk_gib=512)
    (disk,) = cloud.things(DISK)
    assert disk.properties["diskSizeGB"] == 512


@pytest.mark.parametrize("size", [A100, T4])
def test_the_network_is_as_fast_as_the_size_can(
    cloud: Cloud, azure: Azure, launch: Launch, size: str
) -> None:
    launch(sized(azure, size))
    (interface,) = cloud.things(INTERFACE)
    assert interface.properties["enableAcceleratedNetworking"] is (size == A100)


# -- images ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "kind"), [(A100, "2404"), (MI300X, "2404-rocm"), (V100, "2404-v100")])
def test_a_machine_starts_from_the_newest_image_for_its_gpu(
    cloud: Cloud, azure: Azure, launch: Launch, size: str, kind: str
) -> None:
    launch(sized(azure, size))
    (machine,) = cloud.instances()
    assert properties(machine)["storageProfile"]["imageReference"] == {
        "publisher": "microsoft-dsvm",
        "offer": "ubuntu-hpc",
        "sku": kind,
        "version": "latest",
    }


def test_a_size_without_an_image_says_how_to_name_one(cloud: Cloud, azure: Azure, launch: Launch) -> None:
    with pytest.raises(Unsupported) as refused:
        launch(sized(azure, GB200))
    assert "--image" in refused.value.hint
    assert left(cloud) == []


def test_an_arm_machine_starts_from_an_image_for_arm_once_there_is_one(
    cloud: Cloud, azure: Azure, launch: Launch
) -> None:
    cloud.images["publishers/microsoft-dsvm/artifacttypes/vmimage/offers/ubuntu-hpc/skus"].append(
        "2404-arm64"
    )
    launch(sized(azure, GB200))
    (machine,) = cloud.instances()
    assert properties(machine)["storageProfile"]["imageReference"]["sku"] == "2404-arm64"


def test_a_machine_without_a_gpu_starts_from_plain_ubuntu_of_its_generation(
    cloud: Cloud, launch: Launch, offer: Offer
) -> None:
    launch(replace(offer, instance_type=CPU, gpu=None, gpu_count=0))
    (machine,) = cloud.instances()
    image = properties(machine)["storageProfile"]["imageReference"]
    assert (image["publisher"], image["offer"], image["sku"]) == (
        "Canonical",
        "ubuntu-24_04-lts",
        "server-gen1",
    )


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ("a:b:c:1.2", {"publisher": "a", "offer": "b", "sku": "c", "version": "1.2"}),
        ("/subscriptions/S/resourceGroups/g/providers/Microsoft.Compute/images/i", {"id": None}),
        ("/CommunityGalleries/g/Images/i/Versions/latest", {"communityGalleryImageId": None}),
        ("/SharedGalleries/g/Images/i/Versions/latest", {"sharedGalleryImageId": None}),
    ],
)
def test_an_image_of_ones_own_is_a_urn_or_an_id(
    cloud: Cloud, launch: Launch, offer: Offer, image: str, reference: dict[str, str | None]
) -> None:
    launch(offer, image=image)
    (machine,) = cloud.instances()
    wanted = {key: value or image for key, value in reference.items()}
    assert properties(machine)["storageProfile"]["imageReference"] == wanted


@pytest.mark.parametrize("image", ["ubuntu", "a:b:c", "a:b::d"])
def test_what_cannot_be_an_image_is_refused_before_anything_bills(
    cloud: Cloud, launch: Launch, offer: Offer, image: str
) -> None:
    with pytest.raises(Unsupported):
        launch(offer, image=image)
    assert left(cloud) == []


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", ["AllocationFailed", "OverconstrainedAllocationRequest", "ZonalAllocationFailed"]
)
def test_a_machine_that_is_refused_hardware_leaves_nothing_behind(
    cloud: Cloud, launch: Launch, offer: Offer, code: str
) -> None:
    cloud.out_of(A100, "eastus", code)
    with pytest.raises(NoCapacity) as refused:
        launch(offer)
    assert (refused.value.vendor_code, refused.value.lasting) == (code, True)
    assert "sufficient capacity" in refused.value.vendor_text
    assert not refused.value.outcome_unknown
    assert left(cloud) == []
    assert cloud.billing() == []


def test_a_refusal_that_comes_late_is_seen_when_it_comes(
    cloud: Cloud, azure: Azure, launch: Launch, offer: Offer
) -> None:
    azure.look_s = 5
    cloud.fail_next("AllocationFailed", "none left", after_reads=1)
    with pytest.raises(NoCapacity):
        launch(offer)
    assert left(cloud) == []


def test_a_machine_that_fails_later_says_why_in_the_log(
    cloud: Cloud, azure: Azure, launch: Launch, offer: Offer, caplog: pytest.LogCaptureFixture
) -> None:
    azure.look_s = 0
    cloud.fail_next("OSProvisioningInternalError", "the image is broken", after_reads=2)
    instance = launch(offer)
    assert instance.state is InstanceState.PENDING
    assert azure.get(instance.ref).state is InstanceState.PENDING
    assert azure.get(instance.ref).state is InstanceState.FAILED
    assert "OSProvisioningInternalError the image is broken" in caplog.text
    azure.terminate(instance.ref)
    assert azure.get(instance.ref).state is InstanceState.TERMINATING
    assert list(azure.instances()) == []
    assert left(cloud) == []


@pytest.mark.parametrize(
    ("method", "kind", "refusal", "kind_of_error"),
    [
        ("PUT", "publicipaddresses", Refusal(400, "PublicIPCountLimitReached", "Only 10."), QuotaExceeded),
        ("PUT", "networkinterfaces", Refusal(400, "SubnetIsFull", "No address is left."), ProviderError),
        ("PUT", "virtualmachines", Refusal(409, "SkuNotAvailable", "None in eastus."), NoCapacity),
        ("PUT", "virtualmachines", Refusal(400, "InvalidParameter", "Wrong."), ProviderError),
    ],
)
def test_a_launch_that_is_refused_half_way_leaves_nothing_behind(
    cloud: Cloud,
    launch: Launch,
    offer: Offer,
    method: str,
    kind: str,
    refusal: Refusal,
    kind_of_error: type[Exception],
) -> None:
    cloud.refuse(method, kind, refusal)
    with pytest.raises(kind_of_error) as refused:
        launch(offer)
    assert isinstance(refused.value, ProviderError)
    assert refused.value.vendor_code == refusal.code
    assert not refused.value.outcome_unknown
    assert left(cloud) == []


def test_what_cannot_be_taken_away_again_is_told(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    cloud.refuse("PUT", "virtualmachines", Refusal(409, "SkuNotAvailable", "None in eastus."))
    cloud.refuse("DELETE", "networkinterfaces", Refusal(403, "AuthorizationFailed", "You may not delete."))
    with pytest.raises(NoCapacity) as refused:
        launch(offer, token="gc-half")
    assert refused.value.outcome_unknown
    resources = [resource for resource in azure.side_resources() if resource.token == "gc-half"]
    assert {resource.kind.rpartition("/")[2] for resource in resources} == {
        "networkInterfaces",
        "publicIPAddresses",
    }
    for resource in [*resources, *resources]:
        azure.remove(resource)
    assert list(azure.side_resources()) == []
    assert left(cloud) == []


def test_terminate_takes_away_what_a_broken_launch_left(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    cloud.refuse("PUT", "virtualmachines", Refusal(409, "SkuNotAvailable", "None in eastus."))
    cloud.refuse("DELETE", "networkinterfaces", Refusal(403, "AuthorizationFailed", "You may not delete."))
    with pytest.raises(NoCapacity):
        launch(offer, token="gc-half")
    assert len(left(cloud)) == 2
    name = "/subscriptions/S/resourceGroups/gpucloud/providers/Microsoft.Compute/virtualMachines/gc-half"
    azure.terminate(InstanceRef(name, "eastus"))
    assert left(cloud) == []


def test_an_order_whose_answer_is_lost_is_settled_by_its_name(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    for _ in range(5):
        cloud.refuse(
            "PUT", "virtualmachines", Refusal(504, "GatewayTimeout", "Nobody answers.", retry_after=0.001)
        )
    with pytest.raises(Unreachable) as refused:
        launch(offer)
    assert refused.value.outcome_unknown
    assert cloud.things(INTERFACE)
    assert cloud.things(ADDRESS)


def test_a_second_launch_with_one_token_finds_the_first(
    cloud: Cloud, azure: Azure, offer: Offer, key: Identity
) -> None:
    spec = a_spec(key, expires_at=datetime.now(UTC) + timedelta(hours=1))
    first = azure.launch(offer, spec)
    again = azure.launch(offer, replace(spec, expires_at=datetime.now(UTC) + timedelta(hours=2)))
    assert again.ref == first.ref
    assert len(cloud.instances()) == 1


def test_two_processes_with_one_token_make_one_machine(
    cloud: Cloud, make: Callable[..., Azure], azure: Azure, offer: Offer, key: Identity
) -> None:
    spec: LaunchSpec = a_spec(key, host_key=new_key_pair())
    other: list[Instance] = []

    def meanwhile() -> None:
        other.append(make().launch(offer, replace(spec, host_key=new_key_pair())))

    cloud.hooks["PUT", "virtualmachines"] = meanwhile
    instance = azure.launch(offer, spec)
    assert [each.ref for each in other] == [instance.ref]
    assert len(cloud.instances()) == 1


def test_a_token_that_is_no_name_for_azure_is_found_again_all_the_same(
    launch: Launch, azure: Azure, offer: Offer
) -> None:
    token = "Odd token / with_everything" * 5
    instance = launch(offer, token=token)
    (found,) = azure.instances()
    assert (found.ref, found.token) == (instance.ref, token)
    assert {resource.token for resource in azure.side_resources()} == {token}


def test_a_size_that_is_not_in_the_region_is_no_capacity(launch: Launch, offer: Offer) -> None:
    with pytest.raises(NoCapacity):
        launch(replace(offer, instance_type="Standard_NC1_v9", gpu=Gpu("H100")))


# -- what goes on afterwards -----------------------------------------------------------------------


def test_a_machine_that_was_powered_off_from_within_is_not_stopped_because_it_bills(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer, caplog: pytest.LogCaptureFixture
) -> None:
    instance = launch(offer)
    assert azure.get(instance.ref).state is InstanceState.RUNNING
    cloud.power(instance.ref.id, "powerOff")
    assert azure.get(instance.ref).state is InstanceState.UNKNOWN
    assert "bills in full" in caplog.text
    assert any(billed.lower() == instance.ref.id.lower() for billed in cloud.billing())
    azure.stop(instance.ref)
    assert azure.get(instance.ref).state is InstanceState.STOPPED
    assert all(billed.lower() != instance.ref.id.lower() for billed in cloud.billing())


def test_a_machine_that_cannot_be_started_again_stays_stopped(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    instance = launch(offer)
    azure.stop(instance.ref)
    cloud.out_of(A100, "eastus")
    with pytest.raises(NoCapacity):
        azure.start(instance.ref)
    assert azure.get(instance.ref).state is InstanceState.STOPPED
    cloud.back_in(A100, "eastus")
    azure.start(instance.ref)
    assert azure.get(instance.ref).state is InstanceState.RUNNING


def test_other_people_s_machines_are_not_listed(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    instance = launch(offer)
    (machine,) = cloud.instances()
    cloud.put_by_others(MACHINE, "theirs", "database", {**machine.body, "tags": {"app": "shop"}})
    assert [each.ref for each in azure.instances()] == [instance.ref]


def test_all_pages_of_a_listing_are_read(cloud: Cloud, launch: Launch, azure: Azure, offer: Offer) -> None:
    instance = launch(offer, token="zz-last")
    (machine,) = cloud.instances()
    for number in range(60):
        cloud.put_by_others(MACHINE, "theirs", f"db-{number}", {**machine.body, "tags": {}})
    assert [each.ref for each in azure.instances()] == [instance.ref]


def test_machines_in_other_groups_and_regions_are_listed_too(
    launch: Launch, make: Callable[..., Azure], offer: Offer, azure: Azure, key: Identity
) -> None:
    here = launch(offer)
    elsewhere = make(resource_group="Other")
    there = elsewhere.launch(replace(offer, region="westeurope"), a_spec(key))
    assert {each.ref for each in make(regions="eastus").instances()} == {here.ref, there.ref}
    azure.terminate(there.ref)
    assert azure.get(there.ref).state is InstanceState.TERMINATING


def test_a_listing_of_which_a_part_is_refused_is_no_listing(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    launch(offer)
    cloud.refuse("GET", "publicipaddresses/gc-", Refusal(403, "AuthorizationFailed", "You may not."))
    with pytest.raises(ProviderError):
        list(azure.instances())


def test_a_machine_that_the_listing_does_not_have_yet_can_be_asked_for(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    cloud.listing_lag = 1
    instance = launch(offer)
    assert list(azure.instances()) == []
    assert azure.get(instance.ref).ref == instance.ref
    assert [each.ref for each in azure.instances()] == [instance.ref]


# -- nodes -----------------------------------------------------------------------------------------


def test_nodes_are_placed_close_together_and_the_last_takes_the_group_away(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    nodes = [launch(offer, rank=rank, group="train-1", nodes=2) for rank in range(2)]
    (placement,) = cloud.things(PLACEMENT)
    assert placement.name == "gpucloud-train-1"
    placed = [properties(machine)["proximityPlacementGroup"]["id"] for machine in cloud.instances()]
    assert {each.lower() for each in placed} == {placement.id.lower()}
    for node in nodes:
        azure.terminate(node.ref)
        assert len(cloud.things(PLACEMENT)) == 1
        assert azure.get(node.ref).state is InstanceState.TERMINATING
        azure.terminate(node.ref)
        with pytest.raises(NotFound):
            azure.get(node.ref)
        azure.terminate(node.ref)
    assert cloud.things(PLACEMENT) == []


def test_nodes_know_each_other_s_addresses_in_their_network(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    nodes = [azure.get(launch(offer, rank=rank, group="train-1", nodes=2).ref) for rank in range(2)]
    inside = [node.ssh.inside for node in nodes if node.ssh]
    told = [
        part["properties"]["privateIPAddress"]
        for each in cloud.things(INTERFACE)
        for part in each.properties["ipConfigurations"]
    ]
    assert sorted(map(str, inside)) == sorted(told)
    assert len(set(told)) == 2


def test_a_single_node_needs_no_placement_group(cloud: Cloud, launch: Launch, offer: Offer) -> None:
    launch(offer)
    assert cloud.things(PLACEMENT) == []


def test_a_placement_group_that_is_left_is_cleaned_up(
    cloud: Cloud, launch: Launch, azure: Azure, offer: Offer
) -> None:
    node = launch(offer, group="train-1", nodes=2)
    azure.terminate(node.ref)
    assert azure.get(node.ref).state is InstanceState.TERMINATING
    assert list(azure.instances()) == []
    for resource in azure.shared_resources():
        azure.remove_shared(resource)
    assert cloud.things(PLACEMENT) == []
