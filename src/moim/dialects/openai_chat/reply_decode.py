"""Whole replies: read as a stream of one chunk."""

from __future__ import annotations

from moim.dialects import json_
from moim.dialects.openai_chat.assemble import Assembler
from moim.dialects.openai_chat.errors import decode_error, is_error
from moim.errors import DecodeError
from moim.types import Event, HTTPReply, Reply, fold

__all__ = ["decode_reply", "reply_events"]


def decode_reply(http: HTTPReply) -> Reply:
    """A whole answer.

    Raises:
        ProviderError: the status or the body is an error.
        DecodeError: the body is no chat completion.
    """
    if http.status >= 400:
        raise decode_error(http)
    return fold(reply_events(http))


def reply_events(http: HTTPReply) -> list[Event]:
    """The events of a whole reply.

    Raises:
        ProviderError: the body is an error.
        DecodeError: the body is no chat completion.
    """
    body = _load(http)
    if is_error(body):
        raise decode_error(http)
    if not isinstance(body, dict) or not isinstance(body.get("choices"), list):
        raise DecodeError("The reply is JSON but no chat completion: it has no `choices`.")
    events: list[Event] = []
    reader = Assembler(whole=True)
    reader.take(body, events)
    if not reader.answered:
        raise DecodeError("The reply holds no answer: its `choices` are empty.")
    reader.finish(events)
    return events


def _load(http: HTTPReply) -> object:
    if not http.body.strip():
        raise DecodeError("The reply is empty.")
    if http.content_type == "text/html" or http.body.lstrip()[:1] == b"<":
        raise DecodeError(
            "The service answered with a web page.", hint="Check the base URL and any proxy."
        )
    try:
        return json_.loads(http.body)
    except DecodeError as error:
        raise DecodeError(f"The reply cannot be read. {error.message}") from None
