"""What nothing can be faster than on this machine: ``python -m tests.bench.floors`` prints it as a table.

As root, from a checkout; it takes a minute. Medians, in one run.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench import trees
from tests.bench.contenders import SharedSsh, seconds
from tests.bench.sync_rig import Far, far_host

RUNS: Final = 5
STREAMS: Final = (1, 2, 4, 8)
TRANSFER_S: Final = 3
"""Each transfer is about as large as one stream brings over in this time."""

_NEAR_BYTES_S: Final = 300 * trees.MIB
_PLAIN_BYTES: Final = 256 * trees.MIB
_WINDOW: Final = 2 * trees.MIB
"""What OpenSSH lets be on the way in a channel."""

_SINK: Final = """
import socket, threading
server = socket.create_server(("", 0))
print(server.getsockname()[1], flush=True)
def drain(connection):
    while connection.recv(1 << 20):
        pass
    connection.sendall(b"k")
while True:
    threading.Thread(target=drain, args=server.accept()[:1], daemon=True).start()
"""


def median_ms(act: Callable[[], float]) -> str:
    """How long something takes, once it has been done before."""
    act()
    return f"{1000 * statistics.median(act() for _ in range(RUNS)):.0f} ms"


def throughput(far: Far, streams: int) -> str:
    """MB/s of ``cat`` over so many open connections at once."""
    rate = _WINDOW / far.rtt_s if far.rtt_s else _NEAR_BYTES_S / streams
    size = int(rate * TRANSFER_S)
    with ExitStack() as stack:
        connections = [stack.enter_context(SharedSsh(far)) for _ in range(streams)]
        for each in connections:
            each.run("true")
        scripts = [
            f"head -c {size} /dev/zero | {' '.join(each.words)} far 'cat >/dev/null'" for each in connections
        ]
        began = time.perf_counter()
        running = [stack.enter_context(subprocess.Popen(["sh", "-c", script])) for script in scripts]
        assert max(each.wait() for each in running) == 0
        took_s = time.perf_counter() - began
    return f"{streams * size / took_s / 1e6:.0f} MB/s"


def plain_throughput(far: Far, streams: int) -> str:
    """MB/s over so many connections of TCP alone."""
    data = bytes(trees.MIB)
    with subprocess.Popen(far.ssh("far", f"python3 -c '{_SINK}'"), stdout=subprocess.PIPE) as sink:
        assert sink.stdout is not None
        address = (far.host.host, int(sink.stdout.readline()))

        def send(number: int) -> None:
            with socket.create_connection(address) as connection:
                for _ in range(_PLAIN_BYTES // streams // len(data)):
                    connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)

        began = time.perf_counter()
        with ThreadPoolExecutor(streams) as senders:
            list(senders.map(send, range(streams)))
        took_s = time.perf_counter() - began
        sink.kill()
    return f"{_PLAIN_BYTES / took_s / 1e6:.0f} MB/s"


def start_up() -> Iterator[tuple[str, str]]:
    """What it costs to begin, here."""
    for code in (
        "pass",
        "import sqlite3",
        "import asyncio",
        "import typer",
        "import pydantic",
        "import paramiko",
    ):
        yield f"`python -c {code!r}`", median_ms(lambda code=code: seconds([sys.executable, "-c", code]))  # type: ignore[misc]
    for words in (["--version"], ["ps"]):
        command = [sys.executable, "-m", "gpucloud", *words]
        yield f"`gpucloud {' '.join(words)}`", median_ms(lambda command=command: seconds(command))  # type: ignore[misc]


def connection(far: Far) -> Iterator[tuple[str, str]]:
    """What OpenSSH makes of the line."""
    where = f"{far.rtt_s * 1000:.0f} ms: "
    yield f"{where}`ssh HOST true`, a new connection", median_ms(lambda: seconds(far.ssh("far", "true")))
    with SharedSsh(far) as ssh:
        yield f"{where}the same over a ControlMaster", median_ms(lambda: ssh.run("true"))
        yield f"{where}`python3 -c pass` over it", median_ms(lambda: ssh.run("python3 -c pass"))
    for streams in STREAMS[::3]:
        yield f"{where}plain TCP, {streams} at once", plain_throughput(far, streams)
    if far.rtt_s:
        with far.close_by():
            yield f"{where}plain TCP over the line without its delay", plain_throughput(far, 1)
    for streams in STREAMS:
        yield f"{where}`ssh HOST 'cat >/dev/null'`, {streams} at once", throughput(far, streams)


def files(folder: Path) -> Iterator[tuple[str, str]]:
    """What it costs to write and to look at 20,000 files, in memory."""
    trees.small_files(folder / "tree")
    packed = folder / "tree.tar"
    yield (
        "`tar -c` of 20,000 files, 120 MB",
        median_ms(lambda: seconds(["tar", "-cf", str(packed), "-C", str(folder / "tree"), "."])),
    )

    def unpack() -> float:
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir()
        return seconds(["tar", "-xpf", str(packed), "-C", str(folder / "out")])

    yield "`tar -x` of them", median_ms(unpack)
    yield (
        "`find -newer` over them",
        median_ms(lambda: seconds(["find", str(folder / "tree"), "-newer", "/etc/passwd"])),
    )
    yield "`gzip -1` of the archive", median_ms(lambda: seconds(["gzip", "-1", "-kf", str(packed)]))
    if shutil.which("zstd"):
        yield "`zstd -1` of the archive", median_ms(lambda: seconds(["zstd", "-1", "-qkf", str(packed)]))


def rows(folder: Path) -> Iterator[tuple[str, str]]:
    """All of it."""
    yield from start_up()
    yield from files(folder)
    for rtt_ms in (0, 50, 150):
        with far_host(rtt_ms, folder / f"host{rtt_ms}") as far:
            yield from connection(far)


def main() -> None:
    """Print the table."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        sys.stdout.write("| what | median |\n|---|---|\n")
        for what, took in rows(Path(folder)):
            sys.stdout.write(f"| {what} | {took} |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
