"""How a model is to be asked, as whoever published it wants it: its preset.

Ollama keeps a model's parameters, system message, example messages and template beside its weights.
What of that moim cannot apply is said on every reply, or is an error where the answers would be
another model's: they never differ in silence from what the model gives elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from moim.errors import ModelFileError, UnsupportedError
from moim.local import limits
from moim.types import Message, Warned, to_messages

if TYPE_CHECKING:
    from moim.local.gguf import ModelFacts
    from moim.local.library import LocalModel

__all__ = ["Preset", "preset_of"]

_OPTIONS = {
    "frequency_penalty": "frequency_penalty",
    "min_p": "min_p",
    "num_ctx": "num_ctx",
    "num_predict": "max_tokens",
    "num_thread": "threads",
    "presence_penalty": "presence_penalty",
    "repeat_last_n": "repeat_last_n",
    "repeat_penalty": "repeat_penalty",
    "seed": "seed",
    "stop": "stop",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "typical_p": "typical_p",
}
"""Ollama's name of a parameter and moim's of the same option."""

_EXTRA = frozenset(("repeat_last_n", "typical_p"))
"""Those that are options of llama.cpp alone."""

_WITHOUT_EFFECT = frozenset((
    "draft_num_predict", "embedding_only", "f16_kv", "gqa", "logits_all", "low_vram", "main_gpu",
    "mirostat", "mirostat_eta", "mirostat_tau", "num_batch", "num_gpu", "num_keep", "numa",
    "penalize_newline", "rope_frequency_base", "rope_frequency_scale", "tfs_z", "use_mlock",
    "use_mmap", "vocab_only",
))  # fmt: skip
"""Parameters that Ollama ignores, or that change an engine's speed and memory, not its answers."""

_UNLIMITED = {"num_predict": -1, "num_thread": 0}
"""At or below this value the parameter means the same as none."""

_SYSTEM = ("system", "developer")
_RAW_TEMPLATE = "{{ .Prompt }}"


class Preset(Struct, frozen=True, kw_only=True):
    """How to ask one model.

    Attributes:
        options: of a call, by moim's names; what the caller gives comes before them.
        system: the system message of conversations that begin with none; empty for none.
        examples: messages that stand before every conversation.
        warnings: what moim does otherwise than the publisher wants, for every reply.
    """

    options: Mapping[str, Any] = {}
    system: str = ""
    examples: tuple[Message, ...] = ()
    warnings: tuple[Warned, ...] = ()

    def conversation(self, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        """The messages to send: a system message first, then the examples, then the rest."""
        count = next((n for n, m in enumerate(messages) if m.role not in _SYSTEM), len(messages))
        first = messages[:count]
        if not first and self.system:
            first = to_messages([("system", self.system)])
        return (*first, *self.examples, *messages[count:])


def preset_of(model: LocalModel, facts: ModelFacts) -> Preset:
    """The preset of a model that shall chat.

    Args:
        model: as the library found it.
        facts: what its file says.

    Raises:
        UnsupportedError: it makes embeddings and no text.
        ModelFileError: it needs something beside its file that moim cannot apply, without which
            its answers would be another model's.
    """
    _require_chat(model, facts)
    options, warnings = _options(model, facts)
    return Preset(
        options=options,
        system=model.system,
        examples=to_messages(model.messages) if model.messages else (),
        warnings=(*_template_warnings(model, facts), *warnings),
    )


def _require_chat(model: LocalModel, facts: ModelFacts) -> None:
    if "completion" not in facts.capabilities:
        raise UnsupportedError(
            f"{model.name} cannot chat: it is a model for {' and '.join(facts.capabilities)}.",
            hint="Choose a model that can do completion (`moim show` says so).",
        )
    if model.adapter:
        raise ModelFileError(
            f"{model.name} is a model with a LoRA adapter, which moim cannot apply yet.",
            hint="Merge the adapter into the model's GGUF file, or run it with Ollama.",
        )


def _template_warnings(model: LocalModel, facts: ModelFacts) -> tuple[Warned, ...]:
    wanted = model.renderer or model.template.strip() not in ("", _RAW_TEMPLATE)
    if facts.chat_template is None:
        if wanted:
            raise ModelFileError(
                f"{model.name} brings its chat template in Ollama's form, which moim cannot apply"
                " yet, and its GGUF file has none of its own.",
                hint="Use a GGUF file of it that has a chat template, or run it with Ollama.",
            )
        return (_no_template(model),)
    if not wanted:
        return ()
    return (
        Warned(
            "template_ignored",
            f"{model.name} brings a chat template in Ollama's form, which moim cannot apply yet;"
            " the template in its GGUF file was used.",
        ),
    )


def _no_template(model: LocalModel) -> Warned:
    return Warned(
        "template_missing",
        f"{model.name} has no chat template, as models that only continue a text; it was asked in"
        " the form ChatML, which it may not know.",
    )


def _options(model: LocalModel, facts: ModelFacts) -> tuple[dict[str, Any], tuple[Warned, ...]]:
    options: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in model.params.items():
        if name in _WITHOUT_EFFECT or value is None or _means_none(name, value):
            continue
        option = _OPTIONS.get(name)
        value = _value(name, value, facts)
        if option is None or not limits.is_allowed(option, value):
            dropped.append(name)
        elif option in _EXTRA:
            options.setdefault("extra", {})[option] = value
        else:
            options[option] = value
    if not dropped:
        return options, ()
    text = f"Of the parameters that {model.name} brings moim cannot use {limits.listed(dropped)}."
    return options, (Warned("param_dropped", text),)


def _means_none(name: str, value: object) -> bool:
    least = _UNLIMITED.get(name)
    return least is not None and isinstance(value, int) and value <= least


def _value(name: str, value: Any, facts: ModelFacts) -> Any:
    """A parameter's value as the option takes it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON that other programs wrote does not tell 40 from 40.0
    if name == "stop":
        return [value] if isinstance(value, str) else value
    if name == "num_ctx" and isinstance(value, int) and facts.context_length:
        return min(value, facts.context_length)  # as Ollama does
    return value
