"""An OpenAI-compatible server that speaks canned bytes, in a process of its own.

    python fake_server.py     prints its port, serves until standard input ends

The first part of the path chooses the reply: `whole`, `burst-N` (a stream of N pieces of text
written at once), `paced-N` (the same, one event a millisecond, so that each is a read of its own).
"""

from __future__ import annotations

import functools
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PACE = 0.001
ANSWER = "Seoul is the capital of South Korea, and its largest city by far."
_WORDS = tuple(f" {word}" for word in ANSWER.split())


def text_of(kind: str) -> str:
    """The answer that a reply of this kind gives."""
    if kind == "whole":
        return ANSWER
    return "".join(_WORDS[n % len(_WORDS)] for n in range(_pieces(kind)))


def _pieces(kind: str) -> int:
    return int(kind.rpartition("-")[2])


def _usage(tokens: int) -> dict[str, object]:
    return {
        "prompt_tokens": 24,
        "completion_tokens": tokens,
        "total_tokens": 24 + tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _whole() -> bytes:
    message: dict[str, object] = {
        "role": "assistant",
        "content": ANSWER,
        "refusal": None,
        "annotations": [],
    }
    body = {
        "id": "chatcmpl-BenchmarkBenchmarkBenchma",
        "object": "chat.completion",
        "created": 1760000000,
        "model": "benchmark-1",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": _usage(15),
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
    }
    data = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
        len(data),
        data,
    )


def _chunk(choices: list[dict[str, object]], usage: object = None) -> bytes:
    body = {
        "id": "chatcmpl-BenchmarkBenchmarkBenchma",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "benchmark-1",
        "service_tier": "default",
        "system_fingerprint": "fp_0123456789",
        "choices": choices,
        "usage": usage,
    }
    return b"data: %b\n\n" % json.dumps(body, separators=(",", ":")).encode()


def _choice(delta: dict[str, object], finish: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@functools.cache
def writes(kind: str) -> tuple[bytes, ...]:
    """What the server writes for a kind, one item a write."""
    if kind == "whole":
        return (_whole(),)
    events = [_chunk([_choice({"role": "assistant", "content": "", "refusal": None})])]
    for n in range(_pieces(kind)):
        events.append(_chunk([_choice({"content": _WORDS[n % len(_WORDS)]})]))
    events += [
        _chunk([_choice({}, "stop")]),
        _chunk([], _usage(_pieces(kind))),
        b"data: [DONE]\n\n",
    ]
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
        b"transfer-encoding: chunked\r\n\r\n"
    )
    frames = [head, *map(_frame, events), b"0\r\n\r\n"]
    return tuple(frames) if kind.startswith("paced") else (b"".join(frames),)


def _serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(ConnectionError), connection, connection.makefile("rb") as incoming:
        while line := incoming.readline():
            length = 0
            while (header := incoming.readline()) not in (b"\r\n", b""):
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            incoming.read(length)
            kind = line.split(b" ")[1].split(b"/")[1].decode()
            for n, data in enumerate(pieces := writes(kind)):
                # The end of the body follows the last event at once, as servers do.
                if 0 < n < len(pieces) - 1:
                    time.sleep(PACE)
                connection.sendall(data)


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


@contextmanager
def running() -> Iterator[str]:
    """The server's address while it runs in a child process."""
    child = subprocess.Popen(
        [sys.executable, "-I", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(child.stdout.readline())}"
    finally:
        child.stdin.close()
        child.wait(timeout=10)
        child.stdout.close()


if __name__ == "__main__":
    main()
