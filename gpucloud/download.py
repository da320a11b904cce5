"""Files too large to be held: read chunk by chunk, and taken up again where the connection broke."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from gpucloud.errors import Unreachable
from gpucloud.http import (
    UNCHANGED,
    HttpClient,
    Reply,
    Tell,
    if_changed,
    length_of,
    untold,
    validator_of,
)

log = logging.getLogger(__name__)

MOST_BREAKS: Final = 20
"""A download that breaks more often than this is given up."""

_PARTIAL: Final = 206


@dataclass(frozen=True, slots=True)
class Download:
    """A file while it is read. ``validator`` tells this edition from the next, if the server says so."""

    validator: str | None
    chunks: Iterator[bytes]

    def lines(self) -> Iterator[str]:
        """The lines of a text, each with its end."""
        return _lines(self.chunks)


@contextmanager
def download(
    http: HttpClient,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    validator: str | None = None,
    tell: Tell = untold,
) -> Iterator[Download | None]:
    """Read a file, inside; ``None`` when it is still the edition that ``validator`` is of.

    A connection that breaks is taken up again at the byte where it broke, where the server can do that.
    Raises, also from the iterators, what ``HttpClient.get`` raises.
    """
    with ExitStack() as stack:
        reply = _open(stack, http, path, params, if_changed(validator))
        if reply.status == UNCHANGED:
            yield None
        else:
            chunks = _chunks(stack, reply, http, path, params, tell)
            yield Download(validator_of(reply.headers), chunks)


def _open(
    stack: ExitStack,
    http: HttpClient,
    path: str,
    params: Mapping[str, Any] | None,
    headers: Mapping[str, str],
) -> Reply:
    # Where a read is taken up again counts the bytes of the file as it is, not as it is packed for the way.
    opened = http.open(path, params=params, headers={"Accept-Encoding": "identity", **headers})
    return stack.enter_context(opened)


def _chunks(
    stack: ExitStack,
    reply: Reply,
    http: HttpClient,
    path: str,
    params: Mapping[str, Any] | None,
    tell: Tell,
) -> Iterator[bytes]:
    edition, total, read = validator_of(reply.headers), length_of(reply.headers), 0
    for breaks in range(MOST_BREAKS + 1):
        try:
            for chunk in reply.chunks:
                read += len(chunk)
                tell(read, total)
                yield chunk
            return
        except Unreachable as error:
            # A weak validator does not promise the same bytes.
            if edition is None or edition.startswith("W/") or breaks == MOST_BREAKS:
                raise
            log.debug("%s broke at byte %d (%s); it is taken up there", path, read, error.why)
        stack.close()
        reply = _open(stack, http, path, params, {"Range": f"bytes={read}-", "If-Range": edition})
        if reply.status != _PARTIAL:
            raise Unreachable(
                f"{http.provider} changed what was being read",
                provider=http.provider,
                why=f"byte {read} of {path} is not to be had any more",
                hint="run it again",
            )


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    kept: list[bytes] = []
    for chunk in chunks:
        first, *rest = chunk.split(b"\n")
        kept.append(first)
        for line in rest:
            yield b"".join(kept).decode("utf-8", "replace") + "\n"
            kept = [line]
    if last := b"".join(kept):
        yield last.decode("utf-8", "replace")
