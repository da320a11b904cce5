"""How fast a transfer goes and how long it takes: told only when it is known."""

from __future__ import annotations

import pytest

from gpucloud.cli.transfers import RECENT_S, Meter
from gpucloud.quantities import LONGEST
from gpucloud.remote.progress import Phase, Progress

MIB = 2**20


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sending(size: int, total: int | None = 100 * MIB) -> Progress:
    return Progress(Phase.SENDING, 1, size, 3, total)


def going(rate: int, seconds: int, total: int | None = 100 * MIB) -> tuple[Meter, Clock]:
    """A transfer that has gone at ``rate`` bytes a second for so long."""
    clock = Clock()
    meter = Meter(sending(0, total), clock)
    for second in range(1, seconds + 1):
        clock.now += 1
        meter.tell(sending(rate * second, total))
    return meter, clock


def test_before_anything_is_known_nothing_is_said() -> None:
    clock = Clock()
    meter = Meter(sending(0), clock)
    clock.now += 0.2
    meter.tell(sending(50 * MIB))
    assert (meter.rate, meter.left_s) == (None, None)
    assert meter.text(80) == "50.0 MiB of 100.0 MiB  1 of 3 files  -/s  - left"


def test_a_steady_transfer_is_told_to_its_end() -> None:
    meter, clock = going(2 * MIB, 10)
    assert (meter.rate, meter.left_s) == (2 * MIB, 40)
    assert meter.text(80) == "20.0 MiB of 100.0 MiB  1 of 3 files  2.0 MiB/s  40s left"
    clock.now += 1
    meter.tell(sending(99 * MIB))
    assert meter.left_s is not None
    assert 0 < meter.left_s < 1


@pytest.mark.parametrize("size", [100, 101])
def test_when_all_is_on_its_way_nobody_knows_how_long_the_host_takes(size: int) -> None:
    meter, clock = going(2 * MIB, 10)
    clock.now += 1
    meter.tell(sending(size * MIB))
    assert meter.left_s is None


def test_without_a_total_no_end_is_told() -> None:
    meter, _ = going(MIB, 10, total=None)
    assert (meter.rate, meter.left_s) == (MIB, None)
    assert meter.text(80) == "10.0 MiB  1 of 3 files  1.0 MiB/s  - left"


def test_what_stands_still_does_not_go_on_looking_fast() -> None:
    meter, clock = going(MIB, 10)
    clock.now += RECENT_S / 2
    assert meter.rate is not None
    assert meter.rate < 0.6 * MIB
    clock.now += RECENT_S / 2
    assert (meter.rate, meter.left_s) == (0, None)
    clock.now += 3600
    assert (meter.rate, meter.left_s) == (0, None)
    assert meter.text(80).endswith("0 B/s  - left")


def test_what_never_began_is_told_to_be_still() -> None:
    clock = Clock()
    meter = Meter(sending(0), clock)
    clock.now += 60
    assert (meter.rate, meter.left_s) == (0, None)


def test_only_the_last_seconds_count() -> None:
    meter, clock = going(10 * MIB, 5)
    for second in range(1, 9):
        clock.now += 1
        meter.tell(sending((50 + second) * MIB))
    assert meter.rate == MIB


def test_a_resumed_transfer_is_not_as_fast_as_what_was_there() -> None:
    clock = Clock()
    meter = Meter(sending(90 * MIB), clock)
    clock.now += 2
    meter.tell(sending(92 * MIB))
    assert (meter.rate, meter.left_s) == (MIB, 8)


def test_what_begins_again_is_measured_again() -> None:
    meter, clock = going(10 * MIB, 5)
    clock.now += 1
    meter.tell(sending(0))
    assert meter.rate is None
    for second in range(1, 3):
        clock.now += 1
        meter.tell(sending(second * MIB))
    assert meter.rate == MIB


def test_an_end_that_is_too_far_is_not_told() -> None:
    meter, _ = going(1, 10, total=int(LONGEST.total_seconds()) * 10)
    assert meter.left_s is None


def test_where_only_files_are_counted_only_files_are_told() -> None:
    assert Meter(Progress(Phase.COMPARING, 1), Clock()).text(80) == "1 file"
    assert Meter(Progress(Phase.COMPARING, 7, files_total=20), Clock()).text(80) == "7 of 20 files"


def test_where_there_is_little_room_the_rest_is_what_matters() -> None:
    meter, _ = going(2 * MIB, 10)
    assert meter.text(40) == "20.0 MiB of 100.0 MiB  40s left"
