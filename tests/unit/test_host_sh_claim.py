"""Several installations of gpucloud on one machine: never more than there are slots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness.host_sh import HostSh
from tests.harness.waiting import eventually

DEAD = "999999999 1\n"


def another(host_sh: HostSh, token: str) -> HostSh:
    other = host_sh.sibling(token)
    other.install()
    return other


def claims(host_sh: HostSh) -> list[str]:
    return sorted(path.parent.name for path in host_sh.root.parent.glob("*/claim"))


def identity(pid: int) -> str:
    """A living process as the program writes it down."""
    return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}\n"


def test_whoever_comes_second_is_told_who_has_it_and_leaves_nothing(host_sh: HostSh) -> None:
    host_sh.init(slots=1, claim="train of ann@laptop")
    other = another(host_sh, "gc-2")
    done = other.run("init", "1", "eval of bob@desk", "", "", status=75)
    assert done.stdout == b""
    assert done.stderr == b"gpucloud: taken by train of ann@laptop\n"
    assert [path.name for path in host_sh.root.parent.iterdir()] == ["gc-1"]
    assert (host_sh.root / "claim").read_text() == "train of ann@laptop\n"


def test_two_slots_are_for_two(host_sh: HostSh) -> None:
    host_sh.init(slots=2, claim="first")
    another(host_sh, "gc-2").init(slots=2, claim="second")
    done = another(host_sh, "gc-3").run("init", "2", "third", "", "", status=75)
    assert done.stderr == b"gpucloud: taken by first, second\n"
    assert claims(host_sh) == ["gc-1", "gc-2"]


def test_a_slot_is_free_again_after_clean(host_sh: HostSh) -> None:
    host_sh.init(slots=1)
    host_sh.run("clean")
    other = another(host_sh, "gc-2")
    other.init(slots=1)
    assert claims(host_sh) == ["gc-2"]


def test_whoever_has_it_keeps_it_though_there_are_fewer_slots_now(host_sh: HostSh) -> None:
    other = another(host_sh, "gc-2")
    for program in (host_sh, other):
        program.init(slots=2, claim=f"of {program.root.name}")
        (program.work / "result").write_text("kept")
    for program in (host_sh, other):
        program.init(slots=1, claim="again")
        assert (program.work / "result").read_text() == "kept"
        assert (program.root / "claim").read_text() == f"of {program.root.name}\n"


def test_a_refusal_takes_no_files_from_whoever_was_there_without_a_claim(host_sh: HostSh) -> None:
    host_sh.init()
    (host_sh.work / "result").write_text("kept")
    another(host_sh, "gc-2").init(slots=1)
    host_sh.run("init", "1", "me", "", "", status=75)
    assert (host_sh.work / "result").read_text() == "kept"
    assert claims(host_sh) == ["gc-2"]


def test_of_twenty_at_once_exactly_three_get_three_slots(host_sh: HostSh) -> None:
    rivals = [another(host_sh, f"gc-{n:02}") for n in range(20)]
    host_sh.run("clean")
    takers = [rival.popen("init", "3", rival.root.name, "", "") for rival in rivals]
    errors = [taker.communicate(timeout=60)[1].decode() for taker in takers]
    statuses = [taker.returncode for taker in takers]
    winners = [rival.root.name for rival, status in zip(rivals, statuses, strict=True) if status == 0]
    assert sorted(statuses) == [0] * 3 + [75] * 17
    assert claims(host_sh) == sorted(winners)
    assert sorted(path.name for path in host_sh.root.parent.iterdir()) == sorted(winners)
    for error, status in zip(errors, statuses, strict=True):
        # Who has waited long enough goes before the last slot is taken.
        told = error.removeprefix("gpucloud: taken by ").strip()
        assert status == 0 or set(told.split(", ")) <= {*winners, "others who came at the same time"}


@pytest.mark.parametrize("crashed", ["gc-0", "gc-1", "gc-2"])
def test_whoever_died_while_claiming_is_not_in_the_way(host_sh: HostSh, crashed: str) -> None:
    other = another(host_sh, crashed)
    (other.root / "claiming").write_text(DEAD)
    host_sh.init(slots=1)
    assert claims(host_sh) == ["gc-1"]
    assert not (host_sh.root / "claiming").exists()


def test_whoever_died_while_claiming_comes_back_and_is_seen_by_others(host_sh: HostSh) -> None:
    (host_sh.root / "claiming").write_text(DEAD)
    rival = another(host_sh, "gc-0")
    (rival.root / "claiming").write_text(identity(os.getpid()))
    taker = host_sh.popen("init", "1", "me", "", "")
    # It gives way, as the other comes first by name, and gets in as soon as that one is gone.
    eventually(lambda: not (host_sh.root / "claiming").exists())
    assert claims(host_sh) == []
    (rival.root / "claiming").unlink()
    taker.communicate(timeout=30)
    assert taker.returncode == 0
    assert claims(host_sh) == ["gc-1"]


def test_the_first_by_name_waits_until_the_others_have_given_way(host_sh: HostSh) -> None:
    rival = another(host_sh, "gc-2")
    (rival.root / "claiming").write_text(identity(os.getpid()))
    taker = host_sh.popen("init", "1", "me", "", "")
    eventually((host_sh.root / "claiming").exists)
    assert claims(host_sh) == []
    (rival.root / "claiming").unlink()
    taker.communicate(timeout=30)
    assert taker.returncode == 0
    assert claims(host_sh) == ["gc-1"]
    assert not (host_sh.root / "claiming").exists()


def test_two_starts_of_the_same_installation_share_its_claim(host_sh: HostSh) -> None:
    takers = [host_sh.popen("init", "1", "me", "", "") for _ in range(4)]
    for taker in takers:
        assert taker.communicate(timeout=30)[1] == b""
        assert taker.returncode == 0
    assert claims(host_sh) == ["gc-1"]


def test_a_file_that_somebody_else_removes_first_is_not_complained_of(host_sh: HostSh) -> None:
    # What rm of busybox does when the file goes away while it looks at it.
    first, rm = host_sh.folder / "first", host_sh.real("rm")
    host_sh.tool(
        "rm",
        f"if [ -e '{first}' ]; then exec {rm} \"$@\"; fi\n: >'{first}'\n{rm} \"$@\"\n"
        "echo \"rm: can't remove '$2': No such file or directory\" >&2\nexit 1\n",
    )
    assert host_sh.init(slots=1).stderr == b""
    assert first.exists()
