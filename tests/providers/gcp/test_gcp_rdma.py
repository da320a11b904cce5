"""Several machines at Google whose GPUs reach each other, and the networks that this takes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from ipaddress import ip_network
from typing import Any

import pytest

from gpucloud.errors import Rejected, Unreachable
from gpucloud.model import InstanceRef, Offer
from gpucloud.parallel import results, run_all
from gpucloud_gcp import Gcp
from tests.harness.gcp import Google, Project
from tests.harness.gcp.shelf import machine
from tests.providers.gcp.conftest import MakeAdapter, MakeSpec

FindOffer = Callable[..., Offer]
ZONE = "us-central1-b"
RDMA, SECOND = f"gpucloud-rdma-{ZONE}", "gpucloud-second-us-central1"
NETWORKS = ["gpucloud", RDMA, SECOND]
OTHERS = (
    machine("a3-ultragpu-8g", 224, 2952, "nvidia-h200-141gb", 8, ssds=32),
    machine("a3-megagpu-8g", 208, 1872, "nvidia-h100-mega-80gb", 8, ssds=16),
    machine("a4x-highgpu-4g", 140, 884, "nvidia-gb200", 4, ssds=4, arm=True),
    machine("a4x-maxgpu-4g-metal", 144, 960, "nvidia-gb300", 4, ssds=4, arm=True),
)
Launch = Callable[..., InstanceRef]


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


@pytest.mark.parametrize(
    ("machine_type", "nodes", "kind"),
    [
        ("a4-highgpu-8g", 1, ""),
        ("a3-megagpu-8g", 2, "GVNIC"),
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


def test_nobody_outside_gets_into_them(launch: Launch, project: Project) -> None:
    made = launch(ssh_from=("203.0.113.7/32",))
    rules = {name: rule["network"].rpartition("/")[2] for name, rule in project.firewalls.items()}
    assert [name for name, network in rules.items() if network != "gpucloud"] == [SECOND]
    rule = project.firewalls[SECOND]
    assert (rule["sourceTags"], rule["targetTags"]) == (["gpucloud-nodes"], [SECOND])
    assert "sourceRanges" not in rule
    assert {"gpucloud-nodes", SECOND} < set(project.row(made.id)["tags"]["items"])


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


def test_what_a_process_has_left_half_made_is_completed(
    launch: Launch, gcp: Gcp, project: Project, server_of_google: Google
) -> None:
    gcp.terminate(launch())
    assert list(gcp.instances()) == []
    (lost,) = [one for one in gcp.shared_resources() if one.ref.id == f"{RDMA}-5"]
    gcp.remove_shared(lost)
    assert f"{RDMA}-5" not in project.subnets
    assert len(cards(project, launch())) == 10
    assert len(server_of_google.asked("compute.networks.insert")) == 3


def test_several_processes_may_make_them_at_once(
    adapter: MakeAdapter, a4: Offer, spec: MakeSpec, project: Project
) -> None:
    project.slow = 3
    at_once = threading.Barrier(2, timeout=20)

    def launch(gcp: Gcp, rank: int) -> InstanceRef:
        at_once.wait()
        return gcp.launch(a4, spec(nodes=2, group="group-1", rank=rank)).ref

    made = results(run_all({rank: partial(launch, adapter(), rank) for rank in range(2)}))
    assert [len(cards(project, one)) for one in made.values()] == [10, 10]
    assert (project.networks, len(project.subnets)) == (NETWORKS, 9)


def test_they_are_removed_when_nothing_uses_them(launch: Launch, gcp: Gcp, project: Project) -> None:
    made = launch(ssh_from=("203.0.113.7/32",))
    shared = list(gcp.shared_resources())
    assert [one.kind for one in shared] == [*["firewall rule"] * 3, *["subnet"] * 9, *["network"] * 3]
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
    project.limits["", "NETWORKS"] = 1


def no_profile(project: Project) -> None:
    project.profiles.clear()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (no_permission_for_networks, "compute.networks.insert"),
        (no_permission_for_subnets, "compute.subnetworks.insert"),
        (no_permission_to_look, "compute.subnetworks.list"),
        (no_more_networks, "Quota 'NETWORKS' exceeded"),
        (no_profile, f"networkProfiles/{ZONE}-vpc-roce' was not found"),
    ],
)
def test_without_those_networks_the_launch_goes_on_and_says_so(
    launch: Launch,
    project: Project,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Project], None],
    why: str,
) -> None:
    launch("a4-highgpu-8g", 1)
    spoil(project)
    with caplog.at_level(logging.WARNING, "gpucloud_gcp"):
        made = launch()
    assert cards(project, made) == [("GVNIC", "gpucloud", "")]
    assert SECOND not in project.row(made.id)["tags"]["items"]
    (line,) = caplog.messages
    assert line.startswith("gcp: no RDMA between the nodes")
    assert why in line
    assert ZONE in line


def test_where_there_is_no_rdma_no_network_is_left_for_it(launch: Launch, project: Project) -> None:
    no_profile(project)
    launch()
    assert (project.networks, project.subnets) == (["gpucloud"], {})


def test_a_failure_that_may_pass_is_no_reason_to_do_without(
    adapter: MakeAdapter, a4: Offer, spec: MakeSpec, project: Project
) -> None:
    project.throttling = 503, "backendError"
    project.throttled = {"compute.subnetworks.insert": 10**6}
    with pytest.raises(Unreachable):
        adapter(patience_s=0.1).launch(a4, spec(nodes=2, group="group-1"))
    assert project.instances() == []
