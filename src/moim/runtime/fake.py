"""A runtime with a clock of its own, so that tests of waiting finish at once."""

from __future__ import annotations

from concurrent.futures import Future
from typing import TypeVar

from moim.runtime.blocking import BlockingRuntime

__all__ = ["FakeRuntime"]

T = TypeVar("T")


class FakeRuntime(BlockingRuntime):
    """Sleeping moves the clock and takes no time.

    Attributes:
        clock: seconds since the runtime was made.
        slept: every sleep asked for, in order.
    """

    def __init__(self) -> None:
        self.clock = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock += seconds

    async def wait(self, future: Future[T], timeout: float | None = None) -> T:
        if not future.done() and timeout is not None:
            self.clock += timeout
            raise TimeoutError
        return future.result(timeout)

    def now(self) -> float:
        return self.clock
