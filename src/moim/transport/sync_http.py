"""HTTP for blocking calls, over urllib3.

urllib3 limits each `recv`; we limit whole waits. So the sockets here know the moment at which
they have to give up, and every other step (look-up, TLS, CONNECT, sending) runs on them too.
"""

from __future__ import annotations

import contextlib
import math
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
)
from urllib3.exceptions import DecodeError as CodingError
from urllib3.response import BaseHTTPResponse

from moim import config
from moim.config import Settings
from moim.errors import MoimError
from moim.runtime import Runtime
from moim.transport import faults
from moim.transport.limits import Clock
from moim.transport.pools import POOL_SIZE, Route, forget_after_fork, route_to
from moim.transport.protocol import LONGEST, Endpoint, Exchange, Opening, Timeouts
from moim.transport.target import (
    IDEMPOTENT,
    Target,
    is_local_name,
    readable,
    request_headers,
    target_of,
)
from moim.types import HTTPRequest

__all__ = ["Manager", "SyncHTTP"]

_PIECE = 65536
_TUNNEL_STATUS = re.compile(r"Tunnel connection failed: (\d{3})")


class _Opening(threading.local):
    """What passes between `SyncHTTP.open` and the connection it runs on, around urllib3."""

    until: float | None = None
    tell: Opening | None = None
    sock: Any = None
    connection: Any = None
    fresh: bool = False


_opening = _Opening()


class _Deadline:
    """A socket whose waits end at a moment rather than after so many seconds each.

    Without a moment it keeps the timeout that urllib3 gave it: that of whoever uses the pool
    manager without an exchange, as downloads do.
    """

    until: float | None = None

    def _arm(self) -> None:
        if self.until is None:
            return
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self.settimeout(_seconds(left))  # type: ignore[attr-defined]

    def recv_into(self, *args: Any) -> int:
        self._arm()
        return super().recv_into(*args)  # type: ignore[misc, no-any-return]

    def recv(self, *args: Any) -> bytes:
        self._arm()
        return super().recv(*args)  # type: ignore[misc, no-any-return]

    def sendall(self, *args: Any) -> None:
        self._arm()
        super().sendall(*args)  # type: ignore[misc]


class _Socket(_Deadline, socket.socket):
    pass


class _TLSSocket(_Deadline, ssl.SSLSocket):
    pass


class _Connection(HTTPConnection):
    """A connection whose look-up, addresses, TLS and tunnel share one limit.

    `exchange` is what uses it now: whoever returns the connection to its pool must first take it
    from its exchange, or a late `close` would cut the next exchange on it.
    """

    exchange: _Exchange | None = None

    def _new_conn(self) -> socket.socket:
        limit = self.timeout
        until = math.inf if limit is None else time.monotonic() + float(limit)
        try:
            return _dial(self.host, self.port or self.default_port, until, self.socket_options)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "timed out") from error
        except OSError as error:
            raise NewConnectionError(self, "failed") from error

    def connect(self) -> None:
        super().connect()
        _opening.fresh = True
        self._begin()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self._begin()
        super().request(*args, **kwargs)

    def _begin(self) -> None:
        sock = _innermost(self.sock)
        sock.until = _opening.until
        _opening.sock = sock
        _opening.connection = self
        if _opening.tell is not None:
            _opening.tell(lambda: _cut(sock))


class _TLSConnection(_Connection, HTTPSConnection):
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls: Any = _Connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and conn.exchange is not None:
            conn.exchange.let_go()
            conn.exchange = None
        super()._put_conn(conn)


class _TLSPool(_Pool, HTTPSConnectionPool):
    ConnectionCls: Any = _TLSConnection


class Manager(urllib3.PoolManager):
    """urllib3's manager, with the route chosen for each URL; see `pools.pool_manager`."""

    def __init__(self, settings: Settings | None) -> None:
        super().__init__()
        self._settings = settings

    def urlopen(  # type: ignore[override]
        self, method: str, url: str, redirect: bool = False, **options: Any
    ) -> BaseHTTPResponse:
        parts = urlsplit(url)
        target = target_of(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
        settings = self._settings or config.settings()
        manager = _manager(route_to(target, settings))
        limits = settings.connect_timeout or None, settings.between_timeout or None
        options.setdefault("timeout", urllib3.Timeout(connect=limits[0], read=limits[1]))
        options.setdefault("retries", False)
        # A redirect is the caller's to follow: it may lead where this route or rule does not hold.
        return manager.urlopen(method, url, redirect=False, **options)


_managers: dict[Route, urllib3.PoolManager] = {}
_pools: dict[tuple[Route, str], HTTPConnectionPool] = {}
_lock = threading.Lock()


def _forget() -> None:
    global _lock
    _lock = threading.Lock()
    _managers.clear()
    _pools.clear()


forget_after_fork(_forget)


def _manager(route: Route) -> urllib3.PoolManager:
    with _lock:
        if (known := _managers.get(route)) is None:
            known = _managers[route] = _new_manager(route)
        return known


def _new_manager(route: Route) -> urllib3.PoolManager:
    context = route.tls()
    context.sslsocket_class = _TLSSocket
    options: dict[str, Any] = {
        "num_pools": 256,
        "maxsize": POOL_SIZE,
        "retries": False,
        "ssl_context": context,
    }
    manager: urllib3.PoolManager
    if route.proxy is None:
        manager = urllib3.PoolManager(**options)
    else:
        headers = _login(route.proxy.url)
        manager = urllib3.ProxyManager(
            route.proxy.url, proxy_headers=headers, proxy_ssl_context=context, **options
        )
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return manager


def _login(proxy_url: str) -> dict[str, str]:
    parts = urlsplit(proxy_url)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(proxy_basic_auth=pair))


def _pool(route: Route, target: Target) -> HTTPConnectionPool:
    key = (route, target.origin)
    pool = _pools.get(key)
    if pool is None or pool.pool is None:
        pool = _manager(route).connection_from_host(target.host, target.port, target.scheme)
        _pools[key] = pool
    return pool


@lru_cache(64)
def _timeout(connect: float | None) -> urllib3.Timeout:
    # No limit on reading: the sockets' own moment is the limit.
    return urllib3.Timeout(connect=connect, read=None)


class SyncHTTP:
    """The blocking transport."""

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
        start = time.monotonic()
        clock = Clock(timeouts, start, target.place)
        _opening.until = clock.until("first", start)
        _opening.tell = opening
        try:
            response = _send(route, target, request, headers, _timeout(clock.connecting()))
        except (HTTPError, HTTPException, OSError) as error:
            raise _fault(error, route, target, clock) from None
        finally:
            sock, connection = _opening.sock, _opening.connection
            _opening.sock = _opening.connection = _opening.until = _opening.tell = None
        exchange = _Exchange(response, sock, clock, target)
        connection.exchange = exchange
        return exchange


def _send(
    route: Route,
    target: Target,
    request: HTTPRequest,
    headers: dict[str, str],
    timeout: urllib3.Timeout,
) -> BaseHTTPResponse:
    pool = _pool(route, target)
    url = target.path(request)
    if route.proxy is not None and target.scheme == "http":
        url = target.origin + url
    while True:
        _opening.fresh = False
        _opening.sock = None
        try:
            return pool.urlopen(
                request.method,
                url,
                body=request.body or None,
                headers=headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                timeout=timeout,
                preload_content=False,
            )
        except HTTPError as error:
            kept = _opening.sock is not None and not _opening.fresh
            lost = isinstance(faults.root_of(error), ConnectionError)
            if not (kept and lost and request.method in IDEMPOTENT):
                raise


def _fault(error: BaseException, route: Route, target: Target, clock: Clock) -> MoimError:
    """What stopped a request before its reply's head was whole."""
    root = faults.root_of(error)
    connected = _opening.sock is not None
    if isinstance(root, TimeoutError | ConnectTimeoutError):
        return clock.expired(connected=connected)
    if connected:
        ended = isinstance(root, OSError)
        return faults.broken(target, head=True) if ended else faults.not_http(target)
    if route.proxy is None:
        return faults.no_connection(root, target.place)
    if (tunnel := _TUNNEL_STATUS.search(str(root))) is not None:
        return faults.no_tunnel(target, route.proxy.place, int(tunnel[1]))
    behind = isinstance(error, ProxyError)
    place = f"the proxy {route.proxy.place}" if behind else target.place
    return faults.no_connection(root, place)


_LIVE, _OVER, _CUT = range(3)


class _Exchange:
    """A reply under way.

    The lock is held for a look at the state and for one `shutdown`, never while waiting. A socket
    is closed only by the thread that reads from it: closing it under a reader would wait for that
    reader, and might hand its number to another file.
    """

    def __init__(self, response: BaseHTTPResponse, sock: Any, clock: Clock, target: Target) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.iteritems()}
        self._response = response
        self._sock = sock
        self._clock = clock
        self._target = target
        self._readable = readable(self.headers)
        self._stage: Any = "first"
        self._state = _LIVE
        self._reading = False
        self._ended: MoimError | None = None
        self._lock = threading.Lock()

    async def read(self, within: float | None = None) -> bytes:
        """See `Exchange.read`."""
        with self._lock:
            if self._ended is not None:
                raise self._ended
            if self._state == _CUT:
                raise faults.cancelled(self._target)
            self._reading = True
        try:
            piece = self._read(within)
        except (HTTPError, HTTPException, OSError, ValueError) as error:
            self._end(self._broken(error))
        except BaseException:
            self._end(faults.cancelled(self._target))
            raise
        finally:
            self._reading = False
        if self._state == _CUT and self._ended is None:
            self._end(faults.cancelled(self._target))
        if self._ended is not None:
            raise self._ended
        self._stage = "between"
        return piece

    def _read(self, within: float | None) -> bytes:
        if not self._readable:
            raise CodingError("not asked for")
        if self._state == _LIVE:
            self._sock.until = self._clock.until(self._stage, time.monotonic(), within)
        return self._response.read1(_PIECE)

    def _broken(self, error: BaseException) -> MoimError:
        root = faults.root_of(error)
        if self._state == _CUT:
            return faults.cancelled(self._target)
        if isinstance(root, TimeoutError):
            return self._clock.expired()
        if isinstance(error, CodingError):
            return faults.undecodable(self._target, self.headers.get("content-encoding", ""))
        return faults.broken(self._target)

    def _end(self, error: MoimError) -> None:
        self._ended = error
        self.close()
        self._response.close()

    def let_go(self) -> None:
        """The connection goes back to its pool: from now on it is not ours to cut."""
        with self._lock:
            if self._state == _LIVE:
                self._state = _OVER

    def close(self) -> None:
        """See `Exchange.close`."""
        with self._lock:
            if self._state != _LIVE:
                return
            self._state = _CUT
            _cut(self._sock)
            if self._reading:
                return
        self._response.close()


def _innermost(sock: Any) -> Any:
    """The socket that carries the bytes: TLS inside TLS, by an https proxy, is not one itself."""
    while not isinstance(sock, socket.socket):
        sock = sock.socket
    return sock


def _cut(sock: socket.socket) -> None:
    """Tell both sides at once that nothing more will come; wakes a blocked read."""
    # Not the TLS socket's own method: that one forgets its TLS state under the reader.
    with contextlib.suppress(OSError):  # the other side was faster
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _dial(host: str, port: int, until: float, options: Any) -> socket.socket:
    """Connect to the first address that answers; each gets its share of the time left."""
    addresses = _addresses(host, port, until)
    failures: list[OSError] = []
    for index, address in enumerate(addresses):
        left = until - time.monotonic()
        if left <= 0:
            break
        try:
            return _connected(address, until, left / (len(addresses) - index), options)
        except OSError as error:
            failures.append(error)
    # "Refused" says most: the machine is there. An address family that is not says least.
    refused = [error for error in failures if isinstance(error, ConnectionRefusedError)]
    raise next(iter(refused + failures), TimeoutError("timed out"))


def _connected(address: Any, until: float, limit: float, options: Any) -> socket.socket:
    family, kind, protocol, _, place = address
    sock = _Socket(family, kind, protocol)
    try:
        for option in options or ():
            sock.setsockopt(*option)
        sock.settimeout(_seconds(limit))
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    sock.until = until
    sock.settimeout(_seconds(max(until - time.monotonic(), 0.001)))
    return sock


def _seconds(left: float) -> float | None:
    """A socket's timeout; the system counts milliseconds in 32 bits, so longer ones are none."""
    return left if left < LONGEST else None


def _addresses(host: str, port: int, until: float) -> list[Any]:
    if is_local_name(host):  # never a question to a name server
        return [*_look_up("127.0.0.1", port), *_look_up("::1", port)]
    try:
        return _look_up(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return _within(until, lambda: _look_up(host, port))


def _look_up(host: str, port: int, flags: int = 0) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


def _within(until: float, work: Callable[[], list[Any]]) -> list[Any]:
    """Run what cannot be interrupted on a thread of its own, and give up on it in time."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work())
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="moim-look-up", daemon=True)
    thread.start()
    thread.join(_seconds(max(until - time.monotonic(), 0)))
    if not outcome:
        raise TimeoutError("timed out")
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    found: list[Any] = outcome[0]
    return found
