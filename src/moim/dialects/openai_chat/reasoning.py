"""Reasoning on the chat wire: a bare string, or OpenRouter's list of `reasoning_details`.

A string (`reasoning_content` or `reasoning`) carries text only. State that must be given back,
such as signatures and encrypted thoughts, needs the list: one entry for each part, with the text
repeated in the string for readers who know only that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from moim.dialects.openai_chat.fields import kept, native_of, text_or_none
from moim.types import Reasoning

__all__ = [
    "decode_entry",
    "encode_entries",
    "entry_native",
    "entry_of",
    "is_plain",
    "kind_of",
    "text_of",
]

ENTRY_FIELDS = frozenset({"type", "text", "summary", "signature", "data", "id", "index"})
"""Fields of an entry that the neutral part holds."""

_KINDS = ("reasoning.text", "reasoning.summary", "reasoning.encrypted")
_TEXTS = {"reasoning.text": "text", "reasoning.summary": "summary"}


def text_of(entry: Mapping[str, Any]) -> str:
    """The text of an entry, or an empty string."""
    text = entry.get(_TEXTS.get(str(entry.get("type")), "text"))
    return text if isinstance(text, str) else ""


def entry_native(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an entry that the neutral part does not hold."""
    return {k: v for k, v in entry.items() if k not in ENTRY_FIELDS and v is not None}


def decode_entry(entry: Mapping[str, Any], position: int, *, text: str | None) -> Reasoning:
    """The part for an entry; `position` counts the reasoning parts of the answer."""
    native = entry_native(entry)
    kind = entry.get("type")
    if entry.get("index") != position:  # else the part's place says it
        native["index"] = entry.get("index")
    if kind not in _KINDS:
        native["type"] = kind
    return Reasoning(
        text,
        is_summary=kind == "reasoning.summary",
        signature=text_or_none(entry.get("signature")),
        opaque=text_or_none(entry.get("data")),
        id=text_or_none(entry.get("id")),
        native=native_of(native),
    )


def kind_of(part: Reasoning) -> str:
    """The entry's type for a part."""
    if part.opaque is not None:
        return "reasoning.encrypted"
    return "reasoning.summary" if part.is_summary else "reasoning.text"


def is_plain(part: Reasoning) -> bool:
    """Whether a part is text and nothing else, so that a string can carry it."""
    return msgspec.structs.replace(part, text=None, origin=None) == Reasoning()


def entry_of(part: Reasoning, position: int, **changes: Any) -> dict[str, Any]:
    """The entry for a part; `position` counts the reasoning parts of the answer."""
    kind = kind_of(part)
    entry: dict[str, Any] = {"type": kind, "index": position, **kept(part.native)}
    told = {
        _TEXTS.get(kind, "text"): part.text,
        "signature": part.signature,
        "data": part.opaque,
        "id": part.id,
        **changes,
    }
    entry.update((name, value) for name, value in told.items() if value is not None)
    return entry


def encode_entries(parts: Sequence[Reasoning]) -> list[dict[str, Any]]:
    """The list for these parts; empty where the string says everything."""
    if len(parts) == 1 and is_plain(parts[0]):
        return []
    return [entry_of(part, position) for position, part in enumerate(parts)]
