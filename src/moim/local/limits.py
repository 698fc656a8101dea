"""What a local model may be asked for, checked before the engine, which takes nearly anything.

llama.cpp answers a temperature of 999 with noise, cuts numbers to 32 bits without a word, and
turns a deep JSON Schema into a grammar that takes minutes: a range is an error here instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from moim.errors import RequestError, UnsupportedError
from moim.types import Audio, File, Image, Request, ToolResult, Video, Warned

__all__ = ["check_request", "is_allowed", "listed", "without_foreign"]

_INT32 = 2**31 - 1


class _Range(Struct, frozen=True):
    kind: type
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.10g} to {self.high:.10g}"

    def holds(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        if self.kind is int and not isinstance(value, int):
            return False
        return math.isfinite(value) and self.low <= value <= self.high


_RANGES = {
    "max_tokens": _Range(int, 1, _INT32),
    "temperature": _Range(float, 0, 5),
    "top_p": _Range(float, 0, 1),
    "top_k": _Range(int, 0, 1_000_000),
    "min_p": _Range(float, 0, 1),
    "seed": _Range(int, -1, 2**32 - 2),  # the engine keeps 2**32 - 1 for "at random", like -1
    "frequency_penalty": _Range(float, -2, 2),
    "presence_penalty": _Range(float, -2, 2),
    "repeat_penalty": _Range(float, 0.1, 10),
    "top_logprobs": _Range(int, 0, 20),
}
# What llama.cpp takes beyond the neutral fields, by its own names; everything else is refused, for
# some of its parameters can crash it.
_EXTRA_RANGES = {
    "dry_allowed_length": _Range(int, 1, 1000),
    "dry_base": _Range(float, 1, 10),
    "dry_multiplier": _Range(float, 0, 10),
    "dry_penalty_last_n": _Range(int, -1, 131_072),
    "dynatemp_exponent": _Range(float, 0, 10),
    "dynatemp_range": _Range(float, 0, 5),
    "min_keep": _Range(int, 0, 1000),
    "mirostat": _Range(int, 0, 2),
    "mirostat_eta": _Range(float, 0, 1),
    "mirostat_tau": _Range(float, 0, 20),
    "repeat_last_n": _Range(int, -1, 131_072),
    "top_n_sigma": _Range(float, -1, 100),
    "typical_p": _Range(float, 0, 1),
    "xtc_probability": _Range(float, 0, 1),
    "xtc_threshold": _Range(float, 0, 1),
}
_LOAD_RANGES = {"num_ctx": _Range(int, 1, _INT32), "threads": _Range(int, 1, _INT32)}
_EXTRA_KINDS: dict[str, type | tuple[type, ...]] = {
    "cache_prompt": bool,
    "chat_template_kwargs": dict,
    "dry_sequence_breakers": (list, tuple),
    "grammar": str,
    "ignore_eos": bool,
    "logit_bias": (list, tuple, dict),
    "samplers": (list, tuple),
    "stream_options": dict,
    "timings_per_token": bool,
}
_DIALECT = "openai_chat"
_MAX_EXTRA_BYTES = 65_536
_MAX_STOPS = 16
_MAX_NAMED = 8
_MAX_STOP_LENGTH = 256
_MAX_SCHEMA_BYTES = 65_536
_MAX_SCHEMA_DEPTH = 32
_MAX_REPEATS = 2000  # each repetition is a rule of the grammar; nested ones multiply
_REPEATS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_MEDIA = {Image: "pictures", Audio: "sound", Video: "video", File: "files"}


def check_request(request: Request, *, slots: int = 1) -> None:
    """Refuse what the engine could not do well.

    Args:
        slots: of the runner: so many answers (`n`) can be made at once.

    Raises:
        RequestError: a value is out of its range; the message gives the range.
        UnsupportedError: the request holds pictures, sound or files.
    """
    if not request.messages:
        raise RequestError("The request has no messages.", hint="Give at least one.")
    ranges = {**_RANGES, "n": _Range(int, 1, slots)}
    for name, allowed in ranges.items():
        _check_range(name, getattr(request, name), allowed)
    for name, value in request.extra.get(_DIALECT, {}).items():
        _check_extra(name, value, ranges)
    _check_stops(request.stop)
    _check_media(request)
    if request.response_format is not None and request.response_format.schema is not None:
        _check_schema(request.response_format.schema)
    for tool in request.tools:
        _check_schema(tool.parameters)  # it becomes a grammar too


def without_foreign(request: Request) -> tuple[Request, tuple[Warned, ...]]:
    """Without the fields of another server that a client's request happened to hold.

    Returns:
        The request, and a warning `param_dropped` that names them; none if there were none.
    """
    native = request.native.get(_DIALECT, {})
    foreign = sorted(name for name, value in native.items() if not _is_known(name, value))
    if not foreign:
        return request, ()
    kept = {name: value for name, value in native.items() if name not in foreign}
    return (
        msgspec.structs.replace(request, native={**request.native, _DIALECT: kept}),
        (Warned("param_dropped", f"The local engine does not take {listed(foreign)}."),),
    )


def is_allowed(name: str, value: object) -> bool:
    """Whether an option may have that value; False for names other than `stop` and numbers."""
    if name == "stop":
        return isinstance(value, list) and len(value) <= _MAX_STOPS and all(map(_is_stop, value))
    allowed = {**_RANGES, **_EXTRA_RANGES, **_LOAD_RANGES}.get(name)
    return allowed is not None and allowed.holds(value)


def listed(names: Sequence[str]) -> str:
    """Names that others have made up, for a message: quoted, and not all of very many."""
    few = ", ".join(_shown(name) for name in names[:_MAX_NAMED])
    return few if len(names) <= _MAX_NAMED else f"{few} and {len(names) - _MAX_NAMED} more"


def _is_known(name: str, value: object) -> bool:
    try:
        _check_extra(name, value, {})
    except RequestError:
        return False
    return True


def _check_range(name: str, value: object, allowed: _Range) -> None:
    if value is not None and not allowed.holds(value):
        what = "a whole number from " if allowed.kind is int else ""
        raise RequestError(f"{name} is {_shown(value)}.", hint=f"Give {what}{allowed}.")


def _check_extra(name: str, value: object, neutral: Mapping[str, _Range]) -> None:
    ranges = {**neutral, **_EXTRA_RANGES}
    if name in ranges:
        return _check_range(name, value, ranges[name])
    kind = _EXTRA_KINDS.get(name)
    if kind is None:
        raise UnsupportedError(
            f"The local engine does not take the extra parameter {_shown(name)}.",
            hint=f"It takes {', '.join(sorted({*ranges, *_EXTRA_KINDS}))}.",
        )
    if not isinstance(value, kind):
        raise RequestError(
            f"{name} is a {type(value).__name__}.", hint="Give what llama.cpp takes."
        )
    if isinstance(value, str) and len(value) > _MAX_EXTRA_BYTES:
        raise RequestError(f"{name} is longer than {_MAX_EXTRA_BYTES} characters.")
    return None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _check_stops(stops: Sequence[str]) -> None:
    if len(stops) > _MAX_STOPS:
        raise RequestError(f"stop has {len(stops)} texts.", hint=f"Give at most {_MAX_STOPS}.")
    for stop in stops:
        if not _is_stop(stop):
            raise RequestError(
                f"A stop text is {_shown(stop)}.", hint=f"Give 1 to {_MAX_STOP_LENGTH} characters."
            )


def _is_stop(value: object) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= _MAX_STOP_LENGTH


def _check_media(request: Request) -> None:
    for message in request.messages:
        for part in message.parts:
            for piece in (part, *(part.content if isinstance(part, ToolResult) else ())):
                if type(piece) in _MEDIA:
                    raise UnsupportedError(
                        f"Local models cannot read {_MEDIA[type(piece)]} yet.",
                        hint="Send text only, or use a provider's model.",
                    )


def _check_schema(schema: Mapping[str, Any]) -> None:
    # Depth first: the encoder would recurse as deep as the schema does.
    _check_depth(schema)
    try:
        size = len(msgspec.json.encode(schema))
    except (TypeError, ValueError) as error:
        raise RequestError(f"The JSON Schema cannot be written as JSON: {error}.") from None
    if size > _MAX_SCHEMA_BYTES:
        raise RequestError(
            f"The JSON Schema has {size} bytes.", hint=f"Give at most {_MAX_SCHEMA_BYTES}."
        )


def _check_depth(schema: object) -> None:
    level: list[Any] = [schema]
    for _ in range(_MAX_SCHEMA_DEPTH):
        inner: list[Any] = []
        for item in level:
            inner += _inside(item)
        if not inner:
            return
        level = inner
        if len(level) > _MAX_SCHEMA_BYTES:
            raise RequestError("The JSON Schema is too large.", hint="Use a smaller one.")
    raise RequestError(
        f"The JSON Schema is more than {_MAX_SCHEMA_DEPTH} levels deep.",
        hint="Flatten it.",
    )


def _inside(item: object) -> list[Any]:
    if isinstance(item, Mapping):
        _check_repeats(item)
        return list(item.values())
    return list(item) if isinstance(item, list | tuple) else []


def _check_repeats(schema: Mapping[str, Any]) -> None:
    for name in _REPEATS:
        value = schema.get(name)
        if isinstance(value, int) and not 0 <= value <= _MAX_REPEATS:
            raise RequestError(
                f"{name} in the JSON Schema is {_shown(value)}.", hint=f"Give 0 to {_MAX_REPEATS}."
            )
