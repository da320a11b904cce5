"""RunPod against the contract of all adapters, and what is its own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpucloud.errors import (
    AuthError,
    BadReply,
    BalanceExhausted,
    NoCapacity,
    ProviderError,
    QuotaExceeded,
    RateLimited,
    Rejected,
    Unreachable,
)
from gpucloud.labels import from_text
from gpucloud.model import (
    Availability,
    GpuWish,
    Instance,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SshAddress,
)
from gpucloud.testing import ProviderConformance
from gpucloud_runpod import Runpod
from tests.harness.acme.faults import Verb
from tests.harness.rental.market import Served, serving
from tests.harness.rental.runpod import RunpodCloud
from tests.harness.sshd import SYSTEM_PATH
from tests.providers.rented import a_spec, an_offer, running
from tests.providers.renting import adapter_at, identity_in

H100 = "NVIDIA H100 80GB HBM3"
RTX4090 = "NVIDIA GeForce RTX 4090"
MI300X = "AMD Instinct MI300X OAM"
PLACES = {H100: "EU-NL-1", RTX4090: "EUR-IS-1", MI300X: "EU-RO-1"}


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(RunpodCloud()) as market:
        yield market


@pytest.fixture
def provider(served: Served, tmp_path: Path) -> Runpod:
    return adapter_at(Runpod, served, tmp_path)


Launch = Callable[..., Instance]


@pytest.fixture
def launch(provider: Runpod, tmp_path: Path) -> Launch:
    """Rents an offer of so many GPUs; the rest is of the spec."""

    def launch(kind: str = H100, count: int = 8, **given: Any) -> Instance:
        offer = an_offer(provider, ref=kind, gpu_count=count, region=PLACES[kind])
        return provider.launch(offer, a_spec(identity_in(tmp_path), **given))

    return launch


class TestRunpod(ProviderConformance):
    @pytest.fixture
    def provider(self, provider: Runpod) -> Runpod:
        return provider


def lines(provider: Runpod, **wanted: Any) -> dict[tuple[str, str, str | None], Offer]:
    """The offers by type, number and cloud, and place."""
    return {
        (offer.ref, f"{offer.gpu_count} {'secure' if offer.secure else 'community'}", offer.region): offer
        for offer in provider.offers(Requirements(**wanted))
    }


def test_a_pod_costs_as_many_times_the_price_as_it_has_gpus(provider: Runpod) -> None:
    found = lines(provider)
    h100 = found[H100, "8 secure", "EU-NL-1"]
    assert (h100.usd_per_hour, h100.amount, h100.currency) == (Decimal("23.92"), Decimal("23.92"), "USD")
    assert (str(h100.gpu), h100.gpu_count, h100.market) == ("H100-SXM-80", 8, Market.ON_DEMAND)
    assert (h100.country, h100.secure, h100.interconnect, h100.confidence) == ("NL", True, "nvlink", "live")
    assert h100.instance_type == "8x NVIDIA H100 80GB HBM3"
    assert found[RTX4090, "2 community", None].instance_type == "2x NVIDIA GeForce RTX 4090 community"
    assert found[RTX4090, "2 community", None].usd_per_hour == Decimal("0.68")
    assert str(found[MI300X, "1 secure", "EU-RO-1"].gpu) == "MI300X-OAM-192"


def test_the_secure_cloud_is_told_by_data_centre_and_the_community_is_nowhere(provider: Runpod) -> None:
    told = {
        (line, place): (offer.country, offer.availability, offer.availability_detail)
        for (kind, line, place), offer in lines(provider, gpus=(GpuWish.parse("H100"),)).items()
        if kind == H100
    }
    assert told == {
        ("1 secure", "US-TX-3"): ("US", Availability.LIMITED, "LOW"),
        ("1 secure", "EU-NL-1"): ("NL", Availability.AVAILABLE, "HIGH"),
        ("1 secure", "CA-MTL-1"): ("CA", Availability.UNAVAILABLE, "NONE"),
        ("1 community", None): (None, Availability.AVAILABLE, "HIGH"),
    }
    assert lines(provider)[RTX4090, "1 secure", "EUR-IS-1"].country == "IS"


def test_what_is_sold_out_is_nowhere(served: Served, provider: Runpod) -> None:
    served.market.full = {H100}
    gone = lines(provider)[H100, "8 secure", None]
    assert (gone.availability, gone.availability_detail) == (Availability.UNAVAILABLE, "NONE")
    assert gone.usd_per_hour == Decimal("23.92")


def test_no_pod_has_more_gpus_than_its_cloud_allows(provider: Runpod) -> None:
    told = {(kind, line) for kind, line, _ in lines(provider)}
    assert {line for kind, line in told if kind == RTX4090} == {
        *(f"{count} secure" for count in (1, 2, 4, 8)),
        *(f"{count} community" for count in (1, 2, 4)),
    }
    assert {line for kind, line in told if kind == "NVIDIA A30"} == {f"{n} community" for n in (1, 2, 4)}
    assert (MI300X, "1 community") not in told


def test_cuda_is_what_every_free_machine_has(provider: Runpod) -> None:
    found = lines(provider)
    assert found[H100, "1 secure", "EU-NL-1"].cuda == Decimal("12.8")
    assert found[MI300X, "1 secure", "EU-RO-1"].cuda is None


def test_only_what_is_wanted_is_asked_for(served: Served, provider: Runpod) -> None:
    wishes = (GpuWish.parse("H100:3"), GpuWish.parse("A30:3"))
    found = lines(provider, gpus=wishes, secure_only=True)
    asked = [dict(request.args) for request in served.market.requests]
    assert asked == [{"include": "AVAILABILITY", "product": "POD", "cloud": "SECURE", "count": "3"}]
    assert {line for _, line, _ in found} == {"3 secure"}


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"price": {"secure": 0, "community": 0.34}}, {False}),
        ({"secure": False}, {False}),
        ({"community": False}, {True}),
        ({"maxCount": {"secure": 0, "community": 6}}, {False}),
        ({"id": "unknown"}, set()),
    ],
)
def test_a_cloud_that_has_not_the_type_is_left_out(
    served: Served, provider: Runpod, changes: Mapping[str, Any], left: set[bool]
) -> None:
    served.market.types = [{**served.market.types[1], **changes}]
    assert {offer.secure for offer in provider.offers(Requirements())} == left


def test_a_pod_is_asked_for_by_type_place_and_cloud(served: Served, launch: Launch, tmp_path: Path) -> None:
    launch(disk_gib=200)
    (asked,) = served.market.asked("POST", "/v2/pods")
    assert asked["gpu"] == {"id": H100, "count": 8, "minCudaVersion": "12.8"}
    assert (asked["cloud"], asked["dataCenterIds"]) == ("SECURE", ["EU-NL-1"])
    assert (asked["disk"], asked["mounts"]) == (
        50,
        {"persistent": {"size": 200, "path": "/root/.gpucloud"}},
    )
    assert (asked["ports"], asked["startSsh"], asked["name"]) == (["22/tcp"], True, "test-0")


def test_a_pod_of_partners_may_be_anywhere(served: Served, provider: Runpod, tmp_path: Path) -> None:
    offer = an_offer(provider, ref=RTX4090, gpu_count=2, secure=False)
    provider.launch(offer, a_spec(identity_in(tmp_path)))
    (asked,) = served.market.asked("POST", "/v2/pods")
    assert asked["cloud"] == "COMMUNITY"
    assert "dataCenterIds" not in asked


def test_our_key_is_the_pod_s_and_those_of_the_account_are_left_alone(
    served: Served, launch: Launch, tmp_path: Path
) -> None:
    launch()
    (asked,) = served.market.asked("POST", "/v2/pods")
    assert asked["env"]["PUBLIC_KEY"] == identity_in(tmp_path).public
    assert not [request for request in served.market.requests if "ssh-keys" in request.path]


@pytest.mark.parametrize(
    ("kind", "image", "sent", "cuda"),
    [
        (H100, None, "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404", "12.8"),
        (H100, "acme/own:1", "acme/own:1", None),
        (MI300X, None, "runpod/pytorch:2.4.0-py3.10-rocm6.1.0-ubuntu22.04", None),
    ],
)
def test_the_image_fits_the_gpu(
    served: Served, launch: Launch, kind: str, image: str | None, sent: str, cuda: str | None
) -> None:
    launch(kind, image=image)
    (asked,) = served.market.asked("POST", "/v2/pods")
    assert (asked["image"], asked["gpu"].get("minCudaVersion")) == (sent, cuda)


@pytest.mark.parametrize(("wanted", "disk", "volume"), [(None, 50, 20), (5, 50, 10), (150, 50, 150)])
def test_disks_are_no_smaller_than_they_can_be(
    served: Served, launch: Launch, wanted: int | None, disk: int, volume: int
) -> None:
    launch(disk_gib=wanted)
    (asked,) = served.market.asked("POST", "/v2/pods")
    assert (asked["disk"], asked["mounts"]["persistent"]["size"]) == (disk, volume)


def test_all_tags_are_in_one_variable(served: Served, launch: Launch) -> None:
    made = launch()
    (asked,) = served.market.asked("POST", "/v2/pods")
    assert from_text(asked["env"]["GPUCLOUD"])["gpucloud-token"] == made.token


def test_pods_of_other_people_are_not_ours(served: Served, provider: Runpod, launch: Launch) -> None:
    ours = launch()
    theirs = served.market.instances()[0]
    for number, env in enumerate(({}, {"GPUCLOUD": "yes"}, {"GPUCLOUD-TOKEN": ours.token})):
        asked = {**theirs.asked, "env": env}
        served.market.things[f"x{number}"] = replace(theirs, id=f"x{number}", asked=asked)
    assert [instance.ref for instance in provider.instances()] == [ours.ref]


def test_all_pages_are_read(served: Served, provider: Runpod, launch: Launch) -> None:
    made = {launch(RTX4090, 1).ref for _ in range(5)}
    assert {instance.ref for instance in provider.instances()} == made
    pages = [dict(request.args) for request in served.market.requests[-3:]]
    assert pages == [{}, {"cursor": "2"}, {"cursor": "4"}]


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"nextCursor": "0", "hasNextPage": True}, "in a circle"),
        ({"nextCursor": None, "hasNextPage": True}, "next page"),
    ],
)
def test_pages_without_end_are_no_listing(
    served: Served, provider: Runpod, told: Mapping[str, Any], why: str
) -> None:
    served.market.pages = lambda pods, after: told
    with pytest.raises(BadReply) as raised:
        list(provider.instances())
    assert why in raised.value.why


def test_a_listing_without_pages_is_whole(served: Served, provider: Runpod, launch: Launch) -> None:
    served.market.pages = lambda pods, after: None
    made = {launch(RTX4090, 1).ref for _ in range(3)}
    assert {instance.ref for instance in provider.instances()} == made


@pytest.mark.parametrize("direct", [True, False])
def test_ssh_answers_at_a_port_of_its_own(
    served: Served, provider: Runpod, launch: Launch, direct: bool
) -> None:
    served.market.direct = direct
    served.market.on_boot = lambda born: SshAddress("203.0.113.5", 34446)
    made = launch()
    assert provider.get(made.ref).ssh is None
    assert running(provider, made).ssh == SshAddress("203.0.113.5", 34446, "root")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("PROVISIONING", InstanceState.PENDING),
        ("STARTING", InstanceState.PENDING),
        ("RUNNING", InstanceState.RUNNING),
        ("EXITED", InstanceState.STOPPED),
        ("ERROR", InstanceState.FAILED),
        ("TERMINATED", InstanceState.TERMINATED),
        ("DREAMING", InstanceState.UNKNOWN),
    ],
)
def test_every_state_is_known(
    served: Served, provider: Runpod, launch: Launch, word: str, state: InstanceState
) -> None:
    made = launch()
    served.market.goes_on = False
    served.market.instances()[0].state = word
    assert provider.get(made.ref).state is state
    # The document has no word that is not known yet.
    served.market.violations = [] if word == "DREAMING" else served.market.violations


def test_a_stopped_pod_costs_what_nobody_tells(provider: Runpod, launch: Launch) -> None:
    made = launch()
    found = running(provider, made)
    assert (found.usd_per_hour, found.instance_type) == (Decimal("23.92"), made.instance_type)
    provider.stop(made.ref)
    stopped = provider.get(made.ref)
    assert (stopped.state, stopped.usd_per_hour, stopped.ssh) == (InstanceState.STOPPED, None, None)


def test_what_cannot_be_started_where_it_was_stays_stopped(
    served: Served, provider: Runpod, launch: Launch
) -> None:
    made = launch()
    provider.stop(made.ref)
    served.market.full = {H100}
    with pytest.raises(NoCapacity) as refused:
        provider.start(made.ref)
    assert not refused.value.outcome_unknown
    assert provider.get(made.ref).state is InstanceState.STOPPED


def test_a_pod_that_comes_back_without_gpus_is_stopped_again(
    served: Served, provider: Runpod, launch: Launch
) -> None:
    made = launch()
    provider.stop(made.ref)
    served.market.without_gpus = True
    with pytest.raises(NoCapacity):
        provider.start(made.ref)
    assert provider.get(made.ref).state is InstanceState.STOPPED


def test_a_pod_that_runs_without_gpus_has_failed_and_can_be_stopped(
    served: Served, provider: Runpod, launch: Launch
) -> None:
    made = launch()
    running(provider, made)
    served.market.instances()[0].more["without_gpus"] = True
    found = provider.get(made.ref)
    assert (found.state, found.ssh) == (InstanceState.FAILED, None)
    with pytest.raises(NoCapacity):
        provider.start(made.ref)
    assert provider.get(made.ref).state is InstanceState.STOPPED


def test_terminate_also_ends_what_is_stopped(served: Served, provider: Runpod, launch: Launch) -> None:
    made = launch()
    provider.stop(made.ref)
    provider.terminate(made.ref)
    assert not served.market.billing()


@pytest.mark.parametrize(
    ("status", "detail", "kind"),
    [
        (400, "There are no instances currently available", NoCapacity),
        (500, "create pod: There are no instances currently available", NoCapacity),
        (400, "There are no longer any instances available with the requested specifications.", NoCapacity),
        (500, "This machine does not have the resources to deploy your pod.", NoCapacity),
        (400, "this GPU and data center combination could not be placed", NoCapacity),
        (402, "Payment Required", BalanceExhausted),
        (400, "Insufficient balance to create this pod", BalanceExhausted),
        (400, "this would exceed your spend limit", QuotaExceeded),
        (403, "your account cannot access the requested pool", QuotaExceeded),
        (403, "access denied", AuthError),
        (400, "mounts.persistent and mounts.network are mutually exclusive", Rejected),
        (422, "Request validation failed.", Rejected),
        (429, "rate limit exceeded for the minute window", RateLimited),
    ],
)
def test_runpod_says_no_in_prose(
    served: Served, launch: Launch, status: int, detail: str, kind: type[ProviderError]
) -> None:
    served.market.refuse(Verb.CREATE, status, {"title": "No", "status": status, "detail": detail})
    with pytest.raises(kind) as refused:
        launch()
    assert type(refused.value) is kind
    assert refused.value.vendor_text == detail
    assert not refused.value.outcome_unknown
    assert not served.market.instances()


def test_what_failed_at_runpod_may_have_been_made(served: Served, launch: Launch) -> None:
    detail = "Something went wrong. Please try again later or contact support."
    served.market.refuse(Verb.CREATE, 500, {"title": "No", "status": 500, "detail": detail})
    with pytest.raises(Unreachable) as failed:
        launch()
    assert failed.value.outcome_unknown
    assert len(served.market.asked("POST", "/v2/pods")) == 1


def end_itself(folder: Path, environ: Mapping[str, str], *tools: str) -> subprocess.CompletedProcess[str]:
    """End a pod from within, where these of its tools are; each notes what it was called with and told."""
    path = folder / "bin"
    path.mkdir()
    for tool in ("cat", "sed", "sh", "tr"):
        (path / tool).symlink_to(shutil.which(tool, path=SYSTEM_PATH) or "")
    for tool in tools:
        (path / tool).write_text(f'#!/bin/sh\n{{ echo {tool} "$@"; cat; }} >>{folder}/done\n')
        (path / tool).chmod(0o755)
    (folder / "end").write_text(Runpod.traits.self_end)
    # Whoever comes by SSH has none of the variables that the container's first process has.
    pod = f"env -i PATH={path} sh {folder}/end; exit $?"
    return subprocess.run(
        ["unshare", "--fork", "--pid", "--mount", "--mount-proc", "sh", "-c", pod],
        env={"PATH": SYSTEM_PATH, **environ},
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


PLANTED = {"RUNPOD_POD_ID": "7h9k2m4n6p", "RUNPOD_API_KEY": "planted-key"}


@pytest.mark.needs_netns
def test_a_pod_ends_itself_by_the_key_that_runpod_has_planted(tmp_path: Path) -> None:
    done = end_itself(tmp_path, PLANTED, "curl", "runpodctl")
    assert done.returncode == 0, done.stderr
    called, told = (tmp_path / "done").read_text().splitlines()
    assert called.startswith("curl ")
    assert called.endswith(' {"action": "terminate"} https://api.runpod.io/v2/pods/7h9k2m4n6p/action')
    assert "planted-key" not in called
    assert told == 'header = "Authorization: Bearer planted-key"'


@pytest.mark.needs_netns
def test_a_pod_without_curl_ends_itself_by_runpod_s_own_tool(tmp_path: Path) -> None:
    done = end_itself(tmp_path, PLANTED, "runpodctl")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "done").read_text() == "runpodctl remove pod 7h9k2m4n6p\n"


@pytest.mark.needs_netns
@pytest.mark.parametrize("missing", PLANTED)
def test_without_its_key_no_pod_claims_to_have_ended(tmp_path: Path, missing: str) -> None:
    told = {name: value for name, value in PLANTED.items() if name != missing}
    assert end_itself(tmp_path, told, "curl", "runpodctl").returncode != 0
    assert not (tmp_path / "done").exists()
