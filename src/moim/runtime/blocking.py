"""The runtime of sync calls: every wait blocks the calling thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, TypeVar

__all__ = ["BLOCKING", "BlockingRuntime"]

T = TypeVar("T")


class BlockingRuntime:
    """Waits by blocking; parallel work runs on threads, each in a copy of the context."""

    blocks = True

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def wait(self, future: Future[T], timeout: float | None = None) -> T:
        return future.result(timeout)

    async def call(self, fn: Callable[..., T], *args: Any) -> T:
        return fn(*args)

    async def gather(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, T]]], limit: int
    ) -> list[T]:
        from moim.runtime import step

        if limit <= 1 or len(work) <= 1:
            return [step(make()) for make in work]
        return _Crew(work).run(min(limit, len(work)))

    def now(self) -> float:
        return time.monotonic()

    def home(self) -> object:
        return None


class _Crew:
    """Threads that share one list of work.

    Daemon threads rather than a pool's: a blocked read must not keep the interpreter from
    leaving after Ctrl-C.
    """

    def __init__(self, work: Sequence[Callable[[], Coroutine[Any, Any, Any]]]) -> None:
        self._todo = list(enumerate(work))[::-1]
        self._results: list[Any] = [None] * len(work)
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def run(self, limit: int) -> list[Any]:
        threads = [
            threading.Thread(
                target=copy_context().run, args=(self._serve,), name=f"moim-{n}", daemon=True
            )
            for n in range(limit)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            self._stop()
            raise
        if self._error is not None:
            raise self._error
        return self._results

    def _stop(self) -> None:
        with self._lock:
            self._todo.clear()

    def _serve(self) -> None:
        from moim.runtime import step

        while True:
            with self._lock:
                if not self._todo:
                    return
                index, make = self._todo.pop()
            try:
                self._results[index] = step(make())
            except BaseException as error:  # noqa: BLE001 (raised again by `run`)
                with self._lock:
                    self._error = error if self._error is None else self._error
                self._stop()
                return


BLOCKING = BlockingRuntime()
