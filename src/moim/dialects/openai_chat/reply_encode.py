"""Whole replies for a client of the dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moim.dialects import json_
from moim.dialects.openai_chat.errors import encode_error
from moim.dialects.openai_chat.fields import (
    encode_finish,
    encode_logprobs,
    encode_usage,
    items,
    kept,
    mapping,
)
from moim.dialects.openai_chat.parts_encode import (
    encode_audio,
    encode_call,
    encode_citation,
    google_state,
)
from moim.dialects.openai_chat.reasoning import encode_entries
from moim.errors import MoimError, ServerError
from moim.types import (
    Alternative,
    Audio,
    HTTPReply,
    Part,
    Reasoning,
    Refusal,
    Reply,
    Text,
    ToolCall,
)

__all__ = ["created_of", "encode_reply", "native_choice", "native_reply", "wrong_end"]

_HEADERS = {"content-type": "application/json"}


def encode_reply(reply: Reply) -> HTTPReply:
    """The answer as a chat completion. A reply that ended in an error is an error here."""
    if reply.finish_reason == "error":
        return encode_error(wrong_end(reply.native_finish_reason))
    first = Alternative(
        0, reply.parts, reply.finish_reason, reply.native_finish_reason, reply.logprobs
    )
    native = kept(reply.native)
    body: dict[str, Any] = {
        **native_reply(native),
        "id": reply.id,
        "object": "chat.completion",
        "created": created_of(reply.created),
        "model": reply.model,
        "choices": [
            _choice(answer, native_choice(native, answer.index), reply.stop_sequence)
            for answer in (first, *reply.alternatives)
        ],
    }
    if reply.usage is not None:
        body["usage"] = encode_usage(reply.usage)
    return HTTPReply(status=200, headers=_HEADERS, body=json_.dumps(body))


def wrong_end(native: str | None) -> MoimError:
    """The error that stands for an answer with the finish reason `error`."""
    why = f" ({native})" if native else ""
    return ServerError(f"The model's answer ended with an error{why}.")


def created_of(created: float | None) -> float | int:
    """Seconds since 1970; 0 where nobody said."""
    if created is None:
        return 0
    return int(created) if created.is_integer() else created


def native_reply(native: Mapping[str, Any]) -> dict[str, Any]:
    """The reply's further fields. A member `error` would make it one."""
    return {name: value for name, value in native.items() if name not in ("choices", "error")}


def native_choice(native: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    """The further fields of a choice, `message` among them."""
    choices = native.get("choices")
    return mapping(choices[index]) if isinstance(choices, list) and index < len(choices) else {}


def _choice(
    answer: Alternative, native: Mapping[str, Any], stop_sequence: str | None
) -> dict[str, Any]:
    told: dict[str, Any] = {
        **native,
        "index": answer.index,
        "message": _message(answer.parts, mapping(native.get("message"))),
        "logprobs": None if answer.logprobs is None else encode_logprobs(answer.logprobs),
        **encode_finish(answer.finish_reason, answer.native_finish_reason),
    }
    if stop_sequence is not None and answer.index == 0:
        told["stop_reason"] = stop_sequence
    return told


def _message(parts: tuple[Part, ...], native: Mapping[str, Any]) -> dict[str, Any]:
    """The assistant's message: one text, then everything else, whatever the order was."""
    message: dict[str, Any] = {**native, "role": "assistant", "content": _content(parts)}
    message.update(_reasoning(parts))
    refusals = [part.text for part in parts if isinstance(part, Refusal)]
    message["refusal"] = "".join(refusals) or None
    sounds = [encode_audio(part) for part in parts if isinstance(part, Audio)]
    if sounds:
        message["audio"] = sounds[0]
    calls = [encode_call(p) for p in parts if isinstance(p, ToolCall) and p.kind != "server"]
    if calls:
        message["tool_calls"] = calls
    annotations = _annotations(parts)
    if annotations:
        message["annotations"] = [*annotations, *items(native.get("annotations"))]
    return message


def _content(parts: tuple[Part, ...]) -> str | None:
    return "".join(part.text for part in parts if isinstance(part, Text)) or None


def _annotations(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    before = 0
    for part in parts:
        if isinstance(part, Text):
            annotations += (encode_citation(one, shift=before) for one in part.citations)
            before += len(part.text)
    return annotations


def _reasoning(parts: tuple[Part, ...]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    thoughts: list[Reasoning] = []
    for part in parts:
        if isinstance(part, Reasoning):
            state = google_state(part)
            told.update(state)
            if not state:
                thoughts.append(part)
    text = "".join(part.text or "" for part in thoughts)
    if text:
        told["reasoning_content"] = text
    entries = encode_entries(thoughts)
    if entries:
        told["reasoning_details"] = entries
    return told
