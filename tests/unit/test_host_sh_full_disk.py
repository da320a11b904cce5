"""A host whose disk is full, as it often is when a job has written one checkpoint too many."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.host_sh import HostSh, archive, scripts
from tests.harness.waiting import eventually

WAIT = "until [ -e go ]; do sleep 0.05; done\n"
# In steps, so that it ends with the last byte.
FILL = "for size in 65536 4096 512 1; do cat /dev/zero | dd bs=$size of=fill.$size 2>/dev/null || :; done\n"


@pytest.fixture
def host(host_sh: HostSh) -> Iterator[HostSh]:
    """A host whose folder is a very small disk."""
    disk = host_sh.root.parent
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(disk)]
    try:
        refused = subprocess.run(mount, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount on this machine")
    if refused.returncode:
        pytest.skip(f"no small disk can be mounted: {refused.stderr.strip()}")
    try:
        host_sh.install()
        host_sh.init()
        yield host_sh
    finally:
        host_sh.kill_all()
        subprocess.run(["umount", disk], check=True)


def fill(host: HostSh) -> None:
    chunk = 65536
    with (host.work / "fill").open("wb", buffering=0) as file:
        while chunk:
            try:
                file.write(b"x" * chunk)
            except OSError:
                chunk //= 2


def free(host: HostSh) -> None:
    for path in host.work.glob("fill*"):
        path.unlink()


def full(host: HostSh) -> bool:
    try:
        (host.work / "probe").write_bytes(b"x")
    except OSError:
        return True
    (host.work / "probe").unlink()
    return False


def test_a_job_that_has_filled_the_disk_still_says_how_it_ended(host: HostSh) -> None:
    ended = host.finish("j", f"{FILL}exit 9\n")
    assert full(host)
    assert (ended["state"], ended["phase"], ended["exit"]) == ("ended", "run", "9")
    assert int(ended["ended"]) >= int(ended["started"])


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="sessions cannot be seen here")
def test_a_machine_whose_disk_is_full_still_ends_when_it_is_idle(host: HostSh) -> None:
    # Whoever is logged in to this machine is not logged in to the other.
    host.tool("tail", f'case $* in *environ*) exit ;; esac\nexec {host.real("tail")} "$@"\n')
    host.env["SSH_CONNECTION"] = "192.0.2.1 50000 192.0.2.2 22"
    over, seen = host.home / "over", host.home / "seen"
    # Once it has ended, what ended it is deleted, which leaves room.
    host.init(at_end=f"until [ -e '{seen}' ]; do sleep 0.05; done; touch '{over}'")
    host.start("j", f"{WAIT}{FILL}")
    host.run("idle", "0")
    (host.work / "go").touch()
    assert host.ended("j")["state"] == "ended"
    assert full(host)
    seen.touch()
    eventually(over.exists)


def test_a_setup_that_has_filled_the_disk_still_says_how_it_ended(host: HostSh) -> None:
    ended = host.finish("j", "true\n", setup=f"{FILL}exit 9\n")
    assert full(host)
    assert (ended["state"], ended["phase"], ended["exit"]) == ("ended", "setup", "9")


def test_phases_follow_each_other_on_a_full_disk(host: HostSh) -> None:
    host.start("j", f"{WAIT}exit 9\n", setup=f"{FILL}true\n")
    eventually(lambda: host.status("j")["phase"] == "run")
    assert full(host)
    free(host)
    (host.work / "go").touch()
    assert host.ended("j")["exit"] == "9"


def test_a_job_can_be_cancelled_on_a_full_disk(host: HostSh) -> None:
    host.start("j", f"{WAIT}")
    eventually(lambda: host.status("j")["phase"] == "run" and host.pid("j"))
    fill(host)
    done = host.run("cancel", "j", "30")
    assert done.stdout.startswith(b"state=ended\nphase=run\nexit=143\n")
    assert full(host)


def test_a_start_on_a_full_disk_fails_and_leaves_nothing(host: HostSh) -> None:
    fill(host)
    done = host.run("start", "j", stdin=scripts("true\n"), status=1)
    assert b"the job could not be written" in done.stderr
    assert list((host.root / "jobs").iterdir()) == []
    free(host)
    assert host.finish("j", "exit 9\n")["exit"] == "9"


def test_a_lease_that_cannot_be_written_is_an_error_and_the_old_one_counts(host: HostSh) -> None:
    host.run("lease", "3600")
    old = (host.root / "lease").read_text()
    fill(host)
    done = host.run("lease", "7200", status=1)
    assert b"lease cannot be written" in done.stderr
    assert (host.root / "lease").read_text() == old
    host.run("lease", "none")


def test_a_probe_that_cannot_be_written_is_an_error_and_not_an_empty_probe(host: HostSh) -> None:
    host.init(probe="false")
    fill(host)
    done = host.run("init", "0", "me", "test -e /no/where", "", status=1)
    assert b"notice-probe cannot be written" in done.stderr
    assert (host.root / "notice-probe").read_text() == "false\n"
    assert sorted(path.name for path in host.root.iterdir()) == sorted(
        ["host.sh", "jobs", "work", "sent", "watch.pid", "notice-probe", "busy", "over"]
    )


def test_files_that_do_not_fit_are_an_error(host: HostSh) -> None:
    tar = archive({"file": bytes(500_000)})
    assert host.run("receive", "work", stdin=tar, status=None).returncode != 0
    free(host)
    (host.work / "file").unlink(missing_ok=True)
    host.run("keep", "k", stdin=b"old")
    done = host.run("keep", "k", stdin=bytes(500_000), status=1)
    assert b"cannot be written" in done.stderr
    assert host.run("sent", "k").stdout == b"old"
    assert [path.name for path in (host.root / "sent").iterdir()] == ["k"]


def test_clean_works_on_a_full_disk(host: HostSh) -> None:
    host.start("j", WAIT)
    fill(host)
    host.run("clean")
    assert list(Path(host.root.parent).iterdir()) == []
