"""Who is told of each HTTP request before it is sent: nobody, unless somebody wants to know.

In a rehearsal what only reads is sent, and what changes something is told of and kept back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Call:
    """One request, secrets included. ``kept_back``: it is not sent."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    content: bytes = field(repr=False)
    kept_back: bool = False


Listener = Callable[[Call], None]
"""Told of each request, in the thread that is about to send it."""


class KeptBack(BaseException):
    """A request was not sent because this is a rehearsal.

    No handler of ``Exception`` takes it for a failure that can be dealt with.
    """


@dataclass(slots=True)
class _Now:
    listener: Listener | None = None
    rehearsing: bool = False


_now = _Now()


def listen(listener: Listener | None, *, rehearse: bool = False) -> None:
    """From now on tell ``listener``, in all threads; with ``rehearse`` nothing that changes is sent."""
    _now.listener, _now.rehearsing = listener, rehearse and listener is not None


def heard() -> bool:
    """Whether somebody is told."""
    return _now.listener is not None


def rehearsing() -> bool:
    """Whether what changes something is kept back."""
    return _now.rehearsing


def sending(
    method: str, url: str, headers: Mapping[str, str | bytes], content: str | bytes | None, *, changes: bool
) -> None:
    """Tell of a request that is about to be sent. Raises ``KeptBack`` when it must not be.

    ``HttpClient`` does so by itself; adapters do it for what their vendor's library sends.
    """
    if _now.listener is None:
        return
    kept_back = changes and _now.rehearsing
    texts = {name: value if isinstance(value, str) else value.decode() for name, value in headers.items()}
    body = content.encode() if isinstance(content, str) else content or b""
    _now.listener(Call(method, url, texts, body, kept_back))
    if kept_back:
        raise KeptBack
