"""The billing cards: that each is whole, typed, sourced and dated, and says what its adapter says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gpucloud.catalog import cards
from gpucloud.catalog.cards import FACTS, FOLDER, Card, Fact, card, names, parse, problems
from gpucloud.errors import NothingMatched
from gpucloud.model import Market
from gpucloud.provider import Provider, StoppedBilling, Stops
from gpucloud.registry import BUILTIN, load

GOOD = card("aws")
TODAY = date(2026, 12, 31)


@pytest.mark.parametrize("name", names())
def test_nothing_is_wrong_with_a_card(name: str) -> None:
    assert problems(card(name)) == []


@pytest.mark.parametrize("name", names())
def test_a_card_has_its_facts_in_the_order_in_which_they_are_shown(name: str) -> None:
    text = (FOLDER / f"{name}.toml").read_text()
    assert [line.strip("[]") for line in text.splitlines() if line.startswith("[")] == list(FACTS)
    assert max(map(len, text.splitlines())) < 250


@pytest.mark.parametrize("name", names())
def test_notes_read_on_from_a_colon(name: str) -> None:
    for fact in card(name).facts.values():
        assert fact.note is None or not fact.note.endswith(".")


def changed(key: str, **changes: Any) -> Card:
    """A good card of which one fact is another."""
    return replace(GOOD, facts={**GOOD.facts, key: replace(GOOD.facts[key], **changes)})


def without(key: str) -> Card:
    return replace(GOOD, facts={name: fact for name, fact in GOOD.facts.items() if name != key})


BROKEN: dict[str, tuple[Card, str]] = {
    "no title": (replace(GOOD, title=" "), "title: is missing"),
    "a title of another type": (replace(GOOD, title=7), "title: is missing"),  # type: ignore[arg-type]
    "a fact too few": (without("fuse"), "fuse: is missing; what no source states is 'unknown'"),
    "an entry too many": (replace(GOOD, strays=("colour",)), "colour: means nothing"),
    "no such word": (
        changed("stop_gpu", value="free"),
        "stop_gpu: 'free' is not billed or partly or not-billed or none or unsupported or unknown",
    ),
    "a number for a word": (
        changed("fuse", value=1),
        "fuse: 1 is not A or B or C or D or unknown",
    ),
    "a word for seconds": (
        changed("billing_grain_s", value="a minute"),
        "billing_grain_s: 'a minute' is not a number of seconds or unknown",
    ),
    "seconds below zero": (
        changed("interruption_notice_s", value=-1),
        "interruption_notice_s: -1 is not unsupported or a number of seconds or unknown",
    ),
    "yes for seconds": (
        changed("billing_grain_s", value=True),
        "billing_grain_s: True is not a number of seconds or unknown",
    ),
    "a fraction of a second": (
        changed("billing_grain_s", value=0.5),
        "billing_grain_s: 0.5 is not a number of seconds or unknown",
    ),
    "a price that is none": (
        changed("egress_usd_per_gb", value="cheap"),
        "egress_usd_per_gb: 'cheap' is not free or varies or a price in quotes or unknown",
    ),
    "a price of nothing": (
        changed("egress_usd_per_gb", value="0"),
        "egress_usd_per_gb: '0' is not free or varies or a price in quotes or unknown",
    ),
    "a price as a float": (
        changed("egress_usd_per_gb", value=0.09),
        "egress_usd_per_gb: 0.09 is not free or varies or a price in quotes or unknown",
    ),
    "a price without end": (
        changed("egress_usd_per_gb", value="Infinity"),
        "egress_usd_per_gb: 'Infinity' is not free or varies or a price in quotes or unknown",
    ),
    "no source": (changed("stop_gpu", source=None), "stop_gpu: has no source"),
    "a source that is no text": (changed("stop_gpu", source=7), "stop_gpu: its source is not a text"),
    "no day": (changed("stop_gpu", as_of=None), "stop_gpu: has no day"),
    "a day in words": (changed("stop_gpu", as_of="today"), "stop_gpu: its day is not a date"),
    "a time": (
        changed("stop_gpu", as_of=datetime(2026, 1, 1, tzinfo=UTC)),
        "stop_gpu: its day is not a date",
    ),
    "tomorrow": (
        changed("stop_gpu", as_of=TODAY + timedelta(days=1)),
        "stop_gpu: 2027-01-01 is in the future",
    ),
    "an empty note": (changed("stop_gpu", note=""), "stop_gpu: its note is not a text"),
    "half an act": (
        changed("stop_disk", value="unsupported"),
        "stop_gpu, stop_disk, stop_address, delete_after_stop_s: only some are unsupported",
    ),
    "half a market": (
        changed("interruption_action", value="unsupported"),
        "interruption_action, interruption_notice_s: only some are unsupported",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_each_rule_is_noticed_when_it_is_broken(how: str) -> None:
    broken, problem = BROKEN[how]
    assert problems(broken, TODAY) == [problem]


def test_today_is_no_future() -> None:
    assert problems(changed("stop_gpu", as_of=TODAY), TODAY) == []
    assert problems(changed("stop_gpu", as_of=datetime.now(UTC).date() + timedelta(days=2))) != []


def test_an_unknown_value_needs_no_source() -> None:
    assert problems(replace(GOOD, facts={**GOOD.facts, "fuse": Fact(note="nobody says")})) == []


FILE = (FOLDER / "aws.toml").read_text()


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda text: text.replace("[fuse]", "[fuze]"), "fuze: means nothing"),
        (lambda text: text.replace("[fuse]", "[fuse]\ncolour = 1"), "fuse.colour: means nothing"),
        (lambda text: f"colour = 1\n{text}", "colour: means nothing"),
        (lambda text: text.replace('title = "Amazon EC2"', ""), "title: is missing"),
        (lambda text: text.replace('value = "B"', ""), "fuse: '' is not A or B or C or D or unknown"),
        (
            lambda text: text.replace('value = "B"', 'value = ""'),
            "fuse: '' is not A or B or C or D or unknown",
        ),
    ],
)
def test_a_wrong_file_is_noticed(edit: Callable[[str], str], problem: str) -> None:
    assert edit(FILE) != FILE
    assert problem in problems(parse("aws", edit(FILE)))


def test_a_fact_of_another_shape_is_noticed() -> None:
    assert "fuse: means nothing" in problems(parse("acme", 'title = "Acme"\nfuse = "A"\n'))


def test_unknown_is_none_and_never_zero() -> None:
    assert parse("acme", '[fuse]\nvalue = "unknown"\n').facts["fuse"] == Fact()
    assert parse("acme", "[billing_minimum_s]\nvalue = 0\n").facts["billing_minimum_s"].value == 0


def test_names_are_read_off_the_files_and_sorted() -> None:
    assert names() == tuple(sorted(file.stem for file in FOLDER.iterdir()))
    assert {"local", "sim", "ssh", "aws", "runpod", "vast"} <= set(names())


def test_a_card_is_read_alone_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = Path.read_text

    def noting(file: Path, *arguments: Any, **settings: Any) -> str:
        read.append(file.name)
        return original(file, *arguments, **settings)

    monkeypatch.setattr(Path, "read_text", noting)
    cards.card.cache_clear()
    assert card("vast") is card("vast")
    assert read == ["vast.toml"]


@pytest.mark.parametrize(("name", "hint"), [("vsat", "did you mean 'vast'?"), ("zzz", "gpucloud providers")])
def test_a_name_without_a_card_gets_a_suggestion(name: str, hint: str) -> None:
    with pytest.raises(NothingMatched) as caught:
        card(name)
    assert repr(name) in caught.value.message
    assert "aws" in caught.value.why
    assert caught.value.hint == hint


@pytest.mark.parametrize("name", ["", ".", "../cards/aws", "aws.toml", "AWS"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(NothingMatched):
        card(name)


def stopped_billing(facts: Card) -> StoppedBilling:
    """The trait that sums up what a card says of stopping; what is billed in part is taken for billed."""
    gpu, disk = facts.facts["stop_gpu"].value, facts.facts["stop_disk"].value
    if gpu == "unsupported":
        return StoppedBilling.UNSUPPORTED
    if gpu in {"billed", "partly"}:
        return StoppedBilling.FULL
    if gpu is None or disk is None:
        return StoppedBilling.UNKNOWN
    return StoppedBilling.STORAGE if disk in {"billed", "partly"} else StoppedBilling.NONE


def seconds(facts: Card, key: str) -> int | None:
    """A number of seconds; a word or an unknown value is no number."""
    value = facts.facts[key].value
    return value if isinstance(value, int) else None


@pytest.mark.parametrize("name", BUILTIN)
def test_a_card_and_its_adapter_say_the_same(name: str) -> None:
    said, adapter = card(name), load(name)
    assert issubclass(adapter, Provider)
    traits = adapter.traits
    assert seconds(said, "billing_grain_s") == traits.billing_grain_s
    assert seconds(said, "billing_minimum_s") == traits.billing_minimum_s
    assert seconds(said, "interruption_notice_s") == traits.interruption_notice_s
    told = stopped_billing(said)
    # Where nobody knows what a stopped machine bills, stopping need not be offered.
    shy = told is StoppedBilling.UNKNOWN and not issubclass(adapter, Stops)
    assert traits.billed_while_stopped == (StoppedBilling.UNSUPPORTED if shy else told)
    assert said.facts["fuse"].value == traits.fuse
    if (action := said.facts["interruption_action"].value) is not None:
        assert (action != "unsupported") == (Market.SPOT in traits.markets)
