"""RunPod in our words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from gpucloud.errors import NoCapacity, NotFound
from gpucloud.labels import from_text, to_text
from gpucloud.model import (
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SshAddress,
    utcnow,
)
from gpucloud.parallel import results, run_all
from gpucloud.provider import (
    Credential,
    FileFormat,
    Fuse,
    Kind,
    LaunchSpec,
    Reach,
    StoppedBilling,
    Tagged,
    Traits,
    VendorFile,
)
from gpucloud.replies import Rows, every_row, ours
from gpucloud.rest import RestProvider
from gpucloud_runpod.catalog import Catalog
from gpucloud_runpod.offers import CLOUDS, COMMUNITY, SECURE, instance_type, lines
from gpucloud_runpod.refusals import REFUSALS

if TYPE_CHECKING:
    from gpucloud_runpod import api

THEIR_FILE: Final = "~/.runpod/config.toml"
API_KEY: Final = Credential(
    "api_key",
    ("RUNPOD_API_KEY",),
    # As runpodctl writes it, and as RunPod's Python package does.
    (
        VendorFile(THEIR_FILE, FileFormat.TOML, "apikey"),
        VendorFile(THEIR_FILE, FileFormat.TOML, "default.api_key"),
    ),
    page="https://console.runpod.io/user/settings",
)

USER: Final = "root"
SSH: Final = 22

COUNTS: Final = (1, 2, 4, 8)
"""For how many GPUs in one pod the stock is asked when nobody says how many are wanted."""

STATES: Final = {
    "PROVISIONING": InstanceState.PENDING,
    "STARTING": InstanceState.PENDING,
    "RUNNING": InstanceState.RUNNING,
    "EXITED": InstanceState.STOPPED,
    "ERROR": InstanceState.FAILED,
    "TERMINATED": InstanceState.TERMINATED,
}
UP: Final = {InstanceState.PENDING, InstanceState.RUNNING}

IMAGE: Final = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"
"""That of the API's own examples, as of 2026-08-20. It reads ``PUBLIC_KEY``, as all official ones do."""

IMAGE_CUDA: Final = "12.8"
"""What the driver of a machine must know for that image to start."""

AMD_IMAGE: Final = "runpod/pytorch:2.4.0-py3.10-rocm6.1.0-ubuntu22.04"
"""That of the official template "Runpod Pytorch 2.4.0 ROCm 6.1", as of 2026-10."""

TAGS: Final = "GPUCLOUD"
"""The environment variable that has all our tags; listings tell it."""

DISK_GB: Final = 50
"""For the container; those below 20 often find no machine, as people report (2026-09)."""

LEAST_VOLUME_GB: Final = 10
VOLUME_GB: Final = 20
VOLUME_PATH: Final = "/root/.gpucloud"
"""Where files and jobs are, so that they outlive a stop, which empties the rest."""

# The key is the one that RunPod plants in every pod, for this pod alone. It is in the environment of the
# container's first process only, and is kept out of the arguments that everybody on the machine can see.
SELF_END: Final = """\
told() { tr '\\0' '\\n' </proc/1/environ | sed -n "s/^$1=//p"; }
id=$(told RUNPOD_POD_ID) key=$(told RUNPOD_API_KEY)
[ -n "$id" ] && [ -n "$key" ] || exit 1
printf 'header = "Authorization: Bearer %s"\\n' "$key" |
  curl -fsS -m 60 -K - -H 'Content-Type: application/json' -d '{"action": "terminate"}' \\
    "https://api.runpod.io/v2/pods/$id/action" ||
  RUNPOD_API_KEY=$key runpodctl remove pod "$id"
"""


class Runpod(Catalog, RestProvider):
    """RunPod pods, in its own and in its partners' data centres."""

    credentials = (API_KEY,)
    traits = Traits(
        kind=Kind.CONTAINER,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.HOST,
        billing_grain_s=1,
        billing_minimum_s=None,
        billed_while_stopped=StoppedBilling.STORAGE,
        name_length=64,
        idempotent_launch=False,
        listing_lag_s=30,
        self_end=SELF_END,
        usual_disk_gib=DISK_GB + VOLUME_GB,
        console="https://console.runpod.io/pods",
        end_command="runpodctl pod delete {id}",
    )

    url = "https://api.runpod.io"
    refusals = REFUSALS

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Each type of GPU in the numbers that are wanted, in each cloud; the secure one by data centre.

        One question is asked for each cloud and number, as what is left is told for these alone.
        """
        from gpucloud_runpod.api import GPUS, GpuTypes

        wanted = tuple(sorted({wish.count for wish in requirements.gpus})) or COUNTS
        clouds = (SECURE,) if requirements.secure_only else CLOUDS
        stated = {"include": "AVAILABILITY", "product": "POD"}
        asked = {
            (cloud, count): partial(self._http.get, GPUS, params={**stated, "cloud": cloud, "count": count})
            for cloud in clouds
            for count in wanted
        }
        rows, now = Rows(self.name), utcnow()
        for (cloud, count), body in results(run_all(asked)).items():
            for row in self._read(GpuTypes.model_validate, body).gpus:
                with rows.row():
                    rows.add(lines(row, cloud, count, now))
        return rows.offers()

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one pod; no key is added to the account."""
        from gpucloud_runpod.api import PODS, Pod

        amd = offer.ref.startswith("AMD ")
        gpus: dict[str, Any] = {"id": offer.ref, "count": offer.gpu_count}
        if spec.image is None and not amd:
            gpus["minCudaVersion"] = IMAGE_CUDA
        volume = {"size": max(spec.disk_gib or VOLUME_GB, LEAST_VOLUME_GB), "path": VOLUME_PATH}
        wanted = {
            "name": f"{spec.cluster}-{spec.rank}"[: self.traits.name_length],
            "cloud": SECURE if offer.secure else COMMUNITY,
            **({"dataCenterIds": [offer.region]} if offer.region else {}),
            "gpu": gpus,
            "image": spec.image or (AMD_IMAGE if amd else IMAGE),
            "disk": DISK_GB,
            "mounts": {"persistent": volume},
            "ports": [f"{SSH}/tcp"],
            # Without this no SSH is set up; with it, the key given here takes the place of the account's.
            "startSsh": True,
            "env": {"PUBLIC_KEY": spec.public_key, TAGS: to_text(spec.tags)},
        }
        made = self._read(Pod.model_validate, self._http.post(PODS, json=wanted), sent=True)
        return spec.begun(offer, InstanceRef(made.id))

    def get(self, ref: InstanceRef) -> Instance:
        """One pod as it is now."""
        return self._instance(self._shown(ref))

    def instances(self) -> Iterable[Instance]:
        """Every pod that carries our tag."""
        return ours(map(self._instance, self._pods()))

    def terminate(self, ref: InstanceRef) -> None:
        """End one, with its volume; a missing one is success."""
        from gpucloud_runpod.api import PODS

        with suppress(NotFound):
            self._http.delete(f"{PODS}/{ref.id}")

    def stop(self, ref: InstanceRef) -> None:
        """Stop one; what is outside of its volume is lost, and so may be its GPUs."""
        if _state(self._shown(ref)) is not InstanceState.STOPPED:
            self._act(ref, "stop")

    def start(self, ref: InstanceRef) -> None:
        """Start one where its volume is. One that comes back without GPUs is stopped again: no capacity."""
        told = self._shown(ref)
        if STATES.get(told.status) not in UP:
            told = self._act(ref, "start")
        if STATES.get(told.status) in UP and not _has_gpus(told):
            self._act(ref, "stop")
            raise NoCapacity(
                f"{self.name}: it came back without its GPUs",
                provider=self.name,
                why="others have taken those of its machine; it is stopped again",
            )

    def _shown(self, ref: InstanceRef) -> api.Pod:
        from gpucloud_runpod.api import PODS, Pod

        return self._read(Pod.model_validate, self._http.get(f"{PODS}/{ref.id}"))

    def _act(self, ref: InstanceRef, action: str) -> api.Pod:
        from gpucloud_runpod.api import PODS, Pod

        reply = self._http.post(f"{PODS}/{ref.id}/action", json={"action": action})
        return self._read(Pod.model_validate, reply, sent=True)

    def _pods(self) -> Iterator[api.Pod]:
        """All pods of the account, page by page."""
        from gpucloud_runpod.api import PODS, Pods

        def page(cursor: str | None) -> tuple[list[api.Pod], str | None]:
            params = None if cursor is None else {"cursor": cursor}
            told = self._read(Pods.model_validate, self._http.get(PODS, params=params))
            return told.pods, told.next_cursor

        return every_row(self.name, PODS, page)

    def _instance(self, told: api.Pod) -> Instance:
        tags, had, state = told.env.get(TAGS), told.gpu, _state(told)
        return Tagged.read(from_text(tags) if isinstance(tags, str) else {}).instance(
            self.name,
            InstanceRef(told.id),
            state,
            ssh=_address(told) if state is InstanceState.RUNNING else None,
            created_at=told.created_at,
            instance_type=instance_type(had.id, had.count, told.cloud) if had and had.count else None,
            market=Market.ON_DEMAND,
            usd_per_hour=told.cost,
        )


def _state(told: api.Pod) -> InstanceState:
    """A pod that runs without GPUs has failed: it bills, and is of no use."""
    state = STATES.get(told.status, InstanceState.UNKNOWN)
    return InstanceState.FAILED if state is InstanceState.RUNNING and not _has_gpus(told) else state


def _address(told: api.Pod) -> SshAddress | None:
    """Where SSH answers: as it is told, or else by the ports. The proxy carries no files."""
    direct = told.ssh and told.ssh.direct
    if direct:
        return SshAddress(direct.host, direct.port, direct.username or USER)
    for port in (told.runtime and told.runtime.ports) or ():
        if port.private == SSH and port.type == "tcp" and port.ip and port.public:
            return SshAddress(port.ip, port.public, USER)
    return None


def _has_gpus(told: api.Pod) -> bool:
    return told.gpu is not None and told.gpu.count != 0
