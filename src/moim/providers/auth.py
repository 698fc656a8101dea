"""API keys: looked up when a call is made, never stored, never printed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from moim.errors import ConfigError, MissingKey
from moim.providers.registry import Provider

__all__ = ["find_key", "key_headers", "resolve_headers"]

_SCHEMES: dict[str, Callable[[str], dict[str, str]]] = {
    "bearer": lambda key: {"Authorization": f"Bearer {key}"},
}


def find_key(row: Provider, environ: Mapping[str, str] | None = None) -> str | None:
    """The provider's key from the environment; None where it wants none.

    Raises:
        MissingKey: it wants one and no variable holds it.
    """
    if not row.key_env:
        return None
    environ = os.environ if environ is None else environ
    for name in row.key_env:
        if key := environ.get(name, "").strip():
            return key
    where = f" Get one at {row.key_url}." if row.key_url else ""
    raise MissingKey(
        f"No API key for {row.name}: {' or '.join(row.key_env)} is not set.",
        hint=f"Set the variable, or pass key=…{where} A local model needs no key: "
        "moim.run('smollm2').",
    )


def key_headers(row: Provider, key: str | None) -> dict[str, str]:
    """The headers that carry the key.

    Raises:
        ConfigError: the key holds a character that no header can.
    """
    if not key:
        return {}
    if not key.isascii() or not key.isprintable():
        raise ConfigError(
            f"The API key for {row.name} holds a line break or another character that no key has.",
            hint="It was probably copied with something around it.",
        )
    return _SCHEMES[row.auth](key)


def resolve_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers with `$NAME` values read from the environment.

    Raises:
        ConfigError: a variable is not set.
    """
    return {name: _resolved(name, value) for name, value in headers.items()}


def _resolved(name: str, value: str) -> str:
    if not value.startswith("$"):
        return value
    found = os.environ.get(value[1:])
    if found is None:
        raise ConfigError(f"The header {name} needs the variable {value[1:]}, which is not set.")
    return found
