"""The seam between the call path and whatever carries HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from msgspec import Struct

from moim.errors import RequestError
from moim.runtime import Runtime
from moim.types import HTTPRequest, public_url

__all__ = [
    "LONGEST",
    "Endpoint",
    "Exchange",
    "Opening",
    "Timeouts",
    "Transport",
    "check_seconds",
]


LONGEST = 1_000_000.0
"""Seconds of the longest limit: systems count milliseconds in 32 bits."""


def check_seconds(name: str, value: object) -> None:
    """Refuse what is no limit of time.

    Raises:
        RequestError: it is no number, not above 0, or above `LONGEST`.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and 0 < value <= LONGEST):  # type: ignore[operator]
        raise RequestError(
            f"{name}={repr(value)[:40]} is not a number of seconds above 0.",
            hint=f"The longest is {LONGEST:.0f}; a limit of Timeouts that is None waits for ever.",
        )


class Timeouts(Struct, frozen=True, kw_only=True):
    """Seconds to wait at the most; None waits for ever.

    >>> Timeouts(first=30, total=120).between
    120.0

    Attributes:
        connect: for a connection, name look-up, proxy and TLS included.
        first: from the beginning of the call to the reply's head, connecting and sending
            included; and once more from there to the first piece of its body.
        between: between two pieces of the reply, counted while somebody waits for the next.
        total: for the whole call.

    Raises:
        RequestError: a limit is not a number above 0.
    """

    connect: float | None = 10.0
    first: float | None = 600.0
    between: float | None = 120.0
    total: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if (value := getattr(self, name)) is not None:
                check_seconds(name, value)


Opening: TypeAlias = Callable[[Callable[[], None]], None]
"""Takes the function that cuts a connection whose reply has not begun."""


class Endpoint(Struct, frozen=True, kw_only=True):
    """Where a call goes.

    Attributes:
        base: URL under which the request's path lies, without a trailing slash.
        headers: added to the dialect's; credentials are among them.
        name: what messages call the place: the provider's name.
    """

    base: str
    headers: Mapping[str, str] = {}
    name: str = ""

    def __repr__(self) -> str:
        base = public_url(self.base)
        return f"Endpoint(base={base!r}, name={self.name!r}, headers={list(self.headers)})"


class Exchange(Protocol):
    """One request under way."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Reply headers, names in lower case."""
        ...

    async def read(self, within: float | None = None) -> bytes:
        """The next bytes of the body as soon as there are any; `b""` at its end.

        Args:
            within: seconds for this read, where that is less than the call's own limits.

        Raises:
            CallTimeout: the `first`, `between` or `total` time passed.
            StreamBroken: the connection ended before the body did.
            Cancelled: `close` was called meanwhile.
        """
        ...

    def close(self) -> None:
        """End the exchange from any thread; never waits, may be called twice.

        A body read to its end gives its connection back for reuse; any other is cut at once.
        """
        ...


class Transport(Protocol):
    """Opens exchanges. Safe to share between threads and tasks."""

    async def open(
        self,
        rt: Runtime,
        endpoint: Endpoint,
        request: HTTPRequest,
        timeouts: Timeouts,
        opening: Opening | None = None,
    ) -> Exchange:
        """Send the request and wait for the reply's head.

        Redirects are returned, never followed.

        Args:
            opening: called with a function that ends the attempt from any thread; `open` then
                raises whatever the cut looks like from inside.

        Raises:
            ConnectError: no connection.
            CallTimeout: `connect`, `first` or `total` time passed.
            OfflineError: the host is not loopback while offline.
        """
        ...
