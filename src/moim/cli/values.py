"""What is typed as options of a call, as the values that the library takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from moim.client.options import check_options, make_request
from moim.errors import ConfigError, RequestError

__all__ = ["check_option", "key_from", "parse_pair", "parse_value", "read_schema", "seconds"]

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBERS = {"num_ctx": int, "threads": int, "keep_alive": float, "timeout": float}
_SWITCHES = {"truncate": bool}


def parse_pair(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` as a name and a value.

    Raises:
        RequestError: it has no `=`, or names no option.
    """
    name, equals, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not equals or not name:
        raise RequestError(f"{text!r} is not KEY=VALUE.", hint="For example -o min_p=0.05.")
    return name, check_option(name, parse_value(value))


def parse_value(text: str) -> Any:
    """A value as it is typed: JSON where it is JSON, else the text itself.

    >>> parse_value("0.5"), parse_value("true"), parse_value("low"), parse_value('["a", "b"]')
    (0.5, True, 'low', ['a', 'b'])
    """
    try:
        return msgspec.json.decode(text.strip().encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text.strip()


def check_option(name: str, value: Any) -> Any:
    """The value, if the library has such an option and it takes this type.

    Raises:
        RequestError: it does not.
    """
    check_options({name: value})
    if name == "keep_alive":
        return seconds(str(value))
    if name == "stop" and isinstance(value, int | float):
        value = str(value)
    kind = {**_NUMBERS, **_SWITCHES}.get(name)
    if kind is None:
        if name != "timeouts":
            make_request("", "openai_chat", (), {name: value})
        return value
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RequestError(f"The option {name}={value!r} is wrong: {error}.") from None


def seconds(text: str) -> float:
    """A length of time in seconds: `300`, `90s`, `5m`, `1h`; `-1` means for ever.

    Raises:
        RequestError: it is none.

    >>> seconds("1.5m"), seconds("-1")
    (90.0, -1.0)
    """
    number = text.strip().lower()
    unit = next((u for u in ("ms", "s", "m", "h", "d") if number.endswith(u)), "")
    try:
        return float(number.removesuffix(unit)) * _UNITS.get(unit, 1.0)
    except ValueError:
        raise RequestError(
            f"{text!r} is no length of time.", hint="Give seconds, or 90s, 5m, 1h; -1 is for ever."
        ) from None


def read_schema(path: Path) -> dict[str, Any]:
    """A JSON Schema from a file.

    Raises:
        ConfigError: the file cannot be read or holds no JSON object.
    """
    try:
        found = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"The JSON Schema {path} cannot be read: {error.strerror}.") from None
    except msgspec.DecodeError as error:
        raise ConfigError(f"The JSON Schema {path} is not valid JSON: {error}.") from None
    if not isinstance(found, dict):
        raise ConfigError(f"The JSON Schema {path} is not a JSON object.")
    return found


def key_from(variable: str | None) -> str | None:
    """The API key that a variable holds; None where no variable is named.

    Raises:
        ConfigError: the variable is not set.
    """
    if variable is None:
        return None
    if key := os.environ.get(variable, "").strip():
        return key
    raise ConfigError(f"The variable {variable} is not set.", hint="It should hold the API key.")
