"""Bounded reads of a file that nobody promises to leave alone.

Reads are positioned and checked one by one instead of mapped: a mapped file that shrinks ends
the process with SIGBUS, a short read is an error like any other.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from moim.errors import ModelFileError

_OPEN_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a FIFO that takes the file's place must not block us
    | getattr(os, "O_NOCTTY", 0)
)
_LONGEST_SHOWN = 120
_DAMAGED = "The file is damaged or was made to do harm: fetch it from a source that you trust."


class Identity(NamedTuple):
    """What tells one state of a file from another."""

    device: int
    inode: int
    size: int
    mtime_ns: int


def shown(text: object, limit: int = _LONGEST_SHOWN) -> str:
    """`text` fit for a one-line message: control characters escaped, at most `limit` long."""
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text)[: limit + 1])
    return line if len(line) <= limit else line[: limit - 1] + "…"


def fault(path: Path, what: str, hint: str = "") -> ModelFileError:
    """The error for a file that cannot be read as a model: says which file and what is wrong."""
    return ModelFileError(f"{shown(path, 4096)}: {what}.", hint=hint or _DAMAGED)


class Source:
    """A regular file, open for reading at given offsets within the size it had when opened.

    Use it as a context manager. One instance belongs to one thread.

    Attributes:
        path: the file.
        size: its length in bytes when it was opened.
        identity: tells whether a later opening finds the same content.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = _open(path)
        found = os.fstat(self._fd)
        self.size = found.st_size
        self.identity = Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def read(self, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            ModelFileError: the range is not inside the file, the file shrank after it was
                opened, or the disk failed.
        """
        if length < 0 or offset < 0 or offset + length > self.size:
            raise fault(self.path, f"byte {offset + length} is wanted of {self.size}", CUT_SHORT)
        parts = []
        while length:
            try:
                part = _read_at(self._fd, length, offset)
            except OSError as error:
                raise fault(
                    self.path, f"cannot be read ({error.strerror})", "Check the disk it is on."
                ) from error
            if not part:
                raise fault(
                    self.path,
                    f"became shorter than {offset + length} bytes while it was read",
                    "Wait until the program that writes the file is done.",
                )
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


CUT_SHORT = "The file may be cut short: fetch it again."


def _open(path: Path) -> int:
    try:
        _require_regular(path, path.stat())  # before opening: opening a device can do things
        fd = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        raise _open_fault(path, error) from error
    except ValueError as error:
        raise fault(path, "no file can have this name", "Check the path.") from error
    try:
        _require_regular(path, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_regular(path: Path, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    kind = next((name for test, name in _KINDS if test(found.st_mode)), "not a regular file")
    hint = "Name the .gguf file in it." if stat.S_ISDIR(found.st_mode) else "Name a .gguf file."
    raise fault(path, f"is {kind}, not a file", hint)


_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)


def _open_fault(path: Path, error: OSError) -> ModelFileError:
    if isinstance(error, FileNotFoundError):
        return fault(path, "there is no such file", "Check the path.")
    if isinstance(error, PermissionError):
        return fault(path, "may not be read", "Change the file's permissions or its owner.")
    return fault(path, f"cannot be opened ({error.strerror})", "Check the path and its disk.")


if sys.platform == "win32":

    def _read_at(fd: int, length: int, offset: int) -> bytes:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, length)

else:

    def _read_at(fd: int, length: int, offset: int) -> bytes:
        return os.pread(fd, length, offset)
