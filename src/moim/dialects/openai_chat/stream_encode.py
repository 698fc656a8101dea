"""Streamed replies for a client of the dialect: events to chunks.

Clients are strict in places: `choices` is always a list, tool calls are numbered 0, 1, 2 without
gaps, and id, type and name come in a call's first fragment only (they are concatenated).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from moim.dialects import json_, sse
from moim.dialects.openai_chat.errors import error_object
from moim.dialects.openai_chat.fields import (
    encode_finish,
    encode_logprobs,
    encode_usage,
    kept,
    mapping,
)
from moim.dialects.openai_chat.parts_encode import (
    encode_audio,
    encode_base64,
    encode_call,
    encode_citation,
    google_state,
    signature_of,
)
from moim.dialects.openai_chat.reasoning import entry_of, is_plain, kind_of
from moim.dialects.openai_chat.reply_encode import (
    created_of,
    native_choice,
    native_reply,
    wrong_end,
)
from moim.types import (
    ArgsDelta,
    Audio,
    AudioDelta,
    ChoiceEnd,
    CitationAdded,
    Event,
    Failed,
    Finish,
    FinishReason,
    LogprobsDelta,
    Part,
    PartEnd,
    PartStart,
    Reasoning,
    ReasoningDelta,
    Refusal,
    SignatureDelta,
    Start,
    Text,
    TextDelta,
    ToolCall,
    Usage,
    UsageSeen,
)

__all__ = ["ChatEncoder"]


class ChatEncoder:
    """Writes a chat stream.

    Args:
        usage: whether the client asked for the token count.
        model: the model's name for the client; empty for the provider's own.
    """

    __slots__ = ("_choices", "_closed", "_head", "_model", "_start", "_usage", "_wants_usage")

    def __init__(self, *, usage: bool = True, model: str = "") -> None:
        self._wants_usage = usage
        self._model = model
        self._start: Start | None = None
        self._head = ""
        self._choices: dict[int, _Choice] = {}
        self._usage: Usage | None = None
        self._closed = False

    def feed(self, events: Sequence[Event]) -> bytes:
        """What to write for these events; nothing more after `Finish` or `Failed`."""
        out: list[str] = []
        for event in events:
            if self._closed:
                break
            if type(event) is TextDelta:
                self._text(event, out)
            else:
                _WRITERS[type(event)](self, event, out)
        return "".join(out).encode("ascii")

    def _text(self, event: TextDelta, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        part = choice.parts.get(event.index)
        if part is None:
            return
        if part.field == "audio":
            self._delta(choice, {"audio": {"transcript": event.text}}, out)
            return
        if part.field == "content":
            choice.characters += len(event.text)
        out.append(f'{choice.head}"{part.field}":{json_.quote(event.text)}{_TAIL}')

    def _begin(self, event: Start, out: list[str]) -> None:
        if self._start is not None:
            return
        self._start = event
        told = {
            "id": event.id,
            "object": "chat.completion.chunk",
            "created": created_of(event.created),
            "model": self._model or event.model,
        }
        self._head = f"data: {json_.dumps_ascii(told)[:-1]}"
        self._choice(0, out)

    def _choice(self, index: int, out: list[str]) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            if self._start is None:
                self._begin(Start(), out)
            if index in self._choices:
                return self._choices[index]
            head = f'{self._head},"choices":[{{"index":{index},"delta":{{'
            choice = self._choices[index] = _Choice(index, head)
            self._delta(choice, {"role": "assistant", "content": ""}, out)
        return choice

    def _delta(self, choice: _Choice, delta: Mapping[str, Any], out: list[str]) -> None:
        out.append(f"{choice.head}{json_.dumps_ascii(delta)[1:-1]}{_TAIL}")

    def _chunk(
        self, choices: list[dict[str, Any]], more: Mapping[str, Any], out: list[str]
    ) -> None:
        rest = json_.dumps_ascii({**more, "choices": choices})
        out.append(f"{self._head},{rest[1:]}\n\n")

    def _part_start(self, event: PartStart, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        part = choice.begin(event.index, event.part)
        if part is None:
            return
        delta = _OPENERS[part.field](part)
        if delta:
            self._delta(choice, delta, out)
        whole = event.part
        if isinstance(whole, Text | Refusal) and whole.text:
            self._text(TextDelta(event.index, whole.text, event.choice), out)
        if isinstance(whole, Text):
            for citation in whole.citations:
                self._cite(CitationAdded(event.index, citation, event.choice), out)
        if isinstance(whole, Reasoning) and whole.text:
            self._think(ReasoningDelta(event.index, whole.text, event.choice), out)

    def _think(self, event: ReasoningDelta, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        part = choice.parts.get(event.index)
        if part is None or part.field == "google":
            return
        if not part.entry:
            out.append(f'{choice.head}"reasoning_content":{json_.quote(event.text)}{_TAIL}')
            return
        entry = part.further(text=event.text) if part.said else part.opening_entry(event.text)
        told = {"reasoning_content": event.text, "reasoning_details": [entry]}
        self._delta(choice, told, out)

    def _sign(self, event: SignatureDelta, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        part = choice.parts.get(event.index)
        if part is None:
            return
        if part.field == "tool_calls" and event.signature:
            told = signature_of(event.signature, kept(part.part.native))
            self._delta(choice, {"tool_calls": [{"index": part.number, **told}]}, out)
        elif part.field == "reasoning_content":
            entry = part.further(signature=event.signature, data=event.opaque)
            self._delta(choice, {"reasoning_details": [entry]}, out)

    def _arguments(self, event: ArgsDelta, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        part = choice.parts.get(event.index)
        if part is None or not event.arguments:
            return
        part.argued = True
        out.append(
            f'{choice.head}"tool_calls":[{{"index":{part.number},{part.opening}'
            f"{json_.quote(event.arguments)}}}}}]{_TAIL}"
        )

    def _sound(self, event: AudioDelta, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        if event.index in choice.parts:
            self._delta(choice, {"audio": {"data": encode_base64(event.data)}}, out)

    def _cite(self, event: CitationAdded, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        part = choice.parts.get(event.index)
        if part is not None:
            told = encode_citation(event.citation, shift=part.before)
            self._delta(choice, {"annotations": [told]}, out)

    def _logprobs(self, event: LogprobsDelta, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        told = {
            "index": choice.index,
            "delta": {},
            "logprobs": encode_logprobs(event.tokens),
            "finish_reason": None,
        }
        self._chunk([told], {}, out)

    def _part_end(self, event: PartEnd, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        part = choice.parts.get(event.index)
        if part is None:
            return
        if part.field == "tool_calls" and part.kind == "function" and not part.argued:
            self._arguments(ArgsDelta(event.index, "{}", event.choice), out)
        native = kept(event.native)
        if not native:
            return
        if part.field == "tool_calls":
            self._delta(choice, {"tool_calls": [{"index": part.number, **native}]}, out)
        elif part.said:
            self._delta(choice, {"reasoning_details": [{**part.further(), **native}]}, out)

    def _count(self, event: UsageSeen, out: list[str]) -> None:
        self._usage = event.usage

    def _choice_end(self, event: ChoiceEnd, out: list[str]) -> None:
        choice = self._choice(event.choice, out)
        self._end(choice, event.reason, event.native_reason, {}, {}, out)

    def _end(
        self,
        choice: _Choice,
        reason: FinishReason | None,
        native_reason: str | None,
        native: Mapping[str, Any],
        more: Mapping[str, Any],
        out: list[str],
    ) -> None:
        told = {
            **native,
            "index": choice.index,
            "delta": dict(mapping(native.get("message"))),
            "logprobs": None,
            **encode_finish(reason, native_reason),
        }
        told.pop("message", None)
        self._chunk([told], more, out)

    def _finish(self, event: Finish, out: list[str]) -> None:
        if event.reason == "error":
            self._fail(Failed(wrong_end(event.native_reason)), out)
            return
        first = self._choice(0, out)
        native = kept(event.native)
        for index, choice in self._choices.items():
            if index and native_choice(native, index):
                self._further(choice, native_choice(native, index), out)
        own = dict(native_choice(native, 0))
        if event.stop_sequence is not None:
            own["stop_reason"] = event.stop_sequence
        self._end(first, event.reason, event.native_reason, own, native_reply(native), out)
        if self._wants_usage and self._usage is not None:
            self._chunk([], {"usage": encode_usage(self._usage)}, out)
        out.append(sse.write("[DONE]"))
        self._closed = True

    def _further(self, choice: _Choice, native: Mapping[str, Any], out: list[str]) -> None:
        told = {**native, "index": choice.index, "delta": dict(mapping(native.get("message")))}
        told.pop("message", None)
        self._chunk([told], {}, out)

    def _fail(self, event: Failed, out: list[str]) -> None:
        out.append(sse.write(json_.dumps_ascii(error_object(event.error))))
        self._closed = True


_TAIL = '},"logprobs":null,"finish_reason":null}]}\n\n'

Field = Literal["content", "refusal", "reasoning_content", "google", "tool_calls", "audio"]

_FIELDS: dict[type[Part], Field] = {
    Text: "content",
    Refusal: "refusal",
    Reasoning: "reasoning_content",
    ToolCall: "tool_calls",
    Audio: "audio",
}


class _Part:
    """A part under way.

    `number` counts tool calls, or reasoning parts; `before` is the content before a text;
    `entry` says that reasoning is written as `reasoning_details`, and `said` that its first entry
    is out; `opening` stands before the arguments in a fragment.
    """

    field: Field
    __slots__ = ("argued", "before", "entry", "field", "kind", "number", "opening", "part", "said")

    def __init__(self, part: Any, field: Field, number: int, before: int) -> None:
        self.part = part
        self.field = field
        self.number = number
        self.before = before
        self.entry = field == "reasoning_content" and (number > 0 or not is_plain(part))
        self.said = False
        self.argued = field == "tool_calls" and bool(part.arguments)
        self.kind = part.kind if field == "tool_calls" else ""
        self.opening = '"custom":{"input":' if self.kind == "custom" else '"function":{"arguments":'

    def opening_entry(self, text: str | None) -> dict[str, Any]:
        """The first entry, with everything that is known of the part."""
        self.said = True
        return entry_of(msgspec.structs.replace(self.part, text=text), self.number)

    def further(self, **told: str | None) -> dict[str, Any]:
        """A later entry, with nothing in it that was said before."""
        place = {"type": kind_of(self.part), "index": self.number}
        native = kept(self.part.native)
        place.update((name, native[name]) for name in place if name in native)
        if place["type"] == "reasoning.summary" and "text" in told:
            told["summary"] = told.pop("text")
        return {**place, **{name: value for name, value in told.items() if value}}


class _Choice:
    """One of the answers, as far as it is written."""

    __slots__ = ("characters", "head", "index", "parts", "thoughts", "tools")

    def __init__(self, index: int, head: str) -> None:
        self.index = index
        self.head = head
        self.parts: dict[int, _Part] = {}
        self.characters = 0
        self.tools = 0
        self.thoughts = 0

    def begin(self, index: int, part: Part) -> _Part | None:
        """Note that a part begins; None for parts that the dialect cannot say."""
        field = _FIELDS.get(type(part))
        if field is None or (isinstance(part, ToolCall) and part.kind == "server"):
            return None
        if field == "audio" and any(one.field == "audio" for one in self.parts.values()):
            return None
        number = 0
        if isinstance(part, Reasoning) and google_state(part):
            field = "google"
        elif field == "reasoning_content":
            number, self.thoughts = self.thoughts, self.thoughts + 1
        elif field == "tool_calls":
            number, self.tools = self.tools, self.tools + 1
        begun = self.parts[index] = _Part(part, field, number, self.characters)
        return begun


def _open_call(part: _Part) -> dict[str, Any]:
    told = encode_call(part.part)
    body = told[part.kind]
    # `{}` for a call without arguments is written at its end.
    body["input" if part.kind == "custom" else "arguments"] = part.part.arguments
    return {"tool_calls": [{"index": part.number, **told}]}


def _open_reasoning(part: _Part) -> dict[str, Any]:
    whole = part.part
    # An entry without text, state or name would say nothing: its first text brings it along.
    if not part.entry or not (whole.signature or whole.opaque or whole.id):
        return {}
    return {"reasoning_details": [part.opening_entry(None)]}


_OPENERS: dict[Field, Callable[[_Part], dict[str, Any]]] = {
    "content": lambda part: {},
    "refusal": lambda part: {},
    "reasoning_content": _open_reasoning,
    "google": lambda part: google_state(part.part),
    "tool_calls": _open_call,
    "audio": lambda part: {"audio": encode_audio(part.part)},
}

_WRITERS: dict[type[Event], Callable[[ChatEncoder, Any, list[str]], None]] = {
    Start: ChatEncoder._begin,
    PartStart: ChatEncoder._part_start,
    TextDelta: ChatEncoder._text,
    ReasoningDelta: ChatEncoder._think,
    SignatureDelta: ChatEncoder._sign,
    ArgsDelta: ChatEncoder._arguments,
    AudioDelta: ChatEncoder._sound,
    CitationAdded: ChatEncoder._cite,
    LogprobsDelta: ChatEncoder._logprobs,
    PartEnd: ChatEncoder._part_end,
    UsageSeen: ChatEncoder._count,
    ChoiceEnd: ChatEncoder._choice_end,
    Finish: ChatEncoder._finish,
    Failed: ChatEncoder._fail,
}
