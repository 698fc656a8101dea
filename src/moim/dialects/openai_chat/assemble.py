"""From chunks to events. A whole reply is one chunk whose message is its only delta.

So streaming and not-streaming cannot disagree: there is one reader for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from moim.dialects.openai_chat.answer import Answer
from moim.dialects.openai_chat.fields import decode_usage, items, keep_unknown, mapping, native_of
from moim.dialects.openai_chat.plain import PlainChunk
from moim.types import ChoiceEnd, Event, Finish, Start, UsageSeen

__all__ = ["Assembler"]

# Fields with a place in the neutral types; `obfuscation` and `p` are random padding against
# traffic analysis and mean nothing. All others are kept as they are.
_TOP = frozenset(
    {
        "id", "object", "created", "model", "choices", "usage", "error", "obfuscation", "p",
        "system_fingerprint", "service_tier",
    }
)  # fmt: skip
_CHOICES_KEPT = 128  # the most that OpenAI gives; an index is only a number that a server sent


class Assembler:
    """Turns the chunks of one answer into events.

    `whole` says that chunks are whole replies, which have a `message` in place of a `delta`.
    """

    __slots__ = (
        "_choices", "_cited", "_fingerprint", "_native", "_started", "_tier", "_whole", "id",
    )  # fmt: skip

    def __init__(self, *, whole: bool = False) -> None:
        self.id = ""
        self._whole = whole
        self._started = False
        self._choices: dict[int, Answer] = {}
        self._native: dict[str, Any] = {}
        self._cited: list[object] = []
        self._fingerprint: object = None
        self._tier: object = None

    def take(self, chunk: Mapping[str, Any], events: list[Event]) -> None:
        """Append the events of one chunk.

        Raises:
            DecodeError: part of it cannot be read.
        """
        choices = chunk.get("choices") or ()
        if not self._started:
            self._start(chunk, bool(choices), events)
        if not isinstance(choices, list | tuple):
            choices = ()
        alone = self._whole and len(choices) == 1
        for position, choice in enumerate(choices):
            if isinstance(choice, dict):
                self._choice(choice, position, alone, events)
        usage = _usage_of(chunk)
        if usage:
            events.append(UsageSeen(decode_usage(usage)))
        self._keep(chunk)
        cited = chunk.get("citations")
        # They come again with each chunk.
        if cited and cited != self._cited and isinstance(cited, list) and 0 in self._choices:
            self._cited = cited
            self._choices[0].cite_urls(cited, chunk.get("search_results"), events)

    def take_plain(self, chunk: PlainChunk, events: list[Event]) -> bool:
        """Append the event of a usual chunk; gives whether it was one for this answer."""
        (choice,) = chunk.choices
        answer = self._choices.get(choice.index)
        if (
            answer is None
            or chunk.system_fingerprint != self._fingerprint
            or chunk.service_tier != self._tier
        ):
            return False
        delta = choice.delta
        thought = delta.reasoning_content or delta.reasoning
        if thought:
            answer.thoughts.think(thought, events)
        if delta.content:
            answer.say(delta.content, events)
        return True

    def _start(self, chunk: Mapping[str, Any], has_choices: bool, events: list[Event]) -> None:
        name, model = chunk.get("id"), chunk.get("model")
        # Azure opens with a chunk that has neither id nor model nor choices.
        if not (name or model or has_choices):
            return
        self._started = True
        self.id = "" if name is None else str(name)
        events.append(Start(self.id, "" if model is None else str(model), _created(chunk)))

    def _keep(self, chunk: Mapping[str, Any]) -> None:
        self._fingerprint = chunk.get("system_fingerprint")
        self._tier = chunk.get("service_tier")
        for name in ("system_fingerprint", "service_tier"):
            value = chunk.get(name)
            if value:
                self._native[name] = value
        if not _TOP.issuperset(chunk):
            keep_unknown(chunk, _TOP, self._native)

    def _choice(
        self, choice: Mapping[str, Any], position: int, alone: bool, events: list[Event]
    ) -> None:
        index = choice.get("index")
        if type(index) is not int or index < 0 or alone:
            index = position
        answer = self._choices.get(index)
        if answer is None:
            answer = self._choices[index] = Answer(index, self.id)
        answer.take(self._delta(choice, answer), events)
        answer.take_rest(choice, events)

    def _delta(self, choice: Mapping[str, Any], answer: Answer) -> Mapping[str, Any]:
        delta = choice.get("message" if self._whole else "delta")
        if isinstance(delta, dict):
            return delta
        if self._whole:
            return _azure_message(choice)
        # Perplexity repeats the message so far beside each delta; alone it is the answer.
        return mapping(choice.get("message")) if answer.empty else {}

    @property
    def answered(self) -> bool:
        """Whether any choice was seen."""
        return bool(self._choices)

    @property
    def ended(self) -> bool:
        """Whether every choice seen has its finish reason."""
        return bool(self._choices) and all(
            answer.finish is not None for answer in self._choices.values()
        )

    def finish(self, events: list[Event]) -> None:
        """Append the last events: the answer is whole."""
        kept: list[dict[str, Any]] = []
        for index in sorted(self._choices):
            answer = self._choices[index]
            answer.close(events)
            if answer.native and index < _CHOICES_KEPT:
                kept.extend({} for _ in range(index + 1 - len(kept)))
                kept[index] = answer.native
            if index:
                events.append(ChoiceEnd(index, answer.reason, answer.native_reason))
        native = {**self._native, **({"choices": kept} if kept else {})}
        first = self._choices.get(0) or Answer(0, self.id)
        events.append(
            Finish(first.reason, first.native_reason, first.stop_sequence, native=native_of(native))
        )


def _usage_of(chunk: Mapping[str, Any]) -> Mapping[str, Any]:
    usage = mapping(chunk.get("usage"))
    return usage or mapping(mapping(chunk.get("x_groq")).get("usage"))


def _created(chunk: Mapping[str, Any]) -> float | None:
    created = chunk.get("created")
    try:
        seconds = float(created or 0)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if seconds and math.isfinite(seconds) else None


def _azure_message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    """The assistant's own among the `messages` of Azure's first data-source preview."""
    for message in reversed(items(choice.get("messages"))):
        if isinstance(message, dict) and message.get("role") == "assistant":
            return message
    return {}
