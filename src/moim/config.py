"""Settings: what arguments do not say comes from the environment, then from one TOML file.

The file is `$MOIM_CONFIG`, else `config.toml` in moim's folder of the user's configuration
directory (`moim doctor` prints it). Every key of the file has a variable `MOIM_<KEY>`, except the
tables; an empty variable counts as one that is not set. An unknown key is an error, so that a
typing mistake is never silently ignored.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from moim.errors import ConfigError
from moim.types import public_url

__all__ = ["ProviderEntry", "Settings", "config_path", "data_path", "read_settings", "settings"]


class ProviderEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider that the user adds, `[providers.NAME]`.

    Attributes:
        base: its base URL, for example `http://localhost:8000/v1`.
        key_env: the variable that holds its API key; None needs no key.
        dialect: the wire format it speaks.
        headers: sent with every request. A value of the form `$NAME` is read from the
            environment when a call is made.
        quirks: how it differs from the dialect, by name.
    """

    base: str
    key_env: str | None = None
    dialect: str = "openai_chat"
    headers: dict[str, str] = {}
    quirks: dict[str, Any] = {}

    def __repr__(self) -> str:
        return (
            f"ProviderEntry(base={public_url(self.base)!r}, key_env={self.key_env!r}, "
            f"dialect={self.dialect!r}, headers={list(self.headers)}, quirks={self.quirks!r})"
        )


_Seconds = Annotated[float, Meta(ge=0, le=1_000_000)]
_Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set once for all calls.

    Attributes:
        default_model: the model when none is named.
        models: the model store that pulls are written to; None is moim's own data folder.
        offline: contact nothing but loopback.
        keep_alive: seconds that an unused local model stays loaded; negative keeps it for ever.
        num_ctx: context of local models in tokens; None is min(trained, 4096).
        threads: of the local engine; None is the number of physical cores.
        ca_file: PEM file of the certificate authorities to trust instead of the system's.
        proxy: URL of the proxy for http and https; None follows HTTP_PROXY, HTTPS_PROXY and
            NO_PROXY. Loopback is always reached directly.
        connect_timeout, first_timeout, between_timeout, total_timeout: seconds, see
            `moim.transport.protocol.Timeouts`; 0 waits for ever.
        log: what to write to standard error: `off`, `info`, `debug` or `wire`.
        headers: extra headers of every provider call.
        aliases: the user's short names of models.
        providers: further providers by name.
    """

    default_model: str = "smollm2"
    models: str | None = None
    offline: bool = False
    keep_alive: Annotated[float, Meta(ge=-1_000_000, le=1_000_000)] = 300.0
    num_ctx: _Count | None = None
    threads: _Count | None = None
    ca_file: str | None = None
    proxy: str | None = None
    connect_timeout: _Seconds = 10.0
    first_timeout: _Seconds = 600.0
    between_timeout: _Seconds = 120.0
    total_timeout: _Seconds = 0.0
    log: Literal["off", "info", "debug", "wire"] = "off"
    headers: dict[str, str] = {}
    aliases: dict[str, str] = {}
    providers: dict[str, ProviderEntry] = {}

    @property
    def models_path(self) -> Path:
        """The store that pulls are written to."""
        return _path(self.models, "models") if self.models else data_path() / "models"

    def __repr__(self) -> str:
        """Without what may be a secret: values of headers, logins in addresses."""
        hidden = {"headers": list(self.headers), "proxy": self.proxy and public_url(self.proxy)}
        shown = (
            f"{name}={hidden.get(name, getattr(self, name))!r}" for name in self.__struct_fields__
        )
        return f"Settings({', '.join(shown)})"


_FROM_ENVIRONMENT = {
    f"MOIM_{field.encode_name.upper()}": field
    for field in msgspec.structs.fields(Settings)
    if field.name not in ("headers", "aliases", "providers")
}
_SWITCHES = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the configuration file is, whether or not it exists."""
    if given := environ.get("MOIM_CONFIG"):
        return _path(given, "MOIM_CONFIG")
    from platformdirs import user_config_path

    return user_config_path("moim", appauthor=False) / "config.toml"


def data_path() -> Path:
    """moim's own folder in the user's data directory."""
    from platformdirs import user_data_path

    return user_data_path("moim", appauthor=False)


def settings() -> Settings:
    """The settings in force now: environment over file over defaults.

    Raises:
        ConfigError: a value or the file cannot be used; names the variable or the key.
    """
    return read_settings(os.environ)


def read_settings(environ: Mapping[str, str]) -> Settings:
    """As `settings`, for any environment."""
    path = config_path(environ)
    found = _read_file(path)
    for name, field in _FROM_ENVIRONMENT.items():
        if text := environ.get(name, "").strip():
            found[field.encode_name] = _value(name, field.encode_name, text)
    return _convert(found, str(path))


_files: dict[Path, tuple[int, int, bytes]] = {}
"""Parsed files by path: modification time, size, and the table, packed: nobody can change it."""


def _read_file(path: Path) -> dict[str, Any]:
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read: {error.strerror}."
        ) from None
    known = _files.get(path)
    if known is None or known[:2] != (stat.st_mtime_ns, stat.st_size):
        known = (stat.st_mtime_ns, stat.st_size, _packed(path))
        _files[path] = known
    table: dict[str, Any] = msgspec.msgpack.decode(known[2])
    return table


def _packed(path: Path) -> bytes:
    try:
        return msgspec.msgpack.encode(_parse(path))
    except (OverflowError, RecursionError):
        raise ConfigError(f"The configuration file {path} holds a value out of range.") from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"The configuration file {path} cannot be read: {error.strerror}."
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"The configuration file {path} is not UTF-8.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"The configuration file {path} is not valid TOML: {error}.") from None


def _value(variable: str, key: str, text: str) -> object:
    """A variable's text as the type of its field."""
    default = Settings.__struct_defaults__[Settings.__struct_fields__.index(key)]
    if isinstance(default, bool):
        if text.lower() in _SWITCHES:
            return _SWITCHES[text.lower()]
        raise ConfigError(f"{variable} is {text!r}.", hint="Give 1 or 0.")
    kind = {"num_ctx": int, "threads": int}.get(key, type(default))
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        raise ConfigError(f"{variable} is {text!r}, not a number.") from None


def _path(text: str, name: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name} is {text!r}, and there is no such home folder.") from None


def _convert(found: dict[str, Any], where: str) -> Settings:
    try:
        return msgspec.convert(found, Settings)
    except msgspec.ValidationError as error:
        known = ", ".join(Settings.__struct_fields__)
        raise ConfigError(f"A setting from {where} or the environment is wrong: {error}.",
                          hint=f"Known settings: {known}.") from None  # fmt: skip
