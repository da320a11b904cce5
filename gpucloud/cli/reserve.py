"""``gpucloud reserve`` and ``gpucloud reservations``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gpucloud.cli.app import app
from gpucloud.cli.consent import agree
from gpucloud.cli.exit_codes import ExitCode
from gpucloud.cli.options import Reserving, Typed, parsed
from gpucloud.cli.render import failures, local_time, money, out
from gpucloud.errors import BudgetRefused, NothingMatched
from gpucloud.model import Block, Market, Window, utcnow
from gpucloud.quantities import format_duration, parse_duration

if TYPE_CHECKING:
    from gpucloud.fleet import Fleet
    from gpucloud.fleet.reserve import Held
    from gpucloud.model import Booking, Failure

USUAL_SPAN: Final = timedelta(days=14)
"""How far ahead a start may lie that nobody has bounded."""

BLOCKS: Final = ("BLOCK", "START", "END", "TYPE", "GPU", "NODES", "ZONE", "$ ALL", "$ NOW", "$/GPU-H")
HELD: Final = ("NAME", "RESERVATION", "STATE", "START", "END", "TYPE", "NODES", "FREE", "ZONE", "$ ALL")


@app.command(cls=Reserving)
def reserve(
    ctx: typer.Context,
    block: Annotated[
        str, typer.Argument(metavar="[BLOCK]", help="Which of them to buy; else the first.")
    ] = "",
    lasting: Annotated[str, typer.Option("--for", metavar="TIME", help="For how long: 24h, 7d.")] = "24h",
    start: Annotated[
        str, typer.Option(metavar="WHEN", help="2026-12-01, 2026-12-01..2026-12-05, or 6h from now.")
    ] = "",
    buy: Annotated[bool, typer.Option("--buy", help="Buy it, which cannot be taken back.")] = False,
) -> None:
    """What capacity can be reserved for a time to come, cheapest first; with --buy, buy it.

    Example: gpucloud reserve --gpu H100:8 --for 24h --start 2026-12-01..2026-12-05
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.reserve import blocks

    typed = Typed.of(ctx)
    here = fleet()
    window = _window(lasting, start, typed.nodes)
    wanted = typed.requirements(markets=(Market.RESERVED,))
    found, failed = blocks(here, wanted, window, typed.provider)
    for failure in failed:
        out.failure(failure)
    if not found:
        _write([], failed)
        raise typer.Exit(ExitCode.UNREACHABLE)
    if buy:
        bought = _buy(here, _chosen(found, block), typed)
        _write([_block_json(bought.block)], failed, booking=bought)
        out.note(f"next: gpucloud reservations, and then gpucloud launch --reservation {bought.name}")
    elif out.json:
        _write([_block_json(each) for each in found], failed)
    else:
        out.table(BLOCKS, [_block_row(each) for each in found])
        out.note("nothing is bought without --buy")


def _window(lasting: str, start: str, nodes: int) -> Window:
    """``--for`` and ``--start``. Raises ``UsageError``."""
    long = parsed("--for", lasting, parse_duration)
    assert long is not None
    earliest, latest = parsed("--start", start, parse_start) or (utcnow(), utcnow() + USUAL_SPAN)
    return Window(long, max(earliest, utcnow()), latest, nodes)


def parse_start(text: str) -> tuple[datetime, datetime]:
    """Read between when something may start; times without a zone are local. Raises ``ValueError``."""
    first, dots, last = text.partition("..")
    earliest = _moment(first)
    latest = _moment(last) if dots else earliest + timedelta(days=1)
    if latest <= utcnow() or latest < earliest:
        raise ValueError(f"{text!r} is over, or ends before it begins")
    return earliest, latest


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip()).astimezone()
    except ValueError:
        return utcnow() + parse_duration(text)


def _chosen(found: Sequence[Block], wanted: str) -> Block:
    """The block of that name, or the first. Raises ``NothingMatched``."""
    chosen = [block for block in found if wanted in ("", block.ref)]
    if not chosen:
        raise NothingMatched(
            f"there is no block {wanted!r} now",
            why=f"{len(found)} are offered",
            hint="the same without --buy shows them",
        )
    return chosen[0]


def _buy(fleet: Fleet, block: Block, typed: Typed) -> Booking:
    """Buy a block once the person has agreed to what it costs. Raises ``BudgetRefused``."""
    from gpucloud.cli.context import check_name, fresh_name
    from gpucloud.fleet.reserve import buy

    most = typed.dearest
    if most is not None and block.usd > most:
        raise BudgetRefused(
            f"it costs ${block.usd:.2f}", why=f"--max-cost allows ${most}", hint="give a higher --max-cost"
        )
    name = check_name(typed.name) if typed.name else fresh_name()
    for line in _terms(block):
        out.note(line)
    agree(f"Buy it for ${block.usd:.2f}, used or not?", yes=typed.yes)
    return buy(fleet, block, name, typed.labels(fleet.config))


def _terms(block: Block) -> list[str]:
    lasts = format_duration(block.ends_at - block.starts_at)
    later = block.usd - block.usd_upfront
    return [
        f"reserve: {block.nodes} x {block.provider}/{block.instance_type} in {block.zone} for {lasts}",
        f"      from {local_time(block.starts_at)} until {local_time(block.ends_at)}",
        f"      ${block.usd_upfront:.2f} now, ${later:.2f} while it lasts; it cannot be cancelled",
    ]


@app.command()
def reservations(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over, or failed.")] = False,
) -> None:
    """What was reserved: when it begins and ends, and how much of it is free.

    Exits 5 when a provider could not be asked.

    Example: gpucloud reservations --json
    """
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.reserve import held

    found, failed = held(fleet())
    found = [each for each in found if everything or not each.over]
    for failure in failed:
        out.failure(failure)
    if out.json:
        out.document(
            "reservations", reservations=[_held_json(each) for each in found], failures=failures(failed)
        )
    else:
        out.table(HELD, [_held_row(each) for each in found])
    if failed:
        raise typer.Exit(ExitCode.UNREACHABLE)


def _write(found: Sequence[object], failed: Sequence[Failure], *, booking: Booking | None = None) -> None:
    if out.json:
        out.document(
            "reserve",
            blocks=found,
            bought=booking.ref.id if booking and booking.ref else None,
            name=booking.name if booking else None,
            failures=failures(failed),
        )
    elif booking:
        out.line(booking.name)


def _block_json(block: Block) -> dict[str, object]:
    """One block as the schema ``gpucloud.reserve/1`` has it."""
    return {
        "block": block.ref,
        "provider": block.provider,
        "instance_type": block.instance_type,
        "gpu": str(block.gpu) if block.gpu else None,
        "gpu_count": block.gpu_count,
        "nodes": block.nodes,
        "region": block.region,
        "zone": block.zone,
        "starts_at": block.starts_at,
        "ends_at": block.ends_at,
        "usd": money(block.usd),
        "usd_upfront": money(block.usd_upfront),
        "currency": "USD",
    }


def _block_row(block: Block) -> tuple[object, ...]:
    rate = block.usd_per_gpu_hour
    return (
        block.ref,
        local_time(block.starts_at),
        local_time(block.ends_at),
        f"{block.provider}/{block.instance_type}",
        f"{block.gpu_count} x {block.gpu}" if block.gpu else None,
        block.nodes,
        block.zone,
        f"{block.usd:.2f}",
        f"{block.usd_upfront:.2f}",
        None if rate is None else f"{rate:.2f}",
    )


def _held_json(held: Held) -> dict[str, object]:
    """One reservation as the schema ``gpucloud.reservations/1`` has it."""
    told, booking = held.told, held.booking
    return {
        "name": held.name,
        "reservation": held.id,
        "provider": told.provider,
        "state": held.state,
        "instance_type": told.instance_type,
        "nodes": told.nodes,
        "free": held.reservation.free if held.reservation else None,
        "zone": told.zone,
        "starts_at": told.starts_at,
        "ends_at": told.ends_at,
        "usd": money(booking.block.usd) if booking else None,
        "currency": "USD",
        "reason": booking.reason if booking else None,
    }


def _held_row(held: Held) -> tuple[object, ...]:
    told, booking = held.told, held.booking
    return (
        held.name,
        held.id,
        held.state,
        local_time(told.starts_at),
        local_time(told.ends_at),
        f"{told.provider}/{told.instance_type}",
        told.nodes,
        held.reservation.free if held.reservation else None,
        told.zone,
        f"{booking.block.usd:.2f}" if booking else None,
    )
