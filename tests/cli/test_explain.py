"""Billing cards as a user reads them: in sentences, as a table and as a document."""

from __future__ import annotations

from datetime import date

import pytest

from gpucloud.catalog.cards import FACTS, Fact, Kind, card, names
from gpucloud.cli import explain, providers
from tests.harness.cli import Cli


@pytest.mark.parametrize("key", FACTS)
def test_every_value_that_a_fact_may_have_has_its_words(key: str) -> None:
    numbers = set() if FACTS[key].kind is Kind.WORD else {"number"}
    assert set(explain.SENTENCES[key]) >= {*FACTS[key].words, "unknown"} | numbers


def test_every_fact_answers_a_question() -> None:
    told = {
        key
        for keys in (*explain.TOLD.values(), *explain.LEADS_TO.values(), explain.ABOUT_CREDIT)
        for key in keys
    }
    assert told == set(FACTS) == set(explain.SENTENCES)


@pytest.mark.parametrize("name", names())
def test_every_card_can_be_told(name: str) -> None:
    for key, fact in card(name).facts.items():
        text = explain.sentence(key, fact)
        assert text == "" or (text[0].isupper() and text.endswith(".") and "{" not in text)
        assert ("unknown" in text) == (fact.value is None)


@pytest.mark.parametrize(
    ("key", "fact", "text"),
    [
        ("billing_minimum_s", Fact(0), "There is no minimum."),
        ("billing_minimum_s", Fact(3600), "At least 1h are billed."),
        ("billing_minimum_s", Fact(None), "Whether there is a minimum is unknown."),
        (
            "egress_usd_per_gb",
            Fact("0.09", note="at first"),
            "A GB sent to the internet costs $0.09: at first.",
        ),
        ("interruption_notice_s", Fact(0), "That is not announced."),
        ("interruption_notice_s", Fact(120), "That is announced 2m before."),
        ("delete_after_stop_s", Fact(1_296_000), "A stopped instance is deleted after 15d."),
        ("stop_disk", Fact("billed"), "The disk bills on."),
        ("stop_disk", Fact(None), "Whether the disk bills on is unknown."),
        ("stop_gpu", Fact("unsupported"), explain.CANNOT_STOP),
    ],
)
def test_facts_in_words(key: str, fact: Fact, text: str) -> None:
    assert explain.sentence(key, fact) == text


def test_stop_is_told_of_gpu_disk_and_address_with_sources(cli: Cli) -> None:
    head, gpu, disk, address, kept = cli.ok("explain", "vast", "stop").out.splitlines()
    assert head == "Vast.ai, stop:"
    assert gpu.startswith("The GPU is no longer billed: ")
    assert disk.startswith("The disk bills on: ")
    assert address.startswith("There is no public address of its own to bill: ")
    assert kept.startswith("A stopped instance is kept ")
    for line in (gpu, disk, address, kept):
        assert line.endswith("]")
        assert "[https://" in line


def test_what_is_unknown_is_told_as_unknown(cli: Cli) -> None:
    assert (
        "Whether the public address bills on is unknown." in cli.ok("explain", "oci", "stop").out.splitlines()
    )


def test_what_cannot_be_stopped_is_told_once(cli: Cli) -> None:
    lines = cli.ok("explain", "lambda", "stop").out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(explain.CANNOT_STOP)


def test_an_interruption_is_told_with_what_it_leaves(cli: Cli) -> None:
    shown = cli.ok("explain", "nebius", "interruption").out
    assert "An instance that is taken back is stopped" in shown
    assert "That is announced 1m before" in shown
    assert "The disk bills on" in shown
    choice = cli.ok("explain", "aws", "interruption")
    assert "The launch decides" in choice.out
    assert "gpucloud explain aws stop" in choice.err


def test_expiry_is_told_with_the_level_and_what_comes_of_it(cli: Cli) -> None:
    gone = cli.ok("explain", "gcp", "expiry").out
    assert "(level A)" in gone
    assert "The GPU is no longer billed" in gone
    stays = cli.ok("explain", "digitalocean", "expiry").out
    assert "until then all of it bills on (level D)" in stays
    assert "The GPU is no longer billed" not in stays


@pytest.mark.parametrize("act", explain.Act)
def test_every_act_is_one_document(cli: Cli, act: explain.Act) -> None:
    done = cli.ok("explain", "runpod", act, "--json")
    assert done.err == ""
    assert done.json["schema"] == "gpucloud.explain/1"
    assert (done.json["provider"], done.json["title"], done.json["act"]) == ("runpod", "RunPod", act)
    assert done.json["failures"] == []
    for told in done.json["sentences"]:
        assert set(told) == {"text", "fact", "value", "source", "as_of", "note"}
        assert told["value"] is None or (told["source"] and told["as_of"].startswith("202"))


def test_a_card_is_shown_fact_by_fact(cli: Cli) -> None:
    rows = [line.split("\t") for line in cli.ok("providers", "show", "oci").out.splitlines()]
    assert [row[0] for row in rows] == list(FACTS)
    assert {len(row) for row in rows} == {5}
    shown = {row[0]: row[1:] for row in rows}
    assert shown["stop_address"] == ["unknown", "-", "-", "-"]
    assert shown["billing_minimum_s"][0] == "60"
    assert shown["stop_gpu"][1].startswith("https://")


@pytest.mark.parametrize("name", names())
def test_a_card_fits_on_a_screen(name: str) -> None:
    rows = [("FACT", "VALUE", "SOURCE", "AS OF"), *providers._shortened(card(name))]
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows, strict=True)]
    assert sum(widths) + 2 * (len(widths) - 1) <= 80


def test_a_screen_shows_the_site_of_a_source_and_that_there_is_a_note() -> None:
    assert ("stop_gpu", "partly *", "docs.oracle.com", date(2026, 11, 21)) in providers._shortened(
        card("oci")
    )
    assert ("stop_address", "unknown", None, None) in providers._shortened(card("oci"))
    assert ("fuse", "A *", "adapter.py", date(2026, 11, 21)) in providers._shortened(card("local"))


def test_a_card_is_a_document(cli: Cli) -> None:
    document = cli.ok("providers", "show", "oci", "--json").json
    assert document["schema"] == "gpucloud.providers-show/1"
    assert (document["provider"], document["title"]) == ("oci", "Oracle Cloud Infrastructure")
    facts = {fact.pop("fact"): fact for fact in document["facts"]}
    assert list(facts) == list(FACTS)
    assert facts["stop_address"] == {"value": None, "source": None, "as_of": None, "note": None}
    assert facts["billing_minimum_s"]["value"] == 60
    assert document["failures"] == []


@pytest.mark.parametrize("words", [("providers", "show", "vsat"), ("explain", "vsat", "stop")])
def test_a_provider_without_a_card_is_three_lines(cli: Cli, words: tuple[str, ...]) -> None:
    done = cli(*words)
    assert done.code == 3
    assert done.out == ""
    what, why, hint = done.err.splitlines()
    assert what == "gpucloud: there is no billing card of a provider 'vsat'"
    assert why.strip().startswith("why: there are cards of alibaba, ")
    assert hint.strip() == "next: did you mean 'vast'?"
    assert cli(*words, "--json").json["name"] == "nothing-matched"


def test_an_act_that_is_none_is_a_usage_error(cli: Cli) -> None:
    done = cli("explain", "aws", "stp")
    assert done.code == 2
    assert "'stop'" in done.err
    assert len(done.err.splitlines()) == 3


@pytest.mark.parametrize("words", [("explain",), ("providers", "show")])
def test_help_shows_an_example(cli: Cli, words: tuple[str, ...]) -> None:
    assert f"Example: gpucloud {' '.join(words)} vast" in cli.ok(*words, "--help").out
