"""HTTP for asyncio, over aiohttp.

A session belongs to one event loop and is closed with it. aiohttp limits sockets; we limit waits,
so its own limits are off but for the connection's.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import select
import socket
import threading
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from functools import lru_cache
from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp import ClientTimeout
from aiohttp.abc import ResolveResult
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from moim.errors import MoimError
from moim.runtime import Runtime
from moim.transport import faults
from moim.transport.limits import Clock
from moim.transport.pools import Route, forget_after_fork, route_to
from moim.transport.protocol import Endpoint, Exchange, Opening, Timeouts
from moim.transport.target import Target, is_local_name, readable, request_headers, target_of
from moim.types import HTTPRequest

__all__ = ["AsyncHTTP"]

_LARGEST_LINE = 65536
_LARGE_BODY = 1 << 20  # aiohttp warns of larger bodies that come as one bytes object
_KEEP = 60.0
_BUFFER = 1 << 20
"""Bytes kept for a slow reader before the server has to wait; twice as many at the most.

Generous, because asyncio's TLS reports the end of a connection even to those who are not reading:
what was not yet taken from a server that closes at once would be lost (as StreamBroken).
"""

_ERRORS = (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError)

_held: ContextVar[asyncio.BaseTransport | None] = ContextVar("moim_held", default=None)
"""The connection that the request being opened in this task has been given."""


class _Connector(aiohttp.TCPConnector):
    """Hands out no kept connection that its server has closed, even unseen by the loop so far."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._known: WeakSet[Any] = WeakSet()

    async def connect(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
        while True:
            connection = await super().connect(*args, **kwargs)
            protocol, transport = connection.protocol, connection.transport
            if protocol not in self._known:
                self._known.add(protocol)
                break
            if not _has_something_to_read(transport):
                break
            connection.close()
        _held.set(transport)
        return connection

    def __del__(self, *args: Any) -> None:
        """Quiet: a session whose loop or process is gone cannot be closed any more."""


def _has_something_to_read(transport: asyncio.BaseTransport | None) -> bool:
    """True for an idle connection means that it has ended, or is out of step."""
    sock = transport.get_extra_info("socket") if transport else None
    if sock is None or sock.fileno() < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock.fileno()], [], [], 0)[0])


class _Resolver(ThreadedResolver):
    """As the system, but names of this machine are never asked of a name server."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not is_local_name(host):
            return await super().resolve(host, port, family)
        own = (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=kind,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address, kind in own
        ]


class _Held:
    """A session and the generator that closes it when its loop ends."""

    __slots__ = ("keeper", "session")

    def __init__(self, session: aiohttp.ClientSession, keeper: AsyncGenerator[None, None]) -> None:
        self.session = session
        self.keeper = keeper


_sessions: dict[tuple[Any, Route], _Held] = {}
_lost: list[_Held] = []
"""Sessions of a parent process: kept, for whoever frees them would touch the parent's selector."""
_lock = threading.Lock()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    for held in _sessions.values():
        held.session.detach()
        _lost.append(held)
    _sessions.clear()


forget_after_fork(_forget)


async def _session(loop: Any, route: Route) -> aiohttp.ClientSession:
    held = _sessions.get((loop, route))
    if held is not None and not held.session.closed:
        return held.session
    _drop_closed()
    session = _new_session(route)
    keeper = _until_the_loop_ends(session, (loop, route))
    with _lock:
        _sessions[loop, route] = _Held(session, keeper)
    await anext(keeper)
    return session


async def _until_the_loop_ends(
    session: aiohttp.ClientSession, key: tuple[Any, Route]
) -> AsyncGenerator[None, None]:
    """Close the session while its loop still runs.

    A loop closes the generators that it has begun before it stops (`asyncio.run` and every other
    runner call `shutdown_asyncgens`); nothing else tells a library that a loop is about to end.
    """
    try:
        yield
    finally:
        with _lock:
            if key in _sessions and _sessions[key].session is session:
                del _sessions[key]
        await session.close()


def _drop_closed() -> None:
    """Sessions of loops that were closed without their generators."""
    with _lock:
        gone = [key for key in _sessions if key[0].is_closed()]
        for key in gone:
            _sessions.pop(key).session.detach()


def _new_session(route: Route) -> aiohttp.ClientSession:
    connector = _Connector(ssl=route.tls(), resolver=_Resolver(), limit=0, keepalive_timeout=_KEEP)
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        skip_auto_headers=("Content-Type",),
        max_line_size=_LARGEST_LINE,
        max_field_size=_LARGEST_LINE,
        read_bufsize=_BUFFER,
    )


@lru_cache(64)
def _timeout(connect: float | None) -> ClientTimeout:
    return ClientTimeout(total=None, connect=connect, sock_connect=None, sock_read=None)


@lru_cache(256)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


class AsyncHTTP:
    """The transport of asyncio."""

    async def open(
        self,
        rt: Runtime,
        endpoint: Endpoint,
        request: HTTPRequest,
        timeouts: Timeouts,
        opening: Opening | None = None,
    ) -> Exchange:
        """See `Transport.open`."""
        target = target_of(endpoint.base)
        headers = request_headers(target, endpoint.headers, request)
        route = route_to(target)
        loop: Any = rt.home()
        clock = Clock(timeouts, loop.time(), target.place)
        session = await _session(loop, route)
        _held.set(None)
        until = clock.until("first", loop.time())
        try:
            async with asyncio.timeout_at(_moment(until)) as limit:
                if opening is not None:
                    opening(lambda: _give_up(loop, limit))
                response = await _send(session, route, target, request, headers, clock)
        except (TimeoutError, *_ERRORS) as error:
            raise _fault(error, route, target, clock, _abort()) from None
        except BaseException:
            _abort()
            raise
        return _Exchange(response, loop, clock, target)


def _give_up(loop: Any, limit: asyncio.Timeout) -> None:
    """End a wait from any thread, as if its time were over."""

    def expire() -> None:
        with contextlib.suppress(RuntimeError):  # the wait is over already
            limit.reschedule(loop.time())

    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(expire)


def _abort() -> bool:
    """Cut what this task was given, and say whether that was anything.

    aiohttp itself would let unsent bytes, or TLS, take their time.
    """
    transport: Any = _held.get()
    if transport is not None:
        transport.abort()
    return transport is not None


async def _send(
    session: aiohttp.ClientSession,
    route: Route,
    target: Target,
    request: HTTPRequest,
    headers: dict[str, str],
    clock: Clock,
) -> aiohttp.ClientResponse:
    body = request.body
    return await session.request(
        request.method,
        _url(target.origin + target.path(request)),
        data=io.BytesIO(body) if len(body) > _LARGE_BODY else body or None,
        headers=headers,
        allow_redirects=False,
        proxy=route.proxy.url if route.proxy else None,
        timeout=_timeout(clock.connecting()),
    )


def _moment(until: float) -> float | None:
    return None if until == math.inf else until


def _fault(
    error: BaseException, route: Route, target: Target, clock: Clock, connected: bool
) -> MoimError:
    """What stopped a request before its reply's head was whole."""
    root = faults.root_of(error)
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientConnectorError):
        return clock.expired(connected=connected)
    if isinstance(error, aiohttp.ClientHttpProxyError) and route.proxy is not None:
        return faults.no_tunnel(target, route.proxy.place, error.status)
    if isinstance(root, ContentEncodingError):
        return faults.undecodable(target, "that was not asked for")
    if isinstance(error, aiohttp.ClientResponseError):
        return faults.not_http(target)
    if isinstance(error, aiohttp.ClientConnectorError):
        proxy = route.proxy
        behind = proxy is not None and proxy.place == f"{error.host}:{error.port}"
        place = f"the proxy {proxy.place}" if proxy and behind else target.place
        return faults.no_connection(root, place)
    if connected:
        return faults.broken(target, head=True)
    return faults.no_connection(root, target.place)


_LIVE, _OVER, _CUT = range(3)


class _Exchange:
    """A reply under way. Only its loop touches the connection, unless that loop stands still."""

    def __init__(
        self, response: aiohttp.ClientResponse, loop: Any, clock: Clock, target: Target
    ) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._response = response
        self._content: Any = response.content
        self._loop = loop
        self._clock = clock
        self._target = target
        self._readable = readable(self.headers)
        self._stage: Any = "first"
        self._state = _LIVE
        self._ended: MoimError | None = None
        self._lost = _lost_of(response)
        if self._lost is not None:
            self._lost.add_done_callback(self._on_lost)

    async def read(self, within: float | None = None) -> bytes:
        """See `Exchange.read`."""
        if self._ended is not None:
            raise self._ended
        if self._state == _CUT:
            raise faults.cancelled(self._target)
        try:
            piece = await self._read(within)
        except (TimeoutError, *_ERRORS) as error:
            self._ended = self._broken(error)
            self.close()
            raise self._ended from None
        if self._state == _CUT:
            raise faults.cancelled(self._target)
        if not piece:
            self._state = _OVER
            self._forget_connection()
        self._stage = "between"
        return piece

    def _on_lost(self, _: object) -> None:
        # After malformed chunks aiohttp drops the connection and tells nobody who waits for more.
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(aiohttp.ClientPayloadError("connection lost"))

    def _forget_connection(self) -> None:
        if self._lost is not None:
            self._lost.remove_done_callback(self._on_lost)
            self._lost = None

    async def _read(self, within: float | None) -> bytes:
        content = self._content
        if not self._readable:
            raise ContentEncodingError("content coding")
        # What arrived before the connection broke is part of the reply: aiohttp's public methods
        # would raise first and lose it.
        if piece := content._read_nowait(-1):
            return bytes(piece)
        if content.exception() is None and content.at_eof():
            return b""
        now = self._loop.time()
        until = self._clock.until(self._stage, now, within)
        async with asyncio.timeout_at(_moment(until)):
            return bytes(await content.readany())

    def _broken(self, error: BaseException) -> MoimError:
        if self._state == _CUT:
            return faults.cancelled(self._target)
        if isinstance(error, TimeoutError):
            return self._clock.expired()
        if isinstance(faults.root_of(error), ContentEncodingError):
            return faults.undecodable(self._target, self.headers.get("content-encoding", ""))
        return faults.broken(self._target)

    def close(self) -> None:
        """See `Exchange.close`."""
        if self._state != _LIVE:
            return
        self._state = _CUT
        if not self._loop.is_running():
            _shut(self._response)
        with contextlib.suppress(RuntimeError):  # the loop is closed: `_shut` was all there is
            if _running_loop() is self._loop:
                self._cut()
            else:
                self._loop.call_soon_threadsafe(self._cut)

    def _cut(self) -> None:
        connection = self._response.connection
        transport: Any = connection.transport if connection else None
        if transport is not None:
            transport.abort()
        self._response.close()
        self._forget_connection()


def _lost_of(response: aiohttp.ClientResponse) -> Any:
    """What is done when the connection is lost; None when the reply is whole already."""
    connection = response.connection
    protocol = connection.protocol if connection else None
    return protocol.closed if protocol is not None else None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _shut(response: aiohttp.ClientResponse) -> None:
    """Cut a connection whose loop is not running, so that nothing else touches its socket."""
    connection = response.connection
    transport = connection.transport if connection else None
    sock = transport.get_extra_info("socket") if transport else None
    if sock is None or sock.fileno() < 0:
        return
    # A copy: uvloop's sockets cannot be shut down themselves.
    with contextlib.suppress(OSError), socket.fromfd(sock.fileno(), sock.family, sock.type) as own:
        own.shutdown(socket.SHUT_RDWR)
