"""Notes of creates whose machine does not carry our tags yet, and which machine each has made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from gpucloud.errors import Rejected, StoreError, Unreachable

PROVIDER: Final = "hotaisle"
LONGEST_S: Final = 600
"""How long to wait for launches of others on this computer."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A create that is about to be sent, or was. ``before`` are the ids of the machines that were there then.

    ``description`` is what the new one is to carry, and ``shape`` what was asked for; ``id`` is the new one's
    once the reply has told it.
    """

    token: str
    description: str
    shape: list[int]
    before: list[str]
    sent_at: datetime
    id: str | None = None


class Claims:
    """One file for each claim. Every method raises ``StoreError`` when they cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "claims"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, no other launch is under way on this computer. Raises ``Unreachable`` after a long wait."""
        from filelock import FileLock, Timeout

        with _usable(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FileLock(self._folder / ".lock", timeout=LONGEST_S)
        try:
            lock.acquire()
        except Timeout as error:
            busy = f"{PROVIDER}: another launch on this computer does not come to its end"
            raise Unreachable(busy, provider=PROVIDER, hint="try again when it has") from error
        try:
            yield
        finally:
            lock.release()

    def open(self) -> list[Claim]:
        """Every claim that is not settled, the oldest first."""
        with _usable(self._folder):
            files = self._folder.glob("*.json") if self._folder.is_dir() else ()
            read = [json.loads(file.read_text()) for file in files]
            claims = [Claim(**{**one, "sent_at": datetime.fromisoformat(one["sent_at"])}) for one in read]
        return sorted(claims, key=lambda claim: claim.sent_at)

    def write(self, claim: Claim) -> None:
        """Note it, on disk before anything else happens."""
        with _usable(self._folder):
            draft = self._folder / ".draft"
            draft.write_text(json.dumps(asdict(claim), default=datetime.isoformat))
            draft.replace(self._file(claim))

    def forget(self, claim: Claim) -> None:
        """It is settled."""
        with _usable(self._folder):
            self._file(claim).unlink(missing_ok=True)

    def _file(self, claim: Claim) -> Path:
        return self._folder / f"{claim.token}.json"


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"the notes of launches at {PROVIDER} cannot be used",
            why=str(error),
            hint=f"look at {folder}, and at https://admin.hotaisle.app for machines without a description",
        ) from error


def matched(claims: list[Claim], bare: Mapping[str, list[int]]) -> dict[str, Claim]:
    """Which of the ``bare`` machines, those without a description, by id and shape, each claim has made.

    Raises ``Rejected`` when there are more that fit than were asked for: one of them is somebody else's.
    """
    found = {claim.id: claim for claim in claims if claim.id in bare}
    waiting = [claim for claim in claims if claim.id is None]
    for number, claim in enumerate(waiting):
        fits = [
            id
            for id, shape in bare.items()
            if id not in found and id not in claim.before and shape == claim.shape
        ]
        if len(fits) > len(waiting) - number:
            raise Rejected(
                f"{PROVIDER}: which machine is ours cannot be told",
                provider=PROVIDER,
                why=f"{', '.join(fits)} have no description, and not all are of gpucloud",
                hint="give the others a description at https://admin.hotaisle.app, then run it again",
            )
        if fits:
            found[fits[0]] = claim
    return {id: claim for id, claim in found.items() if id is not None}
