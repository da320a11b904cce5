"""Books that several processes use at once, and that survive the sudden death of any of them."""

from __future__ import annotations

import os
import random
import signal
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from gpucloud.errors import Locked
from gpucloud.model import RentalState
from tests.harness.books import line_from, opened, other_process, rented, start_together
from tests.harness.waiting import eventually

WRITE = """
from gpucloud.model import Instance, InstanceRef, InstanceState, Market, Rental, RentalState, utcnow
from decimal import Decimal
me = sys.argv[2]
cluster = store.clusters.create(me, 1, ephemeral=False)
for number in range(int(sys.argv[3])):
    token = f"gc-{me}-{number}"
    store.journal.intend(Rental(token, cluster.id, number, RentalState.INTENDED, "acme", "big",
                                Market.SPOT, utcnow(), Decimal(1)))
    print("intended", token, flush=True)
    store.journal.accept(token, Instance("acme", InstanceRef(f"i-{token}"), InstanceState.RUNNING))
    print("accepted", token, flush=True)
    if number % 2:
        store.journal.gone(token, "done")
        print("gone", token, flush=True)
"""

READ = """
seen = 0
while seen < int(sys.argv[2]):
    rentals = store.journal.rentals(gone=True)
    assert len(rentals) >= seen
    seen = len(rentals)
    for cluster in store.clusters.living():
        store.ledger.cost(cluster.id)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.mark.parametrize("seed", range(8))
def test_whatever_was_committed_before_a_sudden_death_is_there_and_whole(folder: Path, seed: int) -> None:
    with other_process(WRITE, folder, "w", "100000") as process:
        lines = [line_from(process) for _ in range(random.Random(seed).randrange(1, 60))]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.communicate(timeout=30)[0].splitlines()
    # Death may have cut off the last line, not what it tells of.
    done: dict[str, str] = {}
    for line in lines:
        word, _, token = line.partition(" ")
        if token:
            done[token] = word
    order = [RentalState.INTENDED, RentalState.ACCEPTED, RentalState.GONE]
    with opened(folder) as store:
        rentals = {rental.token: rental for rental in store.journal.rentals(gone=True)}
        assert set(list(done)[:-1]) <= set(rentals)
        for token, rental in rentals.items():
            if token in done:
                assert order.index(rental.state) >= order.index(RentalState(done[token]))
            events = [event for _, event, _ in store.journal.events(token)]
            assert events == order[: order.index(rental.state) + 1]
            meters = store.db.read("SELECT * FROM ledger WHERE token = ?", token)
            assert len(meters) == order.index(rental.state)
        assert store.db.read("PRAGMA integrity_check")[0][0] == "ok"
        assert not store.db.needs_rebuild


def test_death_in_the_middle_of_a_transaction_leaves_nothing_of_it(folder: Path) -> None:
    program = (
        "with store.db.write() as db:\n"
        "    db.execute(\"INSERT INTO meta VALUES ('half', 'done')\")\n"
        "    print('inside', flush=True)\n    sys.stdin.readline()\n"
    )
    with other_process(program, folder) as process:
        assert line_from(process) == "inside"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        with opened(folder) as store:
            assert store.db.read("SELECT * FROM meta") == []
            store.db.set_needs_rebuild(True)
            assert store.db.needs_rebuild


def test_many_first_commands_at_once_make_one_database(folder: Path) -> None:
    program = (
        "print('ready', flush=True)\nsys.stdin.readline()\nstore = Store(Path(sys.argv[1]))\n"
        "store.clusters.create(sys.argv[2], 1, ephemeral=False)\nprint(store.db.path.stat().st_ino)\n"
    )
    names = [f"c{number}" for number in range(6)]
    with ExitStack() as stack:
        processes = [stack.enter_context(other_process(program, folder, name, opens=False)) for name in names]
        start_together(processes)
        answers = [process.communicate(timeout=60) for process in processes]
        assert [(process.returncode, err) for process, (_, err) in zip(processes, answers, strict=True)] == [
            (0, "")
        ] * 6
    assert len({out for out, _ in answers}) == 1
    with opened(folder) as store:
        assert sorted(cluster.name for cluster in store.clusters.living()) == names
    assert [path.name for path in folder.iterdir()] == ["gpucloud.db"]


def test_readers_and_writers_at_once_all_come_to_their_end(folder: Path) -> None:
    writers, turns = 3, 40
    with ExitStack() as stack:
        processes = [
            stack.enter_context(other_process(WRITE, folder, f"w{n}", str(turns))) for n in range(writers)
        ]
        processes += [
            stack.enter_context(other_process(READ, folder, str(writers * turns))) for _ in range(2)
        ]
        for process in processes:
            _, err = process.communicate(timeout=120)
            assert (process.returncode, err) == (0, "")
    with opened(folder) as store:
        assert len(store.journal.rentals(gone=True)) == writers * turns
        assert len(store.journal.rentals()) == writers * turns // 2
        assert len(store.db.read("SELECT * FROM ledger")) == writers * turns * 3 // 2


def test_only_one_of_many_processes_gets_a_name(folder: Path) -> None:
    program = (
        "from gpucloud.errors import Locked\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "try:\n    print(store.clusters.create('train', 1, ephemeral=False).id)\n"
        "except Locked:\n    print('taken')\n"
    )
    with opened(folder), ExitStack() as stack:
        processes = [stack.enter_context(other_process(program, folder)) for _ in range(4)]
        start_together(processes)
        answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert sorted(answers) == ["1", "taken", "taken", "taken"]


HOLD_A_TRANSACTION = """
with store.db.write() as db:
    db.execute("INSERT INTO meta VALUES ('a', 'b')")
    print("inside", flush=True)
    sys.stdin.readline()
"""


def test_a_transaction_that_is_kept_open_elsewhere_is_told_as_locked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpucloud.store.database.BUSY_S", 0.05)
    with opened(folder) as store, other_process(HOLD_A_TRANSACTION, folder) as process:
        assert line_from(process) == "inside"
        with pytest.raises(Locked) as caught:
            store.clusters.create("train", 1, ephemeral=False)
        assert caught.value.retryable
        assert str(store.db.path) in caught.value.why
        # What was committed can be read all the time.
        assert store.clusters.living() == []
        assert store.db.read("SELECT * FROM meta") == []
        assert process.communicate("\n", timeout=30)[1] == ""
        store.clusters.create("train", 1, ephemeral=False)
        assert len(store.db.read("SELECT * FROM meta")) == 1


def test_a_writer_waits_for_another_to_come_to_its_end(folder: Path) -> None:
    with opened(folder) as store, other_process(HOLD_A_TRANSACTION, folder) as process:
        assert line_from(process) == "inside"
        thread = threading.Thread(
            target=store.clusters.create, args=("train", 1), kwargs={"ephemeral": False}
        )
        thread.start()
        process.communicate("\n", timeout=30)
        thread.join(30)
        assert [cluster.name for cluster in store.clusters.living()] == ["train"]


HOLD_A_LOCK = """
with store.db.lock(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
"""


def test_a_lock_that_another_process_holds_is_refused_at_once_with_what_to_do(folder: Path) -> None:
    with opened(folder) as store, other_process(HOLD_A_LOCK, folder, "cluster-train") as process:
        assert line_from(process) == "held"
        assert store.db.is_locked("cluster-train")
        entered = False
        with pytest.raises(Locked) as caught, store.db.lock("cluster-train"):
            entered = True
        assert not entered
        error = caught.value
        assert error.message == "another gpucloud is at work on 'train'"
        assert error.why and error.hint and error.retryable
        assert not store.db.is_locked("cluster-other")
        with store.db.lock("cluster-other"):
            pass
        assert process.communicate("\n", timeout=30)[0] == "released\n"
        assert not store.db.is_locked("cluster-train")
        with store.db.lock("cluster-train"):
            assert store.db.is_locked("cluster-train")


def test_a_lock_dies_with_the_process_that_held_it(folder: Path) -> None:
    with opened(folder) as store, other_process(HOLD_A_LOCK, folder, "train") as process:
        assert line_from(process) == "held"
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)
        eventually(lambda: not store.db.is_locked("train"))
        with store.db.lock("train"):
            pass


def test_a_child_of_the_holder_does_not_keep_the_lock(folder: Path) -> None:
    program = (
        "import subprocess\n"
        "with store.db.lock('train'):\n"
        "    child = subprocess.Popen(['sleep', '600'])\n"
        "    print(child.pid, flush=True)\n    sys.stdin.readline()\n"
    )
    with opened(folder) as store, other_process(program, folder) as process:
        child = int(line_from(process))
        try:
            os.kill(process.pid, signal.SIGKILL)
            process.wait(30)
            os.kill(child, 0)
            assert not store.db.is_locked("train")
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_lock_is_free_again_after_an_error(folder: Path) -> None:
    with opened(folder) as store:
        with pytest.raises(ZeroDivisionError), store.db.lock("train"):
            raise ZeroDivisionError
        assert not store.db.is_locked("train")


def test_the_threads_of_one_process_exclude_each_other_too(folder: Path) -> None:
    refused: list[str] = []

    def other() -> None:
        try:
            with store.db.lock("train"):
                pass
        except Locked as error:
            refused.append(error.code)

    with opened(folder) as store, store.db.lock("train"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(30)
    assert refused == ["locked"]


def test_who_only_looks_whether_a_lock_is_held_stops_nobody(folder: Path) -> None:
    program = (
        "print('looking', flush=True)\n"
        "while not Path(sys.argv[2]).exists():\n    store.db.is_locked('train')\n"
    )
    end = folder.parent / "end"
    with opened(folder) as store, other_process(program, folder, str(end)) as process:
        assert line_from(process) == "looking"
        for _ in range(200):
            with store.db.lock("train"):
                pass
        end.touch()
        assert process.communicate(timeout=30)[1] == ""


def test_books_of_two_folders_have_nothing_in_common(tmp_path: Path) -> None:
    with opened(tmp_path / "a") as one, opened(tmp_path / "b") as other:
        rented(one, one.clusters.create("train", 1, ephemeral=False))
        with one.db.lock("train"), other.db.lock("train"):
            assert other.journal.rentals() == []
        assert other.clusters.living() == []
