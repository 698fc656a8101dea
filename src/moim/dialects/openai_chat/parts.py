"""The parts of one answer while they grow: their places, and characters cut between fragments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from moim.dialects.json_ import mend
from moim.dialects.openai_chat.fields import native_of
from moim.types import ArgsDelta, Event, Part, PartEnd, PartStart, ReasoningDelta, TextDelta

__all__ = ["Delta", "Parts"]

Delta: TypeAlias = TextDelta | ReasoningDelta | ArgsDelta

_EDGE = "\ud800"  # no character below it needs a look for halves of a surrogate pair


class Parts:
    """What the readers of text, reasoning and tool calls of one answer share.

    Attributes:
        choice: which answer of the reply this is.
        count: parts begun or reserved.
    """

    __slots__ = ("_halves", "_native", "choice", "count")

    def __init__(self, choice: int) -> None:
        self.choice = choice
        self.count = 0
        self._native: dict[int, dict[str, Any]] = {}
        self._halves: dict[int, tuple[str, type[Delta]]] = {}

    def reserve(self) -> int:
        """A place for a part that begins later."""
        self.count += 1
        return self.count - 1

    def open(self, part: Part, events: list[Event]) -> int:
        """Begin a part; gives its place."""
        place = self.reserve()
        events.append(PartStart(place, part, self.choice))
        return place

    def keep(self, place: int, native: Mapping[str, Any]) -> None:
        """Fields of a part to be told at its end."""
        self._native.setdefault(place, {}).update(native)

    def grow(self, kind: type[Delta], place: int, text: str, events: list[Event]) -> None:
        """Append more text to a part. Half of a surrogate pair waits for the other half."""
        if self._halves or text[-1:] >= _EDGE or text[:1] >= _EDGE:
            text = self.whole_characters(kind, place, text)
        if text:
            events.append(kind(place, text, self.choice))

    def whole_characters(self, kind: type[Delta], place: int, text: str) -> str:
        """The text with what waited before it, and without what must wait."""
        text = self._halves.pop(place, ("", kind))[0] + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._halves[place] = text[-1], kind
            text = text[:-1]
        return mend(text)

    def close(self, events: list[Event]) -> None:
        """Append what still waits, and the end of each part."""
        for place, (_, kind) in self._halves.items():
            events.append(kind(place, "\ufffd", self.choice))
        for place in range(self.count):
            events.append(PartEnd(place, native_of(self._native.get(place, {})), self.choice))
