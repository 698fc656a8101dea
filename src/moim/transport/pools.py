"""Which proxy and which authorities a connection uses, and the pools that go with them.

Both HTTP libraries take the same decisions from here, so neither reads the environment itself.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import Struct

from moim import config
from moim.config import Settings
from moim.errors import ConfigError
from moim.transport.target import Target

if TYPE_CHECKING:
    from urllib3 import PoolManager

__all__ = ["DIRECT", "Proxy", "Route", "forget_after_fork", "pool_manager", "route_to"]

POOL_SIZE = 64
"""Idle connections kept for each host and port."""


class Proxy(Struct, frozen=True):
    """A proxy's URL, which may hold a login, and its `host:port` for messages."""

    url: str
    place: str

    def __repr__(self) -> str:
        return f"Proxy({self.place})"


class Route(Struct, frozen=True):
    """What decides which pool a connection belongs to.

    Attributes:
        proxy: the proxy in between, or None.
        ca_file: PEM file of the only authorities to trust, or None for the system's.
        environment: SSL_CERT_FILE and SSL_CERT_DIR, which move the system's authorities.
    """

    proxy: Proxy | None = None
    ca_file: str | None = None
    environment: tuple[str | None, str | None] = (None, None)

    def tls(self) -> ssl.SSLContext:
        """The TLS context of this route; made once.

        Raises:
            ConfigError: the file of authorities cannot be used.
        """
        return _tls_context(self.ca_file, self.environment)


DIRECT = Route()


def route_to(target: Target, settings: Settings | None = None) -> Route:
    """The route to a target under the settings in force.

    Loopback is always reached directly. NO_PROXY holds for a proxy from the settings too.

    Raises:
        OfflineError: the target is not loopback and `offline` is set.
        ConfigError: the proxy's URL cannot be used.
    """
    if target.loopback and target.scheme == "http":
        return DIRECT
    settings = settings or config.settings()
    target.check_reachable(settings.offline)
    proxy = None if target.loopback else _proxy_for(target, settings.proxy)
    if target.scheme == "http" and proxy is None:
        return DIRECT
    environment = (os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    return Route(proxy, settings.ca_file, environment)


def pool_manager(settings: Settings | None = None) -> PoolManager:
    """A urllib3 manager for plain downloads: proxy, authorities and offline rule as for calls.

    It follows no redirect and retries nothing. A request without `timeout` gets the settings'
    connect and between limits. Its methods raise urllib3's errors, and OfflineError or
    ConfigError where a URL must not be asked.

    Args:
        settings: those to use; None reads the ones in force at each request.
    """
    from moim.transport.sync_http import Manager

    return Manager(settings)


def forget_after_fork(forget: Callable[[], None]) -> None:
    """Run `forget` in every forked child: two processes must never share a connection."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


def _proxy_for(target: Target, given: str | None) -> Proxy | None:
    from urllib import request

    place = f"{target.host}:{target.port}"
    if request.proxy_bypass_environment(place):  # type: ignore[attr-defined]
        return None
    if given:
        return _proxy(given)
    found = request.getproxies_environment()
    url = found.get(target.scheme) or found.get("all")
    return _proxy(url) if url else None


@lru_cache(64)
def _proxy(url: str) -> Proxy:
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        own_port = {"http": 80, "https": 443}[parts.scheme]
        port = parts.port or own_port
    except (ValueError, KeyError):
        scheme = full.partition("://")[0][:20]
        raise ConfigError(
            f"The proxy's URL cannot be used (it begins with {scheme}://).",
            hint="Give it as http://HOST:PORT or https://HOST:PORT; SOCKS is not supported.",
        ) from None
    if not parts.hostname:
        raise ConfigError("The proxy's URL names no host.", hint="Give it as http://HOST:PORT.")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    login, at, _ = parts.netloc.rpartition("@")
    return Proxy(f"{parts.scheme}://{login}{at}{host}:{port}", f"{host}:{port}")


@lru_cache(16)
def _tls_context(ca_file: str | None, environment: tuple[str | None, str | None]) -> ssl.SSLContext:
    # OpenSSL itself reads the environment when it loads the system's authorities.
    try:
        path = Path(ca_file).expanduser() if ca_file else None
        context = ssl.create_default_context(cafile=path)
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"The file of certificate authorities {ca_file} cannot be used: {_why(error)}.",
            hint="Set ca_file (MOIM_CA_FILE) to a PEM file, or unset it.",
        ) from None
    context.set_alpn_protocols(["http/1.1"])
    return context


def _why(error: OSError | RuntimeError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it holds no PEM certificate"
    return (error.strerror if isinstance(error, OSError) else None) or "there is no such folder"
