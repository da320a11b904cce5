"""A provider's invoice, read and compared with the books."""

from __future__ import annotations

import csv
import gzip
import io
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.errors import UsageError
from gpucloud.store.invoice import Compared, Found, Invoice, compare, parse_amount, read
from gpucloud.store.ledger import Line
from gpucloud.store.spending import Group

AWS = """\
lineItem/UsageAccountId,lineItem/ResourceId,lineItem/UsageStartDate,lineItem/UsageEndDate,\
lineItem/CurrencyCode,lineItem/UnblendedCost,lineItem/BlendedCost
123,i-0abc,2026-11-01T00:00:00Z,2026-11-01T01:00:00Z,USD,3.0600000000,3
123,i-0abc,2026-11-01T01:00:00Z,2026-11-01T02:00:00Z,USD,1.53E-7,3
123,arn:aws:ec2:us-east-1:123:instance/i-0def,2026-11-02T00:00:00Z,2026-11-02T01:00:00Z,USD,-0.50,3
123,,2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,USD,1.00,3
"""
AZURE = """\
\N{ZERO WIDTH NO-BREAK SPACE}SubscriptionId,Date,ResourceId,BillingCurrency,CostInBillingCurrency,costInUsd
s,2026-11-03,/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/GC-1,EUR,9,10.50
"""
MARKETPLACE = """\

Pod ID;Description;Charge
"p-1";"1 x H100; secure";"$1,234.50"
p-2;refund;($2.00)
;;
"""


def euros(amount: Decimal, currency: str) -> Decimal:
    if currency not in {"USD", "EUR"}:
        raise ValueError(f"there is no rate from {currency!r}")
    return amount * (2 if currency == "EUR" else 1)


def read_text(folder: Path, text: str, **options: str | datetime) -> Invoice:
    file = folder / "invoice.csv"
    file.write_text(text, encoding="utf-8")
    return read(file, euros, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "billed"),
    [
        (AWS, {"i-0abc": "3.060000153", "arn:aws:ec2:us-east-1:123:instance/i-0def": "-0.50", "": "1.00"}),
        (
            AZURE,
            {
                "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/GC-1": "10.50",
            },
        ),
        (MARKETPLACE, {"p-1": "1234.50", "p-2": "-2.00"}),
        ("id\tname\tamount\tcurrency\n7\ta\t1\tEUR\n7\tb\t2\t\n", {"7": "4"}),
        ("resource.name,cost\nvm-1,€3\nvm-1,4 EUR\nvm-1,USD 1\n", {"vm-1": "15"}),
        ("id,instance_id,total,amount_usd\n1,i-1,99,2\n", {"i-1": "2"}),
    ],
)
def test_the_columns_are_known_by_the_names_that_providers_give_them(
    tmp_path: Path, text: str, billed: dict[str, str]
) -> None:
    invoice = read_text(tmp_path, text)
    assert invoice.billed == {name: Decimal(usd) for name, usd in billed.items()}
    assert invoice.bad == []


def test_an_invoice_may_be_packed(tmp_path: Path) -> None:
    packed = tmp_path / "usage"
    packed.write_bytes(gzip.compress(AWS.encode()))
    assert read(packed, euros).billed == read_text(tmp_path, AWS).billed
    packed.write_bytes(gzip.compress(AWS.encode())[:-20])
    with pytest.raises(UsageError, match="cannot be read"):
        read(packed, euros)


def test_its_time_is_from_the_first_to_the_last(tmp_path: Path) -> None:
    invoice = read_text(tmp_path, AWS)
    assert invoice.since == datetime(2026, 11, 1, tzinfo=UTC)
    assert invoice.until == datetime(2026, 12, 1, tzinfo=UTC)
    days = read_text(tmp_path, "id,start date,end date,cost\na,2026-11-01,2026-11-02,1\n")
    assert days.since == datetime(2026, 11, 1, tzinfo=UTC)
    assert days.until == datetime(2026, 11, 3, tzinfo=UTC)
    local = read_text(tmp_path, "id,start,end,cost\na,2026-11-01T01:00+01:00,2026-11-02 00:00:00 UTC,1\n")
    assert local.since == datetime(2026, 11, 1, tzinfo=UTC)
    assert local.until == datetime(2026, 11, 2, tzinfo=UTC)
    none = read_text(tmp_path, "id,start,end,cost\na,11/01/2026,9999-12-31,1\n")
    assert none.since is none.until is None


def test_rows_of_another_time_are_left_out(tmp_path: Path) -> None:
    text = "id,start,cost\na,2026-10-31,1\na,2026-11-01,2\na,2026-11-30,4\na,2026-12-01,8\na,soon,16\n"
    since = datetime(2026, 11, 1, tzinfo=UTC)
    invoice = read_text(tmp_path, text, since=since, until=since + timedelta(days=30))
    assert invoice.billed == {"a": 6}
    assert [(row.line, row.why) for row in invoice.bad] == [(6, "'soon' is not a time")]
    assert read_text(tmp_path, "id,cost\na,1\n", since=since).billed == {"a": 1}


@pytest.mark.parametrize(
    ("text", "lacking"),
    [
        ("name,cost\na,1\n", "that of the instance$"),
        ("id,name\na,1\n", "that of the amount$"),
        ("name,number\na,1\n", "that of the instance or of the amount$"),
        ("id,cost,Cost\na,1,2\n", "that of the amount$"),
        ("", "that of the instance or of the amount$"),
    ],
)
def test_columns_that_cannot_be_told_are_asked_for(tmp_path: Path, text: str, lacking: str) -> None:
    with pytest.raises(UsageError, match=lacking) as caught:
        read_text(tmp_path, text)
    assert caught.value.why == (
        f"its header is {', '.join(text.split()[0].split(','))}" if text else "it is empty"
    )
    assert "--column-id NAME --column-amount NAME" in caught.value.hint


def test_columns_may_be_named(tmp_path: Path) -> None:
    text = "id,VM,cost,Net Total\n1,a,5,6\n"
    assert read_text(tmp_path, text, id_column="vm").billed == {"a": 5}
    assert read_text(tmp_path, text, id_column="VM", amount_column="net total").billed == {"a": 6}
    with pytest.raises(UsageError, match="of the amount"):
        read_text(tmp_path, text, amount_column="gross")


def test_a_row_that_makes_no_sense_is_named_by_its_line(tmp_path: Path) -> None:
    text = '\nid,note,cost\na,"two\nlines",1\nb,x,1.5.0\nc\nd,x,\ne,x,7 GBP\nf,x,2\n'
    invoice = read_text(tmp_path, text)
    assert invoice.billed == {"a": 1, "f": 2}
    assert [(row.line, row.why) for row in invoice.bad] == [
        (5, "'1.5.0' is not an amount of money"),
        (6, "it has fewer fields than the header"),
        (7, "'' is not an amount of money"),
        (8, "there is no rate from 'GBP'"),
    ]


def test_an_invoice_without_a_row_that_makes_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no row") as caught:
        read_text(tmp_path, "id,cost\na,much\n")
    assert caught.value.why == "line 2: 'much' is not an amount of money"
    assert read_text(tmp_path, "id,cost\n").billed == {}


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.csv", euros)
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path, euros)


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("1,234.50", "1234.50", ""),
        (" $0.39 ", "0.39", ""),
        ("-$1,000", "-1000", ""),
        ("$-3", "-3", ""),
        ("\N{MINUS SIGN}3", "-3", ""),
        ("(2.00)", "-2.00", ""),
        ("($2.00)", "-2.00", ""),
        ("1.53E-7", "0.000000153", ""),
        (".5", "0.5", ""),
        ("USD 4", "4", "USD"),
        ("4eur", "4", "EUR"),
        ("£4", "4", "GBP"),
    ],
)
def test_amounts_are_read_as_people_write_them(text: str, amount: str, currency: str) -> None:
    assert parse_amount(text) == (Decimal(amount), currency)


@pytest.mark.parametrize(
    "text", ["", "-", "$", "1,5", "1.234,50", "12,34", "--1", "-$-1", "(-1)", "(1", "nan", "1e999", "¥4", "٣"]
)
def test_what_may_be_another_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of money"):
        parse_amount(text)


@given(st.decimals(-(10**9), 10**9, places=2), st.sampled_from(["{:,}", "{}", "${:,}", "{:,} USD"]))
def test_every_amount_is_read_as_it_was_written(amount: Decimal, style: str) -> None:
    assert parse_amount(style.format(amount))[0] == amount


@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["i-1", "i-2", "a/b", 'q"x', ""]), st.decimals(-99, 99, places=4))
    )
)
def test_all_that_was_billed_is_summed(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, Decimal]]
) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([("instance_id", "cost"), *rows])
    invoice = read_text(tmp_path_factory.getbasetemp(), text.getvalue())
    assert sum(invoice.billed.values(), Decimal(0)) == sum((usd for _, usd in rows), Decimal(0))
    assert set(invoice.billed) == {name for name, _ in rows}


def ours(provider: str, instance: str, cluster: str, usd: str | None) -> Group:
    known = {} if usd is None else {Line.INSTANCE: Decimal(usd)}
    unknown = frozenset({Line.INSTANCE} if usd is None else ())
    return Group((provider, instance, cluster), known, unknown, timedelta(hours=1))


def billed(**amounts: str) -> Invoice:
    return Invoice({name: Decimal(usd) for name, usd in amounts.items()})


def test_what_was_billed_is_set_against_the_books() -> None:
    books = [
        ours("acme", "i1", "a", "2"),
        ours("acme", "i1", "b", "1"),
        ours("acme", "i2", "a", "5"),
        ours("acme", "i3", "a", None),
        ours("acme", "i4", "a", "0"),
        ours("other", "x9", "c", "7"),
    ]
    zero = Decimal(0)
    found = compare(billed(i1="3.5", i3="4", vol="10", free="0"), books)
    assert found == [
        Compared("vol", Found.BILLED, None, (), zero, Decimal(10)),
        Compared("i2", Found.OURS, "acme", ("a",), Decimal(5), zero),
        Compared("i3", Found.BOTH, "acme", ("a",), None, Decimal(4)),
        Compared("i1", Found.BOTH, "acme", ("a", "b"), Decimal(3), Decimal("3.5")),
    ]
    assert [each.difference for each in found] == [10, -5, None, Decimal("0.5")]


def test_ids_that_are_paths_are_known_by_their_end() -> None:
    books = [ours("acme", "i-1", "a", "1"), ours("acme", "/projects/P/zones/z/instances/GC-2", "a", "1")]
    invoice = Invoice(
        {
            "arn:aws:ec2:us-east-1:123:instance/i-1": Decimal(1),
            "i-1": Decimal(2),
            "gc-2": Decimal(4),
            "/PROJECTS/p/zones/z/instances/gc-2": Decimal(8),
        }
    )
    found = {each.id: each.billed for each in compare(invoice, books)}
    assert found == {"i-1": 3, "/projects/P/zones/z/instances/GC-2": 12}


def test_an_id_of_two_providers_is_asked_about() -> None:
    books = [ours("acme", "7", "a", "1"), ours("other", "7", "b", "2")]
    with pytest.raises(UsageError, match="7 may be one of several") as caught:
        compare(Invoice({"7": Decimal(1)}), books)
    assert "--provider" in caught.value.hint
    (found,) = compare(Invoice({"7": Decimal(1)}), books, "other")
    assert (found.provider, found.ours) == ("other", Decimal(2))


def test_where_nothing_matches_all_of_the_books_is_only_ours() -> None:
    books = [ours("acme", "i1", "a", "2"), ours("other", "x9", "c", "7")]
    found = compare(Invoice({"": Decimal(1)}), books)
    assert [(each.id, each.found) for each in found] == [
        ("x9", Found.OURS),
        ("i1", Found.OURS),
        ("", Found.BILLED),
    ]
    assert [each.id for each in compare(Invoice({"": Decimal(1)}), books, "acme")] == ["i1", ""]


@given(
    st.dictionaries(st.sampled_from(["i-1", "i-2", "x/i-3", "", "z"]), st.decimals(-99, 99, places=2)),
    st.dictionaries(st.sampled_from(["i-1", "i-2", "i-3", "i-4"]), st.decimals(0, 99, places=2)),
)
def test_no_money_is_lost_in_a_comparison(charged: dict[str, Decimal], booked: dict[str, Decimal]) -> None:
    books = [ours("acme", name, "a", str(usd)) for name, usd in booked.items()]
    found = compare(Invoice(charged), books)
    assert sum(each.billed for each in found) == sum(charged.values())
    assert sum(each.ours or 0 for each in found) == sum(booked.values())
    assert sum(each.difference or 0 for each in found) == sum(charged.values()) - sum(booked.values())
