"""The two entrances of the call path: `complete` for a whole reply, `events` for a stream."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from moim.dialects.base import Decoder, Dialect
from moim.dialects.quirks import Quirks
from moim.errors import Cancelled, MoimError, ProviderError, TransportError
from moim.runtime import Runtime
from moim.transport import read_all
from moim.transport.protocol import Endpoint, Exchange, Timeouts, Transport
from moim.types import (
    Event,
    Failed,
    Finish,
    Folder,
    HTTPReply,
    Reply,
    Request,
    Start,
    UsageSeen,
    Warned,
)

__all__ = ["Call", "Handle", "Prepared", "complete", "events"]


_DRAIN_SECONDS = 0.2
_DRAIN_READS = 8

_LAST = (Finish, Failed)

_QUIET = (Start, UsageSeen, Finish)
"""Events without content: the time to first token ends at the first other one."""


class Prepared(Struct, frozen=True):
    """A request made fit for its target, and what was changed."""

    request: Request
    warnings: tuple[Warned, ...] = ()


class Call(Struct, frozen=True, kw_only=True):
    """Everything that the walk needs.

    Attributes:
        provider: name of the target, for messages.
        request: what is asked.
        dialect, quirks: how it is said.
        endpoint: where it goes; asked when the call is made, because it reads the key.
        transport: what carries it.
        timeouts: how long to wait.
        prepare: makes the request fit before it is sent; None sends it as it is.
        review: says what the reply should warn of, once it is whole.
        streams: ask for a stream even where the caller wants a whole reply (the local engine
            gives up a slot at once only while it streams).
        explain: last chance to add to an error what the caller's side knows about it.
    """

    provider: str
    request: Request
    dialect: Dialect
    quirks: Quirks
    endpoint: Callable[[], Endpoint]
    transport: Transport
    timeouts: Timeouts = Timeouts()
    prepare: Callable[[Runtime, Request], Awaitable[Prepared]] | None = None
    review: Callable[[Request, Reply], tuple[Warned, ...]] | None = None
    streams: bool = False
    explain: Callable[[MoimError], None] | None = None


class Handle:
    """One call under way: its exchange, so that anyone may end it, and its times.

    Attributes:
        started, first, ended: `rt.now()` at the begin, at the first piece of content, and at the
            end of the reply; None until then.
    """

    def __init__(self) -> None:
        self.started: float | None = None
        self.first: float | None = None
        self.ended: float | None = None
        self._lock = threading.Lock()
        self._cut: Callable[[], None] | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def opening(self, cut: Callable[[], None]) -> None:
        """Take what ends the attempt to get a reply; see `Transport.open`."""
        with self._lock:
            self._cut = cut
            if self._closed:
                cut()

    def attach(self, exchange: Exchange) -> None:
        """Make `exchange` the one that `close` ends.

        Raises:
            Cancelled: `close` was called before.
        """
        self.opening(exchange.close)
        if self._closed:
            raise _cancelled()

    def close(self) -> None:
        """End the call from any thread or task; never waits."""
        # Cut under the lock: what was cut a moment later might be in use by another call.
        with self._lock:
            self._closed = True
            if self._cut is not None:
                self._cut()


def _cancelled() -> Cancelled:
    return Cancelled("The call was closed before its reply began.")


async def complete(rt: Runtime, call: Call, handle: Handle | None = None) -> Reply:
    """The whole reply of one call.

    Raises:
        MoimError: whatever ended the call; a `ProviderError` names provider and model.
    """
    if call.streams:
        folder = Folder()
        async for _ in events(rt, call, folder, handle):
            pass
        return folder.reply()
    try:
        return await _complete(rt, call, handle or Handle())
    except MoimError as error:
        _explain(call, error)
        raise


async def _complete(rt: Runtime, call: Call, handle: Handle) -> Reply:
    handle.started = rt.now()
    exchange, request, warnings = await _open(rt, call, handle, stream=False)
    try:
        answer = await _whole(exchange)
    finally:
        exchange.close()
    handle.first = handle.ended = rt.now()
    if answer.status >= 300:
        raise _refusal(call, answer)
    reply = call.dialect.decode_reply(answer)
    if call.review is not None:
        warnings += call.review(request, reply)
    return reply.warned(*warnings) if warnings else reply


async def events(
    rt: Runtime, call: Call, folder: Folder, handle: Handle | None = None
) -> AsyncGenerator[list[Event], None]:
    """The events of one call in lists, one list a read; `folder` has seen them before they come.

    Raises:
        MoimError: whatever ended the call.
    """
    handle = handle or Handle()
    handle.started = rt.now()
    try:
        exchange, request, warnings = await _open(rt, call, handle, stream=True)
        try:
            if exchange.status >= 300:
                raise _refusal(call, await _whole(exchange))
            decoder = call.dialect.decoder()
            ended = False
            while not ended:
                batch, ended = await _next(exchange, decoder)
                if not batch:
                    continue
                folder.feed(batch)
                if handle.first is None and not all(isinstance(e, _QUIET) for e in batch):
                    handle.first = rt.now()
                if ended:
                    handle.ended = rt.now()
                    _warn(call, request, warnings, batch, folder)
                    if folder.failure is not None:
                        batch.pop()
                yield batch
            if folder.failure is not None:
                raise folder.failure
            await _drain(rt, exchange)
        finally:
            exchange.close()
    except MoimError as error:
        folder.feed((Failed(error),))
        _explain(call, error)
        raise


async def _open(
    rt: Runtime, call: Call, handle: Handle, *, stream: bool
) -> tuple[Exchange, Request, tuple[Warned, ...]]:
    request = msgspec.structs.replace(call.request, stream=stream)
    warnings: tuple[Warned, ...] = ()
    if call.prepare is not None:
        prepared = await call.prepare(rt, request)
        request, warnings = prepared.request, prepared.warnings
    http = call.dialect.encode_request(request, call.quirks)
    warnings += call.dialect.lost(request, call.quirks)
    if handle.closed:  # nothing has been sent, so nothing has to be paid
        raise _cancelled()
    try:
        exchange = await call.transport.open(
            rt, call.endpoint(), http, call.timeouts, handle.opening
        )
    except TransportError:
        if handle.closed:
            raise _cancelled() from None
        raise
    handle.attach(exchange)
    return exchange, request, warnings


def _refusal(call: Call, answer: HTTPReply) -> ProviderError:
    if answer.status >= 400:
        return call.dialect.decode_error(answer)
    target = urlsplit(answer.headers.get("location", "")).netloc.rpartition("@")[2]
    return ProviderError(
        f"{call.provider} redirects to {target or 'another path'}; moim follows no redirect, "
        "because a key would go along.",
        hint="If you trust that address, give it as the base URL.",
        status=answer.status,
    )


async def _whole(exchange: Exchange) -> HTTPReply:
    return HTTPReply(
        status=exchange.status, headers=exchange.headers, body=await read_all(exchange)
    )


async def _next(exchange: Exchange, decoder: Decoder) -> tuple[list[Event], bool]:
    """The events of one read, and whether they are the last."""
    try:
        data = await exchange.read()
    except TransportError:
        # What the terminator closed is whole, even if the connection broke right after it.
        last = decoder.close()
        if last and isinstance(last[-1], Finish):
            return last, True
        raise
    if not data:
        return decoder.close(), True
    batch = decoder.feed(data)
    return batch, bool(batch) and isinstance(batch[-1], _LAST)


def _warn(
    call: Call,
    request: Request,
    warnings: tuple[Warned, ...],
    batch: list[Event],
    folder: Folder,
) -> None:
    """Give the finish what the call itself has to say of the reply."""
    last = batch[-1] if batch else None
    if not isinstance(last, Finish):
        return
    if call.review is not None:
        warnings += call.review(request, folder.so_far())
    if warnings:
        batch[-1] = msgspec.structs.replace(last, warnings=(*last.warnings, *warnings))
        folder.feed(batch[-1:])


async def _drain(rt: Runtime, exchange: Exchange) -> None:
    """Read what stands behind the terminator, so that the connection can be used again.

    The reply is whole: nothing that happens here is an error, and a server that neither ends nor
    stops sending is not waited for.
    """
    until = rt.now() + _DRAIN_SECONDS
    with contextlib.suppress(MoimError):
        for _ in range(_DRAIN_READS):
            if not await exchange.read(within=max(until - rt.now(), 0.001)):
                return


def _explain(call: Call, error: MoimError) -> None:
    if isinstance(error, ProviderError):
        error.provider = error.provider or call.provider
        error.model = error.model or call.request.model
    if call.explain is not None:
        call.explain(error)
