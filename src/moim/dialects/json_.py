"""JSON as it is met on the wire: what the fast parser refuses and a server may still send.

msgspec does the work. Only where it refuses does the standard library's parser look again, because
lone surrogate escapes and stray bytes do occur in replies and are no reason to lose one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any

import msgspec

from moim.errors import DecodeError, RequestError

__all__ = ["dumps", "dumps_ascii", "loads", "mend", "quote"]

_BOM = b"\xef\xbb\xbf"
_decode = msgspec.json.Decoder().decode


def loads(data: bytes, *, fragment: bool = False) -> Any:
    """The value of a JSON text. Of a repeated key the last value stays.

    Args:
        data: UTF-8; bytes that are not are replaced by U+FFFD.
        fragment: keep half of a surrogate pair at the edge of a string, because the other half
            comes in the next fragment. Other lone surrogates become U+FFFD.

    Raises:
        DecodeError: it is no JSON, holds NaN, an infinity or a number out of range, or is nested
            too deep.
    """
    try:
        return _decode(data)
    except RecursionError:
        raise DecodeError("The JSON is nested too deep.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _loads_again(data, fragment)


def _loads_again(data: bytes, fragment: bool) -> Any:
    try:
        value = json.loads(
            data.removeprefix(_BOM).decode("utf-8", "replace"),
            parse_constant=_refuse,
            parse_float=_finite,
        )
        return _mend_all(value, fragment)
    except RecursionError:
        raise DecodeError("The JSON is nested too deep.") from None
    except ValueError as error:  # JSONDecodeError, and integers of more than 4300 digits
        position = getattr(error, "pos", None)
        where = "" if position is None else f" (character {position} of {len(data)})"
        raise DecodeError(f"This is not JSON{where}.") from None


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def mend(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _mend_fragment(text: str) -> str:
    start = text[:1] if "\udc00" <= text[:1] <= "\udfff" else ""
    rest = text[len(start) :]
    end = rest[-1:] if "\ud800" <= rest[-1:] <= "\udbff" else ""
    return start + mend(rest[: len(rest) - len(end)]) + end


def _mend_all(value: Any, fragment: bool) -> Any:
    if isinstance(value, str):
        return _mend_fragment(value) if fragment else mend(value)
    if isinstance(value, list):
        return [_mend_all(item, fragment) for item in value]
    if isinstance(value, Mapping):
        return {mend(str(key)): _mend_all(item, fragment) for key, item in value.items()}
    return value


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON. Lone surrogates become U+FFFD.

    Raises:
        RequestError: it holds NaN, an infinity, or something that JSON has no form for.
    """
    try:
        data = msgspec.json.encode(value, enc_hook=_plain)
    except UnicodeEncodeError:
        data = msgspec.json.encode(_mend_all(value, fragment=False), enc_hook=_plain)
    except OverflowError:  # an integer of more than 64 bits
        return _dumps_again(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"This cannot be written as JSON: {error}.") from None
    # msgspec writes NaN as null. Looking for it costs a walk, so only where a null was written.
    if b"null" in data and _has_nan(value):
        raise RequestError("JSON has no form for NaN and infinity.")
    return data


def _dumps_again(value: Any) -> bytes:
    try:
        text = json.dumps(
            _mend_all(value, fragment=False),
            ensure_ascii=False,
            separators=(",", ":"),
            allow_nan=False,
            default=_plain,
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise RequestError(f"This cannot be written as JSON: {error}.") from None
    return text.encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a {type(value).__name__} has no JSON form")


def _has_nan(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(_has_nan(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_has_nan(item) for item in value)
    return False


def dumps_ascii(value: Any) -> str:
    """Compact JSON with every other character escaped: no line separator can break its frame.

    Raises:
        RequestError: as for `dumps`.
    """
    data = dumps(value)
    if data.isascii():
        return data.decode("ascii")
    return json.dumps(json.loads(data), separators=(",", ":"))


def quote(text: str) -> str:
    """One string as ASCII JSON, quotation marks included."""
    return encode_basestring_ascii(text if text.isascii() else mend(text))
