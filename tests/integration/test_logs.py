"""Logs over lines that break: each byte once and in order, wherever the machine is by now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from gpucloud.cli.log_lines import Lines, form
from gpucloud.config import load
from gpucloud.errors import Interrupted
from gpucloud.fleet import Fleet
from gpucloud.fleet.contact import Contacts
from gpucloud.fleet.end import end_cluster
from gpucloud.fleet.launch import launch
from gpucloud.fleet.plan import LaunchRequest, plan
from gpucloud.jobs.log_copy import log_copy
from gpucloud.jobs.log_show import Asked, show
from gpucloud.jobs.logs import Piece, follow
from gpucloud.jobs.submit import submit
from gpucloud.model import (
    Cluster,
    Event,
    Instance,
    InstanceRef,
    Job,
    JobSpec,
    Requirements,
    SshAddress,
    utcnow,
)
from gpucloud.remote.keys import identity
from gpucloud.store import Store
from gpucloud_local import Local
from tests.harness.acme import Only
from tests.harness.proxy import Proxy
from tests.harness.waiting import eventually
from tests.providers.local.conftest import a_provider

pytestmark = pytest.mark.needs_sshd

UNTIL_GO = "until [ -e go ]; do sleep 0.05; done\n"


class Behind(Local):
    """Machines of this computer, each at the other end of a line of its own."""

    def lay(self) -> None:
        self.lines: dict[str, Proxy] = {}

    def get(self, ref: InstanceRef) -> Instance:
        instance = super().get(ref)
        if instance.ssh is None:
            return instance
        line = self.lines.setdefault(ref.id, Proxy((instance.ssh.host, instance.ssh.port)))
        return replace(instance, ssh=SshAddress("127.0.0.1", line.port, instance.ssh.user))


@dataclass
class World:
    """Two nodes that are up, and what is told of them."""

    fleet: Fleet
    provider: Behind
    cluster: Cluster
    told: list[Event] = field(default_factory=list)

    def line(self, rank: int = 0) -> Proxy:
        ref = self.cluster.rentals[rank].ref
        assert ref
        return self.provider.lines[ref.id]

    def work(self, rank: int = 0) -> Path:
        ref = self.cluster.rentals[rank].ref
        assert ref
        (folder,) = (self.provider.settings.state_dir / ref.id / "home" / ".gpucloud").glob("*/work")
        return folder

    def printed(self, job: Job, rank: int = 0) -> bytes:
        return (self.work(rank).parent / "jobs" / job.id / "log").read_bytes()

    def start(self, run: str) -> Job:
        for rank in range(self.cluster.nodes):
            (self.work(rank) / "go").unlink(missing_ok=True)
        with Contacts(self.fleet, self.cluster) as contacts:
            return submit(contacts, JobSpec(run))

    def go(self) -> None:
        for rank in range(self.cluster.nodes):
            (self.work(rank) / "go").touch()

    def show(self, job: Job, asked: Asked) -> bytes:
        seen = bytearray()
        show(self.fleet, job, lambda piece: seen.extend(piece.data), asked)
        return bytes(seen)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    settings = a_provider(folder / "state", "openssh").settings
    provider = Behind(settings)
    provider.lay()
    config = load({}, {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "data")}, folder)
    store = Store(folder / "books")
    told: list[Event] = []
    key = identity(folder / "key")
    fleet = Fleet(store, Only(config, provider), config, "me", lambda: key, told.append)
    request = LaunchRequest("x", Requirements(), nodes=2)
    cluster = launch(fleet, plan(fleet, request, ["local"]))
    try:
        yield World(fleet, provider, cluster, told)
    finally:
        for line in provider.lines.values():
            line.cut_each = None
        end_cluster(fleet, fleet.store.clusters.by_id(cluster.id), "down")
        for line in provider.lines.values():
            line.close()
        store.db.close()


@pytest.fixture(autouse=True)
def calm(world: World) -> Iterator[None]:
    world.told.clear()
    yield
    for line in world.provider.lines.values():
        line.cut_each = None


def test_each_byte_comes_once_and_in_order_however_often_the_line_is_cut(world: World) -> None:
    # Longer and longer, so that cuts fall everywhere.
    job = world.start("for n in $(seq 60); do head -c $((n * 331)) /dev/urandom; sleep 0.02; done\n")
    line = world.line()
    line.cut_each = 60_000
    before = line.connections
    places: list[int] = []
    seen = bytearray()

    def take(piece: Piece) -> None:
        places.append(piece.offset)
        assert piece.offset == len(seen)
        seen.extend(piece.data)

    with Contacts(world.fleet, world.cluster) as contacts:
        status = follow(contacts, job, take)
    assert status.exit_code == 0
    assert bytes(seen) == world.printed(job)
    assert line.connections - before > 5, "it was cut many times"
    assert {event.kind for event in world.told if event.kind == "disconnected"}
    with log_copy(world.fleet, job, 1) as copy:
        assert copy.whole
        (part,) = copy.parts()
    assert part.file.read_bytes() == bytes(seen)


def test_a_machine_that_got_another_address_is_followed_there(world: World) -> None:
    job = world.start(f"echo one\n{UNTIL_GO}echo two\n")
    line = world.line()
    seen = bytearray()

    def take(piece: Piece) -> None:
        seen.extend(piece.data)
        if bytes(seen) == b"one\n":
            line.move()
            world.go()

    with Contacts(world.fleet, world.cluster) as contacts:
        follow(contacts, job, take)
    assert bytes(seen) == b"one\ntwo\n"
    rental = world.fleet.store.journal.get(world.cluster.rentals[0].token)
    assert rental.ssh and rental.ssh.port == line.port
    # A fresh command asks for the address as well.
    line.move()
    assert world.show(job, Asked(tail=1)) == b"two\n"


def test_several_nodes_are_followed_at_once_each_over_its_own_breaks(world: World) -> None:
    words = "x" * 500
    job = world.start(
        f'for n in $(seq 100); do echo "$GPUCLOUD_NODE_RANK $n {words}"; sleep 0.02; done; printf "no end"\n'
    )
    world.line(1).cut_each = 20_000
    written: list[bytes] = []
    writer = Lines(form(ranks=2, times=True, terminal=False), written.append)
    show(world.fleet, job, writer, Asked((0, 1), following=True, timed=True))
    writer.close()
    lines = b"".join(written).split(b"\n")
    assert lines.pop() == b""
    for rank in (0, 1):
        head = f"{rank}| ".encode()
        mine = [line.removeprefix(head) for line in lines if line.startswith(head)]
        stamps, texts = zip(*(line.split(b"Z ", 1) for line in mine), strict=True)
        assert list(texts) == [f"{rank} {n} {words}".encode() for n in range(1, 101)] + [b"no end"]
        assert list(stamps) == sorted(stamps)
        with log_copy(world.fleet, job, 1, rank) as copy:
            assert copy.whole
    assert len(lines) == 202


def test_the_end_of_a_large_log_does_not_bring_all_of_it(world: World) -> None:
    job = world.start(
        f"yes 0123456789abcde | head -c 50000000 || :\necho ready >ready\n{UNTIL_GO}echo over\n"
    )
    eventually((world.work() / "ready").exists)
    line = world.line()
    before = line.carried
    assert world.show(job, Asked(tail=2)) == b"0123456789abcde\n" * 2
    seen = bytearray()

    def take(piece: Piece) -> None:
        seen.extend(piece.data)
        world.go()

    show(world.fleet, job, take, Asked(tail=1, following=True))
    assert bytes(seen) == b"0123456789abcde\nover\n"
    assert line.carried - before < 1_000_000
    with log_copy(world.fleet, job, 1) as copy:
        assert not copy.whole
        assert [part.begin for part in copy.parts()] == [50_000_000 - 32]
        assert copy.last(2) == (50_000_000 - 16, 2)


def test_what_was_printed_lately_and_when(world: World) -> None:
    begun = utcnow()
    job = world.start(f"echo one\n{UNTIL_GO}echo two\n")
    with Contacts(world.fleet, world.cluster) as contacts:
        # The length that was noted, that on the way, and that of now.
        eventually(lambda: len(contacts.host(0).times(job.id).splitlines()) == 3)
    world.go()
    times = []
    show(
        world.fleet,
        job,
        lambda piece: times.append(piece.time_of(piece.offset)),
        Asked(following=True, timed=True),
    )
    assert times
    for time in times:
        assert time is not None
        assert begun - timedelta(seconds=2) <= time <= utcnow() + timedelta(seconds=2)
    assert world.show(job, Asked(since=begun - timedelta(seconds=3))) == b"one\ntwo\n"
    assert world.show(job, Asked(since=utcnow() + timedelta(hours=1))) == b""


def test_a_copy_on_a_full_disk_does_not_keep_anybody_from_reading(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = world.start("echo one\n")
    folder = world.fleet.config.data_dir / "jobs" / job.id
    folder.mkdir(parents=True)
    # What stands for a disk that takes no more.
    (folder / "log.1").symlink_to("/dev/full")
    assert world.show(job, Asked(following=True)) == b"one\n"


def test_the_log_of_a_machine_that_was_ended_is_what_was_read_of_it(world: World, tmp_path: Path) -> None:
    request = LaunchRequest("y", Requirements())
    cluster = launch(world.fleet, plan(world.fleet, request, ["local"]))
    there = World(world.fleet, world.provider, cluster)
    job = there.start(f"seq 1000; echo half; touch half; {UNTIL_GO} echo never\n")
    eventually((there.work() / "half").exists)
    assert there.show(job, Asked(tail=2)) == b"1000\nhalf\n"

    def end(piece: Piece) -> None:
        if piece.data.endswith(b"half\n"):
            world.provider.terminate(cluster.rentals[0].ref or pytest.fail("it has no number"))

    with pytest.raises(Interrupted), Contacts(world.fleet, cluster) as contacts:
        follow(contacts, job, end, offset=10)
    end_cluster(world.fleet, cluster, "down")
    whole = "".join(f"{n}\n" for n in range(1, 1001)) + "half\n"
    assert there.show(job, Asked(offset=10)) == whole[10:].encode()
    world.told.clear()
    assert there.show(job, Asked()) == whole[10:].encode()
    assert [event.kind for event in world.told] == ["missing"]
