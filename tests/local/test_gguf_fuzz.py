"""Spoiled headers by the hundred thousand: an answer or a `ModelFileError`, and nothing else."""

from __future__ import annotations

import os
import random
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from moim.errors import ModelFileError
from moim.local.gguf import Array, ValueType, check_fits, estimate, inspect, read
from moim.local.gguf import cursor as cursor_module
from moim.local.gguf import source as source_module
from moim.testing.tiny_gguf import GGUFBuilder

V = ValueType

SLOW_PARTS = 4
SLOW_CASES = 25_000  # in each part: 100,000 together
FAST_CASES = 1_500
# Far above what a case takes (0.2 ms and one to some hundred reads), far below a hang.
MAX_SECONDS = 2.0
MAX_READS = 10_000


def seeds() -> list[GGUFBuilder]:
    """Small sound files that between them have every type of value and every key that we use."""
    every = GGUFBuilder(version=2, alignment=64)
    for kind, value in ((V.UINT8, 1), (V.INT8, -1), (V.UINT16, 2), (V.INT16, -2), (V.INT32, -3)):
        every.add(f"x.{kind.name}", kind, value)
    every.add("x.f", V.FLOAT32, 1.5).add("x.d", V.FLOAT64, 2.5).add("x.u", V.UINT64, 2**60)
    every.add("x.i", V.INT64, -(2**60)).add("x.b", V.BOOL, True).add("x.s", V.STRING, "한글 🙂")
    for kind in (V.UINT8, V.INT32, V.FLOAT64, V.BOOL):
        every.add_array(f"a.{kind.name}", kind, [1, 0, 1])
    every.add_array("a.s", V.STRING, ["one", "", "three"])
    every.add("general.alignment", V.UINT32, 64)
    every.add("general.architecture", V.STRING, "clip").add("clip.has_vision_encoder", V.BOOL, True)
    every.add_tensor("v.q", (256,), 12, bytes(144)).add_tensor("v.f", (4, 2, 1, 1), 1, bytes(16))
    return [every, chat_model(), embedder()]


def chat_model() -> GGUFBuilder:
    builder = GGUFBuilder()
    for key, value in (("architecture", "gemma3"), ("name", "G"), ("license", "mit")):
        builder.add(f"general.{key}", V.STRING, value)
    builder.add_array("general.languages", V.STRING, ["en", "ko"])
    builder.add("general.file_type", V.UINT32, 15)
    for key, size in (
        ("context_length", 8192),
        ("embedding_length", 64),
        ("block_count", 4),
        ("feed_forward_length", 128),
        ("expert_count", 2),
        ("attention.head_count", 4),
        ("attention.key_length", 16),
        ("attention.value_length", 16),
        ("attention.sliding_window", 512),
        ("ssm.state_size", 16),
    ):
        builder.add(f"gemma3.{key}", V.UINT32, size)
    builder.add_array("gemma3.attention.head_count_kv", V.UINT32, [2, 0, 2, 0])
    builder.add_array("gemma3.attention.sliding_window_pattern", V.BOOL, [1, 0, 1, 0])
    builder.add_array("tokenizer.ggml.tokens", V.STRING, ["a", "b", "<s>", "</s>"])
    builder.add("tokenizer.ggml.fim_pre_token_id", V.UINT32, 1)
    builder.add("tokenizer.chat_template", V.STRING, "{{ tools }}<think></think>")
    return builder.add_tensor("a", (32, 2), 2, bytes(36)).add_tensor("b", (8,), 0, bytes(32))


def embedder() -> GGUFBuilder:
    builder = GGUFBuilder().add("general.architecture", V.STRING, "bert")
    for key in ("context_length", "embedding_length", "block_count", "attention.head_count"):
        builder.add(f"bert.{key}", V.UINT32, 2)
    builder.add("bert.attention.causal", V.BOOL, False).add("bert.pooling_type", V.UINT32, 1)
    builder.add("split.count", V.UINT16, 1).add("split.no", V.UINT16, 0)
    return builder.add_tensor("t", (2,), 30, bytes(4))


EDGES = (
    0,
    1,
    2,
    8,
    9,
    12,
    13,
    63,
    64,
    255,
    256,
    65_535,
    65_536,
    2**22,
    2**22 + 1,
    2**24,
    2**24 + 1,
)
WIDE = (2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1)


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def cut_off(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(len(data)) :]


def put_number(data: bytearray, rng: random.Random) -> None:
    form = rng.choice(("<I", "<Q", ">I", "<H"))
    size = struct.calcsize(form)
    if len(data) >= size:
        at = rng.randrange(len(data) - size + 1)
        value = rng.choice(EDGES + WIDE) & (1 << 8 * size) - 1
        struct.pack_into(form, data, at, value)


def put_count(data: bytearray, rng: random.Random) -> None:
    at = rng.choice((4, 8, 16))
    if len(data) >= 24:
        struct.pack_into("<I" if at == 4 else "<Q", data, at, rng.choice(EDGES + WIDE[:2]))


def insert_length(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = struct.pack("<Q", rng.choice(EDGES + WIDE))


def insert_noise(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.randbytes(rng.randint(1, 16))


def take_out(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.randint(1, 24)]


def splice(data: bytearray, rng: random.Random) -> None:
    other = rng.choice(CONTENTS)
    start = rng.randrange(len(other))
    piece = other[start : start + rng.randint(1, 120)]
    at = rng.randrange(len(data))
    data[at : at + rng.choice((0, len(piece)))] = piece


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits,
    cut_off,
    put_number,
    put_count,
    insert_length,
    insert_noise,
    take_out,
    splice,
)


def swapped(rng: random.Random) -> bytearray:
    """A file whose fields were taken from several sound ones, with types, places and keys mixed.

    The frame is sound, so the damage gets past it to the values.
    """
    sound = rng.choice(SEEDS)
    builder = GGUFBuilder(version=rng.choice((2, 3)), alignment=sound.alignment)
    builder.fields = list(sound.fields)
    builder.tensors = list(sound.tensors)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(builder.fields))
        key, kind, value = builder.fields[at]
        other_key, other_kind, other_value = rng.choice(rng.choice(SEEDS).fields)
        builder.fields[at] = rng.choice(
            (
                (key, other_kind, other_value),
                (other_key, kind, value),
                (key, rng.randrange(14), rng.randbytes(rng.randint(0, 16))),
                (key, V.UINT64, rng.choice(EDGES + WIDE)),
            )
        )
    if rng.random() < 0.5:
        at = rng.randrange(len(builder.tensors))
        tensor = builder.tensors[at]
        builder.tensors[at] = rng.choice(
            (
                tensor._replace(type=rng.randrange(48)),
                tensor._replace(dims=tuple(rng.choices(EDGES + WIDE, k=rng.randint(0, 5)))),
                tensor._replace(offset=rng.choice(EDGES + WIDE)),
                tensor._replace(name="n" * rng.randint(0, 80)),
            )
        )
    return bytearray(builder.build())


def mutated(rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        data, hits = swapped(rng), rng.choice((0, 0, 0, 1))
    else:
        data, hits = bytearray(rng.choice(CONTENTS)), rng.choice((1, 1, 1, 2, 3))
    for _ in range(hits):
        if data:
            rng.choice(DAMAGES)(data, rng)
    return bytes(data) if data not in CONTENTS else mutated(rng)


SEEDS = seeds()
CONTENTS = [builder.build() for builder in SEEDS]


class WatchedReads:
    """Stands in for the one function that reads a file; every read has to be inside it."""

    def __init__(self) -> None:
        self.count = 0
        self.outside = 0
        self._real = source_module._read_at

    def __call__(self, fd: int, length: int, offset: int) -> bytes:
        self.count += 1
        if offset < 0 or length < 0 or offset + length > os.fstat(fd).st_size:
            self.outside += 1
        return self._real(fd, length, offset)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> WatchedReads:
    watched = WatchedReads()
    monkeypatch.setattr(source_module, "_read_at", watched)
    return watched


def use_fully(path: Path) -> str:
    """Reads everything that can be read; says how far it came."""
    try:
        gguf = read(path)
        for value in gguf.metadata.values():
            assert isinstance(value, Array | int | float | str)
            if isinstance(value, Array):
                assert len(list(value)) == len(value)
        for info in gguf.tensors:
            assert info.offset + info.nbytes <= gguf.size
    except ModelFileError:
        return "refused"
    try:
        facts = inspect(path)
    except ModelFileError:
        return "no model"
    need = estimate(facts, num_ctx=4096, slots=2)
    assert min(need.weights, need.kv_cache, need.buffers) >= 0
    check_fits(facts, need, free=need.total * 2)
    return "read"


def fuzz(
    cases: int, first_seed: int, path: Path, reads: WatchedReads, monkeypatch: pytest.MonkeyPatch
) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        for seed in range(first_seed, first_seed + cases):
            rng = random.Random(seed)
            data = mutated(rng)
            monkeypatch.setattr(cursor_module, "_CHUNK", rng.choice((1, 16, 256 << 10)))
            monkeypatch.setattr(cursor_module, "_KEPT_ITEMS", rng.choice((0, 2, 1024)))
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, data)
            outcomes[watched_case(path, reads, seed)] += 1
    finally:
        os.close(fd)
    return outcomes


def watched_case(path: Path, reads: WatchedReads, seed: int) -> str:
    reads.count = 0
    start = time.process_time()
    try:
        outcome = use_fully(path)
    except Exception as error:
        raise AssertionError(f"seed {seed}: {path.read_bytes()!r}") from error
    assert time.process_time() - start < MAX_SECONDS, f"seed {seed} takes too long"
    assert reads.count < MAX_READS, f"seed {seed} reads {reads.count} times"
    assert reads.outside == 0, f"seed {seed} reads outside the file"
    return outcome


def require_depth(outcomes: Counter[str], cases: int) -> None:
    """The damage must neither be all fatal nor all harmless, or it tests nothing."""
    assert outcomes.total() == cases
    assert all(outcomes[name] > cases // 50 for name in ("refused", "no model", "read")), outcomes


def test_the_seeds_are_sound(tmp_path: Path, reads: WatchedReads) -> None:
    for content in CONTENTS:
        path = tmp_path / "sound.gguf"
        path.write_bytes(content)
        assert use_fully(path) == "read"
    assert reads.count and not reads.outside


def test_a_read_outside_the_file_would_be_seen(tmp_path: Path, reads: WatchedReads) -> None:
    path = tmp_path / "short"
    path.write_bytes(b"abc")
    with path.open("rb") as file:
        source_module._read_at(file.fileno(), 4, 0)
    assert reads.outside == 1


def test_some_spoiled_headers(
    tmp_path: Path, reads: WatchedReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = fuzz(FAST_CASES, 10**9, tmp_path / "spoiled.gguf", reads, monkeypatch)
    require_depth(outcomes, FAST_CASES)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(SLOW_PARTS))
def test_a_hundred_thousand_spoiled_headers(
    part: int, tmp_path: Path, reads: WatchedReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SLOW_PARTS * SLOW_CASES >= 100_000
    path = tmp_path / "spoiled.gguf"
    outcomes = fuzz(SLOW_CASES, part * SLOW_CASES, path, reads, monkeypatch)
    require_depth(outcomes, SLOW_CASES)
