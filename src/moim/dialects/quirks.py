"""How servers of one dialect differ, as data.

A provider's row names a `Quirks` value; codecs read it and never ask who the provider is. The
defaults suit a server that nobody has described: what every OpenAI-compatible server takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

__all__ = ["GENERIC", "LLAMA_CPP", "OPENAI", "Quirks"]


class Quirks(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one server wants otherwise than others of its dialect.

    Attributes:
        max_tokens_field: the request field that limits generated tokens.
        system_role: what becomes of `system` and `developer` messages: both named `system`, both
            named `developer`, or each `kept` as the caller wrote it.
        reasoning_field: where earlier reasoning goes in an assistant's turn; None where the
            server wants none back. `thinking` is Mistral's content part.
        thinking: how reasoning effort is asked for: by `reasoning_effort`, by
            `chat_template_kwargs` (llama.cpp), or not at all (None).
        budget_field: the request field that limits reasoning tokens; None where there is none.
        stream_usage: whether a stream must ask for its token count
            (`stream_options.include_usage`).
        sampling: further sampling parameters that the server takes: neutral name → wire name.
        refuses: neutral request fields that the server does not take. Sampling and telemetry
            hints among them are dropped with a warning; a field that would change what the
            answer means (tools, response_format, n, …) is an `UnsupportedError`.
        user_field: the request field for the end user's name.
        empty_content: what stands for the content of an assistant's turn of tool calls alone.
        call_ids: what tool call ids must look like: `any`, at most 40 characters (`max40`), or
            nine letters and digits (`alnum9`). Others are replaced, alike in call and result.
        video: whether `video_url` parts are understood.
        tool_media: whether a tool's result may hold images; else they follow in a user message.
    """

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    system_role: Literal["system", "developer", "kept"] = "system"
    reasoning_field: (
        Literal["reasoning_content", "reasoning", "reasoning_details", "thinking"] | None
    ) = None
    thinking: Literal["reasoning_effort", "chat_template_kwargs"] | None = "reasoning_effort"
    budget_field: str | None = None
    stream_usage: bool = True
    sampling: Mapping[str, str] = {}
    refuses: tuple[str, ...] = ()
    user_field: Literal["user", "safety_identifier"] = "user"
    empty_content: Literal[""] | None = None
    call_ids: Literal["any", "max40", "alnum9"] = "any"
    video: bool = False
    tool_media: bool = False


GENERIC = Quirks()
"""Any OpenAI-compatible server."""

OPENAI = Quirks(
    max_tokens_field="max_completion_tokens",
    system_role="kept",
    user_field="safety_identifier",
    call_ids="max40",
)
"""OpenAI itself: reasoning models refuse `max_tokens`; reasoning is never given back in chat."""

LLAMA_CPP = Quirks(
    reasoning_field="reasoning_content",
    thinking="chat_template_kwargs",
    budget_field="thinking_budget_tokens",
    sampling={"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repeat_penalty"},
    empty_content="",
)
"""llama.cpp's own server, and so the local engine."""
