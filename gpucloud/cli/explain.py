"""``gpucloud explain``: a provider's billing card in sentences, each with who says so and when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from gpucloud.cli.app import app
from gpucloud.cli.render import out

if TYPE_CHECKING:
    from gpucloud.catalog.cards import Card, Fact


class Act(StrEnum):
    """What can be asked about."""

    STOP = "stop"
    TERMINATE = "terminate"
    INTERRUPTION = "interruption"
    EGRESS = "egress"
    EXPIRY = "expiry"


STOPPED: Final = ("stop_gpu", "stop_disk", "stop_address")
TERMINATED: Final = ("terminate_gpu", "terminate_disk", "terminate_address")

TOLD: Final = {
    Act.STOP: (*STOPPED, "delete_after_stop_s"),
    Act.TERMINATE: (*TERMINATED, "billing_grain_s", "billing_minimum_s"),
    Act.INTERRUPTION: ("interruption_action", "interruption_notice_s"),
    Act.EGRESS: ("egress_usd_per_gb",),
    Act.EXPIRY: ("fuse",),
}
"""The facts that answer each question."""

ABOUT_CREDIT: Final = ("payment", "at_zero_balance", "delete_after_zero_balance_s")

LEADS_TO: Final = {
    ("interruption_action", "stop"): STOPPED,
    ("interruption_action", "terminate"): TERMINATED,
    ("fuse", "A"): TERMINATED,
    ("fuse", "B"): TERMINATED,
    ("fuse", "C"): STOPPED,
}
"""Values after which an instance is as if a client had stopped or terminated it."""

BILLED: Final = {
    "billed": "The {} bills on.",
    "partly": "Part of what the {} costs bills on.",
    "not-billed": "The {} is no longer billed.",
    "none": "There is no {} of its own to bill.",
    "unsupported": "",
    "unknown": "Whether the {} bills on is unknown.",
}
THINGS: Final = {"gpu": "GPU", "disk": "disk", "address": "public address"}

SENTENCES: Final[dict[str, dict[str, str]]] = {
    **{
        f"{act}_{thing}": {word: form.format(name) for word, form in BILLED.items()}
        for act in ("stop", "terminate")
        for thing, name in THINGS.items()
    },
    "billing_grain_s": {
        "number": "Use is billed in steps of {}.",
        "unknown": "In which steps use is billed is unknown.",
    },
    "billing_minimum_s": {
        "number": "At least {} are billed.",
        "zero": "There is no minimum.",
        "varies": "The minimum differs from offer to offer.",
        "unknown": "Whether there is a minimum is unknown.",
    },
    "egress_usd_per_gb": {
        "number": "A GB sent to the internet costs ${}.",
        "free": "Data sent to the internet is free.",
        "varies": "What a GB sent to the internet costs varies.",
        "unknown": "What data sent to the internet costs is unknown.",
    },
    "interruption_action": {
        "stop": "An instance that is taken back is stopped.",
        "terminate": "An instance that is taken back is terminated.",
        "choice": "The launch decides whether an instance that is taken back is stopped or terminated.",
        "unsupported": "No instance is taken back: there is no spot market.",
        "unknown": "What becomes of an instance that is taken back is unknown.",
    },
    "interruption_notice_s": {
        "number": "That is announced {} before.",
        "zero": "That is not announced.",
        "unsupported": "",
        "unknown": "How long before that is announced is unknown.",
    },
    "fuse": {
        "A": "The provider ends an instance that has expired (level A).",
        "B": "An instance that has expired can end itself, with every client gone (level B).",
        "C": "An instance that has expired can only power itself off, with every client gone (level C).",
        "D": "Only a client can end an instance that has expired; until then all of it bills on (level D).",
        "unknown": "How an instance that has expired can end itself is unknown.",
    },
    "payment": {
        "prepaid": "Use is paid in advance.",
        "postpaid": "Use is paid afterwards.",
        "free": "Nothing is to be paid.",
        "unknown": "Whether use is paid in advance is unknown.",
    },
    "at_zero_balance": {
        "stopped": "When the credit is used up, instances are stopped.",
        "suspended": "When the credit is used up, instances are suspended.",
        "deleted": "When the credit is used up, instances are deleted.",
        "none": "There is no credit that could be used up.",
        "unknown": "What becomes of instances when the credit is used up is unknown.",
    },
    "delete_after_stop_s": {
        "number": "A stopped instance is deleted after {}.",
        "never": "A stopped instance is kept for as long as it is paid for.",
        "unsupported": "",
        "unknown": "How long a stopped instance is kept is unknown.",
    },
    "delete_after_zero_balance_s": {
        "number": "Data is deleted {} after the credit is used up.",
        "zero": "Data is deleted as soon as the credit is used up.",
        "never": "Data is kept when the credit is used up.",
        "none": "",
        "unknown": "How long data is kept without credit is unknown.",
    },
}
"""Each fact in words, by its value. What is empty is told by the sentence before it."""

CANNOT_STOP: Final = "An instance cannot be stopped, only terminated."


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="A provider, set up or not.")],
    act: Annotated[Act, typer.Argument(help="What about.")],
) -> None:
    """Say what an act does to the bill of a provider, with the source and date of every sentence.

    The option --explain, which every command has, is something else: it shows HTTP calls.

    Example: gpucloud explain vast stop
    """
    from gpucloud.catalog.cards import card

    found = card(name)
    told = list(_told(found, act))
    if out.json:
        sentences = [_to_json(key, fact, text) for key, fact, text in told]
        out.document("explain", provider=name, title=found.title, act=act, sentences=sentences, failures=[])
        return
    out.line(f"{found.title}, {act}:")
    for _, fact, text in told:
        out.line(f"{text} [{fact.source}, {fact.as_of}]" if fact.source else text)
    if found.facts["interruption_action"].value == "choice" and act is Act.INTERRUPTION:
        out.note(f"next: gpucloud explain {name} stop, gpucloud explain {name} terminate")


def _told(card: Card, act: Act) -> Iterator[tuple[str, Fact, str]]:
    """The facts that answer the question, with their sentences."""
    keys = list(TOLD[act])
    for key in TOLD[act]:
        keys += LEADS_TO.get((key, str(card.facts[key].value)), ())
    if act is Act.EXPIRY:
        keys += ABOUT_CREDIT
    for key in keys:
        text = sentence(key, card.facts[key])
        if text:
            yield key, card.facts[key], text


def sentence(key: str, fact: Fact) -> str:
    """One fact in words, with its note; empty when the one before it has told it all."""
    value, forms = fact.value, SENTENCES[key]
    if value is None:
        text = forms["unknown"]
    elif isinstance(value, int):
        text = forms["zero"] if value == 0 and "zero" in forms else forms["number"]
        text = text.format(_duration(value))
    elif key == STOPPED[0] and value == "unsupported":
        text = CANNOT_STOP
    else:
        text = forms[value] if value in forms else forms["number"].format(value)
    return f"{text.removesuffix('.')}: {fact.note}." if text and fact.note else text


def _duration(seconds: int) -> str:
    from gpucloud.quantities import format_duration

    return format_duration(timedelta(seconds=seconds))


def _to_json(key: str, fact: Fact, text: str) -> dict[str, object]:
    return {
        "text": text,
        "fact": key,
        "value": fact.value,
        "source": fact.source,
        "as_of": None if fact.as_of is None else fact.as_of.isoformat(),
        "note": fact.note,
    }
