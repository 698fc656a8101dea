"""`Model`: one object for every chat model, cloud or local."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal, Unpack, overload

from msgspec import Struct

from moim.client.options import Options, check_options
from moim.client.streams import AsyncStream, Stream
from moim.client.targets import Target, remote_target
from moim.config import Settings, settings
from moim.errors import ConfigError, MoimError, RequestError
from moim.flow import Call, complete
from moim.runtime import BLOCKING, Runtime, step
from moim.transport.protocol import Transport
from moim.types import Prompt, Reply, public_url, to_messages

__all__ = ["Model", "model", "run"]


class Origin(Struct, frozen=True, kw_only=True):
    """What `moim.model` was given beside the options: enough to make the model again.

    Attributes:
        name, base, headers: as given.
        unsaved: what cannot be written down, and why; empty if nothing.
    """

    name: str
    base: str | None = None
    headers: Mapping[str, str] | None = None
    unsaved: str = ""


class Model:
    """A chat model with its options. Immutable; safe to share between threads and tasks.

    Made by `moim.model`. Every verb takes further options for that call alone; one that is None
    takes back the model's own.

    A pickled model is made again where it is unpickled, under the settings and keys of that
    place. One that was given a key or another secret cannot be pickled.
    """

    __slots__ = ("_options", "_origin", "_target")

    def __init__(self, target: Target, options: Mapping[str, Any], origin: Origin) -> None:
        self._target = target
        self._options = {name: value for name, value in options.items() if value is not None}
        self._origin = origin

    @property
    def name(self) -> str:
        """The full name, for example `openai/gpt-5-mini` or `local/smollm2`."""
        return self._target.name

    def __repr__(self) -> str:
        base = self._origin.base
        shown = {"base": public_url(base), **self._options} if base else self._options
        arguments = "".join(f", {name}={value!r}" for name, value in shown.items())
        return f"moim.model({(self._origin.name if base else self.name)!r}{arguments})"

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: Any) -> Model:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Raises `ConfigError` where a secret would be written."""
        origin = self._origin
        if origin.unsaved:
            raise ConfigError(
                f"{self.name} cannot be pickled, because {origin.unsaved}.",
                hint="Keep secrets in the environment (a key variable, a header of the form $NAME),"
                " or make the model in the process that uses it.",
            )
        return _again, (origin.name, origin.base, origin.headers, self._options)

    def bind(self, **options: Unpack[Options]) -> Model:
        """The same model with further default options.

        Raises:
            RequestError: an option is unknown.
        """
        check_options(options)
        return Model(self._target, {**self._options, **options}, self._origin)

    def _call(self, prompt: Prompt, options: Mapping[str, Any]) -> Call:
        check_options(options)
        merged = self._options
        if options:
            merged = {k: v for k, v in {**merged, **options}.items() if v is not None}
        return self._target.call(to_messages(prompt), merged)

    def invoke(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """Ask and wait for the whole reply.

        Args:
            prompt: a text, a message, or a conversation; see `moim.types.to_messages`.
            **options: see `moim.Options`.

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
        if isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable):
            raise RequestError(
                f"batch takes a list of prompts, not one {type(prompts).__name__}.",
                hint="For one prompt there is invoke.",
            )
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

            `key`, `headers` and `transport` are for a provider or `base`, not for local models.
        **options: defaults for every call, see `moim.Options`.

    Raises:
        UnknownModel: the name leads nowhere, or to a local model that is not on this machine;
            nothing is downloaded here (`moim.run` does).
        ConfigError: the configuration or one of these arguments is wrong.
        RequestError: an option is unknown.
    """
    _check_arguments(name, base, key, headers, transport)
    check_options(options)
    now = settings()
    name = (name or now.default_model).strip()
    target: Target | None = remote_target(
        name, now, base=base, key=key, headers=headers, transport=transport
    )
    if target is None:
        target = _local(name, now, key=key, headers=headers, transport=transport)
    unsaved = _unsaved(base, key, headers, transport)
    return Model(target, options, Origin(name=name, base=base, headers=headers, unsaved=unsaved))


def _check_arguments(name: Any, base: Any, key: Any, headers: Any, transport: Any) -> None:
    texts = {"A model's name": name, "base": base, "key": key}
    for what, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{what} is a text, not of type {type(value).__name__}.")
    if headers is not None and not _is_table_of_texts(headers):
        raise ConfigError("headers is a dict of texts.", hint='For example {"X-Team": "search"}.')
    if transport is not None and not callable(getattr(transport, "open", None)):
        raise ConfigError(
            f"transport is of type {type(transport).__name__}, which has no method open.",
            hint="See moim.transport.Transport.",
        )


def _is_table_of_texts(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(text, str) for pair in value.items() for text in pair
    )


def _local(name: str, now: Settings, **remote: Any) -> Target:
    from moim.client.local_target import local_target

    target = local_target(name, now)
    if given := [what for what, value in remote.items() if value is not None]:
        raise ConfigError(
            f"{' and '.join(given)} cannot be used with {target.name}, which runs on this machine.",
            hint="To call a server, give its base=URL.",
        )
    return target


def _unsaved(
    base: str | None, key: str | None, headers: Mapping[str, str] | None, transport: object
) -> str:
    """Why the arguments of a model cannot be written down; empty if they can."""
    reasons = {
        "its key would be written": key is not None,
        "a header with its value would be written": any(
            not value.startswith("$") for value in (headers or {}).values()
        ),
        "the login in its URL would be written": "@" in (base or ""),
        "it has a transport of its own": transport is not None,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def _again(
    name: str, base: str | None, headers: Mapping[str, str] | None, options: dict[str, Any]
) -> Model:
    return model(name, base=base, headers=headers, **options)


def run(name: str | None = None, **options: Unpack[Options]) -> Model:
    """A local model by name, downloaded first if it is not on this machine.

    Raises:
        PullError: it could not be downloaded.
        UnknownModel: no source has it.
        OfflineError: it would have to be downloaded while offline.
    """
    from moim.local import find, pull

    chosen = name or settings().default_model
    given = chosen.removeprefix("local/")
    if find(given) is None:
        pull(given)
    return model(f"local/{given}", **options)
