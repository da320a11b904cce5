"""Where in a log its last lines are, and at what times it had which length."""

from __future__ import annotations

import os
import signal
import time
from itertools import pairwise

import pytest

from tests.harness.host_sh import HostSh
from tests.harness.waiting import eventually

WAIT = "until [ -e go ]; do sleep 0.05; done\n"


@pytest.fixture
def host(host_sh: HostSh) -> HostSh:
    host_sh.init()
    return host_sh


def numbers(host: HostSh, *command: str) -> tuple[int, ...]:
    return tuple(int(word) for word in host.run(*command).stdout.split())


def times(host: HostSh) -> list[tuple[int, int]]:
    found = numbers(host, "times", "j")
    return list(zip(found[::2], found[1::2], strict=True))


def test_the_last_lines_of_a_log_begin_where_the_tool_for_it_says(host: HostSh) -> None:
    text = b"first\n\n" + b"x" * 70_000 + b"\n" + b"short\n" * 40_000 + b"no newline"
    (host.work / "text").write_bytes(text)
    host.finish("j", "cat text\n")
    lines = text.splitlines(keepends=True)
    for count in (0, 1, 2, 7, 20_000, 40_001, 40_002, 40_004):
        begin = len(text) - sum(map(len, lines[len(lines) - count :]))
        assert numbers(host, "last", "j", str(count)) == (begin, count)
    assert numbers(host, "last", "j", "40005") == (0, len(lines))
    assert numbers(host, "last", "j", "1000000000") == (0, len(lines))


@pytest.mark.parametrize(("text", "lines"), [("", 0), ("\n", 1), ("a", 1), ("a\n", 1), ("\na", 2)])
def test_a_short_log_has_few_lines(host: HostSh, text: str, lines: int) -> None:
    (host.work / "text").write_text(text)
    host.finish("j", "cat text\n")
    assert numbers(host, "last", "j", "5") == (0, lines)
    assert numbers(host, "last", "j", "0") == (len(text), 0)


def test_the_length_of_a_log_is_noted_while_it_grows_and_at_its_end(host: HostSh) -> None:
    before = int(time.time())
    host.start("j", f"echo one\n{WAIT}echo two\nrm go\n{WAIT}printf three\n")
    eventually(lambda: [size for _, size in times(host)] == [4, 4, 4])
    (host.work / "go").touch()
    # What is told last is how long it is now; the clerk has it once it is in the file.
    eventually(lambda: " 8\n" in (host.root / "jobs" / "j" / "times").read_text())
    eventually(lambda: not (host.work / "go").exists())
    (host.work / "go").touch()
    host.ended("j")
    noted = times(host)
    assert {size for _, size in noted} == {4, 8, 13}
    assert (host.root / "jobs" / "j" / "times").read_text().endswith(" 13\n")
    assert noted == sorted(noted)
    assert before <= noted[0][0] <= noted[-1][0] <= time.time() + 1


def test_a_silent_job_has_no_times_and_costs_no_room(host: HostSh) -> None:
    host.finish("j", "true\n")
    assert [size for _, size in times(host)][-1:] == [0]
    assert (host.root / "jobs" / "j" / "times").read_bytes() == b""


def test_the_clerk_who_notes_the_times_ends_with_the_supervisor(host: HostSh) -> None:
    host.start("j", f"echo one\n{WAIT}")
    eventually(lambda: len(times(host)) == 3)
    os.kill(host.pid("j", "supervisor"), signal.SIGKILL)
    eventually(lambda: not host.processes("supervise"))
    assert len(times(host)) == 2, "of what is written from now on the time is not known"
    os.kill(host.pid("j"), signal.SIGKILL)


def test_what_was_written_lately_begins_at_a_line(host: HostSh) -> None:
    text = "".join(f"line {number}\n" for number in range(100))
    (host.work / "text").write_text(text)
    host.finish("j", "cat text\n")
    now = int(time.time())
    noted = [(now - 1000, 10), (now - 500, 40), (now - 20, 300), (now - 10, len(text))]
    (host.root / "jobs" / "j" / "times").write_text("".join(f"{at} {size}\n" for at, size in noted))

    def since(seconds: int) -> int:
        return numbers(host, "since", "j", str(seconds))[0]

    assert since(100_000) == since(1001 + 10) == 0
    assert since(700) == 7, "a line that was not complete before is shown whole"
    assert since(100) == text.rindex("\n", 0, 40) + 1
    assert since(15) == text.rindex("\n", 0, 300) + 1
    assert since(0) == since(-3600) == len(text)


def test_a_line_without_end_is_not_searched_for_its_begin(host: HostSh) -> None:
    (host.work / "text").write_text("x" * 200_000)
    host.finish("j", "cat text\n")
    now = int(time.time())
    (host.root / "jobs" / "j" / "times").write_text(f"{now - 100} 150000\n{now - 1} 200000\n")
    assert numbers(host, "since", "j", "50") == (150_000 - 65_536,)


def test_the_times_are_thinned_by_their_age_and_never_grow_without_end(host: HostSh) -> None:
    host.finish("j", "echo x\n")
    file = host.root / "jobs" / "j" / "times"
    now = int(time.time())
    # A sample each second for two days.
    noted = [(now - age, 1_000_000 - age) for age in range(172_800, -1, -1)]
    file.write_text("".join(f"{at} {size}\n" for at, size in noted))
    host.call("eval", "job=$ROOT/jobs/j; thin")
    kept = [tuple(map(int, line.split())) for line in file.read_text().splitlines()]
    assert set(kept) <= set(noted)
    assert kept[0] == noted[0]
    assert len(kept) < 8000
    for (earlier, _), (later, _) in pairwise(kept):
        assert later - earlier <= max(2, (now - earlier) / 900 + 1)


def test_on_a_host_that_has_lost_the_times_the_log_is_still_read(host: HostSh) -> None:
    host.finish("j", "echo one\n")
    (host.root / "jobs" / "j" / "times").unlink()
    assert host.run("read", "j", "0").stdout == b"one\n"
    assert numbers(host, "since", "j", "10") == (0,)
    assert host.status("j")["state"] == "ended"
