"""`Model`: one object for every chat model, cloud or local."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal, Unpack, overload

from moim.client.options import Options, check_options
from moim.client.streams import AsyncStream, Stream
from moim.client.targets import Target, remote_target
from moim.config import settings
from moim.errors import ConfigError, MoimError, RequestError
from moim.flow import Call, complete
from moim.runtime import BLOCKING, Runtime, step
from moim.transport.protocol import Transport
from moim.types import Prompt, Reply, to_messages

__all__ = ["Model", "model", "run"]


class Model:
    """A chat model with its options. Immutable; safe to share between threads and tasks.

    Made by `moim.model`. Every verb takes further options for that call alone; an option that is
    None counts as not given.
    """

    __slots__ = ("_options", "_target")

    def __init__(self, target: Target, options: Mapping[str, Any]) -> None:
        self._target = target
        self._options = dict(options)

    @property
    def name(self) -> str:
        """The full name, for example `openai/gpt-5-mini` or `local/smollm2`."""
        return self._target.name

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        return f"moim.model({self.name!r}{options})"

    def bind(self, **options: Unpack[Options]) -> Model:
        """The same model with further default options.

        Raises:
            RequestError: an option is unknown.
        """
        check_options(options)
        return Model(self._target, {**self._options, **options})

    def _call(self, prompt: Prompt, options: Mapping[str, Any]) -> Call:
        check_options(options)
        merged = {**self._options, **options} if options else self._options
        return self._target.call(to_messages(prompt), merged)

    def invoke(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """Ask and wait for the whole reply.

        Args:
            prompt: a text, a message, or a conversation; see `moim.types.to_messages`.
            **options: see `moim.client.options.Options`.

        Raises:
            RequestError: the prompt or an option is wrong; nothing was sent.
            MoimError: the call failed; see `moim.errors`.
        """
        return step(complete(BLOCKING, self._call(prompt, options)))

    async def ainvoke(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """As `invoke`, under asyncio."""
        return await complete(_asyncio(), self._call(prompt, options))

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Stream:
        """Ask and read the reply as it comes: `for piece in model.stream("Hi").text(): …`.

        The call is made at the first iteration.
        """
        return Stream(self._call(prompt, options))

    def astream(self, prompt: Prompt, **options: Unpack[Options]) -> AsyncStream:
        """As `stream`, for `async for` and `async with`; not awaited itself."""
        return AsyncStream(_asyncio(), self._call(prompt, options))

    @overload
    def batch(
        self,
        prompts: Iterable[Prompt],
        *,
        limit: int = ...,
        return_errors: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> list[Reply]: ...
    @overload
    def batch(
        self,
        prompts: Iterable[Prompt],
        *,
        limit: int = ...,
        return_errors: Literal[True],
        **options: Unpack[Options],
    ) -> list[Reply | MoimError]: ...
    def batch(
        self,
        prompts: Iterable[Prompt],
        *,
        limit: int = 8,
        return_errors: bool = False,
        **options: Unpack[Options],
    ) -> Any:
        """Ask many prompts, at most `limit` at once, on threads; replies in their order.

        Args:
            prompts: each as for `invoke`.
            limit: calls under way at once.
            return_errors: give a failed call's error in its place instead of raising the first.

        Raises:
            RequestError: a prompt or an option is wrong; nothing was sent.
            MoimError: the first failure, after which no further call begins.
        """
        work = self._batch(BLOCKING, prompts, limit, return_errors, options)
        return step(work)

    @overload
    async def abatch(
        self,
        prompts: Iterable[Prompt],
        *,
        limit: int = ...,
        return_errors: Literal[False] = ...,
        **options: Unpack[Options],
    ) -> list[Reply]: ...
    @overload
    async def abatch(
        self,
        prompts: Iterable[Prompt],
        *,
        limit: int = ...,
        return_errors: Literal[True],
        **options: Unpack[Options],
    ) -> list[Reply | MoimError]: ...
    async def abatch(
        self,
        prompts: Iterable[Prompt],
        *,
        limit: int = 8,
        return_errors: bool = False,
        **options: Unpack[Options],
    ) -> Any:
        """As `batch`, with tasks instead of threads."""
        return await self._batch(_asyncio(), prompts, limit, return_errors, options)

    async def _batch(
        self,
        rt: Runtime,
        prompts: Iterable[Prompt],
        limit: Any,
        return_errors: bool,
        options: Mapping[str, Any],
    ) -> list[Reply | MoimError]:
        if isinstance(prompts, str | bytes):
            raise RequestError("batch takes a list of prompts, not one text.")
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise RequestError(f"limit={limit!r} is not a whole number above 0.")
        calls = [self._call(prompt, options) for prompt in prompts]

        async def one(call: Call) -> Reply | MoimError:
            try:
                return await complete(rt, call)
            except MoimError as error:
                if return_errors:
                    return error
                raise

        return await rt.gather([partial(one, call) for call in calls], limit)


def _asyncio() -> Runtime:
    from moim.runtime.asyncio_ import ASYNCIO

    return ASYNCIO


def model(
    name: str | None = None,
    *,
    base: str | None = None,
    key: str | None = None,
    headers: Mapping[str, str] | None = None,
    transport: Transport | None = None,
    **options: Unpack[Options],
) -> Model:
    """A chat model by name.

    Args:
        name: `provider/model` or `provider:model`; the name of a model on this machine or a path
            to a `.gguf` file; None takes the configured default (`smollm2`).
        base: URL of any OpenAI-compatible server; `name` is then that server's own name of the
            model.
        key: API key; None reads the provider's variable when a call is made.
        headers: sent with every request.
        transport: carries the exchanges instead of HTTP, as in tests.
        **options: defaults for every call, see `moim.client.options.Options`.

    Raises:
        UnknownModel: the name leads nowhere, or to a local model that is not on this machine;
            nothing is downloaded here (`moim.run` does).
        ConfigError: the configuration or `base` is wrong.
        RequestError: an option is unknown.
    """
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"A model's name is a text, not a {type(name).__name__}.")
    check_options(options)
    now = settings()
    name = (name or now.default_model).strip()
    target: Target | None = remote_target(
        name, now, base=base, key=key, headers=headers, transport=transport
    )
    if target is None:
        from moim.client.local_target import local_target

        target = local_target(name, now)
    return Model(target, options)


def run(name: str | None = None, **options: Unpack[Options]) -> Model:
    """A local model by name, downloaded first if it is not on this machine.

    Raises:
        PullError: it could not be downloaded.
        UnknownModel: no source has it.
        OfflineError: it would have to be downloaded while offline.
    """
    from moim.local import pull

    chosen = name or settings().default_model
    pull(chosen)
    return model(chosen, **options)
