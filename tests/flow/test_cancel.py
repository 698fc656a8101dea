"""A call can be closed from elsewhere before its reply has begun, over real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import moim
from moim.errors import Cancelled


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """Takes one request and never answers; tells when it came and when the caller was gone."""
    asked, gone = threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(30)
                peer.recv(65536)
                asked.set()
                while peer.recv(65536):
                    pass
                gone.set()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", asked, gone
        thread.join(30)


def test_from_another_thread_while_the_server_is_silent() -> None:
    with silent_server() as (base, asked, gone):
        stream = moim.model("m", base=base).stream("hi")
        threading.Thread(target=lambda: (asked.wait(30), stream.close()), daemon=True).start()
        with pytest.raises(Cancelled):
            stream.read()
        assert gone.wait(30)


def test_from_another_task_while_the_server_is_silent() -> None:
    async def main(base: str, asked: threading.Event) -> None:
        stream = moim.model("m", base=base).astream("hi")
        reading = asyncio.ensure_future(stream.read())
        await asyncio.to_thread(asked.wait, 30)
        stream.close()
        with pytest.raises(Cancelled):
            await reading

    with silent_server() as (base, asked, gone):
        asyncio.run(main(base, asked))
        assert gone.wait(30)


def test_an_async_stream_closed_from_another_thread() -> None:
    async def main(base: str, asked: threading.Event) -> None:
        stream = moim.model("m", base=base).astream("hi")
        threading.Thread(target=lambda: (asked.wait(30), stream.close()), daemon=True).start()
        with pytest.raises(Cancelled):
            await stream.read()

    with silent_server() as (base, asked, gone):
        asyncio.run(main(base, asked))
        assert gone.wait(30)
