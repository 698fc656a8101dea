"""Writing to the disk so that a kill, a full disk or another process never leaves half a file."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from moim.errors import StoreError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = [
    "exclusive",
    "require_space",
    "storage_errors",
    "sync_folder",
    "write_all",
    "write_atomically",
]

_ELSEWHERE = "or set MOIM_MODELS to a folder on another disk."
_FAULTS = {
    errno.ENOSPC: ("the disk is full", f"Free space there, {_ELSEWHERE}"),
    errno.EDQUOT: ("the disk quota is used up", f"Free space there, {_ELSEWHERE}"),
    errno.EFBIG: (
        "the file system or a limit of this process does not allow a file so large",
        "Set MOIM_MODELS to a folder on another disk, or raise the limit (ulimit -f).",
    ),
    errno.EROFS: (
        "the file system is read-only",
        "Set MOIM_MODELS to a folder that can be written.",
    ),
    errno.EACCES: (
        "permission denied",
        "Give this user access to it, or set MOIM_MODELS to a folder that can be written.",
    ),
    errno.EPERM: (
        "the operation is not permitted",
        "Give this user access to it, or set MOIM_MODELS to a folder that can be written.",
    ),
    errno.ENOTDIR: (
        "a file is where a folder should be",
        "Move that file away, or set MOIM_MODELS to a folder.",
    ),
    errno.EEXIST: (
        "a file is where a folder should be",
        "Move that file away, or set MOIM_MODELS to a folder.",
    ),
    errno.EISDIR: ("a folder is where a file should be", "Move that folder away."),
    errno.ENOENT: ("it is missing", "Pull the model again, or check MOIM_MODELS."),
    errno.ENAMETOOLONG: (
        "the name is too long for the file system",
        "Use a shorter name, or a folder nearer to the root as MOIM_MODELS.",
    ),
    errno.ENOLCK: (
        "the file system has no file locks",
        "Set MOIM_MODELS to a folder on a local disk.",
    ),
    errno.ENOTSUP: (
        "the file system has no file locks",
        "Set MOIM_MODELS to a folder on a local disk.",
    ),
}


@contextlib.contextmanager
def storage_errors(doing: str, path: Path) -> Iterator[None]:
    """Turns an `OSError` of the block into a `StoreError`.

    Args:
        doing: what could not be done, for example "write the model store".
        path: what it was done to, where the error itself names no file.
    """
    try:
        yield
    except OSError as error:
        # With str, since an error that crossed shutil or zipfile may hold a bytes name.
        where = os.fsdecode(error.filename) if error.filename else str(path)
        what, hint = _FAULTS.get(
            error.errno or 0, (error.strerror or type(error).__name__, "Check that disk.")
        )
        raise StoreError(f"Could not {doing}: {where}: {what}.", hint=hint) from error


def write_atomically(path: Path, data: bytes, temporary: Path) -> None:
    """Writes `path` so that it holds either what it held before or all of `data`.

    Args:
        path: the file; its folder is made if need be.
        data: what the file shall hold.
        temporary: a name on the same file system that no other process uses meanwhile.

    Raises:
        StoreError: the disk refuses; nothing new is left on it.
    """
    with storage_errors("write the model store", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def write_all(file: BinaryIO, data: bytes) -> None:
    """Writes all of `data` to an unbuffered file, which may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable; Windows does so by itself."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems know no fsync for folders: there the name is as safe as it gets.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Checks that `needed` bytes can be written below an existing folder.

    Raises:
        StoreError: there is less; both figures are in the message.
    """
    import shutil

    with storage_errors("read the free space", folder):
        free = shutil.disk_usage(folder).free
    if needed > free:
        raise StoreError(
            f"{purpose} needs {needed / 1e6:,.0f} MB on the disk of {folder}, "
            f"where {free / 1e6:,.0f} MB are free.",
            hint=_FAULTS[errno.ENOSPC][1],
        )


@contextlib.contextmanager
def exclusive(
    path: Path, *, waiting: Callable[[], None] | None = None, interval: float = 0.1
) -> Iterator[None]:
    """Holds a lock that no other process or thread holds at the same time.

    The operating system releases it when its holder dies, however it dies.

    Args:
        path: the lock's file; made, and removed afterwards where that is safe.
        waiting: called before each further try while somebody else holds the lock.
        interval: seconds between two tries.

    Raises:
        StoreError: the file cannot be made or locked.
    """
    with storage_errors("lock the model store", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _try_lock(path)
    while descriptor is None:
        if waiting is not None:
            waiting()
        time.sleep(interval)
        with storage_errors("lock the model store", path):
            descriptor = _try_lock(path)
    try:
        yield
    finally:
        _unlock(path, descriptor)


if sys.platform == "win32":

    def _try_lock(path: Path) -> int | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor

    def _unlock(path: Path, descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        os.close(descriptor)

else:

    def _try_lock(path: Path) -> int | None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        if _still_at(path, descriptor):
            return descriptor
        os.close(descriptor)
        return None

    def _still_at(path: Path, descriptor: int) -> bool:
        # The holder before us removes the file: a lock on a removed file excludes nobody.
        try:
            return os.path.samestat(path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _unlock(path: Path, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)
