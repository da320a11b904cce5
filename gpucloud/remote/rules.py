"""One file of git's ignore rules, as one regular expression."""

from __future__ import annotations

import re
import string
from typing import Final

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

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


def compiled(data: bytes, *, fold: bool) -> re.Pattern[str] | None:
    """Turn a file of rules into one regex for whole paths, relative to its folder; folders end in a slash.

    The last rule is tried first, as it wins. A match that has a group is one that includes again. With
    ``fold`` the case of ASCII letters counts for nothing.
    """
    alternatives = []
    for line in data.removeprefix(_BOM).decode("latin-1").split("\n"):
        if line.startswith("#") or len(line) > _LONGEST_LINE:
            continue
        if rule := _translate(_trim(line), fold=fold):
            regex, includes_again = rule
            alternatives.append(f"(?:{regex}){'()' if includes_again else ''}")
    flags = re.DOTALL | re.IGNORECASE | re.ASCII if fold else re.DOTALL
    return re.compile("|".join(reversed(alternatives)), flags) if alternatives else None


def _trim(line: str) -> str:
    """Cut what git cuts from the end of a line: one carriage return, and spaces that are not escaped."""
    line = line.removesuffix("\r").partition("\0")[0]
    trimmed = line.rstrip(" ")
    escaped = (len(trimmed) - len(trimmed.rstrip("\\"))) % 2
    return line[: len(trimmed) + escaped]


def _translate(line: str, *, fold: bool) -> tuple[str, bool] | None:
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
    glob = _hold(pattern.removeprefix("/"), held, anchored=anchored, fold=fold)
    if glob is None:
        return None
    regex, _ = GitIgnoreSpecPattern.pattern_to_regex("/" * anchored + glob + "/" * folders_only)
    if regex is None:
        return None
    # pathspec names the group that marks a folder; names may not repeat in the joined regex.
    regex = re.sub(r"\(\?P<\w+>", "(?:", regex)
    return "".join(held[ord(c) - _HELD] if ord(c) >= _HELD else c for c in regex), includes_again


def _hold(pattern: str, held: list[str], *, anchored: bool, fold: bool) -> str | None:
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
            bracket = _bracket(pattern, at, fold=fold)
            if bracket is None:
                return None
            regex, at = bracket
            glob += hold(regex)
        elif token["escaped"] == "/" or (token["plain"] and _INERT.match(token["plain"])):
            glob += token[0][-1]
        elif fold and token["escaped"] and token["escaped"] in string.ascii_uppercase:
            # Git folds the name but not what is escaped, so nothing is ever equal to it.
            glob += hold("(?!)")
        else:
            glob += hold(re.escape(token[0][-1]))
    glob = re.sub(r"\*{2,}", "**", glob)
    something = hold("[^/]+")
    glob = re.sub(r"(?<![^/])\*(?![^/])", something, glob)
    # a/** is what lies below a, not a itself.
    return re.sub(r"(?<![^/])\*\*\Z", f"**/{something}", glob)


def _bracket(pattern: str, start: int, *, fold: bool) -> tuple[str, int] | None:
    """Read the bracket expression after ``[``: its regex and where it ends; ``None`` if it is broken."""
    negated = pattern[start : start + 1] in {"!", "^"}
    first = at = start + negated
    members: set[int] = set()
    ranged: set[int] = set()
    previous = ""
    while item := _ITEM.match(pattern, at):
        if item["plain"] == "]" and at > first:
            members = _folded(members, ranged) if fold else members | ranged
            members = (set(range(1, 256)) - members if negated else members) - {ord("/")}
            listed = "".join(f"\\x{member:02x}" for member in sorted(members))
            return (f"(?-i:[{listed}])" if listed else r"(?!)"), item.end()
        at = item.end()
        if item["named"] is not None:
            if item["named"] not in _NAMED_CLASSES:
                return None
            (ranged if item["named"] == "upper" else members).update(map(ord, _NAMED_CLASSES[item["named"]]))
            previous = ""
        elif item["plain"] == "-" and previous and (end := _RANGE_END.match(pattern, at)):
            ranged.update(range(ord(previous), ord(end["escaped"] or end["plain"]) + 1))
            at, previous = end.end(), ""
        else:
            previous = item["escaped"] or item["plain"]
            members.add(ord(previous))
    return None


def _folded(members: set[int], ranged: set[int]) -> set[int]:
    """What a bracket matches when git folds case: it looks for the small letter, in ranges for both."""
    lower = {code for code in range(1, 256) if not chr(code).isascii() or not chr(code).isupper()}
    found = lower & (members | ranged)
    found |= {ord(letter) for letter in string.ascii_lowercase if ord(letter.upper()) in ranged}
    return found | {ord(letter.upper()) for letter in string.ascii_lowercase if ord(letter) in found}
