"""How many processor cores this process may use.

Generation with more threads than cores is several times slower than with as many (measured: 27
against 98 tokens a second with 4 threads on 2 cores), so the count must not be too high: neither
hyperthreads, nor cores that an affinity mask or a container's quota withholds.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["usable_cores"]


def usable_cores(root: Path = Path("/")) -> int | None:
    """Physical cores that this process may use, at least 1; None where it cannot be known.

    None stands for systems other than Linux, where the engine's own count is as good.

    Args:
        root: where `proc` and `sys` are; tests give a folder of their own.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = _physical(os.sched_getaffinity(0), root / "sys/devices/system/cpu")
    quota = _quota(root)
    return cores if quota is None else max(1, min(cores, int(quota)))


def _physical(processors: set[int], folder: Path) -> int:
    """Hyperthreads of one core name the same siblings, so the distinct names are the cores."""
    siblings = {
        _read(folder / f"cpu{n}/topology/thread_siblings_list") or f"cpu{n}" for n in processors
    }
    return max(1, len(siblings))


def _quota(root: Path) -> float | None:
    """Cores' worth of time that a control group grants: the least of all groups above us."""
    groups = [line.split(":", 2) for line in _read(root / "proc/self/cgroup").splitlines()]
    found = [
        cores
        for _, controllers, path in (group for group in groups if len(group) == 3)
        for folder in _folders(root / "sys/fs/cgroup", controllers, path)
        if (cores := _granted(folder)) is not None
    ]
    return min(found, default=None)


def _folders(mount: Path, controllers: str, path: str) -> list[Path]:
    """Where a group's files may lie, from its own folder up to the mount.

    Inside a container the path is often the host's, which is not there: then only the mount is.
    """
    if controllers and "cpu" not in controllers.split(","):
        return []
    top = mount / "cpu" if controllers else mount
    own = top / path.strip("/")
    return [own, *(parent for parent in own.parents if parent.is_relative_to(top))]


def _granted(folder: Path) -> float | None:
    second = _read(folder / "cpu.max").split()
    first = [_read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")]
    for pair in (second, first):
        if len(pair) == 2 and all(text.isdigit() and int(text) > 0 for text in pair):
            return int(pair[0]) / int(pair[1])
    return None


def _read(path: Path) -> str:
    """A small file of the kernel's, or an empty string where there is none."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
