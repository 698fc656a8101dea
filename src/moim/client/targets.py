"""Where a model's name leads: a provider's row, any compatible URL, or this machine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from moim.client.options import LocalOptions, make_request, make_timeouts
from moim.config import Settings
from moim.dialects import registry
from moim.errors import AuthenticationError, MoimError, RequestError, UnknownModel
from moim.flow import Call
from moim.providers import (
    Provider,
    compatible,
    find,
    find_key,
    key_headers,
    nearest,
    resolve_headers,
    split_name,
    table,
)
from moim.providers.registry import checked_base
from moim.transport.protocol import Endpoint, Timeouts, Transport
from moim.types import Message

__all__ = ["Remote", "Target", "default_timeouts", "remote_target", "unknown"]


class Target(Protocol):
    """What a `Model` calls."""

    @property
    def name(self) -> str:
        """The full name, `provider/model`."""
        ...

    def call(self, messages: tuple[Message, ...], options: Mapping[str, Any]) -> Call:
        """The call that these messages make.

        Raises:
            RequestError: an option is wrong or unknown to the target.
        """
        ...


def default_timeouts(settings: Settings) -> Timeouts:
    """The timeouts that the settings give; 0 there means none."""
    return Timeouts(
        connect=settings.connect_timeout or None,
        first=settings.first_timeout or None,
        between=settings.between_timeout or None,
        total=settings.total_timeout or None,
    )


class Remote:
    """A model behind an HTTP API."""

    def __init__(
        self,
        row: Provider,
        model: str,
        settings: Settings,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: Transport | None = None,
    ) -> None:
        self.row = row
        self.model = model
        self._key = key
        self._headers = {**settings.headers, **row.headers, **(headers or {})}
        self._timeouts = default_timeouts(settings)
        self._transport = transport
        self._dialect = registry.find(row.dialect)

    @property
    def name(self) -> str:
        return f"{self.row.name}/{self.model}"

    def endpoint(self) -> Endpoint:
        """Address and credentials, read now."""
        key = self._key if self._key is not None else find_key(self.row)
        headers = {**resolve_headers(self._headers), **key_headers(self.row, key)}
        return Endpoint(base=self.row.base, headers=headers, name=self.row.name)

    def call(self, messages: tuple[Message, ...], options: Mapping[str, Any]) -> Call:
        if local := LocalOptions & options.keys():
            raise RequestError(
                f"The option {min(local)} is for local models; {self.name} is not one."
            )
        return Call(
            provider=self.row.name,
            request=make_request(self.model, self.row.dialect, messages, options),
            dialect=self._dialect,
            quirks=self.row.quirks,
            endpoint=self.endpoint,
            transport=self._transport or _http(),
            timeouts=make_timeouts(options, self._timeouts),
            explain=self._explain,
        )

    def _explain(self, error: MoimError) -> None:
        if isinstance(error, AuthenticationError):
            read = not self._key and self.row.key_env
            where = f" in {' or '.join(self.row.key_env)}" if read else ""
            error.hint = f"Check the API key{where}, or pass another one as key=…"


def _http() -> Transport:
    from moim.transport import http

    return http()


def remote_target(
    name: str,
    settings: Settings,
    *,
    base: str | None,
    key: str | None,
    headers: Mapping[str, str] | None,
    transport: Transport | None,
) -> Remote | None:
    """The remote model of that name; None where it names no provider and no `base` is given.

    With `base`, the row's own key variables are read only if `base` is on the row's host: a key
    never goes to a host that is not its provider's unless the caller passes it.

    Raises:
        ConfigError: `base` is no URL.
    """
    prefix, rest = split_name(name)
    if prefix in table(settings) and not rest:
        raise UnknownModel(
            f"{name!r} names the provider {prefix} and no model.",
            hint=f"Add the model: {prefix}/NAME.",
        )
    found = find(name, settings)
    if found is not None and found[0].base:
        row, model = found
        if base is not None:
            row = _moved(row, checked_base(base))
    elif base is not None:
        row, model = compatible(base), name
    else:
        return None
    return Remote(row, model, settings, key=key, headers=headers, transport=transport)


def _moved(row: Provider, base: str) -> Provider:
    same = urlsplit(base)[:2] == urlsplit(row.base)[:2]
    return msgspec.structs.replace(row, base=base, key_env=row.key_env if same else ())


def unknown(name: str, settings: Settings, local_names: list[str]) -> UnknownModel:
    """The error for a name that leads nowhere, with what is nearest to it."""
    prefix, rest = split_name(name)
    near = difflib.get_close_matches(name, local_names, n=3, cutoff=0.5)
    if rest and prefix not in table(settings):
        near += [f"{row}/{rest}" for row in nearest(prefix, settings)]
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    rows = ", ".join(f"{row}/" for row in table(settings) if row != "local")
    if name in table(settings):
        hint = f"{name} is a provider: add one of its models, {name}/NAME. "
    return UnknownModel(
        f"There is no model {name!r}.",
        hint=f"{hint}A name is a local model (`moim list`), pypi:PACKAGE, a path to a .gguf file, "
        f"or a provider's model ({rows}); any OpenAI-compatible server works with base=URL.",
    )
