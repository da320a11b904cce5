"""What is sent in the benches: the same bytes each time, for the same version of Python."""

from __future__ import annotations

import math
import os
import random
import stat
from functools import cache
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
BIG_NAME: Final = "checkpoint.bin"

_SEED: Final = 7
_FOLDERS_PER_FILE: Final = 0.04
_BINARY: Final = 0.12
"""So many of the files do not compress, as images and archives among sources do not."""

_USUAL_BYTES: Final = 3900
_SPREAD: Final = 0.92
"""Of the logarithm: sizes of files in repositories; with the usual size they are 6,000 bytes on average."""

_MTIME: Final = 1_700_000_000
_TEXT: Final = (".py", ".py", ".md", ".json", ".yaml", ".c", ".h", ".js", ".txt")
_OTHER: Final = (".png", ".gz", ".npy")
_WORDS: Final = ("train", "eval", "layer", "config", "module", "test", "index", "util", "data", "core", "api")


def small_files(root: Path, count: int = 20_000) -> None:
    """A new folder of ``count`` files, 6 kB each on average: slices of Python's library, and some noise."""
    chance = random.Random(_SEED)
    corpus = _corpus()
    folders = [root]
    for number in range(max(1, int(count * _FOLDERS_PER_FILE))):
        above = chance.choice(folders)
        if len(above.relative_to(root).parts) > 5:
            above = root
        folders.append(above / f"{chance.choice(_WORDS)}_{number:03d}")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        size = max(60, int(chance.lognormvariate(math.log(_USUAL_BYTES), _SPREAD)))
        binary = chance.random() < _BINARY
        begin = chance.randrange(len(corpus) - size)
        data = chance.randbytes(size) if binary else corpus[begin : begin + size]
        name = f"{chance.choice(_WORDS)}_{number:05d}{chance.choice(_OTHER if binary else _TEXT)}"
        file = chance.choice(folders) / name
        file.write_bytes(data)
        os.utime(file, (_MTIME + number, _MTIME + number))


def big_file(root: Path, size: int) -> None:
    """A new folder with one file of random bytes in it."""
    chance = random.Random(_SEED)
    root.mkdir(parents=True)
    with (root / BIG_NAME).open("wb") as file:
        for begin in range(0, size, MIB):
            file.write(chance.randbytes(min(MIB, size - begin)))


def many_files(root: Path, count: int = 1_000_000) -> None:
    """A new folder of tiny files, a thousand in each folder of it."""
    for number in range(count):
        folder = root / f"{number // 1000:04d}"
        if number % 1000 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number:07d}").write_text(str(number))


def change_one(root: Path, number: int) -> None:
    """Write one of the files anew, another one for each number: as long as it was, and a little later."""
    text = [file for file in _files(root) if file.suffix == ".py"]
    file = text[number * 7919 % len(text)]
    data = bytearray(file.read_bytes())
    data[: len(data) // 2] = random.Random(number).randbytes(len(data) // 2)
    file.write_bytes(data)


def change_big(root: Path, number: int) -> None:
    """Write a MiB of the big file anew, somewhere else for each number."""
    file = root / BIG_NAME
    chance = random.Random(number)
    with file.open("r+b") as out:
        out.seek(chance.randrange(max(1, file.stat().st_size - MIB)))
        out.write(chance.randbytes(MIB))


def differences(one: Path, other: Path, *, marks: bool = True) -> list[str]:
    """What is not the same in two trees: names, kinds, sizes and every byte; ``marks`` are modes and times.

    Times are compared to the second.
    """
    here, there = _listing(one, marks), _listing(other, marks)
    odd = [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
    files = (name for name, (kind, *_) in here.items() if stat.S_ISREG(kind) and name not in odd)
    return sorted([*odd, *(name for name in files if not _same_bytes(one / name, other / name))])


def _listing(root: Path, marks: bool) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for file in root.rglob("*"):
        status = file.lstat()
        found[str(file.relative_to(root))] = (stat.S_IFMT(status.st_mode),)
        if stat.S_ISREG(status.st_mode):
            # Those of folders are nobody's concern: each file that comes changes them.
            marked = (stat.S_IMODE(status.st_mode), int(status.st_mtime)) if marks else ()
            found[str(file.relative_to(root))] += (status.st_size, *marked)
    return found


def _same_bytes(one: Path, other: Path) -> bool:
    with one.open("rb") as here, other.open("rb") as there:
        while data := here.read(MIB):
            if data != there.read(MIB):
                return False
        return not there.read(1)


def _files(root: Path) -> list[Path]:
    return sorted(file for file in root.rglob("*") if file.is_file())


@cache
def _corpus() -> bytes:
    """Source text: Python's own library, some 30 MB, so that few of the slices have much in common."""
    library = Path(os.__file__).parent
    sources = sorted(file for file in library.rglob("*.py") if "-packages" not in str(file))
    return b"".join(file.read_bytes() for file in sources)
