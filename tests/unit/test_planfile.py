"""Plan files: what is written is read again, and what is not as it was written is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.errors import BudgetRefused, GpucloudError, UsageError
from gpucloud.fleet.plan import LaunchRequest, Plan
from gpucloud.fleet.planfile import (
    SETTINGS,
    PlanFile,
    PlannedJob,
    PlannedOffer,
    dump,
    fixed,
    hash_of,
    load,
    read,
    write,
)
from gpucloud.model import Gpu, GpuWish, Labels, Limits, Market, Requirements
from gpucloud.provider import Fuse
from gpucloud.quantities import LONGEST
from tests.harness.adapters import WHEN, an_offer

DAY = timedelta(days=1)

OFFER = PlannedOffer("acme/big/us-east/on-demand", "acme", Decimal("2.50"), WHEN)
PLANNED = PlanFile(
    made_at=WHEN,
    expires_at=WHEN + DAY,
    by="ann",
    request=LaunchRequest("train", Requirements(gpus=(GpuWish.parse("H100:8"),))),
    providers=("acme",),
    offers=(OFFER,),
    worst_cost=Decimal("60"),
    price_tolerance=Decimal("0.05"),
)

names = st.text(st.characters(codec="utf-8"), max_size=20)
money = st.decimals(0, 10**9, places=6)
counts = st.integers(1, 1000)
durations = st.timedeltas(timedelta(0), LONGEST)
times = st.datetimes(timezones=st.just(UTC))
tables = st.dictionaries(names, names, max_size=3)


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(values, max_size=3).map(tuple)


wishes = st.builds(
    GpuWish,
    counts,
    st.none() | st.builds(Gpu, names, st.none() | counts, st.none() | names),
    st.none() | counts,
)
requirements = st.builds(
    Requirements,
    gpus=some(wishes),
    markets=some(st.sampled_from(Market)),
    regions=some(names),
    instance_types=some(names),
    max_usd_per_hour=st.none() | money,
    min_vcpus=st.none() | counts,
    min_memory_gib=st.none() | counts,
    min_disk_gib=st.none() | counts,
    countries=some(names),
    interconnects=some(names),
    secure_only=st.booleans(),
    verified_only=st.booleans(),
    where=names,
)
requests = st.builds(
    LaunchRequest,
    name=names,
    requirements=requirements,
    nodes=counts,
    max_duration=st.none() | durations,
    max_cost=st.none() | money,
    idle=st.none() | durations,
    no_limit=st.booleans(),
    fuse=st.none() | st.sampled_from(Fuse),
    labels=st.builds(Labels, names, names, tables),
    ephemeral=st.booleans(),
    image=st.none() | names,
    disk_gib=st.none() | counts,
)
offers = st.builds(
    PlannedOffer,
    id=names,
    provider=names,
    usd_per_hour=money,
    as_of=times,
    ref=names,
    currency=names,
    amount=st.none() | money,
    gpu=st.none() | names,
    gpu_count=counts,
    lease=st.none() | durations,
)
jobs = st.builds(PlannedJob, names, st.none() | names, some(names), tables, some(names))
plans = st.builds(
    PlanFile,
    made_at=times,
    expires_at=times,
    by=names,
    request=requests,
    providers=some(names),
    offers=st.lists(offers, min_size=1, max_size=3).map(tuple),
    worst_cost=st.none() | money,
    price_tolerance=money,
    job=jobs,
    settings=st.dictionaries(st.sampled_from(sorted(SETTINGS)), names),
)


def refusal(act: Callable[[], object], kind: type[GpucloudError]) -> GpucloudError:
    with pytest.raises(GpucloudError) as caught:
        act()
    assert type(caught.value) is kind
    assert caught.value.message and caught.value.why and caught.value.hint
    return caught.value


def resealed(change: Callable[[dict[str, Any]], object]) -> str:
    """The text of a plan that was changed by somebody who knows how its hash is made."""
    document = json.loads(dump(PLANNED))
    change(document)
    return json.dumps({**document, "hash": hash_of(document)})


@given(plans)
def test_what_is_written_is_read_again(planned: PlanFile) -> None:
    assert load(dump(planned), "plan.json") == planned


def test_every_field_of_what_is_asked_for_is_in_the_file() -> None:
    document = json.loads(dump(PLANNED))
    assert list(document["request"]) == [field.name for field in fields(LaunchRequest)]
    assert list(document["request"]["requirements"]) == [field.name for field in fields(Requirements)]


def test_a_person_can_read_it() -> None:
    document = json.loads(dump(PLANNED))
    assert next(iter(document)) == "schema"
    assert (document["schema"], document["by"]) == ("gpucloud.plan-file/1", "ann")
    assert (document["made_at"], document["expires_at"]) == ("2026-01-02T03:04:00Z", "2026-01-03T03:04:00Z")
    assert (document["worst_cost"], document["price_tolerance"]) == ("60", "0.05")
    assert document["offers"][0]["id"] == "acme/big/us-east/on-demand"
    assert document["offers"][0]["usd_per_hour"] == "2.50"
    assert document["hash"].startswith("sha256:")


def test_how_it_is_laid_out_is_no_edit() -> None:
    document = json.loads(dump(PLANNED))
    assert load(json.dumps(dict(sorted(document.items()))), "plan.json") == PLANNED


@pytest.mark.parametrize(
    ("before", "after"),
    [('"2.50"', '"2.51"'), ('"train"', '"trail"'), ("01-03T", "01-04T"), ("a256:", "a256:0")],
)
def test_one_byte_that_was_edited_is_noticed(before: str, after: str) -> None:
    text = dump(PLANNED)
    assert before in text
    error = refusal(lambda: load(text.replace(before, after, 1), "plan.json"), UsageError)
    assert "plan.json was edited" in error.message


@given(st.data())
def test_no_digit_can_be_changed_unnoticed(data: st.DataObject) -> None:
    text = dump(PLANNED)
    at = data.draw(st.sampled_from([i for i, letter in enumerate(text) if letter.isdigit()]))
    digit = data.draw(st.sampled_from([other for other in "0123456789" if other != text[at]]))
    with pytest.raises(UsageError):
        load(text[:at] + digit + text[at + 1 :], "plan.json")


@pytest.mark.parametrize(
    "text", ["", "hello", "[]", "{}", "null", '{"schema": 1}', '{"schema": "gpucloud.plan/1"}', "[" * 100_000]
)
def test_what_is_no_plan_is_said_to_be_none(text: str) -> None:
    assert "plan.json is not a plan" in refusal(lambda: load(text, "plan.json"), UsageError).message


def test_a_plan_of_another_version_is_said_to_be_one() -> None:
    text = resealed(lambda document: document.update(schema="gpucloud.plan-file/2"))
    error = refusal(lambda: load(text, "plan.json"), UsageError)
    assert "another version" in error.message
    assert "'gpucloud.plan-file/2'" in error.why


def test_a_key_that_is_there_twice_is_refused() -> None:
    text = dump(PLANNED).replace('"by": "ann"', '"by": "bob", "by": "ann"')
    assert "twice" in refusal(lambda: load(text, "plan.json"), UsageError).why


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d.update(colour="red"), "colour"),
        (lambda d: d["request"].update(colour="red"), "request.colour"),
        (lambda d: d["request"]["requirements"].update(colour="red"), "request.requirements.colour"),
        (lambda d: d["offers"][0].update(colour="red"), "offers.0.colour"),
        (lambda d: d["job"].update(colour="red"), "job.colour"),
        (lambda d: d.pop("worst_cost"), "worst_cost"),
        (lambda d: d.update(worst_cost="NaN"), "worst_cost"),
        (lambda d: d.update(offers=[]), "there is no offer"),
        (lambda d: d.update(expires_at="2026-01-03T03:04:00"), "no zone"),
        (lambda d: d["settings"].update({"budget.day": "none"}), "a plan cannot set budget.day"),
    ],
)
def test_what_makes_no_sense_is_refused_and_named(
    change: Callable[[dict[str, Any]], object], place: str
) -> None:
    error = refusal(lambda: load(resealed(change), "plan.json"), UsageError)
    assert "makes no sense" in error.message
    assert place in error.why


def test_it_is_good_until_it_expires(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write(dump(PLANNED), path)
    assert read(path, WHEN + DAY - timedelta(seconds=1)) == PLANNED
    error = refusal(lambda: read(path, WHEN + DAY), BudgetRefused)
    assert "has expired" in error.message
    assert "2026-01-03 03:04 UTC" in error.why


def test_a_file_is_replaced_only_if_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write("one", path)
    assert "--force" in refusal(lambda: write("two", path), UsageError).hint
    assert path.read_text() == "one"
    write("two", path, force=True)
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("force", [False, True])
def test_where_nothing_can_be_written_that_is_said(tmp_path: Path, force: bool) -> None:
    refusal(lambda: write("one", tmp_path / "missing" / "plan.json", force=force), UsageError)
    refusal(lambda: write("one", tmp_path, force=force), UsageError)


@pytest.mark.parametrize("content", [None, b"\xff\xfe{}"])
def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "plan.json"
    if content is not None:
        path.write_bytes(content)
    refusal(lambda: read(path, WHEN), UsageError)
    refusal(lambda: read(tmp_path, WHEN), UsageError)


def test_what_is_no_text_cannot_be_planned() -> None:
    job = PlannedJob(command="cat \udcff")
    refusal(lambda: dump(replace(PLANNED, job=job)), UsageError)


def test_a_plan_is_fixed_with_the_limits_that_hold_and_what_it_costs_at_worst() -> None:
    limits = Limits(timedelta(hours=3), Decimal(10), timedelta(minutes=30))
    one = an_offer(usd_per_hour=Decimal(1) / 3, ref="7", gpu=Gpu.parse("H100-SXM-80"), gpu_count=8)
    two = an_offer(provider="best", usd_per_hour=Decimal(4), currency="EUR", amount=Decimal("3.50"))
    made = Plan(LaunchRequest("train", Requirements()), (one, two), (), limits)
    planned = fixed(
        made,
        ["best:slow", "other", "acme"],
        PlannedJob(),
        by="ann",
        made_at=WHEN,
        good_for=DAY,
        price_tolerance=Decimal("0.05"),
        settings={"launch.ready_timeout": "5m"},
    )
    assert planned.limits == limits
    assert planned.providers == ("acme", "best:slow")
    assert [offer.id for offer in planned.offers] == [one.id, two.id]
    assert (planned.offers[0].gpu, planned.offers[0].gpu_count, planned.offers[0].ref) == (
        "H100-SXM-80",
        8,
        "7",
    )
    assert (planned.offers[1].currency, planned.offers[1].amount) == ("EUR", Decimal("3.50"))
    assert [offer.lease for offer in planned.offers] == [timedelta(hours=3), timedelta(hours=2.5)]
    assert planned.worst_cost == Decimal("10.000000")
    assert planned.expires_at == WHEN + DAY
    assert load(dump(planned), "plan.json") == planned


def test_the_worst_cost_is_rounded_up() -> None:
    limits = Limits(timedelta(hours=1))
    made = Plan(LaunchRequest("train", Requirements()), (an_offer(usd_per_hour=Decimal(1) / 3),), (), limits)
    planned = fixed(
        made, [], PlannedJob(), by="", made_at=WHEN, good_for=DAY, price_tolerance=Decimal(0), settings={}
    )
    assert planned.worst_cost == Decimal("0.333334")


def test_no_limit_stays_no_limit() -> None:
    made = Plan(LaunchRequest("train", Requirements(), no_limit=True), (an_offer(),), (), Limits(lifted=True))
    planned = fixed(
        made, [], PlannedJob(), by="", made_at=WHEN, good_for=DAY, price_tolerance=Decimal(0), settings={}
    )
    assert (planned.worst_cost, planned.limits) == (None, Limits(lifted=True))
    assert load(dump(planned), "plan.json") == planned
