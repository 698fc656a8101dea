"""Fields of a client's request that must be of one type."""

from __future__ import annotations

from typing import Any

from moim.errors import RequestError

__all__ = ["expect"]


def expect(name: str, value: Any, kind: Any, what: str) -> Any:
    """The value.

    Raises:
        RequestError: it is not of the type `kind`, which the message calls `what`.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise RequestError(f"`{name}` must be {what}, not {_shown(value)}.")
    return value


def _shown(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "null")
