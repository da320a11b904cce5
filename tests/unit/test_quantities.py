"""Durations, sizes and money as people write them."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpucloud.model import utcnow
from gpucloud.quantities import (
    LONGEST,
    format_age,
    format_bytes,
    format_count,
    format_duration,
    parse_duration,
    parse_gib,
    parse_usd,
)

DURATIONS = {
    "0s": 0,
    "90s": 90,
    "15m": 900,
    "6h": 21_600,
    "2d": 172_800,
    "1w": 604_800,
    "2h30m": 9000,
    "1d12h": 129_600,
    "1.5h": 5400,
    "0.5s": 0.5,
    "30m2h": 9000,
    "1s1s": 2,
    " 6H ": 21_600,
    "1 h 30 m": 5400,
    "015m": 900,
}

NEVER = (
    "", " ", "-", "nan", "NaN", "inf", "-inf", "Infinity", "1e3", "1E+999999", "0x10", "1_000", "+-1", "1,5",
    "1.", "1..5", "1.5.5", "\u0663", "\uff11", "\u00bd", "\u00b2", "1\x00", "1 2", "one", "$(id)",
)  # fmt: skip
"""What is no number, in no unit."""


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.items())
def test_a_duration_is_read_with_its_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["0", "30", "1.5", " 90 "])
def test_a_bare_number_is_no_duration_because_its_unit_is_unknown(text: str) -> None:
    with pytest.raises(ValueError, match="write 90s"):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    ["-5s", "+5s", "5", "s", "5x", "5ms", "5mo", "5y", "h5", "5s5", ".5h", "1h-30m", "1 5m", "5\u017f"],
)
def test_another_text_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("number", NEVER)
@pytest.mark.parametrize("unit", ["s", "h"])
def test_a_strange_number_is_no_duration(number: str, unit: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(f"{number}{unit}")


@pytest.mark.parametrize(
    "text", ["36501d", "100000000000d", "9" * 30 + "w", "9" * 400 + "s", "1" * 5000 + "s", "36500d1s"]
)
def test_a_duration_beyond_the_calendar_is_refused_as_such(text: str) -> None:
    with pytest.raises(ValueError, match="longer than a hundred years"):
        parse_duration(text)


def test_every_duration_that_is_read_can_be_added_to_today() -> None:
    assert parse_duration("36500d") == LONGEST
    assert utcnow() + LONGEST > utcnow()


@given(st.integers(0, 3_153_599_999))
def test_a_duration_in_seconds_is_read_exactly(seconds: int) -> None:
    assert parse_duration(f"{seconds}s") == timedelta(seconds=seconds)


@given(
    st.integers(0, 36_000),
    st.integers(0, 23),
    st.integers(0, 59),
    st.integers(0, 59),
    st.integers(0, 999_999),
)
def test_a_written_duration_is_read_back_with_its_two_largest_units(
    days: int, hours: int, minutes: int, seconds: int, micros: int
) -> None:
    duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds, microseconds=micros)
    written = format_duration(duration)
    assert 1 <= sum(character.isalpha() for character in written) <= 2
    lost = timedelta(seconds=round(duration.total_seconds())) - parse_duration(written)
    assert timedelta(0) <= lost < timedelta(hours=1)
    if duration < timedelta(hours=1):
        assert lost == timedelta(0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.4, "0s"),
        (45, "45s"),
        (59.7, "1m"),
        (60, "1m"),
        (90, "1m30s"),
        (9000, "2h30m"),
        (9001, "2h30m"),
        (3601, "1h1s"),
        (86_400, "1d"),
        (86_580, "1d3m"),
        (2_000_000, "23d3h"),
        (-5, "0s"),
    ],
)
def test_a_duration_is_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("text", "gib"),
    [
        ("40GB", "40"),
        ("40GiB", "40"),
        ("40gb", "40"),
        ("40 GB", "40"),
        (" 40 ", "40"),
        ("0", "0"),
        ("0.5", "0.5"),
        ("1.5TB", "1536"),
        ("2tib", "2048"),
        ("512MB", "0.5"),
        ("1536MiB", "1.5"),
    ],
)
def test_a_size_is_read_in_gib(text: str, gib: str) -> None:
    assert parse_gib(text) == Decimal(gib)


@pytest.mark.parametrize(
    "text",
    ["GB", "-1GB", "+1GB", "40g", "40b", "40k", "40KB", "40KiB", "40PB", "1g\u0130b", "40GB+", "4 0GB"],
)
def test_another_text_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_gib(text)


@pytest.mark.parametrize("number", NEVER)
@pytest.mark.parametrize("unit", ["", "GB"])
def test_a_strange_number_is_no_size(number: str, unit: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_gib(f"{number}{unit}")


@given(st.decimals(0, 10**9, places=3))
def test_the_units_of_a_size_agree_with_each_other(amount: Decimal) -> None:
    assert parse_gib(f"{amount}") == parse_gib(f"{amount}GB") == parse_gib(f"{amount}GiB")
    assert parse_gib(f"{amount}TB") == parse_gib(f"{amount}GB") * 1024 == parse_gib(f"{amount * 1024}GB")
    assert abs(parse_gib(f"{amount}MB") * 1024 - amount) < Decimal("1e-9")


@pytest.mark.parametrize(
    ("text", "usd"),
    [
        ("30", "30"),
        ("$30", "30"),
        ("2.50", "2.50"),
        ("$ 2.50", "2.50"),
        (" 30 ", "30"),
        (".50", "0.50"),
        ("0", "0"),
        ("0.000001", "0.000001"),
        ("007", "7"),
    ],
)
def test_money_is_read_exactly(text: str, usd: str) -> None:
    amount = parse_usd(text)
    assert amount == Decimal(usd)
    assert str(amount) == usd


@pytest.mark.parametrize(
    "text",
    ["$", "$$3", "3$", "-1", "+3", "-0", "$-1", "30 usd", "USD 30", "\u20ac30", "1,000", "1.000,00", "."],
)
def test_another_text_is_no_money(text: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of money"):
        parse_usd(text)


@pytest.mark.parametrize("number", NEVER)
@pytest.mark.parametrize("sign", ["", "$"])
def test_a_strange_number_is_no_money(number: str, sign: str) -> None:
    with pytest.raises(ValueError, match="is not an amount of money"):
        parse_usd(f"{sign}{number}")


@given(st.decimals(0, 10**12, places=6))
def test_no_digit_of_an_amount_is_lost(amount: Decimal) -> None:
    assert str(parse_usd(f"{amount}")) == str(parse_usd(f"${amount}")) == f"{amount}"


@given(st.text(max_size=20))
def test_reading_a_quantity_never_fails_in_another_way_than_it_says(text: str) -> None:
    for parse in (parse_duration, parse_gib, parse_usd):
        try:
            found = parse(text)
        except ValueError as error:
            assert "is not a" in str(error)
        else:
            assert not isinstance(found, Decimal) or (found.is_finite() and found >= 0)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (3_250_586, "3.1 MiB"),
        (1024**3 - 1, "1.0 GiB"),
        (1024**4 - 1, "1.0 TiB"),
        (1024**4, "1.0 TiB"),
        (1024**5, "1024.0 TiB"),
    ],
)
def test_bytes_are_written_with_the_unit_that_fits(count: int, text: str) -> None:
    assert format_bytes(count) == text


@given(st.integers(0, 1024**4 - 1))
def test_written_bytes_are_right_within_their_last_digit(count: int) -> None:
    number, unit = format_bytes(count).split()
    size = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}[unit]
    assert abs(Decimal(number) * size - count) <= Decimal("0.05") * size
    assert Decimal(number) < 1024


@pytest.mark.parametrize(("count", "text"), [(0, "0 files"), (1, "1 file"), (2, "2 files")])
def test_one_is_not_a_plural(count: int, text: str) -> None:
    assert format_count(count, "file") == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (86_399, "23h"),
        (86_400, "1d"),
        (3e7, "347d"),
    ],
)
def test_an_age_has_one_unit_and_is_never_rounded_up(seconds: float, text: str) -> None:
    assert format_age(timedelta(seconds=seconds)) == text
