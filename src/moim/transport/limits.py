"""The time limits of one exchange, counted the same way by every transport."""

from __future__ import annotations

import math
from typing import Literal

from moim.errors import CallTimeout
from moim.transport.protocol import Timeouts

__all__ = ["Clock", "Stage"]

Stage = Literal["first", "between"]

_SAYS = {
    "connect": "did not accept a connection",
    "first": "sent no reply",
    "between": "stopped sending in the middle of its reply",
    "total": "did not finish its reply",
}
_SETTING = (
    "timeouts=moim.Timeouts({0}=...), or {0}_timeout in the configuration file (MOIM_{1}_TIMEOUT)"
)
_SHORT = {"total": "timeout=..., "}


class Clock:
    """Turns limits in seconds into moments of the transport's clock.

    Args:
        timeouts: the limits.
        now: the moment at which the call began.
        place: `host:port` for messages.
    """

    __slots__ = ("_end", "_place", "_timeouts", "_waiting", "_within")

    def __init__(self, timeouts: Timeouts, now: float, place: str) -> None:
        self._timeouts = timeouts
        self._end = math.inf if timeouts.total is None else now + timeouts.total
        self._place = place
        self._waiting = "total"
        self._within: float | None = None

    def until(self, stage: Stage, now: float, within: float | None = None) -> float:
        """When a wait that begins now has to end; infinite where nothing limits it."""
        until, self._waiting, self._within = self._end, "total", within
        limit = getattr(self._timeouts, stage)
        if limit is not None and now + limit < until:
            until, self._waiting = now + limit, stage
        if within is not None and now + within < until:
            until, self._waiting = now + within, "read"
        return until

    def connecting(self) -> float | None:
        """Seconds for a connection: no longer than the limits around it."""
        limits = (self._timeouts.connect, self._timeouts.first, self._timeouts.total)
        return min((limit for limit in limits if limit is not None), default=None)

    def expired(self, *, connected: bool = True) -> CallTimeout:
        """The error of the wait that `until` was last asked about, named by its tightest limit."""
        name = self._waiting
        if not connected and self.connecting() == self._timeouts.connect:
            name = "connect"
        if name == "read":
            return CallTimeout(f"{self._place} sent nothing for {self._within:g} s.")
        setting = _SHORT.get(name, "") + _SETTING.format(name, name.upper())
        return CallTimeout(
            f"{self._place} {_SAYS[name]} within {getattr(self._timeouts, name):g} s "
            f"({name} timeout).",
            hint=f"Try again later, or allow more time: {setting}.",
        )
