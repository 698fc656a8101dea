"""Messages and their parts, the same for every provider.

Each part is a frozen struct with a `type` tag, so that messages are plain values: comparable,
picklable, and JSON through `msgspec`. `native` carries what only one dialect knows; it is
written back to that dialect alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

from msgspec import Struct

from moim.errors import RequestError

__all__ = [
    "Audio",
    "Citation",
    "File",
    "Image",
    "Media",
    "Message",
    "Native",
    "Part",
    "Prompt",
    "Reasoning",
    "Refusal",
    "Role",
    "Source",
    "Text",
    "ToolCall",
    "ToolResult",
    "Video",
    "assistant",
    "developer",
    "system",
    "to_messages",
    "tool",
    "user",
]

Role: TypeAlias = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "developer", "user", "assistant", "tool")

Native: TypeAlias = Mapping[str, Any]
"""What a dialect knows beyond the neutral fields: dialect name → JSON value."""


class Source(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where media comes from: exactly one of `url`, `data` and `file_id`.

    Attributes:
        url: an http(s) address that the provider fetches.
        data: the bytes themselves, not base64.
        file_id: the provider's own name of an uploaded file.
        media_type: for example `image/png`; needed with `data`.
        provider: whose `file_id` it is.
    """

    url: str | None = None
    data: bytes | None = None
    file_id: str | None = None
    media_type: str | None = None
    provider: str | None = None

    def __post_init__(self) -> None:
        given = [x is not None for x in (self.url, self.data, self.file_id)]
        if sum(given) != 1:
            raise RequestError("A source has exactly one of url, data and file_id.")


class Citation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A passage that a text rests on.

    Attributes:
        start, end: the cited span of the text, in characters, where the provider says it.
        quote: the text quoted from the source.
        url, title: of the source.
        document: index of the document in the request, from 0.
        file_id: the provider's file.
        native: the dialect's own form.
    """

    start: int | None = None
    end: int | None = None
    quote: str | None = None
    url: str | None = None
    title: str | None = None
    document: int | None = None
    file_id: str | None = None
    native: Native = {}


class Text(Struct, frozen=True, tag_field="type", tag="text", omit_defaults=True):
    """Text, with what it cites."""

    text: str
    citations: tuple[Citation, ...] = ()
    native: Native = {}


class Image(Struct, frozen=True, tag_field="type", tag="image", omit_defaults=True):
    """A picture. `detail` is the provider's word for its resolution (`low`, `high`, `auto`)."""

    source: Source
    detail: str | None = None
    native: Native = {}


class Audio(Struct, frozen=True, tag_field="type", tag="audio", omit_defaults=True):
    """Sound. A model's own earlier sound may be named by `id` alone (then `source` is None)."""

    source: Source | None = None
    format: str | None = None
    transcript: str | None = None
    id: str | None = None
    native: Native = {}


class Video(Struct, frozen=True, tag_field="type", tag="video", omit_defaults=True):
    """Moving pictures; `start` and `end` in seconds cut them."""

    source: Source
    start: float | None = None
    end: float | None = None
    native: Native = {}


class File(Struct, frozen=True, tag_field="type", tag="file", omit_defaults=True):
    """A document such as a PDF."""

    source: Source
    filename: str | None = None
    title: str | None = None
    context: str | None = None
    native: Native = {}


class ToolCall(Struct, frozen=True, tag_field="type", tag="tool_call", omit_defaults=True):
    """A call that the model wants made.

    Attributes:
        id: pairs the call with its result; unique in a conversation.
        name: the tool's name.
        arguments: the model's JSON text, letter for letter: it may be no valid JSON.
        kind: `function` (JSON arguments), `custom` (free text) or `server` (run by the provider).
        signature: the provider's opaque mark, returned with the call.
    """

    id: str
    name: str
    arguments: str = ""
    kind: Literal["function", "custom", "server"] = "function"
    signature: str | None = None
    native: Native = {}


class ToolResult(Struct, frozen=True, tag_field="type", tag="tool_result", omit_defaults=True):
    """What a tool call gave; `content` is text, images and files."""

    call_id: str
    content: tuple[Text | Image | File, ...] = ()
    name: str | None = None
    is_error: bool = False
    native: Native = {}


class Reasoning(Struct, frozen=True, tag_field="type", tag="reasoning", omit_defaults=True):
    """What the model thought, and the opaque state to give back in the next turn.

    Attributes:
        text: the thoughts or their summary; None where only opaque state was given.
        is_summary: whether `text` is a summary.
        signature: the provider's seal over `text`.
        opaque: encrypted or redacted thoughts.
        id: the provider's name for the item.
        origin: `dialect/provider/model` that made it; opaque state never crosses origins.
    """

    text: str | None = None
    is_summary: bool = False
    signature: str | None = None
    opaque: str | None = None
    id: str | None = None
    origin: str | None = None
    native: Native = {}


class Refusal(Struct, frozen=True, tag_field="type", tag="refusal", omit_defaults=True):
    """The model's own words for why it will not answer."""

    text: str
    native: Native = {}


Media: TypeAlias = Image | Audio | Video | File
Part: TypeAlias = Text | Image | Audio | Video | File | ToolCall | ToolResult | Reasoning | Refusal


class Message(Struct, frozen=True, omit_defaults=True):
    """One turn of a conversation.

    Attributes:
        role: who speaks.
        parts: what is said, in order.
        name: the speaker's name, where a provider tells speakers of one role apart.
        id: the provider's name for the message.
        native: fields that only one dialect knows.
    """

    role: Role
    parts: tuple[Part, ...]
    name: str | None = None
    id: str | None = None
    native: Native = {}

    @property
    def text(self) -> str:
        """All text parts joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls among the parts."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))


def _make(role: Role, content: tuple[str | Part, ...]) -> Message:
    return Message(role, tuple(Text(x) if isinstance(x, str) else x for x in content))


def system(*content: str | Part) -> Message:
    """A system message: `system("Answer briefly.")`."""
    return _make("system", content)


def developer(*content: str | Part) -> Message:
    """A developer message (OpenAI's name for a system message of newer models)."""
    return _make("developer", content)


def user(*content: str | Part) -> Message:
    """A user message of texts and other parts."""
    return _make("user", content)


def assistant(*content: str | Part) -> Message:
    """A turn of the model, as it is given back in a conversation."""
    return _make("assistant", content)


def tool(call_id: str, *content: str | Text | Image | File, is_error: bool = False) -> Message:
    """The result of one tool call."""
    parts = tuple(Text(x) if isinstance(x, str) else x for x in content)
    return Message("tool", (ToolResult(call_id, parts, is_error=is_error),))


Prompt: TypeAlias = str | Message | Part | Sequence["Message | tuple[str, str] | Mapping[str, Any]"]
"""What `invoke` and `stream` take: a text, a message, a part, or a conversation."""

_HINT = (
    "Give a string, a moim.Message, or a list of messages, (role, text) pairs or dicts with role "
    "and content."
)
_PARTS = frozenset(get_args(Part))


def to_messages(prompt: Prompt) -> tuple[Message, ...]:
    """Read whatever a caller may pass as a prompt.

    Takes a string (one user message), a `Message`, a part, or a sequence whose items are
    messages, `(role, text)` pairs or `{"role": …, "content": …}` dicts with text content.

    Raises:
        RequestError: the prompt is empty or of another type.
    """
    if isinstance(prompt, str):
        return (user(prompt),)
    if isinstance(prompt, Message):
        return (_checked(prompt, 0),)
    if isinstance(prompt, Part):
        return (user(prompt),)
    if isinstance(prompt, bytes | Mapping) or not isinstance(prompt, Sequence):
        raise RequestError(f"A prompt cannot be of type {type(prompt).__name__}.", hint=_HINT)
    if not prompt:
        raise RequestError("The prompt has no messages.", hint=_HINT)
    return tuple(_to_message(item, n) for n, item in enumerate(prompt))


def _to_message(item: object, n: int) -> Message:
    role: object
    content: object
    if isinstance(item, Message):
        return _checked(item, n)
    if isinstance(item, tuple) and len(item) == 2:
        role, content = item
    elif isinstance(item, Mapping) and item.keys() == {"role", "content"}:
        role, content = item["role"], item["content"]
    else:
        own = isinstance(getattr(item, "message", None), Message)
        raise RequestError(
            f"Item {n} of the prompt is of type {type(item).__name__}, which is no message.",
            hint="Give its `message`." if own else _HINT,
        )
    known = _known_role(role, n)
    if isinstance(content, Part):
        content = (content,)
    if isinstance(content, str):
        content = (Text(content),)
    if not isinstance(content, list | tuple) or not all(isinstance(x, str | Part) for x in content):
        raise RequestError(
            f"Item {n} of the prompt has content that is neither a text nor a list of parts.",
            hint="Parts are texts and moim.Text, moim.Image and the like.",
        )
    return _make(known, tuple(content))


def _known_role(role: object, n: int) -> Role:
    if role not in ROLES:
        raise RequestError(
            f"Item {n} of the prompt has the role {role!r}.", hint=f"Roles are {', '.join(ROLES)}."
        )
    return role


def _checked(message: Message, n: int) -> Message:
    """A message as it is; nothing has checked what it was made of."""
    _known_role(message.role, n)
    for part in message.parts:
        if type(part) not in _PARTS:
            raise RequestError(
                f"Item {n} of the prompt holds a part of type {type(part).__name__}.",
                hint="Parts are moim.Text, moim.Image and the like; moim.user(…) takes texts too.",
            )
    return message
