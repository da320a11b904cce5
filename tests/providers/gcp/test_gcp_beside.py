"""What is beside instances at Google: networks, rules, disks, placement policies, and other people's."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gpucloud.errors import NotFound, Rejected, Unreachable
from gpucloud.model import InstanceRef, Offer
from gpucloud.parallel import results, run_all
from gpucloud.provider import Advises, HasSideResources, KeepsShared, MovesExpiry, ProviderSettings, Stops
from gpucloud.registry import load
from gpucloud_gcp import Gcp
from tests.harness.gcp import Google, Project
from tests.providers.gcp.conftest import MakeAdapter, MakeSpec

FindOffer = Callable[..., Offer]


def test_it_has_the_abilities_that_google_gives(gcp: Gcp) -> None:
    for ability in Stops, HasSideResources, KeepsShared, Advises:
        assert isinstance(gcp, ability)
    # A lease cannot be moved while the instance runs.
    assert not isinstance(gcp, MovesExpiry)


class TestNetwork:
    def test_ssh_is_open_to_whom_the_launch_names(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        made = gcp.launch(offer(), spec(ssh_from=("203.0.113.7/32", "2001:db8::/64")))
        assert project.networks == ["gpucloud"]
        rules = project.firewalls
        assert sorted(rule["sourceRanges"][0] for rule in rules.values()) == [
            "2001:db8::/64",
            "203.0.113.7/32",
        ]
        for name, rule in rules.items():
            assert rule["allowed"] == [{"IPProtocol": "tcp", "ports": ["22"]}]
            assert (rule["direction"], rule["targetTags"]) == ("INGRESS", [name])
            assert rule["description"] == "gpucloud=shared"
        assert project.row(made.ref.id)["tags"]["items"] == sorted(rules)

    def test_who_is_admitted_later_gets_in_beside_the_others(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        made = gcp.launch(offer(), spec(ssh_from=("203.0.113.7/32",)))
        before = project.row(made.ref.id)["tags"]["items"]
        gcp.admit(made.ref, ("203.0.113.8/32",))
        (added,) = set(project.row(made.ref.id)["tags"]["items"]) - set(before)
        assert project.firewalls[added]["sourceRanges"] == ["203.0.113.8/32"]
        assert set(before) < set(project.row(made.ref.id)["tags"]["items"])

    def test_without_names_it_is_open_to_everybody(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        gcp.launch(offer(), spec())
        sources = sorted(rule["sourceRanges"][0] for rule in project.firewalls.values())
        assert sources == ["0.0.0.0/0", "::/0"]

    def test_a_machine_is_not_open_to_those_whom_another_launch_names(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        one = gcp.launch(offer(), spec(ssh_from=("203.0.113.7/32",)))
        other = gcp.launch(offer(), spec(ssh_from=("203.0.113.8/32",)))
        tags = [set(project.row(made.ref.id)["tags"]["items"]) for made in (one, other)]
        assert len(tags[0]) == len(tags[1]) == 1
        assert not tags[0] & tags[1]

    def test_what_is_there_is_used_again_and_nothing_of_others_is_touched(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project, server_of_google: Google
    ) -> None:
        project.add_firewall("gpucloud-of-somebody", network="global/networks/other", description="mine")
        for _ in range(2):
            gcp.launch(offer(), spec(ssh_from=("203.0.113.7/32",)))
        assert len(server_of_google.asked("compute.networks.insert")) == 1
        assert len(server_of_google.asked("compute.firewalls.insert")) == 1
        assert "gpucloud-of-somebody" in project.firewalls
        assert "gpucloud-of-somebody" not in {one.ref.id for one in gcp.shared_resources()}

    def test_two_processes_may_make_it_at_once(
        self, adapter: MakeAdapter, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        project.slow, offered = 3, offer()
        at_once = threading.Barrier(3, timeout=20)

        def launch(gcp: Gcp) -> InstanceRef:
            at_once.wait()
            return gcp.launch(offered, spec(ssh_from=("203.0.113.7/32",))).ref

        made = results(run_all({number: partial(launch, adapter()) for number in range(3)}))
        assert len(set(made.values())) == 3
        assert (project.networks, len(project.firewalls)) == (["gpucloud"], 1)

    def test_it_is_removed_when_nothing_uses_it(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        made = gcp.launch(offer(), spec())
        shared = list(gcp.shared_resources())
        assert [one.kind for one in shared] == ["firewall rule", "firewall rule", "network"]
        assert {one.token for one in shared} == {None}
        for resource in shared:
            with pytest.raises(Rejected, match="in use") as caught:
                gcp.remove_shared(resource)
            assert made.ref.id in caught.value.why
        gcp.terminate(made.ref)
        assert list(gcp.instances()) == []
        for resource in [*shared, *shared]:
            gcp.remove_shared(resource)
        assert (project.networks, project.firewalls) == ([], {})
        assert list(gcp.shared_resources()) == []

    def test_a_network_that_somebody_else_uses_stays(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        made = gcp.launch(offer(), spec())
        gcp.terminate(made.ref)
        assert list(gcp.instances()) == []
        project.add_firewall("of-somebody", network="global/networks/gpucloud")
        *rules, network = gcp.shared_resources()
        for rule in rules:
            gcp.remove_shared(rule)
        with pytest.raises(Rejected):
            gcp.remove_shared(network)
        assert project.networks == ["gpucloud"]


class TestGroups:
    def test_machines_that_are_rented_together_are_placed_together(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        offered = offer("a3-highgpu-8g")
        nodes = [gcp.launch(offered, spec(group="group-1", nodes=2, rank=rank)) for rank in range(2)]
        (policy,) = project.policies
        for node in nodes:
            row = project.row(node.ref.id)
            assert [link.rpartition("/")[2] for link in row["resourcePolicies"]] == [policy]
            assert row["networkInterfaces"][0]["nicType"] == "GVNIC"
            assert "gpucloud-nodes" in row["tags"]["items"]
        rule = project.firewalls["gpucloud-nodes"]
        assert (rule["sourceTags"], rule["targetTags"]) == (["gpucloud-nodes"], ["gpucloud-nodes"])

    def test_their_policy_goes_with_the_last_of_them(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        offered = offer("a3-highgpu-8g")
        specs = [spec(group="group-1", nodes=2, rank=rank) for rank in range(2)]
        first, last = (gcp.launch(offered, one).ref for one in specs)
        gcp.terminate(first)
        assert len(list(gcp.instances())) == 1
        assert {one.kind for one in gcp.side_resources()} == {"disk"}
        gcp.terminate(last)
        assert list(gcp.instances()) == []
        beside = [one for one in gcp.side_resources() if one.token == specs[1].token]
        assert [one.kind for one in beside] == ["placement policy"]
        for resource in [*beside, *beside]:
            gcp.remove(resource)
        assert project.policies == []
        assert list(gcp.side_resources()) == []

    def test_a_policy_that_was_left_is_known_by_the_one_who_made_it(
        self, adapter: MakeAdapter, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        wanted = spec(group="group-1", nodes=2)
        made = adapter().launch(offer("a3-highgpu-8g"), wanted)
        adapter().terminate(made.ref)
        gcp = adapter()
        assert list(gcp.instances()) == []
        (left,) = gcp.side_resources()
        assert (left.kind, left.token, left.owner) == ("placement policy", wanted.token, wanted.owner)
        gcp.remove(left)
        assert project.policies == []

    @pytest.mark.parametrize(
        ("machine", "given"),
        [
            ("a3-highgpu-8g", {"group": None, "nodes": 1}),
            ("n1-standard-8+nvidia-tesla-t4", {"group": "group-1", "nodes": 2}),
        ],
    )
    def test_others_have_no_policy(
        self,
        gcp: Gcp,
        offer: FindOffer,
        spec: MakeSpec,
        project: Project,
        machine: str,
        given: dict[str, object],
    ) -> None:
        gcp.launch(offer(machine), spec(**given))
        assert project.policies == []


class TestListing:
    def test_instances_of_others_are_not_ours(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        project.add_machine("database", "us-central1-a", labels={"owner": "bob"})
        made = gcp.launch(offer(), spec())
        assert [one.ref for one in gcp.instances()] == [made.ref]

    def test_an_instance_whose_metadata_was_taken_away_is_known_by_its_labels(
        self, gcp: Gcp, project: Project
    ) -> None:
        labels = {"gpucloud-token": "gc-1", "gpucloud-owner": "anna", "gpucloud-rank": "x"}
        project.add_machine("left", "us-central1-a", labels=labels)
        (found,) = gcp.instances()
        assert (found.token, found.owner, found.rank) == ("gc-1", "anna", None)

    def test_regions_that_are_not_offered_are_listed_too(
        self, adapter: MakeAdapter, offer: FindOffer, spec: MakeSpec
    ) -> None:
        made = adapter().launch(offer(), spec())
        assert [one.ref for one in adapter(regions=["europe-west4"]).instances()] == [made.ref]

    def test_a_zone_that_does_not_answer_is_no_silence(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        gcp.launch(offer(), spec())
        project.unreachable = {"us-central1-b"}
        with pytest.raises(Unreachable) as caught:
            list(gcp.instances())
        assert "zones/us-central1-b" in caught.value.why
        with pytest.raises(Unreachable):
            list(gcp.side_resources())

    def test_many_are_all_listed(self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project) -> None:
        offered = [offer(), offer(zone="us-central1-b")]
        made = {gcp.launch(each, spec()).ref for each in (*offered, *offered)}
        project.page = 1
        assert {one.ref for one in gcp.instances()} == made

    def test_a_disk_that_a_machine_uses_stays_and_is_listed(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
    ) -> None:
        made = gcp.launch(offer(), spec())
        (disk,) = gcp.side_resources()
        gcp.remove(disk)
        assert list(gcp.side_resources()) == [disk]
        gcp.remove(replace(disk, ref=InstanceRef("no-such-disk", "us-central1-a")))
        gcp.terminate(made.ref)
        assert list(gcp.instances()) == []
        assert project.billing() == []


class TestLogin:
    @pytest.mark.parametrize(("table", "configured"), [({}, False), ({"project": "acme"}, True)])
    def test_without_a_file_the_settings_decide(
        self, tmp_path: Path, table: dict[str, str], configured: bool
    ) -> None:
        settings = ProviderSettings("gcp", tmp_path, table=table, environ={"HOME": str(tmp_path)})
        assert Gcp.configured(settings) is configured

    def test_google_s_own_login_counts(self, tmp_path: Path) -> None:
        folder = tmp_path / ".config" / "gcloud"
        folder.mkdir(parents=True)
        (folder / "application_default_credentials.json").write_text("{}")
        assert Gcp.configured(ProviderSettings("gcp", tmp_path, environ={"HOME": str(tmp_path)}))

    def test_a_token_is_renewed_when_its_time_is_over(
        self, gcp: Gcp, project: Project, server_of_google: Google
    ) -> None:
        list(gcp.instances())
        assert server_of_google.tokens == 1
        list(gcp.instances())
        assert server_of_google.tokens == 1
        gcp._account.who.credentials.expiry = project.clock().replace(tzinfo=None)
        list(gcp.instances())
        assert server_of_google.tokens == 2


LOOKS = """
import sys
from pathlib import Path
from gpucloud.errors import NotFound
from gpucloud.model import InstanceRef, Requirements
from gpucloud.provider import ProviderSettings
from gpucloud_gcp import Gcp
file, url = sys.argv[1:]
settings = ProviderSettings(
    "gcp",
    Path(file).parent,
    table={"endpoint_url": url, "billing_url": url},
    environ={"GOOGLE_APPLICATION_CREDENTIALS": file},
)
assert Gcp.configured(settings)
heavy = {"httpx", "pydantic", "google"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
gcp = Gcp(settings)
assert list(gcp.offers(Requirements(markets=())))
assert len(list(gcp.instances())) == 1
assert list(gcp.side_resources())
gcp.get(gcp.instances()[0].ref)
gcp.terminate(InstanceRef("gone", "us-central1-a"))
gcp.terminate(InstanceRef("gone"))
assert not [name for name in sys.modules if name.startswith("google.cloud")]
"""


def test_looking_never_loads_the_sdk(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, server_of_google: Google, tmp_path: Path
) -> None:
    gcp.launch(offer(), spec())
    file = server_of_google.credentials(tmp_path / "login")
    words = [sys.executable, "-c", LOOKS, str(file), server_of_google.url]
    root = Path(__file__).resolve().parents[3]
    environ = {"PYTHONPATH": f"{root}:{root / 'providers'}"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_registry_loads_it() -> None:
    assert load("gcp") is Gcp


def test_who_knows_no_zone_is_told_that_there_is_none(gcp: Gcp) -> None:
    with pytest.raises(NotFound, match="knows no instance gone"):
        gcp.get(InstanceRef("gone"))
