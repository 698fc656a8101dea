"""Which runners of this user exist, over all moim processes: what `moim ps` shows.

Each process writes a small file for each of its runners into one private folder, without the
key. A file says nothing by itself: a runner is believed in only while a process with its number
*and* its start time belongs to this user.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

__all__ = ["LoadedModel", "Registry", "identity", "memory_of"]

_RUNNERS = "runners"
_GONE_SECONDS = 5.0


class LoadedModel(Struct, frozen=True, kw_only=True):
    """A model that a runner of this user has in memory.

    Attributes:
        name: as the user knows it.
        path: of its file.
        pid: of the runner.
        owner: process that started the runner.
        since: when it was loaded, in seconds since 1970.
        expires: when it will be ended if nobody uses it; None while it is in use, or for ever.
        context: tokens of context of each slot.
        slots: requests that it answers at the same time.
        busy: calls that use it now.
        memory: bytes in physical memory, or None where the system does not say.
    """

    name: str
    path: str
    pid: int
    owner: int
    since: float
    expires: float | None = None
    context: int
    slots: int
    busy: int = 0
    memory: int | None = None


class _Entry(Struct, frozen=True):
    identity: str
    model: LoadedModel


class Registry:
    """The folder of runners.

    Nothing here raises: without a folder that can be written, each process knows its own
    runners only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = _default_folder() if folder is None else folder

    def write(self, model: LoadedModel) -> None:
        """Say that this runner exists, or what has changed about it."""
        known = identity(model.pid)
        if known is None:
            return
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self.folder / f".{model.pid}.{os.getpid()}"
            with open(temporary, "wb", opener=_private) as file:
                file.write(_encoded(_Entry(known, model)))
            temporary.replace(self._file(model.pid))

    def remove(self, pid: int) -> None:
        """Forget a runner that has ended."""
        with contextlib.suppress(OSError):
            self._file(pid).unlink()

    def loaded(self) -> list[LoadedModel]:
        """The runners that live, the oldest first. Files of dead ones are removed."""
        found = [
            msgspec.structs.replace(entry.model, memory=memory_of(entry.model.pid))
            for entry in self._living()
        ]
        return sorted(found, key=lambda model: model.since)

    def end(self, model: LoadedModel) -> bool:
        """End a runner, of whichever process; whether it is gone.

        The process is looked up once more by number and start time, so a stranger that has
        inherited the number is never hit.
        """
        known = [e.identity for e in self._living() if e.model.pid == model.pid]
        if not known:
            return True
        with contextlib.suppress(ProcessLookupError):
            _terminate(model.pid, known[0])
        deadline = time.monotonic() + _GONE_SECONDS
        while identity(model.pid) == known[0]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        self.remove(model.pid)
        return True

    def _living(self) -> Iterator[_Entry]:
        for file in sorted(self._files()):
            entry = _read(file)
            if entry is not None and identity(entry.model.pid) == entry.identity:
                yield entry
                continue
            with contextlib.suppress(OSError):
                file.unlink()

    def _files(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.suffix == ".json"]
        except OSError:
            return []

    def _file(self, pid: int) -> Path:
        return self.folder / f"{pid}.json"


def _default_folder() -> Path:
    """The user's runtime folder, which a reboot empties, else moim's data folder."""
    from moim.config import data_path

    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "moim" / _RUNNERS if runtime else data_path() / _RUNNERS


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _encoded(entry: _Entry) -> bytes:
    # Not by msgspec: the standard library takes file names in any encoding.
    return json.dumps(msgspec.to_builtins(entry)).encode()


def _read(file: Path) -> _Entry | None:
    try:
        if _is_foreign(file.lstat()):
            return None
        return msgspec.convert(json.loads(file.read_bytes()), _Entry)
    except (OSError, ValueError, RecursionError):
        return None


def _is_foreign(owned: os.stat_result) -> bool:
    """Whether a file or process is another user's; on Windows its folder keeps them out."""
    return sys.platform != "win32" and owned.st_uid != os.getuid()


def _terminate(pid: int, known: str) -> None:
    if not hasattr(os, "pidfd_open") or not hasattr(signal, "pidfd_send_signal"):
        os.kill(pid, signal.SIGTERM)
        return
    # The descriptor stays with the process that has the number now, so checking the start time
    # after opening it leaves no moment in which the number could change hands.
    handle = os.pidfd_open(pid)
    try:
        if identity(pid) == known:
            signal.pidfd_send_signal(handle, signal.SIGTERM)
    finally:
        os.close(handle)


def identity(pid: int) -> str | None:
    """What tells a process from any other that ever had its number; None if it is not there.

    A process that has ended and waits for its parent to notice is not there. On Windows nothing
    is known without further packages, so there each process knows its own runners only.
    """
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":
        return _linux_identity(pid)
    return _ps(pid, "lstart=")


def _linux_identity(pid: int) -> str | None:
    try:
        folder = Path(f"/proc/{pid}")
        if _is_foreign(folder.stat()):
            return None
        # The name in the second field may hold spaces and parentheses: count from its end.
        fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    state, started = fields[0], fields[19]
    return None if state in "ZX" else f"{_boot()}:{started}"


def _boot() -> str:
    """Start times count from the start of the machine, so each run of it has a name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def memory_of(pid: int) -> int | None:
    """Bytes of physical memory that a process holds, shared pages included."""
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):
            return None
        return pages * os.sysconf("SC_PAGE_SIZE")
    kilobytes = _ps(pid, "rss=")
    return int(kilobytes) * 1024 if kilobytes and kilobytes.isdigit() else None


def _ps(pid: int, field: str) -> str | None:
    try:
        shown = subprocess.run(
            ["ps", "-o", field, "-p", str(pid)], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return shown.stdout.strip() or None
