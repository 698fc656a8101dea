"""The transport of a local model: sees that its runner is up, then speaks HTTP with it.

Ask for streams (`HTTPRequest.stream`), also where a whole answer is wanted: only a stream can be
left while the engine generates.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

import msgspec

from moim.dialects import registry
from moim.errors import (
    CallTimeout,
    ConnectError,
    ContextLengthError,
    DecodeError,
    MoimError,
    RunnerError,
    StreamBroken,
    TransportError,
)
from moim.local.engines import RunnerSpec
from moim.local.runner import Lease, Pool, Runner, pool
from moim.runtime import Runtime
from moim.transport import read_all
from moim.transport.protocol import Endpoint, Exchange, Opening, Timeouts, Transport
from moim.types import HTTPReply, HTTPRequest

__all__ = ["LocalTransport", "explain"]

_PATIENT = Timeouts()
_DEATH_SECONDS = 2.0  # between a broken connection and the news that the process is gone
_LIMIT = 16 << 20  # bytes of the engine's answer to a short question
_QUICK = ("/apply-template", "/detokenize", "/tokenize")
_PING = b":\r\n \t"  # a comment without text, which the engine sends while it is silent


class LocalTransport:
    """Carries the calls of one model.

    The endpoint that `open` is given does not matter: the runner's own is used, with its key.

    Args:
        spec: what to run, see `moim.local.engines.spec_for`.
        name: what messages and replies call the model.
        http: carries the calls to the runner's port.
        keep_alive: seconds, see `LoadOptions`; None is the setting.
        runners: the pool to use; None is the process's own.
    """

    def __init__(
        self,
        spec: RunnerSpec,
        *,
        name: str,
        http: Transport,
        keep_alive: float | None = None,
        runners: Pool | None = None,
    ) -> None:
        self.spec = spec
        self.name = name
        self._http = http
        self._keep_alive = keep_alive
        self._runners = runners

    async def open(
        self,
        rt: Runtime,
        endpoint: Endpoint,
        request: HTTPRequest,
        timeouts: Timeouts,
        opening: Opening | None = None,
    ) -> Exchange:
        """As `Transport.open`.

        Raises:
            RunnerError: the engine cannot be started, or has died.
            ModelFileError, ModelTooLarge: the model cannot be loaded here.
        """
        try:
            return await self._open(rt, request, timeouts, opening)
        except _Gone:
            # It died before it answered at all, most likely while nobody used it. An engine keeps
            # no state and costs nothing, so a second try does no harm.
            return await self._open(rt, request, timeouts, opening, again=True)

    async def load(self, rt: Runtime, timeouts: Timeouts = _PATIENT) -> None:
        """Have the model in memory, so that the first call need not wait for it.

        Raises:
            RunnerError, ModelFileError, ModelTooLarge: it cannot be loaded.
        """
        (await self._lease(rt, timeouts)).release()

    async def ask(
        self, rt: Runtime, path: str, body: bytes = b"", timeouts: Timeouts = _PATIENT
    ) -> Any:
        """The engine's JSON answer to a short question (`/tokenize`, `/props`, …).

        Raises:
            ProviderError: it refused.
            DecodeError: its answer is not JSON.
            RunnerError, ModelFileError, ModelTooLarge: it does not run.
        """
        request = HTTPRequest(path=path, body=body, method="POST" if body else "GET")
        exchange = await self.open(rt, Endpoint(base=""), request, timeouts)
        try:
            answer = await read_all(exchange, _LIMIT)
        finally:
            exchange.close()
        if exchange.status != 200:
            reply = HTTPReply(status=exchange.status, headers=exchange.headers, body=answer)
            raise explain(registry.find("openai_chat").decode_error(reply), self.spec)
        try:
            return msgspec.json.decode(answer)
        except msgspec.DecodeError as error:
            raise DecodeError(
                f"The engine of {self.name} did not answer in JSON: {error}"
            ) from None

    async def _lease(self, rt: Runtime, timeouts: Timeouts) -> Lease:
        return await (self._runners or pool()).lease(
            rt, self.spec, name=self.name, keep_alive=self._keep_alive, timeout=timeouts.total
        )

    async def _open(
        self,
        rt: Runtime,
        request: HTTPRequest,
        timeouts: Timeouts,
        opening: Opening | None,
        again: bool = False,
    ) -> Exchange:
        begun = rt.now()
        lease = await self._lease(rt, timeouts)
        now = rt.now()
        first = None if timeouts.first is None else now + timeouts.first
        if timeouts.total is not None:  # the load was part of it
            left = max(0.001, timeouts.total - (now - begun))
            timeouts = msgspec.structs.replace(timeouts, total=left)
        try:
            inner = await self._http.open(rt, lease.runner.endpoint, request, timeouts, opening)
            return _LocalExchange(rt, inner, lease, request, first)
        except (ConnectError, StreamBroken) as error:
            try:
                failure = await _cause(rt, lease.runner, error)
            finally:
                _leave(lease, request)
            if isinstance(failure, RunnerError) and failure.retryable and not again:
                raise _Gone from None
            raise failure from None
        except BaseException:
            _leave(lease, request)
            raise


class _Gone(Exception):
    """The runner has died without a word of a reply. Never leaves this module."""


def explain(error: MoimError, spec: RunnerSpec) -> MoimError:
    """Give an error about the context's length the advice that fits a local model."""
    if not isinstance(error, ContextLengthError):
        return error
    if error.context_tokens is None:
        error.context_tokens = spec.num_ctx
    if error.prompt_tokens is not None:
        error.message = (
            f"The prompt has {error.prompt_tokens} tokens and does not fit the context of"
            f" {error.context_tokens}."
        )
    needed = (error.prompt_tokens or 0) + 1
    if spec.num_ctx < spec.trained and needed <= spec.trained:
        more = f"Give num_ctx={spec.trained} (what the model can take) or less, above {needed}"
    else:
        more = f"Shorten the prompt ({spec.trained} tokens are what the model was trained for)"
    error.hint = f"{more}, or truncate=True to drop the oldest messages."
    return error


def _leave(lease: Lease, request: HTTPRequest) -> None:
    """The call has ended without its reply."""
    if request.path in _QUICK or request.method == "GET":
        lease.release()
    else:
        lease.abandon()


async def _cause(rt: Runtime, runner: Runner, error: TransportError) -> MoimError:
    """Why a connection broke: the runner's death if it has died, else as it was."""
    with contextlib.suppress(TimeoutError):
        await rt.wait(runner.exited, _DEATH_SECONDS)
    return copy.copy(runner.failure) or error  # one failure, many callers


class _LocalExchange:
    """An exchange that holds its runner, and knows whether the engine still reads the prompt.

    The engine sends the head of a stream at once and its first event after the prompt, with
    empty comments in between; so `Timeouts.first` is kept here.
    """

    def __init__(
        self,
        rt: Runtime,
        inner: Exchange,
        lease: Lease,
        request: HTTPRequest,
        first: float | None,
    ) -> None:
        self._rt = rt
        self._inner = inner
        self._lease = lease
        self._first = first
        # Without a stream the head comes after the work is done.
        self._reading_prompt = request.stream and inner.status == 200

    @property
    def status(self) -> int:
        return self._inner.status

    @property
    def headers(self) -> Mapping[str, str]:
        return self._inner.headers

    async def read(self, within: float | None = None) -> bytes:
        try:
            data = await self._inner.read(within)
        except StreamBroken as error:
            try:
                failure = await _cause(self._rt, self._lease.runner, error)
            finally:
                self.close()
            raise failure from None
        if not data:
            self._lease.release()
        elif self._reading_prompt:
            self._look_at(data)
        return data

    def _look_at(self, data: bytes) -> None:
        if data.strip(_PING):
            self._reading_prompt = False
        elif self._first is not None and self._rt.now() >= self._first:
            self.close()
            raise CallTimeout(
                f"{self._lease.runner.name} had not read the prompt when the time for the first"
                " token was over.",
                hint="Shorten the prompt or raise MOIM_FIRST_TIMEOUT.",
            )

    def close(self) -> None:
        self._inner.close()
        if self._reading_prompt:
            self._lease.abandon()
        else:
            self._lease.release()
