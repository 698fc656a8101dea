"""Runs the real `moim` in a process of its own, and a scripted server for it to talk to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

SECONDS = 120.0  # far more than any of these commands takes, also on a busy machine
MOIM = [sys.executable, "-m", "moim"]


def environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """This test's environment, with variables set or (None) taken out."""
    merged: dict[str, str | None] = {
        **os.environ,
        "COLUMNS": "80",
        "TERM": "xterm",
        "NO_COLOR": None,
        **(changes or {}),
    }
    return {name: value for name, value in merged.items() if value is not None}


def run_moim(
    *arguments: str,
    stdin: str | bytes = b"",
    env: Mapping[str, str | None] | None = None,
    expect: int | None = 0,
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end; nothing is ever a traceback, and the exit code is `expect`."""
    done = subprocess.run(
        [*MOIM, *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=SECONDS,
        env=environment(env),
        check=False,
    )
    result = subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )
    assert "Traceback" not in result.stderr, result.stderr
    if expect is not None:
        assert result.returncode == expect, (result.returncode, result.stdout, result.stderr)
    return result


def start_moim(
    *arguments: str, env: Mapping[str, str | None] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command whose output the test reads piece by piece."""
    return subprocess.Popen(
        [*MOIM, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(env),
    )


Script = Callable[["Answer"], None]


class Answer:
    """One request that the server has got, and the means to answer it."""

    def __init__(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        self._handler = handler
        self.body = body
        self.headers = {name.lower(): value for name, value in handler.headers.items()}

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else "".join(part["text"] for part in content)

    def fail(self, status: int, message: str, **error: Any) -> None:
        """Refuse in OpenAI's form."""
        self._send(status, "application/json", json.dumps({"error": {"message": message, **error}}))

    def stream(self, *pieces: str, finish: str = "stop", **last: Any) -> None:
        """The whole answer, streamed."""
        self.begin()
        for piece in pieces:
            self.piece(piece)
        self.end(finish, tokens=len(pieces), **last)

    def begin(self) -> None:
        self._handler.send_response(200)
        self._handler.send_header("Content-Type", "text/event-stream")
        self._handler.send_header("Connection", "close")
        self._handler.end_headers()

    def piece(self, text: str) -> None:
        self._event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})

    def end(self, finish: str = "stop", *, tokens: int = 1, **last: Any) -> None:
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        usage = {"prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens}
        self._event({"choices": [], "usage": usage, **last})
        self.raw(b"data: [DONE]\n\n")

    def raw(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def _event(self, chunk: dict[str, Any]) -> None:
        whole = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "fake-1"}
        self.raw(b"data: " + json.dumps({**whole, **chunk}, ensure_ascii=False).encode() + b"\n\n")

    def _send(self, status: int, kind: str, text: str) -> None:
        data = text.encode()
        self._handler.send_response(status)
        self._handler.send_header("Content-Type", kind)
        self._handler.send_header("Content-Length", str(len(data)))
        self._handler.end_headers()
        self._handler.wfile.write(data)


def echo(answer: Answer) -> None:
    """Answer with the prompt, a word at a time."""
    words = f"You said: {answer.prompt}".split(" ")
    answer.stream(*(word if n == 0 else f" {word}" for n, word in enumerate(words)))


class FakeServer:
    """An OpenAI-compatible server on loopback that does what its script says.

    Args:
        script: called for each request, on a thread of the request.
    """

    def __init__(self, script: Script = echo) -> None:
        self.script = script
        self.answers: list[Answer] = []
        self.left = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                answer = Answer(self, body)
                server.answers.append(answer)
                try:
                    server.script(answer)
                except (BrokenPipeError, ConnectionResetError):
                    server.left.set()

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    @property
    def base(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._http.server_port}/v1"

    @property
    def body(self) -> dict[str, Any]:
        """The body of the last request."""
        return self.answers[-1].body

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(SECONDS)


def chatter(answer: Answer) -> None:
    """Talk until the reader leaves."""
    answer.begin()
    answer.piece("First.")
    stop = threading.Event()
    while not stop.wait(0.02):
        answer.piece(" More.")


def ask(server: FakeServer, *arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    """`moim run` against the server."""
    return run_moim("run", "fake-1", *arguments, "--base", server.base, **keywords)


def option_names(help_text: str) -> Sequence[str]:
    """The long options that a `--help` text lists."""
    words = help_text.replace(",", " ").split()
    return [word for word in words if word.startswith("--")]
