"""Interleaved measurement: each round runs every arm once, so a busy machine is busy for all.

A ratio is taken within each round and then summed up, never from two medians: what slowed both
arms of a pair cancels out.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple, TypeVar

__all__ = [
    "ROOT",
    "Options",
    "Spread",
    "Table",
    "child_environment",
    "interleave",
    "machine",
    "markdown",
    "need_posix",
    "pairs",
    "spread",
    "versions",
]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent

# Keys and proxies of the user would change what is measured, and must not reach other clients.
_KEPT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
    "MOIM_MODELS", "OLLAMA_MODELS", "XDG_DATA_HOME",
)  # fmt: skip


class Options(NamedTuple):
    """How long to measure.

    Attributes:
        quick: tiny counts, to see that a program works; its figures mean little.
        rounds: how often each arm runs; None is the program's own choice.
        model: the local model, by name or path.
    """

    quick: bool = False
    rounds: int | None = None
    model: str = "smollm2"

    def pick(self, full: int, quick: int) -> int:
        """A count of work within a round."""
        return quick if self.quick else full

    def count(self, full: int) -> int:
        """The number of rounds."""
        return self.rounds or (2 if self.quick else full)


class Table(NamedTuple):
    """What a program found; every cell is text already."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


class Spread(NamedTuple):
    """Median and quartiles."""

    low: float
    middle: float
    high: float

    def show(self, digits: int = 1, unit: str = "") -> str:
        """`median (quartile..quartile)`."""
        low, middle, high = (f"{value:,.{digits}f}" for value in self)
        return f"{middle}{unit} ({low}..{high})"


def spread(values: Iterable[float]) -> Spread:
    """Median and quartiles of one or more values."""
    known = list(values)
    if len(known) == 1:
        return Spread(known[0], known[0], known[0])
    return Spread(*statistics.quantiles(known, n=4, method="inclusive"))


def interleave(
    arms: Mapping[K, Callable[[], T]], rounds: int, *, warmup: int = 1
) -> dict[K, list[T]]:
    """Run A B C A B C …; the values of each arm, round by round, without those of the warm-up."""
    values: dict[K, list[T]] = {name: [] for name in arms}
    for turn in range(warmup + rounds):
        for name, run in arms.items():
            value = run()
            if turn >= warmup:
                values[name].append(value)
    return values


def pairs(
    values: Sequence[float],
    reference: Sequence[float],
    how: Callable[[float, float], float] = lambda a, b: a / b,
) -> Spread:
    """One number for each round from both arms (their ratio), summed up."""
    return spread(how(a, b) for a, b in zip(values, reference, strict=True))


def markdown(table: Table) -> str:
    """The table as Markdown that also reads as plain text."""
    cells = [list(table.head), *(list(row) for row in table.rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(table.head))]
    lines = [_line(row, widths) for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"### {table.title}", "", *lines, *(["", *notes] if notes else [])])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return (
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
    )


def versions(*names: str) -> str:
    """Names and versions of installed packages."""
    return ", ".join(f"{name} {_version(name)}" for name in names)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def machine() -> str:
    """Where a table was made: interpreter, cores, and how busy the machine was."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{platform.python_implementation()} {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores, load average {load}"
    )


def child_environment(**more: str) -> dict[str, str]:
    """The environment of every process that is measured: no keys, proxies or settings."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT / "src"),
        "PYTHONHASHSEED": "0",
        "MOIM_CONFIG": str(Path(tempfile.gettempdir()) / "moim-benchmark-without-settings.toml"),
        # Without it litellm asks the network for prices while it is imported.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        **more,
    }


def need_posix() -> None:
    """End the program where processor time of a child cannot be read."""
    if not hasattr(os, "wait4"):
        sys.exit("These benchmarks read the processor time of child processes: Linux or macOS.")
