"""The runtime of async calls under asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["ASYNCIO", "AsyncioRuntime"]

T = TypeVar("T")


class AsyncioRuntime:
    """Waits by suspending the running task; blocking code goes to asyncio's own threads."""

    blocks = False

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait(self, future: Future[T], timeout: float | None = None) -> T:
        if not future.done():
            await _until_done(future, timeout)
        return future.result()

    async def call(self, fn: Callable[..., T], *args: Any) -> T:
        return await asyncio.to_thread(fn, *args)

    async def gather(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, T]]], limit: int
    ) -> list[T]:
        todo = list(enumerate(work))[::-1]
        results: list[Any] = [None] * len(todo)

        async def serve() -> None:
            try:
                while todo:
                    index, make = todo.pop()
                    results[index] = await make()
            finally:
                todo.clear()  # empty already, unless this piece failed

        tasks = [asyncio.ensure_future(serve()) for _ in range(min(max(limit, 1), len(todo)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return results

    def now(self) -> float:
        return time.monotonic()

    def home(self) -> object:
        return asyncio.get_running_loop()


async def _until_done(future: Future[Any], timeout: float | None) -> None:
    """Neither cancels the future nor minds when it is done after this loop has ended."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    async with asyncio.timeout(timeout):
        await done.wait()


ASYNCIO = AsyncioRuntime()
