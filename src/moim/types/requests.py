"""What is asked of a chat model, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from moim.types.messages import (
    Message,
    Native,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
)

__all__ = [
    "Alternative",
    "FinishReason",
    "JSONFormat",
    "Reply",
    "Request",
    "Thinking",
    "TokenLogprob",
    "Tool",
    "ToolChoice",
    "Usage",
    "Warned",
]

FinishReason: TypeAlias = Literal[
    "stop", "length", "tool_calls", "content_filter", "pause", "error", "other"
]


class Tool(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function that the model may call.

    Attributes:
        name: what the model calls it.
        description: what it does, for the model.
        parameters: JSON Schema of its arguments.
        strict: whether arguments must follow the schema to the letter; None leaves it open.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = msgspec.field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )
    strict: bool | None = None
    native: Native = {}


class ToolChoice(Struct, frozen=True, omit_defaults=True):
    """Whether tools may, must or must not be called; `name` forces one of them."""

    mode: Literal["auto", "none", "required"] = "auto"
    name: str | None = None


class JSONFormat(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer must be JSON: any JSON object, or one that follows `schema`."""

    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    description: str | None = None
    strict: bool | None = None


class Thinking(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much the model may reason.

    Attributes:
        effort: `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`.
        budget: tokens at the most.
        show: whether thoughts or a summary are wanted in the reply.
    """

    effort: str | None = None
    budget: int | None = None
    show: bool | None = None


class Request(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A chat request, neutral between providers. None always means "as the provider likes".

    Attributes:
        model: the provider's own name of the model, without moim's provider prefix.
        messages: the conversation.
        max_tokens: tokens that may be generated.
        temperature, top_p, top_k, min_p: sampling.
        stop: texts that end the answer.
        seed: of the sampler.
        frequency_penalty, presence_penalty, repeat_penalty: against repetition.
        n: number of answers; the first is the reply, the others are `Reply.alternatives`.
        logprobs, top_logprobs: whether, and for how many candidates a token.
        tools, tool_choice, parallel_tool_calls: tool use.
        response_format: JSON output.
        thinking: reasoning effort or budget.
        stream: whether the reply comes piece by piece. Never part of what is asked.
        user, metadata, service_tier: telemetry and price class.
        extra: parameters that only one dialect knows: dialect → JSON object.
        native: request fields that a decoder found and did not understand, by dialect.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repeat_penalty: float | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: JSONFormat | None = None
    thinking: Thinking | None = None
    stream: bool = False
    user: str | None = None
    metadata: Mapping[str, str] | None = None
    service_tier: str | None = None
    extra: Mapping[str, Mapping[str, Any]] = {}
    native: Native = {}


class Usage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens counted by whoever ran the model. A counter that nobody sent is None, not 0.

    Attributes:
        input_tokens: every token of the prompt, cached ones included.
        output_tokens: every generated token, reasoning included.
        cache_read_tokens, cache_write_tokens: the part of the input read from or written to the
            provider's prompt cache.
        reasoning_tokens: the part of the output that is reasoning.
        audio_input_tokens, audio_output_tokens: the parts that are sound.
        native: the provider's own usage object.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    native: Native = {}

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None where either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


class TokenLogprob(Struct, frozen=True, omit_defaults=True):
    """One generated token, its natural log probability, and its rivals (token, logprob)."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


class Warned(Struct, frozen=True, omit_defaults=True):
    """Something was done other than asked and the caller should know.

    Attributes:
        code: a stable word, such as `param_dropped` or `prompt_truncated`.
        text: the whole story for a person.
    """

    code: str
    text: str


class Alternative(Struct, frozen=True, omit_defaults=True):
    """A further answer of a request with `n` > 1."""

    index: int
    parts: tuple[Part, ...]
    finish_reason: FinishReason | None = None
    native_finish_reason: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None


class Reply(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A model's whole answer: the fold of its events.

    Attributes:
        id: the provider's name of the answer.
        model: the model that answered, in the provider's words.
        parts: what was said, in order.
        finish_reason: why it ended, in neutral words.
        native_finish_reason: the same in the provider's words.
        stop_sequence: the stop text that was met, where the provider says it.
        usage: tokens; None where the provider sent no count at all.
        cost: money in US dollars; None while unknown.
        cached: whether it came from a response cache.
        warnings: what was done other than asked.
        alternatives: the further answers of a request with `n` > 1.
        logprobs: of the generated tokens, where asked.
        created: seconds since 1970, by the provider's clock.
        native: fields that only one dialect knows, by dialect.
    """

    id: str = ""
    model: str = ""
    parts: tuple[Part, ...] = ()
    finish_reason: FinishReason | None = None
    native_finish_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage | None = None
    cost: Decimal | None = None
    cached: bool = False
    warnings: tuple[Warned, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
    created: float | None = None
    native: Native = {}

    @property
    def text(self) -> str:
        """All text parts joined."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def reasoning(self) -> str:
        """All reasoning texts joined."""
        return "".join(p.text for p in self.parts if isinstance(p, Reasoning) and p.text)

    @property
    def refusal(self) -> str | None:
        """The model's words for refusing, or None."""
        texts = [part.text for part in self.parts if isinstance(part, Refusal)]
        return "".join(texts) if texts else None

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The tool calls, in order."""
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def message(self) -> Message:
        """The answer as the assistant's turn of a conversation."""
        return Message("assistant", self.parts)

    def warned(self, *warnings: Warned) -> Reply:
        """The same reply with further warnings."""
        return msgspec.structs.replace(self, warnings=(*self.warnings, *warnings))

    def __str__(self) -> str:
        return self.text
