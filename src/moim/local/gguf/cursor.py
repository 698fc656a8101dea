"""Walks forward through a GGUF file's metadata, a chunk at a time and never past its end.

Long arrays, such as a vocabulary, are stepped over and read when somebody asks for them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, overload

from moim.errors import ModelFileError
from moim.local.gguf import tables
from moim.local.gguf.source import CUT_SHORT, Identity, Source, fault
from moim.local.gguf.tables import SCALARS, ValueType

U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
NEWER: Final = "The file may need a newer moim, or be damaged."
_CHUNK: Final = 256 << 10
_KEPT_ITEMS: Final = 1024  # arrays up to this length are read at once, longer ones on demand

Scalar: TypeAlias = "int | float | bool | str"


class Array(Sequence[Any]):
    """An array of metadata; a long one is read from its file when an item is first asked for.

    Attributes:
        type: the type of its items.

    Raises:
        ModelFileError: on first use, if the file was changed or removed since it was opened.
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        where: tuple[int, int],
        type: ValueType,
        items: tuple[Scalar, ...] | None = None,
    ) -> None:
        self.type = type
        self._path = path.absolute()  # the working folder may be another by then
        self._identity = identity
        self._offset, self._count = where
        self._items = items

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Scalar: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Scalar, ...]: ...
    def __getitem__(self, index: int | slice) -> Scalar | tuple[Scalar, ...]:
        return self._load()[index]

    def __iter__(self) -> Iterator[Scalar]:
        return iter(self._load())

    def __repr__(self) -> str:
        return f"<Array of {self._count} {self.type.name}>"

    def _load(self) -> tuple[Scalar, ...]:
        if self._items is None:
            with Source(self._path) as source:
                if source.identity != self._identity:
                    raise fault(self._path, "was changed since it was opened", "Open it again.")
                self._items = Cursor(source, self._offset).items(self.type, self._count)
        return self._items


Value: TypeAlias = "Scalar | Array"


class Cursor:
    """A place in a source, and the chunk around it."""

    def __init__(self, source: Source, offset: int = 0) -> None:
        self._source = source
        self._chunk = b""
        self._start = offset  # of the chunk, in the file
        self._at = 0  # in the chunk; beyond its end after a skip

    @property
    def path(self) -> Path:
        return self._source.path

    @property
    def offset(self) -> int:
        return self._start + self._at

    @property
    def remaining(self) -> int:
        return min(self._source.size, tables.MAX_METADATA) - self.offset

    def fault(self, what: str, hint: str = "") -> ModelFileError:
        return fault(self.path, f"{what} (at byte {self.offset})", hint)

    def require(self, length: int) -> None:
        if length <= self.remaining:
            return
        if self.offset + length <= self._source.size:
            raise self.fault("has more than 256 MiB of metadata")
        raise self.fault(f"ends where {length} more bytes should follow", CUT_SHORT)

    def _hold(self, length: int) -> None:
        """Makes the next `length` bytes part of the chunk."""
        if self._at + length <= len(self._chunk):
            return
        self.require(length)
        self._start, self._at = self.offset, 0
        wanted = min(max(length, _CHUNK), self.remaining)
        self._chunk = self._source.read(self._start, wanted)

    def take(self, length: int) -> bytes:
        self._hold(length)
        taken = self._chunk[self._at : self._at + length]
        self._at += length
        return taken

    def skip(self, length: int) -> None:
        self.require(length)
        self._at += length

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        self._hold(form.size)
        values = form.unpack_from(self._chunk, self._at)
        self._at += form.size
        return values

    def number(self, form: struct.Struct) -> int:
        value: int = self.unpack(form)[0]
        return value

    def text_bytes(self, what: str, limit: int) -> bytes:
        length = self.number(U64)
        if length > limit:
            raise self.fault(f"{what} of {length} bytes, and at most {limit} are allowed")
        return self.take(length)

    def text(self) -> str:
        return self.text_bytes("a string", tables.MAX_STRING).decode("utf-8", "replace")

    def name(self, what: str, limit: int) -> str:
        raw = self.text_bytes(what, limit)
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.fault(f"{what} that is not UTF-8") from error

    def value_type(self, what: str) -> ValueType:
        number = self.number(U32)
        if number > max(ValueType):
            raise self.fault(f"{what} has the unknown type {number}", NEWER)
        return ValueType(number)

    def items(self, type: ValueType, count: int) -> tuple[Scalar, ...]:
        if type is ValueType.STRING:
            return tuple([self.text() for _ in range(count)])
        form = SCALARS[type]
        packed = self.take(form.size * count)
        items = struct.unpack(f"<{count}{form.format[1:]}", packed)
        return self.booleans(items) if type is ValueType.BOOL else items

    def booleans(self, values: Sequence[int]) -> tuple[bool, ...]:
        if any(value > 1 for value in values):
            raise self.fault("a truth value that is neither 0 nor 1")
        return tuple([value == 1 for value in values])

    def skip_texts(self, count: int) -> None:
        # The inner loop is all that opening a model costs: a vocabulary and its merges are some
        # hundred thousand strings, and only their lengths say where the next one starts.
        length_at = U64.unpack_from
        while count:
            self._hold(8)
            chunk, at = self._chunk, self._at
            end = len(chunk)
            last = end - 8
            while count and at <= last:
                after = at + 8 + length_at(chunk, at)[0]
                if after > end:
                    break
                at = after
                count -= 1
            self._at = at
            if count and at <= last:
                self._skip_text()
                count -= 1

    def _skip_text(self) -> None:
        length = self.number(U64)
        if length > tables.MAX_STRING:
            raise self.fault(f"a string of {length} bytes, and at most 16 MiB are allowed")
        self.skip(length)

    def array(self) -> Array:
        type = self.value_type("an array's item")
        if type is ValueType.ARRAY:
            raise self.fault("an array of arrays, which no model needs")
        count = self.number(U64)
        smallest = 8 if type is ValueType.STRING else SCALARS[type].size
        if count > tables.MAX_ITEMS:
            raise self.fault(f"an array of {count} items, and at most {tables.MAX_ITEMS} may be")
        self.require(count * smallest)
        where = (self.offset, count)
        items = self.items(type, count) if count <= _KEPT_ITEMS else None
        if items is None:
            self._pass(type, count)
        return Array(self.path, self._source.identity, where, type, items)

    def _pass(self, type: ValueType, count: int) -> None:
        if type is ValueType.STRING:
            self.skip_texts(count)
        else:
            self.skip(SCALARS[type].size * count)

    def value(self, what: str) -> Value:
        type = self.value_type(what)
        if type is ValueType.STRING:
            return self.text()
        if type is ValueType.ARRAY:
            return self.array()
        value: int | float = self.unpack(SCALARS[type])[0]
        return self.booleans([int(value)])[0] if type is ValueType.BOOL else value
