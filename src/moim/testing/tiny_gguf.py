"""Writes GGUF files for tests: a tiny model that the real engine runs, and any file, sound or not.

    path = tiny_gguf.write(tmp_path / "tiny.gguf", context_length=256)

The model's weights are random, so it babbles, in printable ASCII and without ever choosing to
stop: an answer runs to `max_tokens`, to a stop sequence or to the end of the context, and is the
same each time at temperature 0. To make it say something, give the request a grammar.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from moim.local.gguf.tables import DEFAULT_ALIGNMENT, MAGIC, SCALARS, ValueType

__all__ = ["CHAT_TEMPLATE", "TOOLS_TEMPLATE", "GGUFBuilder", "TensorData", "write"]

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOLS_TEMPLATE: Final = (
    "{% if tools %}<|im_start|>system\nAnswer with one of these functions:\n<tools>\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}</tools>\n"
    "Form of an answer:\n<tool_call>\n"
    '{"name": "function", "arguments": {"argument": "value"}}\n</tool_call><|im_end|>\n'
    "{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] %}{{ message['content'] }}{% endif %}"
    "{% for call in message['tool_calls'] or [] %}<tool_call>\n"
    '{"name": {{ call["function"]["name"] | tojson }},'
    ' "arguments": {{ call["function"]["arguments"] | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class TensorData(NamedTuple):
    """A tensor to write: `type` is a number of the format's table, `data` its bytes.

    `offset` is what its description says instead of the place where its bytes go.
    """

    name: str | bytes
    dims: Sequence[int]
    type: int
    data: bytes
    offset: int | None = None


class GGUFBuilder:
    """Collects fields and tensors and turns them into the bytes of a GGUF file.

    Nothing is checked, so that wrong files can be built too: add a key twice, use an unknown
    type, or give `build` counts that do not hold.

    Attributes:
        fields: (key, type, value); the value of an array is (item type, items).
        tensors: in file order.
        alignment: of the tensor data; written as `general.alignment` only by you.
    """

    def __init__(self, *, version: int = 3, alignment: int = DEFAULT_ALIGNMENT) -> None:
        self.version = version
        self.alignment = alignment
        self.fields: list[tuple[str | bytes, int, Any]] = []
        self.tensors: list[TensorData] = []

    def add(self, key: str | bytes, type: int, value: Any) -> GGUFBuilder:
        """Adds a field; returns the builder."""
        self.fields.append((key, type, value))
        return self

    def add_array(self, key: str | bytes, item_type: int, items: Sequence[Any]) -> GGUFBuilder:
        """Adds a field that is an array; returns the builder."""
        return self.add(key, ValueType.ARRAY, (item_type, items))

    def add_tensor(
        self,
        name: str | bytes,
        dims: Sequence[int],
        type: int,
        data: bytes,
        offset: int | None = None,
    ) -> GGUFBuilder:
        """Adds a tensor; returns the builder."""
        self.tensors.append(TensorData(name, dims, type, data, offset))
        return self

    def header(self, *, tensor_count: int | None = None, field_count: int | None = None) -> bytes:
        """Everything before the padding and the data; the counts can be made to lie."""
        tensors = len(self.tensors) if tensor_count is None else tensor_count
        fields = len(self.fields) if field_count is None else field_count
        parts = [MAGIC, struct.pack("<IQQ", self.version, tensors, fields)]
        for key, type, value in self.fields:
            parts += [encode_text(key), struct.pack("<I", type), encode_value(type, value)]
        place = 0
        for tensor in self.tensors:
            offset = place if tensor.offset is None else tensor.offset
            parts.append(encode_text(tensor.name))
            parts.append(struct.pack(f"<I{len(tensor.dims)}Q", len(tensor.dims), *tensor.dims))
            parts.append(struct.pack("<IQ", tensor.type, offset))
            place += len(self._padded(tensor.data))
        return b"".join(parts)

    def build(self, *, tensor_count: int | None = None, field_count: int | None = None) -> bytes:
        """The whole file."""
        head = self.header(tensor_count=tensor_count, field_count=field_count)
        if not self.tensors:
            return head
        *before, last = (tensor.data for tensor in self.tensors)
        return b"".join([self._padded(head), *map(self._padded, before), last])

    def _padded(self, data: bytes) -> bytes:
        return data + bytes(-len(data) % self.alignment)


def encode_text(text: str | bytes) -> bytes:
    """A string as the format has it: its length, then its bytes."""
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def encode_value(type: int, value: Any) -> bytes:
    """A value of a metadata field, without its type; `bytes` are taken as they are."""
    if type == ValueType.STRING:
        return encode_text(value)
    if isinstance(value, bytes):
        return value
    if type == ValueType.ARRAY:
        item_type, items = value
        encoded = b"".join(encode_value(item_type, item) for item in items)
        return struct.pack("<IQ", item_type, len(items)) + encoded
    return SCALARS[type].pack(value)


class _Sizes(NamedTuple):
    """The shape of the tiny model; a keyword of `write` for each."""

    context_length: int = 2048
    embedding_length: int = 64
    block_count: int = 2
    feed_forward_length: int = 128
    head_count: int = 4
    head_count_kv: int = 2


def write(
    path: str | os.PathLike[str],
    *,
    seed: int = 0,
    name: str = "Tiny",
    tools: bool = False,
    chat_template: str | None = CHAT_TEMPLATE,
    metadata: Mapping[str, tuple[int, Any] | None] | None = None,
    **sizes: int,
) -> Path:
    """Writes a llama model of about 240 kB that xllamacpp loads in milliseconds.

    Args:
        path: where to write; an existing file is replaced.
        seed: of the weights; the same arguments give the same bytes.
        name: `general.name`.
        tools: use a chat template with tool calls, whatever `chat_template` says.
        chat_template: the Jinja template, or None to leave it out.
        metadata: fields to set (key to type and value) or, with None, to leave out.
        sizes: any of `context_length` (2048), `embedding_length` (64), `block_count` (2),
            `feed_forward_length` (128), `head_count` (4), `head_count_kv` (2).

    Returns:
        The path.
    """
    shape = _Sizes(**sizes)
    tokens = _vocabulary()
    fields = _model_fields(name, shape) | _tokenizer_fields(tokens)
    template = TOOLS_TEMPLATE if tools else chat_template
    if template is not None:
        fields["tokenizer.chat_template"] = (ValueType.STRING, template)
    builder = GGUFBuilder()
    for key, field in {**fields, **(metadata or {})}.items():
        if field is not None:
            builder.add(key, *field)
    builder.tensors.extend(_weights(shape, tokens, random.Random(seed)))
    target = Path(path)
    target.write_bytes(builder.build())
    return target


_Fields = dict[str, tuple[int, Any]]


def _model_fields(name: str, shape: _Sizes) -> _Fields:
    return {
        "general.architecture": (ValueType.STRING, "llama"),
        "general.type": (ValueType.STRING, "model"),
        "general.name": (ValueType.STRING, name),
        "general.license": (ValueType.STRING, "mit"),
        "general.languages": (ValueType.ARRAY, (ValueType.STRING, ["en", "ko"])),
        "general.file_type": (ValueType.UINT32, 1),
        "llama.context_length": (ValueType.UINT32, shape.context_length),
        "llama.embedding_length": (ValueType.UINT32, shape.embedding_length),
        "llama.block_count": (ValueType.UINT32, shape.block_count),
        "llama.feed_forward_length": (ValueType.UINT32, shape.feed_forward_length),
        "llama.attention.head_count": (ValueType.UINT32, shape.head_count),
        "llama.attention.head_count_kv": (ValueType.UINT32, shape.head_count_kv),
        "llama.attention.layer_norm_rms_epsilon": (ValueType.FLOAT32, 1e-5),
        "llama.rope.dimension_count": (
            ValueType.UINT32,
            shape.embedding_length // shape.head_count,
        ),
    }


class _Token(NamedTuple):
    text: str
    type: int
    chosen: bool  # whether the model may ever choose it


_NORMAL, _CONTROL = 1, 3
_MERGES: Final = (("t", "h"), ("th", "e"), ("i", "n"), ("a", "n"), ("Ġ", "the"))


def _vocabulary() -> list[_Token]:
    special = [_Token(t, _CONTROL, False) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    single = [_Token(shown, _NORMAL, 32 <= byte < 127) for byte, shown in _byte_letters().items()]
    return special + single + [_Token(a + b, _NORMAL, True) for a, b in _MERGES]


def _byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in a byte-level vocabulary.

    Printable Latin-1 stands for itself; the rest is moved beyond it. Source: GPT-2's tokenizer.
    """
    themselves = {*range(33, 127), *range(161, 173), *range(174, 256)}
    moved = iter(range(256, 512))
    return {b: chr(b) if b in themselves else chr(next(moved)) for b in range(256)}


def _tokenizer_fields(tokens: Sequence[_Token]) -> _Fields:
    merges = [f"{a} {b}" for a, b in _MERGES]
    return {
        "tokenizer.ggml.model": (ValueType.STRING, "gpt2"),
        "tokenizer.ggml.pre": (ValueType.STRING, "gpt-2"),
        "tokenizer.ggml.tokens": (
            ValueType.ARRAY,
            (ValueType.STRING, [token.text for token in tokens]),
        ),
        "tokenizer.ggml.token_type": (
            ValueType.ARRAY,
            (ValueType.INT32, [token.type for token in tokens]),
        ),
        "tokenizer.ggml.merges": (ValueType.ARRAY, (ValueType.STRING, merges)),
        "tokenizer.ggml.bos_token_id": (ValueType.UINT32, 1),
        "tokenizer.ggml.eos_token_id": (ValueType.UINT32, 2),
        "tokenizer.ggml.add_bos_token": (ValueType.BOOL, False),
    }


_F32, _F16 = 0, 1


def _weights(shape: _Sizes, tokens: Sequence[_Token], rng: random.Random) -> Iterable[TensorData]:
    width, wide = shape.embedding_length, shape.feed_forward_length
    kv_width = width // shape.head_count * shape.head_count_kv
    yield _matrix("token_embd.weight", width, len(tokens), rng)
    for block in range(shape.block_count):
        yield _ones(f"blk.{block}.attn_norm.weight", width)
        yield _ones(f"blk.{block}.ffn_norm.weight", width)
        for part, rows, columns in (
            ("attn_q", width, width),
            ("attn_k", width, kv_width),
            ("attn_v", width, kv_width),
            ("attn_output", width, width),
            ("ffn_gate", width, wide),
            ("ffn_up", width, wide),
            ("ffn_down", wide, width),
        ):
            yield _matrix(f"blk.{block}.{part}.weight", rows, columns, rng)
    yield _ones("output_norm.weight", width)
    yield _output(width, tokens, rng)


def _matrix(name: str, rows: int, columns: int, rng: random.Random) -> TensorData:
    return TensorData(name, (rows, columns), _F16, _halves(rows * columns, rng, exponent=-4))


def _ones(name: str, width: int) -> TensorData:
    return TensorData(name, (width,), _F32, struct.pack(f"<{width}f", *[1.0] * width))


def _output(width: int, tokens: Sequence[_Token], rng: random.Random) -> TensorData:
    """A row of zeros gives a token the score 0, far below the best of the others."""
    nothing = bytes(2 * width)
    rows = [_halves(width, rng, exponent=-2) if t.chosen else nothing for t in tokens]
    return TensorData("output.weight", (width, len(tokens)), _F16, b"".join(rows))


def _halves(count: int, rng: random.Random, *, exponent: int) -> bytes:
    """Half-precision numbers of random sign, from 2**exponent up to twice that.

    Random bits with the exponent's bits put in place: much quicker than drawing each number.
    """
    free = int.from_bytes(struct.pack("<H", 0x83FF) * count, "little")
    fixed = int.from_bytes(struct.pack("<H", exponent + 15 << 10) * count, "little")
    return (rng.getrandbits(16 * count) & free | fixed).to_bytes(2 * count, "little")
