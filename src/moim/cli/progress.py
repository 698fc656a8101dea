"""How far a pull is, on standard error: a bar for a person, a few lines for a log."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from moim.cli.terminal import is_terminal, note, size, span

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import ProgressColumn, Task, TaskID

    from moim.local.download import OnProgress, Progress

__all__ = ["showing_progress"]

_WORDS = {
    "resolve": "asking the package index",
    "download": "downloading",
    "verify": "checking",
    "extract": "unpacking",
    "write": "storing",
}
_EVERY_SECONDS = 5.0


@contextlib.contextmanager
def showing_progress(name: str) -> Iterator[OnProgress]:
    """Show the progress of pulling `name`."""
    try:
        if is_terminal(sys.stderr):
            with _bar(name) as on_progress:
                yield on_progress
        else:
            yield Lines(name)
    except KeyboardInterrupt:
        note(f"{name}: interrupted; what has arrived is kept, pull again to go on.")
        raise


class Lines:
    """Progress as lines: one at the start of each phase, then one every few seconds.

    Args:
        name: the model that is pulled.
        say: takes a line.
        clock: gives seconds.
    """

    def __init__(
        self,
        name: str,
        say: Callable[[str], None] = note,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._say = say
        self._clock = clock
        self._phase = ""
        self._began = (0.0, 0)
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        if progress.phase != self._phase:
            self._phase = progress.phase
            self._began = (now, progress.completed)
        elif now < self._next or not progress.total:
            return
        self._next = now + _EVERY_SECONDS
        self._say(f"{self._name}: {_WORDS[progress.phase]}{self._numbers(progress, now)}")

    def _numbers(self, progress: Progress, now: float) -> str:
        if not progress.total:
            return ""
        began, done_before = self._began
        fetched, seconds = progress.completed - done_before, now - began
        share = f" {size(progress.total)}"
        if progress.completed:
            share += f", {100 * progress.completed // progress.total} %"
        if fetched <= 0 or seconds <= 0:
            return share
        speed = fetched / seconds
        left = (progress.total - progress.completed) / speed
        return f"{share}, {size(int(speed))}/s, {span(left)} left"


def _columns() -> list[ProgressColumn]:
    from rich import progress as rich

    class Known(rich.ProgressColumn):
        """Numbers that mean nothing while nobody knows how much there is to do."""

        def __init__(self, column: ProgressColumn) -> None:
            super().__init__()
            self._column = column

        def render(self, task: Task) -> RenderableType:
            return "" if task.total is None else self._column(task)

    numbers = rich.DownloadColumn(), rich.TransferSpeedColumn(), rich.TimeRemainingColumn()
    return [rich.TextColumn("{task.description}"), rich.BarColumn(), *map(Known, numbers)]


@contextlib.contextmanager
def _bar(name: str) -> Iterator[OnProgress]:
    from rich import progress as rich
    from rich.console import Console

    tasks: dict[str, TaskID] = {}
    with rich.Progress(
        *_columns(),
        console=Console(stderr=True),
        transient=True,
    ) as bars:

        def on_progress(progress: Progress) -> None:
            known = tasks.get(progress.phase)
            if known is not None:
                bars.update(known, completed=progress.completed, total=progress.total)
                return
            for task in tasks.values():
                bars.update(task, visible=False)
            # What an earlier run fetched is no part of this run's speed: it is where the task
            # starts, not its first step.
            tasks[progress.phase] = bars.add_task(
                f"{name}: {_WORDS[progress.phase]}",
                total=progress.total,
                completed=progress.completed,
            )

        yield on_progress
