"""Requests towards a server of the dialect."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from moim.dialects import json_
from moim.dialects.openai_chat.fields import NAME, kept, mapping
from moim.dialects.openai_chat.messages_encode import encode_messages, messages_lost
from moim.dialects.quirks import Quirks
from moim.errors import RequestError, UnsupportedError
from moim.types import (
    HTTPRequest,
    JSONFormat,
    Request,
    Tool,
    ToolChoice,
    Warned,
)

__all__ = ["encode_request", "lost"]

PATH = "/chat/completions"

# Neutral fields that are one wire field of the same shape.
_SAME = (
    "temperature",
    "top_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "n",
    "logprobs",
    "top_logprobs",
    "parallel_tool_calls",
    "service_tier",
    "metadata",
)
_SAMPLING = ("top_k", "min_p", "repeat_penalty")

# Leaving these out would change what the answer means, so a server that lacks them is an error.
_ESSENTIAL = frozenset({"n", "tools", "tool_choice", "response_format"})


def encode_request(request: Request, quirks: Quirks) -> HTTPRequest:
    """The call as this server wants it; see `OpenAIChat.encode_request`."""
    return HTTPRequest(
        path=PATH,
        body=json_.dumps(_body(request, quirks)),
        headers={
            "content-type": "application/json",
            "accept": "text/event-stream" if request.stream else "application/json",
        },
        stream=request.stream,
    )


def _body(request: Request, quirks: Quirks) -> dict[str, Any]:
    body: dict[str, Any] = dict(kept(request.native))
    further_tools = body.pop("tools", None)
    streaming = mapping(body.pop("stream_options", None))
    body["model"] = request.model
    body["messages"] = list(encode_messages(request, quirks))
    for name, value in _parameters(request, quirks):
        body[name] = value
    tools = [_tool(tool) for tool in _allowed(request, quirks, "tools", request.tools)]
    if isinstance(further_tools, list):
        tools += further_tools
    if tools:
        body["tools"] = tools
    if request.stream:
        body["stream"] = True
        usage = {"include_usage": True} if quirks.stream_usage else {}
        if streaming or usage:
            body["stream_options"] = {**streaming, **usage}
    body.update(request.extra.get(NAME, {}))
    return body


def _allowed(request: Request, quirks: Quirks, name: str, value: Any) -> Any:
    """The value of a field, or nothing where the server does not take it.

    Raises:
        UnsupportedError: the answer would not mean the same without it.
    """
    if name not in quirks.refuses or value in (None, (), False):
        return value
    if name in _ESSENTIAL and not _harmless(name, value):
        raise UnsupportedError(
            f"The server of {request.model} does not take `{name}`.",
            hint="Leave it out, or use another model.",
        )
    return ()


def _harmless(name: str, value: Any) -> bool:
    if name == "n":
        return bool(value == 1)
    return isinstance(value, ToolChoice) and value.mode != "required" and value.name is None


def _parameters(request: Request, quirks: Quirks) -> Iterator[tuple[str, Any]]:
    for name, wire in _wire_names(quirks):
        value = _allowed(request, quirks, name, getattr(request, name))
        if value in (None, ()):
            continue
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"`{name}` is {value}.", hint="It must be a finite number.")
        yield wire, _SHAPES[name](value) if name in _SHAPES else value
    thinking = request.thinking
    if thinking is None or "thinking" in quirks.refuses:
        return
    if thinking.effort is not None and quirks.thinking == "reasoning_effort":
        yield "reasoning_effort", thinking.effort
    elif thinking.effort is not None and quirks.thinking == "chat_template_kwargs":
        before = mapping(kept(request.native).get("chat_template_kwargs"))
        effort = {
            "enable_thinking": thinking.effort != "none",
            "reasoning_effort": thinking.effort,
        }
        yield "chat_template_kwargs", {**before, **effort}
    if thinking.budget is not None and quirks.budget_field:
        yield quirks.budget_field, thinking.budget


def _wire_names(quirks: Quirks) -> Iterator[tuple[str, str]]:
    yield "max_tokens", quirks.max_tokens_field
    yield "user", quirks.user_field
    for name in ("stop", "tool_choice", "response_format", *_SAME):
        yield name, name
    yield from ((name, quirks.sampling[name]) for name in _SAMPLING if name in quirks.sampling)


def _choice(choice: ToolChoice) -> Any:
    if choice.name is not None:
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _format(wanted: JSONFormat) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    told: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.description is not None:
        told["description"] = wanted.description
    if wanted.strict is not None:
        told["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": told}


_SHAPES: dict[str, Callable[[Any], Any]] = {
    "stop": list,
    "tool_choice": _choice,
    "response_format": _format,
    "metadata": dict,
}


def _tool(tool: Tool) -> dict[str, Any]:
    more = dict(kept(tool.native))
    function: dict[str, Any] = {**mapping(more.pop("function", None)), "name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {**more, "type": "function", "function": function}


def lost(request: Request, quirks: Quirks) -> tuple[Warned, ...]:
    """What `encode_request` leaves out of the call."""
    dropped = [
        name
        for name in (*_SAME, "stop", "user", "tools", "tool_choice", "response_format")
        if name in quirks.refuses and getattr(request, name) not in (None, (), False)
    ]
    dropped += [
        name
        for name in _SAMPLING
        if getattr(request, name) is not None
        and (name not in quirks.sampling or name in quirks.refuses)
    ]
    if "max_tokens" in quirks.refuses and request.max_tokens is not None:
        dropped.append("max_tokens")
    dropped += _thinking_lost(request, quirks)
    return (
        *(
            Warned("param_dropped", f"{request.model}'s server does not take `{name}`; left out.")
            for name in dropped
        ),
        *messages_lost(request, quirks),
    )


def _thinking_lost(request: Request, quirks: Quirks) -> list[str]:
    thinking = request.thinking
    if thinking is None:
        return []
    refused = "thinking" in quirks.refuses
    told = {
        "thinking.effort": thinking.effort is not None and (refused or quirks.thinking is None),
        "thinking.budget": thinking.budget is not None and (refused or not quirks.budget_field),
        "thinking.show": thinking.show is not None,
    }
    return [name for name, gone in told.items() if gone]
