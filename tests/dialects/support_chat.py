"""Short ways to say what a chat server sends."""

from __future__ import annotations

import json
from typing import Any

from moim.dialects import find
from moim.types import HTTPReply, Reply, fold

CHAT: Any = find("openai_chat")


def chunk(
    delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any
) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "m",
        "choices": [choice],
        **more,
    }


def call(index: int | None = 0, **fields: Any) -> dict[str, Any]:
    """A delta with one fragment of a tool call; name and arguments go into `function`."""
    function = {key: fields.pop(key) for key in ("name", "arguments") if key in fields}
    fragment = {**fields, "function": function}
    if index is not None:
        fragment["index"] = index
    return {"tool_calls": [fragment]}


def sse(*chunks: Any, done: bool = True) -> bytes:
    events = [f"data: {json.dumps(one, ensure_ascii=False)}\n\n" for one in chunks]
    return ("".join(events) + ("data: [DONE]\n\n" if done else "")).encode(
        "utf-8", "backslashreplace"
    )


def decode(body: bytes, size: int | None = None) -> Reply:
    decoder = CHAT.decoder()
    step = size or max(1, len(body))
    events = []
    for at in range(0, len(body), step):
        events += decoder.feed(body[at : at + step])
    return fold([*events, *decoder.close()])


def stream(*chunks: Any, done: bool = True) -> Reply:
    """The reply of these chunks, which must not depend on how they are cut."""
    body = sse(*chunks, done=done)
    reply = decode(body)
    assert decode(body, 1) == reply
    return reply


def whole(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> Reply:
    """The reply of a body that is not streamed."""
    body = chunk(**more)
    body["choices"] = [{"index": 0, "message": message, "finish_reason": finish}]
    return CHAT.decode_reply(HTTPReply(status=200, body=json.dumps(body).encode()))


def body_of(http: Any) -> Any:
    return json.loads(http.body)
