"""An HTTP request as a curl command for a POSIX shell, without any secret.

A secret that an environment variable has is written as that variable, so that the command works; every other
is ``<hidden>``. Too much is rather hidden than too little.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote_plus, unquote_plus, urlsplit

from gpucloud import redact
from gpucloud.calls import Call

HIDDEN: Final = "<hidden>"

_OF_CURL: Final = {
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "transfer-encoding",
    "user-agent",
}
"""Headers that curl makes by itself."""

_WITH_BODY: Final = {"POST", "PUT", "PATCH"}
_SCHEMED: Final = {"authorization", "proxy-authorization"}
_OURS: Final = "gpucloud-"
_PUBLIC_KEY: Final = re.compile(r"(ssh|ecdsa|sk)-\S+ [A-Za-z0-9+/=]+( .*)?\s*")
_NAME_OF_KEY: Final = re.compile(r"(ssh_?)?key_?(pair_?)?names?|ssh_?key_?ids?", re.I)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")
_INSIDE: Final = 3
"""How deep in each other base64 is looked through."""
_MARKED: Final = set('\\"$`!')
"""What means something in double quotes; the last to a person's own shell alone."""


def curl(call: Call) -> str:
    """The command; one line, unless the body is a text of several that is not JSON."""
    headers = {name.lower(): value for name, value in call.headers.items()}
    url = _address(call.url)
    words = ["curl", "-sS"]
    # curl would take these for patterns of several addresses.
    words += ["-g"] if set("[]{}") & set(url) else []
    if call.method == "HEAD":
        words.append("-I")
    elif call.content or call.method != "GET":
        words += ["-X", call.method]
    words.append(_quoted(url))
    for name, value in headers.items():
        if name not in _OF_CURL and (name, value) != ("accept", "*/*"):
            words += ["-H", _quoted(f"{_written(name)}: {_header(name, value)}")]
    if call.content or (call.method in _WITH_BODY and "content-length" in headers):
        # Without one curl would call it a form.
        words += [] if "content-type" in headers else ["-H", "'Content-Type:'"]
        words += ["--data-raw", _quoted(_body(call.content, headers.get("content-type", "")))]
    return " ".join(words)


def _written(header: str) -> str:
    return "-".join(part.capitalize() for part in header.split("-"))


def _address(url: str) -> str:
    parts = urlsplit(url)
    query = "&".join(_parameter(item) for item in parts.query.split("&"))
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + (f"?{query}" if query else "")


def _parameter(item: str) -> str:
    name, equals, value = item.partition("=")
    plain = unquote_plus(value)
    shown = _text(unquote_plus(name), plain)
    return item if shown == plain else f"{name}{equals}{HIDDEN}"


def _header(name: str, value: str) -> str:
    if not redact.is_secret(name):
        return value
    scheme, space, rest = value.partition(" ")
    if name not in _SCHEMED or not space:
        return _text(name, value)
    return f"{scheme} {_text(name, rest)}"


def _body(content: bytes, kind: str) -> str:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return HIDDEN
    if "\0" in text:
        return HIDDEN
    if "x-www-form-urlencoded" in kind:
        return _form(text)
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return _without_keys(text)
    shown = _shown(told)
    if shown == told and "\n" not in text:
        return text
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _form(text: str) -> str:
    pairs = parse_qsl(text, keep_blank_values=True)
    fields = dict(pairs)
    return "&".join(f"{quote_plus(name)}={_field(name, value, fields)}" for name, value in pairs)


def _field(name: str, value: str, fields: Mapping[str, str]) -> str:
    """One field of a form; some write pairs as ``Tag.1.Key`` and ``Tag.1.Value``."""
    stem, dot, last = name.rpartition(".")
    together = {each: fields[stem + dot + each] for each in ("Key", "Value") if stem + dot + each in fields}
    shown = _member(last, value, together) if last in together else _value(name, value)
    return quote_plus(value) if shown == value else HIDDEN


def _shown(told: Any) -> Any:
    """A JSON document with its secrets hidden."""
    if isinstance(told, dict):
        return {name: _member(name, value, told) for name, value in told.items()}
    if isinstance(told, list):
        return [_shown(each) for each in told]
    return _without_keys(told) if isinstance(told, str) else told


def _member(name: str, value: Any, fields: Mapping[str, Any]) -> Any:
    """One member of an object; some write pairs as ``{"key": "HF_TOKEN", "value": ...}``."""
    pair = {each.lower(): told for each, told in fields.items()}
    if "value" in pair and name.lower() == "key":
        return value
    if name.lower() == "value":
        name = str(pair.get("key") or pair.get("name") or name)
    return _value(name, value)


def _value(name: str, value: Any) -> Any:
    """What is called so, hidden if that says that it is secret."""
    if value is None or isinstance(value, bool):
        return value
    if redact.is_secret(name) and not _is_harmless(name, value):
        return value if isinstance(value, str) and redact.known().get(value) else HIDDEN
    return _shown(value)


def _text(name: str, value: str) -> str:
    return str(_value(name, value))


def _is_harmless(name: str, value: Any) -> bool:
    """Whether it is one of our tags, a public key, or what a key is called."""
    each = value if isinstance(value, list) else [value]
    public = all(isinstance(key, str) and _PUBLIC_KEY.fullmatch(key) for key in each)
    return public or name.startswith(_OURS) or _NAME_OF_KEY.fullmatch(name) is not None


def _without_keys(text: str) -> str:
    """A text without private keys, however they are packed."""
    bare = redact.without_private_keys(text)
    return _BASE64.sub(lambda run: HIDDEN if _holds_secret(run[0], _INSIDE) else run[0], bare)


def _holds_secret(packed: str, depth: int) -> bool:
    """Whether a private key or a known secret is in what base64, and perhaps gzip, make of a text."""
    plain = packed.translate({ord("-"): "+", ord("_"): "/"}).rstrip("=")
    # It may begin somewhat later, as after the name of a folder.
    for text in (_unpacked(plain[offset:]) for offset in range(4)):
        if redact.scrub(text) != text:
            return True
        if depth and any(_holds_secret(run[0], depth - 1) for run in _BASE64.finditer(text)):
            return True
    return False


def _unpacked(text: str) -> str:
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4))
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except (binascii.Error, OSError, EOFError, zlib.error):
        return ""
    return content.decode("utf-8", "replace")


def _quoted(text: str) -> str:
    """A word of a POSIX shell, in which secrets that a variable has are that variable."""
    known = redact.known()
    secrets = "|".join(map(re.escape, sorted(known, key=len, reverse=True)))
    pieces = re.split(f"({secrets})", text) if secrets else [text]
    # Every second piece is a secret.
    plain = [redact.scrub(piece).replace(redact.HIDDEN, HIDDEN) for piece in pieces[::2]]
    names = [known[piece] for piece in pieces[1::2]]
    words, variables = [plain[0]], []
    for name, after in zip(names, plain[1:], strict=True):
        if name:
            variables.append(name)
            words.append(after)
        else:
            words[-1] += HIDDEN + after
    if not variables:
        return _in_single(words[0])
    pairs = list(zip(variables, words[1:], strict=True))
    if _MARKED & set("".join(words)):
        return _in_single(words[0]) + "".join(f'"${name}"{_in_single(word)}' for name, word in pairs)
    return f'"{words[0]}' + "".join(f"{_named(name, word)}{word}" for name, word in pairs) + '"'


def _named(variable: str, after: str) -> str:
    return f"${{{variable}}}" if re.match(r"\w", after) else f"${variable}"


def _in_single(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"
