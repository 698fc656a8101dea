"""How single parts are written: shared by replies, streams and requests."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from moim.dialects.openai_chat.fields import kept, mapping
from moim.types import Audio, Citation, Reasoning, ToolCall

__all__ = [
    "encode_audio",
    "encode_base64",
    "encode_call",
    "encode_citation",
    "google_state",
    "signature_of",
]


def encode_base64(data: bytes) -> str:
    """Standard base64, padded."""
    return base64.b64encode(data).decode("ascii")


def encode_call(call: ToolCall, *, call_id: str | None = None) -> dict[str, Any]:
    """A whole tool call. A call without arguments has the arguments `{}`."""
    more = dict(kept(call.native))
    inner = mapping(more.pop("function", None))
    if call.kind == "custom":
        body = {**inner, "name": call.name, "input": call.arguments}
    else:
        body = {**inner, "name": call.name, "arguments": call.arguments or "{}"}
    kind = "custom" if call.kind == "custom" else "function"
    told = {**more, "id": call.id if call_id is None else call_id, "type": kind, kind: body}
    if call.signature:
        told.update(signature_of(call.signature, more))
    return told


def signature_of(signature: str, native: Mapping[str, Any]) -> dict[str, Any]:
    """Where Google's OpenAI endpoint has the mark of a call or of thoughts."""
    extra = mapping(native.get("extra_content"))
    google = {**mapping(extra.get("google")), "thought_signature": signature}
    return {"extra_content": {**extra, "google": google}}


def google_state(part: Reasoning) -> dict[str, Any]:
    """Fields of the message for thoughts that Google's endpoint sealed; empty for others."""
    native = kept(part.native)
    return {"extra_content": native["extra_content"]} if "extra_content" in native else {}


def encode_citation(citation: Citation, *, shift: int = 0) -> dict[str, Any]:
    """An annotation. Clients read span and title unasked, so an unknown span is an empty one.

    Args:
        citation: what is cited.
        shift: characters before the cited text in the joined content.
    """
    start, end = (0, 0) if not citation.end else (citation.start or 0, citation.end)
    told: dict[str, Any] = {
        **kept(citation.native),
        "url": citation.url or "",
        "title": citation.title or "",
        "start_index": start + (shift if end else 0),
        "end_index": end + (shift if end else 0),
    }
    if citation.quote:
        told["content"] = citation.quote
    return {"type": "url_citation", "url_citation": told}


def encode_audio(audio: Audio) -> dict[str, Any]:
    """A model's sound."""
    told: dict[str, Any] = dict(kept(audio.native))
    if audio.id is not None:
        told["id"] = audio.id
    if audio.source is not None and audio.source.data is not None:
        told["data"] = encode_base64(audio.source.data)
    if audio.transcript is not None:
        told["transcript"] = audio.transcript
    return told
