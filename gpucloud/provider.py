"""What an adapter must do (five verbs), may do (ability protocols) and is (``Traits``).

An adapter imports only this module, ``model``, ``errors`` and ``http``. It translates one vendor's words
into ours; it never waits, never opens SSH and never prints. ``gpucloud.testing.ProviderConformance`` is this
contract as tests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self, runtime_checkable

from gpucloud.errors import AuthError, ConfigError
from gpucloud.http import HttpClient
from gpucloud.model import (
    Block,
    Instance,
    InstanceRef,
    InstanceState,
    Market,
    Offer,
    Requirements,
    Reservation,
    SideResource,
    Window,
)

_LEASE: Final = "%Y-%m-%dT%H:%M:%SZ"
"""How the end of a lease is written into a tag; in UTC."""


class Kind(StrEnum):
    """What an instance is."""

    VM = "vm"
    CONTAINER = "container"
    MACHINE = "machine"
    PROCESS = "process"


class Reach(StrEnum):
    """How an instance is reached."""

    SSH_KEY = "ssh-key"
    SSH_PASSWORD = "ssh-password"
    SSH_PROXY = "ssh-proxy"
    EXEC = "exec"
    NONE = "none"


class StoppedBilling(StrEnum):
    """What goes on billing while an instance is stopped."""

    NONE = "none"
    STORAGE = "storage"
    FULL = "full"
    UNKNOWN = "unknown"
    UNSUPPORTED = "unsupported"


class Fuse(StrEnum):
    """How an instance can end itself with every client gone, strongest first.

    A: the provider expires it. B: the host holds a credential that can end only itself. C: the host can
    power off (compute stops, disk may bill). D: only a client can stop it.
    """

    PROVIDER = "A"
    HOST = "B"
    POWER_OFF = "C"
    CLIENT = "D"


@dataclass(frozen=True, slots=True)
class Traits:
    """Facts about a provider that the core branches on, never on its name.

    ``plants_host_key``: launch installs ``spec.host_key`` as the machine's SSH host key.
    ``outlives_instance``: the machine is there before and after the rental, so the core cleans up our folder
    on it before terminate. ``notice_probe`` is POSIX sh that succeeds on the host once an interruption has
    been announced, and ends with 3 while the provider only advises to leave. ``listing_lag_s`` is how long a
    new instance may be missing from the listing.
    ``self_end`` is POSIX sh that ends the instance from within, where the fuse is B or C. ``console`` is the
    address of the page on which a person can end an instance, and ``end_command`` the vendor's own command
    for it, both with ``{id}`` and ``{region}`` where these belong. ``firewalled``: launch opens SSH to
    ``spec.ssh_from`` alone. ``usual_disk_gib`` is how large a disk, if it is paid for beside the instance,
    launch gives where none is asked for.
    """

    kind: Kind
    markets: frozenset[Market]
    reach: Reach
    fuse: Fuse
    billing_grain_s: int | None
    billing_minimum_s: int | None
    billed_while_stopped: StoppedBilling
    name_length: int
    idempotent_launch: bool
    listing_lag_s: float
    interruption_notice_s: int | None = None
    notice_probe: str = ""
    plants_host_key: bool = False
    outlives_instance: bool = False
    self_end: str = ""
    console: str = ""
    end_command: str = ""
    firewalled: bool = False
    usual_disk_gib: int | None = None


class Evidence(StrEnum):
    """What an adapter was tried on, the strongest first.

    The vendor itself, replies that were recorded there, the vendor's own documents, or what others tell.
    """

    LIVE = "live"
    RECORDED = "recorded"
    DOCUMENT = "document"
    COMMUNITY = "community"


class FileFormat(StrEnum):
    """How a vendor's own tool writes its file."""

    TOML = "toml"
    JSON = "json"
    INI = "ini"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class VendorFile:
    """A file below home in which a vendor's own tool keeps a secret, such as ``~/.acme/config.toml``.

    ``key`` is its dotted place in there, such as ``default.api_key``; a plain file holds nothing else.
    """

    path: str
    format: FileFormat
    key: str = ""


@dataclass(frozen=True, slots=True)
class Credential:
    """One secret that an adapter needs, and where people may have it already.

    ``key`` is its name in our files, ``variables`` are the vendor's names for it in the environment, and
    ``page`` is the address where a person gets one.
    """

    key: str
    variables: tuple[str, ...] = ()
    files: tuple[VendorFile, ...] = ()
    page: str = ""


class CredentialLookup(Protocol):
    """Finds the secrets of one provider; nothing is read before it is asked."""

    def source(self, wanted: Credential) -> str | None:
        """Say in words where it would be read from; ``None`` when it is nowhere."""

    def read(self, wanted: Credential) -> str:
        """Return the secret itself. Raises ``AuthError`` when it is nowhere."""


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """Everything an adapter gets from outside: its config table, its part of the environment, its own folder.

    ``script`` is what followed the colon of a provider URL such as ``sim:stockout=2``. ``rates`` are what one
    unit of a currency is worth in US dollars where the person has said so. Without ``lookup`` credentials are
    what the table has under their keys.
    """

    name: str
    state_dir: Path
    table: Mapping[str, Any] = field(default_factory=dict, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    script: str = ""
    rates: Mapping[str, Decimal] = field(default_factory=dict)
    lookup: CredentialLookup | None = field(default=None, repr=False)

    def credential(self, wanted: Credential) -> str:
        """A secret. Raises ``AuthError`` naming every place that was looked at, or ``ConfigError``."""
        if self.lookup:
            return self.lookup.read(wanted)
        if self.credential_source(wanted) is None:
            raise AuthError(
                f"{self.name}: there is no {wanted.key}",
                provider=self.name,
                why="its settings have none",
                hint=f"gpucloud login {self.name}",
            )
        return str(self.table[wanted.key])

    def credential_source(self, wanted: Credential) -> str | None:
        """Where a secret would come from, in words; ``None`` when there is none. Raises ``ConfigError``."""
        if self.lookup:
            return self.lookup.source(wanted)
        return "settings" if self.table.get(wanted.key) else None

    def names(self, key: str) -> tuple[str, ...]:
        """A key of the table that is a list, or a text with commas. Raises ``ConfigError``."""
        listed = self.table.get(key, ())
        if isinstance(listed, str):
            listed = listed.split(",")
        if not isinstance(listed, list | tuple) or not all(isinstance(name, str) for name in listed):
            raise ConfigError(
                f"the setting providers.{self.name}.{key} is wrong",
                why=f"{listed!r} is no list of names",
                hint=f'write {key} = ["one", "another"]',
            )
        return tuple(name.strip() for name in listed if name.strip())


@dataclass(frozen=True, slots=True)
class HostKeyPair:
    """An SSH host key made by us: OpenSSH private key text, and the public line ``ssh-ed25519 AAAA...``."""

    private: str = field(repr=False)
    public: str


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """What to launch. ``token`` is unique for ever and must be found again in the provider's listing.

    ``public_key`` is the line for the login user's ``authorized_keys``. ``expires_at`` is to be honoured
    by providers whose fuse is A; all write it into a tag, from which lost books learn it again. ``ssh_from``
    are the networks, such as ``203.0.113.7/32``, that are to reach SSH; none means everybody. ``group`` is
    common to the ``nodes`` that are rented together and to nothing else; a single node has none. ``wait`` is
    how long a queued offer may wait for capacity; the lease that ends at ``expires_at`` begins after it.
    ``reservation`` is the provider's name of the one to launch into.
    """

    token: str
    cluster: str
    rank: int
    owner: str
    public_key: str
    host_key: HostKeyPair | None = None
    image: str | None = None
    disk_gib: int | None = None
    max_usd_per_hour: Decimal | None = None
    expires_at: datetime | None = None
    ssh_from: tuple[str, ...] = ()
    group: str | None = None
    nodes: int = 1
    wait: timedelta | None = None
    reservation: str | None = None

    @property
    def tags(self) -> dict[str, str]:
        """The tags, labels or name parts by which every instance of ours is recognised."""
        return {
            "gpucloud-token": self.token,
            "gpucloud-name": self.cluster,
            "gpucloud-rank": str(self.rank),
            "gpucloud-owner": self.owner,
            **({"gpucloud-lease": self.expires_at.strftime(_LEASE)} if self.expires_at else {}),
        }

    def begun(self, offer: Offer, ref: InstanceRef, **more: Any) -> Instance:
        """What a launch of an offer has begun to make, while no more is known of it."""
        begun = Tagged(self.token, self.cluster, self.rank, self.owner, self.expires_at)
        known = {"instance_type": offer.instance_type, "market": offer.market}
        state = InstanceState.PENDING
        return begun.instance(
            offer.provider, ref, state, usd_per_hour=offer.usd_per_hour, **{**known, **more}
        )


@dataclass(frozen=True, slots=True)
class Tagged:
    """What the tags of an instance, or of something beside it, say: ``LaunchSpec.tags`` read back."""

    token: str | None = None
    cluster: str | None = None
    rank: int | None = None
    owner: str | None = None
    expires_at: datetime | None = None

    @classmethod
    def read(cls, tags: Mapping[str, str]) -> Self:
        """Read tags of which somebody may have changed or taken away some; what makes no sense is unknown."""
        rank, expires_at = tags.get("gpucloud-rank", ""), None
        with suppress(ValueError):
            expires_at = datetime.strptime(tags.get("gpucloud-lease", ""), _LEASE).replace(tzinfo=UTC)
        return cls(
            token=tags.get("gpucloud-token"),
            cluster=tags.get("gpucloud-name"),
            rank=int(rank) if rank.isdecimal() else None,
            owner=tags.get("gpucloud-owner"),
            expires_at=expires_at,
        )

    def instance(self, provider: str, ref: InstanceRef, state: InstanceState, **more: Any) -> Instance:
        """An instance with these tags; ``more`` are its other fields."""
        tags = {
            "token": self.token,
            "cluster": self.cluster,
            "rank": self.rank,
            "owner": self.owner,
            "expires_at": self.expires_at,
        }
        return Instance(provider, ref, state, **{**tags, **more})


class Adapter:
    """The code for one provider. Constructing it does no I/O and never fails for want of credentials.

    ``credentials`` are what ``gpucloud login`` asks for; a verb reads one by ``settings.credential``.
    ``evidence`` is what it was tried on, and ``as_of`` the day of the facts that it was made after.
    ``client`` is what makes its HTTP client, from a name and an address; tests give it less patience.
    """

    name: ClassVar[str]
    evidence: ClassVar[Evidence] = Evidence.COMMUNITY
    as_of: ClassVar[date | None] = None
    credentials: ClassVar[tuple[Credential, ...]] = ()
    client: Callable[..., HttpClient] = HttpClient

    def __init__(self, settings: ProviderSettings) -> None:
        self.settings = settings


class Provider(Adapter, ABC):
    """One provider that can be rented from.

    ``rehearsable``: all that its verbs change, they change by requests that ``client`` sends, or that
    ``gpucloud.calls`` is told of. Only then a verb is called to show what it would send.
    """

    traits: ClassVar[Traits]
    rehearsable: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def configured(cls, settings: ProviderSettings) -> bool:
        """Whether the person has set this provider up; told from the settings alone, without network."""

    @abstractmethod
    def offers(self, requirements: Requirements) -> Iterable[Offer]:
        """Yield what can be rented now at live prices.

        May leave out what surely does not match; the core filters again. Availability that the provider does
        not state is ``UNKNOWN``. Raises ``AuthError``, ``Unreachable``, ``RateLimited`` or ``BadReply``.
        """

    @abstractmethod
    def launch(self, offer: Offer, spec: LaunchSpec) -> Instance:
        """Rent one instance and return as soon as the provider accepts; never wait for it to boot.

        ``spec.token`` goes into the provider's idempotency key where there is one, and always into a tag,
        label or name. Raises ``NoCapacity``, ``QuotaExceeded`` or ``RateLimited`` when nothing was made, and
        any ``ProviderError`` with ``outcome_unknown`` when something may have been.
        """

    @abstractmethod
    def get(self, ref: InstanceRef) -> Instance:
        """Return one instance as it is now. Raises ``NotFound`` when the provider no longer knows it."""

    @abstractmethod
    def instances(self) -> Iterable[Instance]:
        """Yield everything in the account that carries our tag, of every owner, and nothing else.

        Instances that are surely over may be left out or be ``TERMINATED``. Raises rather than leave out
        part of the account that could not be listed: silence is not absence.
        """

    @abstractmethod
    def terminate(self, ref: InstanceRef) -> None:
        """End an instance and what launch created beside it; a missing instance is success. Never waits."""


@runtime_checkable
class ChecksCredentials(Protocol):
    """The provider can be asked whether credentials are good, by something that changes and costs nothing."""

    def check_credentials(self, values: Mapping[str, str]) -> str:
        """Return whose they are, as the provider calls the account. ``values`` is by the keys of each.

        They are not stored yet, so they are not to be read from the settings. Raises ``AuthError`` for those
        that the provider refuses, and what a read over the network raises.
        """


@runtime_checkable
class ReportsHostKeys(Protocol):
    """The provider knows the SSH host keys of its instances."""

    def host_keys(self, ref: InstanceRef) -> tuple[str, ...]:
        """Return public lines such as ``ssh-ed25519 AAAA...``; empty while they are not known yet."""


@runtime_checkable
class Stops(Protocol):
    """The provider can stop an instance, so that it bills less, and start it again with its disk."""

    def stop(self, ref: InstanceRef) -> None:
        """Stop it; one that is stopped is success. Never waits. Raises ``NotFound``."""

    def start(self, ref: InstanceRef) -> None:
        """Start it again; one that runs is success. Never waits. Raises ``NotFound`` or ``NoCapacity``."""


@runtime_checkable
class MovesExpiry(Protocol):
    """The provider can be told another moment at which it is to end an instance by itself."""

    def expire(self, ref: InstanceRef, at: datetime) -> None:
        """Let it end then instead. Raises ``NotFound``."""


@runtime_checkable
class HasSideResources(Protocol):
    """The provider bills, beside instances, for things that launch makes: disks, addresses and the like."""

    def side_resources(self) -> Iterable[SideResource]:
        """Yield all such things in the account that carry our tag, of every owner, as ``instances`` does."""

    def remove(self, resource: SideResource) -> None:
        """Delete one; a missing one is success. Never waits."""


@runtime_checkable
class KeepsShared(Protocol):
    """The provider keeps what launches share and what costs nothing: networks, firewalls, keys."""

    def shared_resources(self) -> Iterable[SideResource]:
        """Yield all such things of ours in the account, without a token, in the order to be removed in."""

    def remove_shared(self, resource: SideResource) -> None:
        """Delete one; a missing one is success. Raises ``Rejected`` while something still uses it."""


@runtime_checkable
class Admits(Protocol):
    """The provider lets only chosen networks reach SSH, and more of them later."""

    def admit(self, ref: InstanceRef, networks: Sequence[str]) -> None:
        """Let networks such as ``203.0.113.7/32`` reach an instance too. Raises ``NotFound``."""


@runtime_checkable
class Advises(Protocol):
    """The provider tells of chosen offers how likely they are to be had; asking is slow, or rationed."""

    def advise(self, offers: Sequence[Offer], nodes: int) -> Iterable[Offer]:
        """Yield those of which something is told, with the ``availability``, its detail and the interruptions
        of renting so many of it at once. Raises what a read over the network raises.
        """


@runtime_checkable
class Reserves(Protocol):
    """The provider sells capacity for a time to come, which machines are launched into later."""

    def blocks(self, wanted: Requirements, window: Window) -> Iterable[Block]:
        """Yield what can be reserved now, of what ``wanted`` asks for. Raises what ``offers`` raises."""

    def reserve(self, block: Block, spec: LaunchSpec) -> Reservation:
        """Buy it, which cannot be taken back. ``spec.tags`` go onto it; nothing else of ``spec`` counts.

        Raises ``NoCapacity`` when somebody else has bought it, and any ``ProviderError`` with
        ``outcome_unknown`` when it may have been bought: it is then looked for among ``reservations``.
        """

    def reservations(self) -> Iterable[Reservation]:
        """Yield every reservation in the account that carries our tag, as ``instances`` does."""


@dataclass(frozen=True, slots=True)
class Published:
    """One part of a public catalogue as it was read; ``validator`` is what tells this edition from the next.

    Its offers have the confidence ``published``: they are prices, not promises.
    """

    offers: Sequence[Offer]
    validator: str | None = None


@runtime_checkable
class PublicCatalog(Protocol):
    """The provider tells its prices to everybody, without an account.

    A catalogue has parts, such as one for each region; each is read, and replaced, as a whole.
    """

    def catalog_parts(self, regions: Sequence[str]) -> Sequence[str]:
        """Name the parts that tell of ``regions``, or without any those that most people want.

        A catalogue in one piece has the one part ``""``. Raises ``NotFound`` for a region that it has not,
        and what a read over the network raises.
        """

    def catalog(
        self, part: str, validator: str | None, tell: Callable[[int, int | None], None]
    ) -> Published | None:
        """Read one part; ``None`` when it is still the edition that ``validator`` is of.

        Only offers with a GPU. ``tell`` is to be called with how many bytes of how many, if that is known,
        have been read. Raises ``Unreachable``, ``RateLimited``, ``Rejected`` or ``BadReply``.
        """


@runtime_checkable
class SpotHistory(Protocol):
    """The provider tells what spot instances have cost, to who has an account there."""

    def spot_history(self, since: datetime, regions: Sequence[str]) -> Iterable[Offer]:
        """Yield spot offers with a GPU, each as of the moment from which on it had its price.

        They are of the time since ``since``, of ``regions``, or without any of those that most people want;
        each has the confidence ``history``. Raises ``AuthError`` without credentials, ``NotFound`` for a
        region that it has not, and what a read over the network raises.
        """
