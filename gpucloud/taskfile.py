"""Task files: the YAML of ``gpucloud run FILE.yaml``, checked whole before anything is rented.

Works on YAML nodes instead of loaded objects: a node knows its line and keeps a scalar as the text that was
written, so ``1e-3``, ``010`` and ``true`` reach the job unchanged. No message quotes a variable's value.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final, TypeVar

from gpucloud.catalog.names import parse_wish
from gpucloud.errors import ConfigError, UsageError
from gpucloud.model import GpuWish, JobSpec, Market, Mount, Requirements
from gpucloud.quantities import parse_duration, parse_gib, parse_usd

T = TypeVar("T")
_YAML_TAGS: Final = "tag:yaml.org,2002:"
_KINDS: Final = MappingProxyType({"scalar": "a single value", "sequence": "a list", "mapping": "a map"})
_NAME: Final = r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNPORTABLE: Final = re.compile("[\0\ud800-\udfff]")
_VARIABLE_RULE: Final = "a name has letters, digits and _, no digit first; a value is UTF-8 text"


@dataclass(frozen=True, slots=True)
class Task:
    """A task file, read. ``infra`` is a provider's name; every other place is in ``requirements``."""

    job: JobSpec
    requirements: Requirements
    infra: str | None
    nodes: int
    disk_gib: int | None
    max_duration: timedelta | None
    max_cost: Decimal | None


def load(
    path: Path, *, environ: Mapping[str, str], overrides: Mapping[str, str] = MappingProxyType({})
) -> Task:
    """Read a task file. A variable takes its value from ``overrides``, else the file, else ``environ``.

    Raises:
        UsageError: when there is no such file, or ``overrides`` names no possible variable.
        ConfigError: for the first thing that is wrong in the file, with its line.
    """
    for name, value in overrides.items():
        if not _VARIABLE.fullmatch(name) or _UNPORTABLE.search(value):
            raise UsageError(f"{name!r} cannot be a variable", why=_VARIABLE_RULE, hint="--env NAME=VALUE")
    root = _document(path)
    folder = path.parent.resolve()
    owners: dict[str, str] = {}
    variables = partial(_variables, environ=environ, overrides=overrides, owners=owners)
    found = root.fields(_readers(folder, variables))
    if "run" not in found:
        raise ConfigError(f"{path}: run is missing", why="nothing says what to run", hint="add run: COMMAND")
    added = {name: value for name, value in overrides.items() if name not in owners}
    return _task({"workdir": str(folder), **found, "envs": {**found.get("envs", {}), **added}})


def _readers(folder: Path, variables: Callable[[_Node], object]) -> dict[str, Callable[[_Node], object]]:
    return {
        "name": lambda node: node.parse(partial(_matching, _NAME, "a name of up to 40 a-z, 0-9 and -")),
        "workdir": lambda node: node.parse(partial(_local, folder, "folder")),
        "num_nodes": lambda node: node.parse(_count),
        "resources": lambda node: node.fields(_RESOURCES),
        "envs": variables,
        "secrets": variables,
        "file_mounts": partial(_mounts, folder=folder),
        "setup": lambda node: node.text(blank=True),
        "run": lambda node: node.text(),
        "outputs": lambda node: tuple(item.parse(parse_output) for item in node.items()),
        "max_duration": lambda node: node.parse(parse_duration),
        "max_cost": lambda node: node.parse(parse_usd),
    }


def _task(found: Mapping[str, Any]) -> Task:
    resources = found.get("resources", {})
    provider, place = resources.get("infra", (None, None))
    return Task(
        job=JobSpec(
            run=found["run"],
            setup=found.get("setup", ""),
            name=found.get("name", ""),
            workdir=found["workdir"],
            envs=found["envs"],
            secrets=found.get("secrets", {}),
            mounts=found.get("file_mounts", ()),
            outputs=found.get("outputs", ()),
        ),
        requirements=Requirements(
            gpus=resources.get("accelerators", ()),
            markets=resources.get("use_spot", (Market.ON_DEMAND,)),
            regions=(place,) if place else (),
            max_usd_per_hour=resources.get("max_hourly_cost"),
            min_vcpus=resources.get("cpus"),
            min_memory_gib=resources.get("memory"),
            min_disk_gib=resources.get("disk_size"),
        ),
        infra=provider,
        nodes=found.get("num_nodes", 1),
        disk_gib=resources.get("disk_size"),
        max_duration=found.get("max_duration"),
        max_cost=found.get("max_cost"),
    )


@dataclass(frozen=True, slots=True)
class _Node:
    """One YAML node, where it stands and what it is called in an error (``resources.cpus``)."""

    file: str
    line: int
    label: str
    yaml: Any = field(repr=False)

    @property
    def null(self) -> bool:
        return bool(self.yaml.tag == f"{_YAML_TAGS}null")

    def error(self, message: str, *, why: str = "", hint: str = "") -> ConfigError:
        where = f"{self.file}:{self.line}"
        return ConfigError(f"{where}: {message}", why=why, hint=hint or f"edit {where}")

    def text(self, *, blank: bool = False) -> str:
        """The scalar as it was written; ``blank`` says whether nothing but spaces will do."""
        self._expect("scalar")
        text = str(self.yaml.value)
        if self.null or not (blank or text.strip()):
            raise self.error(f"{self.label} has no value", why="nothing is written there")
        if _UNPORTABLE.search(text):
            raise self.error(f"{self.label} holds a NUL or a lone surrogate", why="no shell can take it")
        return text

    def parse(self, read: Callable[[str], T], text: str | None = None) -> T:
        """Turn ``text``, or else the scalar, into a value; a ``ValueError`` gets its place in the file."""
        try:
            return read(self.text() if text is None else text)
        except ValueError as error:
            raise self.error(f"{self.label} is not valid", why=str(error)) from None

    def items(self) -> list[_Node]:
        """The members of a list; anything else is a list of one."""
        if self.yaml.id != "sequence":
            return [self]
        self._expect("sequence")
        return [_Node(self.file, item.start_mark.line + 1, self.label, item) for item in self.yaml.value]

    def entries(self) -> Iterator[tuple[str, _Node]]:
        """Keys and values of a map in file order; a value stands on the line of its key."""
        if self.null:
            return
        self._expect("mapping")
        lines: dict[str, int] = {}
        for key_node, value_node in self.yaml.value:
            line = key_node.start_mark.line + 1
            key = _Node(self.file, line, f"a key of {self.label or 'the file'}", key_node).text()
            value = _Node(self.file, line, f"{self.label}.{key}".removeprefix("."), value_node)
            if key in lines:
                raise value.error(f"{key!r} is there twice", why=f"it is also on line {lines[key]}")
            lines[key] = line
            yield key, value

    def fields(self, readers: Mapping[str, Callable[[_Node], object]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in self.entries():
            if key not in readers:
                close = difflib.get_close_matches(key, readers, n=1)
                why = f"{self.label or 'a task file'} knows {', '.join(readers)}"
                hint = f"did you mean {close[0]!r}?" if close else "remove it"
                raise value.error(f"unknown key {key!r}", why=why, hint=hint)
            found[key] = readers[key](value)
        return found

    def _expect(self, kind: str) -> None:
        label, tag = self.label or "the file", str(self.yaml.tag)
        if self.yaml.id != kind:
            raise self.error(f"{label} must be {_KINDS[kind]}, not {_KINDS[self.yaml.id]}")
        if not tag.startswith(_YAML_TAGS) or tag == f"{_YAML_TAGS}binary":
            raise self.error(f"{label} has a YAML tag", why="only plain YAML is read", hint="remove the tag")


def _document(path: Path) -> _Node:
    node = _compose(str(path), _content(path))
    if node is None or (node.id == "scalar" and not node.value):
        raise ConfigError(f"{path} is empty", why="a task file has a run key", hint="add run: COMMAND")
    return _Node(str(path), node.start_mark.line + 1, "", node)


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"no such file: {path}", why="a task file is wanted", hint="ls *.yaml") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", why=str(error.strerror), hint=f"ls -l {path}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text", hint=f"file {path}") from None


def _compose(file: str, text: str) -> Any:
    """Parse YAML into nodes. Raised ``from None``: the parser's own errors quote the file, secrets too."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError
    from ruamel.yaml.reader import ReaderError

    parser = YAML(typ="safe", pure=True)
    parser.composer.warn_double_anchors = False
    try:
        return parser.compose(text)
    except ReaderError as error:
        where = f"{file}:{text.count(chr(10), 0, error.position) + 1}"
        why = f"character U+{error.character:04X} is not allowed"
    except MarkedYAMLError as error:
        where = f"{file}:{error.problem_mark.line + 1}"
        if "single document" in (error.context or ""):
            why, hint = "a task file is one YAML document", "put each task into a file of its own"
            raise ConfigError(f"{where}: another document begins", why=why, hint=hint) from None
        why = re.sub(r"(alias|handle) .*", r"\1", error.problem)
    except (AssertionError, KeyError, OverflowError, RecursionError, ValueError):  # the parser's own slips
        where, why = file, "an escape beyond Unicode, a strange %YAML version or very deep nesting"
    raise ConfigError(f"{where}: not valid YAML", why=why, hint=f"edit {where}")


def _variables(
    node: _Node, *, environ: Mapping[str, str], overrides: Mapping[str, str], owners: dict[str, str]
) -> dict[str, str]:
    """Read ``envs`` or ``secrets``; ``owners`` remembers for both which of them a name is in."""
    values = {}
    for name, value in node.entries():
        if not _VARIABLE.fullmatch(name):  # may be NAME:VALUE for want of a space: not to be quoted
            raise value.error(f"a key of {node.label} cannot be a variable", why=_VARIABLE_RULE)
        if owners.setdefault(name, node.label) != node.label:
            raise value.error(f"{name} is in envs and in secrets", why="one name, one value", hint="keep one")
        values[name] = _resolve(name, value, environ, overrides)
    return values


def _resolve(name: str, node: _Node, environ: Mapping[str, str], overrides: Mapping[str, str]) -> str:
    value = overrides.get(name, environ.get(name) if node.null else node.text(blank=True))
    if value is None:
        why = f"{node.label} is required, and neither --env nor the environment has it"
        raise node.error(f"{name} has no value", why=why, hint=f"export {name}=... or add --env {name}=...")
    if _UNPORTABLE.search(value):
        raise node.error(f"{name} cannot be passed on", why=_VARIABLE_RULE)
    return value


def _mounts(node: _Node, *, folder: Path) -> tuple[Mount, ...]:
    mounts: dict[str, Mount] = {}
    for key, value in node.entries():
        target = value.parse(_target, key)
        if target in mounts:
            raise value.error(f"{target!r} is mounted twice", why="one hides the other", hint="rename one")
        if value.yaml.id == "mapping" or re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value.text()):
            why = "a source is a file or folder on this machine, not a bucket and not a URL"
            raise value.error("only local file mounts are possible", why=why, hint="fetch it in setup")
        mounts[target] = Mount(value.parse(partial(_local, folder, "file or folder")), target)
    return tuple(mounts.values())


def _target(text: str) -> str:
    path = PurePosixPath(text)
    anchor, names = (path.parts[0], path.parts[1:]) if text.startswith(("/", "~")) else ("", path.parts)
    if not names or anchor not in {"", "/", "~"}:
        raise ValueError(f"{text!r} is not a target; write data, ~/data or /data")
    if ".." in names and anchor != "/":
        raise ValueError(f"{text!r} leads out with '..'")
    return str(path)


def _local(folder: Path, kind: str, text: str) -> str:
    try:
        path = (folder / Path(text).expanduser()).resolve()
        if not (path.is_dir() if kind == "folder" else path.exists()):
            raise ValueError(f"{text!r} is no {kind}; it is looked up in {folder}")
    except (OSError, RuntimeError) as error:
        raise ValueError(f"{text!r} cannot be looked up: {error}") from None
    return str(path)


def parse_output(text: str) -> str:
    """An output: a path or glob inside the working directory."""
    if text.startswith(("/", "~")) or ".." in PurePosixPath(text).parts:
        raise ValueError(f"{text!r} is not inside the working directory")
    return text


def _matching(pattern: str, what: str, text: str) -> str:
    if not re.fullmatch(pattern, text):
        raise ValueError(f"{text!r} is not {what}")
    return text


def _count(text: str) -> int:
    return int(_matching(r"[1-9][0-9]{0,8}", "a whole number of 1 or more", text))


def _gib(text: str) -> int:
    if (size := math.ceil(parse_gib(text))) < 1:
        raise ValueError(f"{text!r} is no size at all")
    return size


def _markets(text: str) -> tuple[Market, ...]:
    spot = _matching("true|false", "true or false", text.lower()) == "true"
    return (Market.SPOT,) if spot else (Market.ON_DEMAND,)


def _infra(text: str) -> tuple[str | None, str | None]:
    """Split ``provider/region/zone`` into the provider and the narrowest place; ``*`` is ``None``."""
    _matching(r"[^/\s]+(/[^/\s]+){0,2}", "provider, provider/region or provider/region/zone", text)
    provider, *places = (None if part == "*" else part for part in text.split("/"))
    return provider, next((place for place in reversed(places) if place), None)


def _gpus(node: _Node) -> tuple[GpuWish, ...]:
    if node.yaml.id == "mapping":
        asked = ((value, gpu if value.null else f"{gpu}:{value.text()}") for gpu, value in node.entries())
        return tuple(value.parse(_wish, text) for value, text in asked)
    if node.null or node.yaml.value in ("none", "None", "0"):
        return ()
    return tuple(item.parse(_wish, part) for item in node.items() for part in item.text().split("|"))


def _wish(text: str) -> GpuWish:
    if re.fullmatch(r"[\d\s:]+", text):
        raise ValueError(f"{text!r} says how many, but not which GPU; write H100:8")
    return parse_wish(text)


_RESOURCES: Final[Mapping[str, Callable[[_Node], object]]] = {
    "accelerators": _gpus,
    "infra": lambda node: node.parse(_infra),
    "cpus": lambda node: node.parse(lambda text: _count(text.removesuffix("+"))),
    "memory": lambda node: node.parse(lambda text: _gib(text.removesuffix("+"))),
    "disk_size": lambda node: node.parse(_gib),
    "use_spot": lambda node: node.parse(_markets),
    "max_hourly_cost": lambda node: node.parse(parse_usd),
}
