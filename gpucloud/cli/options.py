"""The options that several commands share, each declared once, and what they add up to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar

import click
import typer

from gpucloud.cli.app import Command, common
from gpucloud.errors import UsageError
from gpucloud.model import GpuWish, Labels, Market, Requirements
from gpucloud.quantities import parse_duration, parse_gib, parse_usd

if TYPE_CHECKING:
    from gpucloud.config import Config
    from gpucloud.fleet.plan import LaunchRequest
    from gpucloud.market.cost import Readiness, Work

T = TypeVar("T")

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]

_TYPED: Final = "gpucloud.typed"
_MANY: Final = {"multiple": True}

GPU: Final[tuple[str, dict[str, Any]]] = (
    "--gpu",
    {"metavar": "GPU", "default": "", "help": "H100, H100:8, H100-SXM-80:8, 24GB+; several with |."},
)

SEARCH: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    ("--provider", {**_MANY, "metavar": "NAME", "help": "Ask only this provider."}),
    ("--region", {**_MANY, "metavar": "NAME", "help": "Only in this region or zone."}),
    ("--country", {**_MANY, "metavar": "CODE", "help": "Only in this country, as in DE."}),
    (
        "--market",
        {**_MANY, "type": click.Choice([market.value for market in Market]), "help": "Only sold like this."},
    ),
    ("--spot", {"is_flag": True, "help": "Spot offers: cheaper, and they may be taken back."}),
    (
        "--max-price",
        {"metavar": "USD", "default": "", "help": "At most so many dollars an hour for one machine."},
    ),
    ("--min-vcpus", {"type": click.IntRange(1), "help": "At least so many vCPUs."}),
    ("--min-memory", {"metavar": "SIZE", "default": "", "help": "At least so much memory."}),
    ("--disk", {"metavar": "SIZE", "default": "", "help": "At least so much disk."}),
    ("--interconnect", {**_MANY, "metavar": "NAME", "help": "Only with nvlink, ib or the like."}),
    ("--secure-only", {"is_flag": True, "help": "Only in data centres that the provider vouches for."}),
    ("--verified", {"is_flag": True, "help": "Only hosts that their marketplace has checked."}),
    ("--where", {"metavar": "CONDITION", "default": "", "help": "As in 'inet_down>500 and cuda>=12.4'."}),
)

LIST: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    GPU,
    *SEARCH,
    ("--hours", {"metavar": "N", "default": "", "help": "What a job of so many hours would cost."}),
    ("--data", {"metavar": "SIZE", "default": "", "help": "With so much data to be brought there."}),
    ("--egress", {"metavar": "SIZE", "default": "", "help": "With so much traffic out to the internet."}),
)

NODES: Final[tuple[str, dict[str, Any]]] = (
    "--nodes",
    {"type": click.IntRange(1), "default": 1, "help": "How many machines."},
)
PROJECT: Final[tuple[str, dict[str, Any]]] = (
    "--project",
    {"metavar": "NAME", "default": "", "help": "Whose money it is."},
)
TAG: Final[tuple[str, dict[str, Any]]] = (
    "--tag",
    {**_MANY, "metavar": "KEY=VALUE", "help": "For reports of what was spent."},
)
CONSENT: Final[tuple[str, dict[str, Any]]] = ("--yes", {"is_flag": True, "help": "Do it without asking."})

RESERVE: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    GPU,
    *(option for option in SEARCH if option[0] in {"--provider", "--region"}),
    NODES,
    ("--name", {"metavar": "NAME", "default": "", "help": "What to call what is bought."}),
    ("--max-cost", {"metavar": "USD", "default": "", "help": "Buy nothing that costs more dollars."}),
    PROJECT,
    TAG,
    CONSENT,
)

RENT: Final[tuple[tuple[str, dict[str, Any]], ...]] = (
    (
        "--name",
        {"metavar": "NAME", "default": "", "help": "The cluster's name; one that is up is used again."},
    ),
    GPU,
    *SEARCH,
    NODES,
    ("--max-duration", {"metavar": "TIME", "default": "", "help": "End after 90s, 15m, 6h or 2d."}),
    ("--max-cost", {"metavar": "USD", "default": "", "help": "End before it has cost more dollars."}),
    ("--idle", {"metavar": "TIME", "default": "", "help": "End when it has done nothing for so long."}),
    ("--no-limit", {"is_flag": True, "help": "Let it go on, and cost, without any end."}),
    (
        "--require-fuse",
        {"metavar": "A|B|C", "default": "", "help": "Only what ends by itself at least so surely."},
    ),
    (
        "--price-tolerance",
        {"metavar": "SHARE", "default": "", "help": "How far a price may rise until it is rented, as 5%."},
    ),
    (
        "--audition-budget",
        {"metavar": "USD", "default": "", "help": "At most so much for machines that are no good."},
    ),
    ("--image", {"metavar": "IMAGE", "default": "", "help": "Boot this image of the provider's."}),
    (
        "--ssh-from",
        {"metavar": "NETWORK", "default": "", "help": "Who may reach SSH, or anywhere; else this computer."},
    ),
    PROJECT,
    TAG,
    (
        "--reservation",
        {"metavar": "NAME", "default": "", "help": "Launch into what was reserved and is paid for."},
    ),
    ("--dry-run", {"is_flag": True, "help": "Show the plan, and do nothing."}),
    ("--workdir", {"metavar": "DIR", "default": "", "help": "The folder to push, instead of this one."}),
    ("--no-push", {"is_flag": True, "help": "Push no folder."}),
    ("--output", {**_MANY, "metavar": "PATH", "help": "Bring this file, folder or glob home."}),
    ("--env", {**_MANY, "metavar": "NAME[=VALUE]", "help": "A variable for the job."}),
    ("--secret", {**_MANY, "metavar": "NAME", "help": "A variable of here for the job, never stored."}),
    (
        "--wait",
        {"metavar": "TIME", "default": "", "help": "Of --market queued: how long capacity may take to come."},
    ),
    (
        "--ready-timeout",
        {"metavar": "TIME", "default": "", "help": "Give up a machine without SSH after this."},
    ),
    CONSENT,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """The shared options as they were typed."""

    gpu: str = ""
    provider: tuple[str, ...] = ()
    region: tuple[str, ...] = ()
    spot: bool = False
    max_price: str = ""
    min_vcpus: int | None = None
    min_memory: str = ""
    disk: str = ""
    country: tuple[str, ...] = ()
    market: tuple[str, ...] = ()
    interconnect: tuple[str, ...] = ()
    secure_only: bool = False
    verified: bool = False
    where: str = ""
    hours: str = ""
    data: str = ""
    egress: str = ""
    name: str = ""
    nodes: int = 1
    max_duration: str = ""
    max_cost: str = ""
    idle: str = ""
    no_limit: bool = False
    require_fuse: str = ""
    price_tolerance: str = ""
    audition_budget: str = ""
    image: str = ""
    ssh_from: str = ""
    project: str = ""
    tag: tuple[str, ...] = ()
    dry_run: bool = False
    workdir: str = ""
    no_push: bool = False
    output: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    secret: tuple[str, ...] = field(default=(), repr=False)
    wait: str = ""
    reservation: str = ""
    ready_timeout: str = ""
    yes: bool = False

    @classmethod
    def of(cls, ctx: click.Context) -> Self:
        """What was typed for the command that runs."""
        return cls(**ctx.meta[_TYPED])

    def requirements(
        self, gpu: str | None = None, markets: tuple[Market, ...] = (Market.ON_DEMAND,)
    ) -> Requirements:
        """What is wanted. Raises ``UsageError`` naming the option that makes no sense."""
        return Requirements(
            gpus=gpus(self.gpu if gpu is None else gpu),
            markets=self._markets or markets,
            regions=self.region,
            max_usd_per_hour=parsed("--max-price", self.max_price, parse_usd),
            min_vcpus=self.min_vcpus,
            min_memory_gib=_whole(parsed("--min-memory", self.min_memory, parse_gib)),
            min_disk_gib=self.disk_gib,
            countries=self.country,
            interconnects=self.interconnect,
            secure_only=self.secure_only,
            verified_only=self.verified,
            where=self.where,
        )

    def gpu_or(self, argument: str) -> str:
        """The GPU, which may be typed in two ways. Raises ``UsageError`` for both at once."""
        if self.gpu and argument:
            raise UsageError(
                "two GPUs were typed",
                why=f"{argument!r} and --gpu {self.gpu!r}",
                hint=f"--gpu '{argument}|{self.gpu}' for either",
            )
        return self.gpu or argument

    @property
    def _markets(self) -> tuple[Market, ...]:
        return tuple(map(Market, {*self.market, *([Market.SPOT] if self.spot else [])}))

    @property
    def disk_gib(self) -> int | None:
        """``--disk`` in whole GiB."""
        return _whole(parsed("--disk", self.disk, parse_gib))

    @property
    def longest(self) -> timedelta | None:
        """``--max-duration``."""
        return parsed("--max-duration", self.max_duration, parse_duration)

    @property
    def dearest(self) -> Decimal | None:
        """``--max-cost``."""
        return parsed("--max-cost", self.max_cost, parse_usd)

    def request(self, config: Config, *, ephemeral: bool = False) -> LaunchRequest:
        """What to rent. Raises ``UsageError`` and ``ConfigError``."""
        from gpucloud.cli.context import check_name, fresh_name
        from gpucloud.fleet.plan import LaunchRequest, parse_fuse

        limited = [name for name in ("max_duration", "max_cost", "idle") if getattr(self, name)]
        if self.no_limit and limited:
            option = "--" + limited[0].replace("_", "-")
            raise UsageError(
                f"{option} and --no-limit contradict each other", why="one sets a limit", hint="give one"
            )
        return LaunchRequest(
            name=check_name(self.name) if self.name else fresh_name(),
            requirements=self.requirements(),
            nodes=self.nodes,
            max_duration=self.longest,
            max_cost=self.dearest,
            idle=parsed("--idle", self.idle, parse_duration),
            no_limit=self.no_limit,
            fuse=parse_fuse(self.require_fuse),
            labels=self.labels(config),
            ephemeral=ephemeral,
            image=self.image or None,
            disk_gib=self.disk_gib,
            reservation=self.reservation or None,
        )

    def labels(self, config: Config) -> Labels:
        """Whose money it is. Raises ``UsageError`` and ``ConfigError``."""
        from gpucloud.cli.context import user

        return Labels(self.project or config.get("launch.project"), user(), _tags(self.tag))

    @property
    def folder(self) -> str | None:
        """The folder to push. Raises ``UsageError`` for one that nobody means to send."""
        return None if self.no_push else folder_to_push(self.workdir)

    @property
    def outputs(self) -> tuple[str, ...]:
        """``--output``. Raises ``UsageError`` for what is not below the folder that jobs run in."""
        from gpucloud.taskfile import parse_output

        return tuple(path for text in self.output if (path := parsed("--output", text, parse_output)))

    @property
    def flags(self) -> dict[str, str]:
        """The settings that options override."""
        given = {
            "launch.ready_timeout": self.ready_timeout,
            "launch.wait": self.wait,
            "launch.price_tolerance": self.price_tolerance,
            "launch.audition_budget": self.audition_budget,
            "launch.ssh_from": self.ssh_from,
        }
        return {name: text for name, text in given.items() if text}


class Searching(Command):
    """A command that looks for offers."""

    shared = SEARCH

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        own = len(self.params) - len(common())
        self.params[own:own] = [
            click.Option([name], expose_value=False, callback=_remember, **rest) for name, rest in self.shared
        ]

    def only_shows(self, ctx: click.Context) -> bool:
        """As every command; ``--dry-run`` may be one of the shared options."""
        return Typed.of(ctx).dry_run or super().only_shows(ctx)


class Listing(Searching):
    """A command that shows offers."""

    shared = LIST


class Reserving(Searching):
    """A command that reserves."""

    shared = RESERVE


class Renting(Searching):
    """A command that rents."""

    shared = RENT


def _tags(given: tuple[str, ...]) -> dict[str, str]:
    tags = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise UsageError(
                f"--tag {item!r} makes no sense", why="it is KEY=VALUE", hint="--tag team=vision"
            )
        tags[key] = value
    return tags


def work(hours: str, disk: str, data: str, egress: str, readiness: Callable[[], Readiness]) -> Work | None:
    """What ``--hours`` and the options beside it describe, if it is a job. Raises ``UsageError``."""
    from gpucloud.market.cost import Work, parse_hours

    long = parsed("--hours", hours, parse_hours)
    wide = parsed("--disk", disk, parse_gib)
    there, back = parsed("--data", data, parse_gib), parsed("--egress", egress, parse_gib)
    if long is not None:
        return Work(long, wide, back, there, readiness())
    for option, amount in ("--data", there), ("--egress", back):
        if amount is not None:
            raise UsageError(f"{option} needs --hours", why="a job is what costs", hint="--hours 6")
    return None


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.meta.setdefault(_TYPED, {})[param.name] = value


def gpus(text: str) -> tuple[GpuWish, ...]:
    """``--gpu``: wishes separated by ``|``."""
    from gpucloud.catalog.names import parse_wish

    wishes = [parsed("--gpu", part.strip(), parse_wish) for part in text.split("|")] if text else []
    return tuple(wish for wish in wishes if wish)


def parsed(option: str, text: str, parse: Callable[[str], T]) -> T | None:
    """What an option means; ``None`` when it was not given. Raises ``UsageError`` naming it."""
    try:
        return parse(text) if text else None
    except ValueError as error:
        raise UsageError(
            f"{option} makes no sense", why=str(error), hint="see --help for an example"
        ) from error


def variables(given: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``--env``: NAME=VALUE, or NAME for the value that it has here. Raises ``UsageError``."""
    found = {}
    for item in given:
        name, equals, value = item.partition("=")
        found[_variable("--env", name)] = value if equals else _value_here("--env", name, environ)
    return found


def secrets(given: tuple[str, ...], environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``--secret``: NAME for the value that it has here. Raises ``UsageError``; values are never told."""
    return {name: _value_here("--secret", name, environ) for name in secret_names(given)}


def secret_names(given: tuple[str, ...]) -> tuple[str, ...]:
    """``--secret``: the names alone. Raises ``UsageError`` where there is a value, or no name."""
    for item in given:
        if "=" in item:
            raise UsageError(
                "--secret takes a name, not a value",
                why="what is on a command line can be read by everybody on this machine",
                hint="export it, then --secret NAME",
            )
    return tuple(_variable("--secret", name) for name in given)


def _variable(option: str, name: str) -> str:
    if not (name.isidentifier() and name.isascii()):
        raise UsageError(
            f"{option} names no variable", why="letters, digits and _ only", hint=f"{option} NAME"
        )
    return name


def _value_here(option: str, name: str, environ: Mapping[str, str]) -> str:
    if name not in environ:
        raise UsageError(
            f"the variable {name} is not set here",
            why=f"{option} {name} passes it on",
            hint=f"export {name}=...",
        )
    return environ[name]


def folder_to_push(workdir: str) -> str:
    """A folder by its whole path. Raises ``UsageError`` for one that nobody means to send."""
    folder = Path(workdir or ".").expanduser().resolve()
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {workdir}", why="it is what would be pushed", hint="ls, or --no-push"
        )
    if folder in {Path.home().resolve(), Path("/")}:
        raise UsageError(
            f"{folder} would be pushed whole",
            why="it is your home folder or the whole disk, not a project",
            hint="cd into a project, name it with --workdir, or give --no-push",
        )
    return str(folder)


def _whole(size: Decimal | None) -> int | None:
    return None if size is None else -int(-size // 1)
