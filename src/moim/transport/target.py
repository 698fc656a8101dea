"""Where a request goes: base URLs taken apart and checked once, before any socket exists."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import SplitResult, quote, unquote, urlsplit

from msgspec import Struct

from moim import __version__
from moim.errors import ConfigError, OfflineError
from moim.types import HTTPRequest, public_url

__all__ = [
    "IDEMPOTENT",
    "Target",
    "is_local_name",
    "is_loopback",
    "readable",
    "request_headers",
    "target_of",
]

# Those that every installation of both libraries knows.
_CODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
"""Methods that may be sent again when a kept connection died under them (RFC 9110, 9.2.2).

A POST may have been processed, and paid for, before the connection ended. It is sent again by
nobody but the caller's retry policy, which counts it (the vendors' SDKs do the same).
"""

_PORTS = {"http": 80, "https": 443}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE = re.compile(r"[!-~]*")
_HINT = "Give it as http://HOST:PORT/PATH or https://HOST/PATH."


class Target(Struct, frozen=True, kw_only=True):
    """A base URL in parts.

    Attributes:
        scheme: `http` or `https`.
        host: lower case; an IPv6 address stands without brackets.
        port: given or the scheme's own.
        prefix: path of the base URL without its last slash.
        credentials: value of an `Authorization` header made from `user:password@`, or "".
        loopback: whether the host is this machine, whatever name servers say.
    """

    scheme: str
    host: str
    port: int
    prefix: str
    credentials: str
    loopback: bool

    @property
    def place(self) -> str:
        """`host:port`, as messages name it."""
        return f"{_bracketed(self.host)}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and, unless it is the scheme's own, port."""
        host = _bracketed(self.host)
        default = _PORTS[self.scheme] == self.port
        return f"{self.scheme}://{host}" if default else f"{self.scheme}://{host}:{self.port}"

    def path(self, request: HTTPRequest) -> str:
        """The request's path and query below this base, in visible ASCII."""
        path = self.prefix + request.path
        if not path.startswith("/"):
            path = f"/{path}"
        return path if _VISIBLE.fullmatch(path) else quote(path, safe="/%:?&=+,;@!$'()*~[]#")

    def check_reachable(self, offline: bool) -> None:
        """Refuse to leave this machine while offline.

        Raises:
            OfflineError: the host is not loopback.
        """
        if offline and not self.loopback:
            raise OfflineError(
                f"{self.place} is not on this machine and MOIM_OFFLINE is set.",
                hint="Unset MOIM_OFFLINE (or `offline` in the configuration file), "
                "or use a local model.",
            )

    def __repr__(self) -> str:
        return f"Target({self.origin}{self.prefix})"


@lru_cache(256)
def target_of(base: str) -> Target:
    """Take a base URL apart.

    Raises:
        ConfigError: it is not an http(s) URL; the message leaves out user, password and query.
    """
    try:
        parts = urlsplit(base)
        host = _host(parts)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise _wrong(base) from None
    if parts.scheme not in _PORTS or not host or parts.query or parts.fragment:
        raise _wrong(base)
    return Target(
        scheme=parts.scheme,
        host=host,
        port=port,
        prefix=parts.path.rstrip("/"),
        credentials=_credentials(parts),
        loopback=is_loopback(host),
    )


def is_loopback(host: str) -> bool:
    """Whether packets to `host` stay on this machine: 127/8, ::1 and the names of localhost.

    The unspecified addresses 0.0.0.0 and :: count too: no packet may carry them as a destination
    (RFC 1122, 3.2.1.3); systems that accept them connect to the machine itself. A server told
    to listen there is often configured here by the same text.
    """
    if is_local_name(host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None) or address
    return bool(mapped.is_loopback or mapped.is_unspecified)


def is_local_name(host: str) -> bool:
    """Whether a name means this machine without asking anybody (RFC 6761, 6.3)."""
    name = host.lower().removesuffix(".")
    return name == "localhost" or name.endswith(".localhost")


def request_headers(
    target: Target, given: Mapping[str, str], request: HTTPRequest
) -> dict[str, str]:
    """All headers to send, names in lower case: ours, the dialect's, then the endpoint's.

    Streams are asked for uncompressed: an encoder on the way may hold pieces back to compress
    them better.

    Raises:
        ConfigError: a header cannot be sent as it is; names it and never shows its value.
    """
    headers = {
        "user-agent": f"moim/{__version__}",
        "accept": "*/*",
        "accept-encoding": "identity" if request.stream or target.loopback else "gzip, deflate",
    }
    if target.credentials:
        headers["authorization"] = target.credentials
    for source in (request.headers, given):
        for name, value in source.items():
            if not (value.isascii() and value.isprintable() and _HEADER_NAME.fullmatch(name)):
                raise ConfigError(
                    f"The header {name[:40]!r} for {target.place} cannot be sent: names and values "
                    "may hold printable ASCII only.",
                    hint="Look for a line break or a stray character at the end of a key.",
                )
            headers[name.lower()] = value
    return headers


def readable(headers: Mapping[str, str]) -> bool:
    """Whether a reply's body is in a content coding that is decompressed here."""
    return headers.get("content-encoding", "").strip().lower() in _CODINGS


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _credentials(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def _wrong(base: str) -> ConfigError:
    return ConfigError(f"{public_url(base)!r} is not the base URL of an HTTP server.", hint=_HINT)
