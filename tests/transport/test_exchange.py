"""What every exchange does, over real sockets and under both runtimes."""

from __future__ import annotations

import contextlib
import gzip
import random
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_server import (
    PATIENCE,
    QUICK,
    Authority,
    Colour,
    Peer,
    Sent,
    call,
    child_environment,
    each_request,
    mute,
    replies,
    run_python,
    serving,
)

from moim.errors import Cancelled, ConfigError, DecodeError, StreamBroken
from moim.runtime import Runtime
from moim.transport import Exchange, Timeouts, read_all

COLOURS = ("blocking", "asyncio")


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> Colour:
    return Colour(request.param)


async def pieces(exchange: Exchange) -> list[bytes]:
    found = []
    while piece := await exchange.read():
        found.append(piece)
    return found


def test_a_request_arrives_as_it_was_given(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        exchange = await call(
            rt,
            f"{server.base}/api/",
            path="/v1/chat?x=%20y",
            body=b'{"a":1}',
            headers={"Authorization": "Bearer k", "X-Extra": "1"},
        )
        assert exchange.status == 201
        assert exchange.headers["x-name"] == "second"
        assert exchange.headers["content-type"] == "application/json"
        assert await read_all(exchange) == b"answer"
        assert await exchange.read() == b""

    head = "Content-Type: application/json\r\nX-Name: first\r\nX-Name: second\r\n"
    with serving(replies(b"answer", head, "201 Created")) as server:
        colour.run(body)
    (sent,) = server.requests
    assert (sent.method, sent.path, sent.body) == ("POST", "/api/v1/chat?x=%20y", b'{"a":1}')
    assert sent.headers["authorization"] == "Bearer k"
    assert sent.headers["x-extra"] == "1"
    assert sent.headers["user-agent"].startswith("moim/")


def test_a_path_outside_ascii_is_quoted(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        await read_all(await call(rt, server.base, path="/v1/models/한 국?a=é"))

    with serving(replies()) as server:
        colour.run(body)
    assert server.requests[0].path == "/v1/models/%ED%95%9C%20%EA%B5%AD?a=%C3%A9"


def test_user_and_password_of_the_base_become_basic_credentials(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        base = server.base.replace("://", "://me:s%40fe@")
        await read_all(await call(rt, base))

    with serving(replies()) as server:
        colour.run(body)
    assert server.requests[0].headers["authorization"] == "Basic bWU6c0BmZQ=="


@pytest.mark.parametrize("framing", ["length", "chunked", "gzip", "empty"])
def test_a_body_read_to_its_end_returns_the_connection(colour: Colour, framing: str) -> None:
    def answer(peer: Peer, sent: Sent) -> None:
        if framing == "chunked":
            peer.head()
            peer.chunk(b"ok")
            peer.send(b"0\r\n\r\n")
        elif framing == "gzip":
            peer.reply(gzip.compress(b"ok"), headers="content-encoding: gzip\r\n")
        else:
            peer.reply(b"" if framing == "empty" else b"ok")

    async def body(rt: Runtime) -> None:
        for _ in range(4):
            exchange = await call(rt, server.base, body=b"{}")
            assert await read_all(exchange) == (b"" if framing == "empty" else b"ok")
            exchange.close()
            exchange.close()

    with serving(each_request(answer)) as server:
        colour.run(body)
    assert server.accepted == 1
    assert len(server.requests) == 4


def test_a_body_left_early_cuts_the_connection_at_once(colour: Colour) -> None:
    cut = threading.Event()

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.head()
            peer.chunk(b"one")
            if peer.saw_end():
                cut.set()

    async def body(rt: Runtime) -> float:
        exchange = await call(rt, server.base, stream=True)
        assert await exchange.read() == b"one"
        exchange.close()
        left = time.monotonic()
        exchange.close()
        if rt.blocks:
            assert cut.wait(PATIENCE)
        else:
            assert await rt.call(cut.wait, PATIENCE)
        took = time.monotonic() - left
        with pytest.raises(Cancelled):
            await exchange.read()
        again = await call(rt, server.base, stream=True)
        again.close()
        return took

    with serving(script) as server:
        took = colour.run(body)
    assert server.accepted == 2
    assert took < 1


def test_one_byte_is_read_as_soon_as_it_is_there(colour: Colour) -> None:
    got = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        for byte in (b"a", b"b", b"c"):
            got.clear()
            peer.chunk(byte)
            assert got.wait(PATIENCE), "the client holds pieces back"
        peer.send(b"0\r\n\r\n")

    async def body(rt: Runtime) -> list[bytes]:
        exchange = await call(rt, server.base, stream=True)
        found = []
        while piece := await exchange.read():
            found.append(piece)
            got.set()
        return found

    with serving(script) as server:
        assert colour.run(body) == [b"a", b"b", b"c"]


def test_one_flushed_byte_of_a_compressed_stream_is_read_at_once(colour: Colour) -> None:
    got = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.head("transfer-encoding: chunked\r\ncontent-encoding: gzip\r\n")
        coder = zlib.compressobj(wbits=31)
        for byte in (b"a", b"b"):
            got.clear()
            peer.chunk(coder.compress(byte) + coder.flush(zlib.Z_SYNC_FLUSH))
            assert got.wait(PATIENCE), "the client holds pieces back"
        peer.chunk(coder.flush())
        peer.send(b"0\r\n\r\n")

    async def body(rt: Runtime) -> list[bytes]:
        exchange = await call(rt, server.base, stream=True)
        found = []
        while piece := await exchange.read():
            found.append(piece)
            got.set()
        return found

    with serving(script) as server:
        assert colour.run(body) == [b"a", b"b"]


FRAMINGS = st.sampled_from(["length", "chunked", "close"])
CODINGS = {
    "": lambda data: data,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


@pytest.mark.parametrize("name", COLOURS)
def test_however_the_bytes_are_cut_the_reads_join_to_the_body(name: str) -> None:
    plan: dict[str, Any] = {}

    def answer(peer: Peer, sent: Sent) -> None:
        headers = f"content-encoding: {plan['coding']}\r\n" if plan["coding"] else ""
        encoded, framing = CODINGS[plan["coding"]](plan["body"]), plan["framing"]
        if framing == "length":
            peer.head(f"{headers}content-length: {len(encoded)}\r\n")
        elif framing == "chunked":
            peer.head(f"{headers}transfer-encoding: chunked\r\n")
        else:
            peer.head(f"{headers}connection: close\r\n")
        start = 0
        for stop in sorted({cut % (len(encoded) + 1) for cut in plan["cuts"]} | {len(encoded)}):
            if part := encoded[start:stop]:
                (peer.chunk if framing == "chunked" else peer.send)(part)
            start = stop
        if framing == "chunked":
            peer.send(b"0\r\n\r\n")
        if framing == "close":
            peer.sock.close()

    async def body(rt: Runtime) -> bytes:
        return b"".join(await pieces(await call(rt, server.base, stream=True)))

    with serving(each_request(answer)) as server:

        @settings(max_examples=40, deadline=None)
        @given(
            st.binary(max_size=3000), st.lists(st.integers(0, 5000), max_size=8),
            FRAMINGS, st.sampled_from(sorted(CODINGS)),
        )  # fmt: skip
        def law(data: bytes, cuts: list[int], framing: str, coding: str) -> None:
            plan.update(body=data, cuts=cuts, framing=framing, coding=coding)
            assert Colour(name).run(body) == data

        law()


@pytest.mark.parametrize("name", COLOURS)
def test_close_from_another_thread_wakes_a_blocked_read(name: str) -> None:
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
        closer = threading.Timer(0.05, exchange.close)
        closer.start()
        with pytest.raises(Cancelled, match="closed before its end"):
            await exchange.read()
        closer.join(PATIENCE)
        with pytest.raises(Cancelled):
            await exchange.read()
        assert await rt.call(ended.wait, PATIENCE)

    with serving(script) as server:
        Colour(name).run(body)


def test_close_races_with_the_end_without_harming_the_next_exchange(colour: Colour) -> None:
    """Whoever wins, the connection that went back to the pool is never cut."""

    async def body(rt: Runtime) -> None:
        for _ in range(60):
            exchange = await call(rt, server.base, body=b"{}")
            closer = threading.Thread(target=exchange.close)
            closer.start()
            with contextlib.suppress(Cancelled):
                await read_all(exchange)
            following = await call(rt, server.base, body=b"{}")
            closer.join(PATIENCE)
            assert await read_all(following) == b"ok" * 500

    with serving(replies(b"ok" * 500)) as server:
        colour.run(body)


BROKEN: dict[str, Any] = {
    "short content-length": lambda peer: peer.send(
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
    ),
    "no last chunk": lambda peer: (peer.head(), peer.chunk(b"half")),
    "half a chunk": lambda peer: (peer.head(), peer.send(b"10\r\nhalf")),
    "bad chunk size": lambda peer: (
        peer.head(),
        peer.chunk(b"half"),
        peer.pause(),
        peer.send(b"zz\r\n"),
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_reply_that_ends_early_is_broken(colour: Colour, how: str) -> None:
    async def body(rt: Runtime) -> bytes:
        exchange = await call(rt, server.base, stream=True)
        found = b""
        while len(found) < 4:
            found += await exchange.read()
        server.released.set()
        for _ in range(2):
            with pytest.raises(StreamBroken, match=f"{server.place} closed") as raised:
                await exchange.read()
        assert raised.value.retryable
        return found

    def script(peer: Peer) -> None:
        peer.request()
        BROKEN[how](peer)

    with serving(script) as server:
        assert colour.run(body) == b"half"


def test_what_arrived_before_a_broken_end_is_still_given(colour: Colour) -> None:
    gone = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        peer.chunk(b"half")
        peer.sock.close()
        gone.set()

    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base, stream=True)
        assert await rt.call(gone.wait, PATIENCE)
        await rt.sleep(0.05)
        assert await exchange.read() == b"half"
        with pytest.raises(StreamBroken):
            await exchange.read()

    with serving(script) as server:
        colour.run(body)


def test_a_reset_in_the_middle_is_broken(colour: Colour) -> None:
    got = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        peer.chunk(b"half")
        got.wait(PATIENCE)
        peer.reset()

    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base, stream=True)
        assert await exchange.read() == b"half"
        got.set()
        with pytest.raises(StreamBroken):
            await exchange.read()

    with serving(script) as server:
        colour.run(body)


def test_an_empty_reply_is_broken(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        with pytest.raises(StreamBroken, match="without a reply"):
            await call(rt, server.base, body=b"{}")

    with serving(lambda peer: (peer.request(), None)[1]) as server:
        colour.run(body)


GARBAGE = {
    "no http": b"\x00\x01\x02 what\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "huge header": b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_an_error_of_moim(colour: Colour, kind: str) -> None:
    async def body(rt: Runtime) -> None:
        with pytest.raises(DecodeError, match="not HTTP"):
            await call(rt, server.base)

    def script(peer: Peer) -> None:
        peer.request()
        peer.send(GARBAGE[kind])

    with serving(script) as server:
        colour.run(body)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"])
def test_redirects_are_returned(colour: Colour, status: str) -> None:
    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base, headers={"authorization": "Bearer k"})
        assert exchange.status == int(status[:3])
        assert exchange.headers["location"] == "http://127.0.0.1:1/elsewhere"
        await read_all(exchange)

    with serving(
        replies(status=status, headers="location: http://127.0.0.1:1/elsewhere\r\n")
    ) as server:
        colour.run(body)
    assert len(server.requests) == 1


def test_cookies_are_not_kept(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        for _ in range(2):
            await read_all(await call(rt, server.base))

    with serving(replies(headers="set-cookie: a=b; path=/\r\n")) as server:
        colour.run(body)
    assert "cookie" not in server.requests[1].headers


def test_a_large_body_is_sent_whole(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        await read_all(await call(rt, server.base, body=b"x" * 3_000_000))

    with serving(replies()) as server:
        colour.run(body)
    assert server.requests[0].body == b"x" * 3_000_000
    assert server.requests[0].headers["content-length"] == "3000000"


@pytest.mark.parametrize("kind", ["chunked", "gzip", "tls"])
def test_a_large_body_reaches_a_slow_reader_after_the_server_has_gone(
    colour: Colour, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = random.Random(7).randbytes((1 << 20) if kind == "tls" else (5 << 20))

    def script(peer: Peer) -> None:
        peer.request()
        encoded = gzip.compress(data) if kind == "gzip" else data
        peer.head(
            "transfer-encoding: chunked\r\n" + "content-encoding: gzip\r\n" * (kind == "gzip")
        )
        for start in range(0, len(encoded), 100_000):
            peer.chunk(encoded[start : start + 100_000])
        peer.send(b"0\r\n\r\n")

    async def body(rt: Runtime) -> bytes:
        exchange = await call(rt, server.base, stream=True)
        await rt.sleep(0.1)
        found = []
        while piece := await exchange.read():
            found.append(piece)
            await rt.sleep(0.001)
        return b"".join(found)

    authority = Authority()
    authority.ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("MOIM_CA_FILE", str(tmp_path / "ca.pem"))
    with serving(script, authority.context("127.0.0.1") if kind == "tls" else None) as server:
        assert colour.run(body) == data


# --- kept connections that died ---


def test_a_connection_closed_while_idle_is_not_used(colour: Colour) -> None:
    closed = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.reply(b"ok")
        peer.sock.close()
        closed.set()

    async def body(rt: Runtime) -> None:
        for _ in range(3):
            closed.clear()
            assert await read_all(await call(rt, server.base, body=b"{}")) == b"ok"
            closed.wait(PATIENCE)  # blocks the loop on purpose: it has not seen the end

    with serving(script) as server:
        colour.run(body)
    assert server.accepted == 3


def dies_under_the_second_request(peer: Peer) -> None:
    for count in range(2):
        sent = peer.request()
        if sent is None or (count == 1 and peer.server.accepted == 1):
            return
        peer.reply(b"ok")


def test_a_get_is_sent_again_when_its_kept_connection_dies(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        for _ in range(2):
            assert await read_all(await call(rt, server.base)) == b"ok"

    with serving(dies_under_the_second_request) as server:
        colour.run(body)
    assert len(server.requests) == 3
    assert server.accepted == 2


def test_a_post_is_never_sent_twice(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        assert await read_all(await call(rt, server.base, body=b"{}")) == b"ok"
        with pytest.raises(StreamBroken) as raised:
            await call(rt, server.base, body=b"{}")
        assert raised.value.retryable

    with serving(dies_under_the_second_request) as server:
        colour.run(body)
    assert len(server.requests) == 2


# --- compression ---


def test_a_decompression_bomb_is_read_in_bounded_pieces_and_refused_whole(colour: Colour) -> None:
    coder = zlib.compressobj(9, wbits=31)
    zeros = b"\0" * (1 << 20)
    bomb = b"".join(coder.compress(zeros) for _ in range(100)) + coder.flush()

    async def body(rt: Runtime) -> None:
        exchange = await call(rt, server.base)
        total = largest = 0
        while piece := await exchange.read():
            total += len(piece)
            largest = max(largest, len(piece))
        assert total == 100 << 20
        assert largest <= 4 << 20
        with pytest.raises(DecodeError, match="larger than 64 MiB"):
            await read_all(await call(rt, server.base))

    with serving(replies(bomb, "content-encoding: gzip\r\n")) as server:
        colour.run(body)


def test_read_all_stops_at_its_limit_and_closes(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        assert len(await read_all(await call(rt, server.base), limit=1000)) == 1000
        exchange = await call(rt, server.base)
        with pytest.raises(DecodeError):
            await read_all(exchange, limit=999)

    with serving(replies(b"x" * 1000)) as server:
        colour.run(body)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip", "gzip, gzip", "made-up"])
def test_a_body_that_cannot_be_decompressed_is_a_decode_error(colour: Colour, coding: str) -> None:
    async def body(rt: Runtime) -> None:
        with pytest.raises(DecodeError, match="cannot be decompressed"):
            await read_all(await call(rt, server.base))

    with serving(replies(b"certainly not compressed", f"content-encoding: {coding}\r\n")) as server:
        colour.run(body)


# --- what the caller gave wrong ---


@pytest.mark.parametrize("value", ["sk-secret\n", "sk-secret\r\nx: y", "sk-sécret", "sk-\0secret"])
def test_a_header_that_cannot_be_sent_is_named_and_not_shown(colour: Colour, value: str) -> None:
    async def body(rt: Runtime) -> None:
        with pytest.raises(ConfigError) as raised:
            await call(rt, "http://127.0.0.1:1", headers={"Authorization": value})
        assert "'Authorization'" in str(raised.value)
        assert "cret" not in str(raised.value)

    colour.run(body)


@pytest.mark.parametrize(
    "base",
    [
        "", "api.openai.com/v1", "ftp://host", "http://", "http://host:99999", "http://[::1",
        "https://me:pa55word@host:x/v1", "https://h/v1?api-key=pa55word", "http://h#pa55word",
    ],
)  # fmt: skip
def test_a_wrong_base_is_refused_without_its_secrets(colour: Colour, base: str) -> None:
    async def body(rt: Runtime) -> None:
        with pytest.raises(ConfigError, match="base URL") as raised:
            await call(rt, base)
        assert "pa55word" not in str(raised.value)

    colour.run(body)


# --- many at once ---


def test_threads_share_the_pool() -> None:
    failures: list[BaseException] = []

    async def body(rt: Runtime) -> None:
        for _ in range(5):
            assert await read_all(await call(rt, server.base, body=b"{}")) == b"ok"

    def work() -> None:
        try:
            Colour("blocking").run(body)
        except BaseException as error:  # noqa: BLE001 - raised again on the test's own thread
            failures.append(error)

    with serving(replies()) as server:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert not failures
        assert len(server.requests) == 40
        assert server.accepted <= 8


def test_tasks_share_the_pool_without_a_limit() -> None:
    import asyncio

    async def body(rt: Runtime) -> None:
        async def one() -> None:
            assert await read_all(await call(rt, server.base, body=b"{}")) == b"ok"

        await asyncio.gather(*(one() for _ in range(120)))

    with serving(replies()) as server:
        Colour("asyncio").run(body)
    assert len(server.requests) == 120


def test_a_cancelled_open_cuts_its_connection_at_once() -> None:
    import asyncio

    arrived, ended = threading.Event(), threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        arrived.set()
        if peer.saw_end():
            ended.set()

    async def body(rt: Runtime) -> None:
        task = asyncio.ensure_future(call(rt, server.base, body=b"{}"))
        assert await rt.call(arrived.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await rt.call(ended.wait, PATIENCE)

    with serving(script) as server:
        Colour("asyncio").run(body)


def test_a_cancelled_open_does_not_wait_for_a_server_that_takes_nothing() -> None:
    import asyncio

    import psutil

    def connections() -> list[object]:
        own = psutil.Process().net_connections("tcp")
        return [each for each in own if each.raddr and each.raddr.port == server.port]

    async def body(rt: Runtime) -> None:
        task = asyncio.ensure_future(call(rt, server.base, body=b"x" * (64 << 20)))
        assert await rt.call(server.wait, lambda: server.accepted == 1)
        await asyncio.sleep(0.1)
        assert len(connections()) == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.01)
        assert not connections()

    with serving(mute) as server:
        Colour("asyncio").run(body)


def test_closing_after_the_loop_has_ended_is_harmless_and_cuts() -> None:
    import asyncio

    ended = threading.Event()

    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        peer.chunk(b"one")
        if peer.saw_end():
            ended.set()

    async def body(rt: Runtime) -> Exchange:
        exchange = await call(rt, server.base, stream=True)
        assert await exchange.read() == b"one"
        return exchange

    from moim.runtime.asyncio_ import ASYNCIO

    with serving(script) as server:
        loop = asyncio.new_event_loop()
        exchange = loop.run_until_complete(body(ASYNCIO))
        exchange.close()
        assert ended.wait(PATIENCE), "a loop that stands still kept the connection open"
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        exchange.close()


# --- processes and loops ---

CLIENT = """
import asyncio, os, sys
from moim.runtime import BLOCKING, step
from moim.runtime.asyncio_ import ASYNCIO
from moim.transport import Endpoint, Timeouts, http, read_all
from moim.types import HTTPRequest

async def ask(rt):
    exchange = await http().open(
        rt, Endpoint(base=sys.argv[1]), HTTPRequest(path="/x", body=b"{}"), Timeouts()
    )
    assert await read_all(exchange) == b"ok"
"""


def test_a_second_loop_works_and_nothing_is_left_unclosed() -> None:
    code = CLIENT + (
        "asyncio.run(ask(ASYNCIO)); asyncio.run(ask(ASYNCIO))\n"
        "import gc; gc.collect()\n"
        "assert not __import__('moim.transport.async_http', fromlist=['x'])._sessions\n"
    )
    with serving(replies()) as server:
        result = run_python(code, server.base)
    assert (result.returncode, result.stderr) == (0, "")
    assert server.accepted == 2


def test_an_interrupt_ends_a_blocked_read_and_cuts() -> None:
    import signal
    import subprocess
    import sys

    ended = threading.Event()
    code = CLIENT + (
        "async def stream():\n"
        "    endpoint, request = Endpoint(base=sys.argv[1]), HTTPRequest(path='/x', body=b'{}')\n"
        "    exchange = await http().open(BLOCKING, endpoint, request, Timeouts())\n"
        "    await exchange.read()\n"
        "    try:\n"
        "        print('reading', flush=True)\n"
        "        await exchange.read()\n"
        "    except KeyboardInterrupt:\n"
        "        exchange.close()\n"
        "        print('interrupted', flush=True)\n"
        "        sys.stdin.read()\n"
        "step(stream())\n"
    )

    def script(peer: Peer) -> None:
        peer.request()
        peer.head()
        peer.chunk(b"one")
        if peer.saw_end():
            ended.set()

    with serving(script) as server:
        child = subprocess.Popen(
            [sys.executable, "-c", code, server.base],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=child_environment(),
        )  # fmt: skip
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "reading\n"
            child.send_signal(signal.SIGINT)
            assert child.stdout.readline() == "interrupted\n"
            assert ended.wait(PATIENCE), "the child keeps its connection"
        finally:
            child.kill()
            child.communicate(timeout=PATIENCE)


def test_a_loop_that_was_just_closed_leaves_no_complaint_of_the_library() -> None:
    code = CLIENT + (
        "for _ in range(2):\n"
        "    loop = asyncio.new_event_loop()\n"
        "    loop.run_until_complete(ask(ASYNCIO))\n"
        "    loop.close()\n"
        "asyncio.run(ask(ASYNCIO))\n"
    )
    with serving(replies()) as server:
        result = run_python(code, server.base)
    assert result.returncode == 0, result.stderr
    assert "Unclosed" not in result.stderr


@pytest.mark.parametrize("name", COLOURS)
def test_a_forked_child_uses_connections_of_its_own(name: str) -> None:
    import os

    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    run = "step(ask(BLOCKING))" if name == "blocking" else "asyncio.run(ask(ASYNCIO))"
    inside = (
        "async def both():\n"
        "    await ask(ASYNCIO)\n"
        "    if os.fork() == 0:\n"
        "        os._exit(child())\n"
        "    await ask(ASYNCIO)\n"
        "    assert os.wait()[1] == 0\n"
        "asyncio.run(both())\n"
    )
    plain = (
        "step(ask(BLOCKING))\n"
        "if os.fork() == 0:\n"
        "    os._exit(child())\n"
        "step(ask(BLOCKING))\n"
        "assert os.wait()[1] == 0\n"
    )
    child = (
        "def child():\n"
        "    try:\n"
        "        asyncio.events._set_running_loop(None)\n"
        f"        {run}\n"
        "        return 0\n"
        "    except BaseException as error:\n"
        "        print(repr(error), file=sys.stderr, flush=True)\n"
        "        return 1\n"
    )
    with serving(replies()) as server:
        result = run_python(CLIENT + child + (plain if name == "blocking" else inside), server.base)
    assert result.returncode == 0, result.stderr
    assert len(server.requests) == 3
    assert server.accepted == 2


def test_libraries_are_imported_when_they_are_needed() -> None:
    code = (
        "import sys, moim.transport, moim.transport.replay\n"
        "heavy = {'urllib3', 'aiohttp', 'asyncio', 'http.client', 'ssl'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_no_time_limit_means_none(colour: Colour) -> None:
    async def body(rt: Runtime) -> None:
        none = Timeouts(connect=None, first=None, between=None)
        assert await read_all(await call(rt, server.base, timeouts=none)) == b"ok"
        assert QUICK.total is None

    with serving(replies()) as server:
        colour.run(body)
