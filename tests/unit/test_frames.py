"""The frames that both sides of a sync speak, and the programs that are sent to a host."""

from __future__ import annotations

import ast
import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpucloud.remote.agent import frames
from gpucloud.remote.agent.frames import LIMIT, Broken, Frames, inflate
from gpucloud.remote.agent.manifest import FILE, FOLDER, digest, encode, row
from gpucloud.remote.contents import MODULES
from gpucloud.remote.session import _program

AGENT = Path(frames.__file__).parent

kinds = st.binary(min_size=1, max_size=1)
messages = st.lists(st.tuples(kinds, st.lists(st.binary(max_size=50), max_size=3)), max_size=6)


class Dribble(io.BytesIO):
    """Gives a few bytes at a time, as pipes do."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(size or 0, 3))


@given(said=messages)
def test_frames_are_heard_as_they_were_said(said: list[tuple[bytes, list[bytes]]]) -> None:
    wire = io.BytesIO()
    for kind, parts in said:
        Frames(wire.read, wire.write).send(kind, *parts)
    for stream in (io.BytesIO(wire.getvalue()), Dribble(wire.getvalue())):
        hearing = Frames(stream.read, wire.write)
        for kind, parts in said:
            assert hearing.receive() == (kind, b"".join(parts))
        assert hearing.receive() == (b"", b"")


def test_a_long_frame_is_heard_whole() -> None:
    wire = io.BytesIO()
    data = os.urandom(3_000_000)
    Frames(wire.read, wire.write).send(b"b", b"head", data)
    assert Frames(io.BytesIO(wire.getvalue()).read, wire.write).receive() == (b"b", b"head" + data)


@given(noise=st.binary(min_size=1, max_size=100))
def test_what_is_no_frame_is_refused(noise: bytes) -> None:
    hearing = Frames(io.BytesIO(noise).read, lambda data: None)
    heard = 0
    with pytest.raises(Broken):
        while True:
            kind, data = hearing.receive()
            heard += len(kind) + len(data)
            assert heard <= len(noise)
            if not kind:
                raise Broken


def test_a_frame_that_announces_too_much_is_refused_before_it_is_read() -> None:
    head = frames.HEADER.pack(b"x", LIMIT + 1)
    with pytest.raises(Broken, match="bytes"):
        Frames(io.BytesIO(head).read, lambda data: None).receive()


@given(data=st.binary(max_size=300), noise=st.binary(min_size=1, max_size=5))
def test_only_what_is_as_long_as_it_may_be_is_inflated(data: bytes, noise: bytes) -> None:
    packed = zlib.compress(data)
    assert inflate(packed, max(1, len(data))) == data
    with pytest.raises(Broken):
        inflate(packed[:-1], LIMIT)
    with pytest.raises(Broken):
        inflate(zlib.compress(bytes(1_000_000)), 1000)


@pytest.mark.parametrize("file", sorted(AGENT.glob("*.py")), ids=lambda file: file.name)
def test_what_runs_on_a_host_is_python_3_7(file: Path) -> None:
    ast.parse(file.read_text(), feature_version=(3, 7))


def helper(root: Path, said: bytes) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """The helper as a host runs it, on whatever is said to it; its status, its complaints, its answers."""
    (root / "sent").mkdir(parents=True, exist_ok=True)
    boot = "import sys, zlib; take = sys.stdin.buffer; exec(zlib.decompress(take.read(int(take.readline()))))"
    program = _program(MODULES)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", boot, str(root), "key", "work"],
        input=b"%d\n" % len(program) + program + said,
        capture_output=True,
        check=False,
    )
    hearing = Frames(io.BytesIO(done.stdout).read, lambda data: None)
    heard = []
    while (one := hearing.receive())[0]:
        heard.append(one)
    return done.returncode, done.stderr, heard


def said(*messages: tuple[bytes, bytes]) -> bytes:
    wire = io.BytesIO()
    for kind, data in messages:
        Frames(wire.read, wire.write).send(kind, data)
    return wire.getvalue()


@pytest.mark.parametrize("path", [b"../out", b"/tmp/out", b"a/../../out", b"..", b"", b"link/out", b"a\0b"])
@pytest.mark.parametrize("kind", [b"f", b"x", b"t", b"c", b"o"])
def test_a_path_that_leads_out_of_the_target_is_refused(tmp_path: Path, path: bytes, kind: bytes) -> None:
    root = tmp_path / "root"
    (root / "work").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "out").write_bytes(b"theirs")
    (root / "work" / "link").symlink_to(tmp_path / "elsewhere")
    (root / "out").write_bytes(b"theirs")
    part = b"part-0\0"
    data = {
        b"f": row(path, FILE | 0o644, 4, 1) + b"ours",
        b"x": path,
        b"t": row(path, FILE | 0o600, 6, 1),
        b"c": part + row(path, FILE | 0o600, 6, 1),
        b"o": part + path,
    }[kind]
    status, complaints, _ = helper(root, said((b"h", b""), (b"g", b""), (kind, data), (b".", b"")))
    assert (status, complaints) == (0, b"")
    assert (root / "out").read_bytes() == b"theirs"
    assert (tmp_path / "elsewhere" / "out").read_bytes() == b"theirs"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "root"]


@settings(max_examples=25)
@given(noise=st.binary(max_size=60), kind=st.sampled_from(b"hipxfztobBcqg."))
def test_nonsense_is_answered_and_never_a_traceback(noise: bytes, kind: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _, complaints, _ = helper(Path(folder), said((b"h", b""), (b"g", b""), (bytes([kind]), noise)))
    assert complaints == b""


def test_a_manifest_that_lies_costs_only_time(tmp_path: Path) -> None:
    listing = {b"": row(b"gone", FILE | 0o644, 1, 1) + row(b"dir", FOLDER | 0o755, 0, 0)}
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "key").write_bytes(encode(listing))
    status, complaints, heard = helper(tmp_path, said((b"h", digest(listing)), (b".", b"")))
    assert (status, complaints) == (1, b"")
    assert heard[-1][0] == b"~"
