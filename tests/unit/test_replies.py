"""Reading replies: rows that do not cost each other, offers that are one, and requests that are counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from decimal import Decimal

import pytest
from pydantic import BaseModel, TypeAdapter

from gpucloud.catalog.names import named
from gpucloud.errors import BadReply
from gpucloud.model import Availability, Gpu, Market, Offer, utcnow
from gpucloud.replies import Progress, Rows, query_of, reason

ANY_LIST: TypeAdapter[list[object]] = TypeAdapter(list[object])


class Row(BaseModel):
    """A row as a vendor might tell it."""

    name: str
    usd: Decimal = Decimal(1)


def an_offer(
    name: str = "big", usd: str = "1", availability: Availability = Availability.UNKNOWN, ref: str = ""
) -> Offer:
    return Offer(
        provider="acme",
        instance_type=name,
        market=Market.ON_DEMAND,
        usd_per_hour=Decimal(usd),
        as_of=utcnow(),
        source="test",
        availability=availability,
        ref=ref,
    )


def offers_of(*rows: object) -> list[Offer]:
    """What becomes of rows that are read one by one."""
    reply = Rows("acme")
    for row in rows:
        with reply.row():
            told = Row.model_validate(row)
            reply.add([an_offer(told.name, str(told.usd))])
    return reply.offers()


# Rows


def test_a_row_at_fault_is_left_out_and_the_others_stay(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "gpucloud.replies")
    offers = offers_of({"name": "one"}, {"name": 7}, None, {"name": "two"})
    assert {offer.instance_type for offer in offers} == {"one", "two"}
    assert "acme: a row is left out: name: Input should be a valid string" in caplog.text


def test_an_offer_that_cannot_be_is_a_fault_as_well() -> None:
    (offer,) = offers_of({"name": "one", "usd": -1}, {"name": "two"})
    assert offer.instance_type == "two"


def test_when_all_rows_are_at_fault_the_last_reason_is_told() -> None:
    with pytest.raises(BadReply, match="acme sent prices that cannot be read") as caught:
        offers_of({"name": 7}, {"usd": 2})
    assert caught.value.provider == "acme"
    assert caught.value.why == "name: Field required"


def test_a_fault_without_a_word_is_a_fault() -> None:
    reply = Rows("acme")
    with reply.row():
        raise ValueError
    with pytest.raises(BadReply):
        reply.offers()


def test_an_empty_reply_is_no_fault() -> None:
    assert offers_of() == []


def test_rows_of_which_no_offer_is_made_are_no_fault() -> None:
    reply = Rows("acme")
    with reply.row():
        reply.add([])
    assert reply.offers() == []


def test_what_is_no_value_error_is_a_defect_of_ours_and_not_of_the_row() -> None:
    with pytest.raises(ZeroDivisionError), Rows("acme").row():
        raise ZeroDivisionError


def test_of_a_row_that_fails_half_way_nothing_is_taken() -> None:
    def made() -> Iterator[Offer]:
        yield an_offer("half")
        raise ValueError("and no further")

    reply = Rows("acme")
    for offers in made(), [an_offer("whole")]:
        with reply.row():
            reply.add(offers)
    assert [offer.instance_type for offer in reply.offers()] == ["whole"]


def test_a_row_within_a_row_is_at_fault_alone() -> None:
    reply = Rows("acme")
    with reply.row():
        with reply.row():
            raise ValueError("the inner one")
        reply.add([an_offer()])
    assert len(reply.offers()) == 1


def test_rows_are_read_without_those_at_fault_and_those_that_do_not_matter() -> None:
    def make(row: object) -> str | None:
        told = Row.model_validate(row)
        return None if told.name == "other" else told.name

    rows = [{"name": "one"}, {"name": "other"}, {"name": 7}, {"name": "two"}]
    assert Rows("acme").read(make, rows) == ["one", "two"]


def test_rows_of_which_none_can_be_read_are_a_bad_reply() -> None:
    with pytest.raises(BadReply) as caught:
        Rows("acme").read(Row.model_validate, [{"name": 7}, {}])
    assert caught.value.why == "name: Field required"


def test_no_rows_are_read_as_none() -> None:
    assert Rows("acme").read(Row.model_validate, []) == []
    assert Rows("acme").read(lambda _: None, [1, 2]) == []


def test_a_row_that_could_not_be_read_counts_when_there_is_no_offer() -> None:
    reply = Rows("acme")
    assert len(reply.read(Row.model_validate, [{}, {"name": "for nobody"}])) == 1
    with pytest.raises(BadReply) as caught:
        reply.offers()
    assert caught.value.why == "name: Field required"


def test_an_envelope_that_is_none_is_a_bad_reply_and_its_cause_is_kept() -> None:
    assert Rows("acme").envelope(ANY_LIST.validate_python, [1]) == [1]
    with pytest.raises(BadReply) as caught:
        Rows("acme").envelope(ANY_LIST.validate_python, "busy")
    assert caught.value.why == "Input should be a valid list"
    assert isinstance(caught.value.__cause__, ValueError)


# Twins


def test_of_twins_the_dearest_is_told() -> None:
    reply = Rows("acme")
    reply.add([an_offer(usd="2"), an_offer(usd="3"), an_offer(usd="1")])
    assert [offer.usd_per_hour for offer in reply.offers()] == [3]


@pytest.mark.parametrize("to_be_had", [Availability.AVAILABLE, Availability.LIMITED])
@pytest.mark.parametrize("other", [Availability.UNKNOWN, Availability.UNAVAILABLE, Availability.NO_QUOTA])
def test_of_twins_one_that_can_be_had_is_told_even_if_it_is_cheaper(
    to_be_had: Availability, other: Availability
) -> None:
    reply = Rows("acme")
    reply.add([an_offer(usd="2", availability=to_be_had), an_offer(usd="3", availability=other)])
    reply.add([an_offer(usd="1", availability=to_be_had)])
    assert [(offer.usd_per_hour, offer.availability) for offer in reply.offers()] == [(Decimal(2), to_be_had)]


def test_offers_with_handles_of_their_own_are_no_twins() -> None:
    reply = Rows("acme")
    reply.add([an_offer(ref="a"), an_offer(ref="b"), an_offer("small")])
    assert len(reply.offers()) == 3


# Progress


def told_of(*requests: list[tuple[int, int | None]]) -> list[tuple[int, int | None]]:
    """What is told while requests tell this."""
    told: list[tuple[int, int | None]] = []
    progress = Progress(lambda read, total: told.append((read, total)))
    for request in requests:
        for read, total in request:
            progress.told(read, total)
        progress.next_request()
    return told


def test_requests_are_counted_together() -> None:
    assert told_of([(5, 10), (10, 10)], [(3, 7), (7, 7)]) == [(5, 10), (10, 10), (13, 17), (17, 17)]


def test_a_request_that_is_tried_again_is_not_counted_anew() -> None:
    told = told_of([(6, 10), (2, 10), (10, 10)], [(1, None)])
    assert [read for read, _ in told] == [6, 6, 10, 11]


def test_a_try_that_is_shorter_than_the_one_before_takes_nothing_back() -> None:
    told = told_of([(900, 900), (4, 20), (20, 20)])
    assert [read for read, _ in told] == [900, 900, 900]
    assert all(total is not None and total >= read for read, total in told)


def test_a_size_that_is_not_told_is_not_made_up() -> None:
    assert told_of([(5, None)], [(2, 4)], [(1, None)]) == [(5, None), (7, 9), (8, None)]


# Words


def test_the_reason_of_a_malformed_row_names_the_field_and_is_one_line() -> None:
    class Outer(BaseModel):
        rows: list[Row]

    with pytest.raises(ValueError, match="rows") as caught:
        Outer.model_validate({"rows": [{"name": "one"}, {"name": None}, {}]})
    assert reason(caught.value) == "rows.1.name: Input should be a valid string"


def test_other_reasons_are_told_as_they_are() -> None:
    assert reason(ValueError("there is no price")) == "there is no price"


def test_only_the_query_counts_of_the_address_of_a_next_page() -> None:
    address = "https://elsewhere.example:443/list?offset=20&%24filter=a+eq+%27b%27#end"
    assert query_of(address) == {"offset": "20", "$filter": "a eq 'b'"}
    assert query_of("/list") == {}


def test_what_is_no_address_has_no_query() -> None:
    with pytest.raises(BadReply):
        Rows("acme").envelope(query_of, "https://[")


@pytest.mark.parametrize(
    ("text", "memory_gib", "gpu"),
    [
        ("H100 SXM5 80GB", None, Gpu("H100", 80, "SXM")),
        ("A100", Decimal(40), Gpu("A100", 40)),
        ("Quux 9", None, Gpu("Quux9")),
        ("Quux 9", 64, Gpu("Quux9", 64)),
        ("Quux 9", Decimal("47.6"), Gpu("Quux9", 48)),
        ("Quux 9", Decimal(0), Gpu("Quux9")),
        ("Quux-9 SXM5", 24, Gpu("Quux9", 24, "SXM")),
    ],
)
def test_a_gpu_that_nobody_knows_keeps_the_vendors_words(
    text: str, memory_gib: int | Decimal | None, gpu: Gpu
) -> None:
    assert named(text, memory_gib=memory_gib) == gpu


@pytest.mark.parametrize("text", ["", "  ", "80GB"])
def test_without_words_there_is_no_gpu(text: str) -> None:
    with pytest.raises(ValueError, match="names no GPU"):
        named(text, memory_gib=80)
