"""Carries HTTP: two thin adapters over urllib3 and aiohttp behind one protocol."""

from __future__ import annotations

from moim import config, log
from moim.errors import DecodeError
from moim.runtime import Runtime
from moim.transport.protocol import Endpoint, Exchange, Opening, Timeouts, Transport
from moim.types import HTTPRequest

__all__ = ["HTTP", "Endpoint", "Exchange", "Timeouts", "Transport", "http", "read_all"]

_LARGEST_BODY = 64 << 20


class HTTP:
    """Sends requests over the adapter that fits the runtime.

    Connections are kept in pools shared by the whole process (for asyncio: by an event loop).
    Libraries are imported when they are first needed. A GET, HEAD, PUT or DELETE whose kept
    connection turns out to be dead is sent once more on another; a POST is not, for nobody can
    tell whether it was processed. Dead connections are looked for before anything is sent.
    """

    def __init__(self) -> None:
        self._blocking: Transport | None = None
        self._asyncio: Transport | None = None

    async def open(
        self,
        rt: Runtime,
        endpoint: Endpoint,
        request: HTTPRequest,
        timeouts: Timeouts,
        opening: Opening | None = None,
    ) -> Exchange:
        """See `Transport.open`."""
        adapter = self._for_threads() if rt.blocks else self._for_loops()
        if log.level == log.OFF:
            return await adapter.open(rt, endpoint, request, timeouts, opening)
        if log.level == log.UNSET:
            log.configure(config.settings().log)
            return await self.open(rt, endpoint, request, timeouts, opening)
        return await _open_logged(adapter, rt, endpoint, request, timeouts, opening)

    def _for_threads(self) -> Transport:
        if self._blocking is None:
            from moim.transport.sync_http import SyncHTTP

            self._blocking = SyncHTTP()
        return self._blocking

    def _for_loops(self) -> Transport:
        if self._asyncio is None:
            from moim.transport.async_http import AsyncHTTP

            self._asyncio = AsyncHTTP()
        return self._asyncio


_SHARED = HTTP()


def http() -> Transport:
    """The transport that all calls of this process share."""
    return _SHARED


async def read_all(exchange: Exchange, limit: int = _LARGEST_BODY) -> bytes:
    """The whole body, decompressed.

    Args:
        exchange: one that has not been read from.
        limit: bytes to accept at the most.

    Raises:
        DecodeError: the body is larger; the exchange is closed then.
        CallTimeout, StreamBroken, Cancelled: as `Exchange.read`.
    """
    pieces: list[bytes] = []
    size = 0
    while piece := await exchange.read():
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            exchange.close()
            raise DecodeError(f"The reply is larger than {limit / (1 << 20):g} MiB.")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def _open_logged(
    adapter: Transport,
    rt: Runtime,
    endpoint: Endpoint,
    request: HTTPRequest,
    timeouts: Timeouts,
    opening: Opening | None,
) -> Exchange:
    sent = {**request.headers, **endpoint.headers}
    entry = log.Entry(request.method, endpoint.base + request.path, sent, request.body)
    try:
        exchange = await adapter.open(rt, endpoint, request, timeouts, opening)
    except BaseException as error:
        entry.failed(error)
        raise
    entry.replied(exchange.status, exchange.headers)
    return _Logged(exchange, entry)


class _Logged:
    """An exchange that tells the log what passes through it."""

    def __init__(self, exchange: Exchange, entry: log.Entry) -> None:
        self.status = exchange.status
        self.headers = exchange.headers
        self._exchange = exchange
        self._entry = entry

    async def read(self, within: float | None = None) -> bytes:
        try:
            piece = await self._exchange.read(within)
        except BaseException as error:
            self._entry.failed(error)
            raise
        self._entry.received(piece)
        return piece

    def close(self) -> None:
        self._exchange.close()
        self._entry.closed()
