"""The replayed transport keeps the contract of the real ones, with faults on demand."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_server import PATIENCE, QUICK, Colour

from moim.errors import (
    CallTimeout,
    Cancelled,
    ConnectError,
    StreamBroken,
    TransportError,
)
from moim.runtime import Runtime, step
from moim.runtime.fake import FakeRuntime
from moim.transport import Endpoint, Exchange, Timeouts, read_all
from moim.transport.replay import Replay, ReplayTransport
from moim.types import HTTPReply, HTTPRequest

ENDPOINT = Endpoint(base="http://h.example/v1", headers={"authorization": "Bearer k"}, name="x")
REQUEST = HTTPRequest(path="/chat", body=b"{}")


@pytest.fixture(params=["blocking", "asyncio"])
def colour(request: pytest.FixtureRequest) -> Colour:
    return Colour(request.param)


async def ask(rt: Runtime, transport: ReplayTransport, timeouts: Timeouts = QUICK) -> Exchange:
    return await transport.open(rt, ENDPOINT, REQUEST, timeouts)


def test_answers_come_in_order_and_requests_are_kept(colour: Colour) -> None:
    transport = ReplayTransport(
        [HTTPReply(status=429, headers={"Retry-After": "1"}, body=b"slow"), [b"a", b"", b"b"]]
    )

    async def body(rt: Runtime) -> None:
        first = await ask(rt, transport)
        assert (first.status, first.headers) == (429, {"retry-after": "1"})
        assert await read_all(first) == b"slow"
        second = await ask(rt, transport)
        assert [await second.read() for _ in range(4)] == [b"a", b"b", b"", b""]
        with pytest.raises(TransportError, match="Request 3 has no answer") as raised:
            await ask(rt, transport)
        assert not raised.value.retryable

    colour.run(body)
    assert [asked.request for asked in transport.requests] == [REQUEST] * 2
    assert transport.requests[1].endpoint is ENDPOINT


@given(st.binary(max_size=60), st.integers(0, 9), st.integers(0, 70))
def test_a_cut_reply_gives_its_beginning_and_then_breaks(data: bytes, size: int, cut: int) -> None:
    replay = Replay.of(HTTPReply(status=200, body=data), size)
    replay = Replay(pieces=replay.pieces, cut=cut)

    async def body() -> None:
        exchange = await ask(FakeRuntime(), ReplayTransport([replay]))
        found = b""
        while len(found) < len(data[:cut]):
            piece = await exchange.read()
            assert piece
            found += piece
        assert found == data[:cut]
        for _ in range(2):
            with pytest.raises(StreamBroken):
                await exchange.read()

    step(body())


def test_a_silent_server_is_a_timeout_in_no_time() -> None:
    rt = FakeRuntime()
    timeouts = Timeouts(first=7, between=5, total=100)

    async def body() -> None:
        exchange = await ask(rt, ReplayTransport([Replay(pieces=[b"one"], stall=3)]), timeouts)
        assert await exchange.read() == b"one"
        with pytest.raises(CallTimeout, match=r"5 s \(between timeout\)"):
            await exchange.read()
        assert rt.clock == 5
        exchange = await ask(rt, ReplayTransport([Replay(stall=0)]), timeouts)
        with pytest.raises(CallTimeout, match=r"7 s \(first timeout\)"):
            await exchange.read()
        with pytest.raises(CallTimeout):
            await exchange.read()

    step(body())


def test_delays_count_against_the_limits() -> None:
    rt = FakeRuntime()
    slow = Replay(pieces=[b"a", b"b", b"c"], delay=2)

    async def body() -> None:
        assert await read_all(await ask(rt, ReplayTransport([slow]))) == b"abc"
        assert rt.clock == 8
        with pytest.raises(CallTimeout, match="total timeout"):
            await read_all(await ask(rt, ReplayTransport([slow]), Timeouts(total=5)))
        assert rt.clock == 13

    step(body())


def test_an_error_is_raised_by_open(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        with pytest.raises(ConnectError, match="no road"):
            await ask(rt, ReplayTransport([Replay(error=ConnectError("no road"))]))

    colour.run(body)


def test_close_ends_a_wait_from_another_thread(colour: Colour) -> None:
    transport = ReplayTransport([Replay(pieces=[b"one"], stall=3)])

    async def body(rt: Runtime) -> None:
        none = Timeouts(connect=None, first=None, between=None)
        exchange = await ask(rt, transport, none)
        assert await exchange.read() == b"one"
        closer = threading.Timer(0.02, exchange.close)
        closer.start()
        with pytest.raises(Cancelled):
            await exchange.read()
        closer.join(PATIENCE)
        exchange.close()
        with pytest.raises(Cancelled):
            await exchange.read()

    colour.run(body)
    exchange = transport.requests[0].exchange
    assert exchange is not None
    assert exchange.closed
    assert not exchange.finished
