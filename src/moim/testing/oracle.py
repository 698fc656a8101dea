"""A second, naive reading of recorded chat exchanges, to hold the codecs against.

It shares no code with them: the standard library's JSON parser, no attention to speed, no memory
of bytes. What it does not look at is not checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["Reading", "read_conversation", "read_error", "read_reply", "read_stream"]


class Reading(NamedTuple):
    """What a reply says; one of the two is set.

    Attributes:
        error: the name of the class of error that it is.
        answers: by choice: text, reasoning, refusal, calls (name and arguments), finish reason.
        usage: input and output tokens, where any were told.
    """

    error: str | None = None
    answers: dict[int, Answer] | None = None
    usage: tuple[int | None, int | None] | None = None


class Answer:
    """One choice, added up."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.refusal = ""
        self.calls: list[list[str]] = []  # name, arguments, id, index
        self.finish: str | None = None

    def comparable(self) -> tuple[object, ...]:
        """What a decoded reply must equal."""
        calls = [(name, arguments) for name, arguments, *_ in self.calls]
        finish = _FINISH.get(self.finish, "other") if self.finish else None
        if calls and finish in (None, "stop"):
            finish = "tool_calls"
        return self.text, self.reasoning, self.refusal, calls, finish


_FINISH = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_STATUS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    402: "QuotaError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    413: "RequestTooLargeError",
    422: "BadRequestError",
    429: "RateLimitError",
    500: "ServerError",
    502: "ServerError",
    503: "OverloadedError",
    504: "UpstreamTimeout",
}


def read_error(status: int | None, body: str) -> str:
    """The class that an error row must give, from its status, code and words."""
    try:
        found = json.loads(body)
    except ValueError:
        found = {}
    error = found.get("error") if isinstance(found, dict) else None
    error = error if isinstance(error, dict) else {}
    words = str(error.get("message", "")).lower()
    codes = f"{error.get('code')} {error.get('type')}"
    status = status or error.get("status_code") or 0
    if "context" in words and re.search("length|size|window", words):
        return "ContextLengthError"
    if "insufficient_quota" in codes:
        return "QuotaError"
    if "content_filter" in codes:
        return "ContentFilterError"
    if status in _STATUS:
        return _STATUS[status]
    return "BadRequestError" if "invalid_request_error" in codes else "ServerError"


def read_reply(status: int | None, body: str) -> Reading:
    """A whole reply."""
    if status is not None and status >= 400:
        return Reading(read_error(status, body))
    try:
        found = json.loads(body)
    except ValueError:
        return Reading("DecodeError")
    if isinstance(found, dict) and found.get("error"):
        return Reading(read_error(status if status and status >= 400 else None, body))
    if not isinstance(found, dict) or not found.get("choices"):
        return Reading("DecodeError")
    answers: dict[int, Answer] = {}
    for number, choice in enumerate(found["choices"]):
        index = choice.get("index", number) if len(found["choices"]) > 1 else number
        message = choice.get("message") or {}
        for old in choice.get("messages", []):
            message = old
        answer = answers.setdefault(index, Answer())
        _add(answer, message)
        answer.finish = choice.get("finish_reason")
    return Reading(None, answers, _usage([found]))


def read_stream(body: str) -> Reading:
    """A streamed reply, which may be cut anywhere."""
    answers: dict[int, Answer] = {}
    chunks: list[dict[str, Any]] = []
    done = False
    for event, data in _events(body):
        if data.strip() == "[DONE]":
            done = True
            break
        try:
            chunk = json.loads(data)
        except ValueError:
            continue  # only the last event can be cut
        if event == "error" or chunk.get("error"):
            return Reading(read_error(None, data))
        chunks.append(chunk)
        for number, choice in enumerate(chunk.get("choices") or []):
            answer = answers.setdefault(choice.get("index", number), Answer())
            _add(answer, choice.get("delta") or {})
            answer.finish = choice.get("finish_reason") or answer.finish
    ended = bool(answers) and all(answer.finish for answer in answers.values())
    if not done and not ended:
        return Reading("StreamBroken")
    return Reading(None, answers, _usage(chunks))


def _events(body: str) -> Iterable[tuple[str, str]]:
    event, data = "", []
    for line in [*re.split("\r\n|\n|\r", body), ""]:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith("event:"):
            event = line[6:].strip()
        elif not line:
            if data:
                yield event, "\n".join(data)
            event, data = "", []


def _add(answer: Answer, delta: dict[str, Any]) -> None:
    content = delta.get("content")
    if isinstance(content, dict):
        content = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for piece in content if isinstance(content, list) else [content]:
        if isinstance(piece, str):
            answer.text += piece
        elif piece and piece["type"] == "thinking":
            answer.reasoning += "".join(one["text"] for one in piece["thinking"])
        elif piece:
            answer.text += piece["text"]
    details = "".join(
        one.get("text") or one.get("summary") or "" for one in delta.get("reasoning_details") or []
    )
    answer.reasoning += details or delta.get("reasoning_content") or delta.get("reasoning") or ""
    answer.refusal += delta.get("refusal") or ""
    if any((delta.get("function_call") or {}).values()):
        _add_call(answer, {"function": delta["function_call"], "id": "only"})
    for call in delta.get("tool_calls") or []:
        _add_call(answer, call)


def _add_call(answer: Answer, call: dict[str, Any]) -> None:
    body = call.get("custom" if call.get("type") == "custom" else "function") or {}
    arguments = body.get("arguments") or body.get("input") or ""
    name, key = body.get("name") or "", call.get("id") or ""
    number = str(call.get("index", ""))
    for known in reversed(answer.calls):
        same = known[2] == key if key else known[3] == number and not (name and known[0])
        if same:
            known[1] += arguments
            known[0] = known[0] or name
            return
    answer.calls.append([name, arguments, key, number])


def _usage(chunks: list[dict[str, Any]]) -> tuple[int | None, int | None] | None:
    last = None
    for chunk in chunks:
        last = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or last
    if last is None:
        return None
    told, output = last.get("prompt_tokens"), last.get("completion_tokens")
    reasoning = (last.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    if output is not None and last.get("total_tokens") == told + output + reasoning:
        output += reasoning
    return told, output


def read_conversation(body: str) -> list[tuple[str, str]]:
    """Role and text of each message of a request."""
    said = []
    for message in json.loads(body)["messages"]:
        content = message.get("content")
        pieces = content if isinstance(content, list) else [content]
        texts = [piece if isinstance(piece, str) else (piece or {}).get("text") for piece in pieces]
        role = {"function": "tool"}.get(message["role"], message["role"])
        said.append((role, "".join(text or "" for text in texts)))
    return said
