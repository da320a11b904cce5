"""The nouns of gpucloud: frozen dataclasses and enums that every other module shares.

Money is ``Decimal`` US dollars in the domain and integer micro-dollars in the store. Times are aware UTC
datetimes. Memory and disk are GiB. ``None`` always means "unknown", never zero. Imports nothing of ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final, Self

MICROS: Final = 1_000_000
"""Micro-dollars in a dollar."""

MICROSECOND: Final = timedelta(microseconds=1)
MICROSECONDS_PER_HOUR: Final = timedelta(hours=1) // MICROSECOND

MEMORY_TOLERANCE: Final = Decimal("0.10")
"""Vendors count the same memory differently: a B200 is 192, 180 or 179 GB depending on who is asked."""

FORM_FACTORS: Final = {"SXM": "SXM", "PCIE": "PCIe", "NVL": "NVL", "OAM": "OAM"}


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


CANNOT_BE_HAD: Final = frozenset({Availability.UNAVAILABLE, Availability.NO_QUOTA})
"""What need not even be tried."""


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


class ReservationState(StrEnum):
    """What the provider says of a reservation. ``PENDING``: it is not sure yet, as while it is paid for."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    ACTIVE = "active"
    ENDED = "ended"
    FAILED = "failed"
    UNKNOWN = "unknown"


class BookingState(StrEnum):
    """How far the purchase of a reservation has come in the books."""

    INTENDED = "intended"
    BOUGHT = "bought"
    FAILED = "failed"


class RentalState(StrEnum):
    """How far one rental has come in the journal."""

    INTENDED = "intended"
    ACCEPTED = "accepted"
    REACHABLE = "reachable"
    STOPPED = "stopped"
    ENDING = "ending"
    GONE = "gone"


class ClusterState(StrEnum):
    """The state of a named set of instances."""

    LAUNCHING = "launching"
    READY = "ready"
    STOPPED = "stopped"
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


_NUMBERED: Final = re.compile("[0-9]")


def fold(chip: str) -> str:
    """A chip's name without case and separators: what two spellings of one chip have in common."""
    return "".join(letter for letter in chip if letter.isalnum()).casefold()


def same_memory(one: int, other: int) -> bool:
    """Whether two figures in GiB may mean the same memory."""
    return abs(one - other) <= MEMORY_TOLERANCE * max(one, other)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One accelerator: chip, memory in GiB and form factor, written ``H100-SXM-80`` or ``Trainium-32GB``."""

    chip: str
    memory_gib: int | None = None
    form_factor: str | None = None

    def __str__(self) -> str:
        # After a chip without digits a bare number would be read as part of its name.
        unit = "" if _NUMBERED.search(self.chip) else "GB"
        parts = [self.chip, self.form_factor, f"{self.memory_gib}{unit}" if self.memory_gib else None]
        return "-".join(part for part in parts if part)

    @property
    def key(self) -> str:
        """The chip as it is compared."""
        return fold(self.chip)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``H100-SXM-80``, ``A100-80GB`` or ``RTX-4090``.

        Raises:
            ValueError: when there is no chip name in ``text``, or a memory of zero.
        """
        chip: list[str] = []
        memory: int | None = None
        form_factor: str | None = None
        for part in re.split(r"[-_\s]+", text.strip()):
            named = any(_NUMBERED.search(token) for token in chip)
            size = re.fullmatch(r"([0-9]+)(GB|GIB|G)?", part, re.IGNORECASE)
            # SXM2 to SXM6 only repeat which generation the chip is of.
            socket = re.sub(r"^SXM[0-9]$", "SXM", part.upper())
            if socket in FORM_FACTORS:
                form_factor = FORM_FACTORS[socket]
            elif size and (named or size[2]):
                memory = int(size[1])
            else:
                chip.append(part)
        if not "".join(chip):
            raise ValueError(f"{text!r} names no GPU; write H100, A100-80 or 24GB+")
        if memory == 0:
            raise ValueError(f"{text!r} is a GPU without memory")
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
        """Read ``H100``, ``H100:8``, ``A100x2``, ``8xH100``, ``H100-SXM-80:8`` or ``24GB+``.

        Raises:
            ValueError: when ``text`` is none of these.
        """
        # The x must follow a name that has a number already: rtx4090 and MI300X are chips.
        match = re.fullmatch(
            r"(.*[0-9].*)x([0-9]{1,2})|([0-9]{1,2})x(.+)|(.+?)(?::([0-9]{1,9}))?", text.strip(), re.ASCII
        )
        if not match:
            raise ValueError(f"{text!r} is not a GPU; write H100, H100:8, H100-SXM-80:8 or 24GB+")
        what, count = match[1] or match[4] or match[5], int(match[2] or match[3] or match[6] or 1)
        if count < 1:
            raise ValueError(f"{text!r} asks for no GPU at all")
        memory = re.fullmatch(r"([0-9]+)\s*(?:GB|GIB|G)?\+", what, re.IGNORECASE)
        if memory:
            return cls(count, None, int(memory[1]))
        if not re.fullmatch(r"[\w\s.-]+", what, re.ASCII):
            raise ValueError(f"{text!r} is not a GPU; write H100, H100:8, H100-SXM-80:8 or 24GB+")
        return cls(count, Gpu.parse(what))

    def accepts(self, gpu: Gpu | None, count: int) -> bool:
        """Whether ``count`` of ``gpu`` answer this wish; unknown memory never answers a wish for memory."""
        if gpu is None or count != self.count:
            return False
        if self.gpu is None:
            return gpu.memory_gib is not None and gpu.memory_gib >= (self.min_memory_gib or 0)
        if self.gpu.key != gpu.key:
            return False
        if self.gpu.form_factor and (gpu.form_factor or "").upper() != self.gpu.form_factor.upper():
            return False
        if self.gpu.memory_gib is None:
            return True
        return gpu.memory_gib is not None and same_memory(self.gpu.memory_gib, gpu.memory_gib)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What the person wants. Empty tuples and ``None`` do not restrict.

    ``where`` is a condition over the columns of an offer, in the language of ``gpucloud.catalog.where``.
    """

    gpus: tuple[GpuWish, ...] = ()
    markets: tuple[Market, ...] = (Market.ON_DEMAND,)
    regions: tuple[str, ...] = ()
    instance_types: tuple[str, ...] = ()
    max_usd_per_hour: Decimal | None = None
    min_vcpus: int | None = None
    min_memory_gib: int | None = None
    min_disk_gib: int | None = None
    countries: tuple[str, ...] = ()
    interconnects: tuple[str, ...] = ()
    secure_only: bool = False
    verified_only: bool = False
    where: str = ""


# Nobody changes one, but to freeze them makes them take four times as long to make, and they are made by the
# hundred thousand.
@dataclass(slots=True, unsafe_hash=True)
class Offer:
    """One purchasable line: instance type x place x market.

    ``usd_per_hour`` is for the whole instance; ``amount`` and ``currency`` are what the provider wrote.
    ``source`` says where the price comes from and ``as_of`` when it was read there. ``ref`` is the
    provider's own handle for the line, used again at launch. ``availability_detail`` is the provider's own
    measure of it. ``country`` is an ISO 3166 code of two letters, ``reliability`` a share of 1, and
    ``interruptions_per_hour`` the chance that a spot instance is taken back within an hour. ``upstream`` is
    whose machine it is where the provider only passes it on, by the name that this provider has with us if
    it has one, and ``margin`` how much dearer it is, as a share, than the cheapest of the same that this one
    is known to have. ``minimum_s`` are the seconds that are billed at least, where each line has its own.
    ``any_disk``: launch gives it a disk as large as is asked for, beside the ``disk_gib`` that it comes with.
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
    availability_detail: str | None = None
    country: str | None = None
    interconnect: str | None = None
    secure: bool | None = None
    verified: bool | None = None
    inet_down_mbps: int | None = None
    inet_up_mbps: int | None = None
    reliability: Decimal | None = None
    cuda: Decimal | None = None
    driver: str | None = None
    disk_usd_per_gib_month: Decimal | None = None
    egress_usd_per_gib: Decimal | None = None
    interruptions_per_hour: Decimal | None = None
    upstream: str | None = None
    minimum_s: int | None = None
    margin: Decimal | None = None
    any_disk: bool = False

    def __post_init__(self) -> None:
        # A price that cannot be compared would break the ranking of everybody's offers.
        if not self.usd_per_hour.is_finite() or self.usd_per_hour < 0:
            raise ValueError(f"the price of {self.id} is {self.usd_per_hour}")

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
    """Where SSH answers. ``identity_file`` is set only for machines that know another key of the user.

    ``inside`` is the machine's address for those that its provider has put into the same network.
    ``proxy`` is a command, as its words, whose stdin and stdout are the connection; ``%h`` and ``%p`` in
    them are the host and the port. ``password`` is for machines that know no key of ours yet; it is used to
    install one, and never stored.
    """

    host: str
    port: int = 22
    user: str = "root"
    identity_file: str | None = None
    jump: SshAddress | None = None
    inside: str | None = None
    proxy: tuple[str, ...] = ()
    password: str | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class InstanceRef:
    """What a provider needs to find an instance again."""

    id: str
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Instance:
    """One rented machine as its provider describes it. ``interrupted``: the provider took it back.

    ``waiting``: it is in the provider's queue for capacity and costs nothing yet; ``started_at`` is when it
    left that, and began to bill.
    ``slots`` is how many instances may share the machine; ``None`` when it is ours alone. ``expires_at`` is
    when its lease ends, as its tag or its provider tells.
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
    expires_at: datetime | None = None
    waiting: bool = False
    started_at: datetime | None = None

    @property
    def alive(self) -> bool:
        """Whether it may still bill. Only what is surely over is not alive."""
        return self.state is not InstanceState.TERMINATED


@dataclass(frozen=True, slots=True)
class Tariff:
    """How a rental is billed beside its price per hour, as agreed at its launch. ``None`` is not known.

    Use is rounded up to a multiple of ``grain_s`` seconds, and to ``minimum_s`` at least.
    """

    grain_s: int | None = None
    minimum_s: int | None = None
    disk_usd_per_hour: Decimal | None = None
    egress_usd_per_gib: Decimal | None = None

    def billed(self, used: timedelta) -> timedelta:
        """The time that is billed for so much use; what is not known is not added."""
        if not used:
            return used
        grain = timedelta(seconds=self.grain_s or 0)
        steps = -(-used // grain) * grain if grain else used
        return max(steps, timedelta(seconds=self.minimum_s or 0))


@dataclass(frozen=True, slots=True)
class SideResource:
    """Something that bills beside an instance: a disk, an address, a key; ``kind`` is the provider's word.

    ``token`` is that of the instance it was made for.
    """

    provider: str
    kind: str
    ref: InstanceRef
    token: str | None = None
    cluster: str | None = None
    owner: str | None = None
    usd_per_hour: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """When ``nodes`` machines are wanted: for ``lasting``, from between ``earliest`` and ``latest`` on."""

    lasting: timedelta
    earliest: datetime
    latest: datetime
    nodes: int = 1


@dataclass(frozen=True, slots=True)
class Block:
    """Machines that can be reserved for a time. ``usd`` is for all of it and is owed whether they are used.

    ``usd_upfront`` is how much of that is paid when it is bought; ``ref`` is the provider's own handle.
    """

    provider: str
    ref: str
    instance_type: str
    nodes: int
    region: str
    zone: str
    starts_at: datetime
    ends_at: datetime
    usd: Decimal
    usd_upfront: Decimal
    gpu: Gpu | None = None
    gpu_count: int = 0
    currency: str = "USD"
    amount: Decimal | None = None

    @property
    def usd_per_gpu_hour(self) -> Decimal | None:
        """What an hour of one GPU comes to; ``None`` without any."""
        lasts = (self.ends_at - self.starts_at) // MICROSECOND * self.gpu_count * self.nodes
        return self.usd * MICROSECONDS_PER_HOUR / lasts if lasts > 0 else None


@dataclass(frozen=True, slots=True)
class Reservation:
    """A block that was bought, as its provider describes it; ``free`` is how many of it are unused.

    ``ends_at`` is when the machines in it are ended, which may be before the block is over.
    """

    provider: str
    ref: InstanceRef
    state: ReservationState
    instance_type: str
    nodes: int
    zone: str
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    free: int | None = None
    token: str | None = None
    name: str | None = None
    owner: str | None = None


@dataclass(frozen=True, slots=True)
class Booking:
    """A reservation in the books: the block as it was bought, or is about to be, and for whom.

    ``ref`` is the reservation's, once it is known.
    """

    token: str
    name: str
    block: Block
    state: BookingState
    intended_at: datetime
    labels: Labels
    ref: InstanceRef | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Rental:
    """One line of the journal: an instance that was intended, and what became of it.

    ``usd_per_hour`` is the agreed price; ``None`` when an instance was found again and nobody states it.
    ``disk_gib`` is the disk that was asked for. ``waits`` is how long it may be in its provider's queue,
    where it costs nothing, before its lease begins; ``None`` once it has left it.
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
    disk_gib: int | None = None
    tariff: Tariff = Tariff()
    waits: timedelta | None = None

    @property
    def lease(self) -> timedelta | None:
        """How long it may run; ``None`` without an end."""
        if self.expires_at is None:
            return None
        return max(self.expires_at - self.intended_at - (self.waits or timedelta()), timedelta())

    @property
    def worst_cost(self) -> Decimal | None:
        """The most that it can cost until it expires; ``None`` when nothing bounds it."""
        rate = (self.usd_per_hour or Decimal(0)) + (self.tariff.disk_usd_per_hour or Decimal(0))
        if not rate:
            return Decimal(0)
        return None if self.lease is None else over_time(rate, self.tariff.billed(self.lease))


def over_time(usd_per_hour: Decimal, lasted: timedelta) -> Decimal:
    """What a price comes to."""
    return usd_per_hour * (lasted // MICROSECOND) / MICROSECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class Limits:
    """When a cluster must end: ``idle`` is for how long it may do nothing. ``None`` does not limit.

    ``lifted``: the person has said aloud that there shall be no limit.
    """

    max_duration: timedelta | None = None
    max_cost: Decimal | None = None
    idle: timedelta | None = None
    lifted: bool = False


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose money it is: for budgets and for reports."""

    project: str = ""
    user: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A named set of one or more instances rented together; ``ephemeral`` ones end with their ``run``.

    ``rentals`` holds only what is not gone, in order of rank. ``held`` is how much of the budgets is kept for
    it: the most that it can cost.
    """

    id: int
    name: str
    state: ClusterState
    nodes: int
    created_at: datetime
    ephemeral: bool = False
    ended_at: datetime | None = None
    rentals: tuple[Rental, ...] = ()
    limits: Limits = Limits()
    labels: Labels = field(default_factory=Labels)
    held: Decimal = Decimal(0)

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
class Event:
    """A step worth telling while something goes on; ``kind`` is one word, ``message`` a line for a person."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A provider that could not answer, kept beside the answers of the others."""

    provider: str
    code: str
    message: str
    retryable: bool
