"""Conversations towards a server of the dialect."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from moim.dialects.openai_chat.fields import NAME, kept
from moim.dialects.openai_chat.parts_encode import (
    encode_audio,
    encode_base64,
    encode_call,
    google_state,
)
from moim.dialects.openai_chat.reasoning import entry_of, is_plain
from moim.dialects.quirks import Quirks
from moim.errors import RequestError, UnsupportedError
from moim.types import (
    Audio,
    File,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    Request,
    Source,
    Text,
    ToolCall,
    ToolResult,
    Video,
    Warned,
)

__all__ = ["encode_messages", "messages_lost"]


def messages_lost(request: Request, quirks: Quirks) -> Iterator[Warned]:
    """What is left out of the conversation or moved."""
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, ToolResult) and _media_moved(part, quirks):
                yield Warned(
                    "tool_result_moved",
                    "Images and files of a tool's result follow it in a user message.",
                )
            elif isinstance(part, Reasoning) and _state_lost(part, quirks):
                yield Warned(
                    "reasoning_state_lost",
                    "Signed or encrypted reasoning of an earlier turn is not given back.",
                )
            elif isinstance(part, ToolCall) and part.kind == "server":
                yield Warned(
                    "tool_call_dropped", f"The server's own call of {part.name} is left out."
                )


def _media_moved(result: ToolResult, quirks: Quirks) -> bool:
    return not quirks.tool_media and any(not isinstance(part, Text) for part in result.content)


def _state_lost(part: Reasoning, quirks: Quirks) -> bool:
    if not (part.signature or part.opaque) or google_state(part):
        return False
    return quirks.reasoning_field != "reasoning_details" or _foreign(part)


def _foreign(part: Reasoning) -> bool:
    return part.origin is not None and not part.origin.startswith(f"{NAME}/")


def encode_messages(request: Request, quirks: Quirks) -> Iterator[dict[str, Any]]:
    """The messages on the wire: a result of a tool is a message of its own.

    Raises:
        UnsupportedError: a part that chat messages cannot hold.
    """
    aside: list[dict[str, Any]] = []  # media of tool results: they wait for the last result
    for message in request.messages:
        results = [part for part in message.parts if isinstance(part, ToolResult)]
        for result in results:
            yield _result(result, aside, quirks)
        rest = tuple(part for part in message.parts if not isinstance(part, ToolResult))
        if results and not rest:
            continue
        if aside:
            yield {"role": "user", "content": aside.copy()}
            aside.clear()
        yield (
            _assistant(message, quirks)
            if message.role == "assistant"
            else _said(message, rest, quirks)
        )
    if aside:
        yield {"role": "user", "content": aside}


_SYSTEM = ("system", "developer")


def _said(message: Message, parts: tuple[Part, ...], quirks: Quirks) -> dict[str, Any]:
    role = message.role
    if role in _SYSTEM and quirks.system_role != "kept":
        role = quirks.system_role
    told = _named(message, "user" if role == "tool" else role)
    told["content"] = _content(parts, quirks)
    return told


def _named(message: Message, role: str) -> dict[str, Any]:
    told: dict[str, Any] = {**kept(message.native), "role": role}
    if message.name is not None:
        told["name"] = message.name
    return told


def _content(parts: tuple[Part, ...], quirks: Quirks) -> Any:
    """A lone text is a string, which every server takes."""
    if all(isinstance(part, Text) and not part.native for part in parts) and len(parts) <= 1:
        return "".join(part.text for part in parts if isinstance(part, Text))
    return [_part(part, quirks) for part in parts if not _empty(part)]


def _empty(part: Part) -> bool:
    return isinstance(part, Text) and not part.text and not part.native


def _part(part: Part, quirks: Quirks) -> dict[str, Any]:
    native = dict(kept(part.native))
    if isinstance(part, Text) and "type" in native:
        return native  # a part that the decoder did not know
    encode = _PARTS.get(type(part))
    if encode is None or (isinstance(part, Video) and not quirks.video):
        raise UnsupportedError(f"Chat messages cannot hold a {type(part).__name__} here.")
    return {**native, **encode(part)}


def _address(source: Source) -> str:
    """The source as an address, a data URL where it is bytes."""
    if source.data is not None:
        kind = source.media_type or "application/octet-stream"
        return f"data:{kind};base64,{encode_base64(source.data)}"
    if source.url is None:
        raise UnsupportedError("An uploaded file's id can stand for a document only.")
    return source.url


def _image(image: Image) -> dict[str, Any]:
    told = {"url": _address(image.source)}
    if image.detail is not None:
        told["detail"] = image.detail
    return {"type": "image_url", "image_url": told}


_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


def _sound(audio: Audio) -> dict[str, Any]:
    source = audio.source
    if source is None or source.data is None:
        raise UnsupportedError("Sound in a chat message must be given as bytes.")
    kind = audio.format or _FORMATS.get(source.media_type or "")
    if kind is None:
        raise RequestError("A sound has no format.", hint="Give `format`, such as wav or mp3.")
    return {
        "type": "input_audio",
        "input_audio": {"data": encode_base64(source.data), "format": kind},
    }


def _file(file: File) -> dict[str, Any]:
    source = file.source
    if source.file_id is not None:
        told = {"file_id": source.file_id}
    else:
        told = {"file_data": _address(source)}
    if file.filename is not None:
        told["filename"] = file.filename
    return {"type": "file", "file": told}


_PARTS: dict[type[Part], Callable[[Any], dict[str, Any]]] = {
    Text: lambda part: {"type": "text", "text": part.text},
    Image: _image,
    Audio: _sound,
    File: _file,
    Video: lambda part: {"type": "video_url", "video_url": {"url": _address(part.source)}},
    Refusal: lambda part: {"type": "refusal", "refusal": part.text},
}


def _result(result: ToolResult, aside: list[dict[str, Any]], quirks: Quirks) -> dict[str, Any]:
    told: dict[str, Any] = {
        **kept(result.native),
        "role": "tool",
        "tool_call_id": _call_id(result.call_id, quirks),
    }
    if result.name is not None:
        told["name"] = result.name
    content: list[Text | Image | File] = [part for part in result.content if not _empty(part)]
    if result.is_error:
        content.insert(0, Text("Error: "))
    if _media_moved(result, quirks):
        aside.append({"type": "text", "text": f"Attachments of tool result {result.call_id}:"})
        aside.extend(_part(part, quirks) for part in content if not isinstance(part, Text))
        content = [part for part in content if isinstance(part, Text)]
        content.append(Text("[The attachments follow in the next user message.]"))
    if len(content) <= 1 or result.is_error or _media_moved(result, quirks):
        content = _joined(content)
    told["content"] = _content(tuple(content), quirks)
    return told


def _joined(content: list[Text | Image | File]) -> list[Text | Image | File]:
    """One text where all of them are plain: what was added must not make a list of a string."""
    texts = [part.text for part in content if isinstance(part, Text) and not part.native]
    return [Text("".join(texts))] if len(texts) == len(content) else content


def _assistant(message: Message, quirks: Quirks) -> dict[str, Any]:
    told = _named(message, "assistant")
    thoughts = [part for part in message.parts if isinstance(part, Reasoning)]
    for thought in thoughts:
        told.update(google_state(thought))
    said = tuple(part for part in message.parts if isinstance(part, Text | Refusal))
    calls = [p for p in message.parts if isinstance(p, ToolCall) and p.kind != "server"]
    told["content"] = _content(said, quirks) or None
    refusals = [part.text for part in said if isinstance(part, Refusal)]
    if refusals and len(refusals) == len(said):
        told.update(content=None, refusal="".join(refusals))
    for part in message.parts:
        if isinstance(part, Audio):
            told["audio"] = {"id": part.id} if part.id else encode_audio(part)
    if calls:
        told["tool_calls"] = [encode_call(c, call_id=_call_id(c.id, quirks)) for c in calls]
    if told["content"] is None and not refusals:
        told["content"] = quirks.empty_content if calls else ""
    _give_back(told, [part for part in thoughts if not google_state(part)], quirks)
    return told


def _give_back(told: dict[str, Any], thoughts: list[Reasoning], quirks: Quirks) -> None:
    """Earlier reasoning in the field that the server reads; opaque state only at its origin."""
    field = quirks.reasoning_field
    if field is None or not thoughts:
        return
    if field == "reasoning_details":
        own = [part for part in thoughts if is_plain(part) or not _foreign(part)]
        if own:
            told[field] = [entry_of(part, place) for place, part in enumerate(own)]
        return
    text = _text(thoughts)
    if not text:
        return
    if field == "thinking":
        part = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
        told["content"] = [part, *_as_list(told["content"])]
    else:
        told[field] = text


def _text(thoughts: list[Reasoning]) -> str:
    return "".join(part.text or "" for part in thoughts)


def _as_list(content: Any) -> list[Any]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


def _call_id(name: str, quirks: Quirks) -> str:
    """An id that the server takes: the same for a call and its result, whoever made it."""
    if quirks.call_ids == "max40" and len(name) > 40:
        return "call_" + hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
    if quirks.call_ids == "alnum9" and not re.fullmatch("[A-Za-z0-9]{9}", name):
        return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:9]
    return name
