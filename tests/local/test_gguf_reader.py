"""The GGUF reader: what is written is what is read, and whatever is wrong is one clear error."""

from __future__ import annotations

import gc
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_gguf import run_engine

from moim.errors import ModelFileError
from moim.local.gguf import GGUF, TENSOR_TYPES, Array, ValueType, read
from moim.local.gguf import cursor as cursor_module
from moim.local.gguf import source as source_module
from moim.testing.tiny_gguf import GGUFBuilder, encode_text, write

V = ValueType

INTEGERS = {
    V.UINT8: (0, 2**8 - 1),
    V.INT8: (-(2**7), 2**7 - 1),
    V.UINT16: (0, 2**16 - 1),
    V.INT16: (-(2**15), 2**15 - 1),
    V.UINT32: (0, 2**32 - 1),
    V.INT32: (-(2**31), 2**31 - 1),
    V.UINT64: (0, 2**64 - 1),
    V.INT64: (-(2**63), 2**63 - 1),
}
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS: dict[ValueType, st.SearchStrategy[Any]] = {
    **{kind: st.integers(low, high) for kind, (low, high) in INTEGERS.items()},
    V.FLOAT32: st.floats(width=32, allow_nan=False),
    V.FLOAT64: st.floats(allow_nan=False),
    V.BOOL: st.booleans(),
    V.STRING: texts,
}


def values_of(kind: ValueType) -> st.SearchStrategy[tuple[ValueType, Any]]:
    return SCALARS[kind].map(lambda value: (kind, value))


def arrays_of(kind: ValueType) -> st.SearchStrategy[tuple[ValueType, Any]]:
    items = st.lists(SCALARS[kind], max_size=12)
    return items.map(lambda listed: (V.ARRAY, (kind, listed)))


fields = st.sampled_from(list(SCALARS)).flatmap(lambda k: st.one_of(values_of(k), arrays_of(k)))
reserved = {"general.alignment"}


@st.composite
def tensors(draw: st.DrawFn) -> tuple[tuple[int, ...], int, bytes]:
    number = draw(st.sampled_from(list(TENSOR_TYPES)))
    kind = TENSOR_TYPES[number]
    first = kind.block * draw(st.integers(1, 2))
    dims = (first, *draw(st.lists(st.integers(1, 3), max_size=3)))
    elements = first
    for dim in dims[1:]:
        elements *= dim
    data = draw(st.binary(min_size=1, max_size=1)) * (elements // kind.block * kind.size)
    return dims, number, data


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    version=st.sampled_from([2, 3]),
    alignment=st.sampled_from([8, 16, 32, 64, 65536]),
    written=st.dictionaries(texts.filter(lambda key: key not in reserved), fields, max_size=8),
    parts=st.lists(tensors(), max_size=4),
    chunk=st.sampled_from([1, 13, 256 << 10]),
    kept=st.sampled_from([0, 3, 1024]),
)
def test_what_is_written_is_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: int,
    alignment: int,
    written: dict[str, tuple[ValueType, Any]],
    parts: list[tuple[tuple[int, ...], int, bytes]],
    chunk: int,
    kept: int,
) -> None:
    monkeypatch.setattr(cursor_module, "_CHUNK", chunk)
    monkeypatch.setattr(cursor_module, "_KEPT_ITEMS", kept)
    builder = GGUFBuilder(version=version, alignment=alignment)
    builder.add("general.alignment", V.UINT32, alignment)
    for key, (kind, value) in written.items():
        builder.add(key, kind, value)
    for index, (dims, number, data) in enumerate(parts):
        builder.add_tensor(f"t{index}", dims, number, data)
    path = tmp_path / "any.gguf"
    path.write_bytes(builder.build())

    gguf = read(path)

    expected = {
        key: value[1] if kind is V.ARRAY else value for key, (kind, value) in written.items()
    }
    found = {k: list(v) if isinstance(v, Array) else v for k, v in gguf.metadata.items()}
    assert found == {"general.alignment": alignment, **expected}
    assert list(gguf.metadata) == ["general.alignment", *written]
    for key, (kind, value) in written.items():
        if kind is V.ARRAY:
            array = gguf.metadata[key]
            assert isinstance(array, Array) and array.type is value[0]
        else:
            assert isinstance(gguf.metadata[key], bool) == (kind is V.BOOL)
    assert (gguf.version, gguf.size, gguf.path) == (version, path.stat().st_size, path)
    content = path.read_bytes()
    assert [info.name for info in gguf.tensors] == [f"t{index}" for index in range(len(parts))]
    for info, (dims, number, data) in zip(gguf.tensors, parts, strict=True):
        assert (info.dims, info.type) == (dims, TENSOR_TYPES[number])
        assert info.offset % alignment == 0 or gguf.data_offset % alignment == 0
        assert content[info.offset : info.offset + info.nbytes] == data


def model() -> GGUFBuilder:
    """A small sound file; the tests below each make one thing wrong in it."""
    builder = GGUFBuilder()
    builder.add("general.architecture", V.STRING, "llama")
    builder.add_array("some.numbers", V.UINT16, [1, 2, 3])
    builder.add_tensor("a", (32, 2), 2, bytes(36))
    return builder.add_tensor("b", (4,), 0, bytes(16))


def patched(at: int, form: str, value: int) -> Callable[[], bytes]:
    def build() -> bytes:
        content = bytearray(model().build())
        struct.pack_into(form, content, at, value)
        return bytes(content)

    return build


def only_field(kind: int, value: Any) -> Callable[[], bytes]:
    return lambda: GGUFBuilder().add("k", kind, value).build()


def only_tensor(name: str | bytes, dims: tuple[int, ...], kind: int) -> Callable[[], bytes]:
    return lambda: GGUFBuilder().add_tensor(name, dims, kind, bytes(64)).build()


def aligned(value: int, kind: int = V.UINT32) -> Callable[[], bytes]:
    return lambda: GGUFBuilder().add("general.alignment", kind, value).build()


def array_head(item: int, count: int, data: bytes = b"") -> Callable[[], bytes]:
    return only_field(V.ARRAY, struct.pack("<IQ", item, count) + data)


def two_tensors(second: str, offset: int) -> Callable[[], bytes]:
    def build() -> bytes:
        builder = GGUFBuilder().add_tensor("a", (16,), 0, bytes(64))
        return builder.add_tensor(second, (16,), 0, bytes(64), offset=offset).build()

    return build


MALFORMED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing at all": (lambda: b"", "is empty"),
    "another magic": (lambda: b"PK\3\4" + bytes(60), "is not a GGUF file"),
    "the magic alone": (lambda: b"GGUF", "ends where 4 more bytes"),
    "two bytes": (lambda: b"GG", "is not a GGUF file"),
    "version 0": (patched(4, "<I", 0), "unknown GGUF version 0"),
    "version 1": (patched(4, "<I", 1), "version 1"),
    "version 4": (patched(4, "<I", 4), "unknown GGUF version 4"),
    "big-endian": (patched(4, ">I", 3), "big-endian"),
    "too many tensors": (patched(8, "<Q", 65_537), "claims 65537 tensors"),
    "huge number of tensors": (patched(8, "<Q", 2**64 - 1), "claims 18446744073709551615 tensors"),
    "more tensors than bytes": (patched(8, "<Q", 60_000), "more than it has room for"),
    "too many fields": (patched(16, "<Q", 16_385), "claims 16385 metadata fields"),
    "more fields than bytes": (patched(16, "<Q", 16_000), "more than it has room for"),
    "long key": (patched(24, "<Q", 65_536), "a metadata key of 65536 bytes"),
    "endless key": (patched(24, "<Q", 2**64 - 1), "a metadata key of"),
    "key beyond the end": (patched(24, "<Q", 60_000), "ends where 60000 more bytes"),
    "key that is not UTF-8": (
        lambda: GGUFBuilder().add(b"\xff", V.BOOL, True).build(),
        "not UTF-8",
    ),
    "key twice": (
        lambda: GGUFBuilder().add("k", V.BOOL, True).add("k", V.BOOL, True).build(),
        "has the metadata key k twice",
    ),
    "unknown value type": (only_field(13, bytes(8)), "the unknown type 13"),
    "long string": (
        lambda: GGUFBuilder().add("k", V.STRING, "").build()[:-8] + struct.pack("<Q", 2**24 + 1),
        "a string of 16777217",
    ),
    "string beyond the end": (
        lambda: GGUFBuilder().add("k", V.STRING, "abcdef").build()[:-1],
        "ends where 6 more bytes",
    ),
    "truth value 2": (only_field(V.BOOL, b"\2"), "neither 0 nor 1"),
    "truth value 2 in an array": (array_head(V.BOOL, 2, b"\1\2"), "neither 0 nor 1"),
    "array of arrays": (array_head(V.ARRAY, 1, bytes(20)), "an array of arrays"),
    "array of an unknown type": (array_head(99, 1, bytes(20)), "the unknown type 99"),
    "array with too many items": (array_head(V.UINT8, 2**22 + 1), "an array of 4194305 items"),
    "array beyond the end": (array_head(V.UINT64, 1000), "ends where 8000 more bytes"),
    "strings beyond the end": (array_head(V.STRING, 1, struct.pack("<Q", 5)), "5 more bytes"),
    "alignment 0": (aligned(0), "general.alignment is 0"),
    "alignment 3": (aligned(3), "general.alignment is 3"),
    "alignment 131072": (aligned(131_072), "general.alignment is 131072"),
    "alignment as text": (
        lambda: GGUFBuilder().add("general.alignment", V.STRING, "32").build(),
        "general.alignment is '32'",
    ),
    "tensor with a long name": (only_tensor("n" * 64, (16,), 0), "a tensor name of 64 bytes"),
    "tensor name that is not UTF-8": (only_tensor(b"\xff", (16,), 0), "not UTF-8"),
    "tensor without dimensions": (only_tensor("t", (), 0), "has 0 dimensions"),
    "tensor with 5 dimensions": (only_tensor("t", (1,) * 5, 0), "has 5 dimensions"),
    "tensor with a size of 0": (only_tensor("t", (16, 0), 0), "impossible sizes"),
    "tensor that overflows": (only_tensor("t", (2**32, 2**31), 0), "impossible sizes"),
    "tensor that wraps around": (only_tensor("t", (2**40, 2**40, 2**40), 0), "impossible sizes"),
    "tensor of a removed type": (only_tensor("t", (32,), 4), "the unknown type 4"),
    "tensor of an unknown type": (only_tensor("t", (32,), 2**32 - 1), "the unknown type"),
    "tensor with half a block": (only_tensor("t", (48,), 8), "blocks of 32"),
    "tensor beyond the end": (lambda: model().build()[:-1], "ends at byte"),
    "tensor far beyond the end": (two_tensors("b", 2**63), "ends at byte"),
    "tensor off its alignment": (two_tensors("b", 72), "not at a multiple of 32"),
    "tensors that overlap": (two_tensors("b", 32), "tensors a and b overlap"),
    "tensors with one name": (two_tensors("a", 64), "two tensors named a"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_is_one_clear_error(case: str, tmp_path: Path) -> None:
    build, told = MALFORMED[case]
    path = tmp_path / "wrong.gguf"
    path.write_bytes(build())
    with pytest.raises(ModelFileError) as caught:
        read(path)
    assert told in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_the_sound_file_that_the_cases_spoil_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "sound.gguf"
    path.write_bytes(model().build())
    assert [info.nbytes for info in read(path).tensors] == [36, 16]


def test_text_that_is_not_utf_8_is_kept_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "latin.gguf"
    path.write_bytes(GGUFBuilder().add("k", V.STRING, b"caf\xe9!").build())
    assert read(path).metadata["k"] == "caf�!"


def test_a_message_is_one_short_line_whatever_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "shouting.gguf"
    key = "\x1b[31m\n" + "x" * 60_000
    path.write_bytes(GGUFBuilder().add(key, 77, b"").build())
    with pytest.raises(ModelFileError) as caught:
        read(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < len(str(path)) + 400


def test_metadata_beyond_256_mib_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.gguf"
    builder = GGUFBuilder()
    for index in range(17):
        builder.add(f"k{index}", V.STRING, b"")
    content = bytearray(builder.build())
    whole = 16 << 20
    with path.open("wb") as file:  # sparse: each string claims 16 MiB of holes
        file.write(content[:24])
        for index in range(17):
            file.write(encode_text(f"k{index}") + struct.pack("<IQ", V.STRING, whole))
            file.seek(whole, os.SEEK_CUR)
        file.truncate(file.tell() + 1)
    with pytest.raises(ModelFileError, match="more than 256 MiB of metadata"):
        read(path)


def long_strings(folder: Path, length: int, room: int) -> Path:
    """An array too long to be kept, whose last string claims `length` bytes of holes."""
    builder = GGUFBuilder().add_array("words", V.STRING, ["w"] * 2000)
    path = folder / "long.gguf"
    path.write_bytes(builder.build()[:-9] + struct.pack("<Q", length))
    os.truncate(path, path.stat().st_size + room)
    return path


def test_a_string_in_a_long_array_has_the_same_limits(tmp_path: Path) -> None:
    assert len(read(long_strings(tmp_path, 1 << 24, 1 << 24)).metadata) == 1
    with pytest.raises(ModelFileError, match="a string of 16777217 bytes"):
        read(long_strings(tmp_path, (1 << 24) + 1, 1 << 25))
    with pytest.raises(ModelFileError, match="ends where 100 more bytes"):
        read(long_strings(tmp_path, 100, 99))
    with pytest.raises(ModelFileError, match="a string of"):
        read(long_strings(tmp_path, (1 << 64) - 1, 99))


def test_a_count_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "zeros.gguf"
    path.write_bytes(array_head(V.STRING, 1 << 22)() + bytes(4 << 20))  # empty strings, too few
    taken = count_reads(monkeypatch)
    with pytest.raises(ModelFileError, match="ends where 33554432 more bytes"):
        read(path)
    assert len(taken) == 1


def test_nothing_outside_a_file_can_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "three"
    path.write_bytes(b"abc")
    with source_module.Source(path) as source:
        assert (source.read(1, 2), source.read(3, 0)) == (b"bc", b"")
        for offset, length in ((0, 4), (3, 1), (-1, 2), (2, -1), (1 << 70, 1)):
            with pytest.raises(ModelFileError):
                source.read(offset, length)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a named pipe")
def test_a_pipe_that_takes_the_files_place_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(model().build())
    real = source_module._require_regular

    def swapping(path: Path, found: os.stat_result) -> None:
        real(path, found)
        path.unlink()
        os.mkfifo(path)

    monkeypatch.setattr(source_module, "_require_regular", swapping)
    refused: list[ModelFileError] = []

    def attempt() -> None:
        try:
            read(path)
        except ModelFileError as error:
            refused.append(error)

    reader = threading.Thread(target=attempt, daemon=True)
    reader.start()
    reader.join(10)
    assert [str(error).split(": ")[1][:9] for error in refused] == ["is a pipe"]


def not_files(folder: Path) -> dict[str, tuple[Path, str]]:
    places = {
        "missing": (folder / "missing.gguf", "there is no such file"),
        "folder": (folder, "is a directory"),
        "name too long": (folder / ("n" * 5000), "cannot be opened"),
        "a NUL in its name": (folder / "a\0b", "no file can have this name"),
        "below a file": (folder / "plain" / "x.gguf", "cannot be opened"),
    }
    (folder / "plain").write_text("x")
    if sys.platform != "win32":
        os.mkfifo(folder / "pipe")
        (folder / "loop").symlink_to(folder / "loop")
        places |= {
            "pipe": (folder / "pipe", "is a pipe"),
            "device": (Path("/dev/zero"), "is a device"),
            "loop": (folder / "loop", "cannot be opened"),
        }
    return places


def test_what_is_not_a_file_is_one_clear_error(tmp_path: Path) -> None:
    for path, told in not_files(tmp_path).values():
        with pytest.raises(ModelFileError, match=told):
            read(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets have a place in the file system")
def test_a_socket_is_not_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may have about 100 characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(ModelFileError, match="is a socket"):
            read("s")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs Unix users")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "private.gguf"
    path.write_bytes(model().build())
    path.chmod(0)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ModelFileError, match="may not be read"):
            read(path)
    finally:
        os.seteuid(was)


def long_file(path: Path) -> Path:
    """A vocabulary in the middle of the metadata, long enough to be left on disk."""
    builder = GGUFBuilder().add_array("words", V.STRING, [f"word{n}" for n in range(50_000)])
    builder.add_array("scores", V.FLOAT32, [float(n) for n in range(50_000)])
    builder.add_array("merges", V.STRING, [f"a{n} b{n}" for n in range(50_000)])
    builder.add("after", V.STRING, "the end").add_tensor("t", (16,), 0, bytes(64))
    path.write_bytes(builder.build())
    return path


def test_long_arrays_are_read_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = count_reads(monkeypatch)
    path = tmp_path / "numbers.gguf"
    numbers = [float(n) for n in range(1_000_000)]
    builder = GGUFBuilder().add_array("numbers", V.FLOAT32, numbers)
    path.write_bytes(builder.add("after", V.UINT8, 7).build())

    gguf = read(path)
    assert gguf.metadata["after"] == 7
    assert sum(taken) < 1 << 20 < gguf.size
    array = gguf.metadata["numbers"]
    assert isinstance(array, Array)
    assert (len(array), array[999_999], array[1:3]) == (1_000_000, 999_999.0, (1.0, 2.0))
    assert sum(taken) > gguf.size - 100


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    taken: list[int] = []
    real = source_module._read_at

    def counted(fd: int, length: int, offset: int) -> bytes:
        taken.append(length)
        return real(fd, length, offset)

    monkeypatch.setattr(source_module, "_read_at", counted)
    return taken


def test_a_long_array_of_another_file_is_not_read(tmp_path: Path) -> None:
    path = long_file(tmp_path / "long.gguf")
    words, scores = (read(path).metadata[key] for key in ("words", "scores"))
    assert isinstance(words, Array) and isinstance(scores, Array)
    assert words[49_999] == "word49999"
    path.write_bytes(path.read_bytes() + b"!")
    assert words[0] == "word0"  # was already read
    with pytest.raises(ModelFileError, match="was changed"):
        scores[0]
    path.unlink()
    with pytest.raises(ModelFileError, match="no such file"):
        len(list(scores))


def test_a_file_found_by_a_relative_path_stays_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_file(tmp_path / "long.gguf")
    monkeypatch.chdir(tmp_path)
    words = read("long.gguf").metadata["words"]
    monkeypatch.chdir("/")
    assert isinstance(words, Array) and words[7] == "word7"


def test_opening_a_vocabulary_is_quick(tmp_path: Path) -> None:
    path = long_file(tmp_path / "long.gguf")
    times = []
    for _ in range(5):
        start = time.process_time()
        read(path)
        times.append(time.process_time() - start)
    assert min(times) < 0.15  # 0.012 s where this was written; a list of the strings takes 0.06


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    sound, wrong = long_file(tmp_path / "a.gguf"), tmp_path / "b.gguf"
    wrong.write_bytes(b"GGUF")
    gc.collect()
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept: list[GGUF] = [read(sound) for _ in range(3)]
    for path in (wrong, tmp_path, tmp_path / "missing"):
        with pytest.raises(ModelFileError):
            read(path)
    assert len(kept) == 3 and len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_that_shrinks_between_two_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut at every read in turn, to every kind of length: an error, or the right answer."""
    path = write(tmp_path / "tiny.gguf")
    content = path.read_bytes()
    right = read(path)
    monkeypatch.setattr(cursor_module, "_CHUNK", 1000)
    monkeypatch.setattr(cursor_module, "_KEPT_ITEMS", 0)
    real = source_module._read_at
    reads = count_reads(monkeypatch)
    read(path)
    refused = 0
    for moment in range(len(reads)):
        for left in (0, 30, 1000, len(content) - 1):
            path.write_bytes(content)
            calls = iter(range(10_000))

            def cutting(fd: int, length: int, offset: int, m: int = moment, k: int = left) -> bytes:
                if next(calls) == m:  # noqa: B023 - used up before the next round
                    os.truncate(path, k)
                return real(fd, length, offset)

            monkeypatch.setattr(source_module, "_read_at", cutting)
            try:
                found = read(path)
            except ModelFileError as error:
                assert "became shorter" in str(error)
                refused += 1
            else:
                assert found.tensors == right.tensors
                assert list(found.metadata) == list(right.metadata)
    assert refused > 10


def test_a_file_that_another_thread_keeps_cutting(tmp_path: Path) -> None:
    path = long_file(tmp_path / "long.gguf")
    content = path.read_bytes()
    stop = threading.Event()

    def cut_and_mend() -> None:
        while not stop.is_set():
            for left in (0, len(content) // 2, len(content) - 1):
                with path.open("r+b") as file:
                    file.truncate(left)
                    file.seek(0)
                    file.write(content)

    writer = threading.Thread(target=cut_and_mend)
    writer.start()
    outcomes: set[object] = set()
    try:
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline and len(outcomes) < 2:
            try:
                outcomes.add(read(path).metadata["after"])
            except ModelFileError:
                outcomes.add("refused")
    finally:
        stop.set()
        writer.join(10)
    assert not writer.is_alive()
    assert outcomes <= {"the end", "refused"} and "refused" in outcomes


def test_tensor_types_are_the_engines(tmp_path: Path) -> None:
    """The engine finds the second tensor only where our table says that the first one ends."""
    paths = []
    for number, kind in TENSOR_TYPES.items():
        builder = GGUFBuilder().add("general.architecture", V.STRING, "llama")
        builder.add_tensor("a", (kind.block, 64), number, bytes(64 * kind.size))
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(builder.add_tensor("b", (4,), 0, bytes(16)).build())
        paths.append(path)
    wrong = GGUFBuilder().add("general.architecture", V.STRING, "llama")
    wrong.add_tensor("a", (32, 64), 2, bytes(64 * 20)).add_tensor("b", (4,), 0, bytes(16))
    (tmp_path / "wrong.gguf").write_bytes(wrong.build())

    *runs, wrong_run = run_engine(*paths, tmp_path / "wrong.gguf")

    refusals = [run.log for run in runs if "gguf_init_from" in run.log]
    assert refusals == []
    assert "has offset" in wrong_run.log  # so the engine does look
    assert all(f"({kind.name.lower()})" not in wrong_run.log for kind in TENSOR_TYPES.values())


def test_the_engines_tensor_types_are_ours() -> None:
    import xllamacpp

    kinds: Any = vars(xllamacpp)["ggml_type"]
    theirs = {int(kind): kind.name.removeprefix("GGML_TYPE_") for kind in kinds}
    theirs = {number: name for number, name in theirs.items() if name != "COUNT"}
    assert theirs == {number: kind.name for number, kind in TENSOR_TYPES.items()}
