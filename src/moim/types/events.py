"""The pieces of a streamed reply, and the two ways between pieces and whole.

`fold(events)` is the reply; `unfold(reply)` are events that fold to it. A stream is
`Start`, then parts (`PartStart`, deltas, `PartEnd`; parts may interleave by index), `UsageSeen`
any number of times (each replaces the last), and at the end exactly one of `Finish` and `Failed`.
With n > 1 the events of further answers carry their `choice`; `Finish` comes once, after all of
them, and `ChoiceEnd` gives the finish reason of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from moim.errors import MoimError, StreamBroken
from moim.types.messages import (
    Audio,
    Citation,
    Native,
    Part,
    Reasoning,
    Refusal,
    Source,
    Text,
    ToolCall,
)
from moim.types.requests import (
    Alternative,
    FinishReason,
    Reply,
    TokenLogprob,
    Usage,
    Warned,
)

__all__ = [
    "ArgsDelta",
    "AudioDelta",
    "ChoiceEnd",
    "CitationAdded",
    "Event",
    "Failed",
    "Finish",
    "Folder",
    "LogprobsDelta",
    "PartEnd",
    "PartStart",
    "ReasoningDelta",
    "SignatureDelta",
    "Start",
    "TextDelta",
    "UsageSeen",
    "fold",
    "unfold",
]


class Start(Struct, frozen=True, tag_field="event", tag="start", omit_defaults=True):
    """The reply has begun."""

    id: str = ""
    model: str = ""
    created: float | None = None


class PartStart(Struct, frozen=True, tag_field="event", tag="part_start", omit_defaults=True):
    """A part has begun. `part` is empty where deltas follow, or whole where none do."""

    index: int
    part: Part
    choice: int = 0


class TextDelta(Struct, frozen=True, tag_field="event", tag="text", omit_defaults=True):
    """More of a text, of a refusal's words, or of a sound's transcript."""

    index: int
    text: str
    choice: int = 0


class ReasoningDelta(Struct, frozen=True, tag_field="event", tag="reasoning", omit_defaults=True):
    """More of the thoughts."""

    index: int
    text: str
    choice: int = 0


class SignatureDelta(Struct, frozen=True, tag_field="event", tag="signature", omit_defaults=True):
    """The opaque state of a reasoning part or tool call; it replaces what came before."""

    index: int
    signature: str | None = None
    opaque: str | None = None
    choice: int = 0


class ArgsDelta(Struct, frozen=True, tag_field="event", tag="arguments", omit_defaults=True):
    """More of a tool call's JSON text."""

    index: int
    arguments: str
    choice: int = 0


class AudioDelta(Struct, frozen=True, tag_field="event", tag="audio", omit_defaults=True):
    """More bytes of a sound."""

    index: int
    data: bytes
    choice: int = 0


class CitationAdded(Struct, frozen=True, tag_field="event", tag="citation", omit_defaults=True):
    """A citation of the text at `index`."""

    index: int
    citation: Citation
    choice: int = 0


class LogprobsDelta(Struct, frozen=True, tag_field="event", tag="logprobs", omit_defaults=True):
    """Log probabilities of the next tokens."""

    tokens: tuple[TokenLogprob, ...]
    choice: int = 0


class PartEnd(Struct, frozen=True, tag_field="event", tag="part_end", omit_defaults=True):
    """Nothing more comes for this part. `native` is what only the dialect knows of it."""

    index: int
    native: Native = {}
    choice: int = 0


class UsageSeen(Struct, frozen=True, tag_field="event", tag="usage", omit_defaults=True):
    """The count so far; replaces any earlier one."""

    usage: Usage


class ChoiceEnd(Struct, frozen=True, tag_field="event", tag="choice_end", omit_defaults=True):
    """A further answer (choice > 0) has ended."""

    choice: int
    reason: FinishReason | None = None
    native_reason: str | None = None


class Finish(Struct, frozen=True, tag_field="event", tag="finish", omit_defaults=True):
    """The reply is whole: the dialect's terminator was seen."""

    reason: FinishReason | None = None
    native_reason: str | None = None
    stop_sequence: str | None = None
    warnings: tuple[Warned, ...] = ()
    native: Native = {}


class Failed(Struct, frozen=True, tag_field="event", tag="failed"):
    """The stream ended with an error: the answer is not whole."""

    error: MoimError


Event: TypeAlias = (
    Start
    | PartStart
    | TextDelta
    | ReasoningDelta
    | SignatureDelta
    | ArgsDelta
    | AudioDelta
    | CitationAdded
    | LogprobsDelta
    | PartEnd
    | UsageSeen
    | ChoiceEnd
    | Finish
    | Failed
)


_TEXTS = (TextDelta, ReasoningDelta)


class _Growing:
    """A part under construction: pieces are joined once, at the end."""

    __slots__ = ("args", "citations", "data", "native", "opaque", "part", "signature", "texts")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.texts: list[str] = []
        self.args: list[str] = []
        self.data: list[bytes] = []
        self.citations: list[Citation] = []
        self.signature: str | None = None
        self.opaque: str | None = None
        self.native: Native = {}

    def whole(self) -> Part:
        changes: dict[str, Any] = {}
        part = self.part
        if self.native:
            changes["native"] = {**part.native, **self.native}
        if self.texts:
            changes.update(_more_text(part, "".join(self.texts)))
        if self.args and isinstance(part, ToolCall):
            changes["arguments"] = part.arguments + "".join(self.args)
        if self.data and isinstance(part, Audio):
            before = part.source
            kept = before.data if before is not None and before.data is not None else b""
            kind = before.media_type if before is not None else None
            changes["source"] = Source(data=kept + b"".join(self.data), media_type=kind)
        if self.citations and isinstance(part, Text):
            changes["citations"] = (*part.citations, *self.citations)
        if self.signature is not None and isinstance(part, Reasoning | ToolCall):
            changes["signature"] = self.signature
        if self.opaque is not None and isinstance(part, Reasoning):
            changes["opaque"] = self.opaque
        return msgspec.structs.replace(part, **changes) if changes else part


def _more_text(part: Part, more: str) -> dict[str, str]:
    if isinstance(part, Audio):
        return {"transcript": (part.transcript or "") + more}
    if isinstance(part, Text | Refusal | Reasoning):
        return {"text": (part.text or "") + more}
    return {}


class _Answer:
    """One of the answers of a stream."""

    __slots__ = ("logprobs", "native_reason", "parts", "reason")

    def __init__(self) -> None:
        self.parts: dict[int, _Growing] = {}
        self.logprobs: list[TokenLogprob] | None = None
        self.reason: FinishReason | None = None
        self.native_reason: str | None = None

    def whole(self) -> tuple[Part, ...]:
        return tuple(self.parts[n].whole() for n in sorted(self.parts))

    def probabilities(self) -> tuple[TokenLogprob, ...] | None:
        return None if self.logprobs is None else tuple(self.logprobs)


class Folder:
    """Grows a reply from events.

    `feed` takes events as they come and raises nothing: a `Failed` event is kept for `reply`.
    """

    __slots__ = ("_answers", "_failed", "_finish", "_start", "_usage")

    def __init__(self) -> None:
        self._start = Start()
        self._answers: dict[int, _Answer] = {0: _Answer()}
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._failed: MoimError | None = None

    @property
    def finished(self) -> bool:
        """Whether the reply is whole."""
        return self._finish is not None and self._failed is None

    @property
    def failure(self) -> MoimError | None:
        """The error that ended the stream, if one did."""
        return self._failed

    @property
    def usage(self) -> Usage | None:
        """The last count seen, also of a stream that was cut or left."""
        return self._usage

    def feed(self, events: Iterable[Event]) -> None:
        """Take the next events."""
        answers = self._answers
        for event in events:
            # Nearly every event of a stream is one of these two.
            if isinstance(event, _TEXTS):
                answer = answers.get(event.choice)
                grown = answer.parts.get(event.index) if answer is not None else None
                if grown is not None:
                    grown.texts.append(event.text)
            else:
                self._take(event)

    def _answer(self, choice: int) -> _Answer:
        return self._answers.setdefault(choice, _Answer())

    def _take(self, event: Event) -> None:
        match event:
            case Start():
                self._start = event
            case PartStart():
                self._answer(event.choice).parts[event.index] = _Growing(event.part)
            case UsageSeen():
                self._usage = event.usage
            case LogprobsDelta():
                answer = self._answer(event.choice)
                answer.logprobs = [*(answer.logprobs or ()), *event.tokens]
            case ChoiceEnd():
                answer = self._answer(event.choice)
                answer.reason, answer.native_reason = event.reason, event.native_reason
            case Finish():
                self._finish = event
            case Failed():
                self._failed = event.error
            case ArgsDelta() | AudioDelta() | CitationAdded() | SignatureDelta() | PartEnd():
                self._grow(event)
            case TextDelta() | ReasoningDelta():
                self.feed((event,))

    def _grow(
        self, event: ArgsDelta | AudioDelta | CitationAdded | SignatureDelta | PartEnd
    ) -> None:
        grown = self._answer(event.choice).parts.get(event.index)
        if grown is None:
            return
        match event:
            case ArgsDelta():
                grown.args.append(event.arguments)
            case AudioDelta():
                grown.data.append(event.data)
            case CitationAdded():
                grown.citations.append(event.citation)
            case SignatureDelta():
                grown.signature = event.signature or grown.signature
                grown.opaque = event.opaque or grown.opaque
            case PartEnd():
                grown.native = event.native

    def reply(self) -> Reply:
        """The whole reply.

        Raises:
            MoimError: the error that ended the stream.
            StreamBroken: the stream has not ended with its terminator.
        """
        if self._failed is not None:
            raise self._failed
        if self._finish is None:
            raise StreamBroken("The stream ended before its terminator.")
        return self.so_far()

    def so_far(self) -> Reply:
        """What has arrived, whole or not; of an unfinished stream `finish_reason` is None."""
        end = self._finish or Finish()
        first = self._answers[0]
        further = tuple(
            Alternative(
                choice, answer.whole(), answer.reason, answer.native_reason, answer.probabilities()
            )
            for choice, answer in sorted(self._answers.items())
            if choice
        )
        return Reply(
            id=self._start.id,
            model=self._start.model,
            created=self._start.created,
            parts=first.whole(),
            finish_reason=end.reason,
            native_finish_reason=end.native_reason,
            stop_sequence=end.stop_sequence,
            usage=self._usage,
            warnings=end.warnings,
            alternatives=further,
            logprobs=first.probabilities(),
            native=end.native,
        )


def fold(events: Iterable[Event]) -> Reply:
    """The reply that these events make.

    Raises:
        MoimError: the error that ended them.
        StreamBroken: they lack a `Finish`.
    """
    folder = Folder()
    folder.feed(events)
    return folder.reply()


def unfold(reply: Reply) -> Iterator[Event]:
    """Events that fold to `reply`, in the order in which a stream would give them."""
    yield Start(reply.id, reply.model, reply.created)
    yield from _unfold_answer(0, reply.parts, reply.logprobs)
    for other in reply.alternatives:
        yield from _unfold_answer(other.index, other.parts, other.logprobs)
        yield ChoiceEnd(other.index, other.finish_reason, other.native_finish_reason)
    if reply.usage is not None:
        yield UsageSeen(reply.usage)
    yield Finish(
        reply.finish_reason,
        reply.native_finish_reason,
        reply.stop_sequence,
        reply.warnings,
        reply.native,
    )


def _unfold_answer(
    choice: int, parts: tuple[Part, ...], logprobs: tuple[TokenLogprob, ...] | None
) -> Iterator[Event]:
    for index, part in enumerate(parts):
        empty, deltas = _take_apart(index, part, choice)
        yield PartStart(index, empty, choice)
        yield from deltas
        yield PartEnd(index, choice=choice)
    if logprobs is not None:
        yield LogprobsDelta(logprobs, choice)


def _take_apart(index: int, part: Part, choice: int) -> tuple[Part, list[Event]]:
    """A part without its growing content, and the deltas that give it back."""
    replace = msgspec.structs.replace
    match part:
        case Text(text=text) if text:
            cited: list[Event] = [CitationAdded(index, c, choice) for c in part.citations]
            return replace(part, text="", citations=()), [TextDelta(index, text, choice), *cited]
        case Refusal(text=text) if text:
            return replace(part, text=""), [TextDelta(index, text, choice)]
        case Reasoning(text=text) if text:
            return replace(part, text=""), [ReasoningDelta(index, text, choice)]
        case ToolCall(arguments=arguments) if arguments:
            return replace(part, arguments=""), [ArgsDelta(index, arguments, choice)]
        case _:
            return part, []
