"""``gpucloud providers``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpucloud.cli.app import group
from gpucloud.cli.options import DryRun, Yes
from gpucloud.cli.render import out

if TYPE_CHECKING:
    from gpucloud.catalog.cards import Card, Fact
    from gpucloud.provider import Adapter

CARD_COLUMNS = ("FACT", "VALUE", "SOURCE", "AS OF")
WIDEST_SITE = 22
"""With more, a screen of 80 columns would cut off values."""

COLUMNS = (
    "NAME",
    "SET UP",
    "RENTS",
    "MARKETS",
    "REACHED BY",
    "FUSE",
    "STOPPED",
    "EVIDENCE",
    "AS OF",
    "KEY FROM",
)
LEAST = ("MARKETS", "REACHED BY", "AS OF", "STOPPED", "EVIDENCE", "RENTS")
"""What a narrow terminal goes without."""

SHARED_COLUMNS = ("KIND", "ID", "REGION")

providers = group("providers", "The providers, and how to write one.")


@providers.callback(invoke_without_command=True)
def list_providers(ctx: typer.Context) -> None:
    """Every provider, whether it is set up, what it can do, and where its key comes from."""
    if ctx.invoked_subcommand:
        return
    from gpucloud.cli.context import config
    from gpucloud.credentials import source_of
    from gpucloud.registry import Registry

    settings = config()
    known = [
        (adapter, set_up, source_of(adapter.credentials, settings.provider(name)))
        for name, (adapter, set_up) in Registry(settings).known().items()
    ]
    if out.json:
        out.document("providers", providers=[_to_json(*row) for row in known], failures=[])
    else:
        out.table(COLUMNS, [_to_row(*row) for row in known], LEAST)


@providers.command()
def show(name: Annotated[str, typer.Argument(help="A provider, set up or not.")]) -> None:
    """A provider's billing card: what is known of its bills, with source and date.

    Example: gpucloud providers show vast
    """
    from gpucloud.catalog.cards import card

    found = card(name)
    if out.json:
        facts = [_fact_to_json(key, fact) for key, fact in found.facts.items()]
        out.document("providers-show", provider=name, title=found.title, facts=facts, failures=[])
        return
    if sys.stdout.isatty():
        out.table(CARD_COLUMNS, _shortened(found))
        out.note(f"* with more to know: gpucloud explain {name} stop|terminate|interruption|egress|expiry")
    else:
        rows = [(key, _value(fact), fact.source, fact.as_of, fact.note) for key, fact in found.facts.items()]
        out.table((*CARD_COLUMNS, "NOTE"), rows)


@providers.command()
def cleanup(
    name: Annotated[str, typer.Argument(help="A provider that is set up.")],
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Delete what launches share and leave there: networks, firewalls, keys. It is listed first.

    Example: gpucloud providers cleanup aws
    """
    from gpucloud.cli.consent import agree
    from gpucloud.cli.context import fleet
    from gpucloud.fleet.shared import remove_shared, shared_resources

    here = fleet()
    found = shared_resources(here, name)
    if not out.json:
        out.table(SHARED_COLUMNS, [(each.kind, each.ref.id, each.ref.region) for each in found])
    if found and not dry_run:
        agree(f"Delete these {len(found)}?", yes=yes)
        for each in found:
            remove_shared(here, each)
            out.note(f"deleted {each.kind} {each.ref.id}")
    elif out.explain:
        from gpucloud.cli.calls import remark
        from gpucloud.fleet import rehearsal

        remark(rehearsal.clean_up(here, found))
    if out.json:
        listed = [{"kind": each.kind, "id": each.ref.id, "region": each.ref.region} for each in found]
        out.document("providers-cleanup", provider=name, resources=listed, deleted=not dry_run, failures=[])


@providers.command()
def new(name: Annotated[str, typer.Argument(help="The provider's name: one lower-case word.")]) -> None:
    """Write the skeleton of an adapter, with a test that knows it is not written yet.

    Example: gpucloud providers new acme
    """
    from gpucloud.cli.scaffold import write_adapter

    for file in write_adapter(Path.cwd(), name):
        out.line(str(file))
    out.note(f'add to BUILTIN in gpucloud/registry.py:  "{name}": "gpucloud_{name}:{name.capitalize()}",')
    out.note(f"then: pytest tests/providers/{name}")


def _shortened(card: Card) -> list[tuple[object, ...]]:
    """The rows of a card for a screen: of a source the site, of a note that there is one."""
    return [
        (key, f"{_value(fact)} *" if fact.note else _value(fact), _site(fact.source), fact.as_of)
        for key, fact in card.facts.items()
    ]


def _value(fact: Fact) -> str | int:
    from gpucloud.catalog.cards import UNKNOWN

    return UNKNOWN if fact.value is None else fact.value


def _site(source: str | None) -> str | None:
    """``acme.com`` of ``https://docs.acme.com/billing``; of a path the file."""
    if source is None or "://" not in source:
        return source and source.rpartition("/")[2]
    site = source.partition("://")[2].partition("/")[0]
    while len(site) > WIDEST_SITE and site.count(".") > 1:
        site = site.partition(".")[2]
    return site


def _fact_to_json(key: str, fact: Fact) -> dict[str, object]:
    return {
        "fact": key,
        "value": fact.value,
        "source": fact.source,
        "as_of": None if fact.as_of is None else fact.as_of.isoformat(),
        "note": fact.note,
    }


def _to_json(adapter: type[Adapter], set_up: bool, source: str | None) -> dict[str, object]:
    from gpucloud.provider import Provider, PublicCatalog

    traits = adapter.traits if issubclass(adapter, Provider) else None
    return {
        "name": adapter.name,
        "configured": set_up,
        "credential_source": source,
        "prices_only": traits is None,
        "public_catalog": issubclass(adapter, PublicCatalog),
        "evidence": adapter.evidence,
        "as_of": adapter.as_of and adapter.as_of.isoformat(),
        "kind": traits and traits.kind,
        "markets": sorted(traits.markets) if traits else [],
        "reach": traits and traits.reach,
        "fuse": traits and traits.fuse,
        "billed_while_stopped": traits and traits.billed_while_stopped,
        "billing_grain_s": traits and traits.billing_grain_s,
        "billing_minimum_s": traits and traits.billing_minimum_s,
        "interruption_notice_s": traits and traits.interruption_notice_s,
    }


def _to_row(adapter: type[Adapter], set_up: bool, source: str | None) -> tuple[object, ...]:
    from gpucloud.provider import Provider

    if not issubclass(adapter, Provider):
        told = adapter.evidence, adapter.as_of
        return (adapter.name, "no", "prices", None, None, None, None, *told, source)
    traits = adapter.traits
    return (
        adapter.name,
        "yes" if set_up else "no",
        traits.kind,
        ", ".join(sorted(traits.markets)),
        traits.reach,
        traits.fuse,
        traits.billed_while_stopped,
        adapter.evidence,
        adapter.as_of,
        source,
    )
