"""Each time limit ends its own wait, with the same meaning under both runtimes."""

from __future__ import annotations

import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_server import PATIENCE, Authority, Colour, Peer, call, mute, serving

from moim.errors import CallTimeout
from moim.runtime import Runtime
from moim.transport import Timeouts, read_all
from moim.transport.limits import Clock


@pytest.fixture(params=["blocking", "asyncio"])
def colour(request: pytest.FixtureRequest) -> Colour:
    return Colour(request.param)


def expect(error: CallTimeout, name: str, seconds: str, place: str) -> None:
    assert isinstance(error, TimeoutError)
    assert error.retryable
    assert f"within {seconds} s ({name} timeout)" in str(error)
    assert place in str(error)
    assert f"MOIM_{name.upper()}_TIMEOUT" in error.hint


def test_connect_includes_tls(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        base = server.base.replace("http:", "https:")
        with pytest.raises(CallTimeout) as raised:
            await call(rt, base, timeouts=Timeouts(connect=0.2))
        expect(raised.value, "connect", "0.2", server.place)

    with serving(mute) as server:
        colour.run(body)


def test_connect_includes_the_look_up(colour: Colour, monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def slow(*args: object, **kwargs: object) -> list[object]:
        if kwargs.get("flags") == socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not a number")
        done.wait(PATIENCE)
        raise socket.gaierror(socket.EAI_NONAME, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def body(rt: Runtime) -> None:
        began = time.monotonic()
        with pytest.raises(CallTimeout) as raised:
            await call(rt, "http://slow.example", timeouts=Timeouts(connect=0.2))
        took = time.monotonic() - began
        done.set()
        expect(raised.value, "connect", "0.2", "slow.example:80")
        assert took < PATIENCE / 2

    colour.run(body)


def silent(peer: Peer) -> None:
    peer.request()
    peer.server.released.wait(PATIENCE)


def silent_after_the_head(peer: Peer) -> None:
    peer.request()
    peer.head()
    peer.server.released.wait(PATIENCE)


def silent_after_a_piece(peer: Peer) -> None:
    peer.request()
    peer.head()
    peer.chunk(b"one")
    peer.server.released.wait(PATIENCE)


def drips(peer: Peer) -> None:
    peer.request()
    peer.head()
    while not peer.server.released.wait(0.02):
        peer.chunk(b"x")


def drips_its_head(peer: Peer) -> None:
    peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\n")
    while not peer.server.released.wait(0.02):
        peer.send(b"x: y\r\n")


def test_first_waits_for_the_head(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        with pytest.raises(CallTimeout) as raised:
            await call(rt, server.base, body=b"{}", timeouts=Timeouts(first=0.2))
        expect(raised.value, "first", "0.2", server.place)

    with serving(silent) as server:
        colour.run(body)


def test_first_waits_for_the_first_piece_too(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base, timeouts=Timeouts(first=0.3, between=0.01))
        with pytest.raises(CallTimeout) as raised:
            await exchange.read()
        expect(raised.value, "first", "0.3", server.place)

    with serving(silent_after_the_head) as server:
        colour.run(body)


def test_first_covers_a_server_that_does_not_take_the_request(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        with pytest.raises(CallTimeout) as raised:
            await call(rt, server.base, body=b"x" * (64 << 20), timeouts=Timeouts(first=0.5))
        expect(raised.value, "first", "0.5", server.place)

    with serving(mute) as server:
        colour.run(body)


def test_a_head_that_drips_does_not_outlast_first(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        with pytest.raises(CallTimeout) as raised:
            await call(rt, server.base, timeouts=Timeouts(first=0.3))
        expect(raised.value, "first", "0.3", server.place)

    with serving(drips_its_head) as server:
        colour.run(body)


def test_between_waits_for_the_next_piece(colour: Colour) -> None:
    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        peer.chunk(b"one")
        if peer.saw_end():
            ended.set()

    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base, timeouts=Timeouts(between=0.2))
        assert await exchange.read() == b"one"
        with pytest.raises(CallTimeout) as raised:
            await exchange.read()
        expect(raised.value, "between", "0.2", server.place)
        assert await rt.call(ended.wait, PATIENCE), "the connection was left open"

    with serving(script) as server:
        colour.run(body)


def test_a_slow_reader_is_not_a_slow_server(colour: Colour) -> None:
    sent = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        peer.chunk(b"one")
        peer.chunk(b"two")
        peer.send(b"0\r\n\r\n")
        sent.set()

    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base, timeouts=Timeouts(first=0.3, between=0.3))
        assert await rt.call(sent.wait, PATIENCE)
        await rt.sleep(0.4)
        found = await exchange.read()
        await rt.sleep(0.4)
        while piece := await exchange.read():
            found += piece
        assert found == b"onetwo"

    with serving(script) as server:
        colour.run(body)


def test_one_read_may_have_a_limit_of_its_own(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base)
        assert await exchange.read(within=PATIENCE) == b"one"
        with pytest.raises(CallTimeout, match=r"sent nothing for 0\.1 s"):
            await exchange.read(within=0.1)

    with serving(silent_after_a_piece) as server:
        colour.run(body)


@pytest.mark.parametrize("script", [silent, silent_after_a_piece, drips, drips_its_head])
def test_total_ends_any_wait(colour: Colour, script: object) -> None:
    async def body(rt: Runtime) -> None:
        began = time.monotonic()
        with pytest.raises(CallTimeout) as raised:
            await read_all(await call(rt, server.base, timeouts=Timeouts(total=0.4)))
        expect(raised.value, "total", "0.4", server.place)
        assert 0.3 < time.monotonic() - began < PATIENCE / 2

    with serving(script) as server:  # type: ignore[arg-type]
        colour.run(body)


def test_limits_hold_over_tls(colour: Colour, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    authority = Authority()
    authority.ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("MOIM_CA_FILE", str(tmp_path / "ca.pem"))

    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base, timeouts=Timeouts(between=0.2))
        assert await exchange.read() == b"one"
        with pytest.raises(CallTimeout, match="between"):
            await exchange.read()

    with serving(silent_after_a_piece, authority.context("127.0.0.1")) as server:
        colour.run(body)


SECONDS = st.none() | st.floats(0.001, 1000)


@given(
    SECONDS, SECONDS, SECONDS, SECONDS, SECONDS, st.floats(0, 1e6),
    st.sampled_from(["first", "between"]),
)  # fmt: skip
def test_the_clock_names_the_limit_that_it_returned(
    connect: float | None,
    first: float | None,
    between: float | None,
    total: float | None,
    within: float | None,
    now: float,
    stage: str,
) -> None:
    timeouts = Timeouts(connect=connect, first=first, between=between, total=total)
    clock = Clock(timeouts, now, "h:1")
    until = clock.until(stage, now, within)  # type: ignore[arg-type]
    limits = [x for x in (getattr(timeouts, stage), total, within) if x is not None]
    assert until == (now + min(limits) if limits else float("inf"))
    if limits:
        text = str(clock.expired())
        named = [n for n in ("first", "between", "total") if f"({n} timeout)" in text]
        assert now + (getattr(timeouts, named[0]) if named else within) == until
