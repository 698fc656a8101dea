"""A transport that answers from a list: every fault of a network, none of its chance."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future

from msgspec import Struct

from moim.errors import MoimError, TransportError
from moim.runtime import Runtime
from moim.transport.faults import broken, cancelled
from moim.transport.limits import Clock
from moim.transport.protocol import Endpoint, Exchange, Opening, Timeouts
from moim.transport.target import target_of
from moim.types import HTTPReply, HTTPRequest

__all__ = ["Replay", "ReplayTransport", "Replayed"]


class Replay(Struct, frozen=True, kw_only=True):
    """One answer.

    Attributes:
        status: HTTP status.
        headers: names in any case.
        pieces: the body as `read` is to return it; empty pieces are left out.
        delay: seconds before the head and before each piece.
        cut: bytes of the body after which the connection breaks; None for never.
        stall: bytes of the body after which the server falls silent; None for never.
        error: raised instead of a reply.
    """

    status: int = 200
    headers: Mapping[str, str] = {}
    pieces: Sequence[bytes] = ()
    delay: float = 0.0
    cut: int | None = None
    stall: int | None = None
    error: MoimError | None = None

    @classmethod
    def of(cls, reply: HTTPReply, size: int = 0) -> Replay:
        """A whole reply, its body in pieces of `size` bytes; 0 keeps it in one."""
        step = size or max(len(reply.body), 1)
        pieces = [reply.body[at : at + step] for at in range(0, len(reply.body), step)]
        return cls(status=reply.status, headers=reply.headers, pieces=pieces)


class Replayed(Struct, frozen=True, kw_only=True):
    """A request as the transport was given it, and the exchange that answered it."""

    endpoint: Endpoint
    request: HTTPRequest
    timeouts: Timeouts
    exchange: ReplayExchange | None


class ReplayTransport:
    """Answers requests in their order, under any runtime.

    Args:
        answers: what to answer; an `HTTPReply` is a whole reply without a fault, a list of bytes
            is a body with status 200.

    Attributes:
        requests: what was asked so far.
    """

    def __init__(self, answers: Iterable[Replay | HTTPReply | Sequence[bytes]]) -> None:
        self._answers = [_as_replay(answer) for answer in answers]
        self._lock = threading.Lock()
        self.requests: list[Replayed] = []

    async def open(
        self,
        rt: Runtime,
        endpoint: Endpoint,
        request: HTTPRequest,
        timeouts: Timeouts,
        opening: Opening | None = None,
    ) -> Exchange:
        """See `Transport.open`.

        Raises:
            TransportError: there is no answer left.
        """
        exchange, answer = self._next(rt, endpoint, request, timeouts)
        if answer.error is not None:
            raise answer.error
        await exchange.pause()
        return exchange

    def _next(
        self, rt: Runtime, endpoint: Endpoint, request: HTTPRequest, timeouts: Timeouts
    ) -> tuple[ReplayExchange, Replay]:
        with self._lock:
            count = len(self.requests)
            if count >= len(self._answers):
                raise TransportError(
                    f"Request {count + 1} has no answer: the replay holds {len(self._answers)}.",
                    retryable=False,
                )
            answer = self._answers[count]
            exchange = ReplayExchange(rt, endpoint, timeouts, answer)
            self.requests.append(
                Replayed(
                    endpoint=endpoint,
                    request=request,
                    timeouts=timeouts,
                    exchange=None if answer.error else exchange,
                )
            )
            return exchange, answer


def _as_replay(answer: Replay | HTTPReply | Sequence[bytes]) -> Replay:
    if isinstance(answer, Replay):
        return answer
    return Replay.of(answer) if isinstance(answer, HTTPReply) else Replay(pieces=answer)


class ReplayExchange:
    """An answer under way.

    Attributes:
        finished: the body was read to its end.
        closed: `close` was called, or a fault ended the exchange.
    """

    def __init__(self, rt: Runtime, endpoint: Endpoint, timeouts: Timeouts, answer: Replay) -> None:
        self.status = answer.status
        self.headers = {name.lower(): value for name, value in answer.headers.items()}
        self.finished = False
        self._rt = rt
        self._target = target_of(endpoint.base)
        self._clock = Clock(timeouts, rt.now(), self._target.place)
        self._answer = answer
        self._pieces = _until_fault(answer)
        self._position = 0
        self._left: Future[None] = Future()
        self._lock = threading.Lock()
        self._ended: MoimError | None = None

    @property
    def closed(self) -> bool:
        return self._left.done()

    async def pause(self) -> None:
        """Take as long as the answer takes before its head."""
        if self._answer.delay:
            await self._wait(self._answer.delay, first=True)

    async def read(self, within: float | None = None) -> bytes:
        """See `Exchange.read`."""
        if self._ended is not None:
            raise self._ended
        if self.finished:
            return b""
        if self.closed:
            raise cancelled(self._target)
        first = self._position == 0
        if self._position == len(self._pieces):
            return await self._end(first, within)
        if self._answer.delay:
            await self._wait(self._answer.delay, first, within)
        piece = self._pieces[self._position]
        self._position += 1
        return piece

    async def _end(self, first: bool, within: float | None) -> bytes:
        if self._answer.stall is not None:
            await self._wait(math.inf, first, within)
        if self._answer.cut is not None:
            self._ended = broken(self._target)
            self.close()
            raise self._ended
        self.finished = True
        return b""

    async def _wait(self, seconds: float, first: bool, within: float | None = None) -> None:
        """Wait for the server, no longer than allowed; closing the exchange ends it."""
        now = self._rt.now()
        until = self._clock.until("first" if first else "between", now, within)
        limit = min(seconds, until - now)
        try:
            await self._rt.wait(self._left, None if limit == math.inf else limit)
        except TimeoutError:
            if seconds <= until - now:
                return
            self._ended = self._clock.expired()
            self.close()
            raise self._ended from None
        raise cancelled(self._target)

    def close(self) -> None:
        """See `Exchange.close`."""
        with self._lock:
            if not self._left.done():
                self._left.set_result(None)


def _until_fault(answer: Replay) -> list[bytes]:
    """The pieces that arrive before the connection breaks or falls silent."""
    limits = [limit for limit in (answer.cut, answer.stall) if limit is not None]
    left = min(limits, default=sum(map(len, answer.pieces)))
    found = []
    for piece in answer.pieces:
        if arrived := piece[: max(left, 0)]:
            found.append(arrived)
        left -= len(piece)
    return found
