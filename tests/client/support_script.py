"""A transport that plays a script, in both colours, and says what was asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from moim.errors import Cancelled, MoimError
from moim.runtime import Runtime
from moim.transport.protocol import Endpoint, Exchange, Opening, Timeouts
from moim.types import HTTPRequest

Step = bytes | MoimError | Callable[[], None]


class Scripted:
    """Answers every request with the same steps: bytes to give, an error to raise, a function to
    call before the next piece."""

    def __init__(
        self, *steps: Step, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.steps = steps
        self.status = status
        self.headers = headers or {"content-type": "text/event-stream"}
        self.asked: list[tuple[Endpoint, HTTPRequest, Timeouts]] = []
        self.opened: list[ScriptedExchange] = []

    async def open(
        self,
        rt: Runtime,
        endpoint: Endpoint,
        request: HTTPRequest,
        timeouts: Timeouts,
        opening: Opening | None = None,
    ) -> Exchange:
        self.asked.append((endpoint, request, timeouts))
        exchange = ScriptedExchange(self, rt.blocks)
        self.opened.append(exchange)
        return exchange

    @property
    def body(self) -> Any:
        """The last request's body."""
        return msgspec.json.decode(self.asked[-1][1].body)


class ScriptedExchange:
    def __init__(self, script: Scripted, blocks: bool) -> None:
        self.status = script.status
        self.headers = script.headers
        self.left = list(script.steps)
        self.closed = False
        self.read_to_end = False
        self._blocks = blocks

    async def read(self, within: float | None = None) -> bytes:
        if not self._blocks:
            await asyncio.sleep(0)
        while True:
            if self.closed:
                raise Cancelled("closed")
            if not self.left:
                self.read_to_end = True
                return b""
            step = self.left.pop(0)
            if isinstance(step, MoimError):
                raise step
            if isinstance(step, bytes):
                return step
            step()

    def close(self) -> None:
        self.closed = True


def chunk(**delta: Any) -> bytes:
    finish = delta.pop("finish", None)
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return sse({"id": "c1", "model": "m-1", "created": 1, "choices": [choice]})


def sse(event: object) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


DONE = b"data: [DONE]\n\n"
USAGE = sse(
    {
        "id": "c1",
        "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
)
HELLO = (
    chunk(role="assistant", content=""),
    chunk(content="Hel"),
    chunk(content="lo"),
    chunk(finish="stop"),
    USAGE,
    DONE,
)

WHOLE = msgspec.json.encode(
    {
        "id": "c1",
        "model": "m-1",
        "created": 1,
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
)
JSON = {"content-type": "application/json"}
