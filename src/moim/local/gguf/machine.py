"""How much memory this machine, or the container that we are in, can still give.

Each platform's own figure for memory that can be had without swapping; it counts cached file
pages as free, which is what makes it comparable with the weights of a mapped model.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from moim.errors import LocalError

_ENOUGH_FOR_COUNTERS = 1 << 20


def free_memory() -> int:
    """Bytes that a new process could use now.

    On Linux the lesser of the kernel's `MemAvailable` and what the limits of our control groups
    (version 1 and 2, and every group above ours) leave; elsewhere the system's available memory.

    Raises:
        LocalError: this platform does not say.
    """
    measure = _PLATFORMS.get(sys.platform, _portable)
    try:
        return max(0, measure())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise LocalError(
            f"Cannot find out how much memory is free ({type(error).__name__}).",
            hint="Local models run on Linux, macOS and Windows; use a provider's model here.",
        ) from error


def _portable() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _linux(root: Path = Path("/")) -> int:
    return min([_available(root), *_group_rooms(root)])


def _available(root: Path) -> int:
    for line in _text(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024  # the file says kB and means KiB
    return _portable()


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(_ENOUGH_FOR_COUNTERS)
    except OSError:
        return ""  # a kernel without this file, or one that hides it, sets no limit here


def _group_rooms(root: Path) -> Iterator[int]:
    """What each control group that limits our memory has left."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            yield from _rooms(root / "sys/fs/cgroup", group, _VERSION_2)
        elif "memory" in controllers.split(","):
            yield from _rooms(root / "sys/fs/cgroup/memory", group, _VERSION_1)


# Files with a group's limit and use, and the fields of its statistics that count file pages:
# they are part of the use, and the kernel gives them back before it refuses memory.
_VERSION_1 = (
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)
_VERSION_2 = ("memory.max", "memory.current", ("inactive_file", "active_file"))


def _rooms(mount: Path, group: str, names: tuple[str, str, tuple[str, str]]) -> Iterator[int]:
    limit_name, use_name, file_pages = names
    # In a container the group's path may be the host's: what is not below the mount is skipped.
    here = mount.joinpath(*[part for part in group.split("/") if part not in ("", "..")])
    for folder in (here, *here.parents):
        limit, use = _text(folder / limit_name).strip(), _text(folder / use_name).strip()
        if limit.isdigit() and use.isdigit():
            yield int(limit) - int(use) + _counters(folder / "memory.stat", file_pages)
        if folder == mount:
            return


def _counters(path: Path, wanted: tuple[str, ...]) -> int:
    fields = (line.split() for line in _text(path).splitlines())
    return sum(int(field[1]) for field in fields if len(field) == 2 and field[0] in wanted)


_WINDOWS_NUMBERS = 8  # MEMORYSTATUSEX, in 64-bit words; the low half of the first is its length
_AVAILABLE = 2


def _windows() -> int:
    import ctypes

    words = (ctypes.c_uint64 * _WINDOWS_NUMBERS)(8 * _WINDOWS_NUMBERS)
    if not ctypes.CDLL("kernel32").GlobalMemoryStatusEx(ctypes.byref(words)):
        raise OSError("GlobalMemoryStatusEx failed")
    return int(words[_AVAILABLE])


_HOST_VM_INFO64 = 4
_MACOS_COUNTERS = 38  # vm_statistics64, in 32-bit words
_FREE, _INACTIVE = 0, 2  # words of it, in pages


def _macos() -> int:
    import ctypes

    system = ctypes.CDLL("libSystem.dylib")
    words = (ctypes.c_uint32 * _MACOS_COUNTERS)()
    count = ctypes.c_uint32(_MACOS_COUNTERS)
    host = system.mach_host_self()
    if system.host_statistics64(host, _HOST_VM_INFO64, words, ctypes.byref(count)):
        raise OSError("host_statistics64 failed")
    return (words[_FREE] + words[_INACTIVE]) * os.sysconf("SC_PAGE_SIZE")


_PLATFORMS: dict[str, Callable[[], int]] = {
    "linux": _linux,
    "darwin": _macos,
    "win32": _windows,
}
