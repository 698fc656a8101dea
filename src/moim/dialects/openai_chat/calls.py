"""Tool calls out of fragments, for servers that number, name and repeat them each in their own way.

A fragment belongs to the call with its id; else to the last call with its index; else to the call
at its place in the list; else to the last call. A new id, or a second name, on a used index opens
a new call: some servers give every parallel call the index 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from moim.dialects.openai_chat.fields import json_text, mapping, native_of
from moim.dialects.openai_chat.parts import Parts
from moim.types import ArgsDelta, Event, PartStart, SignatureDelta, ToolCall

__all__ = ["Calls"]

_KNOWN = frozenset({"id", "type", "index", "function", "custom"})
_MORE = frozenset({"index", "function"})
_ARGUMENTS = {"arguments"}
_KNOWN_FUNCTION = frozenset({"name", "arguments", "input"})


class _Call:
    __slots__ = ("held", "id", "kind", "name", "native", "part", "signature", "started", "wire")

    def __init__(self, part: int, wire: int | None) -> None:
        self.part = part
        self.wire = wire
        self.id = ""
        self.name = ""
        self.kind: Literal["function", "custom"] = "function"
        self.signature: str | None = None
        self.native: dict[str, Any] = {}
        self.held: list[str] = []  # arguments that came before the name
        self.started = False


class Calls:
    """The tool calls of one choice."""

    __slots__ = ("_calls", "_parts", "_reply_id")

    def __init__(self, parts: Parts, reply_id: str) -> None:
        self._parts = parts
        self._reply_id = reply_id
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, fragments: Sequence[object], events: list[Event]) -> None:
        """Append the events of one delta's fragments."""
        if len(fragments) == 1 and self._more(fragments[0], events):
            return
        for position, item in enumerate(fragments):
            if isinstance(item, dict):
                fragment = _Fragment(item)
                call = self._find(fragment, position if len(fragments) > 1 else None)
                fresh = call is None
                if call is None:
                    call = _Call(self._parts.reserve(), fragment.index)
                    self._calls.append(call)
                self._grow(call, fragment, fresh, events)

    def _more(self, item: Any, events: list[Event]) -> bool:
        """The usual fragment: more arguments of the last call. Gives whether it was that."""
        call = self._calls[-1] if self._calls else None
        if call is None or not call.started or type(item) is not dict:
            return False
        if not _MORE.issuperset(item):
            return False
        function = item.get("function")
        if type(function) is not dict or function.keys() != _ARGUMENTS:
            return False
        text = function["arguments"]
        if item.get("index", call.wire) != call.wire or type(text) is not str:
            return False
        if text:
            self._parts.grow(ArgsDelta, call.part, text, events)
        return True

    def _find(self, fragment: _Fragment, position: int | None) -> _Call | None:
        if fragment.id:
            return self._by_id(fragment)
        if fragment.index is not None:
            call = self._at(fragment.index)
            return None if call is not None and call.name and fragment.name else call
        if fragment.name or not self._calls:
            return None
        if position is not None and position < len(self._calls):
            return self._calls[position]
        return self._calls[-1]

    def _by_id(self, fragment: _Fragment) -> _Call | None:
        for call in reversed(self._calls):
            if call.id == fragment.id and (
                fragment.index is None or call.wire in (None, fragment.index)
            ):
                return call
        if fragment.index is None:
            return None
        at = self._at(fragment.index)
        # Only the id was missing so far.
        return at if at is not None and not at.id and not at.started else None

    def _at(self, index: int) -> _Call | None:
        return next((call for call in reversed(self._calls) if call.wire == index), None)

    def _grow(self, call: _Call, fragment: _Fragment, fresh: bool, events: list[Event]) -> None:
        call.id = call.id or fragment.id
        call.name = call.name or fragment.name
        if fragment.custom:
            call.kind = "custom"
        if fragment.signature and call.started:
            events.append(SignatureDelta(call.part, fragment.signature, None, self._parts.choice))
        call.signature = fragment.signature or call.signature
        self._keep(call, fragment.native)
        if fragment.arguments:
            text = self._parts.whole_characters(ArgsDelta, call.part, fragment.arguments)
            if call.started and text:
                events.append(ArgsDelta(call.part, text, self._parts.choice))
            elif text:
                call.held.append(text)
        # An id may still follow, unless it was sent empty or this is not the first fragment.
        if call.name and not call.started and (call.id or fragment.no_id or not fresh):
            self._start(call, events)

    def _keep(self, call: _Call, native: Mapping[str, Any]) -> None:
        if not native:
            return
        call.native.update(native)
        if call.started:
            self._parts.keep(call.part, call.native)

    def _start(self, call: _Call, events: list[Event]) -> None:
        call.started = True
        part = ToolCall(
            call.id or self._made_id(call),
            call.name,
            kind=call.kind,
            signature=call.signature,
            native=native_of(call.native),
        )
        events.append(PartStart(call.part, part, self._parts.choice))
        for text in call.held:
            events.append(ArgsDelta(call.part, text, self._parts.choice))

    def _made_id(self, call: _Call) -> str:
        """An id where the server sent none: calls and results are paired by it.

        It holds the end of the reply's id, because ids must differ in all of a conversation.
        """
        reply = re.sub(r"[^A-Za-z0-9]", "", self._reply_id)[-12:]
        parts = ("call", reply, str(self._parts.choice or ""), str(self._calls.index(call)))
        return "_".join(part for part in parts if part)

    def close(self, events: list[Event]) -> None:
        """Append calls that still waited for a name or an id."""
        for call in self._calls:
            if not call.started:
                self._start(call, events)


class _Fragment:
    """What one fragment says."""

    __slots__ = ("arguments", "custom", "id", "index", "name", "native", "no_id", "signature")

    def __init__(self, item: Mapping[str, Any]) -> None:
        # Snowflake sends both members, one of them empty.
        self.custom = item.get("type") == "custom" or not item.get("function")
        self.custom = self.custom and isinstance(item.get("custom"), dict)
        body = mapping(item.get("custom" if self.custom else "function"))
        self.id = _word(item.get("id"))
        self.no_id = item.get("id") == ""
        index = item.get("index")
        self.index = index if isinstance(index, int) and not isinstance(index, bool) else None
        self.name = _word(body.get("name"))
        self.arguments = _arguments(body.get("input" if self.custom else "arguments"))
        google = mapping(mapping(item.get("extra_content")).get("google"))
        self.signature = _word(google.get("thought_signature")) or None
        self.native = _further(item, body) if _has_more(item, body) else {}


def _has_more(item: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    return not (_KNOWN.issuperset(item) and _KNOWN_FUNCTION.issuperset(body))


def _further(item: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    more = {k: v for k, v in item.items() if k not in _KNOWN and v is not None}
    inner = {k: v for k, v in body.items() if k not in _KNOWN_FUNCTION and v is not None}
    return {**more, "function": inner} if inner else more


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _arguments(value: object) -> str:
    """Argument text; some servers send the object itself."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json_text(value)
