"""Our tags at vendors that have none: as words, in one text, in the name of a host, and in that of a key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote

from gpucloud.provider import LaunchSpec

PREFIX: Final = "gpucloud-"
FIREWALL: Final = f"{PREFIX}ssh-"
"""How the names of firewalls begin that launches share."""

_SEPARATOR: Final = "."
_BETWEEN: Final = "--"
_ORDER: Final = tuple(f"{PREFIX}{name}" for name in ("token", "rank", "name", "owner", "lease"))
"""In which order one text has them; what there is no room for is the least important."""
_TOKEN: Final = "gc-[a-z0-9]{20}"


def to_words(tags: Mapping[str, str]) -> list[str]:
    """Each tag as a word of letters, digits, ``-``, ``_`` and one ``:``, such as ``gpucloud-rank:0``."""
    return [f"{name}:{_escaped(value)}" for name, value in tags.items()]


def from_words(words: Iterable[str]) -> dict[str, str]:
    """The tags among the words, as ``from_pairs`` takes them."""
    pairs = (word.partition(":") for word in words)
    return from_pairs((name, _plain(value)) for name, _, value in pairs)


def from_pairs(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The tags among pairs of a name and a value; none where the token is not as we make them."""
    tags = {name: value for name, value in pairs if name.startswith(PREFIX)}
    return tags if re.fullmatch(_TOKEN, tags.get(_ORDER[0], "")) else {}


def to_text(tags: Mapping[str, str], longest: int | None = None) -> str:
    """The tags in one text of letters, digits, ``-``, ``_`` and ``.``, which begins with the token.

    As many of them as ``longest`` has room for: half an owner would be somebody else.
    """
    text = ""
    for name in _ORDER:
        longer = f"{text}{_SEPARATOR if text else ''}{_escaped(tags.get(name, ''))}"
        if longest is not None and len(longer) > longest:
            break
        text = longer
    return text.rstrip(_SEPARATOR)


def from_text(text: str) -> dict[str, str]:
    """The tags that ``to_text`` has written; none for a text of other people."""
    if not re.match(rf"{_TOKEN}(\.|$)", text):
        return {}
    values = dict(zip(_ORDER, text.split(_SEPARATOR), strict=False))
    return {name: _plain(value) for name, value in values.items() if value}


def to_host_name(tags: Mapping[str, str], longest: int = 63) -> str:
    """The tags in one name of lower-case letters, digits and ``-``, the token first; what is too long is not.

    Such names are those of hosts, which most vendors take: https://datatracker.ietf.org/doc/html/rfc1123.
    """
    name, *others = (tags.get(key, "") for key in _ORDER)
    for value in others:
        longer = f"{name}{_BETWEEN}{_hyphened(value)}"
        if len(longer) > longest:
            break
        name = longer
    return name.rstrip("-")


def from_host_name(name: str) -> dict[str, str]:
    """The tags that ``to_host_name`` has written; none for a name of other people."""
    if not re.match(rf"gc-[a-z0-9]{{20}}({_BETWEEN}|$)", name):
        return {}
    values = dict(zip(_ORDER, name.split(_BETWEEN), strict=False))
    # Of the token alone a hyphen is meant as one.
    return {key: value if key == _ORDER[0] else _unhyphened(value) for key, value in values.items() if value}


def key_name(spec: LaunchSpec) -> str:
    """What the spec's SSH key is called in an account, where keys have names: the same for the same key."""
    import hashlib

    return f"{PREFIX}{hashlib.sha256(key_part(spec.public_key).encode()).hexdigest()[:16]}"


def firewall_name(networks: Iterable[str]) -> str:
    """What the firewall is called that lets these networks in: the same for the same ones, in any order."""
    import hashlib

    told = " ".join(sorted(set(networks)))
    return f"{FIREWALL}{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def is_firewall(name: str) -> bool:
    """Whether a firewall is one of those that launches share."""
    return name.startswith(FIREWALL)


def key_part(public_key: str) -> str:
    """Type and key of a line ``ssh-ed25519 AAAA... comment``, by which two of them are compared."""
    return " ".join(public_key.split()[:2])


def _escaped(value: str) -> str:
    return re.sub(
        r"[^A-Za-z0-9-]", lambda match: "".join(f"_{byte:02X}" for byte in match[0].encode()), value
    )


def _hyphened(value: str) -> str:
    return re.sub("[^a-z0-9]", lambda match: "".join(f"-{byte:02x}" for byte in match[0].encode()), value)


def _unhyphened(value: str) -> str:
    return unquote(re.sub("-([0-9a-f]{2})", r"%\1", value))


def _plain(value: str) -> str:
    return unquote(re.sub(r"_([0-9A-F]{2})", r"%\1", value.replace("%", "%25")))
