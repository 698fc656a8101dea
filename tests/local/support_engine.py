"""A pool of its own for each test, the tiny model, and short words for calls of the engine."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moim.dialects import registry
from moim.errors import MoimError
from moim.local import gguf
from moim.local.engines import LoadOptions, RunnerSpec, spec_for
from moim.local.registry import Registry, identity
from moim.local.runner import Pool
from moim.local.transport import LocalTransport, explain
from moim.runtime import BLOCKING, Runtime, step
from moim.testing import tiny_gguf
from moim.transport import http
from moim.transport.protocol import Endpoint, Exchange, Timeouts
from moim.types import HTTPReply, HTTPRequest

NOWHERE = Endpoint(base="")
SRC = Path(__file__).resolve().parents[2] / "src"
PATIENCE = 60.0  # seconds; what is waited for takes far less, but the machine may be busy


@contextlib.contextmanager
def pool_in(folder: Path, **options: Any) -> Iterator[Pool]:
    """A pool with a registry of its own; nothing of it is left afterwards."""
    pool = Pool(Registry(folder / "runners"), **options)
    try:
        yield pool
    finally:
        pids = [model.pid for model in pool.loaded()]
        pool.close()
        assert not [pid for pid in pids if alive(pid)]


def tiny(folder: Path, context: int = 2048, name: str = "tiny.gguf", **options: Any) -> RunnerSpec:
    """The spec of a tiny model whose context is as long as it was trained for."""
    # One thread: where processors are busy, two that wait for each other are far slower.
    loading = {"num_ctx": context, "threads": 1, **options}
    path = folder / name
    if not path.exists():
        tiny_gguf.write(path, context_length=context)
    return spec_for(gguf.inspect(path), LoadOptions(**loading))


def slow(folder: Path, **options: Any) -> RunnerSpec:
    """A model of 7 MB that reads 30,000 tokens of prompt in a minute and generates for long."""
    context = 32768
    path = folder / "slow.gguf"
    if not path.exists():
        tiny_gguf.write(
            path,
            context_length=context,
            embedding_length=256,
            block_count=6,
            feed_forward_length=512,
            head_count=8,
            head_count_kv=4,
        )
    return tiny(folder, context, path.name, **options)


LONG_PROMPT = "x" * 30000


def local(pool: Pool, spec: RunnerSpec, keep_alive: float = 300.0) -> LocalTransport:
    return LocalTransport(spec, name="tiny", http=http(), keep_alive=keep_alive, runners=pool)


def chat(text: str = "hello", **fields: Any) -> HTTPRequest:
    """A streamed chat request."""
    body = {
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "max_tokens": 4,
        **fields,
    }
    return HTTPRequest(path="/chat/completions", body=json.dumps(body).encode(), stream=True)


async def open_chat(rt: Runtime, transport: LocalTransport, request: HTTPRequest) -> Exchange:
    return await transport.open(rt, NOWHERE, request, Timeouts(first=PATIENCE, between=PATIENCE))


async def answer(rt: Runtime, transport: LocalTransport, request: HTTPRequest) -> list[Any]:
    """The JSON of each event of a whole answer."""
    exchange = await open_chat(rt, transport, request)
    body = b""
    try:
        while data := await exchange.read():
            body += data
    finally:
        exchange.close()
    if exchange.status != 200:
        error = registry.find("openai_chat").decode_error(
            HTTPReply(status=exchange.status, headers=exchange.headers, body=body)
        )
        raise explain(error, transport.spec)
    events = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    assert events[-1] == b"[DONE]"
    return [json.loads(event) for event in events[:-1]]


def ask(transport: LocalTransport, request: HTTPRequest) -> list[Any]:
    return step(answer(BLOCKING, transport, request))


def text_of(events: list[Any]) -> str:
    pieces = [c["delta"].get("content") for event in events for c in event["choices"]]
    return "".join(piece for piece in pieces if piece)


def alive(pid: int) -> bool:
    """Whether this very process runs (and is no zombie)."""
    return identity(pid) is not None


def until(holds: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something holds; fails the test if it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


@contextlib.contextmanager
def program(code: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs `code`; killed at the end if it is still there."""
    environment = {**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{Path(__file__).parent}"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def error_of(work: Callable[[], object]) -> MoimError:
    """The error that `work` raises; anything but one of moim's own fails the test."""
    try:
        work()
    except MoimError as error:
        return error
    raise AssertionError("no error was raised")
