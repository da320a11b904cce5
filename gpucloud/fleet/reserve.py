"""Buying capacity for a time to come, and knowing what was bought. A purchase cannot be taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Final, cast

from gpucloud.errors import (
    NoCapacity,
    NothingMatched,
    ProviderError,
    Unsupported,
    UsageError,
)
from gpucloud.fleet import Fleet
from gpucloud.fleet.budget import caps
from gpucloud.fleet.end import listed
from gpucloud.fleet.plan import LaunchRequest, Plan, limits_of
from gpucloud.market.ask import ask_all
from gpucloud.model import (
    Block,
    Booking,
    BookingState,
    Event,
    Failure,
    Labels,
    Market,
    Offer,
    Requirements,
    Reservation,
    ReservationState,
    Window,
    utcnow,
)
from gpucloud.provider import LaunchSpec, Provider, Reserves
from gpucloud.quantities import format_duration
from gpucloud.store import new_id

LOCK: Final = "reservations"
CUT_OFF: Final = "its purchase was cut off before it was made"


@dataclass(frozen=True, slots=True)
class Held:
    """A reservation as the books and its provider have it; either may lack it.

    ``reservation`` is ``None`` too when the provider could not be asked.
    """

    booking: Booking | None
    reservation: Reservation | None

    @property
    def told(self) -> Reservation | Block:
        """What is known of it, from its provider if that tells."""
        if self.reservation:
            return self.reservation
        assert self.booking is not None
        return self.booking.block

    @property
    def id(self) -> str:
        """What a person types to launch into it."""
        if self.reservation:
            return self.reservation.ref.id
        assert self.booking is not None
        return self.booking.ref.id if self.booking.ref else self.booking.token

    @property
    def name(self) -> str | None:
        """What it was called when it was bought."""
        if self.booking:
            return self.booking.name
        return self.reservation.name if self.reservation else None

    @property
    def over(self) -> bool:
        """Whether nothing can be launched into it any more, or it was never bought."""
        if self.state in {ReservationState.ENDED, ReservationState.FAILED, BookingState.FAILED}:
            return True
        return self.told.ends_at is not None and self.told.ends_at <= utcnow()

    @property
    def state(self) -> ReservationState | BookingState:
        """As its provider says, else as the books do."""
        if self.reservation:
            return self.reservation.state
        assert self.booking is not None
        return self.booking.state


def blocks(
    fleet: Fleet, wanted: Requirements, window: Window, references: Sequence[str]
) -> tuple[list[Block], list[Failure]]:
    """What can be reserved, cheapest first, and who could not answer.

    Raises:
        Unsupported: when none of the providers sells capacity for a time to come.
        NothingMatched: when none of those that answered has what is wanted.
    """
    asked = fleet.registry.select(references)
    able = [provider for provider in asked if isinstance(provider, Reserves)]
    if not able:
        raise Unsupported(
            "no provider of these sells reservations",
            provider=asked[0].name if asked else "",
            why=f"asked were {', '.join(provider.name for provider in asked) or 'none'}",
            hint="gpucloud providers",
        )
    timeout_s = fleet.config.duration("offers.timeout").total_seconds()
    told, failures = ask_all(able, lambda p: list(cast(Reserves, p).blocks(wanted, window)), timeout_s)
    found = [block for each in told.values() for block in each if _answers(block, wanted, window)]
    if not found and not failures:
        raise NothingMatched(
            f"nothing like that can be reserved for {format_duration(window.lasting)}",
            why=f"asked were {', '.join(provider.name for provider in able)}",
            hint="another --start or --for, or fewer --nodes",
        )
    return sorted(found, key=lambda block: (block.usd, block.starts_at, block.ref)), failures


def _answers(block: Block, wanted: Requirements, window: Window) -> bool:
    return (
        block.nodes >= window.nodes
        and block.ends_at - block.starts_at >= window.lasting
        and (not wanted.gpus or any(wish.accepts(block.gpu, block.gpu_count) for wish in wanted.gpus))
        and (not wanted.regions or bool({block.region, block.zone} & set(wanted.regions)))
    )


def buy(fleet: Fleet, block: Block, name: str, labels: Labels) -> Booking:
    """Buy a block, or find that one of that name was bought before. The books know what may be owed.

    Raises:
        BudgetRefused: when a cap does not allow it; nothing is bought then.
        NoCapacity: when somebody else was faster.
        TeardownUnconfirmed: when it may have been bought, and its provider does not tell.
        UsageError: when there is one of that name that is something else.
        ProviderError: why it was not bought.
    """
    store, now = fleet.store, utcnow()
    with store.db.lock(LOCK):
        if before := _before(fleet, name, block):
            return before
        booking = Booking(new_id("gc-", 20), name, block, BookingState.INTENDED, now, labels)
        store.bookings.intend(booking, caps(fleet.config, now))
        provider = fleet.registry.get(block.provider)
        assert isinstance(provider, Reserves)
        spec = LaunchSpec(booking.token, name, 0, fleet.owner, public_key="")
        try:
            reservation = provider.reserve(block, spec)
        except ProviderError as error:
            found = _settled(provider, booking.token) if error.outcome_unknown else None
            bought = _enter(fleet, booking, found, error.message)
            if bought is None:
                raise
        else:
            bought = _bought(fleet, booking, reservation)
        fleet.tell(Event("reserved", f"{name}: {block.provider} {bought.ref.id if bought.ref else ''}"))
        return bought


def _before(fleet: Fleet, name: str, block: Block) -> Booking | None:
    """The reservation of that name that is not over. Raises ``UsageError`` if it is of something else."""
    for booking in fleet.store.bookings.all():
        if booking.name != name or booking.state is BookingState.FAILED or booking.block.ends_at <= utcnow():
            continue
        bought = _confirmed(fleet, booking) if booking.state is BookingState.INTENDED else booking
        if bought is None:
            continue
        had = bought.block
        if (had.provider, had.instance_type, had.nodes) != (block.provider, block.instance_type, block.nodes):
            raise UsageError(
                f"there is a reservation {name!r} already, and it is something else",
                why=f"it is {had.nodes} x {had.provider}/{had.instance_type}",
                hint="gpucloud reservations, or another --name",
            )
        fleet.tell(Event("reserved", f"{name} was bought before, and is not bought again"))
        return bought
    return None


def _confirmed(fleet: Fleet, booking: Booking) -> Booking | None:
    """One whose purchase was cut off, if it was made. Raises ``TeardownUnconfirmed``."""
    found = _settled(fleet.registry.get(booking.block.provider), booking.token)
    return _enter(fleet, booking, found, CUT_OFF)


def _enter(fleet: Fleet, booking: Booking, found: Reservation | None, reason: str) -> Booking | None:
    """Let the books know what a listing shows of a purchase: what was bought, or that nothing was."""
    if found is None or found.state is ReservationState.FAILED:
        if booking.state is not BookingState.FAILED:
            fleet.store.bookings.failed(booking.token, "its provider gave it up" if found else reason)
        return None
    return booking if booking.state is BookingState.BOUGHT else _bought(fleet, booking, found)


def _bought(fleet: Fleet, booking: Booking, reservation: Reservation) -> Booking:
    fleet.store.bookings.bought(booking.token, reservation)
    return replace(booking, state=BookingState.BOUGHT, ref=reservation.ref)


def _settled(provider: Provider, token: str) -> Reservation | None:
    """What a purchase whose answer was lost has bought. Raises ``TeardownUnconfirmed``."""
    return listed(provider, partial(_find, provider, token), f"whether {token} was bought")


def _find(provider: Provider, token: str) -> Reservation | None:
    shown = cast(Reserves, provider).reservations()
    return next((each for each in shown if each.token == token), None)


def held(fleet: Fleet, only: str | None = None) -> tuple[list[Held], list[Failure]]:
    """Every reservation of the books and of the providers, and who could not be asked; the books learn.

    One whose purchase was cut off is bought once its provider lists it, and was not when it surely would.
    With ``only`` just that provider is asked.
    """
    store = fleet.store
    booked = {booking.token: booking for booking in store.bookings.all()}
    known = {provider.name: provider for provider in fleet.registry.configured()}
    for booking in booked.values():
        known.setdefault(booking.block.provider, fleet.registry.get(booking.block.provider))
    asked = [provider for name, provider in sorted(known.items()) if only in (None, name)]
    able = [provider for provider in asked if isinstance(provider, Reserves)]
    timeout_s = fleet.config.duration("offers.timeout").total_seconds()
    told, failures = ask_all(able, lambda p: list(cast(Reserves, p).reservations()), timeout_s)
    shown = {each.token: each for found in told.values() for each in found if each.token}
    for token, booking in booked.items():
        if token in shown or (booking.block.provider in told and _cut_off(fleet, booking)):
            _enter(fleet, booking, shown.get(token), CUT_OFF)
    booked = {booking.token: booking for booking in store.bookings.all()}
    tokens = [*booked, *(token for token in shown if token not in booked)]
    return [Held(booked.get(token), shown.get(token)) for token in tokens], failures


def _cut_off(fleet: Fleet, booking: Booking) -> bool:
    """Whether a listing that does not show a purchase proves that it was never made."""
    lag = timedelta(seconds=fleet.registry.get(booking.block.provider).traits.listing_lag_s)
    # Somebody may be about to buy it.
    going_on = fleet.store.db.is_locked(LOCK)
    return booking.state is BookingState.INTENDED and utcnow() - booking.intended_at > lag and not going_on


def plan_within(fleet: Fleet, request: LaunchRequest) -> Plan:
    """A launch into a reservation, which is paid for already; what is launched ends with it.

    Raises:
        NothingMatched: when there is none of that id or name.
        NoCapacity: when it has not begun, is over, or has no room left.
    """
    wanted = request.reservation
    ours = (each for each in fleet.store.bookings.all() if wanted in (each.name, each.ref and each.ref.id))
    # Who has sold one of ours is known; one of another computer may be anywhere.
    found, failures = held(fleet, next((each.block.provider for each in ours), None))
    # A name may have been used before.
    named = sorted((each for each in found if wanted in (each.id, each.name)), key=lambda each: each.over)
    one = named[0] if named else None
    if one is None or one.reservation is None:
        raise NothingMatched(
            f"there is no reservation {wanted!r}",
            why="; ".join(f"{each.provider}: {each.message}" for each in failures)
            or f"there are {', '.join(each.name or each.id for each in found) or 'none'}",
            hint="gpucloud reservations",
        )
    place = one.reservation
    _require_room(place, request.nodes)
    ends_at = place.ends_at
    left = None if ends_at is None else ends_at - utcnow()
    longest = min((each for each in (request.max_duration, left) if each is not None), default=None)
    block = one.booking.block if one.booking else None
    offer = Offer(
        provider=place.provider,
        instance_type=place.instance_type,
        market=Market.RESERVED,
        usd_per_hour=Decimal(0),
        as_of=utcnow(),
        source="a reservation, which is paid for",
        gpu=block.gpu if block else None,
        gpu_count=block.gpu_count if block else 0,
        region=place.ref.region,
        zone=place.zone,
        ref=place.ref.id,
    )
    limits = replace(limits_of(fleet.config, request, paid=False), max_duration=longest)
    return Plan(request, (offer,), tuple(failures), limits)


def _require_room(place: Reservation, nodes: int) -> None:
    why = ""
    if place.state is not ReservationState.ACTIVE:
        begins = f", it begins at {place.starts_at:%Y-%m-%d %H:%M} UTC" if place.starts_at else ""
        why = f"it is {place.state}{begins}"
    elif place.free is not None and place.free < nodes:
        why = f"{place.free} of its {place.nodes} machines are free, {nodes} are asked for"
    if why:
        raise NoCapacity(
            f"nothing can be launched into {place.ref.id} now",
            provider=place.provider,
            why=why,
            hint="gpucloud reservations",
            lasting=False,
        )
