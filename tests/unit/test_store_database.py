"""The file of the books: who may read it, its versions, its transactions, and what is not a database."""

from __future__ import annotations

import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpucloud.errors import GpucloudError, Locked, StoreError
from gpucloud.model import Gpu
from gpucloud.store import Store
from gpucloud.store.database import Database
from gpucloud.store.schema import MIGRATIONS
from tests.harness.books import OPEN, a_rental, opened, rented


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "gpucloud"


@pytest.fixture
def store(folder: Path) -> Iterator[Store]:
    with opened(folder) as store:
        yield store


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def refusal(act: Callable[[], object]) -> GpucloudError:
    """The error of an act that must fail in words for a person."""
    with pytest.raises((StoreError, Locked)) as caught:
        act()
    error = caught.value
    assert error.message and error.why and error.hint
    return error


def test_only_the_user_may_read_the_books(store: Store, folder: Path) -> None:
    store.clusters.create("train", 1, ephemeral=False)
    with store.db.lock("x"):
        assert mode(folder) == 0o700
        files = {path.name: mode(path) for path in folder.rglob("*") if path.is_file()}
        assert {"gpucloud.db", "gpucloud.db-wal", "x.lock"} <= set(files)
        assert set(files.values()) == {0o600}
        assert mode(folder / "locks") == 0o700


def test_a_wide_open_umask_changes_nothing(folder: Path) -> None:
    program = "import os\nos.umask(0)\n" + OPEN + "store.clusters.create('a', 1, ephemeral=False)\n"
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True, timeout=60)
    assert {mode(path) for path in folder.rglob("*") if path.is_file()} == {0o600}
    assert mode(folder) == 0o700


def test_nothing_but_the_database_is_left_after_closing(folder: Path) -> None:
    with opened(folder) as store:
        store.clusters.create("train", 1, ephemeral=False)
    assert [path.name for path in folder.iterdir()] == ["gpucloud.db"]


def test_every_version_there_ever_was_is_brought_up_to_date(folder: Path) -> None:
    for version in range(len(MIGRATIONS) + 1):
        old = folder / str(version)
        old.mkdir(parents=True)
        connection = sqlite3.connect(old / "gpucloud.db")
        for script in MIGRATIONS[:version]:
            connection.executescript(script)
        connection.execute(f"PRAGMA user_version = {version}")
        # A version 0 that SQLite has written has nothing in it but this.
        connection.execute("CREATE TABLE other (x)")
        connection.commit()
        connection.close()
        with opened(old) as store:
            cluster = store.clusters.create("train", 1, ephemeral=False)
            rented(store, cluster)
            assert store.db.read("PRAGMA user_version")[0][0] == len(MIGRATIONS)
            assert not store.db.needs_rebuild


def test_a_migration_that_fails_leaves_the_old_version(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(folder) as store:
        store.clusters.create("train", 1, ephemeral=False)
    broken = "CREATE TABLE fresh (x); INSERT INTO nowhere VALUES (1)"
    monkeypatch.setattr("gpucloud.store.database.MIGRATIONS", (*MIGRATIONS, broken))
    assert "nowhere" in refusal(lambda: Database(folder)).why
    monkeypatch.undo()
    with opened(folder) as store:
        assert [cluster.name for cluster in store.clusters.living()] == ["train"]
        assert not store.db.read("SELECT * FROM sqlite_master WHERE name = 'fresh'")


def test_a_newer_database_is_refused_and_left_as_it_is(folder: Path) -> None:
    with opened(folder) as store:
        store.clusters.create("train", 1, ephemeral=False)
        with store.db.write() as db:
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = store.db.path.read_bytes()
    error = refusal(lambda: Store(folder))
    assert "newer" in error.message
    assert str(store.db.path) in error.why and str(len(MIGRATIONS) + 1) in error.why
    assert "upgrade" in error.hint
    assert store.db.path.read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["gpucloud.db"]


def test_what_a_block_raises_undoes_its_changes_and_is_raised(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.db.write() as db:
        db.execute("INSERT INTO meta VALUES ('a', 'b')")
        raise ZeroDivisionError
    assert store.db.read("SELECT * FROM meta") == []
    with store.db.write() as db:
        db.execute("INSERT INTO meta VALUES ('a', 'b')")
    assert len(store.db.read("SELECT * FROM meta")) == 1


def test_a_transaction_that_cannot_be_committed_does_not_block_the_next(store: Store) -> None:
    with pytest.raises(sqlite3.IntegrityError), store.db.write() as db:
        db.execute("PRAGMA defer_foreign_keys = ON")
        db.execute("INSERT INTO journal (at, token, event) VALUES ('now', 'nobody', 'x')")
    assert store.db.read("SELECT * FROM journal") == []
    store.db.set_needs_rebuild(True)
    assert store.db.needs_rebuild


def test_what_belongs_to_nothing_is_not_entered(store: Store) -> None:
    cluster = store.clusters.create("train", 1, ephemeral=False)
    with pytest.raises(sqlite3.IntegrityError):
        store.journal.intend(a_rental(cluster, cluster_id=99))
    assert store.journal.rentals(gone=True) == []


def test_what_is_committed_is_on_disk_and_not_only_in_the_cache_of_the_system(store: Store) -> None:
    assert store.db.read("PRAGMA synchronous")[0][0] == 2
    assert store.db.read("PRAGMA journal_mode")[0][0] == "wal"


def test_the_mark_that_the_books_are_incomplete_stays_until_it_is_taken_away(folder: Path) -> None:
    with opened(folder) as store:
        assert not store.db.needs_rebuild
        store.db.set_needs_rebuild(True)
        store.db.set_needs_rebuild(True)
    with opened(folder) as store:
        assert store.db.needs_rebuild
        store.db.set_needs_rebuild(False)
        assert not store.db.needs_rebuild


def test_many_threads_share_one_connection(store: Store) -> None:
    cluster = store.clusters.create("train", 1, ephemeral=False)
    gate = threading.Barrier(8)

    def work(number: int) -> None:
        gate.wait(20)
        for turn in range(5):
            rented(store, cluster, f"gc-{number}-{turn}", gpu=Gpu("H100"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(store.journal.rentals()) == 40


def test_the_use_of_closed_books_is_our_own_fault_and_harms_no_file(folder: Path) -> None:
    with opened(folder) as store:
        store.clusters.create("train", 1, ephemeral=False)
    with pytest.raises(sqlite3.ProgrammingError):
        store.clusters.living()
    with pytest.raises(sqlite3.ProgrammingError):
        store.clusters.create("other", 1, ephemeral=False)
    with opened(folder) as again:
        assert [cluster.name for cluster in again.clusters.living()] == ["train"]
    assert [path.name for path in folder.iterdir()] == ["gpucloud.db"]


def test_a_wrong_query_is_our_own_fault_and_harms_no_file(store: Store, folder: Path) -> None:
    store.clusters.create("train", 1, ephemeral=False)
    with pytest.raises(sqlite3.ProgrammingError):
        store.db.read("SELECT * FROM clusters WHERE id = ?", 1, 2)
    assert [cluster.name for cluster in store.clusters.living()] == ["train"]
    assert not list(folder.glob("*damaged*"))


@pytest.mark.parametrize("depth", [0, 1])
def test_a_file_in_the_place_of_a_folder_is_told_of(folder: Path, depth: int) -> None:
    blocked = [folder, *folder.parents][depth]
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("in the way")
    error = refusal(lambda: Store(folder))
    assert isinstance(error, StoreError)
    assert str(blocked) in error.why
    assert error.hint == f"ls -ld {folder}"
    assert blocked.read_text() == "in the way"


def test_a_folder_in_the_place_of_the_database_is_told_of(folder: Path) -> None:
    (folder / "gpucloud.db").mkdir(parents=True)
    assert isinstance(refusal(lambda: Store(folder)), StoreError)
    assert (folder / "gpucloud.db").is_dir()


def test_a_file_in_the_place_of_the_locks_is_told_of(store: Store, folder: Path) -> None:
    (folder / "locks").write_text("in the way")
    assert isinstance(refusal(lambda: store.db.lock("train").__enter__()), StoreError)
    assert isinstance(refusal(lambda: store.db.is_locked("train")), StoreError)


def test_books_that_cannot_be_written_can_be_read_and_the_reason_is_told(store: Store, folder: Path) -> None:
    store.clusters.create("train", 1, ephemeral=False)
    with store.db.write() as db:
        db.execute("PRAGMA query_only = ON")
    error = refusal(lambda: store.clusters.create("other", 1, ephemeral=False))
    assert "readonly" in error.why
    assert error.hint == f"ls -l {folder}"
    assert [cluster.name for cluster in store.clusters.living()] == ["train"]


def full_disk() -> None:
    """No file may grow beyond this, as when the disk is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))


FILL = """
from gpucloud.errors import GpucloudError
names = 0
try:
    while True:
        store.clusters.create(f"c{names}-" + "x" * 5000, 1, ephemeral=False)
        names += 1
except GpucloudError as error:
    print(names, type(error).__name__, error.message, error.hint, sep="|")
found = len(store.clusters.living())
try:
    store.clusters.create("again" + "x" * 50000, 1, ephemeral=False)
except GpucloudError as error:
    print(found, type(error).__name__, error.message, error.hint, sep="|")
"""


def test_a_full_disk_is_told_of_and_what_was_entered_before_stays(folder: Path) -> None:
    with opened(folder):
        pass
    done = subprocess.run(
        [sys.executable, "-c", OPEN + FILL, str(folder)],
        preexec_fn=full_disk,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, second = (line.split("|") for line in done.stdout.splitlines())
    assert first[1:] == second[1:] == ["StoreError", "the database cannot be used", f"df -h {folder}"]
    assert first[0] == second[0] != "0"
    with opened(folder) as store:
        assert len(store.clusters.living()) == int(first[0])
    assert not list(folder.glob("*damaged*"))


def test_a_disk_without_any_room_is_told_of(folder: Path) -> None:
    folder.mkdir(parents=True)
    program = OPEN.replace("store = Store", "from gpucloud.errors import StoreError\ntry:\n    Store")
    program += "except StoreError as error:\n    print(error.message)\n"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("the database cannot be used\n", "")
