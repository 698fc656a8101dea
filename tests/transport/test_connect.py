"""Who is reached, through what, and what is said when nobody is."""

from __future__ import annotations

import base64
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3
from support_server import (
    PATIENCE,
    Authority,
    Colour,
    Peer,
    call,
    mute,
    proxy_script,
    replies,
    serving,
)

from moim.config import Settings
from moim.errors import CallTimeout, Cancelled, ConfigError, ConnectError, MoimError, OfflineError
from moim.runtime import Runtime
from moim.transport import Timeouts, read_all
from moim.transport.pools import pool_manager
from moim.transport.target import is_loopback


@pytest.fixture(params=["blocking", "asyncio"])
def colour(request: pytest.FixtureRequest) -> Colour:
    return Colour(request.param)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "MOIM_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def ca_file(authority: Authority, tmp_path: Path) -> str:
    authority.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


async def fails(rt: Runtime, base: str, **options: Any) -> MoimError:
    with pytest.raises(MoimError) as raised:
        await call(rt, base, **options)
    return raised.value


# --- no connection ---


def test_refused(colour: Colour) -> None:
    port = free_port()

    async def body(rt: Runtime) -> None:
        error = await fails(rt, f"http://127.0.0.1:{port}/v1")
        assert type(error) is ConnectError
        assert error.message == f"127.0.0.1:{port} refused the connection."
        assert error.hint
        assert error.retryable

    colour.run(body)


def test_refused_by_name(colour: Colour) -> None:
    """Whatever the other address family says."""
    port = free_port()

    async def body(rt: Runtime) -> None:
        error = await fails(rt, f"http://localhost:{port}/v1")
        assert type(error) is ConnectError
        assert error.message == f"localhost:{port} refused the connection."

    colour.run(body)


def test_unknown_host(colour: Colour, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    async def body(rt: Runtime) -> None:
        error = await fails(rt, "https://user:pa55word@no.such.example/v1")
        assert type(error) is ConnectError
        assert error.message == "The name of no.such.example:443 was not found."
        assert "pa55word" not in repr(error) + str(error)

    colour.run(body)


def test_unreachable(colour: Colour, monkeypatch: pytest.MonkeyPatch) -> None:
    # A host of the documentation's network (RFC 5737), so that nothing is contacted by chance.
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)

    async def body(rt: Runtime) -> None:
        if not rt.blocks:

            async def sock_connect(*args: object) -> None:
                unreachable()

            monkeypatch.setattr(type(rt.home()), "sock_connect", sock_connect)
        error = await fails(rt, "http://192.0.2.1:81")
        assert type(error) is ConnectError
        assert error.message == "192.0.2.1:81 cannot be reached: Network is unreachable."

    colour.run(body)


# --- TLS ---


def test_an_unknown_authority_is_refused(colour: Colour, authority: Authority) -> None:
    async def body(rt: Runtime) -> None:
        error = await fails(rt, server.base)
        assert type(error) is ConnectError
        assert "cannot be trusted" in error.message
        assert "MOIM_CA_FILE" in error.hint
        assert not error.retryable

    with serving(replies(), authority.context("127.0.0.1")) as server:
        colour.run(body)


@pytest.mark.parametrize("variable", ["MOIM_CA_FILE", "SSL_CERT_FILE"])
def test_an_authority_given_by_file_is_trusted(
    colour: Colour,
    authority: Authority,
    ca_file: str,
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, ca_file)

    async def body(rt: Runtime) -> None:
        for _ in range(2):
            assert await read_all(await call(rt, server.base)) == b"ok"

    with serving(replies(), authority.context("127.0.0.1")) as server:
        colour.run(body)
    assert server.accepted == 1


def test_a_certificate_for_another_name_is_refused(
    colour: Colour, authority: Authority, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOIM_CA_FILE", ca_file)

    async def body(rt: Runtime) -> None:
        error = await fails(rt, server.base)
        assert type(error) is ConnectError
        assert "cannot be trusted" in error.message

    with serving(replies(), authority.context("other.example")) as server:
        colour.run(body)


@pytest.mark.parametrize("content", [None, "this is not PEM"])
def test_a_wrong_authority_file_is_a_config_error(
    colour: Colour, content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv("MOIM_CA_FILE", str(path))

    async def body(rt: Runtime) -> None:
        error = await fails(rt, "https://127.0.0.1:1")
        assert type(error) is ConfigError
        assert str(path) in error.message

    colour.run(body)


def test_https_to_a_plain_server_says_so(colour: Colour) -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(100)
        peer.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

    async def body(rt: Runtime) -> None:
        error = await fails(rt, server.base.replace("http:", "https:"))
        assert type(error) is ConnectError
        assert "TLS" in error.message
        assert "http://" in error.hint

    with serving(script) as server:
        colour.run(body)


def test_over_tls_too_close_is_seen_at_once_and_wakes_a_reader(
    colour: Colour, authority: Authority, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOIM_CA_FILE", ca_file)
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        peer.chunk(b"one")
        if peer.saw_end():
            ended.set()

    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base, stream=True)
        assert await exchange.read() == b"one"
        exchange.close()
        assert await rt.call(ended.wait, PATIENCE)
        ended.clear()
        exchange = await call(rt, server.base, stream=True)
        assert await exchange.read() == b"one"
        closer = threading.Timer(0.05, exchange.close)
        closer.start()
        with pytest.raises(Cancelled):
            await exchange.read()
        closer.join(PATIENCE)
        assert await rt.call(ended.wait, PATIENCE)

    with serving(script, authority.context("127.0.0.1")) as server:
        colour.run(body)


# --- offline and loopback ---


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True), ("127.9.8.7", True), ("::1", True), ("localhost", True),
        ("LOCALHOST", True), ("localhost.", True), ("a.localhost", True), ("0.0.0.0", True),
        ("::", True), ("::ffff:127.0.0.1", True), ("example.com", False), ("10.0.0.1", False),
        ("128.0.0.1", False), ("notlocalhost", False), ("localhost.example.com", False),
        ("127.0.0.1.example.com", False), ("::ffff:8.8.8.8", False), ("2130706433", False),
    ],
)  # fmt: skip
def test_what_counts_as_loopback(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def test_offline_stops_before_any_look_up_or_socket(
    colour: Colour, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOIM_OFFLINE", "1")
    touched: list[object] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: touched.append(a))
    monkeypatch.setattr(socket.socket, "connect", lambda *a, **k: touched.append(a))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    async def body(rt: Runtime) -> None:
        for base in ("https://api.example.com/v1", "http://10.1.2.3", "http://2130706433"):
            error = await fails(rt, base)
            assert type(error) is OfflineError
            assert "MOIM_OFFLINE" in str(error)

    colour.run(body)
    assert not touched


@pytest.mark.parametrize("name", ["localhost", "model.localhost", "127.0.0.1"])
def test_offline_reaches_this_machine_without_a_name_server(
    colour: Colour, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOIM_OFFLINE", "1")
    ask = socket.getaddrinfo
    asked: list[object] = []

    def watch(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return ask(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", watch)

    async def body(rt: Runtime) -> None:
        assert await read_all(await call(rt, f"http://{name}:{server.port}")) == b"ok"

    with serving(replies()) as server:
        colour.run(body)
    assert set(asked) <= {"127.0.0.1", "::1"}
    assert server.requests[0].headers["host"] == f"{name}:{server.port}"


# --- proxies ---

LOGIN = "Basic " + base64.b64encode(b"me:s3cret word").decode()


@pytest.mark.parametrize("source", ["HTTP_PROXY", "http_proxy", "MOIM_PROXY", "ALL_PROXY"])
def test_http_goes_through_the_proxy(
    colour: Colour, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(rt: Runtime) -> None:
        for _ in range(2):
            exchange = await call(rt, "http://model.example/v1", path="/chat?x=1")
            assert await read_all(exchange) == b"forwarded http://model.example/v1/chat?x=1"

    with serving(proxy_script({}, LOGIN)) as proxy:
        monkeypatch.setenv(source, f"http://me:s3cret%20word@{proxy.place}")
        colour.run(body)
    assert proxy.accepted == 1
    assert [sent.headers["host"] for sent in proxy.requests] == ["model.example"] * 2


def test_https_goes_through_a_tunnel(
    colour: Colour, authority: Authority, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOIM_CA_FILE", ca_file)

    async def body(rt: Runtime) -> None:
        for _ in range(2):
            base = "https://model.example/v1"
            exchange = await call(rt, base, headers={"authorization": "Bearer k"})
            assert await read_all(exchange) == b"ok"

    with serving(replies(), authority.context("model.example")) as server:
        targets = {"model.example:443": ("127.0.0.1", server.port)}
        with serving(proxy_script(targets, LOGIN)) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://me:s3cret%20word@{proxy.place}")
            colour.run(body)
    (connect,) = proxy.requests
    assert (connect.method, connect.path) == ("CONNECT", "model.example:443")
    assert "authorization" not in connect.headers
    assert len(server.requests) == 2
    for sent in server.requests:
        assert "proxy-authorization" not in sent.headers
        assert sent.headers["authorization"] == "Bearer k"


def test_https_goes_through_a_proxy_that_speaks_tls_itself(
    colour: Colour, authority: Authority, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOIM_CA_FILE", ca_file)
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.reply(b"ok" * 50_000)
        peer.request()
        peer.head()
        peer.chunk(b"one")
        if peer.saw_end():
            ended.set()

    async def body(rt: Runtime) -> None:
        limits = Timeouts(connect=PATIENCE, first=PATIENCE, between=0.3)
        exchange = await call(rt, "https://model.example", timeouts=limits)
        assert await read_all(exchange) == b"ok" * 50_000
        exchange = await call(rt, "https://model.example", timeouts=limits)
        assert await exchange.read() == b"one"
        with pytest.raises(CallTimeout, match="between"):
            await exchange.read()
        assert await rt.call(ended.wait, PATIENCE)

    with serving(script, authority.context("model.example")) as server:
        targets = {"model.example:443": ("127.0.0.1", server.port)}
        with serving(proxy_script(targets), authority.context("127.0.0.1")) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"https://{proxy.place}")
            colour.run(body)
    assert server.accepted == 1


@pytest.mark.parametrize("setting", ["loopback", "NO_PROXY"])
def test_some_hosts_are_reached_directly(
    colour: Colour, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    ask = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        return ask("127.0.0.1" if host == "model.example" else host, *args, **kwargs)

    base = "http://127.0.0.1"
    if setting == "NO_PROXY":
        monkeypatch.setenv("NO_PROXY", "other.example, .example")
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        base = "http://model.example"

    async def body(rt: Runtime) -> None:
        assert await read_all(await call(rt, f"{base}:{server.port}")) == b"ok"

    with serving(replies()) as server:
        if setting == "NO_PROXY" and colour.name == "blocking":
            monkeypatch.setattr(socket, "getaddrinfo", _numbers_fail(resolve))
        colour.run(body)


def _numbers_fail(resolve: Any) -> Any:
    def inner(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host == "model.example" and kwargs.get("flags") == socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        return resolve(host, *args, **kwargs)

    return inner


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_is_not_there_is_named_without_its_login(
    colour: Colour, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("MOIM_PROXY", f"http://me:s3cret@127.0.0.1:{port}")

    async def body(rt: Runtime) -> None:
        error = await fails(rt, f"{scheme}://model.example")
        assert type(error) is ConnectError
        assert error.message == f"The proxy 127.0.0.1:{port} refused the connection."
        assert "s3cret" not in str(error)

    colour.run(body)


def test_a_proxy_that_wants_a_login_says_how_to_give_it(
    colour: Colour, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(rt: Runtime) -> None:
        error = await fails(rt, "https://model.example")
        assert type(error) is ConnectError
        assert f"The proxy {proxy.place} refused a tunnel" in error.message
        assert "407" in error.message
        assert "USER:PASSWORD" in error.hint
        assert not error.retryable

    with serving(proxy_script({}, LOGIN)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.place}")
        colour.run(body)


@pytest.mark.parametrize("url", ["socks5://me:s3cret@h:1", "http://:80", "http://h:x", "ftp://h"])
def test_a_proxy_that_cannot_be_used_is_a_config_error(
    colour: Colour, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOIM_PROXY", url)

    async def body(rt: Runtime) -> None:
        error = await fails(rt, "https://model.example")
        assert type(error) is ConfigError
        assert "s3cret" not in str(error)

    colour.run(body)


# --- downloads ---


def test_the_download_pool_passes_headers_and_follows_nothing() -> None:
    with serving(replies(b"part", "location: http://127.0.0.1:1/\r\n", "302 Found")) as server:
        pool = pool_manager()
        reply = pool.request(
            "GET", f"{server.base}/file", headers={"range": "bytes=5-"}, preload_content=False
        )
        assert (reply.status, reply.read()) == (302, b"part")
        assert reply.headers["location"] == "http://127.0.0.1:1/"
    assert server.requests[0].headers["range"] == "bytes=5-"


def test_the_download_pool_takes_the_proxy_and_stays_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(proxy_script({})) as proxy:
        pool = pool_manager(Settings(proxy=f"http://{proxy.place}"))
        assert pool.request("GET", "http://files.example/a?b").data == (
            b"forwarded http://files.example/a?b"
        )
        monkeypatch.setenv("MOIM_OFFLINE", "1")
        with pytest.raises(OfflineError, match=r"files\.example"):
            pool_manager().request("GET", "http://files.example/a")


def test_a_download_is_not_bound_by_the_call_before_it() -> None:
    async def body(rt: Runtime) -> None:
        assert await read_all(await call(rt, server.base, timeouts=Timeouts(first=0.2))) == b"ok"

    with serving(replies()) as server:
        Colour("blocking").run(body)
        time.sleep(0.3)
        assert pool_manager().request("GET", server.base).data == b"ok"
    assert server.accepted == 1, "both share their connections"


def test_a_download_from_a_silent_server_ends() -> None:
    with serving(mute) as server, pytest.raises(urllib3.exceptions.ReadTimeoutError):
        pool_manager(Settings(between_timeout=0.2)).request("GET", server.base)
