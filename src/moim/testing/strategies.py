"""Hypothesis strategies for the neutral types, and streams of events that `unfold` never makes.

Needs the package `hypothesis`.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
from hypothesis import strategies as st

from moim.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    UpstreamTimeout,
)
from moim.types import (
    Alternative,
    ArgsDelta,
    Audio,
    Citation,
    Event,
    File,
    FinishReason,
    Image,
    JSONFormat,
    Message,
    Part,
    PartEnd,
    PartStart,
    Reasoning,
    ReasoningDelta,
    Refusal,
    Reply,
    Request,
    Source,
    Text,
    TextDelta,
    Thinking,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Usage,
    unfold,
)

__all__ = [
    "ERRORS",
    "cuts",
    "errors",
    "interleave",
    "parallel_replies",
    "replies",
    "requests",
    "simple_replies",
    "simple_requests",
    "texts",
]

ERRORS: tuple[type[ProviderError], ...] = (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    QuotaError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    UpstreamTimeout,
)
"""The classes that every dialect must be able to tell a client."""

_TRAPS = [
    "\u2028",
    "\u2029\x85",
    "안녕",
    "😀",
    "\ufeff",
    "data: ",
    "[DONE]",
    "\r\n",
    "\n\n",
    '"',
    "\\",
]


def texts(*, least: int = 0) -> st.SearchStrategy[str]:
    """Text of whole characters, with what is known to break framing and JSON."""
    plain = st.text(st.characters(exclude_categories=["Cs"]), min_size=least, max_size=12)
    traps = st.lists(st.sampled_from(_TRAPS), min_size=least, max_size=3).map("".join)
    return plain | traps


_names = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_-]{0,11}", fullmatch=True)
_counts = st.integers(0, 10**6)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=5,
)
_arguments = st.dictionaries(_names, _json, max_size=3).map(
    lambda x: msgspec.json.encode(x).decode()
)
_usages = st.builds(
    Usage,
    input_tokens=st.none() | _counts,
    output_tokens=st.none() | _counts,
    cache_read_tokens=st.none() | _counts,
    cache_write_tokens=st.none() | _counts,
    reasoning_tokens=st.none() | _counts,
    audio_input_tokens=st.none() | _counts,
    audio_output_tokens=st.none() | _counts,
)
_reasons: st.SearchStrategy[FinishReason | None] = st.none() | st.sampled_from(
    ("stop", "length", "tool_calls", "content_filter", "pause", "other")
)
_probability = st.floats(-1000, 0)
_logprobs = st.lists(
    st.builds(
        TokenLogprob,
        texts(),
        _probability,
        st.lists(st.tuples(texts(), _probability), max_size=2).map(tuple),
    ),
    max_size=3,
).map(tuple)


def _calls(arguments: st.SearchStrategy[str]) -> st.SearchStrategy[ToolCall]:
    return st.builds(
        ToolCall,
        st.uuids(version=4).map(lambda x: f"call_{x.hex}"),
        _names,
        arguments,
        kind=st.sampled_from(("function", "function", "custom", "server")),
        signature=st.none() | _names,
    )


_citations = st.builds(
    Citation,
    start=st.integers(0, 50),
    end=st.integers(0, 50),
    quote=st.none() | texts(),
    url=st.none() | _names.map("https://example.com/{}".format),
    title=st.none() | texts(),
)
_reasonings = st.builds(
    Reasoning,
    st.none() | texts(),
    is_summary=st.booleans(),
    signature=st.none() | _names,
    opaque=st.none() | _names,
    id=st.none() | _names,
)
_sounds = st.builds(
    Audio,
    st.none() | st.binary(min_size=1, max_size=20).map(lambda data: Source(data=data)),
    transcript=st.none() | texts(),
    id=st.none() | _names,
)
_parts: st.SearchStrategy[Part] = st.one_of(
    st.builds(Text, texts(), st.lists(_citations, max_size=2).map(tuple)),
    st.builds(Refusal, texts()),
    _reasonings,
    _calls(_arguments | texts()),
    _sounds,
)


def _answers(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Part, ...]]:
    return st.lists(parts, max_size=5).map(tuple)


@st.composite
def replies(draw: st.DrawFn) -> Reply:
    """Any reply that a model can give, apart from one that ended in an error."""
    further = draw(st.lists(_answers(_parts), max_size=2))
    return Reply(
        id=draw(texts()),
        model=draw(texts()),
        parts=draw(_answers(_parts)),
        finish_reason=draw(_reasons),
        native_finish_reason=draw(st.none() | _names),
        stop_sequence=draw(st.none() | texts()),
        usage=draw(st.none() | _usages),
        alternatives=tuple(
            Alternative(
                number, parts, draw(_reasons), draw(st.none() | _names), draw(st.none() | _logprobs)
            )
            for number, parts in enumerate(further, 1)
        ),
        logprobs=draw(st.none() | _logprobs),
        created=draw(st.none() | st.integers(0, 2**40).map(float)),
    )


@st.composite
def simple_replies(draw: st.DrawFn) -> Reply:
    """Replies that every dialect can carry: a text, tool calls with JSON objects, counts."""
    said = draw(st.lists(texts(least=1).filter(str.strip).map(Text), max_size=1))
    calls = draw(st.lists(_calls(_arguments), max_size=3, unique_by=lambda call: call.id))
    plain = [msgspec.structs.replace(call, kind="function", signature=None) for call in calls]
    ends: list[FinishReason] = ["tool_calls"] if plain else ["stop", "length"]
    count = draw(_counts)
    return Reply(
        id=draw(_names),
        model=draw(_names),
        parts=(*said, *plain),
        finish_reason=draw(st.sampled_from(ends)),
        usage=Usage(input_tokens=count, output_tokens=draw(_counts)),
    )


@st.composite
def parallel_replies(draw: st.DrawFn) -> Reply:
    """Replies whose parts can grow side by side: several calls, and a text beside them."""
    calls = draw(st.lists(_calls(texts(least=1)), min_size=2, max_size=4, unique_by=lambda c: c.id))
    plain = [msgspec.structs.replace(call, kind="function") for call in calls]
    said = draw(st.lists(texts(least=1).map(Text), max_size=1))
    return Reply(id=draw(_names), model=draw(_names), parts=(*said, *plain))


_images = st.builds(
    Image,
    st.binary(min_size=1, max_size=20).map(lambda data: Source(data=data, media_type="image/png"))
    | _names.map(lambda name: Source(url=f"https://example.com/{name}")),
    st.none() | st.sampled_from(("low", "high")),
)
_files = st.builds(
    File,
    st.binary(min_size=1, max_size=20).map(
        lambda data: Source(data=data, media_type="application/pdf")
    ),
    st.none() | _names,
)
_schemas = st.dictionaries(_names, _json, max_size=3)
_tools = st.builds(
    Tool, name=_names, description=texts(), parameters=_schemas, strict=st.none() | st.booleans()
)


def _turn(role: str, parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    return st.builds(
        Message,
        st.just(role),
        st.lists(parts, min_size=1, max_size=3).map(tuple),
        st.none() | _names,
    )


_messages = st.one_of(
    _turn("system", st.builds(Text, texts())),
    _turn("developer", st.builds(Text, texts())),
    _turn("user", st.builds(Text, texts()) | _images | _files),
    _turn("assistant", st.builds(Text, texts()) | _reasonings | _calls(_arguments | texts())),
    _turn(
        "tool",
        st.builds(
            ToolResult,
            _names,
            st.lists(st.builds(Text, texts()) | _images, max_size=3).map(tuple),
            st.none() | _names,
            st.booleans(),
        ),
    ),
)
_unit = st.floats(0, 2)


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Any chat request."""
    tools = tuple(draw(st.lists(_tools, max_size=2)))
    return Request(
        model=draw(_names),
        messages=tuple(draw(st.lists(_messages, min_size=1, max_size=4))),
        max_tokens=draw(st.none() | st.integers(1, 10**6)),
        temperature=draw(st.none() | _unit),
        top_p=draw(st.none() | _unit),
        top_k=draw(st.none() | st.integers(0, 100)),
        min_p=draw(st.none() | _unit),
        stop=tuple(draw(st.lists(texts(least=1), max_size=2))),
        seed=draw(st.none() | st.integers(0, 2**31)),
        frequency_penalty=draw(st.none() | _unit),
        presence_penalty=draw(st.none() | _unit),
        repeat_penalty=draw(st.none() | _unit),
        logprobs=draw(st.none() | st.booleans()),
        top_logprobs=draw(st.none() | st.integers(0, 20)),
        tools=tools,
        tool_choice=draw(st.none() | st.builds(ToolChoice, st.sampled_from(("auto", "none"))))
        if tools
        else None,
        parallel_tool_calls=draw(st.none() | st.booleans()),
        response_format=draw(
            st.none() | st.builds(JSONFormat, schema=st.none() | _schemas, name=_names)
        ),
        thinking=draw(st.none() | st.builds(Thinking, effort=st.sampled_from(("low", "high")))),
        stream=draw(st.booleans()),
        user=draw(st.none() | _names),
        metadata=draw(st.none() | st.dictionaries(_names, texts(), max_size=2)),
    )


@st.composite
def simple_requests(draw: st.DrawFn) -> Request:
    """Requests that every dialect says in full."""
    said = texts(least=1).filter(str.strip)
    turns = draw(st.lists(st.tuples(said, said), max_size=2))
    talk: list[Message] = [Message("system", (Text(draw(said)),))]
    for question, answer in turns:
        talk.append(Message("user", (Text(question),)))
        talk.append(Message("assistant", (Text(answer),)))
    talk.append(Message("user", (Text(draw(said)),)))
    return Request(
        model=draw(_names),
        messages=tuple(talk),
        max_tokens=draw(st.integers(1, 10**6)),
        temperature=draw(st.none() | st.floats(0, 1)),
        tools=tuple(draw(st.lists(_tools, max_size=2))),
        stream=draw(st.booleans()),
    )


@st.composite
def errors(draw: st.DrawFn) -> ProviderError:
    """An error of a service, with or without a time to wait."""
    wait = draw(st.none() | st.integers(0, 600))
    kind = draw(st.sampled_from(ERRORS))
    return kind(draw(_names), retry_after=None if wait is None else float(wait))


def cuts(data: bytes, random: Random) -> list[bytes]:
    """The same bytes in pieces: one each, a few, or many; empty ones among them."""
    style = random.randrange(3)
    if style == 0:
        return [data[at : at + 1] for at in range(len(data))]
    many = random.randrange(2, 9) if style == 1 else 1 + len(data) // 3
    at = sorted(random.randrange(len(data) + 1) for _ in range(many))
    return [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]


def interleave(reply: Reply, random: Random) -> list[Event]:
    """Events of `reply` in which parts grow side by side and texts come in fragments.

    A part begins when the one before it has said something, and each grows in its own order;
    apart from that anything goes.
    """
    events = list(unfold(reply))
    first_end = next(
        (n for n, event in enumerate(events) if not _belongs_to_part(event) and n), len(events)
    )
    queues: dict[int, list[Event]] = {}
    for event in events[1:first_end]:
        queues.setdefault(_index(event), []).extend(_fragments(event, random))
    mixed = [events[0]]
    said = dict.fromkeys(queues, 0)
    while queues:
        free = [n for n in queues if n == 0 or said[n - 1] > 1 or n - 1 not in queues]
        index = random.choice(free)
        mixed.append(queues[index].pop(0))
        said[index] += 1
        if not queues[index]:
            del queues[index]
    return [*mixed, *events[first_end:]]


def _belongs_to_part(event: Event) -> bool:
    return hasattr(event, "index") and getattr(event, "choice", 0) == 0


def _index(event: Event) -> int:
    index: int = getattr(event, "index", -1)
    return index


def _fragments(event: Event, random: Random) -> list[Event]:
    field = "arguments" if isinstance(event, ArgsDelta) else "text"
    if isinstance(event, PartStart | PartEnd) or not isinstance(
        event, TextDelta | ReasoningDelta | ArgsDelta
    ):
        return [event]
    text: str = getattr(event, field)
    at = sorted(random.randrange(len(text) + 1) for _ in range(random.randrange(4)))
    pieces = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    return [msgspec.structs.replace(event, **{field: piece}) for piece in pieces if piece]
