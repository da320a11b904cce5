"""Several machines at Google whose GPUs reach each other, and the networks that this takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from typing import Any, Final

import pytest

from gpucloud.errors import Rejected, Unreachable
from gpucloud.model import InstanceRef, Offer
from gpucloud.parallel import results, run_all
from gpucloud_gcp import Gcp
from gpucloud_gcp.fabric import KINDS
from tests.harness.gcp import Google, Project
from tests.harness.gcp.shelf import image, machine
from tests.providers.gcp.conftest import MakeAdapter, MakeSpec

FindOffer = Callable[..., Offer]
ZONE = "us-central1-b"
RDMA, SECOND = f"gpucloud-rdma-{ZONE}", "gpucloud-second-us-central1"
NETWORKS = ["gpucloud", RDMA, SECOND]
GPU = [f"gpucloud-gpu-{number}" for number in range(8)]
OTHERS = (
    machine("a3-highgpu-8g", 208, 1872, "nvidia-h100-80gb", 8, ssds=16),
    machine("a3-ultragpu-8g", 224, 2952, "nvidia-h200-141gb", 8, ssds=32),
    machine("a3-megagpu-8g", 208, 1872, "nvidia-h100-mega-80gb", 8, ssds=16),
    machine("a4x-highgpu-4g", 140, 884, "nvidia-gb200", 4, ssds=4, arm=True),
    machine("a4x-maxgpu-4g-metal", 144, 960, "nvidia-gb300", 4, ssds=4, arm=True),
)
Launch = Callable[..., InstanceRef]

REGIONS: Final = (
    *("africa-south1", "asia-east1", "asia-east2", "asia-northeast1", "asia-northeast2", "asia-northeast3"),
    *("asia-south1", "asia-south2", "asia-southeast1", "asia-southeast2", "asia-southeast3"),
    *("australia-southeast1", "australia-southeast2", "europe-central2", "europe-north1", "europe-north2"),
    *("europe-southwest1", "europe-west1", "europe-west10", "europe-west12", "europe-west2"),
    *("europe-west3", "europe-west4", "europe-west6", "europe-west8", "europe-west9", "me-central1"),
    *("me-central2", "me-west1", "northamerica-northeast1", "northamerica-northeast2"),
    *("northamerica-south1", "southamerica-east1", "southamerica-west1", "us-central1", "us-central2"),
    *("us-east1", "us-east4", "us-east5", "us-east7", "us-south1", "us-west1", "us-west2", "us-west3"),
    *("us-west4", "us-west8"),
)
"""Google's regions, and some that are not for everybody."""


@pytest.fixture
def a4(offer: FindOffer) -> Offer:
    return offer("a4-highgpu-8g", ZONE)


@pytest.fixture
def launch(gcp: Gcp, a4: Offer, spec: MakeSpec, project: Project) -> Launch:
    """``launch(machine_type, nodes)`` launches the first of a group in the zone."""
    project.machines[ZONE] += OTHERS

    def launch(machine_type: str = "a4-highgpu-8g", nodes: int = 2, **given: Any) -> InstanceRef:
        a4.instance_type = machine_type
        group = "group-1" if nodes > 1 else None
        return gcp.launch(a4, spec(nodes=nodes, group=group, **given)).ref

    return launch


def cards(project: Project, made: InstanceRef) -> list[tuple[str, str, str]]:
    """The type, the network and the subnet of each card of an instance."""
    return [
        (
            card.get("nicType", ""),
            card["network"].rpartition("/")[2],
            card.get("subnetwork", "").rpartition("/")[2],
        )
        for card in project.row(made.id)["networkInterfaces"]
    ]


@pytest.mark.parametrize(
    ("machine_type", "number"), [("a4-highgpu-8g", 8), ("a3-ultragpu-8g", 8), ("a4x-highgpu-4g", 4)]
)
def test_each_gpu_of_several_machines_has_a_card_for_rdma(
    launch: Launch, project: Project, machine_type: str, number: int
) -> None:
    made = launch(machine_type)
    assert cards(project, made) == [
        ("GVNIC", "gpucloud", ""),
        ("GVNIC", SECOND, SECOND),
        *(("MRDMA", RDMA, f"{RDMA}-{rank}") for rank in range(number)),
    ]
    first, *others = project.row(made.id)["networkInterfaces"]
    assert first["accessConfigs"]
    assert not any("accessConfigs" in card for card in others)


@pytest.mark.parametrize(("machine_type", "number"), [("a3-highgpu-8g", 4), ("a3-megagpu-8g", 8)])
def test_several_machines_have_a_card_for_tcpx_in_each_of_its_networks(
    launch: Launch, project: Project, machine_type: str, number: int
) -> None:
    made = launch(machine_type)
    assert cards(project, made) == [
        ("GVNIC", "gpucloud", ""),
        *(("GVNIC", network, f"{network}-us-central1") for network in GPU[:number]),
    ]
    first, *others = project.row(made.id)["networkInterfaces"]
    assert first["accessConfigs"]
    assert not any("accessConfigs" in card for card in others)
    assert project.networks == ["gpucloud", *GPU[:number]]


@pytest.mark.parametrize(
    ("machine_type", "nodes", "kind"),
    [
        ("a4-highgpu-8g", 1, ""),
        ("a3-highgpu-8g", 1, ""),
        ("a3-megagpu-8g", 1, ""),
        ("a4x-maxgpu-4g-metal", 2, "GVNIC"),
    ],
)
def test_others_have_one_card_as_before(
    launch: Launch, project: Project, server_of_google: Google, machine_type: str, nodes: int, kind: str
) -> None:
    assert cards(project, launch(machine_type, nodes)) == [(kind, "gpucloud", "")]
    assert project.networks == ["gpucloud"]
    assert server_of_google.asked("compute.subnetworks.list") == []


def test_the_networks_are_made_once_for_all_nodes(
    launch: Launch, project: Project, server_of_google: Google
) -> None:
    made = [launch(rank=rank) for rank in range(2)]
    assert project.networks == NETWORKS
    assert len(server_of_google.asked("compute.networks.insert")) == 3
    assert len(server_of_google.asked("compute.subnetworks.insert")) == 9
    assert cards(project, made[0]) == cards(project, made[1])


def test_the_networks_are_those_that_google_wants(launch: Launch, project: Project) -> None:
    launch()
    rdma, second = project.network(RDMA), project.network(SECOND)
    assert rdma["networkProfile"] == f"projects/acme/global/networkProfiles/{ZONE}-vpc-roce"
    assert (rdma["autoCreateSubnetworks"], second["autoCreateSubnetworks"]) == (False, False)
    assert second["mtu"] == 8896
    assert sorted(project.subnets) == [*(f"{RDMA}-{rank}" for rank in range(8)), SECOND]
    assert {row["description"] for row in (rdma, second, *project.subnets.values())} == {"gpucloud=shared"}
    # Room for more machines than Google reserves in one go.
    assert min(ip_network(row["ipCidrRange"]).num_addresses for row in project.subnets.values()) == 2**16


def test_the_networks_for_tcpx_are_those_that_google_wants(launch: Launch, project: Project) -> None:
    launch("a3-megagpu-8g")
    rows = [project.network(name) for name in GPU]
    assert {(row["mtu"], row["autoCreateSubnetworks"], row["description"]) for row in rows} == {
        (8244, False, "gpucloud=shared")
    }
    assert sorted(project.subnets) == [f"{name}-us-central1" for name in GPU]
    assert {row["description"] for row in project.subnets.values()} == {"gpucloud=shared"}
    assert min(ip_network(row["ipCidrRange"]).num_addresses for row in project.subnets.values()) == 2**9


def test_no_two_subnets_for_tcpx_overlap_wherever_they_are() -> None:
    kind = KINDS["a3-megagpu-8g"]
    networks = [network for region in REGIONS for network in kind.networks("acme", f"{region}-a", kind.cards)]
    ranges = [ip_network(one) for network in networks for one in network.subnets.values()]
    assert len(set(ranges)) == len(REGIONS) * 8
    assert {one.prefixlen for one in ranges} == {23}
    # The first card of each machine is in the other half.
    assert not any(one.overlaps(ip_network("10.128.0.0/9")) for one in ranges)
    assert all(one.is_private for one in ranges)


def test_both_kinds_of_machines_and_all_regions_share_the_networks_for_tcpx(
    launch: Launch, gcp: Gcp, a4: Offer, spec: MakeSpec, project: Project, server_of_google: Google
) -> None:
    launch("a3-highgpu-8g")
    launch("a3-megagpu-8g")
    project.machines["europe-west4-a"] += OTHERS
    a4.zone = "europe-west4-a"
    made = gcp.launch(a4, spec(nodes=2, group="group-2")).ref
    assert cards(project, made)[1:] == [("GVNIC", name, f"{name}-europe-west4") for name in GPU]
    assert project.networks == ["gpucloud", *GPU]
    assert len(server_of_google.asked("compute.networks.insert")) == 9
    assert len(project.subnets) == 16


@pytest.mark.parametrize(
    ("machine_type", "networks"),
    [("a4-highgpu-8g", [SECOND]), ("a3-highgpu-8g", GPU[:4]), ("a3-megagpu-8g", GPU)],
)
def test_nobody_outside_gets_into_them(
    launch: Launch, project: Project, machine_type: str, networks: list[str]
) -> None:
    made = launch(machine_type, ssh_from=("203.0.113.7/32",))
    rules = {name: rule["network"].rpartition("/")[2] for name, rule in project.firewalls.items()}
    assert sorted(name for name, network in rules.items() if network != "gpucloud") == networks
    for name in networks:
        rule = project.firewalls[name]
        assert rules[name] == name
        assert (rule["sourceTags"], rule["targetTags"]) == (["gpucloud-nodes"], [name])
        assert "sourceRanges" not in rule
    assert {"gpucloud-nodes", *networks} < set(project.row(made.id)["tags"]["items"])


def test_a_second_zone_of_the_region_shares_the_ordinary_network(
    launch: Launch, gcp: Gcp, a4: Offer, spec: MakeSpec, project: Project
) -> None:
    launch()
    project.machines["us-central1-a"] += [machine("a4-highgpu-8g", 224, 3968, "nvidia-b200", 8, ssds=32)]
    a4.zone = "us-central1-a"
    made = gcp.launch(a4, spec(nodes=2, group="group-2")).ref
    assert {network for _, network, _ in cards(project, made)} == {
        "gpucloud",
        "gpucloud-rdma-us-central1-a",
        SECOND,
    }


@pytest.mark.parametrize(
    ("machine_type", "subnet", "number", "networks"),
    [("a4-highgpu-8g", f"{RDMA}-5", 10, 3), ("a3-megagpu-8g", f"{GPU[5]}-us-central1", 9, 9)],
)
def test_what_a_process_has_left_half_made_is_completed(
    launch: Launch,
    gcp: Gcp,
    project: Project,
    server_of_google: Google,
    machine_type: str,
    subnet: str,
    number: int,
    networks: int,
) -> None:
    gcp.terminate(launch(machine_type))
    assert list(gcp.instances()) == []
    (lost,) = [one for one in gcp.shared_resources() if one.ref.id == subnet]
    gcp.remove_shared(lost)
    assert subnet not in project.subnets
    assert len(cards(project, launch(machine_type))) == number
    assert len(server_of_google.asked("compute.networks.insert")) == networks


@pytest.mark.parametrize(
    ("machine_type", "number", "networks", "subnets"),
    [("a4-highgpu-8g", 10, NETWORKS, 9), ("a3-megagpu-8g", 9, ["gpucloud", *GPU], 8)],
)
def test_several_processes_may_make_them_at_once(
    adapter: MakeAdapter,
    a4: Offer,
    spec: MakeSpec,
    project: Project,
    machine_type: str,
    number: int,
    networks: list[str],
    subnets: int,
) -> None:
    project.machines[ZONE] += OTHERS
    a4.instance_type = machine_type
    project.limits["", "NETWORKS"] = len(networks)
    project.slow = 3
    at_once = threading.Barrier(2, timeout=20)

    def launch(gcp: Gcp, rank: int) -> InstanceRef:
        at_once.wait()
        return gcp.launch(a4, spec(nodes=2, group="group-1", rank=rank)).ref

    made = results(run_all({rank: partial(launch, adapter(), rank) for rank in range(2)}))
    assert [len(cards(project, one)) for one in made.values()] == [number, number]
    assert (project.networks, len(project.subnets)) == (networks, subnets)


@pytest.mark.parametrize(
    ("machine_type", "rules", "subnets", "networks"),
    [("a4-highgpu-8g", 3, 9, 3), ("a3-megagpu-8g", 10, 8, 9)],
)
def test_they_are_removed_when_nothing_uses_them(
    launch: Launch, gcp: Gcp, project: Project, machine_type: str, rules: int, subnets: int, networks: int
) -> None:
    made = launch(machine_type, ssh_from=("203.0.113.7/32",))
    shared = list(gcp.shared_resources())
    kinds = [*["firewall rule"] * rules, *["subnet"] * subnets, *["network"] * networks]
    assert [one.kind for one in shared] == kinds
    for resource in shared:
        with pytest.raises(Rejected, match="in use") as caught:
            gcp.remove_shared(resource)
        assert made.id in caught.value.why
    gcp.terminate(made)
    assert list(gcp.instances()) == []
    project.slow = 3
    for resource in [*shared, *shared]:
        gcp.remove_shared(resource)
    assert (project.networks, project.subnets, project.firewalls) == ([], {}, {})
    assert list(gcp.shared_resources()) == []


def test_those_that_one_machine_does_not_use_can_be_removed(
    launch: Launch, gcp: Gcp, project: Project
) -> None:
    gcp.terminate(launch())
    assert list(gcp.instances()) == []
    launch("a4-highgpu-8g", 1)
    for resource in gcp.shared_resources():
        if resource.ref.id.startswith((RDMA, SECOND)):
            gcp.remove_shared(resource)
    assert (project.networks, project.subnets) == (["gpucloud"], {})


def no_permission_for_networks(project: Project) -> None:
    project.forbidden = {"compute.networks.insert"}


def no_permission_for_subnets(project: Project) -> None:
    project.forbidden = {"compute.subnetworks.insert"}


def no_permission_to_look(project: Project) -> None:
    project.forbidden = {"compute.subnetworks.list"}


def no_more_networks(project: Project) -> None:
    project.limits["", "NETWORKS"] = 2


def no_more_networks_without_a_word(project: Project) -> None:
    no_more_networks(project)
    project.forbidden = {"compute.projects.get"}


def no_profile(project: Project) -> None:
    project.profiles.clear()


SPOILT: Final = [
    (no_permission_for_networks, "compute.networks.insert", "it takes the roles Compute Network Admin"),
    (no_permission_for_subnets, "compute.subnetworks.insert", "it takes the roles Compute Network Admin"),
    (no_permission_to_look, "compute.subnetworks.list", "it takes the roles Compute Network Admin"),
    (no_more_networks, "1 of 2 used", "raise it at https://console.cloud.google.com/iam-admin/quotas"),
    (no_more_networks_without_a_word, "Quota 'NETWORKS' exceeded", "raise it at https://console"),
]


@pytest.mark.parametrize(
    ("machine_type", "name", "spoil", "why", "remedy"),
    [
        *(("a4-highgpu-8g", "RDMA", *spoilt) for spoilt in SPOILT),
        ("a4-highgpu-8g", "RDMA", no_profile, f"networkProfiles/{ZONE}-vpc-roce' was not found", ")"),
        *(("a3-highgpu-8g", "GPUDirect-TCPX", *spoilt) for spoilt in SPOILT),
        *(("a3-megagpu-8g", "GPUDirect-TCPXO", *spoilt) for spoilt in SPOILT),
    ],
)
def test_without_those_networks_the_launch_goes_on_and_says_so(
    launch: Launch,
    project: Project,
    caplog: pytest.LogCaptureFixture,
    machine_type: str,
    name: str,
    spoil: Callable[[Project], None],
    why: str,
    remedy: str,
) -> None:
    launch(machine_type, 1)
    spoil(project)
    with caplog.at_level(logging.WARNING, "gpucloud_gcp"):
        made = launch(machine_type)
    assert cards(project, made) == [("GVNIC", "gpucloud", "")]
    assert not {SECOND, *GPU} & set(project.row(made.id)["tags"]["items"])
    (line,) = caplog.messages
    assert line.startswith(f"gcp: no {name} between the nodes, for its networks in {ZONE} cannot be made")
    assert why in line
    assert remedy in line.partition(why)[2]


@pytest.mark.parametrize(
    ("machine_type", "spoil"),
    [
        ("a4-highgpu-8g", no_profile),
        ("a4-highgpu-8g", no_more_networks),
        ("a3-megagpu-8g", no_more_networks),
    ],
)
def test_where_they_cannot_all_be_made_none_is_left(
    launch: Launch, project: Project, machine_type: str, spoil: Callable[[Project], None]
) -> None:
    spoil(project)
    launch(machine_type)
    assert (project.networks, project.subnets) == (["gpucloud"], {})


def test_networks_that_are_there_already_take_no_more_of_the_quota(
    launch: Launch, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    project.images[project.name] = [image("tcpxo", "2026-10-01")]
    launch("a3-highgpu-8g")
    project.limits["", "NETWORKS"] = 9
    caplog.clear()
    assert len(cards(project, launch("a3-megagpu-8g", image="family/tcpxo"))) == 9
    assert caplog.messages == []


def test_other_networks_count_for_the_quota(
    launch: Launch, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    launch("a4-highgpu-8g")
    project.limits["", "NETWORKS"] = 10
    assert len(cards(project, launch("a3-megagpu-8g"))) == 1
    assert "the quota NETWORKS does not suffice (3 of 10 used, 8 wanted)" in caplog.text
    assert len(cards(project, launch("a3-highgpu-8g"))) == 5
    assert project.networks == sorted([*NETWORKS, *GPU[:4]])


def test_that_tcpx_takes_more_than_cards_is_said_once_for_all_nodes(
    launch: Launch, project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    for rank in range(2):
        launch("a3-megagpu-8g", rank=rank)
        launch("a4-highgpu-8g", rank=rank)
    (line,) = caplog.messages
    assert line.startswith("gcp: GPUDirect-TCPXO between the nodes takes a plugin of NCCL and a daemon, too")


def test_a_failure_that_may_pass_is_no_reason_to_do_without(
    adapter: MakeAdapter, a4: Offer, spec: MakeSpec, project: Project
) -> None:
    project.throttling = 503, "backendError"
    project.throttled = {"compute.subnetworks.insert": 10**6}
    with pytest.raises(Unreachable):
        adapter(patience_s=0.1).launch(a4, spec(nodes=2, group="group-1"))
    assert project.instances() == []
