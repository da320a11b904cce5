"""The refusals: offers that a provider turned down a short while ago."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from gpucloud.model import Offer, utcnow
from gpucloud.store.database import Database
from gpucloud.store.rows import stamp


class Refusals:
    """Shared by all commands, so that none asks again for what was refused within its time to live."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def add(self, offer: Offer, reason: str, ttl: timedelta) -> None:
        """Remember a refusal for ``ttl``."""
        now = utcnow()
        with self._db.write() as db:
            db.execute("DELETE FROM refusals WHERE until <= ?", (stamp(now),))
            db.execute(
                "INSERT OR REPLACE INTO refusals VALUES (?, ?, ?, ?, ?, ?)",
                (*_key(offer), reason, stamp(now + ttl)),
            )

    def among(self, offers: Iterable[Offer]) -> dict[str, str]:
        """Of these offers, the ids of those refused a short while ago, with the reason."""
        rows = self._db.read("SELECT * FROM refusals WHERE until > ?", stamp(utcnow()))
        reasons = {tuple(row)[:4]: str(row["reason"]) for row in rows}
        return {offer.id: reasons[key] for offer in offers if (key := _key(offer)) in reasons}


def _key(offer: Offer) -> tuple[str, str, str, str]:
    return offer.provider, offer.instance_type, offer.zone or offer.region or "", str(offer.market)
