"""How to wait: the one thing in which sync and async calls differ.

Core code is `async def` and waits only through the runtime that it is given. Under a blocking
runtime nothing ever suspends, so `step` runs a coroutine to its end without an event loop.
Measured: 1.3 µs a call at depth 8, against 122 µs for `asyncio.run` (ARCHITECTURE, "Written
once"; `benchmarks/` has the current figures).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from moim.errors import SuspendedError
from moim.runtime.blocking import BLOCKING, BlockingRuntime

__all__ = ["BLOCKING", "BlockingRuntime", "Runtime", "iterate", "step"]

T = TypeVar("T")


class Runtime(Protocol):
    """What core code may wait for.

    `blocks` is True where every method blocks the calling thread instead of suspending.
    """

    @property
    def blocks(self) -> bool: ...

    async def sleep(self, seconds: float) -> None:
        """Wait for so long."""
        ...

    async def wait(self, future: Future[T], timeout: float | None = None) -> T:
        """The result of a future that another thread or task completes; never cancels it.

        Raises:
            TimeoutError: it was not done after `timeout` seconds.
        """
        ...

    async def call(self, fn: Callable[..., T], *args: Any) -> T:
        """Run blocking code: in place, or on a thread where blocking would stop an event loop."""
        ...

    async def gather(
        self, work: Sequence[Callable[[], Coroutine[Any, Any, T]]], limit: int
    ) -> list[T]:
        """Run all of `work`, at most `limit` (at least 1) at once; results in the order of `work`.

        The first error stops what has not begun, and is raised.
        """
        ...

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def home(self) -> object:
        """What a connection belongs to: the running event loop, or one value for all threads."""
        ...


def step(coro: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """Run a coroutine that never suspends.

    Raises:
        SuspendedError: it awaited something that needs an event loop.
    """
    running = coro if isinstance(coro, Coroutine) else _awaited(coro)
    try:
        running.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    where = getattr(coro, "__qualname__", "This code")
    _stop(running)
    raise SuspendedError(
        f"{where} waited for an event loop inside a blocking call.",
        hint="Use the async twin of the method (ainvoke, astream, abatch).",
    )


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _stop(running: Coroutine[Any, Any, Any]) -> None:
    """End suspended code, cleaning up as far as that needs no waiting either."""
    # Thrown rather than closed: closing a step of an async generator leaves the generator running.
    # Whatever else goes wrong on the way out follows from the suspension, which is reported.
    with contextlib.suppress(GeneratorExit, Exception):
        running.throw(GeneratorExit)
    with contextlib.suppress(RuntimeError):
        running.close()


def iterate(batches: AsyncGenerator[list[T], None]) -> Iterator[T]:
    """The items of an async generator of lists that never suspends.

    Closing the iterator closes the generator.
    """
    try:
        while True:
            try:
                batch = step(batches.__anext__())
            except StopAsyncIteration:
                return
            yield from batch
    finally:
        step(batches.aclose())
