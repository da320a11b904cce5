"""One normaliser from every vendor's spelling of an accelerator to (chip, memory, form factor).

A text is cut into words; each word is a size, a socket, a memory type, a count or a name. The longest run
of names that the alias table knows is the chip, and the GPU table says what else is certain of it. What
neither the text nor the caller nor the table determines stays unknown. A chip that nobody knows keeps the
vendor's own words, so that it is seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Final, NamedTuple

from gpucloud.catalog.gpus import GpuFacts, by_chip, nearest, table
from gpucloud.model import FORM_FACTORS, Gpu, GpuWish, fold

ALIASES: Final[Mapping[str, str]] = {
    # What a maker, a shop or a person says instead of the name in the table; folded, as ``fold`` does.
    "b200sxm6": "B200",
    "rtx4000adasff": "RTX4000SFFAda",
    "rtxada6000": "RTX6000Ada",
    "ada6000": "RTX6000Ada",
    "rtxp6000": "RTXPRO6000",
    "pro6000": "RTXPRO6000",
    "rtx6000pro": "RTXPRO6000",
    "rtxpro6000b": "RTXPRO6000",
    "rtxproserver6000": "RTXPRO6000",
    "radeonv520": "RadeonProV520",
    "v520": "RadeonProV520",
    "v5e": "TPUv5e",
    "v5lite": "TPUv5e",
    "v5litepod": "TPUv5e",
    "tpuv5lite": "TPUv5e",
    "tpuv5litepod": "TPUv5e",
    "tpulitedevicev5": "TPUv5e",
    "tpulitepodslicev5": "TPUv5e",
    "v5p": "TPUv5p",
    "v6e": "TPUv6e",
    "tpuv6": "TPUv6e",
    "ct3": "TPUv3",
    "ct3p": "TPUv3",
    "ct4p": "TPUv4",
    "ct5l": "TPUv5e",
    "ct5lp": "TPUv5e",
    "ct5p": "TPUv5p",
    "ct6e": "TPUv6e",
    "tpupodslicev4": "TPUv4",
    "tpu7x": "TPUv7",
    "tpuv7x": "TPUv7",
    "ironwood": "TPUv7",
    "trillium": "TPUv6e",
    "trainium": "Trainium1",
    "trn1": "Trainium1",
    "trn1n": "Trainium1",
    "trn2": "Trainium2",
    "trn2u": "Trainium2",
    "trn3": "Trainium3",
    "inferentia": "Inferentia1",
    "inf1": "Inferentia1",
    "inf2": "Inferentia2",
    "gaudi": "Gaudi1",
    "gaudihl205": "Gaudi1",
    "hl205": "Gaudi1",
    "gaudihl225": "Gaudi2",
    "hl225": "Gaudi2",
    "hl325": "Gaudi3",
    "hl325l": "Gaudi3",
    "hl338": "Gaudi3",
}

WEAK: Final = {"a2", "p4", "t4g"}
"""Names of chips that are names of machine families, too: they count only alone or beside their maker."""

MAKERS: Final = {"nvidia", "tesla", "amd", "radeon", "instinct"}

BOARDS: Final = {("GH200", 480): 96, ("GH200", 576): 96, ("GH200", 624): 141}
"""Boards named after the processor's memory, or the sum of both: 480 GB and 480 + 96 or 480 + 144 GB."""

_WORD = re.compile(r"(\.?)([A-Za-z0-9]+)")
_SLICE = re.compile(r"\b[0-9]g\.([1-9][0-9]{0,2})gb\b", re.IGNORECASE)
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=[A-Z][a-z])")
_SIZE = re.compile(r"([0-9]{1,5})(?:gb|gib|g)")
_SOCKET = re.compile(r"(sxm|pcie|nvl|oam)[0-9]?(?:gdr)?")
_COUNT = re.compile(r"([0-9]{1,3})x|x([0-9]{1,3})|([0-9]{1,2})gpus?")
_COUNT_FIRST = re.compile(r"([0-9]{1,3})x(.+)")
_COUNT_LAST = re.compile(r"(.*[0-9].*?)x([0-9]{1,2})")
_COUNT_AFTER_X = re.compile(r"(.*x)([0-9]{1,2})")
_WITH_SOCKET = re.compile(r"(.+?)((?:sxm|pcie|nvl|oam)[0-9]?)")
_WITH_FABRIC = re.compile(r"(.+)(?:ib|gdr)")
_TPU_SLICE = re.compile(r"(v[0-9](?:e|p|litepod))([0-9]{1,4})")
_TPU_CORES = re.compile(r"(v[2-4])[0-9]{1,4}")
_MEMORY_TYPE = re.compile(r"hbm[0-9]?e?|gddr[0-9]x?")
_NEW_CHIP = re.compile(r"(?:gb|gh|gr|vr|mi|[abhklmprtv])[1-9][0-9]{2}[a-z]?")
_FAMILY = re.compile(
    r"nvidia|geforce|rtx|gtx|quadro|tesla|titan(?!i)|radeon|instinct|gaudi|trainium|inferentia|^tpu|ascend[0-9]"
)
_NUMBERLESS = re.compile(r"titan(?!i)|radeon")
_HINTS = MAKERS | {"gpu", "gpus", "hgx", "dgx"}
_HINT_FAMILY = re.compile(r"n[cdv][0-9]+[a-z]*")
_UNITS = {"gb", "gib", "ram"}
_PREFIXES = {"nvidia", "amd", "intel", "geforce"}


class _Part(NamedTuple):
    """One word, read. ``kind``: name, number, dotted (a number after a dot), size, count, socket or type."""

    kind: str
    text: str
    number: int = 0


@dataclass(slots=True)
class _Reading:
    """What a text says, before the table is asked. ``spelt`` keeps the vendor's own words."""

    names: list[_Part] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    form_factor: str | None = None
    memory_type: str | None = None
    gpus: int = 1
    spelt: list[str] = field(default_factory=list)


class _Said(NamedTuple):
    """What a text and its caller say of a chip; ``sizes`` are memories for certain, ``maybe`` may be."""

    form_factor: str | None
    hint: str | None
    memory_type: str | None
    sizes: tuple[int, ...]
    maybe: tuple[int, ...]
    gpus: int
    memory_gib: int | None


def normalise(text: str, *, memory_gib: int | Decimal | None = None) -> Gpu | None:
    """The accelerator that ``text`` names: ``gpu_8x_a100_80gb_sxm4`` is ``A100-SXM-80``.

    ``memory_gib`` is the memory of one accelerator where the vendor states it beside the name; it is
    stronger than the text. A figure within the tolerance of one in the table becomes that one (a ``B200``
    with 192, 180 or 179 is ``B200-SXM-180``); any other stays as it is, in sight. ``None`` for a text that
    names no accelerator. Never raises, and reads ``str`` of its answer as the same answer.
    """
    return _normalise(text, _to_gib(memory_gib))


def named(text: str, *, memory_gib: int | Decimal | None = None) -> Gpu:
    """As ``normalise``, but a GPU that nobody knows keeps the vendor's words, so that it is seen.

    Raises:
        ValueError: when there are no words.
    """
    known = normalise(text, memory_gib=memory_gib)
    return known or replace(Gpu.parse(text), memory_gib=_to_gib(memory_gib))


def parse_wish(text: str) -> GpuWish:
    """What a person asks for, under the name that offers have: ``A6000`` is ``RTXA6000``.

    What was not typed, memory or form factor, stays open. Raises ``ValueError`` as ``GpuWish.parse`` does.
    """
    wish = GpuWish.parse(text)
    known = normalise(text.partition(":")[0])
    if wish.gpu is None or known is None:
        return wish
    gpu = Gpu(
        known.chip,
        known.memory_gib if wish.gpu.memory_gib else None,
        # A chip that is sold in one form only has none in its name.
        wish.gpu.form_factor if known.form_factor else None,
    )
    return replace(wish, gpu=gpu)


@lru_cache(maxsize=16_384)
def _normalise(text: str, memory_gib: int | None) -> Gpu | None:
    gpu = _once(text, memory_gib)
    # The vendor's words, joined, may read as something shorter or known: settle on what stays the same.
    while gpu is not None and not _in_table(gpu) and (again := _once(str(gpu), None)) != gpu:
        gpu = again
    return gpu


def _in_table(gpu: Gpu) -> bool:
    return fold(gpu.chip) in by_chip()


def _once(text: str, memory_gib: int | None) -> Gpu | None:
    reading = _read(text)
    gpu = _known(reading, memory_gib)
    if gpu is None and (spaced := _CAMEL.sub(" ", text)) != text:
        gpu = _known(_read(spaced), memory_gib)
    return gpu or _unknown(reading, memory_gib)


def _to_gib(memory_gib: int | Decimal | None) -> int | None:
    if memory_gib is None or not Decimal(memory_gib).is_finite() or not 0 < memory_gib < 100_000:
        return None
    return int(Decimal(memory_gib).to_integral_value(ROUND_HALF_UP)) or None


@lru_cache(maxsize=1)
def _aliases() -> Mapping[str, str]:
    """Every folded spelling of a chip, the table's own included."""
    found = dict(ALIASES)
    for row in table():
        name = fold(row.chip)
        found[name] = row.chip
        short = name.removeprefix("rtx")
        # A6000, 4090, 6000 Ada; but 6000 alone, a Quadro, is said of four cards.
        if re.fullmatch(r"a[0-9]{4}|[0-9]{4}ada|[2-9]0[0-9]{2}(?:ti|d|super|tisuper)?", short):
            found.setdefault(short, row.chip)
    for ambiguous in ("4000", "5000", "6000", "8000"):
        found.pop(ambiguous, None)
    return found


@lru_cache(maxsize=1)
def _longest_alias() -> int:
    return max(map(len, _aliases()))


def _read(text: str) -> _Reading:
    reading = _Reading()
    if "g." in text.casefold() and (piece := _SLICE.search(text)):
        # A part of a GPU: its own memory counts, not that of the whole.
        text = f"{text[: piece.start()]} {text[piece.end() :]}"
        _take(reading, _Part("size", piece[0], int(piece[1])), piece[0], "")
    for dot, word in _WORD.findall(text):
        for part in _parts(word.lower()):
            _take(reading, part, word, dot)
    return reading


def _take(reading: _Reading, part: _Part, word: str, dot: str) -> None:
    kind, text, number = part
    if kind == "name" and text not in _UNITS:
        reading.names.append(part)
        reading.spelt.append(word if len(word) == len(text) else text)
    elif kind == "number":
        # What follows a dot is a count or a version: VM.GPU.A10.2
        reading.names.append(_Part("dotted", text, number) if dot else part)
        reading.spelt.append(text)
    elif kind == "size" and number:
        reading.sizes.append(number)
        reading.spelt.append(f"{number}GB")
    elif kind == "socket":
        reading.form_factor = FORM_FACTORS[text.upper()]
        reading.spelt.append(reading.form_factor)
    elif kind == "type":
        reading.memory_type = text
    elif kind == "count":
        reading.gpus = number or 1
    elif kind == "name" and text == "ram" and reading.sizes and reading.spelt[-1].endswith("GB"):
        # 125GB RAM is the machine's.
        reading.sizes.pop()
        reading.spelt.pop()
    elif kind == "name" and text != "ram" and reading.names and reading.names[-1].kind == "number":
        number = reading.names.pop().number
        reading.spelt.pop()
        _take(reading, _Part("size", text, number), word, dot)


@lru_cache(maxsize=16_384)
def _parts(word: str) -> tuple[_Part, ...]:
    """Read one lower-case word, which may hold a name and a count: ``h100x8``, ``8xh100ib``, ``sxm5gdr``."""
    aliases = _aliases()
    if word in aliases and not word.isdecimal():
        return (_Part("name", word),)
    if word.isdecimal():
        return (_Part("number", word, int(word)),) if len(word) <= 5 else (_Part("name", word),)
    if match := _SIZE.fullmatch(word):
        return (_Part("size", word, int(match[1])),)
    if match := _SOCKET.fullmatch(word):
        return (_Part("socket", match[1]),)
    if _MEMORY_TYPE.fullmatch(word):
        return (_Part("type", word),)
    if match := _COUNT.fullmatch(word):
        return (_Part("count", word, int(match[1] or match[2] or match[3])),)
    if match := _COUNT_FIRST.fullmatch(word):
        return (_Part("count", match[1], int(match[1])), *_parts(match[2]))
    if (match := _COUNT_AFTER_X.fullmatch(word)) and match[1] in aliases:
        return (_Part("name", match[1]), _Part("count", match[2], int(match[2])))
    if match := _COUNT_LAST.fullmatch(word):
        return (*_parts(match[1]), _Part("count", match[2], int(match[2])))
    if match := _TPU_SLICE.fullmatch(word):
        return (_Part("name", match[1]),)
    if (match := _WITH_SOCKET.fullmatch(word)) and match[1] in aliases:
        return (_Part("name", match[1]), *_parts(match[2]))
    if (match := _WITH_FABRIC.fullmatch(word)) and match[1] in aliases:
        return (_Part("name", match[1]),)
    return (_Part("name", word),)


def _known(reading: _Reading, memory_gib: int | None) -> Gpu | None:
    names = reading.names
    words = [part.text for part in names]
    if _is_tpu_type(names):
        words[0] = f"tpu{words[0]}"
    elif any(word.startswith("tpu") for word in words):
        words = [(match[1] if (match := _TPU_CORES.fullmatch(word)) else word) for word in words]
    found = _find(words, names)
    if found is None:
        return None
    chip, start, end = found
    numbers = [part for part in names[end:] if part.kind != "name" and part.number]
    # One bare number after the chip and nothing else is a memory: the way a Gpu is written.
    alone = len(numbers) == 1 == len(names) - (end - start) and numbers[0].kind == "number"
    sizes = (*reading.sizes, *(part.number for part in numbers)) if alone else tuple(reading.sizes)
    maybe = () if alone else tuple(part.number for part in numbers)
    hint = "SXM" if "hgx" in words else None
    said = _Said(reading.form_factor, hint, reading.memory_type, sizes, maybe, reading.gpus, memory_gib)
    return _describe(chip, said)


def _is_tpu_type(names: Sequence[_Part]) -> bool:
    """Whether the text is ``v3-8``: a generation of which only the number of cores shows that it is a TPU."""
    return len(names) == 2 and names[0].text in {"v2", "v3", "v4"} and names[1].kind == "number"


def _find(words: Sequence[str], names: Sequence[_Part]) -> tuple[str, int, int] | None:
    """The first and longest run of words that is a chip: its name, and where it starts and ends."""
    aliases, longest = _aliases(), _longest_alias()
    for start, first in enumerate(words):
        joined, spelling, stop = "", "", start
        for end in range(start, len(words)):
            # After a digit a bare number is no part of the name: the 0 in L4-0.
            if joined and names[end].kind != "name" and not joined.isalpha():
                break
            joined += words[end]
            if len(joined) > longest:
                break
            if joined in aliases:
                spelling, stop = joined, end + 1
        if not spelling:
            continue
        if spelling in WEAK or spelling.isdecimal():
            others = {part.text for part in names if part.kind == "name"} - {first}
            if others and (spelling.isdecimal() or MAKERS.isdisjoint(others)):
                continue
        return aliases[spelling], start, stop
    return None


@lru_cache(maxsize=4096)
def _describe(chip: str, said: _Said) -> Gpu:
    """``chip`` with all that ``said`` and the table determine of it, and no more."""
    every = by_chip()[fold(chip)]
    forms = {row.form_factor for row in every}
    form_factor = said.form_factor or (said.hint if said.hint in forms else None)
    if forms == {None}:
        form_factor = None
    rows = [row for row in every if form_factor in (None, row.form_factor)]
    rows = [row for row in rows if _may_have(row, said.memory_type)] or rows
    memory: int | None = None
    if not chip.startswith("TPU"):
        # A number beside a TPU is one of cores or chips, and each generation has one size.
        memory = _memory(chip, said, {row.memory_gib for row in rows or every if row.memory_gib})
    if memory is None and len({row.memory_gib for row in rows}) == 1:
        memory = rows[0].memory_gib
    fitting = {row.form_factor for row in rows if memory in (None, row.memory_gib)}
    if form_factor is None and len(fitting) == 1:
        form_factor = fitting.pop()
    return Gpu(chip, memory, form_factor)


def _may_have(row: GpuFacts, memory_type: str | None) -> bool:
    return memory_type is None or row.memory_type is None or row.memory_type.lower() == memory_type


def _memory(chip: str, said: _Said, sold: Set[int]) -> int | None:
    """The memory of one GPU: the figure ``sold`` that is meant, else what is said, else ``None``."""
    # Four times the most that is sold cannot be a GPU's memory: it is that of the machine.
    limit = 4 * max(sold, default=100_000)
    if said.memory_gib is not None and said.memory_gib <= limit:
        return nearest(said.memory_gib, sold) or said.memory_gib
    for size in (*said.sizes, *said.maybe):
        known = nearest(size, sold) or BOARDS.get((chip, size))
        if known:
            return known
        whole = nearest(size, {figure * said.gpus for figure in sold})
        if whole:
            return whole // said.gpus
    return next((size for size in said.sizes if size <= limit), None)


def _unknown(reading: _Reading, memory_gib: int | None) -> Gpu | None:
    words = [part.text for part in reading.names if part.kind == "name"]
    hinted = not _HINTS.isdisjoint(words) or any(map(_HINT_FAMILY.fullmatch, words))
    for part in reading.names:
        if part.kind == "name" and _NEW_CHIP.fullmatch(part.text) and (hinted or words == [part.text]):
            after = reading.names[reading.names.index(part) + 1 :]
            bare = [later.number for later in after if later.kind == "number" and later.number]
            memory = next(iter([*reading.sizes, *(bare if len(words) == 1 else [])]), None)
            return Gpu(part.text.upper(), memory_gib or memory, reading.form_factor)
    own = [word for word in reading.spelt if word.lower() not in _PREFIXES]
    if not _names_a_family(own):
        own = reading.spelt
    if not _names_a_family(own):
        return None
    try:
        gpu = Gpu.parse("-".join(word for word in own if word.strip("0")))
    except ValueError:
        return None
    return Gpu(gpu.chip, memory_gib or gpu.memory_gib, gpu.form_factor)


def _names_a_family(words: Sequence[str]) -> bool:
    lower = [word.lower() for word in words]
    if any(map(_NUMBERLESS.search, lower)):
        return True
    numbered = any(letter.isdigit() for word in lower for letter in word)
    return numbered and any(map(_FAMILY.search, lower))
