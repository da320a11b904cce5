"""Plan files: what one person has fixed, for another to read and for cron to rent by.

A file is the JSON of a ``PlanFile``: money as decimal strings, times and durations as ISO 8601. Its hash is
over the canonical JSON of all the rest. It tells of slips, not of malice: whoever can write the one can write
the other.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from pathlib import Path
from typing import Any, ClassVar, Final

from gpucloud.errors import BudgetRefused, UsageError
from gpucloud.fleet.plan import LaunchRequest, Plan
from gpucloud.model import Limits, Offer

FAMILY: Final = "gpucloud.plan-file/"
SCHEMA: Final = f"{FAMILY}1"

SETTINGS: Final = frozenset({"launch.ready_timeout", "launch.audition_budget", "launch.wait"})
"""What of the configuration a plan may override: a file must not be able to lift a budget."""

_MICRO_USD: Final = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class PlannedOffer:
    """One offer as it was when it was planned. ``lease``: when a machine rented by it must end at the latest.

    ``id`` and ``ref`` are what it is found again by; ``usd_per_hour`` is for one whole instance.
    """

    id: str
    provider: str
    usd_per_hour: Decimal
    as_of: datetime
    ref: str = ""
    currency: str = "USD"
    amount: Decimal | None = None
    gpu: str | None = None
    gpu_count: int = 0
    lease: timedelta | None = None


@dataclass(frozen=True, slots=True)
class PlannedJob:
    """What is to be done there. ``secrets`` are names: their values are those of where the plan is applied.

    ``workdir`` is as it was typed, and meant from where the plan is applied; ``None`` pushes no folder.
    """

    command: str = ""
    workdir: str | None = None
    outputs: tuple[str, ...] = ()
    envs: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlanFile:
    """All that is fixed by a plan. The limits in ``request`` are those that hold, whoever has set them.

    ``providers`` are to be asked again; ``worst_cost`` is in US dollars, ``None`` when nothing bounds it;
    ``price_tolerance`` is a share of 1; ``settings`` are texts of some of ``SETTINGS``.
    """

    made_at: datetime
    expires_at: datetime
    by: str
    request: LaunchRequest
    providers: tuple[str, ...]
    offers: tuple[PlannedOffer, ...]
    worst_cost: Decimal | None
    price_tolerance: Decimal
    job: PlannedJob = PlannedJob()
    settings: Mapping[str, str] = field(default_factory=dict)

    # What is not understood must not be ignored in a file that spends money.
    __pydantic_config__: ClassVar[dict[str, object]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        times = [self.made_at, self.expires_at, *(offer.as_of for offer in self.offers)]
        if any(time.tzinfo is None for time in times):
            raise ValueError("a time has no zone")
        if not self.offers:
            raise ValueError("there is no offer in it")
        unknown = sorted(self.settings.keys() - SETTINGS)
        if unknown:
            raise ValueError(f"a plan cannot set {unknown[0]}")

    @property
    def limits(self) -> Limits:
        """When what is rented by it must end."""
        asked = self.request
        return Limits(asked.max_duration, asked.max_cost, asked.idle, lifted=asked.no_limit)


def fixed(
    plan: Plan,
    references: Sequence[str],
    job: PlannedJob,
    *,
    by: str,
    made_at: datetime,
    good_for: timedelta,
    price_tolerance: Decimal,
    settings: Mapping[str, str],
) -> PlanFile:
    """A plan as it is kept. ``references`` are the providers as they were typed, if any were."""
    limits, worst = plan.limits, plan.worst_cost
    typed = {reference.partition(":")[0]: reference for reference in references}
    planned = dict.fromkeys(offer.provider for offer in plan.offers)
    return PlanFile(
        made_at=made_at,
        expires_at=made_at + good_for,
        by=by,
        request=replace(
            plan.request, max_duration=limits.max_duration, max_cost=limits.max_cost, idle=limits.idle
        ),
        providers=tuple(typed.get(name, name) for name in planned),
        offers=tuple(_planned(offer, plan.lease(offer)) for offer in plan.offers),
        worst_cost=None if worst is None else worst.quantize(_MICRO_USD, ROUND_CEILING),
        price_tolerance=price_tolerance,
        job=job,
        settings=dict(settings),
    )


def _planned(offer: Offer, lease: timedelta | None) -> PlannedOffer:
    return PlannedOffer(
        id=offer.id,
        provider=offer.provider,
        usd_per_hour=offer.usd_per_hour,
        as_of=offer.as_of,
        ref=offer.ref,
        currency=offer.currency,
        amount=offer.amount,
        gpu=None if offer.gpu is None else str(offer.gpu),
        gpu_count=offer.gpu_count,
        lease=lease,
    )


def dump(planned: PlanFile) -> str:
    """The text of a plan file. Raises ``UsageError`` when something in it is no text."""
    from pydantic import TypeAdapter

    try:
        document = {"schema": SCHEMA, **TypeAdapter(PlanFile).dump_python(planned, mode="json")}
        text = json.dumps({**document, "hash": hash_of(document)}, indent=2, ensure_ascii=False) + "\n"
        text.encode()
    except ValueError:
        raise UsageError(
            "the plan cannot be written down",
            why="the command, a path or a variable is not UTF-8 text",
            hint="put it into a script, and let the command call that",
        ) from None
    return text


def hash_of(document: Mapping[str, Any]) -> str:
    """The hash that belongs to a document: over its canonical JSON, without the hash that is in it."""
    rest = {key: value for key, value in document.items() if key != "hash"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"


def load(text: str, name: str) -> PlanFile:
    """Read the text of a plan file that is called ``name`` in errors.

    Raises:
        UsageError: when it is no plan, was edited, or is of another version of gpucloud.
    """
    from pydantic import TypeAdapter, ValidationError

    document = _document(text, name)
    if document.get("hash") != hash_of(document):
        raise UsageError(
            f"{name} was edited",
            why="its hash does not fit what is in it",
            hint=f"make it anew: gpucloud plan ... -o {name} --force",
        )
    fields = {key: value for key, value in document.items() if key not in {"schema", "hash"}}
    try:
        return TypeAdapter(PlanFile).validate_python(fields)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place, what = ".".join(map(str, fault["loc"])), fault["msg"].removeprefix("Value error, ")
        raise UsageError(
            f"{name} is a plan that makes no sense",
            why=f"{place}: {what}" if place else what,
            hint=f"make it anew: gpucloud plan ... -o {name} --force",
        ) from None


def _document(text: str, name: str) -> dict[str, Any]:
    """A JSON object of our schema. Raises ``UsageError``."""
    try:
        document = json.loads(text, object_pairs_hook=_without_twins)
    except (ValueError, RecursionError) as error:
        raise _no_plan(name, f"it is no JSON document ({error})") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or not schema.startswith(FAMILY):
        raise _no_plan(name, "its schema is not that of a plan file")
    if schema != SCHEMA:
        raise UsageError(
            f"{name} is a plan of another version of gpucloud",
            why=f"its schema is {schema!r}, and {SCHEMA} is read here",
            hint=f"make it anew: gpucloud plan ... -o {name} --force",
        )
    return dict(document)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object. A key that is there twice would show a reader one value and give the program another."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _no_plan(name: str, why: str) -> UsageError:
    return UsageError(f"{name} is not a plan", why=why, hint="gpucloud plan ... -o plan.json makes one")


def read(path: Path, now: datetime) -> PlanFile:
    """Read a plan file that can still be applied.

    Raises:
        UsageError: when there is no such file, it is no plan, was edited, or is of another version.
        BudgetRefused: when it has expired.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        raise _no_plan(str(path), "it is not UTF-8 text") from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read", why=error.strerror or str(error), hint=f"ls -l {path}"
        ) from None
    planned = load(text, str(path))
    if now >= planned.expires_at:
        raise BudgetRefused(
            f"{path} has expired",
            why=f"it was good until {planned.expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC",
            hint=f"make it anew: gpucloud plan ... -o {path} --force",
        )
    return planned


def write(text: str, path: Path, *, force: bool = False) -> None:
    """Put the text of a plan into a file, whole or not at all; only ``force`` replaces one that is there.

    Raises:
        UsageError: when there is one already, or it cannot be written.
    """
    import tempfile

    try:
        # The variables of a job are nobody else's business, so the file is for its owner alone.
        handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if force:
                Path(draft).replace(path)
            else:
                os.link(draft, path)
        finally:
            Path(draft).unlink(missing_ok=True)
    except FileExistsError:
        raise UsageError(
            f"{path} is there already",
            why="a plan that somebody may have read is not replaced unasked",
            hint="add --force, or give another name",
        ) from None
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written", why=error.strerror or str(error), hint=f"ls -ld {path.parent}"
        ) from None
