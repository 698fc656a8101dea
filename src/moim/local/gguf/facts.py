"""What a GGUF file says about its model, checked and in one value.

The rules for capabilities, size labels and quantisation names are those that Ollama's `show`
follows, so that both say the same about one file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from moim.errors import ModelFileError
from moim.local.gguf import tables
from moim.local.gguf.cursor import Array, Value
from moim.local.gguf.reader import GGUF, read
from moim.local.gguf.source import fault, shown

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_MAX_BLOCKS: Final = 65_536
_MAX_SIZE: Final = 1 << 31  # of any width, length or count in a model's shape
_MAX_LANGUAGES: Final = 1024
_RANK_POOLING: Final = 4


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that decide how much memory a model's context takes.

    Attributes:
        key_length: of one attention head's key; likewise `value_length`.
        kv_heads: key and value heads of each block; 0 for a block without attention.
        sliding: for each block whether it looks back only `sliding_window` tokens.
        feed_forward_length: width of the widest feed-forward layer that one token passes.
        vocabulary: number of tokens.
        recurrent: elements of state that one sequence keeps for each block, whatever its length.
        cached: whether the model keeps keys and values at all; encoders do not.
    """

    key_length: int = 0
    value_length: int = 0
    kv_heads: tuple[int, ...] = ()
    sliding: tuple[bool, ...] = ()
    feed_forward_length: int = 0
    vocabulary: int = 0
    recurrent: int = 0
    cached: bool = True


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model file says about its model.

    Attributes:
        path: the file.
        size: its length in bytes.
        weights: bytes of its tensors.
        kind: `model`; or `adapter`, `mmproj` and others, which only go with a model.
        architecture: such as `llama` or `qwen3`.
        name: as its maker calls it, or None.
        parameters: how many numbers its tensors hold.
        size_label: the same for people, such as `134.52M` or `8.0B`.
        quantization: such as `Q4_K_M`, or `unknown`.
        context_length: tokens that it was trained to attend to; 0 where `kind` has no context.
        embedding_length: width of its hidden state.
        block_count: number of its layers.
        head_count: attention heads, of the block that has most; likewise `head_count_kv`.
        sliding_window: tokens that its sliding layers look back, or None if it has none.
        expert_count: experts in a mixture, 0 for a dense model.
        chat_template: the Jinja template, or None.
        capabilities: of `completion`, `embedding`, `rerank`, `vision`, `audio`, `tools`,
            `insert`, `thinking`; the engine has the last word on what works.
        license: as the file names it, or None.
        languages: codes such as `en`, as far as the file names them.
        shape: further numbers, for the memory estimate.
    """

    path: Path
    size: int
    weights: int
    kind: str
    architecture: str
    name: str | None
    parameters: int
    size_label: str
    quantization: str
    context_length: int
    embedding_length: int
    block_count: int
    head_count: int
    head_count_kv: int
    sliding_window: int | None
    expert_count: int
    chat_template: str | None
    capabilities: tuple[str, ...]
    license: str | None
    languages: tuple[str, ...]
    shape: Shape


def inspect(path: str | os.PathLike[str]) -> ModelFacts:
    """Reads what a model file says about its model.

    Raises:
        ModelFileError: the file is not well-formed GGUF (see `read`), a key that moim uses is
            missing or has the wrong type or an impossible value, or the file is only one part
            of a split model.
    """
    gguf = read(path)
    keys = _Keys(gguf)
    _require_whole(keys)
    architecture = keys.text("general.architecture")
    if architecture is None:
        raise keys.fault("does not name its architecture")
    kind = keys.text("general.type") or ("mmproj" if architecture == "clip" else "model")
    for key, name in (("general.architecture", architecture), ("general.type", kind)):
        if not _NAME.fullmatch(name):
            raise keys.fault(f"{key} is {shown(repr(name))}, which is no name")
    keys = _Keys(gguf, architecture, complete=kind == "model")
    return _facts(keys, kind, architecture)


def _facts(keys: _Keys, kind: str, architecture: str) -> ModelFacts:
    tensors = keys.gguf.tensors
    parameters = sum(info.elements for info in tensors)
    blocks = keys.size("block_count", limit=_MAX_BLOCKS)
    width = keys.size("embedding_length")
    heads = keys.per_block("attention.head_count", blocks, 0)
    kv_heads = keys.per_block("attention.head_count_kv", blocks, heads)
    template = keys.text("tokenizer.chat_template")
    window = keys.optional("attention.sliding_window") or None
    return ModelFacts(
        path=keys.gguf.path,
        size=keys.gguf.size,
        weights=sum(info.nbytes for info in tensors),
        kind=kind,
        architecture=architecture,
        name=keys.text("general.name"),
        parameters=parameters,
        size_label=size_label(parameters),
        quantization=_quantization(keys),
        context_length=keys.size("context_length"),
        embedding_length=width,
        block_count=blocks,
        head_count=max(heads, default=0),
        head_count_kv=max(kv_heads, default=0),
        sliding_window=window,
        expert_count=keys.optional("expert_count"),
        chat_template=template,
        capabilities=_capabilities(keys, kind, template),
        license=keys.text("general.license"),
        languages=keys.texts("general.languages"),
        shape=_shape(keys, architecture, width, heads, kv_heads, window),
    )


def size_label(parameters: int) -> str:
    """A number of parameters for people: `8B`, `8.0B`, `134.52M`, `108K`.

    Billions have one decimal and millions two, unless they are whole.
    """
    for unit, letter, decimals in ((10**9, "B", 1), (10**6, "M", 2), (10**3, "K", 0)):
        if parameters >= unit:
            decimals = decimals if parameters % unit else 0
            return f"{parameters / unit:.{decimals}f}{letter}"
    return str(parameters)


class _Keys:
    """Typed access to metadata: a key of the wrong type or range is a fault of the file.

    With `complete`, the sizes without which no engine runs a model have to be there.
    """

    def __init__(self, gguf: GGUF, architecture: str = "", *, complete: bool = False) -> None:
        self.gguf = gguf
        self._architecture = architecture
        self._complete = complete

    def fault(self, what: str, hint: str = "") -> ModelFileError:
        return fault(self.gguf.path, what, hint)

    def own(self, key: str) -> str:
        return f"{self._architecture}.{key}"

    def text(self, key: str) -> str | None:
        value = self.gguf.metadata.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong(key, value, "text")

    def flag(self, key: str, default: bool) -> bool:
        value = self.gguf.metadata.get(key, default)
        if isinstance(value, bool):
            return value
        raise self._wrong(key, value, "a truth value")

    def number(self, key: str, default: int, limit: int = _MAX_SIZE) -> int:
        return self._ranged(key, self.gguf.metadata.get(key, default), limit)

    def optional(self, key: str, default: int = 0) -> int:
        return self.number(self.own(key), default)

    def size(self, key: str, limit: int = _MAX_SIZE) -> int:
        """A size that a whole model has to name; 0 where other kinds do not."""
        name = self.own(key)
        value = self.number(name, 0, limit)
        if value == 0 and self._complete:
            raise self.fault(f"lacks {shown(name)}, without which no engine can run it")
        return value

    def largest(self, key: str) -> int:
        """A number, or the greatest of an array's."""
        return max(self._numbers(self.own(key)), default=0)

    def per_block(self, key: str, blocks: int, default: int | Sequence[int]) -> tuple[int, ...]:
        """A number for each block, from an array or from one number for all."""
        name = self.own(key)
        value = self.gguf.metadata.get(name)
        if value is None:
            return (default,) * blocks if isinstance(default, int) else tuple(default)
        numbers = self._numbers(name)
        if not isinstance(value, Array):
            return numbers * blocks
        if len(numbers) < blocks:
            raise self.fault(f"{shown(name)} has {len(numbers)} numbers for {blocks} blocks")
        return numbers[:blocks]

    def _numbers(self, name: str) -> tuple[int, ...]:
        value = self.gguf.metadata.get(name, 0)
        if not isinstance(value, Array):
            return (self._ranged(name, value, _MAX_SIZE),)
        if len(value) > _MAX_BLOCKS:
            raise self.fault(f"{shown(name)} has {len(value)} items")
        return tuple([self._ranged(name, item, _MAX_SIZE) for item in value])

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.gguf.metadata.get(key)
        if value is None:
            return ()
        if not isinstance(value, Array) or value.type is not tables.ValueType.STRING:
            raise self._wrong(key, value, "a list of texts")
        if len(value) > _MAX_LANGUAGES:
            raise self.fault(f"{shown(key)} has {len(value)} items")
        return tuple([str(item) for item in value])

    def length(self, key: str) -> int:
        value = self.gguf.metadata.get(key)
        if value is None or isinstance(value, Array):
            return len(value or ())
        raise self._wrong(key, value, "a list")

    def _ranged(self, key: str, value: Value, limit: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, value, "a whole number")
        if not 0 <= value <= limit:
            raise self.fault(f"{shown(key)} is {value}, not from 0 to {limit}")
        return value

    def _wrong(self, key: str, value: Value, wanted: str) -> ModelFileError:
        return self.fault(f"{shown(key)} is {shown(repr(value))}, not {wanted}")


def _require_whole(keys: _Keys) -> None:
    count = keys.number("split.count", 0)
    if count <= 1:
        return
    part = keys.number("split.no", 0) + 1
    raise keys.fault(
        f"is part {part} of {count} of a split model",
        "Join the parts with llama.cpp's `llama-gguf-split --merge`, or choose a version of the"
        " model that is one file.",
    )


def _quantization(keys: _Keys) -> str:
    if "general.file_type" not in keys.gguf.metadata:
        return "unknown"
    number = keys.number("general.file_type", 0)
    return tables.FILE_TYPES.get(number & ~tables.FILE_TYPE_GUESSED, "unknown")


# Blocks of these architectures that slide when the file does not say which: of every `period`
# blocks all but the last. Source: llama.cpp's loaders. An architecture that is not here counts as
# attending everywhere, which can only make the estimate too high.
_SLIDING_PERIOD: Final[dict[str, int]] = {
    "cohere2": 4,
    "exaone4": 4,
    "gemma2": 2,
    "gemma3": 6,
    "gemma3n": 5,
    "gpt-oss": 2,
    "llama4": 4,
    "olmo2": 4,
}
_ENCODERS: Final = frozenset({"gemma-embedding", "t5encoder"})


def _shape(
    keys: _Keys,
    architecture: str,
    width: int,
    heads: tuple[int, ...],
    kv_heads: tuple[int, ...],
    window: int | None,
) -> Shape:
    head_length = width // max(heads, default=0) if any(heads) else 0
    interval = keys.optional("full_attention_interval") or 1
    causal = keys.flag(keys.own("attention.causal"), architecture not in _ENCODERS)
    return Shape(
        key_length=keys.optional("attention.key_length", head_length),
        value_length=keys.optional("attention.value_length", head_length),
        kv_heads=tuple([0 if (i + 1) % interval else n for i, n in enumerate(kv_heads)]),
        sliding=_sliding(keys, architecture, len(kv_heads)) if window else (),
        feed_forward_length=max(
            keys.largest("feed_forward_length"),
            keys.optional("expert_used_count") * keys.largest("expert_feed_forward_length"),
        ),
        vocabulary=keys.length("tokenizer.ggml.tokens") or keys.optional("vocab_size"),
        recurrent=_recurrent(keys, width),
        cached=causal,
    )


def _sliding(keys: _Keys, architecture: str, blocks: int) -> tuple[bool, ...]:
    key = keys.own("attention.sliding_window_pattern")
    pattern = keys.gguf.metadata.get(key)
    if isinstance(pattern, Array):
        given = [item in (True, 1) for item in pattern[:blocks]]
        return tuple(given + [False] * (blocks - len(given)))
    period = keys.number(key, _SLIDING_PERIOD.get(architecture, 0))
    return tuple([block % period < period - 1 for block in range(blocks)]) if period else ()


def _recurrent(keys: _Keys, width: int) -> int:
    """Elements of one block's state: Mamba's, a short convolution's or RWKV's."""
    inner, state = keys.optional("ssm.inner_size"), keys.optional("ssm.state_size")
    convolved = inner + 2 * keys.optional("ssm.group_count") * state
    return (
        max(0, keys.optional("ssm.conv_kernel") - 1) * convolved
        + inner * state
        + max(0, keys.optional("shortconv.l_cache") - 1) * width
        + (keys.optional("wkv.head_size") and (keys.optional("wkv.head_size") + 2) * width)
    )


def _capabilities(keys: _Keys, kind: str, template: str | None) -> tuple[str, ...]:
    task = _task(keys, kind)
    found = [task] if task else []
    found += [part for part in ("vision", "audio") if _perceives(keys, part)]
    if task == "completion":
        texts = (template or "") + (keys.text("tokenizer.chat_template.tool_use") or "")
        found += ["tools"] if _TOOLS.search(texts) else []
        found += ["insert"] if _inserts(keys) else []
        found += ["thinking"] if "<think>" in texts and "</think>" in texts else []
    return tuple(found)


def _task(keys: _Keys, kind: str) -> str | None:
    if kind != "model" or not keys.gguf.tensors:
        return None
    pooling = keys.own("pooling_type")
    if pooling not in keys.gguf.metadata:
        return "completion"
    return "rerank" if keys.number(pooling, 0) == _RANK_POOLING else "embedding"


def _perceives(keys: _Keys, part: str) -> bool:
    blocks = f".{part}.block_count"
    return keys.flag(f"clip.has_{part}_encoder", False) or any(
        key.endswith(blocks) for key in keys.gguf.metadata
    )


_TOOLS: Final = re.compile(r"\btools\b|tool_call")
# The two tokens between which a model fills in, under their present and their former keys.
_INSERT_TOKENS: Final = (
    ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.fim_suf_token_id"),
    ("tokenizer.ggml.prefix_token_id", "tokenizer.ggml.suffix_token_id"),
)


def _inserts(keys: _Keys) -> bool:
    return any(all(key in keys.gguf.metadata for key in pair) for pair in _INSERT_TOKENS)
