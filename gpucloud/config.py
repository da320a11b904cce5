"""Settings: flag > environment > project file > user file > default, read once, each with its origin.

Every core setting is declared once in ``OPTIONS``; that one line makes its environment variable, its place
in the files and its row in ``gpucloud config show``. The tables below ``[providers]`` belong to the adapters,
who validate them; ``GPUCLOUD_<PROVIDER>_<KEY>`` overrides a key there.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, cast

from gpucloud.credentials import FILE, CredentialFile, Credentials
from gpucloud.errors import ConfigError
from gpucloud.provider import ProviderSettings
from gpucloud.quantities import parse_duration, parse_usd

PROJECT_FILE: Final = "gpucloud.toml"


@dataclass(frozen=True, slots=True)
class Option:
    """One core setting: ``section.key``, how its text is read, its default as text, and one line of help."""

    name: str
    parse: Callable[[str], Any]
    default: str
    help: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return "GPUCLOUD_" + self.name.replace(".", "_").upper()


def _names(text: str) -> tuple[str, ...]:
    # A provider may carry a script, which has commas of its own: sim:stockout=2,boot=5s
    names = re.split(r",(?=\s*(?:[a-z][a-z0-9_-]*\s*(?:[:,]|$)|,|$))", text)
    return tuple(name.strip() for name in names if name.strip())


def _factor(text: str) -> Decimal:
    if not re.fullmatch(r"[1-9][0-9]*(\.[0-9]+)?", text.strip(), re.ASCII):
        raise ValueError(f"{text!r} is not a number of 1 or more")
    return Decimal(text.strip())


def _share(text: str) -> Decimal:
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?)\s*%", text.strip(), re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is no share; write 5%")
    return Decimal(match[1]) / 100


def _usd_or_none(text: str) -> Decimal | None:
    return None if text.strip().lower() in _NONE else parse_usd(text)


def _duration_or_none(text: str) -> timedelta | None:
    return None if text.strip().lower() in _NONE else parse_duration(text)


def _duration_or_zero(text: str) -> timedelta:
    return timedelta() if text.strip() == "0" else parse_duration(text)


def _client(text: str) -> str:
    if text.strip() not in _CLIENTS:
        raise ValueError(f"{text!r} is no SSH client; write {', '.join(_CLIENTS)}")
    return text.strip()


def _project_caps(text: str) -> dict[str, Decimal]:
    caps = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        name, equals, amount = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError(f"{pair!r} is no cap; write train=100 for dollars a month")
        caps[name.strip()] = parse_usd(amount)
    return caps


def _rates(text: str) -> dict[str, Decimal]:
    rates = {}
    for pair in filter(None, map(str.strip, text.split(","))):
        match = re.fullmatch(r"([A-Za-z]{3})\s*=\s*([0-9]+(?:\.[0-9]+)?)", pair, re.ASCII)
        if not match or not Decimal(match[2]):
            raise ValueError(f"{pair!r} is no rate; write EUR=1.10 for dollars per euro")
        rates[match[1].upper()] = Decimal(match[2])
    return rates


def _networks(text: str) -> tuple[str, ...] | None:
    from ipaddress import ip_network

    wanted = [part.strip() for part in text.split(",") if part.strip()]
    if wanted in (["auto"], ["anywhere"]):
        return None if wanted == ["auto"] else ()
    if not wanted:
        raise ValueError("it is empty; write auto, anywhere or a network such as 203.0.113.0/24")
    return tuple(str(ip_network(part)) for part in wanted)


_NONE: Final = {"", "none"}
_CLIENTS: Final = ("auto", "openssh", "builtin")

OPTIONS: Final = {
    option.name: option
    for option in (
        Option(
            "launch.max_duration", parse_duration, "24h", "when a paid launch ends without --max-duration"
        ),
        Option(
            "launch.max_cost", _usd_or_none, "100", "dollars at which a paid launch ends without --max-cost"
        ),
        Option("launch.idle", _duration_or_none, "none", "end a machine that has done nothing for so long"),
        Option("launch.project", str.strip, "", "whose money it is, in budgets and reports"),
        Option(
            "launch.price_tolerance", _share, "5%", "how far a price may have risen when it comes to renting"
        ),
        Option(
            "launch.audition_budget", _usd_or_none, "1", "dollars for machines that turn out to be no good"
        ),
        Option(
            "launch.require_fuse", str.strip, "", "refuse what is weaker than A, B or C at ending by itself"
        ),
        Option(
            "launch.ready_timeout", parse_duration, "10m", "how long a machine may take until SSH answers"
        ),
        Option(
            "launch.wait", parse_duration, "2h", "how long a queued machine may wait for capacity, unbilled"
        ),
        Option(
            "launch.end_timeout", parse_duration, "3m", "how long to wait for proof that a machine is gone"
        ),
        Option(
            "launch.refusal_ttl",
            parse_duration,
            "10m",
            "how long an offer that was refused is not asked again",
        ),
        Option("launch.quota_ttl", parse_duration, "24h", "the same for an offer that a quota forbids"),
        Option(
            "launch.price_factor", _factor, "3", "offers dearer than this many times the best are not tried"
        ),
        Option(
            "launch.ssh_from",
            _networks,
            "auto",
            "who may reach SSH: networks, anywhere, or auto for this computer",
        ),
        Option(
            "launch.address_urls",
            _names,
            "https://api.ipify.org,https://api6.ipify.org",
            "services that tell this computer's public address as JSON",
        ),
        Option("budget.launch", _usd_or_none, "none", "the most that one launch may cost"),
        Option("budget.day", _usd_or_none, "none", "the most that may be spent a day, in UTC"),
        Option("budget.month", _usd_or_none, "none", "the most that may be spent a month, in UTC"),
        Option(
            "budget.projects", _project_caps, "", "the most for a project a month, as in train=100,eval=20"
        ),
        Option("offers.timeout", parse_duration, "8s", "how long to wait for the slowest provider"),
        Option("offers.max_age", parse_duration, "60s", "offers that are younger are not asked for again"),
        Option(
            "offers.providers", _names, "", "ask only these providers, separated by commas; empty asks all"
        ),
        Option(
            "currency.rates", _rates, "", "dollars for one unit, as in EUR=1.10,CNY=0.14; others are built in"
        ),
        Option("ssh.connect_timeout", parse_duration, "15s", "how long one attempt to connect may take"),
        Option(
            "ssh.reconnect_timeout", parse_duration, "10m", "how long to try to get a lost connection back"
        ),
        Option(
            "ssh.persist", _duration_or_zero, "5m", "how long a connection stays for the next command; 0: not"
        ),
        Option("ssh.client", _client, "auto", "which SSH client connects: auto, openssh or builtin"),
    )
}

_VARIABLES: Final = frozenset(option.variable for option in OPTIONS.values())


@dataclass(frozen=True, slots=True)
class Setting:
    """A value as text, and where it was set."""

    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one command, and the folders it uses."""

    settings: Mapping[str, Setting]
    tables: Mapping[str, Mapping[str, Any]]
    table_origin: str
    data_dir: Path
    config_dir: Path
    environ: Mapping[str, str] = field(repr=False)

    def get(self, name: str) -> Any:
        """The parsed value of a core setting. Raises ``ConfigError`` naming the origin of a bad one."""
        setting = self.settings[name]
        try:
            return OPTIONS[name].parse(setting.text)
        except ValueError as error:
            raise ConfigError(
                f"the setting {name} is wrong",
                why=f"{setting.origin}: {error}",
                hint="gpucloud config show --origin",
            ) from error

    def duration(self, name: str) -> timedelta:
        """The value of a setting that is a duration."""
        return cast(timedelta, self.get(name))

    @property
    def rates(self) -> dict[str, Decimal]:
        """Dollars for one unit of each currency for which the person has said so."""
        return cast(dict[str, Decimal], self.get("currency.rates"))

    def overrides(self, name: str) -> dict[str, str]:
        """The keys of a provider that the environment sets, and by which variable."""
        prefix = f"GPUCLOUD_{name.upper()}_"
        # The core's own settings may share the prefix, as ssh.connect_timeout does with the provider ssh.
        return {
            variable.removeprefix(prefix).lower(): variable
            for variable in self.environ
            if variable.startswith(prefix) and variable not in _VARIABLES
        }

    @property
    def credential_file(self) -> CredentialFile:
        """Our own file of provider keys, which ``gpucloud login`` writes; it may be missing."""
        return CredentialFile(self.config_dir / FILE)

    def provider(self, name: str, script: str = "") -> ProviderSettings:
        """What an adapter gets to see: its table with the environment's overrides, its folder, its script."""
        overridden = {key: self.environ[variable] for key, variable in self.overrides(name).items()}
        return ProviderSettings(
            name=name,
            state_dir=self.data_dir / "providers" / name,
            table={**self.tables.get(name, {}), **overridden},
            environ=self.environ,
            script=script,
            rates=self.rates,
            lookup=Credentials(
                provider=name,
                file=self.credential_file,
                environ=self.environ,
                table=self.tables.get(name, {}),
                table_file=Path(self.table_origin),
            ),
        )


def load(flags: Mapping[str, str], environ: Mapping[str, str], folder: Path) -> Config:
    """Read all sources for a command that runs in ``folder``.

    Raises:
        ConfigError: when a file cannot be read, is not TOML or has an unknown key.
    """
    from platformdirs import PlatformDirs

    dirs = PlatformDirs("gpucloud", appauthor=False)
    user_file = dirs.user_config_path / "config.toml"
    project_file = next(
        (p / PROJECT_FILE for p in (folder, *folder.parents) if (p / PROJECT_FILE).is_file()), None
    )

    settings = {name: Setting(option.default, "default") for name, option in OPTIONS.items()}
    user, tables = _read(user_file)
    settings.update(user)
    if project_file:
        project, foreign = _read(project_file)
        if foreign:
            # A cloned repository must not decide where the code and the secrets of a person go.
            raise ConfigError(
                f"{project_file} has a [providers] table",
                why="a project file may not name providers or machines",
                hint=f"move it to {user_file}",
            )
        own = sorted(name for name in project if name.startswith("budget."))
        if own:
            raise ConfigError(
                f"{project_file} sets {own[0]}",
                why="a project file may not say how much of your money may be spent",
                hint=f"move it to {user_file}",
            )
        settings.update(project)
    for option in OPTIONS.values():
        if option.variable in environ:
            settings[option.name] = Setting(environ[option.variable], option.variable)
    settings.update({name: Setting(text, "flag") for name, text in flags.items()})
    return Config(settings, tables, str(user_file), dirs.user_data_path, dirs.user_config_path, environ)


def _read(file: Path) -> tuple[dict[str, Setting], dict[str, dict[str, Any]]]:
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return {}, {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{file} cannot be read", why=str(error), hint=f"{os.environ.get('EDITOR', 'vi')} {file}"
        ) from error
    tables = document.pop("providers", {})
    settings: dict[str, Setting] = {}
    for name, value in _flatten(document):
        if name not in OPTIONS:
            close = difflib.get_close_matches(name, OPTIONS, n=1)
            raise ConfigError(
                f"{file}: unknown setting {name!r}",
                why=f"known are {', '.join(OPTIONS)}",
                hint=f"did you mean {close[0]!r}?" if close else "gpucloud config show",
            )
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        settings[name] = Setting(text, str(file))
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(
            f"{file}: [providers] must hold one table for each provider",
            why="for example [providers.ssh.hosts.box] or [providers.sim]",
            hint=f"{os.environ.get('EDITOR', 'vi')} {file}",
        )
    return settings, tables


def _flatten(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in document.items():
        name = f"{prefix}{key}"
        pairs += _flatten(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return pairs
