"""Reads the metadata of a GGUF file and the list of its tensors, trusting nothing in it.

Layout (little-endian): magic, u32 version, u64 tensor count, u64 field count, fields, tensor
descriptions, padding, tensor data.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from moim.local.gguf import tables
from moim.local.gguf.cursor import NEWER, U32, U64, Cursor, Value
from moim.local.gguf.source import CUT_SHORT, Source, fault, shown
from moim.local.gguf.tables import TENSOR_TYPES, TensorType

_HEADER: Final = struct.Struct("<QQ")
_SMALLEST_FIELD: Final = 8 + 4 + 1  # an empty key, a type, a one-byte value
_SMALLEST_TENSOR: Final = 8 + 4 + 8 + 4 + 8  # an empty name, one dimension


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor's description.

    Attributes:
        name: its name, such as `blk.0.attn_q.weight`.
        dims: its one to four sizes, the fastest-varying first.
        type: how its numbers are stored.
        offset: its first byte, counted from the start of the file.
        nbytes: its length in bytes.
    """

    name: str
    dims: tuple[int, ...]
    type: TensorType
    offset: int
    nbytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return _product(self.dims)


class GGUF(msgspec.Struct, frozen=True):
    """What a GGUF file says about itself. It holds no open file.

    Attributes:
        path: the file.
        size: its length in bytes.
        version: of the format, 2 or 3.
        metadata: keys and values in file order; a value is an int, float, bool, str or `Array`.
        tensors: descriptions in file order.
        data_offset: where tensor data starts.
    """

    path: Path
    size: int
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offset: int


def read(path: str | os.PathLike[str]) -> GGUF:
    """Reads and checks a GGUF file's metadata and tensor list; its weights are not read.

    Keys have to be UTF-8. Text values that are not get U+FFFD where they are broken, since
    engines take them too.

    Raises:
        ModelFileError: there is no such file, it may not be read, it is no regular file, or its
            content is not well-formed GGUF of version 2 or 3 within moim's limits.
    """
    with Source(Path(path)) as source:
        return _parse(source)


def _parse(source: Source) -> GGUF:
    cursor = Cursor(source)
    version = _version(cursor)
    tensor_count, field_count = _counts(cursor)
    metadata = _metadata(cursor, field_count)
    alignment = _alignment(source.path, metadata)
    found = [_tensor(cursor) for _ in range(tensor_count)]
    data_offset = -(-cursor.offset // alignment) * alignment
    tensors = tuple(_place(source, info, data_offset, alignment) for info in found)
    _require_apart(source.path, tensors)
    return GGUF(
        path=source.path,
        size=source.size,
        version=version,
        metadata=MappingProxyType(metadata),
        tensors=tensors,
        data_offset=data_offset,
    )


_NOT_GGUF = "Name the model's .gguf file; if this should be it, fetch it again."


def _version(cursor: Cursor) -> int:
    if cursor.remaining == 0:
        raise fault(cursor.path, "is empty", CUT_SHORT)
    start = cursor.take(min(4, cursor.remaining))
    if start != tables.MAGIC:
        raise fault(cursor.path, "is not a GGUF file", _NOT_GGUF)
    version = cursor.number(U32)
    if version in tables.VERSIONS:
        return version
    if version and version & 0xFFFF == 0:
        raise fault(cursor.path, "is big-endian GGUF", "Convert it to little-endian.")
    if version == 1:
        raise fault(
            cursor.path,
            "is GGUF version 1, which no current engine reads",
            "Fetch a newer conversion of the model.",
        )
    raise fault(cursor.path, f"has the unknown GGUF version {version}", NEWER)


def _counts(cursor: Cursor) -> tuple[int, int]:
    tensors, fields = cursor.unpack(_HEADER)
    for what, count, limit, smallest in (
        ("tensors", tensors, tables.MAX_TENSORS, _SMALLEST_TENSOR),
        ("metadata fields", fields, tables.MAX_FIELDS, _SMALLEST_FIELD),
    ):
        if count > limit:
            raise cursor.fault(f"claims {count} {what}, and at most {limit} are allowed")
        if count * smallest > cursor.remaining:
            raise cursor.fault(f"claims {count} {what}, more than it has room for", CUT_SHORT)
    return tensors, fields


def _metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = cursor.name("a metadata key", tables.MAX_KEY)
        if key in metadata:
            raise cursor.fault(f"has the metadata key {shown(key)} twice")
        metadata[key] = cursor.value(shown(key))
    return metadata


def _alignment(path: Path, metadata: Mapping[str, Value]) -> int:
    value = metadata.get("general.alignment", tables.DEFAULT_ALIGNMENT)
    if isinstance(value, bool) or not isinstance(value, int) or value not in tables.ALIGNMENTS:
        told = shown(repr(value))
        raise fault(path, f"general.alignment is {told}, not a power of two from 8 to 65536")
    return value


def _tensor(cursor: Cursor) -> TensorInfo:
    """A tensor's description as it stands in the file: its offset is still relative."""
    name = cursor.name("a tensor name", tables.MAX_TENSOR_NAME)
    rank = cursor.number(U32)
    if not 1 <= rank <= tables.MAX_DIMS:
        raise cursor.fault(f"tensor {shown(name)} has {rank} dimensions, not 1 to 4")
    dims = tuple(cursor.number(U64) for _ in range(rank))
    number = cursor.number(U32)
    type = TENSOR_TYPES.get(number)
    if type is None:
        raise cursor.fault(f"tensor {shown(name)} has the unknown type {number}", NEWER)
    elements = _product(dims)
    if not 1 <= elements <= tables.MAX_ELEMENTS:
        raise cursor.fault(f"tensor {shown(name)} has the impossible sizes {dims}")
    if dims[0] % type.block:
        raise cursor.fault(
            f"tensor {shown(name)} has rows of {dims[0]} numbers, and {type.name} comes in"
            f" blocks of {type.block}"
        )
    return TensorInfo(
        name=name,
        dims=dims,
        type=type,
        offset=cursor.number(U64),
        nbytes=elements // type.block * type.size,
    )


def _place(source: Source, info: TensorInfo, data_offset: int, alignment: int) -> TensorInfo:
    if info.offset % alignment:
        raise fault(
            source.path,
            f"tensor {shown(info.name)} starts at {info.offset}, not at a multiple of {alignment}",
        )
    offset = data_offset + info.offset
    if offset + info.nbytes > source.size:
        raise fault(
            source.path,
            f"tensor {shown(info.name)} ends at byte {offset + info.nbytes}, and the file has"
            f" {source.size}",
            CUT_SHORT,
        )
    return msgspec.structs.replace(info, offset=offset)


def _require_apart(path: Path, tensors: Sequence[TensorInfo]) -> None:
    names: set[str] = set()
    for info in tensors:
        if info.name in names:
            raise fault(path, f"has two tensors named {shown(info.name)}")
        names.add(info.name)
    in_order = sorted(tensors, key=lambda info: info.offset)
    for info, following in itertools.pairwise(in_order):
        if info.offset + info.nbytes > following.offset:
            raise fault(path, f"tensors {shown(info.name)} and {shown(following.name)} overlap")


def _product(dims: Sequence[int]) -> int:
    product = 1
    for dim in dims:
        product *= dim
    return product
