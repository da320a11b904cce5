"""Rows of the tables as our nouns, and our values as columns."""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

from gpucloud.model import (
    MICROS,
    Block,
    Booking,
    BookingState,
    Cluster,
    ClusterState,
    Gpu,
    HostKeySource,
    InstanceRef,
    Job,
    JobState,
    Labels,
    Limits,
    Market,
    Rental,
    RentalState,
    SshAddress,
    Tariff,
)

_ALPHABET: Final = "abcdefghjkmnpqrstvwxyz23456789"


def new_id(prefix: str, length: int) -> str:
    """A random name without look-alike letters."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(length))


def to_micros(usd: Decimal) -> int:
    """Dollars as integer micro-dollars, half a micro rounded up."""
    return int((usd * MICROS).to_integral_value(ROUND_HALF_UP))


def from_micros(micros: int) -> Decimal:
    """Integer micro-dollars as dollars."""
    return Decimal(micros) / MICROS


def stamp(at: datetime) -> str:
    """A time as it is stored: in UTC, so that texts compare as times do."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def moment(text: str | None) -> datetime | None:
    """A stored time."""
    return datetime.fromisoformat(text) if text else None


def address_text(address: SshAddress) -> str:
    """An address as it is stored: without its password."""
    return json.dumps(_without_password(asdict(address)))


def _without_password(fields: dict[str, Any]) -> dict[str, Any]:
    jump = fields["jump"]
    kept = {name: value for name, value in fields.items() if name != "password"}
    return {**kept, "jump": _without_password(jump) if jump else None}


def _ssh(fields: dict[str, Any]) -> SshAddress:
    jump = fields.pop("jump")
    proxy = tuple(fields.pop("proxy", ()))
    return SshAddress(**fields, proxy=proxy, jump=_ssh(jump) if jump else None)


def to_cluster(row: sqlite3.Row, rentals: tuple[Rental, ...]) -> Cluster:
    """A row of ``clusters`` with its rentals."""
    return Cluster(
        id=row["id"],
        name=row["name"],
        state=ClusterState(row["state"]),
        nodes=row["nodes"],
        created_at=datetime.fromisoformat(row["created_at"]),
        ephemeral=bool(row["ephemeral"]),
        ended_at=moment(row["ended_at"]),
        rentals=rentals,
        limits=to_limits(row["limits"]),
        labels=Labels(row["project"], row["user"], json.loads(row["tags"])),
        held=from_micros(row["held_micros"]),
    )


def limits_text(limits: Limits) -> str:
    """Limits as they are stored."""
    seconds = {
        name: span.total_seconds()
        for name, span in (("max_duration", limits.max_duration), ("idle", limits.idle))
        if span is not None
    }
    cost = {} if limits.max_cost is None else {"max_cost": str(limits.max_cost)}
    return json.dumps({**seconds, **cost, **({"lifted": True} if limits.lifted else {})})


def to_limits(text: str) -> Limits:
    """Limits as they were stored."""
    kept = json.loads(text)
    return Limits(
        max_duration=timedelta(seconds=kept["max_duration"]) if "max_duration" in kept else None,
        max_cost=Decimal(kept["max_cost"]) if "max_cost" in kept else None,
        idle=timedelta(seconds=kept["idle"]) if "idle" in kept else None,
        lifted=kept.get("lifted", False),
    )


def _tariff(text: str) -> Tariff:
    kept = json.loads(text)
    money = {
        name: Decimal(kept[name]) for name in ("disk_usd_per_hour", "egress_usd_per_gib") if name in kept
    }
    return Tariff(grain_s=kept.get("grain_s"), minimum_s=kept.get("minimum_s"), **money)


def _tariff_text(tariff: Tariff) -> str:
    known = {name: value for name, value in asdict(tariff).items() if value is not None}
    return json.dumps(known, default=str)


def to_rental(row: sqlite3.Row) -> Rental:
    """A row of ``rentals``."""
    price = row["usd_micros_per_hour"]
    return Rental(
        token=row["token"],
        cluster_id=row["cluster_id"],
        rank=row["rank"],
        state=RentalState(row["state"]),
        provider=row["provider"],
        instance_type=row["instance_type"],
        market=Market(row["market"]),
        intended_at=datetime.fromisoformat(row["intended_at"]),
        usd_per_hour=from_micros(price) if price is not None else None,
        currency=row["currency"],
        amount=Decimal(row["amount"]) if row["amount"] else None,
        region=row["region"],
        zone=row["zone"],
        gpu=Gpu(**json.loads(row["gpu"])) if row["gpu"] else None,
        gpu_count=row["gpu_count"],
        ref=InstanceRef(row["instance_id"], row["instance_region"]) if row["instance_id"] else None,
        ssh=_ssh(json.loads(row["ssh"])) if row["ssh"] else None,
        slots=row["slots"],
        planted_key=row["planted_key"],
        host_key=row["host_key"],
        host_key_source=HostKeySource(row["host_key_source"]) if row["host_key_source"] else None,
        expires_at=moment(row["expires_at"]),
        gone_at=moment(row["gone_at"]),
        reason=row["reason"],
        disk_gib=row["disk_gib"],
        tariff=_tariff(row["tariff"]),
        waits=timedelta(seconds=row["waits_s"]) if row["waits_s"] is not None else None,
    )


def to_columns(rental: Rental) -> dict[str, object]:
    """What is known of a rental before its provider is called, as columns."""
    return {
        "token": rental.token,
        "cluster_id": rental.cluster_id,
        "rank": rental.rank,
        "state": rental.state,
        "provider": rental.provider,
        "instance_type": rental.instance_type,
        "market": rental.market,
        "region": rental.region,
        "zone": rental.zone,
        "gpu": json.dumps(asdict(rental.gpu)) if rental.gpu else None,
        "gpu_count": rental.gpu_count,
        "usd_micros_per_hour": to_micros(rental.usd_per_hour) if rental.usd_per_hour is not None else None,
        "currency": rental.currency,
        "amount": str(rental.amount) if rental.amount is not None else None,
        "intended_at": stamp(rental.intended_at),
        "planted_key": rental.planted_key,
        "expires_at": stamp(rental.expires_at) if rental.expires_at else None,
        "disk_gib": rental.disk_gib,
        "tariff": _tariff_text(rental.tariff),
        "waits_s": rental.waits.total_seconds() if rental.waits is not None else None,
    }


def to_booking(row: sqlite3.Row) -> Booking:
    """A row of ``bookings``."""
    block = Block(
        provider=row["provider"],
        ref=row["block"],
        instance_type=row["instance_type"],
        nodes=row["nodes"],
        region=row["region"],
        zone=row["zone"],
        starts_at=datetime.fromisoformat(row["starts_at"]),
        ends_at=datetime.fromisoformat(row["ends_at"]),
        usd=from_micros(row["usd_micros"]),
        usd_upfront=from_micros(row["upfront_micros"]),
        gpu=Gpu(**json.loads(row["gpu"])) if row["gpu"] else None,
        gpu_count=row["gpu_count"],
        currency=row["currency"],
        amount=Decimal(row["amount"]) if row["amount"] else None,
    )
    return Booking(
        token=row["token"],
        name=row["name"],
        block=block,
        state=BookingState(row["state"]),
        intended_at=datetime.fromisoformat(row["intended_at"]),
        labels=Labels(row["project"], row["user"], json.loads(row["tags"])),
        ref=InstanceRef(row["reservation_id"], row["reservation_region"]) if row["reservation_id"] else None,
        reason=row["reason"],
    )


def booking_columns(booking: Booking) -> dict[str, object]:
    """What is known of a reservation before its provider is called, as columns."""
    block = booking.block
    return {
        "token": booking.token,
        "name": booking.name,
        "state": booking.state,
        "intended_at": stamp(booking.intended_at),
        "project": booking.labels.project,
        "user": booking.labels.user,
        "tags": json.dumps(dict(booking.labels.tags)),
        "provider": block.provider,
        "block": block.ref,
        "instance_type": block.instance_type,
        "nodes": block.nodes,
        "region": block.region,
        "zone": block.zone,
        "gpu": json.dumps(asdict(block.gpu)) if block.gpu else None,
        "gpu_count": block.gpu_count,
        "starts_at": stamp(block.starts_at),
        "ends_at": stamp(block.ends_at),
        "usd_micros": to_micros(block.usd),
        "upfront_micros": to_micros(block.usd_upfront),
        "currency": block.currency,
        "amount": str(block.amount) if block.amount is not None else None,
    }


def to_job(row: sqlite3.Row) -> Job:
    """A row of ``jobs`` joined with the name of its cluster."""
    return Job(
        id=row["id"],
        cluster_id=row["cluster_id"],
        cluster_name=row["cluster_name"],
        name=row["name"],
        command=row["command"],
        state=JobState(row["state"]),
        created_at=datetime.fromisoformat(row["created_at"]),
        workdir=row["workdir"],
        outputs=tuple(json.loads(row["outputs"])),
        attempts=row["attempts"],
        started_at=moment(row["started_at"]),
        ended_at=moment(row["ended_at"]),
        exit_code=row["exit_code"],
        outputs_verified_at=moment(row["outputs_verified_at"]),
    )
