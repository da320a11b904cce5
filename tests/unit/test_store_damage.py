"""Damaged books: never deleted, never silently replaced, and nothing is rented until they are rebuilt."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from gpucloud.errors import StoreError
from tests.harness.books import a_rental, line_from, opened, other_process, start_together

PAGE = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Books of some thirty pages."""
    folder = tmp_path / "data"
    with opened(folder) as store:
        for number in range(300):
            store.clusters.create(f"c{number}-{'x' * 40}", 1, ephemeral=False)
    return folder


def garbage(content: bytes) -> bytes:
    return os.urandom(len(content))


def another_header(content: bytes) -> bytes:
    return b"not a database!!" + content[16:]


def cut_in_the_header(content: bytes) -> bytes:
    return content[:50]


def cut_in_half(content: bytes) -> bytes:
    return content[: len(content) // PAGE // 2 * PAGE]


def cut_to_nothing(content: bytes) -> bytes:
    return b""


def pages_overwritten(content: bytes) -> bytes:
    # Without the schema it would be no database of ours at all.
    kept = schema_pages(content)
    pages = (content[at : at + PAGE] for at in range(0, len(content), PAGE))
    return b"".join(page if n in kept else b"\xa5" * PAGE for n, page in enumerate(pages, 1))


def schema_pages(content: bytes) -> set[int]:
    """The first page, and those below it once it has become an inner one (type 5 of the file format)."""

    def number(at: int, size: int) -> int:
        return int.from_bytes(content[at : at + size], "big")

    if number(100, 1) != 5:
        return {1}
    cells = (number(112 + 2 * n, 2) for n in range(number(103, 2)))
    return {1, number(108, 4), *(number(at, 4) for at in cells)}


def only_text(content: bytes) -> bytes:
    return b"Sorry, your home folder was restored from a backup.\n" * 200


DAMAGES = (
    garbage,
    another_header,
    cut_in_the_header,
    cut_in_half,
    cut_to_nothing,
    pages_overwritten,
    only_text,
)


def use(folder: Path) -> None:
    with opened(folder) as store:
        store.clusters.living()


def damage(folder: Path, how: Callable[[bytes], bytes]) -> bytes:
    """Damage the file; returns what is in it now."""
    file = folder / "gpucloud.db"
    file.write_bytes(how(file.read_bytes()))
    return file.read_bytes()


def asides(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.glob("gpucloud.db.damaged-*") if not path.name.endswith(("-wal", "-shm"))
    )


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_file_is_set_aside_as_it_is_and_the_new_one_must_be_rebuilt(
    folder: Path, how: Callable[[bytes], bytes]
) -> None:
    content = damage(folder, how)
    with pytest.raises(StoreError) as caught:
        use(folder)
    kept = asides(folder)
    assert [file.read_bytes() for file in kept] == [content]
    assert "damaged" in caught.value.message
    assert str(kept[0]) in caught.value.why
    assert "fsck --rebuild" in caught.value.hint
    with opened(folder) as store:
        assert store.db.needs_rebuild
        assert store.clusters.living() == []
        store.clusters.create("fresh", 1, ephemeral=False)
        store.db.set_needs_rebuild(False)
    with opened(folder) as store:
        assert not store.db.needs_rebuild
        assert [cluster.name for cluster in store.clusters.living()] == ["fresh"]
    assert asides(folder) == kept


def test_the_new_file_is_as_private_as_the_old_one_and_nothing_else_is_left(folder: Path) -> None:
    damage(folder, garbage)
    with pytest.raises(StoreError):
        use(folder)
    assert {path.name for path in folder.iterdir()} == {"gpucloud.db", "locks", asides(folder)[0].name}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()} == {0o600}


def test_damage_that_shows_itself_in_a_transaction_is_told_as_damage(folder: Path) -> None:
    with opened(folder) as store:
        damage(folder, pages_overwritten)
        with pytest.raises(StoreError, match="damaged"):
            store.clusters.create("new", 1, ephemeral=False)
    assert len(asides(folder)) == 1


def test_damage_in_the_middle_of_a_step_of_the_journal_is_told_as_damage(folder: Path) -> None:
    with opened(folder) as store:
        cluster = store.clusters.living()[0]
        store.journal.intend(a_rental(cluster))
    damage(folder, pages_overwritten)
    with opened(folder) as store:
        with pytest.raises(StoreError, match="damaged"):
            store.journal.gone("gc-1", "it was never there")
        assert asides(folder)


def test_after_damage_the_same_command_is_told_the_same_again(folder: Path) -> None:
    damage(folder, pages_overwritten)
    with opened(folder) as store:
        told = []
        for _ in range(3):
            with pytest.raises(StoreError, match="damaged") as caught:
                store.clusters.living()
            told.append(caught.value.why.partition("; ")[2])
        assert told == [f"it is kept as {asides(folder)[0]}"] * 3
    with opened(folder) as store:
        assert store.db.needs_rebuild


def test_of_many_threads_that_see_the_damage_one_sets_the_file_aside(folder: Path) -> None:
    damage(folder, pages_overwritten)
    told: list[str] = []
    gate = threading.Barrier(6)
    with opened(folder) as store:

        def look() -> None:
            gate.wait(20)
            try:
                store.clusters.living()
            except StoreError as error:
                told.append(error.message)

        threads = [threading.Thread(target=look) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert told == ["the database is damaged and was set aside"] * 6
    assert len(asides(folder)) == 1


def test_what_was_committed_but_not_yet_in_the_file_is_kept_with_it(folder: Path) -> None:
    with opened(folder) as store:
        store.clusters.create("in-the-log", 1, ephemeral=False)
        log = folder / "gpucloud.db-wal"
        assert b"in-the-log" in log.read_bytes()
        damage(folder, another_header)
        with pytest.raises(StoreError, match="damaged"):
            use(folder)
        kept = asides(folder)[0]
        assert b"in-the-log" in kept.with_name(f"{kept.name}-wal").read_bytes()
    assert b"in-the-log" in kept.with_name(f"{kept.name}-wal").read_bytes()
    with opened(folder) as store:
        assert store.clusters.living() == []


def test_a_process_that_still_has_the_damaged_file_open_does_no_harm_to_the_new_one(folder: Path) -> None:
    with opened(folder) as old:
        old.clusters.living()
        damage(folder, another_header)
        with pytest.raises(StoreError, match="damaged"):
            use(folder)
        with opened(folder) as new:
            new.clusters.create("fresh", 1, ephemeral=False)
            old.db.close()
            new.clusters.create("fresher", 1, ephemeral=False)
    with opened(folder) as store:
        assert [cluster.name for cluster in store.clusters.living()] == ["fresh", "fresher"]


def test_books_that_were_rebuilt_may_be_damaged_again(folder: Path) -> None:
    for count in (1, 2, 3):
        damage(folder, garbage)
        with pytest.raises(StoreError):
            use(folder)
        assert len(asides(folder)) == count


UNTIL_IT_OPENS = """
from gpucloud.errors import GpucloudError
print("ready", flush=True)
sys.stdin.readline()
while True:
    try:
        store = Store(Path(sys.argv[1]))
        store.clusters.living()
    except GpucloudError as error:
        print(error.why.rpartition(" ")[2], flush=True)
    else:
        print("must be rebuilt" if store.db.needs_rebuild else "empty", flush=True)
        break
"""


@pytest.mark.parametrize("how", [garbage, cut_to_nothing, pages_overwritten])
def test_processes_that_see_the_damage_at_once_set_it_aside_once_and_none_begins_empty_books(
    folder: Path, how: Callable[[bytes], bytes]
) -> None:
    content = damage(folder, how)
    told: list[str] = []
    with ExitStack() as stack:
        processes = [
            stack.enter_context(other_process(UNTIL_IT_OPENS, folder, opens=False)) for _ in range(4)
        ]
        start_together(processes)
        for process in processes:
            out, err = process.communicate(timeout=60)
            assert (process.returncode, err) == (0, "")
            told += out.splitlines()
    kept = asides(folder)
    assert [file.read_bytes() for file in kept] == [content]
    assert set(told) == {str(kept[0]), "must be rebuilt"}
    assert told.count("must be rebuilt") == 4


def test_at_every_moment_there_is_a_database_in_its_place(folder: Path) -> None:
    """Otherwise a command that starts just then would begin empty books."""
    damage(folder, garbage)
    missing = 0
    with other_process(UNTIL_IT_OPENS, folder, opens=False) as process:
        start_together([process])
        while process.poll() is None:
            missing += not (folder / "gpucloud.db").exists()
        assert process.communicate()[0].splitlines() == [str(asides(folder)[0]), "must be rebuilt"]
    assert missing == 0


WITHOUT_ROOM = """
import resource
from gpucloud.errors import StoreError
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    Store(Path(sys.argv[1]))
except StoreError as error:
    print(error.message, flush=True)
"""


def test_a_disk_that_has_no_room_for_new_books_keeps_the_damaged_ones_in_place(folder: Path) -> None:
    content = damage(folder, garbage)
    with other_process(WITHOUT_ROOM, folder, opens=False) as process:
        assert line_from(process) == "the database cannot be used"
        assert process.wait(30) == 0
    assert (folder / "gpucloud.db").read_bytes() == content
    assert asides(folder) == []
    with pytest.raises(StoreError, match="set aside"):
        use(folder)


def test_sqlite_agrees_that_the_new_books_are_whole(folder: Path) -> None:
    damage(folder, cut_in_half)
    with pytest.raises(StoreError):
        use(folder)
    connection = sqlite3.connect(folder / "gpucloud.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
