"""How much memory a model takes with a given context, and whether this machine has it.

The formulas follow what llama.cpp allocates: its key-value cache to the byte, its compute
buffers from measurements (the docstring of `estimate` has the figures).
"""

from __future__ import annotations

from typing import Final

import msgspec

from moim.errors import ConfigError, ModelTooLarge
from moim.local.gguf.facts import ModelFacts, Shape
from moim.local.gguf.machine import free_memory
from moim.local.gguf.source import shown
from moim.local.gguf.tables import TENSOR_TYPES

_KV_TYPES: Final = {
    kind.name.lower(): kind
    for kind in TENSOR_TYPES.values()
    if kind.name in ("F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "IQ4_NL")
}
_CELLS: Final = 256  # the engine rounds a context up to a multiple of this
_LARGEST_ARGUMENT: Final = 1 << 31
_F32: Final = 4
_F16: Final = 2
# Measured with xllamacpp 2026.10: an empty runner process, and its tables for each token.
_RUNNER: Final = 32 << 20
_TOKEN_TABLES: Final = 512
_SHARE: Final = 0.8  # of the free memory, and no more: Ollama's rule
# Bits that one parameter takes in common quantisations, from the best to the smallest.
_BITS: Final = (
    ("Q8_0", 8.5),
    ("Q6_K", 6.6),
    ("Q5_K_M", 5.7),
    ("Q4_K_M", 4.9),
    ("Q3_K_M", 3.9),
    ("Q2_K", 3.0),
)


class MemoryEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a running model takes, and the settings that they hold for.

    Attributes:
        weights: its tensors.
        kv_cache: keys and values of the context, and recurrent state.
        buffers: scratch space for computing, the vocabulary and the process itself.
        num_ctx: tokens of context for each slot.
        slots: requests that run at once.
        kv_type: how keys and values are stored.
        ubatch: prompt tokens that are computed at once.
        flash_attention: whether attention is computed without its full matrix.
    """

    weights: int
    kv_cache: int
    buffers: int
    num_ctx: int
    slots: int = 1
    kv_type: str = "f16"
    ubatch: int = 512
    flash_attention: bool = True

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.buffers


def estimate(
    facts: ModelFacts,
    *,
    num_ctx: int,
    slots: int = 1,
    kv_type: str = "f16",
    ubatch: int = 512,
    flash_attention: bool = True,
) -> MemoryEstimate:
    """Estimates the memory of a model on the CPU.

    Weights count in full. They are mapped from the file, so the system may drop their pages, but
    every token reads all of them: a model whose weights do not stay in memory answers at the
    speed of the disk. Not counted is what the engine is told to keep besides, such as its cache
    of earlier prompts, and a projector for images.

    Args:
        facts: from `inspect`.
        num_ctx: tokens of context for each slot; taken as it is, also beyond what the model was
            trained for.
        slots: requests that run at once, each with a context of its own.
        kv_type: `f16`, `q8_0`, `q4_0` or another type that the engine has for its cache.
        ubatch: prompt tokens that are computed at once.
        flash_attention: the engine's `auto` means yes on a CPU; a quantised `kv_type` needs it.

    Raises:
        ConfigError: an argument is out of range or not a known type.
    """
    _require_settings(num_ctx=num_ctx, slots=slots, ubatch=ubatch)
    if kv_type not in _KV_TYPES:
        raise ConfigError(
            f"kv_type is {shown(repr(kv_type))}, which is not a type for the cache.",
            hint=f"Choose one of {', '.join(_KV_TYPES)}.",
        )
    context = _padded(num_ctx)
    batch = min(ubatch, context)
    plain = kv_type in ("f32", "f16", "bf16")
    flash = flash_attention or not plain
    return MemoryEstimate(
        weights=facts.weights,
        kv_cache=_kv_cache(facts, context, slots, kv_type, batch),
        buffers=_buffers(facts, context, slots, batch, flash),
        num_ctx=num_ctx,
        slots=slots,
        kv_type=kv_type,
        ubatch=ubatch,
        flash_attention=flash,
    )


def largest_context(facts: ModelFacts, wanted: MemoryEstimate, budget: int) -> int | None:
    """The largest `num_ctx`, at most that of `wanted`, with which the model takes `budget` bytes.

    Returns:
        A number of tokens (a multiple of 256, unless it is that of `wanted`), or None if not
        even the smallest context fits.
    """
    if wanted.total <= budget:
        return wanted.num_ctx
    low, high = 0, (wanted.num_ctx - 1) // _CELLS
    while low < high:
        middle = (low + high + 1) // 2
        if _with_context(facts, wanted, middle * _CELLS).total <= budget:
            low = middle
        else:
            high = middle - 1
    return low * _CELLS or None


def check_fits(facts: ModelFacts, need: MemoryEstimate, *, free: int | None = None) -> None:
    """Refuses a model that would take more than 80 % of the memory that is free.

    Free memory as the systems count it includes the cached pages of the model's own file, so
    weights that are already in the page cache are not counted twice.

    Args:
        facts: from `inspect`.
        need: from `estimate`.
        free: bytes that are free; what `free_memory` finds, if None.

    Raises:
        ModelTooLarge: it does not fit; `needed` and `available` have both numbers and the hint
            says what would fit.
    """
    available = free_memory() if free is None else free
    budget = int(available * _SHARE)
    if need.total <= budget:
        return
    error = ModelTooLarge(
        f"{shown(facts.name or facts.path.name)} needs {_gigabytes(need.total)} of memory with"
        f" a context of {need.num_ctx * need.slots:,} tokens"
        f" (weights {_gigabytes(need.weights)}, context {_gigabytes(need.kv_cache)},"
        f" buffers {_gigabytes(need.buffers)}), and {_gigabytes(available)} are free,"
        " of which 80 % may be used.",
        hint=_what_fits(facts, need, budget),
    )
    error.needed, error.available = need.total, available
    raise error


def _what_fits(facts: ModelFacts, need: MemoryEstimate, budget: int) -> str:
    context = largest_context(facts, need, budget)
    if context is not None:
        return f"It fits with a context of {context:,} tokens: set num_ctx to {context}."
    smallest = _with_context(facts, need, min(need.num_ctx, _CELLS))
    room = budget - smallest.total + smallest.weights
    for name, bits in _BITS:
        weights = int(facts.parameters * bits / 8)
        if weights <= min(room, facts.weights - 1):
            return (
                f"No context is small enough. A {name} quantisation of it, of about"
                f" {_gigabytes(weights)}, would fit with a context of {smallest.num_ctx} tokens."
            )
    return "No quantisation of it is small enough: choose a model with fewer parameters."


def _with_context(facts: ModelFacts, like: MemoryEstimate, num_ctx: int) -> MemoryEstimate:
    return estimate(
        facts,
        num_ctx=num_ctx,
        slots=like.slots,
        kv_type=like.kv_type,
        ubatch=like.ubatch,
        flash_attention=like.flash_attention,
    )


def _require_settings(**settings: int) -> None:
    for name, value in settings.items():
        if not 1 <= value <= _LARGEST_ARGUMENT:
            raise ConfigError(f"{name} is {value}, not from 1 to {_LARGEST_ARGUMENT}.")


def _padded(tokens: int) -> int:
    return -(-tokens // _CELLS) * _CELLS


def _kv_cache(facts: ModelFacts, context: int, slots: int, kv_type: str, batch: int) -> int:
    shape = facts.shape
    if not shape.cached:
        return 0
    window = _window(facts, context, batch)
    sliding = shape.sliding or (False,) * len(shape.kv_heads)
    cells = sum(
        heads * (window if slides else context)
        for heads, slides in zip(shape.kv_heads, sliding, strict=True)
    )
    kind = _KV_TYPES[kv_type]
    stored = cells * slots * (shape.key_length + shape.value_length) * kind.size // kind.block
    return stored + facts.block_count * slots * shape.recurrent * _F32


def _buffers(facts: ModelFacts, context: int, slots: int, batch: int, flash: bool) -> int:
    shape = facts.shape
    scores = slots * shape.vocabulary * _F32
    outputs = scores if shape.cached else batch * facts.embedding_length * _F32
    compute = batch * _F32 * _widest(facts, shape) + _attention(facts, context, batch, flash)
    return _RUNNER + _TOKEN_TABLES * shape.vocabulary + compute + 2 * outputs


def _widest(facts: ModelFacts, shape: Shape) -> int:
    """Elements that are alive for each token of a batch in the busiest part of a block.

    Five hidden states, and either the feed-forward layer's gate, up and product or the
    projections of attention: SmolLM2's buffer is 7,496 wide, and this says 7,488.
    """
    projected = facts.head_count * shape.key_length + facts.head_count_kv * (
        shape.key_length + shape.value_length
    )
    return 5 * facts.embedding_length + max(3 * shape.feed_forward_length, projected)


def _attention(facts: ModelFacts, context: int, batch: int, flash: bool) -> int:
    """Bytes that grow with context times batch.

    With flash attention masks of half precision, one more for sliding blocks; without it masks,
    the scores of all heads and the engine's half-precision copy of them.
    """
    if not facts.shape.cached:
        context = batch  # an encoder attends within one batch
    masks = batch * (context + (_window(facts, context, batch) if any(facts.shape.sliding) else 0))
    if flash:
        return masks * _F16
    return masks * _F32 + batch * context * facts.head_count * (_F32 + _F16)


def _window(facts: ModelFacts, context: int, batch: int) -> int:
    """Tokens that a sliding block keeps for one slot."""
    return min(context, _padded((facts.sliding_window or context) + batch))


def _gigabytes(size: int) -> str:
    unit, name = (10**9, "GB") if size >= 10**9 else (10**6, "MB")
    return f"{size / unit:.1f} {name}"
