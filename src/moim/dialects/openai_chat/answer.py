"""One answer of a reply, as far as it has come."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moim.dialects.openai_chat.calls import Calls
from moim.dialects.openai_chat.fields import (
    decode_base64,
    decode_finish,
    decode_logprobs,
    items,
    json_text,
    keep_unknown,
    mapping,
    native_of,
    text_or_none,
)
from moim.dialects.openai_chat.parts import Parts
from moim.dialects.openai_chat.thoughts import Thoughts
from moim.types import (
    Audio,
    AudioDelta,
    Citation,
    CitationAdded,
    Event,
    FinishReason,
    LogprobsDelta,
    Refusal,
    Text,
    TextDelta,
)

__all__ = ["Answer"]

_PLAIN_CHOICE = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
_CHOICE = _PLAIN_CHOICE | frozenset({"messages", "native_finish_reason", "stop_reason"})
_PLAIN_DELTA = frozenset({"role", "content"})
_DELTA = frozenset(
    {
        "role", "content", "refusal", "tool_calls", "function_call", "reasoning_content",
        "reasoning", "reasoning_details", "annotations", "audio", "extra_content",
    }
)  # fmt: skip
_CITATION = frozenset({"start_index", "end_index", "url", "title", "content"})
_AUDIO = frozenset({"id", "data", "transcript"})


class Answer:
    """Turns the deltas of one choice into events."""

    __slots__ = (
        "_audio", "_audio_rest", "_calls", "_cited", "_message", "_native", "_native_finish",
        "_parts", "_refusal", "_text", "finish", "stop_sequence", "thoughts",
    )  # fmt: skip

    def __init__(self, index: int, reply_id: str) -> None:
        self._parts = Parts(index)
        self._calls = Calls(self._parts, reply_id)
        self.thoughts = Thoughts(self._parts)
        self._text = self._refusal = self._audio = -1
        self._audio_rest = ""
        self._cited: set[str] = set()
        self.finish: str | None = None
        self.stop_sequence: str | None = None
        self._native_finish: str | None = None
        self._native: dict[str, Any] = {}
        self._message: dict[str, Any] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing was said yet."""
        return not self._parts.count

    @property
    def native(self) -> dict[str, Any]:
        """What only the dialect knows of this choice, in the wire's own shape."""
        return {**self._native, **({"message": self._message} if self._message else {})}

    @property
    def reason(self) -> FinishReason | None:
        """The finish reason in neutral words."""
        return decode_finish(self.finish, bool(self._calls))

    @property
    def native_reason(self) -> str | None:
        """The finish reason in the provider's words."""
        return self._native_finish or self.finish

    def take(self, delta: Mapping[str, Any], events: list[Event]) -> None:
        """Append the events of a delta."""
        if not _PLAIN_DELTA.issuperset(delta):
            self._take_all(delta, events)
            return
        content = delta.get("content")
        if content:
            self._content(content, events)

    def _take_all(self, delta: Mapping[str, Any], events: list[Event]) -> None:
        self.thoughts.take(delta, events)
        content = delta.get("content")
        if content:
            self._content(content, events)
        if delta.get("refusal"):
            self._refuse(delta["refusal"], events)
        if delta.get("audio"):
            self._hear(mapping(delta["audio"]), events)
        calls = delta.get("tool_calls")
        if isinstance(calls, list):
            self._calls.take(calls, events)
        else:
            legacy = mapping(delta.get("function_call"))
            if legacy.get("name") or legacy.get("arguments"):
                self._calls.take([{"index": 0, "function": legacy}], events)
        for annotation in items(delta.get("annotations")):
            self._cite(annotation, events)
        if not _DELTA.issuperset(delta):
            keep_unknown(delta, _DELTA, self._message)

    def _content(self, content: object, events: list[Event]) -> None:
        """Take `content`: text, a list of parts, or (Cloudflare) the JSON value itself."""
        if isinstance(content, str):
            self.say(content, events)
        elif isinstance(content, list):
            for part in content:
                self._content_part(part, events)
        else:
            self.say(json_text(content), events)

    def say(self, text: str, events: list[Event]) -> None:
        """More of the text."""
        if self._text < 0:
            self._text = self._parts.open(Text(""), events)
        self._parts.grow(TextDelta, self._text, text, events)

    def _content_part(self, part: object, events: list[Event]) -> None:
        fields = {"text": part} if isinstance(part, str) else mapping(part)
        kind, text = fields.get("type"), text_or_none(fields.get("text"))
        if kind == "thinking":
            thinking = fields.get("thinking")
            for piece in thinking if isinstance(thinking, list) else [{"text": thinking}]:
                thought = text_or_none(mapping(piece).get("text"))
                if thought:
                    self.thoughts.think(thought, events)
        elif kind == "refusal":
            self._refuse(fields.get("refusal"), events)
        elif text:
            self.say(text, events)

    def _refuse(self, refusal: object, events: list[Event]) -> None:
        if not isinstance(refusal, str) or not refusal:
            return
        if self._refusal < 0:
            self._refusal = self._parts.open(Refusal(""), events)
        self._parts.grow(TextDelta, self._refusal, refusal, events)

    def _hear(self, audio: Mapping[str, Any], events: list[Event]) -> None:
        name = text_or_none(audio.get("id"))
        data = text_or_none(audio.get("data"))
        transcript = text_or_none(audio.get("transcript"))
        if not (name or data or transcript or self._audio >= 0):
            return
        if self._audio < 0:
            self._audio = self._parts.open(Audio(id=name), events)
        if transcript:
            self._parts.grow(TextDelta, self._audio, transcript, events)
        if data:
            self._sound(data, events)
        more = {k: v for k, v in audio.items() if k not in _AUDIO and v is not None}
        if more:
            self._parts.keep(self._audio, more)

    def _sound(self, data: str, events: list[Event]) -> None:
        """Base64 says whole bytes only every four characters, wherever the fragments end."""
        data = self._audio_rest + data
        ready = len(data) if data.endswith("=") else len(data) - len(data) % 4
        self._audio_rest = data[ready:]
        if ready:
            sound = decode_base64(data[:ready])
            events.append(AudioDelta(self._audio, sound, self._parts.choice))

    def _cite(self, annotation: object, events: list[Event]) -> None:
        cited = mapping(mapping(annotation).get("url_citation"))
        if not cited:
            self._message.setdefault("annotations", []).append(annotation)
            return
        start, end = _int(cited.get("start_index")), _int(cited.get("end_index"))
        if not end:  # an empty span stands for none (OpenRouter)
            start = end = None
        native = {name: value for name, value in cited.items() if name not in _CITATION}
        citation = Citation(
            start=start,
            end=end,
            quote=text_or_none(cited.get("content")),
            url=text_or_none(cited.get("url")),
            title=text_or_none(cited.get("title")),
            native=native_of(native),
        )
        self._add_citation(citation, events)

    def _add_citation(self, citation: Citation, events: list[Event]) -> None:
        if self._text < 0:
            self._text = self._parts.open(Text(""), events)
        if citation.url:
            self._cited.add(citation.url)
        events.append(CitationAdded(self._text, citation, self._parts.choice))

    def cite_urls(self, urls: list[object], results: object, events: list[Event]) -> None:
        """Take the reply's own `citations` (Perplexity, xAI)."""
        titles = {
            result["url"]: text_or_none(result.get("title"))
            for result in items(results)
            if isinstance(result, dict) and isinstance(result.get("url"), str)
        }
        for url in urls:
            if isinstance(url, str) and url and url not in self._cited:
                self._add_citation(Citation(url=url, title=titles.get(url)), events)

    def take_rest(self, choice: Mapping[str, Any], events: list[Event]) -> None:
        """Take what a choice says beside its delta."""
        finish = choice.get("finish_reason")
        if finish:
            self.finish = str(finish)
        tokens = decode_logprobs(choice["logprobs"]) if choice.get("logprobs") else None
        if tokens is not None:
            events.append(LogprobsDelta(tokens, self._parts.choice))
        if _PLAIN_CHOICE.issuperset(choice):
            return
        self._native_finish = (
            text_or_none(choice.get("native_finish_reason")) or self._native_finish
        )
        stop = choice.get("stop_reason")
        if isinstance(stop, str):
            self.stop_sequence = stop
        elif stop is not None:  # vLLM names the token where no text stopped it
            self._native["stop_reason"] = stop
        keep_unknown(choice, _CHOICE, self._native)

    def close(self, events: list[Event]) -> None:
        """Append what is still held back, and the end of each part."""
        self._calls.close(events)
        if self._audio_rest:
            sound = decode_base64(self._audio_rest)
            events.append(AudioDelta(self._audio, sound, self._parts.choice))
        self._parts.close(events)


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
