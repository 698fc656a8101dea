"""Dialects by name. A codec is imported when it is first asked for."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from moim.dialects.base import Dialect
from moim.errors import ConfigError

__all__ = ["find", "names"]

_MODULES = {"openai_chat": "moim.dialects.openai_chat"}


def names() -> tuple[str, ...]:
    """The names that `find` takes."""
    return tuple(_MODULES)


def find(name: str) -> Dialect:
    """The dialect of this name.

    Raises:
        ConfigError: there is none; the hint lists those there are.
    """
    module = _MODULES.get(name)
    if module is None:
        raise ConfigError(
            f"moim speaks no dialect named {name!r}.", hint=f"It speaks {', '.join(_MODULES)}."
        )
    return cast(Dialect, import_module(module).DIALECT)
