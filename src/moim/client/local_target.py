"""A model on this machine as the target of a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moim import local
from moim.client.options import make_request, make_timeouts
from moim.client.targets import default_timeouts, unknown
from moim.config import Settings
from moim.dialects import registry
from moim.dialects.quirks import LLAMA_CPP
from moim.errors import MoimError, RequestError, UnknownModel
from moim.flow import Call, Prepared
from moim.local import LocalModel, context, gguf
from moim.local.engines import LoadOptions, spec_for
from moim.local.library import library
from moim.local.preset import preset_of
from moim.local.transport import LocalTransport, explain
from moim.runtime import Runtime
from moim.transport import http
from moim.transport.protocol import Endpoint
from moim.types import Message, Reply, Request, Warned

__all__ = ["LocalTarget", "local_target"]

_DIALECT = "openai_chat"
_NOWHERE = Endpoint(base="", name="local")  # the transport knows the runner's own address


def local_target(name: str, settings: Settings) -> LocalTarget:
    """The target of a local model's name.

    Raises:
        UnknownModel: it is not on this machine.
        ConfigError, ModelFileError, StoreError: see `moim.local.find`.
    """
    known = library()
    given = name.removeprefix("local/")
    found = known.find(given)
    if found is not None:
        return LocalTarget(found, settings)
    if known.catalog.expand(given) != given:
        raise UnknownModel(
            f"The model {given} is not on this machine yet.",
            hint=f"Fetch it with `moim pull {given}`, or use moim.run({given!r}), which does.",
        )
    raise unknown(name, settings, known.catalog.nearest(given, _names()))


def _names() -> list[str]:
    return [model.name for model in local.local_models()]


class LocalTarget:
    """A model that the engine on this machine runs."""

    def __init__(self, model: LocalModel, settings: Settings) -> None:
        self._model = model
        self._settings = settings
        self._facts = gguf.inspect(model.path)
        self._timeouts = default_timeouts(settings)
        self._preset = preset_of(model, self._facts)
        self._transports: dict[LoadOptions, LocalTransport] = {}

    @property
    def name(self) -> str:
        return f"local/{self._model.name}"

    def call(self, messages: tuple[Message, ...], options: Mapping[str, Any]) -> Call:
        options = {**self._preset.options, **options}
        transport = self._transport(options)
        truncate = _flag(options, "truncate")

        async def prepare(rt: Runtime, request: Request) -> Prepared:
            return Prepared(*await context.prepare(rt, transport, request, truncate=truncate))

        def review(request: Request, reply: Reply) -> tuple[Warned, ...]:
            return (
                *self._preset.warnings,
                *context.context_warnings(request, reply, transport.spec.num_ctx),
            )

        def add_advice(error: MoimError) -> None:
            explain(error, transport.spec)

        return Call(
            provider="local",
            request=make_request(
                self._model.name, _DIALECT, self._preset.conversation(messages), options
            ),
            dialect=registry.find(_DIALECT),
            quirks=LLAMA_CPP,
            endpoint=lambda: _NOWHERE,
            transport=transport,
            timeouts=make_timeouts(options, self._timeouts),
            prepare=prepare,
            review=review,
            explain=add_advice,
            streams=True,
        )

    def _transport(self, options: Mapping[str, Any]) -> LocalTransport:
        load = LoadOptions(
            num_ctx=_number(options, "num_ctx", int),
            threads=_number(options, "threads", int),
            keep_alive=_number(options, "keep_alive", float),
        )
        known = self._transports.get(load)
        if known is None:
            known = self._transports[load] = LocalTransport(
                spec_for(self._facts, load, self._settings, name=self._model.name),
                name=self._model.name,
                http=http(),
                keep_alive=load.keep_alive,
            )
        return known


def _number(options: Mapping[str, Any], name: str, kind: type) -> Any:
    value = options.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if kind is int else int | float):
        raise RequestError(f"The option {name}={value!r} is not a number.")
    return value


def _flag(options: Mapping[str, Any], name: str) -> bool:
    value = options.get(name, False)
    if not isinstance(value, bool):
        raise RequestError(f"The option {name}={value!r} is neither True nor False.")
    return value
