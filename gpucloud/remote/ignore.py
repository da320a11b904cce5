"""Which files are not worth sending: git's ignore rules, asked top-down while a tree is walked."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import string
import subprocess
from pathlib import Path
from typing import Final, Self

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from gpucloud.errors import SyncFailed

GIT_FOLDER: Final = ".git"
GITIGNORE: Final = ".gitignore"
GPUCLOUDIGNORE: Final = ".gpucloudignore"

_GIT_TIMEOUT_S: Final = 5
_GIT_READS: Final = ("PATH", "HOME", "XDG_CONFIG_HOME", "LD_LIBRARY_PATH", "GIT_DIR", "GIT_EXEC_PATH")
"""With ``GIT_CONFIG...`` all of the environment that git's configuration depends on."""

_BOM: Final = b"\xef\xbb\xbf"
_LONGEST_LINE: Final = 65_536
"""No path is as long; a longer line is not a rule but a file that is no text."""

_HELD: Final = 0xE000
"""First of the characters that stand for a piece of regex while pathspec reads a line; no byte is one."""

_TOKEN = re.compile(r"\\(?P<escaped>.)|(?P<bracket>\[)|(?P<plain>[^\\])", re.DOTALL)
_INERT = re.compile(r"[\w*?/.]", re.ASCII)
_ITEM = re.compile(r"\[:(?P<named>[^\]]*):\]|\\(?P<escaped>.)|(?P<plain>[^\\])", re.DOTALL)
_RANGE_END = re.compile(r"\\(?P<escaped>.)|(?P<plain>[^\\\]])", re.DOTALL)
_GLUED_STARS = re.compile(r"(?P<literal>[^*?\[\\]*[^*?\[\\/])\*{2,}(?:/\*{2,})*(?P<slash>/|\Z)")
_NAMED_CLASSES: Final = {
    "alnum": string.ascii_letters + string.digits,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, [*range(1, 32), 127])),
    "digit": string.digits,
    "graph": string.ascii_letters + string.digits + string.punctuation,
    "lower": string.ascii_lowercase,
    "print": string.ascii_letters + string.digits + string.punctuation + " ",
    "punct": string.punctuation,
    "space": " \t\n\r",
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}


class IgnoreRules:
    """The rules in force in one folder of a tree; immutable.

    They come from the ignore files of this folder and of those above it up to the root of the enclosing
    repository, from that repository's ``info/exclude`` and from the user's global excludes file. As in git a
    deeper file wins over a shallower one and a later line over an earlier one. ``.gpucloudignore`` wins over
    the ``.gitignore`` beside it.

    The caller walks top-down and does not enter what is excluded: that is why nothing below an excluded
    folder can be included again. The root of the walk itself is never excluded: somebody named it.
    """

    __slots__ = ("_layers",)

    def __init__(self, layers: tuple[tuple[str, re.Pattern[str]], ...]) -> None:
        self._layers = layers

    @classmethod
    def at(cls, root: Path) -> Self:
        """Return the rules in force in ``root``, the folder at which a walk begins.

        Raises:
            SyncFailed: when an ignore file is there but cannot be read.
        """
        root = root.resolve()
        repository = next((up for up in (root, *root.parents) if (up / GIT_FOLDER).exists()), None)
        base = repository or root
        rules = cls(())
        for path in (_global_excludes(base), _info_exclude(repository)):
            if path and (loaded := _load(path, follow=True)):
                rules = cls((("", loaded), *rules._layers))
        rules = cls(_own_layers(base) + rules._layers)
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
        above = tuple((base + step, layer) for base, layer in self._layers)
        return type(self)(_own_layers(folder) + above)

    def excludes(self, name: str, *, folder: bool) -> bool:
        """Tell whether the entry ``name`` of this folder is left out; a symlink to a folder is no folder."""
        if name == GIT_FOLDER:
            return True
        last = _bytewise(name) + "/" if folder else _bytewise(name)
        for base, layer in self._layers:
            if match := layer.fullmatch(base + last):
                return match.lastindex is None
        return False


def _own_layers(folder: str | Path) -> tuple[tuple[str, re.Pattern[str]], ...]:
    folder = os.fspath(folder)
    ours = _load(f"{folder}/{GPUCLOUDIGNORE}", follow=True)
    gits = _load(f"{folder}/{GITIGNORE}", follow=False)
    return tuple(("", layer) for layer in (ours, gits) if layer)


def _load(path: str | Path, *, follow: bool) -> re.Pattern[str] | None:
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
                return _compile(file.read())
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


def _info_exclude(repository: Path | None) -> Path | None:
    """Find ``info/exclude``, which the work trees of one repository share."""
    if repository is None:
        return None
    git = repository / GIT_FOLDER
    try:
        if git.is_file():
            git = repository / os.fsdecode(git.read_bytes().removeprefix(b"gitdir:").strip())
        common = git / "commondir"
        if common.is_file():
            git = git / os.fsdecode(common.read_bytes().strip())
    except (OSError, ValueError):
        return None
    return git / "info" / "exclude"


def _global_excludes(base: Path) -> Path | None:
    """Find the user's own excludes file: what git is configured to use, else git's default."""
    if git := shutil.which("git"):
        command = [git, "config", "-z", "--path", "--get", "core.excludesFile"]
        # Keys and job secrets are none of its business.
        environ = {n: v for n, v in os.environ.items() if n in _GIT_READS or n.startswith("GIT_CONFIG")}
        try:
            asked = subprocess.run(
                command, cwd=base, env=environ, capture_output=True, timeout=_GIT_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.SubprocessError):
            pass
        else:
            if asked.returncode == 0:
                path = os.fsdecode(asked.stdout.removesuffix(b"\0"))
                return base / path if path else None
    if config := os.environ.get("XDG_CONFIG_HOME"):
        return Path(config) / "git" / "ignore"
    home = os.environ.get("HOME")
    return Path(home) / ".config" / "git" / "ignore" if home else None


def _bytewise(name: str) -> str:
    """Spell a name with one character per byte, as git matches: its ``?`` is one byte, not one letter."""
    return name if name.isascii() else os.fsencode(name).decode("latin-1")


def _compile(data: bytes) -> re.Pattern[str] | None:
    """Turn a file of rules into one regex for whole paths, relative to its folder; folders end in a slash.

    The last rule is tried first, as it wins. A match that has a group is one that includes again.
    """
    alternatives = []
    for line in data.removeprefix(_BOM).decode("latin-1").split("\n"):
        if line.startswith("#") or len(line) > _LONGEST_LINE:
            continue
        if rule := _translate(_trim(line)):
            regex, includes_again = rule
            alternatives.append(f"(?:{regex}){'()' if includes_again else ''}")
    return re.compile("|".join(reversed(alternatives)), re.DOTALL) if alternatives else None


def _trim(line: str) -> str:
    """Cut what git cuts from the end of a line: one carriage return, and spaces that are not escaped."""
    line = line.removesuffix("\r").partition("\0")[0]
    trimmed = line.rstrip(" ")
    escaped = (len(trimmed) - len(trimmed.rstrip("\\"))) % 2
    return line[: len(trimmed) + escaped]


def _translate(line: str) -> tuple[str, bool] | None:
    """Turn one rule into a regex and whether it includes again; ``None`` when it can never match.

    pathspec knows anchoring, ``**`` and folders-only. It differs from git in brackets, escapes, white space,
    and in that its regexes also match everything *below* a match. So it is handed only what both read
    alike, with placeholders for the rest.
    """
    includes_again = line.startswith("!")
    pattern = line.removeprefix("!")
    folders_only = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    if not pattern:
        return None
    anchored = "/" in pattern
    held: list[str] = []
    glob = _hold(pattern.removeprefix("/"), anchored, held)
    if glob is None:
        return None
    regex, _ = GitIgnoreSpecPattern.pattern_to_regex("/" * anchored + glob + "/" * folders_only)
    if regex is None:
        return None
    # pathspec names the group that marks a folder; names may not repeat in the joined regex.
    regex = re.sub(r"\(\?P<\w+>", "(?:", regex)
    return "".join(held[ord(c) - _HELD] if ord(c) >= _HELD else c for c in regex), includes_again


def _hold(pattern: str, anchored: bool, held: list[str]) -> str | None:
    """Replace by placeholders what pathspec would read in another way than git, and append it to ``held``."""

    def hold(regex: str) -> str:
        held.append(regex)
        return chr(_HELD + len(held) - 1)

    # Git cuts off the literal start before it matches, and so takes the stars of a**/b for a whole segment.
    glued = _GLUED_STARS.match(pattern) if anchored else None
    glob, at = "", 0
    while at < len(pattern):
        if glued and at == glued.end("literal"):
            glob += hold("(?:.*/)?" if glued["slash"] else ".*")
            at = glued.end()
            continue
        token = _TOKEN.match(pattern, at)
        if token is None:
            return None
        at = token.end()
        if token["bracket"]:
            bracket = _bracket(pattern, at)
            if bracket is None:
                return None
            regex, at = bracket
            glob += hold(regex)
        elif token["escaped"] == "/" or (token["plain"] and _INERT.match(token["plain"])):
            glob += token[0][-1]
        else:
            glob += hold(re.escape(token[0][-1]))
    glob = re.sub(r"\*{2,}", "**", glob)
    something = hold("[^/]+")
    glob = re.sub(r"(?<![^/])\*(?![^/])", something, glob)
    # a/** is what lies below a, not a itself.
    return re.sub(r"(?<![^/])\*\*\Z", f"**/{something}", glob)


def _bracket(pattern: str, start: int) -> tuple[str, int] | None:
    """Read the bracket expression after ``[``: its regex and where it ends; ``None`` if it is broken."""
    negated = pattern[start : start + 1] in {"!", "^"}
    first = at = start + negated
    members: set[int] = set()
    previous = ""
    while item := _ITEM.match(pattern, at):
        if item["plain"] == "]" and at > first:
            members = (set(range(1, 256)) - members if negated else members) - {ord("/")}
            listed = "".join(f"\\x{member:02x}" for member in sorted(members))
            return (f"[{listed}]" if listed else r"(?!)"), item.end()
        at = item.end()
        if item["named"] is not None:
            if item["named"] not in _NAMED_CLASSES:
                return None
            members.update(map(ord, _NAMED_CLASSES[item["named"]]))
            previous = ""
        elif item["plain"] == "-" and previous and (end := _RANGE_END.match(pattern, at)):
            members.update(range(ord(previous), ord(end["escaped"] or end["plain"]) + 1))
            at, previous = end.end(), ""
        else:
            previous = item["escaped"] or item["plain"]
            members.add(ord(previous))
    return None
