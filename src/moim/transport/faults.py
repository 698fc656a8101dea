"""What went wrong below HTTP, told as moim's errors: one reading for both libraries."""

from __future__ import annotations

from moim.errors import Cancelled, ConnectError, DecodeError, StreamBroken
from moim.transport.target import Target

__all__ = [
    "broken",
    "cancelled",
    "no_connection",
    "no_tunnel",
    "not_http",
    "root_of",
    "undecodable",
]

_NETWORK = "Check the network connection, or the proxy settings if one is needed."
_PRIVATE_CA = (
    "If a private authority signs it, name its PEM file in ca_file (MOIM_CA_FILE) or SSL_CERT_FILE."
)
_PROXY_LOGIN = "Give the proxy's login in its URL: http://USER:PASSWORD@HOST:PORT."


def root_of(error: BaseException) -> BaseException:
    """The innermost error that a library wrapped: what the system or TLS itself said."""
    seen = {id(error)}
    while (inner := _inner(error)) is not None and id(inner) not in seen:
        seen.add(id(inner))
        error = inner
    return error


def _inner(error: BaseException) -> BaseException | None:
    wrapped = (error.__cause__, *error.args)
    return next((item for item in wrapped if isinstance(item, BaseException)), None)


def no_connection(cause: BaseException, place: str) -> ConnectError:
    """No connection to `place`, a `host:port` or `the proxy host:port`."""
    import socket
    import ssl

    name = place.replace("the proxy", "The proxy", 1)
    if isinstance(cause, socket.gaierror):
        return ConnectError(
            f"The name of {place} was not found.", hint=f"Check how it is spelled. {_NETWORK}"
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        text = f"The TLS certificate of {place} cannot be trusted: {cause.verify_message}."
        return ConnectError(text, hint=_PRIVATE_CA, retryable=False)
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or "no reason given").replace("_", " ").lower()
        return ConnectError(
            f"{name} does not agree on TLS ({reason}).",
            hint="If it speaks plain HTTP, its URL begins with http://.",
        )
    if isinstance(cause, ConnectionRefusedError):
        return ConnectError(
            f"{name} refused the connection.", hint="Is the server running, and the port right?"
        )
    if isinstance(cause, ConnectionError | EOFError):
        return ConnectError(
            f"{name} closed the connection while it was being set up.", hint=_NETWORK
        )
    detail = (cause.strerror if isinstance(cause, OSError) else None) or type(cause).__name__
    return ConnectError(f"{name} cannot be reached: {detail}.", hint=_NETWORK)


def no_tunnel(target: Target, proxy: str, status: int) -> ConnectError:
    """The proxy answered CONNECT with something else than 200."""
    login = status == 407
    return ConnectError(
        f"The proxy {proxy} refused a tunnel to {target.place} (status {status}).",
        hint=_PROXY_LOGIN if login else "Ask whoever runs the proxy, or set NO_PROXY.",
        retryable=status >= 500,
    )


def broken(target: Target, *, head: bool = False) -> StreamBroken:
    """The connection ended before the reply did; `head`: even before its first line."""
    if head:
        return StreamBroken(f"{target.place} closed the connection without a reply.")
    return StreamBroken(f"{target.place} closed the connection before the end of its reply.")


def not_http(target: Target) -> DecodeError:
    """What came back is not HTTP; it is not shown, since nobody knows what it holds."""
    return DecodeError(
        f"{target.place} answered with something that is not HTTP.",
        hint="Check the port, and whether the URL must begin with https://.",
    )


def undecodable(target: Target, coding: str) -> DecodeError:
    """The body is in a content coding that was not asked for, or not in the one it names."""
    return DecodeError(
        f"The reply of {target.place} cannot be decompressed (content-encoding {coding[:40]!r}).",
        hint="A proxy on the way may have changed it.",
    )


def cancelled(target: Target) -> Cancelled:
    """Our own side closed the exchange."""
    return Cancelled(f"The call to {target.place} was closed before its end.")
