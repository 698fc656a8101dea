"""The options of a call: one table of names for `model`, `bind` and every verb."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

import msgspec

from moim.errors import RequestError
from moim.transport.protocol import Timeouts, check_seconds
from moim.types import JSONFormat, Message, Request, Thinking, Tool, ToolChoice

__all__ = ["LocalOptions", "Options", "check_options", "make_request", "make_timeouts"]


class Options(TypedDict, total=False):
    """Keyword options of a call; those of the request are explained at `moim.Request`.

    Attributes:
        stop: a text that ends the answer, or a list of them.
        tool_choice: `auto`, `none`, `required`, or the name of the tool to be called.
        response_format: `json`, a JSON Schema as a dict, or a `moim.JSONFormat`.
        thinking: an effort such as `low`, a budget in tokens, or a `moim.Thinking`.
        extra: parameters that one provider alone knows, sent as they are.
        num_ctx: context of a local model, in tokens.
        threads: threads of a local model's engine.
        keep_alive: seconds that a local model stays loaded after the call; below 0 for ever.
        truncate: cut a prompt that does not fit a local model's context.
        timeout: seconds for the whole call.
        timeouts: all limits of the call; `timeout` replaces their `total`.
    """

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    stop: str | list[str] | tuple[str, ...]
    seed: int
    frequency_penalty: float
    presence_penalty: float
    repeat_penalty: float
    n: int
    logprobs: bool
    top_logprobs: int
    tools: list[Tool] | tuple[Tool, ...]
    tool_choice: str | ToolChoice
    parallel_tool_calls: bool
    response_format: str | Mapping[str, Any] | JSONFormat
    thinking: str | int | Thinking
    user: str
    metadata: Mapping[str, str]
    service_tier: str
    extra: Mapping[str, Any]
    num_ctx: int
    threads: int
    keep_alive: float
    truncate: bool
    timeout: float
    timeouts: Timeouts


LocalOptions = frozenset(("num_ctx", "threads", "keep_alive", "truncate"))
"""Options that only a local model has."""

_NOT_REQUEST = LocalOptions | {"timeout", "timeouts"}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse names that are no options.

    Raises:
        RequestError: with the nearest names.
    """
    known = Options.__annotations__
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=2)
            hint = f"Did you mean {' or '.join(near)}?" if near else (
                "Parameters of one provider alone go into extra={…}."
            )  # fmt: skip
            raise RequestError(f"There is no option {name!r}.", hint=hint)


def make_request(
    model: str, dialect: str, messages: tuple[Message, ...], options: Mapping[str, Any]
) -> Request:
    """The neutral request of a call. An option that is None is as good as not given.

    Raises:
        RequestError: an option has the wrong type.
    """
    fields: dict[str, Any] = {"model": model}
    for name, value in options.items():
        if value is None or name in _NOT_REQUEST:
            continue
        if name == "extra":
            fields["extra"] = {dialect: _object(value)}
            continue
        reader = _READERS.get(name)
        fields[name] = reader(value) if reader is not None else _checked(name, value)
    # The messages are neutral values already: only what a person typed is checked.
    return Request(messages=messages, **fields)


_TYPES: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Request)}


def _checked(name: str, value: Any) -> Any:
    try:
        return msgspec.convert(value, _TYPES[name], strict=True)
    except msgspec.ValidationError as error:
        raise RequestError(f"The option {name}={_short(value)} is wrong: {error}.") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…"


def _object(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return dict(value)
    raise RequestError(f"The option extra={_short(value)} is no dict of parameters.")


def _tools(value: Any) -> tuple[Tool, ...]:
    if isinstance(value, list | tuple) and all(isinstance(tool, Tool) for tool in value):
        return tuple(value)
    raise RequestError(
        f"The option tools={_short(value)} is wrong.", hint="Give a list of moim.Tool."
    )


def _stop(value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(x, str) and x for x in texts):
        raise RequestError("The option stop takes a text or a list of texts, none of them empty.")
    return tuple(texts)


def _format(value: Any) -> JSONFormat:
    if isinstance(value, JSONFormat):
        return value
    if value == "json":
        return JSONFormat()
    if isinstance(value, Mapping):
        return JSONFormat(schema=value, name=str(value.get("title") or "answer"))
    raise RequestError(
        f"The option response_format={_short(value)} is wrong.",
        hint='Give "json", a JSON Schema as a dict, or a moim.JSONFormat.',
    )


def _thinking(value: Any) -> Thinking:
    if isinstance(value, Thinking):
        return value
    if isinstance(value, str):
        return Thinking(effort=value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Thinking(budget=value)
    raise RequestError(
        f"The option thinking={_short(value)} is wrong.",
        hint='Give an effort such as "low", a budget in tokens, or a Thinking.',
    )


def _choice(value: Any) -> ToolChoice:
    if isinstance(value, ToolChoice):
        return value
    if value in ("auto", "none", "required"):
        return ToolChoice(value)
    if isinstance(value, str):
        return ToolChoice("required", value)
    raise RequestError(
        f"The option tool_choice={_short(value)} is wrong.",
        hint='Give "auto", "none", "required" or the name of a tool.',
    )


_READERS: dict[str, Callable[[Any], Any]] = {
    "stop": _stop,
    "response_format": _format,
    "thinking": _thinking,
    "tool_choice": _choice,
    "tools": _tools,
}


def make_timeouts(options: Mapping[str, Any], defaults: Timeouts) -> Timeouts:
    """The timeouts of a call: `timeouts` whole, else the defaults with `timeout` as the total.

    Raises:
        RequestError: `timeout` is no number of seconds.
    """
    given = options.get("timeouts")
    if given is not None and not isinstance(given, Timeouts):
        raise RequestError(f"The option timeouts={_short(given)} is no Timeouts value.")
    timeouts = given or defaults
    total = options.get("timeout")
    if total is None:
        return timeouts
    check_seconds("timeout", total)
    return msgspec.structs.replace(timeouts, total=float(total))
