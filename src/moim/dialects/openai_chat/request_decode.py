"""Requests from a client of the dialect."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from moim.dialects import json_
from moim.dialects.openai_chat.expect import expect
from moim.dialects.openai_chat.fields import (
    kept,
    mapping,
    native_of,
)
from moim.dialects.openai_chat.messages_decode import decode_messages
from moim.errors import DecodeError, RequestError
from moim.types import (
    HTTPRequest,
    JSONFormat,
    Request,
    Thinking,
    Tool,
    ToolChoice,
)

__all__ = ["decode_request", "wants_usage"]


def decode_request(http: HTTPRequest) -> Request:
    """A client's call; see `OpenAIChat.decode_request`."""
    try:
        body = json_.loads(http.body)
    except DecodeError as error:
        raise RequestError(f"The request's body is not JSON. {error.message}") from None
    if not isinstance(body, dict):
        raise RequestError("The request's body is not a JSON object.")
    told: dict[str, Any] = {"model": _model(body, http.path), "messages": decode_messages(body)}
    native: dict[str, Any] = {}
    for name, value in body.items():
        if name in ("model", "messages") or value is None:
            continue
        reader = _READERS.get(name)
        if reader is None:
            native[name] = value
        else:
            told.update(reader(name, value, body))
    native.update(told.pop("native", {}))
    return Request(native=native_of(native), **told)


def wants_usage(request: Request) -> bool:
    """Whether the client of a decoded request wants the token count in the stream."""
    options = mapping(kept(request.native).get("stream_options"))
    return bool(options.get("include_usage"))


def _model(body: Mapping[str, Any], path: str) -> str:
    """The model; Azure's clients name it in the path. Empty where the client leaves it open."""
    model = body.get("model")
    if model is None:
        deployment = re.search(r"/deployments/([^/?]+)", path)
        return unquote(deployment[1]) if deployment else ""
    return str(expect("model", model, str, "a string"))


_Told = dict[str, Any]
_Reader = Callable[[str, Any, Mapping[str, Any]], _Told]


def _number(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    return {name: float(expect(name, value, int | float, "a number"))}


def _integer(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return {name: expect(name, value, int, "a whole number")}


def _boolean(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    return {name: expect(name, value, bool, "true or false")}


def _string(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    return {name: expect(name, value, str, "a string")}


def _max_tokens(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    """Both names are read; the newer one wins."""
    if name == "max_tokens" and body.get("max_completion_tokens") is not None:
        return {}
    return {"max_tokens": _integer(name, value, body)[name]}


def _user(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    if name == "user" and body.get("safety_identifier") is not None:
        return {"native": {"user": value}}
    return {"user": expect(name, value, str, "a string")}


def _stop(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    items = [value] if isinstance(value, str) else expect(name, value, list, "a string or a list")
    return {"stop": tuple(expect(name, item, str, "made of strings") for item in items)}


def _metadata(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    return {"metadata": expect(name, value, dict, "an object")}


def _effort(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    return {"thinking": Thinking(effort=expect(name, value, str, "a string"))}


def _response_format(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    told = expect(name, value, dict, "an object")
    kind = told.get("type")
    if kind == "text":
        return {}
    if kind == "json_object" and "schema" not in told:
        return {"response_format": JSONFormat()}
    if kind != "json_schema":
        return {"native": {name: value}}
    schema = mapping(told.get("json_schema"))
    if not isinstance(schema.get("schema"), dict):
        raise RequestError("`response_format.json_schema.schema` must be an object.")
    strict, description = schema.get("strict"), schema.get("description")
    return {
        "response_format": JSONFormat(
            schema=schema["schema"],
            name=str(schema.get("name") or "answer"),
            description=description if isinstance(description, str) else None,
            strict=strict if isinstance(strict, bool) else None,
        )
    }


def _tools(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    tools: list[Tool] = []
    others: list[Any] = []
    for position, item in enumerate(expect(name, value, list, "a list")):
        where = f"tools[{position}]"
        fields = expect(where, item, dict, "an object")
        if isinstance(fields.get("function"), dict):
            tools.append(_tool(where, fields, fields["function"]))
        else:
            others.append(item)
    return {"tools": tuple(tools), **({"native": {"tools": others}} if others else {})}


def _functions(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    """The form before `tools`."""
    return {
        "tools": tuple(
            _tool(f"functions[{n}]", {}, expect(f"functions[{n}]", item, dict, "an object"))
            for n, item in enumerate(expect(name, value, list, "a list"))
        )
    }


_FUNCTION = frozenset({"name", "description", "parameters", "strict"})


def _tool(where: str, item: Mapping[str, Any], function: Mapping[str, Any]) -> Tool:
    name = expect(f"{where}.function.name", function.get("name"), str, "a string")
    native = {k: v for k, v in item.items() if k not in ("type", "function") and v is not None}
    inner = {k: v for k, v in function.items() if k not in _FUNCTION and v is not None}
    strict = function.get("strict")
    told: dict[str, Any] = {
        "name": name,
        "description": str(function.get("description") or ""),
        "strict": strict if isinstance(strict, bool) else None,
        "native": native_of({**native, **({"function": inner} if inner else {})}),
    }
    if function.get("parameters") is not None:
        told["parameters"] = expect(
            f"{where}.function.parameters", function["parameters"], dict, "an object"
        )
    return Tool(**told)


def _tool_choice(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    if value in ("auto", "none", "required"):
        return {"tool_choice": ToolChoice(value)}
    if value == "any":  # Mistral's word
        return {"tool_choice": ToolChoice("required")}
    fields = expect(name, value, dict, "auto, none, required or an object")
    function = mapping(fields.get("function")) if name == "tool_choice" else fields
    named = function.get("name")
    if isinstance(named, str) and named:
        return {"tool_choice": ToolChoice("required", named)}
    return {"native": {name: value}}


def _function_call(name: str, value: Any, body: Mapping[str, Any]) -> _Told:
    return _tool_choice(name, value, body)


_READERS: dict[str, _Reader] = {
    "max_completion_tokens": _max_tokens,
    "max_tokens": _max_tokens,
    "temperature": _number,
    "top_p": _number,
    "min_p": _number,
    "repeat_penalty": _number,
    "frequency_penalty": _number,
    "presence_penalty": _number,
    "top_k": _integer,
    "seed": _integer,
    "n": _integer,
    "top_logprobs": _integer,
    "logprobs": _boolean,
    "parallel_tool_calls": _boolean,
    "stream": _boolean,
    "service_tier": _string,
    "safety_identifier": _user,
    "user": _user,
    "stop": _stop,
    "metadata": _metadata,
    "reasoning_effort": _effort,
    "response_format": _response_format,
    "tools": _tools,
    "functions": _functions,
    "tool_choice": _tool_choice,
    "function_call": _function_call,
}
