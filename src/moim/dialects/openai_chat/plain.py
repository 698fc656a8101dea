"""The usual chunk of a stream, read at half the cost: more text or reasoning, and nothing else.

`Assembler.take` reads the same to the same end. A chunk with any field that is not named here is
not usual and takes that way.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

__all__ = ["PlainChunk", "decode_plain"]


class PlainDelta(Struct, forbid_unknown_fields=True, gc=False):
    """More of the one or the other."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    role: str | None = None
    refusal: None = None
    tool_calls: None = None


class PlainChoice(Struct, forbid_unknown_fields=True, gc=False):
    """A choice that goes on."""

    index: int
    delta: PlainDelta
    finish_reason: None = None
    logprobs: None = None
    native_finish_reason: None = None


class PlainChunk(Struct, forbid_unknown_fields=True, gc=False):
    """A chunk of one choice."""

    choices: tuple[PlainChoice]
    id: str | None = None
    object: str | None = None
    created: float | None = None
    model: str | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    usage: None = None
    obfuscation: str | None = None
    p: str | None = None


decode_plain = msgspec.json.Decoder(PlainChunk).decode
"""Raises msgspec's errors, ValueError or RecursionError where the chunk is not of this kind."""
