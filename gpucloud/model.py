"""The nouns of gpucloud: frozen dataclasses and enums that every other module shares.

Money is ``Decimal`` US dollars in the domain and integer micro-dollars in the store. Times are aware UTC
datetimes. Memory and disk are GiB. ``None`` always means "unknown", never zero. Imports nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, Self

MICROS: Final = 1_000_000
"""Micro-dollars in a dollar."""

MEMORY_TOLERANCE: Final = Decimal("0.10")
"""Vendors count the same memory differently: a B200 is 192, 180 or 179 GB depending on who is asked."""

FORM_FACTORS: Final = frozenset({"SXM", "SXM2", "SXM3", "SXM4", "SXM5", "SXM6", "PCIE", "NVL", "OAM"})


def utcnow() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


class Market(StrEnum):
    """How an offer is sold."""

    ON_DEMAND = "on-demand"
    SPOT = "spot"
    RESERVED = "reserved"
    QUEUED = "queued"


class Availability(StrEnum):
    """Whether an offer can be had now; ``UNKNOWN`` when the provider does not say."""

    AVAILABLE = "available"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"
    NO_QUOTA = "no-quota"
    UNKNOWN = "unknown"


class InstanceState(StrEnum):
    """What the provider says of an instance."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    TERMINATING = "terminating"
    TERMINATED = "terminated"
    FAILED = "failed"
    UNKNOWN = "unknown"


class RentalState(StrEnum):
    """How far one rental has come in the journal."""

    INTENDED = "intended"
    ACCEPTED = "accepted"
    REACHABLE = "reachable"
    ENDING = "ending"
    GONE = "gone"


class ClusterState(StrEnum):
    """The state of a named set of instances."""

    LAUNCHING = "launching"
    READY = "ready"
    ENDING = "ending"
    ENDED = "ended"


class JobState(StrEnum):
    """The state of a job, and of each attempt at it."""

    QUEUED = "queued"
    SETTING_UP = "setting-up"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.INTERRUPTED}


class HostKeySource(StrEnum):
    """Where the pinned SSH host key of an instance came from, strongest first."""

    PLANTED = "planted"
    PROVIDER = "provider"
    FIRST_CONTACT = "first-contact"


def _fold(chip: str) -> str:
    return re.sub(r"[\s_\-]", "", chip).upper()


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator: chip, memory in GiB and form factor, written ``H100-SXM-80``."""

    chip: str
    memory_gib: int | None = None
    form_factor: str | None = None

    def __str__(self) -> str:
        parts = [self.chip, self.form_factor, str(self.memory_gib) if self.memory_gib else None]
        return "-".join(part for part in parts if part)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``H100-SXM-80``, ``A100-80GB`` or ``RTX-4090``.

        Raises:
            ValueError: when there is no chip name in ``text``.
        """
        chip: list[str] = []
        memory: int | None = None
        form_factor: str | None = None
        for part in re.split(r"[-_\s]+", text.strip()):
            named = any(character.isdigit() for token in chip for character in token)
            size = re.fullmatch(r"(\d+)(?:GB|GIB|G)?", part, re.IGNORECASE)
            if part.upper() in FORM_FACTORS:
                form_factor = "PCIe" if part.upper() == "PCIE" else part.upper()
            elif size and named:
                memory = int(size[1])
            else:
                chip.append(part)
        if not "".join(chip):
            raise ValueError(f"{text!r} names no GPU")
        return cls("".join(chip), memory, form_factor)


@dataclass(frozen=True, slots=True)
class GpuWish:
    """One acceptable answer to ``--gpu``: a chip or a minimum of memory, and how many in one instance."""

    count: int = 1
    gpu: Gpu | None = None
    min_memory_gib: int | None = None

    def __str__(self) -> str:
        what = str(self.gpu) if self.gpu else f"{self.min_memory_gib}GB+"
        return what if self.count == 1 else f"{what}:{self.count}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``H100``, ``H100:8``, ``A100x2``, ``H100-SXM-80:8`` or ``24GB+``.

        Raises:
            ValueError: when ``text`` is none of these.
        """
        match = re.fullmatch(r"\s*(?P<what>.+?)(?::(?P<count>\d+)|(?<=\d)x(?P<times>\d{1,2}))?\s*", text)
        if not match:
            raise ValueError(f"{text!r} is not a GPU")
        count = int(match["count"] or match["times"] or 1)
        if count < 1:
            raise ValueError(f"{text!r} asks for no GPU at all")
        memory = re.fullmatch(r"(\d+)\s*(?:GB|GIB|G)?\+", match["what"], re.IGNORECASE)
        if memory:
            return cls(count, None, int(memory[1]))
        if not re.fullmatch(r"[\w\s.\-]+", match["what"]) or ":" in match["what"]:
            raise ValueError(f"{text!r} is not a GPU")
        return cls(count, Gpu.parse(match["what"]))

    def accepts(self, gpu: Gpu | None, count: int) -> bool:
        """Whether ``count`` of ``gpu`` answer this wish; unknown memory never answers a wish for memory."""
        if gpu is None or count != self.count:
            return False
        if self.gpu is None:
            return gpu.memory_gib is not None and gpu.memory_gib >= (self.min_memory_gib or 0)
        if _fold(self.gpu.chip) != _fold(gpu.chip):
            return False
        if self.gpu.form_factor and (gpu.form_factor or "").upper() != self.gpu.form_factor.upper():
            return False
        return self.gpu.memory_gib is None or _same_memory(self.gpu.memory_gib, gpu.memory_gib)


def _same_memory(wanted: int, found: int | None) -> bool:
    return found is not None and abs(wanted - found) <= MEMORY_TOLERANCE * max(wanted, found)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the person wants. Empty tuples and ``None`` do not restrict."""

    gpus: tuple[GpuWish, ...] = ()
    markets: tuple[Market, ...] = (Market.ON_DEMAND,)
    regions: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    max_usd_per_hour: Decimal | None = None
    min_vcpus: int | None = None
    min_memory_gib: int | None = None
    min_disk_gib: int | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """One purchasable line: instance type x place x market.

    ``usd_per_hour`` is for the whole instance; ``amount`` and ``currency`` are what the provider wrote.
    ``source`` says where the price comes from and ``as_of`` when it was read there. ``ref`` is the
    provider's own handle for the line, used again at launch.
    """

    provider: str
    instance_type: str
    market: Market
    usd_per_hour: Decimal
    as_of: datetime
    source: str
    gpu: Gpu | None = None
    gpu_count: int = 0
    region: str | None = None
    zone: str | None = None
    availability: Availability = Availability.UNKNOWN
    currency: str = "USD"
    amount: Decimal | None = None
    confidence: str = "live"
    vcpus: int | None = None
    memory_gib: Decimal | None = None
    disk_gib: Decimal | None = None
    ref: str = ""

    @property
    def id(self) -> str:
        """A stable, readable name: ``provider/instance_type/place/market``."""
        place = self.zone or self.region or "-"
        return f"{self.provider}/{self.instance_type}/{place}/{self.market}"

    @property
    def usd_per_gpu_hour(self) -> Decimal | None:
        """The price divided by the GPUs; ``None`` for an offer without any."""
        return self.usd_per_hour / self.gpu_count if self.gpu_count else None


@dataclass(frozen=True, slots=True)
class SshAddress:
    """Where SSH answers. ``identity_file`` is set only for machines that know another key of the user."""

    host: str
    port: int = 22
    user: str = "root"
    identity_file: str | None = None
    jump: SshAddress | None = None


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """What a provider needs to find an instance again."""

    id: str
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One rented machine as its provider describes it. ``interrupted``: the provider took it back.

    ``slots`` is how many instances may share the machine; ``None`` when it is ours alone.
    """

    provider: str
    ref: InstanceRef
    state: InstanceState
    token: str | None = None
    cluster: str | None = None
    rank: int | None = None
    owner: str | None = None
    ssh: SshAddress | None = None
    created_at: datetime | None = None
    instance_type: str | None = None
    market: Market | None = None
    usd_per_hour: Decimal | None = None
    interrupted: bool = False
    slots: int | None = None

    @property
    def alive(self) -> bool:
        """Whether it may still bill. Only what is surely over is not alive."""
        return self.state is not InstanceState.TERMINATED


@dataclass(frozen=True, slots=True)
class Rental:
    """One line of the journal: an instance that was intended, and what became of it.

    ``usd_per_hour`` is the agreed price; ``None`` when an instance was found again and nobody states it.
    """

    token: str
    cluster_id: int
    rank: int
    state: RentalState
    provider: str
    instance_type: str
    market: Market
    intended_at: datetime
    usd_per_hour: Decimal | None = None
    currency: str = "USD"
    amount: Decimal | None = None
    region: str | None = None
    zone: str | None = None
    gpu: Gpu | None = None
    gpu_count: int = 0
    ref: InstanceRef | None = None
    ssh: SshAddress | None = None
    slots: int | None = None
    planted_key: str | None = None
    host_key: str | None = None
    host_key_source: HostKeySource | None = None
    expires_at: datetime | None = None
    gone_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """A named set of one or more instances rented together; ``ephemeral`` ones end with their ``run``.

    ``rentals`` holds only what is not gone, in order of rank.
    """

    id: int
    name: str
    state: ClusterState
    nodes: int
    created_at: datetime
    ephemeral: bool = False
    ended_at: datetime | None = None
    rentals: tuple[Rental, ...] = ()

    @property
    def usd_per_hour(self) -> Decimal | None:
        """What all its instances cost together; ``None`` when one of the prices is not known."""
        prices = [rental.usd_per_hour for rental in self.rentals]
        return None if None in prices else sum((p for p in prices if p is not None), Decimal(0))


@dataclass(frozen=True, slots=True)
class Mount:
    """A local file or folder to be pushed to ``target`` on the host, beside the working directory."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class JobSpec:
    """Work to do: shell text for ``setup`` and ``run``, its environment, and what to bring home."""

    run: str
    setup: str = ""
    name: str = ""
    workdir: str | None = None
    envs: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    mounts: tuple[Mount, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """A job in the books. ``exit_code`` is its own; at ``outputs_verified_at`` they were home and checked."""

    id: str
    cluster_id: int
    cluster_name: str
    name: str
    command: str
    state: JobState
    created_at: datetime
    workdir: str | None = None
    outputs: tuple[str, ...] = ()
    attempts: int = 1
    started_at: datetime | None = None
    ended_at: datetime | None = None
    exit_code: int | None = None
    outputs_verified_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A provider that could not answer, kept beside the answers of the others."""

    provider: str
    code: str
    message: str
    retryable: bool
