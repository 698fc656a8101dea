"""The engine as a person would use it without moim: the reference of `local` and `first_token`.

    python engine.py serve | in-process | over-http  PATH  THREADS  PROMPT

`serve` prints the server's address and serves until standard input ends. The others load the
model, print the first piece of its answer to PROMPT, and leave: from one process, or with the
engine in a child of its own that is asked over HTTP, as moim does it.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NamedTuple
from urllib.parse import urlsplit

CONTEXT = 4096
KEY = "benchmark"


class Timing(NamedTuple):
    """What a caller saw of one streamed answer.

    Attributes:
        first, last: seconds from the question to the first and to the last piece.
        pieces: how many pieces of text came.
        prompt_tokens: how many tokens the engine had to read (not those it remembered).
        text: the answer.
    """

    first: float
    last: float
    pieces: int
    prompt_tokens: int
    text: str

    @property
    def prompt_speed(self) -> float:
        """Prompt tokens per second of waiting for the first piece."""
        return self.prompt_tokens / self.first

    @property
    def generation_speed(self) -> float:
        """Pieces per second after the first; the engine writes one piece a token."""
        return (self.pieces - 1) / (self.last - self.first)


class Watch:
    """Times the pieces of an answer as they come."""

    def __init__(self) -> None:
        self._begin = time.perf_counter()
        self._first = self._last = 0.0
        self._pieces: list[str] = []

    def piece(self, text: str) -> None:
        """Another piece has arrived now."""
        self._last = time.perf_counter() - self._begin
        self._first = self._first or self._last
        self._pieces.append(text)

    def timing(self, timings: Mapping[str, Any]) -> Timing:
        """What was seen; `timings` is the engine's own report."""
        count = len(self._pieces)
        text = "".join(self._pieces)
        return Timing(self._first, self._last, count, int(timings["prompt_n"]), text)


def _server(path: str, threads: int) -> Any:
    xllamacpp: Any = import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_ctx = CONTEXT
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_parallel = 1
    params.cache_ram_mib = 256
    params.api_keys = [KEY]
    params.ui = params.endpoint_slots = False
    params.verbosity = 1
    return xllamacpp.Server(params)


def body(prompt: str, max_tokens: int) -> dict[str, Any]:
    """The question of every arm: greedy, and of fixed length whatever the model wants to say."""
    return {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }


def ask(address: str, prompt: str, max_tokens: int) -> Timing:
    """One question over HTTP, with nothing but the standard library in between."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    watch = Watch()
    timings: dict[str, Any] = {}
    path = "/v1/chat/completions"
    connection.request("POST", path, json.dumps(body(prompt, max_tokens)), headers)
    with connection.getresponse() as reply:
        if reply.status != 200:
            raise SystemExit(f"The engine refused: {reply.status} {reply.read(500)!r}")
        for line in reply:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            for choice in event["choices"]:
                if text := choice["delta"].get("content"):
                    watch.piece(text)
            timings = event.get("timings", timings)
    connection.close()
    return watch.timing(timings)


@contextmanager
def serving(path: str, threads: int) -> Iterator[str]:
    """The address of an engine while it runs in a child process."""
    child = subprocess.Popen(
        [sys.executable, "-P", __file__, "serve", path, str(threads), ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        address = child.stdout.readline().strip()
        if not address:
            raise SystemExit(f"The engine did not load {path}; its error is above.")
        yield address
    finally:
        child.stdin.close()
        child.wait(timeout=30)
        child.stdout.close()


def _serve(path: str, threads: int, _prompt: str) -> None:
    server = _server(path, threads)
    print(server.listening_address, flush=True)
    sys.stdin.read()


def _in_process(path: str, threads: int, prompt: str) -> None:
    server = _server(path, threads)

    def show(event: str) -> bool:
        for choice in json.loads(event)["choices"]:
            if text := choice["delta"].get("content"):
                print(text, end="", flush=True)
        return False

    server.handle_chat_completions(json.dumps(body(prompt, 1)), show)


def _over_http(path: str, threads: int, prompt: str) -> None:
    with serving(path, threads) as address:
        print(ask(address, prompt, 1).text, end="", flush=True)


MODES = {"serve": _serve, "in-process": _in_process, "over-http": _over_http}


def main() -> None:
    mode, path, threads, prompt = sys.argv[1:]
    MODES[mode](path, int(threads), prompt)
    sys.stdout.flush()
    # The engine's threads take a while to join, which no arm should be charged with.
    os._exit(0)


if __name__ == "__main__":
    main()
