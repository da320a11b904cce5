"""The machine we run on as a provider."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from gpucloud.errors import ConfigError, NotFound, Rejected, Unreachable
from gpucloud.model import (
    Availability,
    Gpu,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    SshAddress,
    utcnow,
)
from gpucloud.provider import (
    Evidence,
    Fuse,
    Kind,
    LaunchSpec,
    Provider,
    ProviderSettings,
    Reach,
    StoppedBilling,
    Traits,
)

if TYPE_CHECKING:
    from gpucloud_local.api import Machine

INSTANCE_TYPE = "this-machine"

SMI_TIMEOUT_S = 6
"""Less than the core waits for offers, so that a driver that hangs costs the GPUs and not the machine."""


class Local(Provider):
    """Folders with an SSH server of their own, for $0."""

    name = "local"
    evidence = Evidence.LIVE
    as_of = date(2026, 11, 21)
    traits = Traits(
        kind=Kind.PROCESS,
        markets=frozenset({Market.ON_DEMAND}),
        reach=Reach.SSH_KEY,
        fuse=Fuse.PROVIDER,
        billing_grain_s=1,
        billing_minimum_s=0,
        billed_while_stopped=StoppedBilling.UNSUPPORTED,
        name_length=64,
        idempotent_launch=True,
        listing_lag_s=0,
        plants_host_key=True,
    )

    @classmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """Always: every machine can be its own provider."""
        return True

    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """One offer: what this machine really has."""
        gpu, count = most_common(installed_gpus())
        with using(self.name):
            self.settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            disk = shutil.disk_usage(self.settings.state_dir)
        yield Offer(
            provider=self.name,
            instance_type=INSTANCE_TYPE,
            market=Market.ON_DEMAND,
            usd_per_hour=Decimal(0),
            amount=Decimal(0),
            as_of=utcnow(),
            source="this machine",
            gpu=gpu,
            gpu_count=count,
            region="local",
            availability=Availability.AVAILABLE,
            vcpus=os.cpu_count(),
            memory_gib=_gib(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")),
            disk_gib=_gib(disk.free),
        )

    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Make the folder and start its server."""
        from gpucloud_local import api

        asked = api.Spec(
            token=spec.token,
            cluster=spec.cluster,
            rank=spec.rank,
            owner=spec.owner,
            created_at=utcnow(),
            instance_type=offer.instance_type,
            market=offer.market,
            usd_per_hour=str(offer.usd_per_hour),
            region=offer.region,
            expires_at=spec.expires_at,
            sshd=self._sshd(),
        )
        key = spec.host_key.private if spec.host_key else None
        with making(self.name):
            made = api.create(self.settings.state_dir, asked, spec.public_key, host_key=key)
        return to_instance(self.name, made)

    def _sshd(self) -> Literal["asyncssh", "openssh"]:
        wanted = self.settings.table.get("sshd", "asyncssh")
        if wanted == "asyncssh":
            return "asyncssh"
        if wanted != "openssh":
            raise ConfigError(
                f"local: there is no SSH server {wanted!r}",
                why="GPUCLOUD_LOCAL_SSHD or providers.local.sshd says so",
                hint="write asyncssh or openssh",
            )
        from gpucloud_local.sshd_openssh import find_sshd

        if find_sshd() is None:
            raise ConfigError(
                "local: this machine has no sshd",
                why="GPUCLOUD_LOCAL_SSHD or providers.local.sshd asks for openssh",
                hint="install OpenSSH's server, or write asyncssh",
            )
        return "openssh"

    def get(self, ref: InstanceRef) -> Instance:
        """Read the folder."""
        from gpucloud_local import api

        with using(self.name):
            return to_instance(self.name, api.read(api.folder_of(self.settings.state_dir, ref.id)))

    def instances(self) -> Iterable[Instance]:
        """Read all folders."""
        from gpucloud_local import api

        with using(self.name):
            machines = list(api.machines(self.settings.state_dir))
        return [to_instance(self.name, machine) for machine in machines]

    def terminate(self, ref: InstanceRef) -> None:
        """Tell the server to end, or clean up after one that died."""
        from gpucloud_local import api

        with suppress(NotFound), using(self.name):
            api.destroy(api.folder_of(self.settings.state_dir, ref.id))

    def expire(self, ref: InstanceRef, at: datetime) -> None:
        """Leave word for its server, which looks for it."""
        from gpucloud_local import api, orders

        with using(self.name):
            orders.expire(api.folder_of(self.settings.state_dir, ref.id), at)


@contextmanager
def making(provider: str) -> Iterator[None]:
    """Raise what goes wrong with a new folder and its server as what it means to the core."""
    try:
        yield
    except OSError as error:
        raise Rejected(
            f"{provider}: the instance could not be made",
            provider=provider,
            why=str(error),
            hint="df -h, to see whether a disk is full",
            outcome_unknown=True,
        ) from error


@contextmanager
def using(provider: str) -> Iterator[None]:
    """Raise what goes wrong with a folder that is there, or is not, as what it means to the core."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound(f"{provider}: {error}", provider=provider) from None
    except TimeoutError as error:
        raise Unreachable(f"{provider}: {error}", provider=provider) from error
    except OSError as error:
        raise Rejected(
            f"{provider}: the files of an instance cannot be used",
            provider=provider,
            why=str(error),
            hint="repair or remove the file that the reason names",
        ) from error


def to_instance(provider: str, machine: Machine) -> Instance:
    """A folder in our words."""
    from gpucloud_local.api import username
    from gpucloud_local.orders import expiry

    spec = machine.spec
    if machine.ended:
        state = InstanceState.TERMINATED
    elif machine.stopped:
        state = InstanceState.STOPPING if machine.alive else InstanceState.STOPPED
    elif machine.alive and machine.status:
        state = InstanceState.RUNNING
    elif machine.alive or machine.starting:
        state = InstanceState.PENDING
    else:
        state = InstanceState.FAILED
    waiting = utcnow() < spec.starts_at and state is InstanceState.PENDING
    running = machine.status if state is InstanceState.RUNNING else None
    return Instance(
        provider=provider,
        ref=InstanceRef(machine.folder.name, spec.region),
        state=state,
        token=spec.token,
        cluster=spec.cluster,
        rank=spec.rank,
        owner=spec.owner,
        ssh=SshAddress("127.0.0.1", running.port, username()) if running else None,
        created_at=spec.created_at,
        instance_type=spec.instance_type,
        market=Market(spec.market),
        usd_per_hour=Decimal(spec.usd_per_hour),
        interrupted=bool(machine.ended and machine.ended.reason == "interrupted"),
        expires_at=expiry(machine.folder, spec),
        waiting=waiting,
        started_at=None if waiting else spec.starts_at,
    )


def most_common(gpus: Iterable[Gpu]) -> tuple[Gpu | None, int]:
    """The GPU there is most of, and how many: an offer is of one kind."""
    for gpu, count in Counter(gpus).most_common(1):
        return gpu, count
    return None, 0


def installed_gpus(timeout_s: float = SMI_TIMEOUT_S) -> list[Gpu]:
    """The GPUs that ``nvidia-smi`` lists; none where it is missing, fails or hangs."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return []
    query = [smi, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(query, capture_output=True, timeout=timeout_s, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [gpu for line in listing.decode(errors="replace").splitlines() if (gpu := parse_gpu(line))]


def parse_gpu(line: str) -> Gpu | None:
    """Read ``NVIDIA A100-SXM4-80GB, 81920`` (name and MiB) as nvidia-smi prints it; ``None`` for all else."""
    match = re.fullmatch(r"\s*([A-Za-z][\w .+-]*?)\s*,\s*([0-9]{1,9}|\[.*\])\s*", line)
    if match is None:
        return None
    name, mib = match[1], match[2]
    words = re.sub(r"\b(NVIDIA|Tesla|GeForce|Generation|HBM\w*|\d+GB?|Blackwell.*|AC)\b", " ", name)
    gpu = Gpu.parse(words.strip() or name)
    form_factor = gpu.form_factor
    if form_factor is None and re.search(r"\b(H[128]00|B[23]00)\b", name) and "HBM2" not in name:
        # These are named by their memory alone when they sit in a socket.
        form_factor = "SXM"
    return Gpu(gpu.chip, round(int(mib) / 1024) if mib.isdecimal() else None, form_factor)


def _gib(count: int) -> Decimal:
    return (Decimal(count) / 2**30).quantize(Decimal("0.1"))
