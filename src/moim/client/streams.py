"""A reply on its way: iterate it for events or text; afterwards it is the reply itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

from moim.errors import RequestError
from moim.flow import Call, Handle, events
from moim.runtime import BLOCKING, Runtime, iterate
from moim.types import Event, Folder, PartStart, Reply, Text, TextDelta

__all__ = ["AsyncStream", "Stream"]


class _Base:
    """What both colours of stream know without waiting."""

    def __init__(self, rt: Runtime, call: Call) -> None:
        self._folder = Folder()
        self._handle = Handle()
        self._texts: set[int] = set()
        self._batches = events(rt, call, self._folder, self._handle)

    def _piece(self, event: Event) -> str:
        """The answer's text in this event: not a refusal's words, not another choice's."""
        if isinstance(event, PartStart):
            if isinstance(event.part, Text) and not event.choice:
                self._texts.add(event.index)
                return event.part.text
        elif isinstance(event, TextDelta) and not event.choice and event.index in self._texts:
            return event.text
        return ""

    @property
    def reply(self) -> Reply:
        """The whole reply, once the stream has been read to its end.

        Raises:
            RequestError: the end has not been reached.
            MoimError: the error that ended the stream.
        """
        if not self._folder.finished and self._folder.failure is None:
            raise RequestError(
                "The stream has not been read to its end.",
                hint="Iterate it first, or call read(). What has arrived is in `so_far`.",
            )
        return self._folder.reply()

    @property
    def so_far(self) -> Reply:
        """What has arrived; its `finish_reason` is None while the reply is not whole."""
        return self._folder.so_far()

    @property
    def time_to_first_token(self) -> float | None:
        """Seconds from the call to the first piece of content, waiting for a connection or for
        a local model to load included; None until then."""
        return _span(self._handle.started, self._handle.first)

    @property
    def seconds(self) -> float | None:
        """Seconds from the call to the end of the reply; None until then."""
        return _span(self._handle.started, self._handle.ended)

    def close(self) -> None:
        """End the reply now, from any thread or task. The upstream connection is cut at once; a
        read that waits in another thread raises `Cancelled`. May be called twice."""
        self._handle.close()

    def __del__(self) -> None:
        # Closing never waits, so a stream that nobody holds any more can end its call here,
        # without an event loop.
        handle = getattr(self, "_handle", None)
        if handle is not None:
            handle.close()


def _span(begin: float | None, end: float | None) -> float | None:
    return None if begin is None or end is None else end - begin


class Stream(_Base):
    """A streamed reply.

    Iterate it for typed events (`moim.types.Event`), or `text()` for the answer's text alone.
    Leaving the loop early, `close()` and the end of a `with` block cut the upstream connection at
    once.
    """

    def __init__(self, call: Call) -> None:
        super().__init__(BLOCKING, call)
        self._events = iterate(self._batches)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def text(self) -> Iterator[str]:
        """The pieces of the answer's text as they come."""
        for event in self:
            if piece := self._piece(event):
                yield piece

    def read(self) -> Reply:
        """Read what is left and return the whole reply."""
        for _ in self:
            pass
        return self.reply

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncStream(_Base):
    """A streamed reply under asyncio; as `Stream`, with `async for` and `async with`.

    An `async for` that is left early closes late: use `async with` where that matters.
    """

    def __init__(self, rt: Runtime, call: Call) -> None:
        super().__init__(rt, call)
        self._ready: list[Event] = []

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            self._ready = (await self._batches.__anext__())[::-1]
        return self._ready.pop()

    async def text(self) -> AsyncIterator[str]:
        """The pieces of the answer's text as they come."""
        async for event in self:
            if piece := self._piece(event):
                yield piece

    async def read(self) -> Reply:
        """Read what is left and return the whole reply."""
        async for _ in self:
            pass
        return self.reply

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
