"""``gpucloud gpus`` and ``gpucloud suggest``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import app
from gpucloud.cli.offer_view import to_json
from gpucloud.cli.options import parsed
from gpucloud.cli.render import out
from gpucloud.errors import NothingMatched, UsageError
from gpucloud.model import Gpu, Market, Offer, fold, same_memory, utcnow
from gpucloud.quantities import format_age, parse_gib

if TYPE_CHECKING:
    from gpucloud.catalog.gpus import GpuFacts
    from gpucloud.catalog.suggest import Fit, Need

COLUMNS = (
    *("GPU", "VENDOR", "GIB", "GB/S", "BF16", "FP8", "WATT", "COMPUTE"),
    *(f"$ {market.upper()}" for market in Market),
)
"""Memory in GiB, bandwidth in GB/s, dense TFLOPS; prices are those of one GPU for an hour."""

FIT_COLUMNS = ("GPU", "COUNT", "GIB", *(f"$ {market.upper()}" for market in Market))
"""Memory and prices are those of the whole set, for an hour."""

EXAMPLE = "gpucloud suggest --vram 40GB, or gpucloud suggest --model-params 8B --task qlora"


@dataclass(frozen=True, slots=True)
class _Line:
    """One GPU: its row of the table, if there is one, and the cheapest offers of it that are known."""

    gpu: Gpu
    facts: GpuFacts | None
    offers: Sequence[Offer]


@app.command()
def gpus(name: Annotated[str, typer.Argument(help="H100, a100-80gb, 'RTX 4090' ...")] = "") -> None:
    """What is known of each GPU, and its cheapest known offers.

    Asks nobody: prices are dollars for a GPU-hour as they were seen last, each with its age.

    Example: gpucloud gpus H100
    """
    from gpucloud.catalog.gpus import table

    offers = _known_offers()
    lines = [_Line(row.gpu, row, offers.get(row.gpu, ())) for row in table()]
    in_table = {line.gpu for line in lines}
    lines += [_Line(gpu, None, offers[gpu]) for gpu in sorted(offers, key=str) if gpu not in in_table]
    if name:
        lines = _named(name, lines)
    if out.json:
        out.document("gpus", gpus=[_to_json(line) for line in lines], failures=[])
    else:
        out.table(COLUMNS, [_to_row(line) for line in lines])


@app.command()
def suggest(
    vram: Annotated[str, typer.Option(metavar="SIZE", help="The memory that is needed: 40GB.")] = "",
    model_params: Annotated[str, typer.Option(metavar="N", help="The model's size: 8B, 1.5T, 350M.")] = "",
    task: Annotated[str, typer.Option(metavar="TASK", help="qlora, lora, full or infer.")] = "",
    bits: Annotated[int | None, typer.Option(help="Bits of a weight: 4, 8, 16 or 32.")] = None,
    context: Annotated[int, typer.Option(min=1, help="Tokens in a sequence.")] = 2048,
    batch: Annotated[
        int, typer.Option(min=1, help="Sequences at once; for training on each GPU, else in all.")
    ] = 1,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many sets of GPUs.")] = 20,
) -> None:
    """Which GPUs have enough memory for a job, with the arithmetic.

    An estimate: every figure that goes into it is shown. Only memory is compared. Prices are dollars an hour
    for the whole set, as they were seen last.

    Example: gpucloud suggest --model-params 8B --task qlora
    """
    from gpucloud.catalog.gpus import table
    from gpucloud.catalog.suggest import fitting

    need = _need(vram, model_params, task, bits, context, batch)
    fits = fitting(need, table())
    if not out.json:
        for line in need.lines:
            out.line(line)
    if not fits:
        raise _too_much(need)
    _show(need, fits[:limit])
    if len(fits) > limit:
        out.note(f"{len(fits) - limit} more sets have enough memory: --limit {len(fits)} shows them")


def _need(vram: str, model_params: str, task: str, bits: int | None, context: int, batch: int) -> Need:
    """What the options add up to. Raises ``UsageError`` naming the one that makes no sense."""
    from gpucloud.catalog.suggest import need, parse_parameters, parse_task, stated

    size = parsed("--vram", vram, parse_gib)
    parameters = parsed("--model-params", model_params, parse_parameters)
    what = parsed("--task", task, parse_task)
    if (size is None) == (parameters is None):
        given = "both were given" if vram else "neither was given"
        raise UsageError("give --vram or --model-params", why=given, hint=EXAMPLE)
    try:
        if size is not None:
            return stated(size)
        if parameters is None or what is None:
            raise UsageError(
                "--task is missing",
                why="training needs many times the memory of inference",
                hint=f"gpucloud suggest --model-params {model_params} --task qlora, lora, full or infer",
            )
        return need(parameters, what, bits=bits, context=context, batch=batch)
    except ValueError as error:
        raise UsageError("there is nothing to suggest", why=str(error), hint=EXAMPLE) from error


def _show(need: Need, fits: Sequence[Fit]) -> None:
    from gpucloud.catalog.cheapest import per_market

    offers = _known_offers()
    priced = [(fit, per_market(offers.get(fit.gpu, ()), count=fit.count)) for fit in fits]
    if out.json:
        out.document(
            "suggest",
            suggestions=[
                {
                    "gpu": str(fit.gpu),
                    "count": fit.count,
                    "memory_gib": fit.total_gib,
                    "cheapest": [to_json(offer) for offer in best.values()],
                }
                for fit, best in priced
            ],
            vram_gib=need.vram_gib,
            each_further_gpu_gib=need.each_gib,
            arithmetic=need.lines,
            failures=[],
        )
    else:
        out.table(
            FIT_COLUMNS,
            [
                (fit.gpu, fit.count, fit.total_gib, *(_price(best.get(market)) for market in Market))
                for fit, best in priced
            ],
        )


def _too_much(need: Need) -> NothingMatched:
    from gpucloud.catalog.suggest import COUNTS

    return NothingMatched(
        f"no {COUNTS[-1]} equal GPUs have enough memory",
        why=f"they would need {need.on(COUNTS[-1]):,.1f} GiB together",
        hint="qlora or lora instead of full, fewer --bits, a shorter --context, or several machines",
    )


def _known_offers() -> Mapping[Gpu, Sequence[Offer]]:
    """The cheapest offers that are known, without asking anybody."""
    from gpucloud.catalog.cheapest import cheapest
    from gpucloud.cli.context import config, offer_cache

    with offer_cache(config()) as cache:
        return cheapest(cache)


def _named(name: str, lines: Sequence[_Line]) -> list[_Line]:
    """The lines that ``name`` means. Raises ``NothingMatched`` with the GPU that was meant."""
    import difflib

    from gpucloud.catalog.names import normalise

    wanted = normalise(name)
    found = [line for line in lines if wanted and _is(line.gpu, wanted)]
    if found:
        return found
    chips = {fold(line.gpu.chip): line.gpu.chip for line in lines}
    close = difflib.get_close_matches(fold(wanted.chip if wanted else name), chips, n=1, cutoff=0.5)
    raise NothingMatched(
        f"no GPU {name!r} is known",
        why=f"there are {len(lines)}, and none of that chip, form and memory",
        hint=f"did you mean {chips[close[0]]!r}?" if close else "gpucloud gpus",
    )


def _is(gpu: Gpu, wanted: Gpu) -> bool:
    """Whether all that is said of ``wanted`` is true of ``gpu``, or not known of it."""
    if fold(gpu.chip) != fold(wanted.chip):
        return False
    if wanted.form_factor and gpu.form_factor not in (None, wanted.form_factor):
        return False
    return not wanted.memory_gib or not gpu.memory_gib or same_memory(gpu.memory_gib, wanted.memory_gib)


def _to_json(line: _Line) -> dict[str, object]:
    from gpucloud.catalog.cheapest import per_market
    from gpucloud.catalog.gpus import GpuFacts

    facts: dict[str, object] = dict.fromkeys(field.name for field in fields(GpuFacts))
    if line.facts:
        facts |= asdict(line.facts)
    else:
        facts |= asdict(line.gpu)
    cheapest = [to_json(offer) for offer in per_market(line.offers).values()]
    return {"gpu": str(line.gpu), **facts, "cheapest": cheapest}


def _to_row(line: _Line) -> tuple[object, ...]:
    from gpucloud.catalog.cheapest import per_market

    facts, best = line.facts, per_market(line.offers)
    return (
        line.gpu,
        facts.vendor if facts else None,
        line.gpu.memory_gib,
        _number(facts.bandwidth_gb_s) if facts else None,
        _number(facts.bf16_tflops) if facts else None,
        _number(facts.fp8_tflops) if facts else None,
        facts.power_w if facts else None,
        facts.compute if facts else None,
        *(_price(best.get(market), per_gpu=True) for market in Market),
    )


def _price(offer: Offer | None, *, per_gpu: bool = False) -> str | None:
    """``2.49 vast 3h``: dollars an hour, who asks them, and how old that is."""
    amount = offer and (offer.usd_per_gpu_hour if per_gpu else offer.usd_per_hour)
    if offer is None or amount is None:
        return None
    return f"{amount:.2f} {offer.provider} {format_age(utcnow() - offer.as_of)}"


def _number(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount.normalize():f}"
