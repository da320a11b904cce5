"""The on-host program as the client sees it: the machine, its jobs and its files."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from gpucloud.errors import HostBusy, RemoteError, SyncFailed
from gpucloud.model import JobState
from gpucloud.remote.host import Host, JobStatus
from gpucloud.remote.streams import Reader, Writer
from gpucloud.store import new_id
from tests.harness.host_sh import ODD_NAMES, archive
from tests.harness.waiting import eventually
from tests.providers.local.conftest import a_provider
from tests.providers.rented import Rented, rented

UNTIL_GO = "until [ -e go ]; do sleep 0.05; done\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rented]:
    folder = tmp_path_factory.mktemp("machine")
    with rented(a_provider(folder / "state"), folder) as instance:
        yield instance


@pytest.fixture
def host(machine: Rented) -> Iterator[Host]:
    with machine.connect() as connection:
        host = Host(connection, new_id("gc-", 20))
        install(host)
        yield host
        host.clean()


def install(host: Host, *, slots: int = 0, claim: str = "me") -> None:
    host.install(slots=slots, claim=claim, notice_probe="", at_end="")


def work(host: Host, machine: Rented) -> Path:
    """Where the jobs of a host start, as seen from here."""
    (folder,) = (machine.folder / "home" / ".gpucloud").glob("*/work")
    return folder


def start(host: Host, job: str, run: str, setup: str | None = None) -> JobStatus:
    return host.start(job, {"run": run, "env": "", **({} if setup is None else {"setup": setup})})


def ended(host: Host, job: str) -> JobStatus:
    eventually(lambda: host.status(job).over)
    return host.status(job)


def log(host: Host, job: str, offset: int = 0) -> bytes:
    data = bytearray()
    host.read(job, offset, data.extend)
    return bytes(data)


def test_to_install_or_start_it_again_changes_nothing(host: Host, machine: Rented) -> None:
    first = start(host, "j", f"echo started >>starts\n{UNTIL_GO}")
    assert (first.known, first.over, first.state) == (True, False, JobState.RUNNING)
    install(host)
    again = start(host, "j", "echo another >>starts\n")
    assert (again.started_at, again.over) == (first.started_at, False)
    (work(host, machine) / "go").touch()
    done = ended(host, "j")
    assert (done.state, done.exit_code, done.phase) == (JobState.SUCCEEDED, 0, "run")
    assert done.started_at and done.ended_at and done.started_at <= done.ended_at
    assert start(host, "j", "echo another >>starts\n") == done
    assert (work(host, machine) / "starts").read_text() == "started\n"


def test_a_job_that_was_never_started_is_not_known(host: Host) -> None:
    assert not host.status("j").known
    assert not host.cancel("j", 1).known
    for ask in (host.follow, host.read):
        with pytest.raises(RemoteError, match="the log of j could not be") as caught:
            ask("j", 0, fail)
        assert caught.value.why == "there is no job j on this host"


def fail(_: bytes) -> None:
    raise AssertionError("there was something after all")


def test_the_phases_of_a_job_are_its_states(host: Host, machine: Rented) -> None:
    assert start(host, "j", "exit 3\n", setup=UNTIL_GO).state is JobState.SETTING_UP
    (work(host, machine) / "go").touch()
    done = ended(host, "j")
    assert (done.state, done.exit_code) == (JobState.FAILED, 3)
    start(host, "k", "echo never\n", setup="exit 4\n")
    done = ended(host, "k")
    assert (done.state, done.exit_code, done.phase) == (JobState.FAILED, 4, "setup")


def test_a_log_is_followed_from_any_byte_while_it_is_written(host: Host, machine: Rented) -> None:
    start(host, "j", f"printf 'one\\0\\377\\n'; {UNTIL_GO}printf 'two\\n'\n")
    seen = bytearray()

    def take(data: bytes) -> None:
        seen.extend(data)
        if len(seen) == 4:
            (work(host, machine) / "go").touch()

    host.follow("j", 2, take)
    # Following may end a little early.
    host.read("j", 2 + len(seen), seen.extend)
    assert bytes(seen) == b"e\0\xff\ntwo\n"
    assert log(host, "j") == b"on" + seen
    assert log(host, "j", offset=ended(host, "j").log_bytes) == b""


def test_what_a_sink_raises_ends_the_following_and_not_the_job(host: Host, machine: Rented) -> None:
    start(host, "j", f"echo x\n{UNTIL_GO}")
    with pytest.raises(AssertionError, match="after all"):
        host.follow("j", 0, fail)
    assert not host.status("j").over
    (work(host, machine) / "go").touch()
    assert ended(host, "j").exit_code == 0


def test_a_job_is_cancelled_gently_and_if_need_be_by_force(host: Host) -> None:
    start(host, "gentle", "trap 'echo saved; exit 5' TERM\necho on\nwhile :; do sleep 0.05; done\n")
    start(host, "deaf", "trap '' TERM\necho on\nwhile :; do sleep 0.05; done\n")
    for job in ("gentle", "deaf"):
        eventually(partial(log, host, job))
    done = host.cancel("gentle", 20)
    assert (done.state, done.exit_code, done.cancelled) == (JobState.CANCELLED, 5, True)
    assert log(host, "gentle").endswith(b"saved\n")
    done = host.cancel("deaf", 0)
    assert (done.state, done.exit_code) == (JobState.CANCELLED, 137)
    assert host.cancel("deaf", 0) == done


def test_a_lease_that_is_taken_away_no_longer_counts_and_one_that_is_over_ends_all(host: Host) -> None:
    start(host, "j", "while :; do sleep 0.05; done\n")
    host.lease(1000)
    host.lease(None)
    assert not host.status("j").expired
    host.lease(0)
    done = ended(host, "j")
    assert (done.state, done.expired, done.cancelled) == (JobState.CANCELLED, True, False)


def test_limits_and_use_are_told_as_they_are(host: Host) -> None:
    before = host.vitals()
    assert (before.lease_left_s, before.idle_limit_s, before.over, before.jobs) == (None, None, None, 0)
    host.lease(100_000)
    host.idle(90_000)
    start(host, "j", "while :; do sleep 0.05; done\n")
    now = host.vitals()
    assert now.lease_left_s is not None
    assert 90_000 < now.lease_left_s <= 100_000
    assert (now.idle_limit_s, now.over, now.busy, now.jobs) == (90_000, None, "job", 1)
    host.lease(0)
    eventually(lambda: host.vitals().over == "lease")
    host.idle(None)
    assert host.vitals().idle_limit_s is None


SOUND = {
    "lease_left": "5",
    "idle_limit": "none",
    "idle_for": "0",
    "busy": "none",
    "sessions": "known",
    "over": "none",
    "jobs": "0",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"lease_left": "soon"},
        {"idle_for": "none"},
        {"busy": "yes"},
        {"sessions": ""},
        {"over": "boredom"},
        {"jobs": "many"},
        {},
    ],
)
def test_limits_that_make_no_sense_are_an_error(host: Host, machine: Rented, wrong: dict[str, str]) -> None:
    program = work(host, machine).with_name("host.sh")
    ours = program.read_text()
    report = "".join(f"echo {name}={value}\n" for name, value in (SOUND | wrong).items() if wrong)
    try:
        program.write_text(report)
        with pytest.raises(RemoteError, match="tells of its limits what makes no sense"):
            host.vitals()
    finally:
        program.write_text(ours)


def test_clean_leaves_neither_jobs_nor_files_and_may_be_repeated(host: Host, machine: Rented) -> None:
    start(host, "j", "echo $$\nexec sleep 1000\n")
    pid = int(eventually(partial(log, host, "j")))
    host.clean()
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert list((machine.folder / "home" / ".gpucloud").iterdir()) == []
    host.clean()
    with pytest.raises(RemoteError, match="job j could not be asked for"):
        host.status("j")


def test_a_machine_that_is_taken_says_by_whom(machine: Rented) -> None:
    with machine.connect() as connection:
        mine, theirs = Host(connection, new_id("gc-", 20)), Host(connection, new_id("gc-", 20))
        install(theirs, slots=1, claim="ann's train")
        with pytest.raises(HostBusy, match="it is in use") as caught:
            install(mine, slots=1)
        assert caught.value.why == "taken by ann's train"
        theirs.clean()
        install(mine, slots=1)
        mine.clean()


NAMES = [os.fsdecode(name) for name in ODD_NAMES]


def test_files_of_any_name_go_there_and_back_and_are_removed(host: Host) -> None:
    contents = {f"in/{name}": os.urandom(100) for name in NAMES}
    packed = archive(contents)
    host.receive("work", lambda tar: write_slowly(tar, packed))
    assert sorted(host.files(["in"])) == sorted(contents)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    assert host.digest(list(contents)) == digests
    assert host.digest(["gone\nfor good", "in"]) == {"gone\nfor good": "gone", "in": "gone"}
    assert unpacked(host, list(contents)) == contents
    host.remove("work", [*contents, "in/"])
    assert host.files(["in"]) == []


def test_names_at_the_top_are_no_options_of_any_tool(host: Host) -> None:
    contents = {name: name.encode("utf-8", "surrogateescape") for name in NAMES}
    host.receive("work", lambda tar: tar.write(archive(contents)))
    assert {name.removeprefix("./") for name in host.files(NAMES)} == set(NAMES)
    assert unpacked(host, NAMES) == contents
    host.remove("work", NAMES)
    assert host.digest(NAMES) == dict.fromkeys(NAMES, "gone")


def write_slowly(tar: Writer, data: bytes) -> None:
    for begin in range(0, len(data), 1000):
        tar.write(data[begin : begin + 1000])


def unpacked(host: Host, names: list[str]) -> dict[str, bytes]:
    """What comes when these names are asked for."""
    found: dict[str, bytes] = {}

    def consume(reader: Reader) -> None:
        data = b"".join(iter(lambda: reader.read(65536), b""))
        with tarfile.open(fileobj=io.BytesIO(data), ignore_zeros=True) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                found[member.name] = file.read()

    host.pack(names, consume)
    return found


def test_a_push_counts_once_it_is_complete(host: Host) -> None:
    assert host.sent("key") == b""
    host.keep("key", b"manifest\0\xff")
    assert host.sent("key") == b"manifest\0\xff"


def test_files_that_cannot_be_written_are_a_failed_push_with_a_reason(host: Host) -> None:
    host.receive("work", lambda tar: tar.write(archive({"file": b"x"})))
    for target, data in (("work/file/below", archive({"a": b""})), ("work", b"no tar" * 2000)):
        with pytest.raises(SyncFailed, match=f"files could not be written to {target}") as caught:
            host.receive(target, partial(write_slowly, data=data))
        assert caught.value.why
