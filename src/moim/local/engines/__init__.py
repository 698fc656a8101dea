"""What an engine is: a child program that serves one model on loopback.

The program is told what to load by one line of JSON on its standard input, answers with one line
of JSON on its standard output when it is ready or has failed, serves until its standard input
ends, and speaks HTTP under a random key: `/chat/completions` (OpenAI's dialect), `/tokenize`,
`/apply-template` and `/props`. Whatever does that can be run by `moim.local.runner`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from msgspec import Struct

from moim.config import Settings
from moim.errors import ConfigError, ModelFileError, RequestError
from moim.local.cores import usable_cores

if TYPE_CHECKING:
    from moim.local.gguf import ModelFacts

__all__ = ["DEFAULT_CONTEXT", "Engine", "Launch", "LoadOptions", "RunnerSpec", "engine", "spec_for"]

KVType = Literal["f16", "q8_0", "q4_0"]

DEFAULT_CONTEXT = 4096
"""Tokens of context where nobody asks for more: what most chats need, and cheap in memory."""

_CONTEXT_STEP = 256
"""llama.cpp rounds a context up to a multiple of this; doing it here keeps both in agreement."""

_SLOTS = range(1, 65)
_BATCH = range(32, 4097)


class LoadOptions(Struct, frozen=True, kw_only=True):
    """How a model is to be loaded. Another value of any but `keep_alive` is another runner.

    Attributes:
        num_ctx: context of each slot in tokens; None is min(trained, 4096) or the setting.
        slots: requests answered at the same time, each with a context of its own.
        threads: None is the number of physical cores; more than that is never used, for it
            is several times slower.
        batch: tokens of a prompt that are read at once.
        kv_type: type of the key-value cache; `q8_0` takes about half the memory of `f16`.
        flash_attention: None lets the engine choose.
        gpu_layers: layers on the GPU; None is as many as fit.
        keep_alive: seconds that the runner stays after its last call, 0 ends it at once,
            negative keeps it for ever; None is the setting.
    """

    num_ctx: int | None = None
    slots: int = 1
    threads: int | None = None
    batch: int = 512
    kv_type: KVType = "f16"
    flash_attention: bool | None = None
    gpu_layers: int | None = None
    keep_alive: float | None = None


_AS_USUAL = LoadOptions()
_DEFAULTS = Settings()


class RunnerSpec(Struct, frozen=True, kw_only=True):
    """Everything that makes one runner differ from another: the key of the pool.

    Attributes:
        path: of the model file, absolute.
        size, modified: of that file, in bytes and nanoseconds, so that a file which was
            replaced is not answered from the old one.
        num_ctx: tokens of context of each slot, exactly as the engine has it.
        trained: tokens of context that the model was trained for: the most that can be asked.
        threads: None leaves the number to the engine.
        engine: name of the engine.
    """

    path: str
    size: int
    modified: int
    num_ctx: int
    trained: int
    slots: int = 1
    threads: int | None = None
    batch: int = 512
    kv_type: KVType = "f16"
    flash_attention: bool | None = None
    gpu_layers: int | None = None
    engine: str = "llama_cpp"


class Launch(Struct, frozen=True, kw_only=True):
    """How to start an engine's program.

    Attributes:
        argv: the program and its arguments; nothing secret is among them.
        environment: all of its environment.
        config: the line for its standard input, which holds the key.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    config: bytes

    def __repr__(self) -> str:
        return f"Launch(argv={self.argv!r}, config=<{len(self.config)} bytes>)"


class Engine(Protocol):
    """A kind of child program."""

    @property
    def name(self) -> str: ...

    def launch(self, spec: RunnerSpec, name: str, key: str) -> Launch:
        """How to start it for this model; `name` is what its replies call the model.

        Raises:
            MissingExtra: the engine is not installed here.
        """
        ...

    def reason(self, words: str) -> str:
        """What of its log tells why it could not load a model, or an empty string."""
        ...

    def last_words(self, words: str) -> str:
        """What of its log tells why it died while it served, or an empty string."""
        ...


def _llama_cpp() -> Engine:
    from moim.local.engines.llama_cpp import LlamaCpp

    return LlamaCpp()


_ENGINES: dict[str, Callable[[], Engine]] = {"llama_cpp": _llama_cpp}


def engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        ConfigError: there is none.
    """
    make = _ENGINES.get(name)
    if make is None:
        raise ConfigError(f"There is no engine {name!r}.", hint=f"Engines: {', '.join(_ENGINES)}.")
    return make()


def spec_for(
    facts: ModelFacts,
    options: LoadOptions = _AS_USUAL,
    settings: Settings = _DEFAULTS,
    *,
    name: str | None = None,
) -> RunnerSpec:
    """The runner that serves this model with these options.

    A context that the caller names is exact or refused; the one in the settings, which is meant
    for every model, is cut to what the model was trained for.

    Args:
        name: what messages call the model; None is its file's name, which in a store is a hash.

    Raises:
        RequestError: an option is out of its range; the message gives it.
        ModelFileError: the file has gone, or only goes with a model (an adapter, a projector).
    """
    _check(options)
    path = facts.path.absolute()
    if facts.kind != "model":
        raise ModelFileError(
            f"{name or path} is of the kind {facts.kind!r}, which goes with a model and is none"
            " itself.",
            hint="Give the model's own file.",
        )
    stat = _stat(path)
    return RunnerSpec(
        path=str(path),
        size=stat.st_size,
        modified=stat.st_mtime_ns,
        num_ctx=_context(facts, options, settings, name or path.name),
        trained=facts.context_length or DEFAULT_CONTEXT,
        slots=options.slots,
        threads=_threads(options.threads or settings.threads),
        batch=options.batch,
        kv_type=options.kv_type,
        flash_attention=options.flash_attention,
        gpu_layers=options.gpu_layers,
    )


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from None


def _check(options: LoadOptions) -> None:
    if options.slots not in _SLOTS:
        raise RequestError(f"slots is {options.slots}.", hint="Give 1 to 64.")
    if options.batch not in _BATCH:
        raise RequestError(f"batch is {options.batch}.", hint="Give 32 to 4096.")
    if options.kv_type not in ("f16", "q8_0", "q4_0"):
        raise RequestError(f"kv_type is {options.kv_type!r}.", hint="Give f16, q8_0 or q4_0.")
    if options.kv_type != "f16" and options.flash_attention is False:
        raise RequestError(
            f"kv_type {options.kv_type} needs flash attention.",
            hint="Leave flash_attention out, or use kv_type f16.",
        )
    if options.threads is not None and options.threads < 1:
        raise RequestError(f"threads is {options.threads}.", hint="Give 1 or more.")
    if options.keep_alive is not None and not math.isfinite(options.keep_alive):
        raise RequestError(
            f"keep_alive is {options.keep_alive}.", hint="Give seconds; -1 keeps the model loaded."
        )


def _context(facts: ModelFacts, options: LoadOptions, settings: Settings, name: str) -> int:
    trained = facts.context_length or DEFAULT_CONTEXT
    if options.num_ctx is None:
        return _rounded(min(settings.num_ctx or DEFAULT_CONTEXT, trained), trained)
    if not 1 <= options.num_ctx <= trained:
        raise RequestError(
            f"num_ctx is {options.num_ctx}, but {name} was trained for a context"
            f" of {trained} tokens.",
            hint=f"Give 1 to {trained}.",
        )
    return _rounded(options.num_ctx, trained)


def _rounded(tokens: int, trained: int) -> int:
    up = -(-max(tokens, 1) // _CONTEXT_STEP) * _CONTEXT_STEP
    return up if up <= trained else max(_CONTEXT_STEP, up - _CONTEXT_STEP)


def _threads(wanted: int | None) -> int | None:
    cores = usable_cores()
    if cores is None or wanted is None:
        return wanted or cores
    return min(wanted, cores)
