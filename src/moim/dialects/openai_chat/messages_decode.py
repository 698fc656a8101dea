"""Conversations from a client of the dialect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moim.dialects.openai_chat.expect import expect
from moim.dialects.openai_chat.fields import (
    NAME,
    decode_base64,
    items,
    json_text,
    mapping,
    native_of,
)
from moim.dialects.openai_chat.reasoning import decode_entry, text_of
from moim.errors import DecodeError, RequestError
from moim.types import (
    Audio,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Source,
    Text,
    ToolCall,
    ToolResult,
    Video,
)

__all__ = ["decode_messages"]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def decode_messages(body: Mapping[str, Any]) -> tuple[Message, ...]:
    """The conversation of a request.

    Raises:
        RequestError: it has none, or one that cannot be read; the message names the place.
    """
    messages = expect("messages", body.get("messages"), list, "a list of messages")
    if not messages:
        raise RequestError("`messages` is empty.")
    legacy = _LegacyIds()
    return tuple(_message(f"messages[{n}]", item, legacy) for n, item in enumerate(messages))


class _LegacyIds:
    """Pairs for calls and results of the time before calls had ids: a result answers the last
    call of its name."""

    def __init__(self) -> None:
        self._made: dict[str, str] = {}

    def call(self, name: str) -> str:
        made = f"call_{name}_{len(self._made)}"
        self._made[name] = made
        return made

    def result(self, name: str) -> str:
        return self._made.get(name) or self.call(name)


_COMMON = frozenset({"role", "content", "name"})
_KNOWN: dict[str, frozenset[str]] = {
    "assistant": _COMMON
    | {
        "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning",
        "reasoning_details", "audio", "extra_content",
    },
    "tool": _COMMON | {"tool_call_id"},
}  # fmt: skip


def _message(where: str, item: Any, legacy: _LegacyIds) -> Message:
    fields = expect(where, item, dict, "an object")
    role = fields.get("role")
    if role not in _ROLES:
        raise RequestError(f"`{where}.role` must be one of {', '.join(_ROLES)}.")
    known = _KNOWN.get(role, _COMMON)
    native = native_of({k: v for k, v in fields.items() if k not in known and v is not None})
    name = fields.get("name")
    name = name if isinstance(name, str) else None
    if role in ("tool", "function"):
        return Message("tool", (_result(where, fields, native, legacy),))
    parts = _content(f"{where}.content", fields.get("content"))
    if role == "assistant":
        parts = (*_thoughts(fields), *parts, *_turn(where, fields, legacy))
    return Message(role, parts, name, native=native)


def _result(
    where: str, fields: Mapping[str, Any], native: Mapping[str, Any], legacy: _LegacyIds
) -> ToolResult:
    name = fields.get("name")
    name = name if isinstance(name, str) else None
    if fields["role"] == "function":
        call_id = legacy.result(name or "")
    else:
        call_id = expect(f"{where}.tool_call_id", fields.get("tool_call_id"), str, "a string")
    content = _content(f"{where}.content", fields.get("content"))
    taken = tuple(part for part in content if isinstance(part, Text | Image | File))
    return ToolResult(call_id, taken, name, native=native)


def _content(where: str, content: Any) -> tuple[Part, ...]:
    if content is None or content == "":
        return ()
    if isinstance(content, str):
        return (Text(content),)
    items = expect(where, content, list, "a string or a list of parts")
    return tuple(
        part for n, item in enumerate(items) if (part := _part(f"{where}[{n}]", item)) is not None
    )


def _part(where: str, item: Any) -> Part | None:
    if isinstance(item, str):
        return Text(item) if item else None
    fields = expect(where, item, dict, "an object")
    kind = fields.get("type")
    if kind == "text" and fields.get("text") == "":
        return None
    reader = _PART_READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        if not isinstance(kind, str):
            raise RequestError(f"`{where}.type` is missing.")
        return Text("", native={NAME: fields})  # written back as it is, to this dialect alone
    native = {k: v for k, v in fields.items() if k not in ("type", kind) and v is not None}
    try:
        return reader(where, fields.get(kind), native_of(native))
    except DecodeError as error:
        raise RequestError(f"`{where}.{kind}` cannot be read. {error.message}") from None


def _read_text(where: str, value: Any, native: Mapping[str, Any]) -> Part:
    return Text(expect(f"{where}.text", value, str, "a string"), native=native)


def _read_refusal(where: str, value: Any, native: Mapping[str, Any]) -> Part:
    return Refusal(expect(f"{where}.refusal", value, str, "a string"), native=native)


def _read_thinking(where: str, value: Any, native: Mapping[str, Any]) -> Part:
    pieces = value if isinstance(value, list) else [{"text": value}]
    texts = [mapping(piece).get("text") for piece in pieces]
    return Reasoning("".join(text for text in texts if isinstance(text, str)), native=native)


def _read_image(where: str, value: Any, native: Mapping[str, Any]) -> Part:
    fields = {"url": value} if isinstance(value, str) else mapping(value)
    detail = fields.get("detail")
    return Image(
        _source(f"{where}.image_url.url", fields.get("url")),
        detail if isinstance(detail, str) else None,
        native,
    )


def _read_video(where: str, value: Any, native: Mapping[str, Any]) -> Part:
    fields = {"url": value} if isinstance(value, str) else mapping(value)
    return Video(_source(f"{where}.video_url.url", fields.get("url")), native=native)


_MEDIA_TYPES = {"wav": "audio/wav", "mp3": "audio/mpeg"}


def _read_audio(where: str, value: Any, native: Mapping[str, Any]) -> Part:
    fields = {"data": value} if isinstance(value, str) else mapping(value)
    data = expect(f"{where}.input_audio.data", fields.get("data"), str, "base64")
    kind = fields.get("format")
    kind = kind if isinstance(kind, str) else None
    source = Source(data=decode_base64(data), media_type=_MEDIA_TYPES.get(kind or ""))
    return Audio(source, kind, native=native)


def _read_file(where: str, value: Any, native: Mapping[str, Any]) -> Part:
    fields = mapping(value)
    filename = fields.get("filename")
    filename = filename if isinstance(filename, str) else None
    name, data = fields.get("file_id"), fields.get("file_data")
    if isinstance(name, str):
        return File(Source(file_id=name), filename, native=native)
    text = expect(f"{where}.file.file_data", data, str, "a string")
    if text.startswith(("data:", "http:", "https:")):
        return File(_source(f"{where}.file.file_data", text), filename, native=native)
    return File(Source(data=decode_base64(text)), filename, native=native)


def _source(where: str, address: Any) -> Source:
    text = expect(where, address, str, "a string")
    if not text.startswith("data:"):
        return Source(url=text)
    head, comma, data = text[5:].partition(",")
    kind, *flags = head.split(";")
    if not comma or "base64" not in flags:
        raise RequestError(f"`{where}` is a data URL without base64.")
    return Source(data=decode_base64(data), media_type=kind or None)


_PART_READERS: dict[str, Callable[[str, Any, Mapping[str, Any]], Part]] = {
    "text": _read_text,
    "refusal": _read_refusal,
    "thinking": _read_thinking,
    "image_url": _read_image,
    "video_url": _read_video,
    "input_audio": _read_audio,
    "file": _read_file,
}


def _thoughts(fields: Mapping[str, Any]) -> tuple[Reasoning, ...]:
    """The reasoning of an earlier turn, as the client gives it back."""
    extra = mapping(fields.get("extra_content"))
    sealed = (
        (Reasoning(signature=_signature(extra), native=native_of({"extra_content": extra})),)
        if extra
        else ()
    )
    details = fields.get("reasoning_details")
    if isinstance(details, list) and details:
        entries = [entry for entry in details if isinstance(entry, dict)]
        return (
            *sealed,
            *(
                decode_entry(entry, n, text=text_of(entry) or None)
                for n, entry in enumerate(entries)
            ),
        )
    text = fields.get("reasoning_content") or fields.get("reasoning")
    return (*sealed, Reasoning(text)) if isinstance(text, str) and text else sealed


def _signature(extra: Mapping[str, Any]) -> str | None:
    signature = mapping(extra.get("google")).get("thought_signature")
    return signature if isinstance(signature, str) else None


def _turn(where: str, fields: Mapping[str, Any], legacy: _LegacyIds) -> tuple[Part, ...]:
    parts: list[Part] = []
    if isinstance(fields.get("refusal"), str) and fields["refusal"]:
        parts.append(Refusal(fields["refusal"]))
    audio = mapping(fields.get("audio"))
    if isinstance(audio.get("id"), str):
        parts.append(Audio(id=audio["id"]))
    for n, call in enumerate(items(fields.get("tool_calls"))):
        parts.append(_call(f"{where}.tool_calls[{n}]", call))
    function = fields.get("function_call")
    if isinstance(function, dict):
        name = str(function.get("name") or "")
        parts.append(ToolCall(legacy.call(name), name, _arguments(function.get("arguments"))))
    return tuple(parts)


_CALL = frozenset({"id", "type", "function", "custom", "index"})


def _call(where: str, item: Any) -> ToolCall:
    fields = expect(where, item, dict, "an object")
    custom = isinstance(fields.get("custom"), dict)
    body = mapping(fields.get("custom" if custom else "function"))
    native = {k: v for k, v in fields.items() if k not in _CALL and v is not None}
    return ToolCall(
        expect(f"{where}.id", fields.get("id"), str, "a string"),
        expect(f"{where}.function.name", body.get("name"), str, "a string"),
        _arguments(body.get("input" if custom else "arguments")),
        kind="custom" if custom else "function",
        signature=_signature(mapping(fields.get("extra_content"))),
        native=native_of(native),
    )


def _arguments(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json_text(value)
