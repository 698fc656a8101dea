"""Reasoning out of deltas: a bare string, OpenRouter's entries, or Google's seal of the message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moim.dialects.openai_chat.fields import items, kept, mapping, native_of, text_or_none
from moim.dialects.openai_chat.parts import Parts
from moim.dialects.openai_chat.reasoning import decode_entry, entry_native, text_of
from moim.types import Event, Reasoning, ReasoningDelta, SignatureDelta

__all__ = ["Thoughts"]


class _Detail:
    """A part made of `reasoning_details`."""

    __slots__ = ("id", "native", "place")

    def __init__(self, place: int, name: str | None, native: dict[str, Any]) -> None:
        self.place = place
        self.id = name
        self.native = native


class Thoughts:
    """The reasoning of one answer."""

    __slots__ = ("_count", "_details", "_parts", "_plain", "_plain_number", "_sealed")

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._count = 0
        self._plain = -1
        self._plain_number = -1
        self._sealed = False
        self._details: dict[tuple[str, str], _Detail] = {}

    def take(self, delta: Mapping[str, Any], events: list[Event]) -> None:
        """Append the events of one delta. The string repeats the entries and is then not read."""
        told = False
        for entry in items(delta.get("reasoning_details")):
            if isinstance(entry, dict):
                told = bool(text_of(entry)) or told
                self._detail(entry, events)
        text = delta.get("reasoning_content") or delta.get("reasoning")
        if not told and isinstance(text, str) and text:
            self.think(text, events)
        extra = mapping(delta.get("extra_content"))
        if extra and not self._sealed:
            self._sealed = True
            signature = text_or_none(mapping(extra.get("google")).get("thought_signature"))
            native = native_of({"extra_content": extra})
            self._parts.open(Reasoning(signature=signature, native=native), events)

    def think(self, text: str, events: list[Event]) -> None:
        """More of the thoughts that are one string."""
        if self._plain < 0:
            self._plain = self._parts.open(Reasoning(), events)
            self._plain_number = self._count
            self._count += 1
        self._parts.grow(ReasoningDelta, self._plain, text, events)

    def _detail(self, entry: Mapping[str, Any], events: list[Event]) -> None:
        text = text_of(entry)
        signature, opaque = (text_or_none(entry.get(name)) for name in ("signature", "data"))
        detail = self._find(entry)
        if detail is None:
            if not (text or signature or opaque or entry.get("id")):
                return
            if signature and not text and not opaque and self._seals_plain(entry):
                events.append(SignatureDelta(self._plain, signature, None, self._parts.choice))
                return
            detail = self._open(entry, events)
        elif signature or opaque:
            events.append(SignatureDelta(detail.place, signature, opaque, self._parts.choice))
        if text:
            self._parts.grow(ReasoningDelta, detail.place, text, events)
        more = {
            name: value
            for name, value in entry_native(entry).items()
            if detail.native.get(name) != value
        }
        if more:
            detail.native.update(more)
            self._parts.keep(detail.place, detail.native)

    def _find(self, entry: Mapping[str, Any]) -> _Detail | None:
        detail = self._details.get(_key(entry))
        if detail is None or (detail.id and entry.get("id") and detail.id != entry["id"]):
            return None
        return detail

    def _seals_plain(self, entry: Mapping[str, Any]) -> bool:
        """Whether a signature that comes by itself belongs to the string."""
        return self._plain >= 0 and entry.get("index") in (None, self._plain_number)

    def _open(self, entry: Mapping[str, Any], events: list[Event]) -> _Detail:
        part = decode_entry(entry, self._count, text=None)
        self._count += 1
        detail = _Detail(self._parts.open(part, events), part.id, dict(kept(part.native)))
        self._details[_key(entry)] = detail
        return detail


def _key(entry: Mapping[str, Any]) -> tuple[str, str]:
    return str(entry.get("type")), str(entry.get("index"))
