"""The table of providers: a new OpenAI-compatible host is one row and no code."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from moim.config import ProviderEntry, Settings
from moim.dialects.quirks import LLAMA_CPP, OPENAI, Quirks
from moim.errors import ConfigError
from moim.types import public_url

__all__ = ["LOCAL", "Provider", "compatible", "find", "nearest", "split_name", "table"]


class Provider(Struct, frozen=True, kw_only=True):
    """One service that serves models.

    Attributes:
        name: the prefix in `name/model`, and what messages call it.
        base: its URL, without a trailing slash; empty for the local engine.
        key_env: variables that may hold its API key, the first that is set wins; none at all
            means that it wants no key.
        key_url: where a person gets a key.
        dialect: the wire format, a name of `moim.dialects.registry`.
        auth: how the key is sent, a name of `moim.providers.auth`.
        quirks: how it differs from its dialect.
        headers: sent with every request; `$NAME` stands for an environment variable.
    """

    name: str
    base: str = ""
    key_env: tuple[str, ...] = ()
    key_url: str | None = None
    dialect: str = "openai_chat"
    auth: str = "bearer"
    quirks: Quirks = Quirks()
    headers: Mapping[str, str] = {}

    @property
    def host(self) -> str:
        """Host and port of the base URL."""
        return urlsplit(self.base).netloc.rpartition("@")[2]

    def __repr__(self) -> str:
        """Without what may be a secret: values of headers, a login in the address."""
        hidden = {"base": public_url(self.base), "headers": list(self.headers)}
        shown = (
            f"{name}={hidden.get(name, getattr(self, name))!r}" for name in self.__struct_fields__
        )
        return f"Provider({', '.join(shown)})"


LOCAL = Provider(name="local", quirks=LLAMA_CPP)
"""The engine on this machine: its base is known once a runner is up."""

_ROWS = (
    LOCAL,
    Provider(
        name="openai",
        base="https://api.openai.com/v1",
        key_env=("OPENAI_API_KEY",),
        key_url="https://platform.openai.com/api-keys",
        quirks=OPENAI,
    ),
)
_BUILT_IN = {row.name: row for row in _ROWS}


def table(settings: Settings) -> dict[str, Provider]:
    """All rows by name: moim's own, then the user's, which may replace them.

    Raises:
        ConfigError: a user's row has a base that is no http(s) URL or an unknown quirk.
    """
    if not settings.providers:
        return _BUILT_IN
    users = {name: _from_entry(name, entry) for name, entry in settings.providers.items()}
    return {**_BUILT_IN, **users}


def _from_entry(name: str, entry: ProviderEntry) -> Provider:
    if not name or any(c in name for c in "/: "):
        raise ConfigError(f"The provider name {name!r} may not hold a slash, colon or blank.")
    try:
        quirks = msgspec.convert(entry.quirks, Quirks)
    except msgspec.ValidationError as error:
        raise ConfigError(f"The quirks of provider {name!r} are wrong: {error}.") from None
    return Provider(
        name=name,
        base=checked_base(entry.base),
        key_env=(entry.key_env,) if entry.key_env else (),
        dialect=entry.dialect,
        quirks=quirks,
        headers=entry.headers,
    )


def compatible(base: str) -> Provider:
    """A row for any OpenAI-compatible server at this URL.

    Raises:
        ConfigError: it is no http(s) URL.
    """
    row = Provider(name="", base=checked_base(base))
    return msgspec.structs.replace(row, name=row.host)


def checked_base(base: str) -> str:
    """A base URL without its trailing slash.

    Raises:
        ConfigError: it is no http(s) URL, or holds a query.
    """
    try:
        url = urlsplit(base)
        bad = url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment
        _ = url.port
    except ValueError:
        bad = True
    if bad:
        raise ConfigError(
            f"{public_url(base)!r} is no base URL.",
            hint="Give one such as http://localhost:8000/v1, with nothing behind its path.",
        )
    return base.rstrip("/")


def split_name(name: str) -> tuple[str, str]:
    """`provider/model` or `provider:model` as a pair; the provider is empty where none is named.

    Only the first separator counts, so that `hf/org/model:tag` keeps its model whole.
    """
    cut = min((n for n in (name.find("/"), name.find(":")) if n > 0), default=-1)
    return ("", name) if cut < 0 else (name[:cut], name[cut + 1 :])


def find(name: str, settings: Settings) -> tuple[Provider, str] | None:
    """The row that `name`, or what it is an alias of, begins with, and the rest of that name.

    None where it names no row.
    """
    prefix, rest = split_name(settings.aliases.get(name, name))
    row = table(settings).get(prefix)
    return (row, rest) if row is not None and rest else None


def nearest(prefix: str, settings: Settings) -> list[str]:
    """Provider names that look like `prefix`, best first."""
    return difflib.get_close_matches(prefix, table(settings), n=3, cutoff=0.5)
