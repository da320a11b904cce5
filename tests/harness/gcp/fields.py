"""What is left of a reply when only some of its fields are asked for.

As https://docs.cloud.google.com/compute/docs/api/how-tos/performance has it, without wildcards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

_TOKEN: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*|[/(),]")

Mask = dict[str, "Mask"]


def masked(body: Any, text: str) -> Any:
    """Leave what ``a,b(c,d/e)`` names. Raises ``ValueError`` for what is not written like that."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text:
        raise ValueError(f"{text!r} names no fields")
    rest = iter([*tokens, ")"])
    mask = _inside(rest)
    if next(rest, None):
        raise ValueError(f"{text!r} closes what it has not opened")
    return _left(body, mask)


def _inside(tokens: Iterator[str]) -> Mask:
    """What is named until the bracket that closes."""
    mask: Mask = {}
    here, last = mask, mask
    for token in tokens:
        if token == ")":
            return mask
        if token == "(":
            last.update(_inside(tokens))
        elif token == "/":
            here = last
        elif token == ",":
            here = mask
        else:
            last = here.setdefault(token, {})
    raise ValueError("a bracket is not closed")


def _left(body: Any, mask: Mask) -> Any:
    if not mask:
        return body
    if isinstance(body, list):
        return [_left(each, mask) for each in body]
    return {name: _left(body[name], inner) for name, inner in mask.items() if name in body}
