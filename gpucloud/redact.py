"""What must never be shown: known secrets, values whose names say that they are secret, and private keys."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

HIDDEN: Final = "REDACTED"
SHORTEST: Final = 6
"""Shorter values are not searched for in texts: they are words of every language."""

_SECRET: Final = re.compile(
    "(?!.*public).*(assertion|auth|cookie|credential|key|passphrase|passw|secret|signature|token"
    "|(custom|user)[-_]?data|(^|[-_])sig$)",
    re.I | re.S,
)
_PEM: Final = re.compile("-----BEGIN [A-Z ]*PRIVATE KEY.*?(-----END [A-Z ]*PRIVATE KEY-----|$)", re.S)


_known: Final[dict[str, str]] = {}


def add(secret: str, variable: str = "") -> None:
    """From now on hide this value in every text, also as JSON, as Python or as an address would write it.

    ``variable`` is the environment variable that has it, or that people would put it into.
    """
    from json import dumps
    from urllib.parse import quote, quote_plus

    written = (dumps(secret)[1:-1], dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    for form in (secret, *written, quote(secret, safe=""), quote_plus(secret)):
        if len(form) >= SHORTEST:
            _known.setdefault(form, "")
    if variable and len(secret) >= SHORTEST:
        _known[secret] = variable


def known() -> Mapping[str, str]:
    """Every form in which a secret is to be hidden, and the variable that holds just that; else empty."""
    return dict(_known)


def is_secret(name: str) -> bool:
    """Whether a value of that name is to be hidden; public keys are not."""
    return bool(_SECRET.match(name))


def hide(fields: dict[str, Any]) -> dict[str, Any]:
    """The same fields with their secrets hidden; one level deep, so that it can be a JSON object hook."""
    # Some vendors write an environment as {"key": "HF_TOKEN", "value": ...}.
    named = "value" if is_secret(f"{fields.get('name')} {fields.get('key')}") else ""
    return {name: HIDDEN if is_secret(name) or name == named else value for name, value in fields.items()}


def scrub(text: str, carried: Iterable[tuple[str, str]] = ()) -> str:
    """``text`` without private keys, known secrets and the secrets among ``carried`` names and values."""
    secrets = {value.strip().rpartition(" ")[2] for name, value in carried if is_secret(name)}
    secrets |= _known.keys()
    # The longest first, for one may begin like another.
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= SHORTEST:
            text = text.replace(secret, HIDDEN)
    return without_private_keys(text)


def without_private_keys(text: str) -> str:
    """``text`` without private keys, and with all else that is in it."""
    return _PEM.sub(HIDDEN, text)
