"""How much GPU memory a job needs, with the arithmetic shown, and which GPUs have it.

All of it is an estimate for a dense transformer language model of which only the size is known. What is
assumed is written in the lines of the answer; where it is wrong for a model, the line can be redone by hand.
Every part is rounded up to 0.1 GiB.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from fractions import Fraction
from itertools import count as numbers
from typing import Final

from gpucloud.catalog.gpus import GpuFacts
from gpucloud.model import Gpu

GIB: Final = 1024**3
"""Bytes in a GiB."""

BILLION: Final = 10**9

COUNTS: Final = (1, 2, 4, 8)
"""How many GPUs instances are sold with, mostly."""

FEWEST_PARAMETERS: Final = 50 * 10**6
MOST_PARAMETERS: Final = 10**15
MOST_TOKENS: Final = 10**9
"""Below the first everything is rounding; beyond the others nobody can mean it."""

TRAINED_BYTES: Final = 16
"""For each trained parameter, in mixed precision with Adam: weights 2, gradients 2, and in fp32 a copy of the
weights 4 and Adam's two moments 8. In fp32 it is the same sum: 4, 4 and 8.

Source: Rajbhandari et al., ZeRO, arXiv:1910.02054, section 3.1 (2 + 2 + 12 bytes), as quoted at
dev.to/narotra05hp/fine-tuning-a-7b-model-needs-112-gb (read 2026-11-21). Hugging Face, "Model training
anatomy" (huggingface.co/docs/transformers/model_memory_anatomy, read 2026-11-21) counts 18, for trainers that
keep gradients in fp32.
"""

STORED_BITS: Final = {4: Fraction(9, 2), 8: Fraction(8), 16: Fraction(16), 32: Fraction(32)}
"""Bits that a frozen weight takes, by the bits that are asked for. Four become 4.5: each block of 64 has a
constant of 32 bits.

Source: Dettmers et al., QLoRA, arXiv:2305.14314, section 3 (0.5 bits a parameter, or 0.127 when the constants
are quantized, too), as quoted by several readers of it (read 2026-11-21).
"""

VOCABULARY: Final = 128_256
"""Words of the vocabulary. An assumption: Llama 3's ("vocab_size" of its config.json, read 2026-11-21)."""

EMBEDDINGS: Final = 2
"""Tables of vocabulary x width, at the input and the output, that quantizing leaves in 16 bits. An
assumption: bitsandbytes replaces linear layers only and leaves out the last one
(huggingface.co/docs/bitsandbytes/v0.43.0/reference/quantization, read 2026-11-21).
"""

PARAMETERS_PER_LAYER: Final = 12
"""Times width squared. Source: Kaplan et al., Scaling Laws for Neural Language Models, arXiv:2001.08361,
section 2.1 (N = 12 x layers x width^2), as derived in github.com/newfacade/notes-on-llm (read 2026-11-21).
"""

WIDTH_PER_LAYER: Final = 128
"""Width of a model divided by its number of layers. An assumption: Llama 3 8B's, 4096 / 32
(apxml.com/models/llama-3-8b, read 2026-11-21). It is 102 for the 70B and 130 for the 405B model.
"""

HEADS_PER_CACHED_HEAD: Final = 4
"""Query heads that share a key and a value. An assumption: Llama 3 8B's, 32 / 8 (apxml.com/models/llama-3-8b,
read 2026-11-21). A model without grouped queries caches four times as much.
"""

RANK: Final = 64
"""Of LoRA adapters. An assumption, on the large side: many train with 8 or 16, which need as much less."""

ADAPTED_PER_LAYER: Final = 18
"""Adapter parameters of a layer for each unit of width and rank: a matrix of m x n gets rank x (m + n), and
a layer of 12 x width^2 has four of width x width and two of width x 4 width.

Source of the rule: Hu et al., LoRA, arXiv:2106.09685, section 4.1 (from memory, not read again). Checked with
Llama 3 8B and rank 64 on every linear layer: PEFT prints 167,772,160 (public training logs, read 2026-11-21),
this makes 181 million.
"""

KEPT_PER_LAYER: Final = 2
LIVE_LAYER: Final = 34
"""Bytes of activations for each token and unit of width: 2 at the input of each layer, which is all that
gradient checkpointing keeps, and 34 in the one layer that is being computed anew, with attention that never
holds its whole matrix (FlashAttention).

Source: Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, arXiv:2205.05198,
equations 2 and 6, as programmed in huggingface.co/spaces/nanotron/ultrascale-playbook (read 2026-11-21).
"""

LOGIT_BYTES: Final = 8
"""For each token and word: the logits and their probabilities in fp32. Source: vram.asmirnov.xyz (read
2026-11-21); arXiv:2411.09009 shows why it matters, and losses that are computed in chunks need less.
"""

CACHE_BYTES: Final = 2 * 2
"""Key and value, in 16 bits, for each cached token, layer and unit of width.

Source: 2 x layers x kv_heads x head_dim x tokens x bytes; docs.rs/crate/kv-cache-size (read 2026-11-21),
which for Llama 3.1 8B makes 128 KiB a token.
"""

INFERENCE_OVERHEAD: Final = Fraction(1, 5)
"""Of the weights, for what a forward pass needs beside them. Source: EleutherAI, Transformer Math 101
(blog.eleuther.ai/transformer-math, 2023-04-18), "up to an additional 20%" as Hugging Face's model memory
estimator quotes it (read 2026-11-21).
"""

KERNELS_MIB: Final = 1343
"""What CUDA's context and kernels take on each GPU before any work. Source: Hugging Face, "Model training
anatomy" (huggingface.co/docs/transformers/model_memory_anatomy, measured on a V100 in 2022, read 2026-11-21),
which also says that it may be 1 to 2 GB.
"""

_SCALE: Final = {"M": 10**6, "B": BILLION, "T": 10**12}


class Task(StrEnum):
    """What is done with the model."""

    QLORA = "qlora"
    LORA = "lora"
    FULL = "full"
    INFER = "infer"


BITS: Final = {Task.QLORA: (4, 8), Task.LORA: (16, 8, 32), Task.FULL: (16, 32), Task.INFER: (16, 4, 8, 32)}
"""The bits of a weight that make sense for each task; the first is what is meant without saying so."""


@dataclass(frozen=True, slots=True)
class Need:
    """How much GPU memory a job needs, in GiB.

    ``vram_gib`` is what it needs on one GPU. ``each_gib`` of that is needed again on every further GPU that
    it is spread over. ``lines`` are the steps that lead there, each with its numbers.
    """

    vram_gib: Decimal
    lines: tuple[str, ...]
    each_gib: Decimal = Decimal(0)

    def on(self, count: int) -> Decimal:
        """What ``count`` GPUs must have together."""
        return self.vram_gib + (count - 1) * self.each_gib


@dataclass(frozen=True, slots=True)
class Fit:
    """A set of equal GPUs that has enough memory; ``memory_gib`` is that of one of them."""

    gpu: Gpu
    count: int
    memory_gib: int

    @property
    def total_gib(self) -> int:
        """The memory of the set."""
        return self.count * self.memory_gib


@dataclass(frozen=True, slots=True)
class _Part:
    """One term of the sum; ``text`` names it and shows how it comes about."""

    text: str
    gib: Decimal

    @classmethod
    def of(cls, text: str, size: int | Fraction) -> _Part:
        """A term of ``size`` bytes."""
        tenths = -(-Fraction(size) * 10 // GIB)
        gib = Decimal(int(tenths)) / 10
        return cls(f"{text} = {gib:.1f} GiB", gib)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What is assumed of a model with that many parameters."""

    parameters: int
    layers: int

    @property
    def width(self) -> int:
        return self.layers * WIDTH_PER_LAYER

    @classmethod
    def of(cls, parameters: int) -> _Shape:
        """The fewest layers that hold so many parameters."""
        each = PARAMETERS_PER_LAYER * WIDTH_PER_LAYER**2
        return cls(parameters, next(n for n in numbers(1) if each * n**3 >= parameters))

    def __str__(self) -> str:
        return (
            f"model: {_count(self.parameters)} parameters, taken as {self.layers} layers of width"
            f" {self.width:,} ({PARAMETERS_PER_LAYER} x layers x width^2, width = {WIDTH_PER_LAYER} x layers)"
        )


def parse_parameters(text: str) -> int:
    """Read ``8B``, ``70B``, ``1.5T`` or ``350M``.

    Raises:
        ValueError: with a sentence that can be shown as it is.
    """
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s*([MBT])", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise ValueError(f"{text!r} is not a number of parameters; write 8B, 70B, 1.5T or 350M")
    parameters = int(Decimal(match[1]) * _SCALE[match[2].upper()])
    if not FEWEST_PARAMETERS <= parameters <= MOST_PARAMETERS:
        raise ValueError(f"{text!r} is not between 50M and 1000T parameters")
    return parameters


def parse_task(text: str) -> Task:
    """Read the name of a task. Raises ``ValueError`` with a sentence that can be shown as it is."""
    try:
        return Task(text.strip().lower())
    except ValueError:
        raise ValueError(f"{text!r} is not one of {', '.join(Task)}") from None


def stated(vram_gib: Decimal) -> Need:
    """The need of somebody who knows it. Raises ``ValueError`` when it is nothing."""
    if vram_gib <= 0:
        raise ValueError(f"{vram_gib} GiB of memory is no need")
    line = f"need: {vram_gib.normalize():f} GiB as stated, on one GPU or on several together"
    return Need(vram_gib, (line,))


def need(
    parameters: int, task: Task, *, bits: int | None = None, context: int = 2048, batch: int = 1
) -> Need:
    """What ``task`` needs with a model of so many ``parameters``.

    ``bits`` are those of a weight; without them the first that ``BITS`` has for the task. ``context`` is the
    tokens of one sequence. ``batch`` is how many sequences are held at once: for training on each GPU, for
    inference in all.

    Raises:
        ValueError: for bits that make no sense for the task, with a sentence that can be shown as it is.
    """
    bits = BITS[task][0] if bits is None else bits
    if bits not in BITS[task]:
        some = " or ".join(str(known) for known in sorted(BITS[task]))
        raise ValueError(f"the task {task} works with weights of {some} bits, not of {bits}")
    if not (0 < context <= MOST_TOKENS and 0 < batch <= MOST_TOKENS):
        raise ValueError(f"context and batch are whole numbers from 1 to {MOST_TOKENS:,}")
    shape = _Shape.of(parameters)
    kernels = _Part.of(f"kernels: {KERNELS_MIB:,} MiB on each GPU", KERNELS_MIB * 1024**2)
    if task is Task.INFER:
        weights = _weights(shape, bits)
        shared, each = [weights, _overhead(weights), _cache(shape, context, batch)], [kernels]
    else:
        shared = _states(shape, task, bits)
        each = [_activations(shape, context, batch), _logits(context, batch), kernels]
    return _sum(str(shape), shared, each)


def fitting(need: Need, rows: Iterable[GpuFacts]) -> list[Fit]:
    """For each GPU the smallest number of it that has the memory; the best first: fewest GPUs, least memory.

    Only memory decides; whether a program runs on such a GPU is another question. A row of unknown memory is
    never among them.
    """
    found = []
    for row in rows:
        memory = row.memory_gib
        count = next((n for n in COUNTS if memory and n * memory >= need.on(n)), None)
        if memory and count:
            found.append(Fit(row.gpu, count, memory))
    return sorted(found, key=lambda fit: (fit.count, fit.total_gib, str(fit.gpu)))


def _states(shape: _Shape, task: Task, bits: int) -> list[_Part]:
    """What training holds of the model, however many GPUs share it."""
    parameters = shape.parameters
    if task is Task.FULL:
        half = "weights 2, gradients 2, fp32 copy 4, Adam 8"
        parts = half if bits == 16 else "weights 4, gradients 4, Adam 8"
        text = f"training: {_count(parameters)} x {TRAINED_BYTES} bytes ({parts})"
        return [_Part.of(text, TRAINED_BYTES * parameters)]
    adapters = ADAPTED_PER_LAYER * RANK * shape.width * shape.layers
    text = (
        f"adapters: {ADAPTED_PER_LAYER} x rank {RANK} x {shape.width:,} x {shape.layers} layers"
        f" x {TRAINED_BYTES} bytes (every linear layer; weights 2, gradients 2, fp32 copy 4, Adam 8)"
    )
    return [_weights(shape, bits), _Part.of(text, adapters * TRAINED_BYTES)]


def _weights(shape: _Shape, bits: int) -> _Part:
    """Weights that are only read."""
    stored = STORED_BITS[bits] / 8
    if bits >= 16:
        text = f"weights: {_count(shape.parameters)} x {float(stored):g} bytes"
        return _Part.of(text, shape.parameters * stored)
    whole = min(shape.parameters, EMBEDDINGS * VOCABULARY * shape.width)
    rest = shape.parameters - whole
    text = (
        f"weights: {_count(whole)} of embeddings x 2 bytes + {_count(rest)} x {float(stored * 8):g}/8 bytes"
    )
    return _Part.of(text, 2 * whole + stored * rest)


def _overhead(weights: _Part) -> _Part:
    share = f"{float(INFERENCE_OVERHEAD):.0%}"
    return _Part.of(
        f"overhead: {share} of the weights, {share} x {weights.gib:.1f} GiB",
        Fraction(weights.gib) * INFERENCE_OVERHEAD * GIB,
    )


def _cache(shape: _Shape, context: int, batch: int) -> _Part:
    text = (
        f"cache: {batch:,} x {context:,} tokens x {shape.layers} layers x {shape.width:,}"
        f" x {CACHE_BYTES} bytes / {HEADS_PER_CACHED_HEAD} "
        f"(keys and values in 16 bits, {HEADS_PER_CACHED_HEAD} heads share one)"
    )
    size = Fraction(batch * context * shape.layers * shape.width * CACHE_BYTES, HEADS_PER_CACHED_HEAD)
    return _Part.of(text, size)


def _activations(shape: _Shape, context: int, batch: int) -> _Part:
    text = (
        f"activations: {batch:,} x {context:,} tokens x {shape.width:,} x ({KEPT_PER_LAYER} x {shape.layers}"
        f" layers + {LIVE_LAYER}) bytes (gradient checkpointing, FlashAttention)"
    )
    return _Part.of(text, batch * context * shape.width * (KEPT_PER_LAYER * shape.layers + LIVE_LAYER))


def _logits(context: int, batch: int) -> _Part:
    text = f"logits: {batch:,} x {context:,} tokens x {VOCABULARY:,} words x {LOGIT_BYTES} bytes"
    return _Part.of(text, batch * context * VOCABULARY * LOGIT_BYTES)


def _sum(first: str, shared: list[_Part], each: list[_Part]) -> Need:
    total = sum((part.gib for part in (*shared, *each)), Decimal(0))
    again = sum((part.gib for part in each), Decimal(0))
    terms = " + ".join(f"{part.gib:.1f}" for part in (*shared, *each))
    last = f"need: {terms} = {total:.1f} GiB on one GPU, an estimate; each further GPU adds {again:.1f} GiB"
    return Need(total, (first, *(part.text for part in (*shared, *each)), last), again)


def _count(parameters: int) -> str:
    """``8B`` or ``1.15B``: three digits that count."""
    unit = next((unit for unit in ("T", "B", "M") if parameters >= _SCALE[unit]), "M")
    amount = Decimal(parameters) / _SCALE[unit]
    rounded = amount.quantize(Decimal(1).scaleb(amount.adjusted() - 2), ROUND_CEILING)
    return f"{rounded.normalize():f}{unit}"
