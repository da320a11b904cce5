"""Which files are not worth sending: git's ignore rules, asked top-down while a tree is walked."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Self

from gpucloud.errors import SyncFailed
from gpucloud.remote.rules import compiled

GIT_FOLDER: Final = ".git"
GITIGNORE: Final = ".gitignore"
GPUCLOUDIGNORE: Final = ".gpucloudignore"

_GIT_TIMEOUT_S: Final = 5
_GIT_READS: Final = ("PATH", "HOME", "XDG_CONFIG_HOME", "LD_LIBRARY_PATH", "GIT_DIR", "GIT_EXEC_PATH")
"""With ``GIT_CONFIG...`` all of the environment that git's configuration depends on."""

_OF_A_REPOSITORY: Final = ("HEAD", "objects", "refs")
"""Without these in it a folder named ``.git`` means nothing to git."""

_ELSEWHERE: Final = b"gitdir: "
"""Begins a file in the place of ``.git`` that says where that is."""


class _Whose(Enum):
    """Where rules come from, which decides where they end."""

    OURS = "a .gpucloudignore"
    GITS = "a repository"
    USERS = "the user's configuration"


@dataclass(frozen=True, slots=True)
class _Layer:
    """The rules of one file, and the path from its folder to the one that is looked at."""

    base: str
    rules: re.Pattern[str]
    whose: _Whose


class IgnoreRules:
    """The rules in force in one folder of a tree; immutable.

    They come from the ignore files of this folder and of those above it up to the root of the enclosing
    repository, from that repository's ``info/exclude`` and from the user's global excludes file. As in git a
    deeper file wins over a shallower one and a later line over an earlier one. ``.gpucloudignore`` wins over
    the ``.gitignore`` beside it. In a repository inside another, as a submodule is, git asks only the rules
    of the inner one; a ``.gpucloudignore`` outside goes on to count.

    The caller walks top-down and does not enter what is excluded: that is why nothing below an excluded
    folder can be included again. The root of the walk itself is never excluded: somebody named it.
    """

    __slots__ = ("_fold", "_layers")

    def __init__(self, layers: tuple[_Layer, ...], *, fold: bool = False) -> None:
        self._layers = layers
        self._fold = fold

    @classmethod
    def at(cls, root: Path) -> Self:
        """Return the rules in force in ``root``, the folder at which a walk begins.

        Raises:
            SyncFailed: when an ignore file is there but cannot be read.
        """
        root = root.resolve()
        repository = next((up for up in (root, *root.parents) if _git_folder(up)), None)
        base = repository or root
        excludes, fold = _configured(base)
        users = _loaded(excludes, _Whose.USERS, fold=fold)
        exclude = _info_exclude(repository) if repository else None
        rules = cls(_own(base, fold=fold) + _loaded(exclude, _Whose.GITS, fold=fold) + users, fold=fold)
        for name in root.relative_to(base).parts:
            base /= name
            rules = rules.inside(name, base)
        return rules

    def inside(self, name: str, folder: str | Path) -> Self:
        """Return the rules in force in the subfolder ``name``, which is at ``folder`` on the disk.

        Raises:
            SyncFailed: when an ignore file is there but cannot be read.
        """
        step = _bytewise(name) + "/"
        above = tuple(_Layer(layer.base + step, layer.rules, layer.whose) for layer in self._layers)
        own = _own(folder, fold=self._fold)
        if _git_folder(folder):
            own += _loaded(_info_exclude(Path(folder)), _Whose.GITS, fold=self._fold)
            own += tuple(layer for layer in above if layer.whose is _Whose.OURS)
            # These are relative to the root of whatever repository it is.
            above = tuple(_Layer("", o.rules, o.whose) for o in self._layers if o.whose is _Whose.USERS)
        return type(self)(own + above, fold=self._fold)

    def excludes(self, name: str, *, folder: bool) -> bool:
        """Tell whether the entry ``name`` of this folder is left out; a symlink to a folder is no folder."""
        return name == GIT_FOLDER or self._verdict(name, folder=folder) is True

    def includes(self, name: str) -> bool:
        """Tell whether the last rule for the file ``name`` is one that includes it again."""
        return self._verdict(name, folder=False) is False

    def _verdict(self, name: str, *, folder: bool) -> bool | None:
        """Whether an entry is excluded by the rule that counts; ``None`` when there is none for it."""
        last = _bytewise(name) + "/" if folder else _bytewise(name)
        for layer in self._layers:
            if match := layer.rules.fullmatch(layer.base + last):
                return match.lastindex is None
        return None


def included(root: Path, paths: Iterable[str]) -> set[str]:
    """Those files below ``root`` for which somebody wrote a rule that includes them.

    Raises:
        SyncFailed: when an ignore file cannot be read.
    """
    found: set[str] = set()
    rules: IgnoreRules | None = None
    for path in paths:
        inner = rules = rules or IgnoreRules.at(root)
        *folders, name = path.split("/")
        place = root
        for folder in folders:
            place /= folder
            inner = inner.inside(folder, place)
        if inner.includes(name):
            found.add(path)
    return found


def _own(folder: str | Path, *, fold: bool) -> tuple[_Layer, ...]:
    folder = os.fspath(folder)
    ours = _loaded(f"{folder}/{GPUCLOUDIGNORE}", _Whose.OURS, fold=fold)
    return ours + _loaded(f"{folder}/{GITIGNORE}", _Whose.GITS, fold=fold, follow=False)


def _loaded(path: str | Path | None, whose: _Whose, *, fold: bool, follow: bool = True) -> tuple[_Layer, ...]:
    rules = _load(path, fold=fold, follow=follow) if path else None
    return (_Layer("", rules, whose),) if rules else ()


def _load(path: str | Path, *, fold: bool, follow: bool) -> re.Pattern[str] | None:
    """Read and compile one file of rules; ``None`` when there is none, or no rule in it.

    Git does not follow a ``.gitignore`` that is a symlink, so neither do we.
    """
    # O_NONBLOCK: a FIFO of that name would make us wait for somebody to write into it.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            with open(descriptor, "rb", closefd=False) as file:
                return compiled(file.read(), fold=fold)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            return None
        raise SyncFailed(
            f"the ignore file {os.fspath(path)!r} cannot be read",
            why=error.strerror or str(error),
            hint="make it readable, or remove it and everything it would leave out is sent",
        ) from error


def _git_folder(folder: str | Path) -> Path | None:
    """Where git keeps its own files of the repository whose root ``folder`` is; ``None`` when it is none."""
    git = Path(os.fspath(folder)) / GIT_FOLDER
    try:
        mode = git.stat().st_mode
        if stat.S_ISREG(mode):
            head = git.read_bytes()
            if not head.startswith(_ELSEWHERE):
                return None
            return git.parent / os.fsdecode(head.removeprefix(_ELSEWHERE).strip())
        whole = stat.S_ISDIR(mode) and all((git / part).exists() for part in _OF_A_REPOSITORY)
        return git if whole else None
    except (OSError, ValueError):
        return None


def _info_exclude(repository: Path) -> Path | None:
    """Find ``info/exclude``, which the work trees of one repository share."""
    git = _git_folder(repository)
    if git is None:
        return None
    try:
        common = git / "commondir"
        if common.is_file():
            git = git / os.fsdecode(common.read_bytes().strip())
    except (OSError, ValueError):
        return None
    return git / "info" / "exclude"


def _configured(base: Path) -> tuple[Path | None, bool]:
    """The user's own excludes file and whether case counts for nothing: as git is told, or by itself."""
    settings: dict[str, str | None] = {}
    if git := shutil.which("git"):
        command = [git, "config", "-z", "--get-regexp", r"^core\.(excludesfile|ignorecase)$"]
        # Keys and job secrets are none of its business.
        environ = {n: v for n, v in os.environ.items() if n in _GIT_READS or n.startswith("GIT_CONFIG")}
        with suppress(OSError, subprocess.SubprocessError):
            asked = subprocess.run(
                command, cwd=base, env=environ, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False
            )
            for item in os.fsdecode(asked.stdout).split("\0"):
                name, newline, value = item.partition("\n")
                settings[name] = value if newline else None
    fold = _true(settings.get("core.ignorecase", ""))
    if "core.excludesfile" in settings:
        path = settings["core.excludesfile"]
        return (base / Path(path).expanduser() if path else None), fold
    if config := os.environ.get("XDG_CONFIG_HOME"):
        return Path(config) / "git" / "ignore", fold
    home = os.environ.get("HOME")
    return (Path(home) / ".config" / "git" / "ignore" if home else None), fold


def _true(value: str | None) -> bool:
    """What git takes for true; a name without a value (``None``) is."""
    if value is None or value.lower() in {"true", "yes", "on"}:
        return True
    return value.lstrip("+-").rstrip("kmgKMG").isdecimal() and not re.fullmatch(r"[+-]?0+[kmg]?", value, re.I)


def _bytewise(name: str) -> str:
    """Spell a name with one character per byte, as git matches: its ``?`` is one byte, not one letter."""
    return name if name.isascii() else os.fsencode(name).decode("latin-1")
