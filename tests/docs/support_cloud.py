"""A scripted OpenAI-compatible server on loopback, for the pages that call a model in the cloud."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# What the model says when the last message holds these words; a page may rely on its row.
ANSWERS = {
    "capital of France": "Paris.",
    "population": '{"city": "Seoul", "population": 9400000}',
}
OTHERWISE = "Hello! This answer was written in advance."


@contextmanager
def serve() -> Iterator[str]:
    """The server's base URL, while the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def answer(request: dict[str, Any]) -> str:
    last = json.dumps(request["messages"][-1]["content"], ensure_ascii=False)
    return next((text for words, text in ANSWERS.items() if words in last), OTHERWISE)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send("application/json", [{"object": "list", "data": [{"id": "gpt-5-mini"}]}])

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = answer(request).split(" ")
        usage = {
            "prompt_tokens": 9,
            "completion_tokens": len(words),
            "total_tokens": 9 + len(words),
        }
        head = {"id": "chatcmpl-1", "created": 1700000000, "model": request["model"]}
        if not request.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            reply = {**head, "object": "chat.completion", "choices": [choice], "usage": usage}
            self._send("application/json", [reply])
            return
        pieces = [words[0], *(f" {word}" for word in words[1:])]
        deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant"}, None)]
        deltas += [({"content": piece}, None) for piece in pieces]
        deltas += [({}, "stop")]
        chunks = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
            for delta, reason in deltas
        ]
        chunks += [{"choices": [], "usage": usage}]
        kind = {"object": "chat.completion.chunk"}
        self._send("text/event-stream", [{**head, **kind, **chunk} for chunk in chunks])

    def _send(self, kind: str, values: list[dict[str, Any]]) -> None:
        texts = [json.dumps(value, ensure_ascii=False) for value in values]
        if kind == "text/event-stream":
            texts = [f"data: {text}\n\n" for text in (*texts, "[DONE]")]
        body = "".join(texts).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Silent: what a test prints is the page's."""
