"""A scriptable HTTP server on raw sockets, a proxy, and one test body for both colours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import trustme

from moim.runtime import BLOCKING, Runtime, step
from moim.runtime.asyncio_ import ASYNCIO
from moim.transport import Endpoint, Exchange, Timeouts, http
from moim.types import HTTPRequest

PATIENCE = 20.0
"""Seconds after which anything here counts as hung."""

QUICK = Timeouts(connect=PATIENCE, first=PATIENCE, between=PATIENCE)


@dataclass
class Sent:
    """A request as the server read it; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """The server's side of one connection."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock = sock
        self.server = server
        self._buffer = b""

    def read_until(self, mark: bytes) -> bytes | None:
        while mark not in self._buffer:
            try:
                data = self.sock.recv(65536)
            except (ConnectionError, ssl.SSLError):
                return None
            if not data:
                return None
            self._buffer += data
        found, self._buffer = self._buffer.split(mark, 1)
        return found

    def request(self) -> Sent | None:
        """The next request, or None when the client closed the connection."""
        head = self.read_until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ", 2)
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._buffer) < length:
            data = self.sock.recv(65536)
            if not data:
                return None
            self._buffer += data
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        sent = Sent(method, path, headers, body)
        self.server.requests.append(sent)
        return sent

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reply(self, body: bytes = b"", status: str = "200 OK", headers: str = "") -> None:
        self.send(
            f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body
        )

    def head(self, headers: str = "transfer-encoding: chunked\r\n", status: str = "200 OK") -> None:
        self.send(f"HTTP/1.1 {status}\r\n{headers}\r\n".encode())

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def saw_end(self) -> bool:
        """Wait until the client has cut the connection; False if it never does."""
        try:
            while self.sock.recv(65536):
                continue
        except TimeoutError:
            return False
        except (ConnectionError, ssl.SSLError):
            return True
        return True

    def pause(self) -> None:
        """Wait until the test says `server.released.set()`."""
        self.server.released.wait(PATIENCE)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


Script = Callable[[Peer], None]


class Server:
    """Runs `script` on a thread for each connection that it accepts."""

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        self.accepted = 0
        self.requests: list[Sent] = []
        self.faults: list[BaseException] = []
        self.released = threading.Event()
        self._script = script
        self._context = context
        self._peers: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def base(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}"

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._peers.append(sock)
        try:
            if self._context is not None:
                sock = self._context.wrap_socket(sock, server_side=True)
                self._peers.append(sock)
            self._script(Peer(sock, self))
        except (OSError, ValueError):
            pass  # the client went away, or did not speak TLS: its side asserts what it saw
        except BaseException as error:  # noqa: BLE001 - raised again by `close`
            self.faults.append(error)
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def wait(self, condition: Callable[[], bool]) -> bool:
        """Poll until `condition` holds; False if it never does."""
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.002)
        return True

    def close(self) -> None:
        self.released.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(PATIENCE)
        for sock in self._peers:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        if self.faults:
            raise self.faults[0]


def each_request(answer: Callable[[Peer, Sent], None]) -> Script:
    """A script that keeps the connection alive and answers every request."""

    def script(peer: Peer) -> None:
        while (sent := peer.request()) is not None:
            answer(peer, sent)

    return script


def replies(body: bytes = b"ok", headers: str = "", status: str = "200 OK") -> Script:
    return each_request(lambda peer, sent: peer.reply(body, status, headers))


@dataclass
class Authority:
    """A certificate authority made for the tests."""

    ca: trustme.CA = field(default_factory=trustme.CA)

    def context(self, *names: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        return context


def mute(peer: Peer) -> None:
    """Accepts the connection and does nothing with it."""
    peer.pause()


def proxy_script(targets: dict[str, tuple[str, int]], login: str | None = None) -> Script:
    """A proxy: CONNECT tunnels and forwards; names lead to `targets`, whatever DNS says."""

    def script(peer: Peer) -> None:
        sent = peer.request()
        if sent is None:
            return
        if login is not None and sent.headers.get("proxy-authorization") != login:
            peer.reply(status="407 Proxy Authentication Required")
            return
        if sent.method == "CONNECT":
            with socket.create_connection(targets[sent.path]) as upstream:
                peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _pump(peer.sock, upstream)
            return
        while sent is not None:
            peer.reply(f"forwarded {sent.path}".encode())
            sent = peer.request()

    return script


def _pump(one: socket.socket, other: socket.socket) -> None:
    pairs = {one: other, other: one}
    while True:
        held = [s for s in pairs if isinstance(s, ssl.SSLSocket) and s.pending()]
        ready = held or select.select(list(pairs), [], [], PATIENCE)[0]
        for sock in ready:
            data = sock.recv(65536)
            if not data:
                return
            pairs[sock].sendall(data)
        if not ready:
            return


class Colour:
    """Runs a test body under one runtime."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, body: Callable[[Runtime], Coroutine[Any, Any, Any]]) -> Any:
        if self.name == "blocking":
            return step(body(BLOCKING))
        return asyncio.run(asyncio.wait_for(body(ASYNCIO), PATIENCE * 2))


async def call(
    rt: Runtime,
    base: str,
    *,
    path: str = "/v1/x",
    body: bytes = b"",
    method: Any = None,
    stream: bool = False,
    headers: dict[str, str] | None = None,
    timeouts: Timeouts = QUICK,
) -> Exchange:
    request = HTTPRequest(
        path=path, body=body, method=method or ("POST" if body else "GET"), stream=stream
    )
    endpoint = Endpoint(base=base, headers=headers or {}, name="test")
    return await http().open(rt, endpoint, request, timeouts)


@contextlib.contextmanager
def serving(script: Script, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(script, context)
    try:
        yield server
    finally:
        server.close()


def child_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter in which every warning is an error."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        env=child_environment(),
        check=False,
    )
