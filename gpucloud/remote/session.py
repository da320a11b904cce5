"""One conversation with the helper that a sync sends to a host: its modules first, then frames both ways."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, Protocol

from gpucloud.errors import SyncFailed
from gpucloud.remote.agent.frames import Broken, Frames
from gpucloud.remote.host import Host
from gpucloud.remote.streams import Reader, Writer

_PACKAGE: Final = "gpucloud.remote.agent"
# Each module gets its own name there, so that its imports read alike on both sides.
_LOADER: Final = """\
import os, sys, types
os.write(1, b"r\\0\\0\\0\\0")
for name, source in {sources!r}:
    module = sys.modules[name] = types.ModuleType(name)
    above, _, name = name.rpartition(".")
    if above: setattr(sys.modules[above], name, module)
    if not source: module.__path__ = []
    exec(compile(source, name, "exec"), module.__dict__)
sys.exit(module.main(sys.argv[1:]))
"""


class Conversation(Protocol):
    """Our side of it. What the methods raise ends it, and is raised by ``converse``."""

    def talk(self, frames: Frames, /) -> None:
        """Send all that there is to say; called in a thread of its own, and may wait for ``listen``."""

    def listen(self, frames: Frames, /) -> None:
        """Take all that the host says, to the end."""

    def hang_up(self) -> None:
        """``listen`` is over, or will never be called: what ``talk`` waits for does not come any more."""


def converse(host: Host, modules: Sequence[str], words: Sequence[str], ours: Conversation) -> bool:
    """Run the helper made of these modules of ``agent``, of which the last has ``main(words)``.

    Returns ``False`` when the host has no Python that can run it; then ``listen`` was not called.

    Raises:
        SyncFailed: when the helper failed, or said what makes no sense.
    """
    program = _program(modules)

    def feed(out: Writer) -> None:
        out.write(b"%d\n" % len(program) + program)
        ours.talk(Frames(_nothing, out.write))

    def consume(source: Reader) -> None:
        frames = Frames(source.read, _refused)
        try:
            # Its first frame says no more than that it runs.
            if frames.receive()[0]:
                ours.listen(frames)
        finally:
            ours.hang_up()

    try:
        return host.agent(words, stdin=feed, consume=consume)
    except Broken as error:
        raise SyncFailed(
            f"{host.label} says what is no answer",
            why=str(error),
            hint="try again, or look with gpucloud ssh",
        ) from error


def _nothing(_size: int) -> bytes:
    return b""


def _refused(_data: bytes) -> None:
    raise AssertionError("the listening side says nothing")


def _program(modules: Sequence[str]) -> bytes:
    folder = files(_PACKAGE)
    above = _PACKAGE.split(".")
    sources = [(".".join(above[:end]), "") for end in range(1, len(above) + 1)]
    sources += [
        (f"{_PACKAGE}.{name}", folder.joinpath(f"{name}.py").read_text(encoding="utf-8")) for name in modules
    ]
    return zlib.compress(_LOADER.format(sources=sources).encode(), 9)
