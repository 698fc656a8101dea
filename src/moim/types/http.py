"""One HTTP exchange as plain values, shared by dialects (which write them) and transports."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

__all__ = ["HTTPReply", "HTTPRequest", "public_url"]

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SHOWN = 100


class HTTPRequest(Struct, frozen=True, kw_only=True):
    """What a dialect wants sent.

    Attributes:
        path: path below the provider's base URL, starting with `/`, with the query if any.
        body: the encoded body; empty for GET.
        method: HTTP method.
        headers: headers that belong to the dialect (never credentials: those are added by the
            provider's row when the call is made).
        stream: whether the reply is to be read piece by piece.
    """

    path: str
    body: bytes = b""
    method: Literal["GET", "POST", "DELETE", "HEAD", "PUT"] = "POST"
    headers: Mapping[str, str] = {}
    stream: bool = False


class HTTPReply(Struct, frozen=True, kw_only=True):
    """A whole answer. Header names are lower case; of a repeated header the last one stays."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""

    @property
    def content_type(self) -> str:
        """The media type without its parameters, lower case, or an empty string."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def public_url(url: str) -> str:
    """A URL, or what should be one, fit for a message: no login, no query, 100 characters at most.

    >>> public_url("http://me:secret@host:1/v1?key=secret")
    'http://***@host:1/v1'
    """
    found = _SCHEME.match(url)
    scheme = found[0] if found else ""
    login, at, rest = url[len(scheme) :].rpartition("@")
    if re.search(r"[?#]", login):  # either a strange password or an @ in a query: nobody can tell
        return f"{scheme}***"
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    return f"{scheme}{'***@' if at else ''}{place}"[:_SHOWN]
