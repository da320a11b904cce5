"""What a launch asks Google for, and what it does when the answer is lost."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import BadReply, ProviderError, Rejected, Unreachable
from gpucloud.model import InstanceState, Market, Offer, Requirements, utcnow
from gpucloud.provider import HostKeyPair, LaunchSpec
from gpucloud_gcp import Gcp
from gpucloud_gcp.sdk import Place
from tests.harness.gcp import BootInfo, Google, Project, serving
from tests.harness.gcp.server import Wsgi
from tests.providers.gcp.conftest import MakeAdapter, MakeSpec, make_adapter

FindOffer = Callable[..., Offer]


@pytest.fixture
def launched(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, server_of_google: Google
) -> Callable[..., dict[str, Any]]:
    """``launched(offered, **given)`` is the body of the instance that was asked for."""

    def launch(offered: Offer | None = None, **given: Any) -> dict[str, Any]:
        gcp.launch(offered or offer(), spec(**given))
        body: dict[str, Any] = server_of_google.asked("compute.instances.insert")[-1]
        return body

    return launch


def metadata(body: dict[str, Any]) -> dict[str, str]:
    """What the machine is told."""
    return {item["key"]: item["value"] for item in body["metadata"]["items"]}


def test_the_machine_is_told_our_key_and_its_own(launched: Callable[..., dict[str, Any]]) -> None:
    pair = HostKeyPair("-----BEGIN-----", "ssh-ed25519 AAAAhost")
    told = metadata(launched(public_key="ssh-ed25519 AAAAours", host_key=pair))
    config = json.loads(told["user-data"].removeprefix("#cloud-config\n"))
    assert config["ssh_authorized_keys"] == ["ssh-ed25519 AAAAours"]
    assert config["ssh_keys"] == {"ed25519_private": pair.private, "ed25519_public": pair.public}
    assert told["block-project-ssh-keys"] == "TRUE"


def test_the_machine_is_told_nothing_of_the_project_s_credentials(
    launched: Callable[..., dict[str, Any]],
) -> None:
    body = launched()
    assert "serviceAccounts" not in body
    assert "ya29" not in json.dumps(body)


def test_tags_are_read_again_as_they_were_written(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, server_of_google: Google
) -> None:
    expires = (utcnow() + timedelta(hours=3)).replace(microsecond=0)
    wanted = spec(token="Token/1 of Anna", owner="Anna <anna@example.com>", rank=3, expires_at=expires)
    made = gcp.launch(offer(), wanted)
    (found,) = gcp.instances()
    assert (found.token, found.owner, found.cluster) == (wanted.token, wanted.owner, wanted.cluster)
    assert (found.rank, found.expires_at, found.ref) == (3, expires, made.ref)
    (body,) = server_of_google.asked("compute.instances.insert")
    assert body["labels"]["gpucloud-token"] == "token-1-of-anna"
    assert body["labels"]["gpucloud-owner"] == "anna--anna-example-com-"


def test_a_spot_machine_is_deleted_when_it_is_taken_back(
    launched: Callable[..., dict[str, Any]], offer: FindOffer
) -> None:
    assert launched(offer(market=Market.SPOT))["scheduling"] == {
        "provisioningModel": "SPOT",
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
        "instanceTerminationAction": "DELETE",
    }


def test_a_machine_on_demand_without_a_lease_has_no_end(launched: Callable[..., dict[str, Any]]) -> None:
    assert launched()["scheduling"] == {
        "provisioningModel": "STANDARD",
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
    }


@pytest.mark.parametrize(("lease", "least", "most"), [(3600, 3590, 3600), (1, 30, 30)])
def test_google_ends_the_machine_with_its_lease(
    launched: Callable[..., dict[str, Any]], lease: int, least: int, most: int
) -> None:
    told = launched(expires_at=utcnow() + timedelta(seconds=lease))["scheduling"]
    assert told["instanceTerminationAction"] == "DELETE"
    assert least <= int(told["maxRunDuration"]["seconds"]) <= most


def test_a_machine_whose_lease_is_over_is_gone(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    gcp.launch(offer(), spec(expires_at=utcnow() + timedelta(hours=1)))
    project.clock = lambda: utcnow() + timedelta(hours=2)
    assert list(gcp.instances()) == []
    assert project.billing() == []


def test_a_lease_that_google_cannot_keep_is_refused(gcp: Gcp, offer: FindOffer, spec: MakeSpec) -> None:
    with pytest.raises(Rejected, match="120 days") as caught:
        gcp.launch(offer(), spec(expires_at=utcnow() + timedelta(days=121)))
    assert caught.value.hint == "give it at most --max-duration 120d"


def test_the_disk_goes_with_the_machine_and_has_the_size_asked_for(
    launched: Callable[..., dict[str, Any]],
) -> None:
    (disk,) = launched(disk_gib=200)["disks"]
    assert (disk["boot"], disk["autoDelete"]) == (True, True)
    assert disk["initializeParams"]["diskSizeGb"] == "200"
    assert disk["initializeParams"]["labels"]["gpucloud-token"]


def image_of(body: dict[str, Any]) -> str:
    """The image that a machine starts from."""
    return str(body["disks"][0]["initializeParams"]["sourceImage"]).rpartition("/")[2]


def test_the_image_is_the_newest_with_the_latest_driver(launched: Callable[..., dict[str, Any]]) -> None:
    assert image_of(launched()) == "ubuntu-accelerator-2404-amd64-with-nvidia-580-v20261001"


@pytest.mark.parametrize(
    ("machine_type", "image"),
    [
        ("e2-standard-2", "ubuntu-2404-lts-amd64-v20261001"),
        ("c4a-standard-2", "ubuntu-2404-lts-arm64-v20261001"),
    ],
)
def test_a_machine_without_gpus_starts_from_plain_ubuntu_of_its_architecture(
    launched: Callable[..., dict[str, Any]], offer: FindOffer, machine_type: str, image: str
) -> None:
    plain = offer()
    plain.instance_type, plain.gpu, plain.gpu_count = machine_type, None, 0
    assert image_of(launched(plain)) == image


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("projects/mine/global/images/its-name", "projects/mine/global/images/its-name"),
        ("its-name", "projects/acme/global/images/its-name"),
        ("family/its-family", "projects/acme/global/images/family/its-family"),
    ],
)
def test_the_image_asked_for_is_used(
    launched: Callable[..., dict[str, Any]], project: Project, asked: str, used: str
) -> None:
    own = {"name": "its-name", "family": "its-family"}
    project.images |= {"mine": [own], "acme": [own]}
    assert launched(image=asked)["disks"][0]["initializeParams"]["sourceImage"] == used


def test_without_any_image_it_says_so(gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project) -> None:
    project.images.clear()
    with pytest.raises(Rejected, match="no image") as caught:
        gcp.launch(offer(), spec())
    assert "ubuntu-os-accelerator-images" in caught.value.why


def test_gpus_are_attached_to_n1(launched: Callable[..., dict[str, Any]], offer: FindOffer) -> None:
    body = launched(offer("n1-standard-8+nvidia-tesla-t4"))
    assert body["machineType"] == "zones/us-central1-a/machineTypes/n1-standard-8"
    link = "zones/us-central1-a/acceleratorTypes/nvidia-tesla-t4"
    assert body["guestAccelerators"] == [{"acceleratorType": link, "acceleratorCount": 1}]
    assert metadata(body)["gpucloud-type"] == "n1-standard-8+nvidia-tesla-t4"


def test_an_instance_tells_what_it_is(gcp: Gcp, offer: FindOffer, spec: MakeSpec) -> None:
    made = gcp.launch(offer(market=Market.SPOT), spec())
    assert made.state is InstanceState.PENDING
    told = gcp.get(made.ref)
    assert (told.instance_type, told.market, told.ref.region) == (
        "g2-standard-4",
        Market.SPOT,
        "us-central1-a",
    )
    assert told.ssh is not None
    assert (told.ssh.host, told.ssh.port, told.ssh.user) == ("203.0.113.10", 22, "ubuntu")


def test_a_machine_boots_with_what_it_was_told(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    booted: list[BootInfo] = []
    ended: list[str] = []

    def boot(info: BootInfo) -> str:
        booted.append(info)
        return "203.0.113.77"

    project.on_boot, project.on_end = boot, ended.append
    made = gcp.launch(offer(), spec())
    told = gcp.get(made.ref)
    assert told.ssh is not None
    assert told.ssh.host == "203.0.113.77"
    gcp.terminate(made.ref)
    assert list(gcp.instances()) == []
    (info,) = booted
    assert (info.id, ended) == (made.ref.id, [made.ref.id])
    assert info.user_data.startswith("#cloud-config\n")


def test_a_launch_that_google_has_forgotten_makes_no_second_machine(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project
) -> None:
    wanted = spec()
    first = gcp.launch(offer(), wanted)
    project.forget()
    assert gcp.launch(offer(), wanted).ref == first.ref
    assert len(project.instances()) == 1


class _Losing:
    """Does what is asked, and breaks the connection instead of answering to the first insert."""

    def __init__(self, inner: Wsgi) -> None:
        self.inner = inner
        self.lost = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        answer = self.inner(environ, start_response)
        inserts = environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"].endswith("/instances")
        if inserts and not self.lost:
            self.lost += 1
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return answer


class TestWhenTheAnswerIsLost:
    @pytest.fixture
    def server_of_google(self, project: Project) -> Iterator[Google]:
        with serving(project, _Losing) as google:
            yield google

    def test_it_is_asked_for_again_and_one_machine_is_made(
        self, gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project, server_of_google: Google
    ) -> None:
        wanted: LaunchSpec = spec()
        made = gcp.launch(offer(), wanted)
        assert len(server_of_google.asked("compute.instances.insert")) == 2
        assert [seen.id for seen in project.instances()] == [made.ref.id]


class _Spoiling:
    """Does what is asked, and answers inserts of instances with something else."""

    def __init__(self, status: str, body: bytes, inner: Wsgi) -> None:
        self.inner, self.status, self.body = inner, status, body

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["REQUEST_METHOD"] == "POST" and environ["PATH_INFO"].endswith("/instances"):
            list(self.inner(environ, lambda *_: None))
            start_response(self.status, [("Content-Type", "application/json")])
            return [self.body]
        return self.inner(environ, start_response)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("200 OK", b'{"kind": "compute#oper', BadReply),
        ("200 OK", b'{"id": "no number"}', BadReply),
        ("502 Bad Gateway", b"<html>a gateway</html>", Unreachable),
    ],
)
def test_what_cannot_be_read_leaves_open_what_was_made(
    project: Project,
    spec: MakeSpec,
    tmp_path: Path,
    status: str,
    body: bytes,
    kind: type[ProviderError],
) -> None:
    with serving(project, partial(_Spoiling, status, body)) as google:
        gcp = make_adapter(google, tmp_path, patience_s=0.1)
        offered = next(iter(gcp.offers(Requirements())))
        with pytest.raises(kind) as caught:
            gcp.launch(offered, spec())
        assert caught.value.outcome_unknown
        assert len(list(gcp.instances())) == 1


def test_a_server_that_goes_away_leaves_open_what_was_made(
    project: Project, spec: MakeSpec, tmp_path: Path
) -> None:
    with serving(project) as google:
        gcp = make_adapter(google, tmp_path, patience_s=0.1)
        offered = next(iter(gcp.offers(Requirements())))
        made = gcp.launch(offered, spec())
        place = Place(zone="us-central1-a")
    with pytest.raises(Unreachable) as caught:
        gcp._changes.act("Instances", "Instance", "stop", made.ref.id, place)
    assert caught.value.outcome_unknown
    assert caught.value.why == "ConnectionError"


@pytest.mark.parametrize("method", ["compute.zoneOperations.wait", "compute.globalOperations.wait"])
def test_an_operation_that_may_not_be_looked_at_is_taken_for_accepted(
    gcp: Gcp, offer: FindOffer, spec: MakeSpec, project: Project, method: str
) -> None:
    offered = offer()
    project.forbidden, project.slow = {method}, 0
    made = gcp.launch(offered, spec())
    assert [found.ref for found in gcp.instances()] == [made.ref]


def test_a_process_that_has_just_begun_finds_the_machine_of_another(
    adapter: MakeAdapter, gcp: Gcp, offer: FindOffer, spec: MakeSpec
) -> None:
    made = gcp.launch(offer(), spec())
    assert [found.ref for found in adapter().instances()] == [made.ref]
