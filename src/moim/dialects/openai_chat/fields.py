"""What both directions of the chat dialect agree on: names, finish reasons, token counts."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from moim.dialects import json_
from moim.errors import DecodeError
from moim.types import FinishReason, Native, TokenLogprob, Usage

__all__ = [
    "FINISH",
    "NAME",
    "decode_base64",
    "decode_finish",
    "decode_logprobs",
    "decode_usage",
    "encode_finish",
    "encode_logprobs",
    "encode_usage",
    "items",
    "json_text",
    "keep_unknown",
    "kept",
    "mapping",
    "native_of",
    "text_or_none",
]

NAME = "openai_chat"

FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",  # Together
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}

_LITERALS: dict[FinishReason | None, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: object) -> list[Any]:
    """The value if it is a JSON list, else an empty one."""
    return value if isinstance(value, list) else []


def kept(native: Native) -> Mapping[str, Any]:
    """What this dialect kept of a value's own fields."""
    return mapping(native.get(NAME))


def text_or_none(value: object) -> str | None:
    """The value if it is a string with something in it."""
    return value if isinstance(value, str) and value else None


def keep_unknown(fields: Mapping[str, Any], known: frozenset[str], kept: dict[str, Any]) -> None:
    """Keep the further fields: the last value of each stays, objects are merged."""
    for name, value in fields.items():
        if name in known or value is None:
            continue
        before = kept.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            value = {**before, **value}
        kept[name] = value


def native_of(fields: Mapping[str, Any]) -> Native:
    """Fields to keep for this dialect; nothing where there are none."""
    return {NAME: dict(fields)} if fields else {}


def json_text(value: object) -> str:
    """JSON text of a value that a server should have sent as text."""
    return json_.dumps(value).decode()


def decode_base64(text: str) -> bytes:
    """The bytes of base64, in either alphabet, padded or not.

    Raises:
        DecodeError: it is none.
    """
    plain = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError("This is not base64.") from None


def decode_finish(word: str | None, calls: bool) -> FinishReason | None:
    """Why it ended, in neutral words.

    Args:
        word: the wire's finish reason, None where it gave none.
        calls: whether the answer holds tool calls: then `stop` means them.
    """
    reason = None if word is None else FINISH.get(word, "other")
    return "tool_calls" if calls and reason in (None, "stop") else reason


def encode_finish(reason: FinishReason | None, native: str | None) -> dict[str, str]:
    """One of the dialect's own words, and the provider's beside it where they differ."""
    word = _LITERALS.get(reason, "stop")
    told = {"finish_reason": word}
    if native and native != word:
        told["native_finish_reason"] = native
    return told


# Where servers put the tokens read from the prompt cache, and written to it.
_CACHE_READ = (
    ("prompt_tokens_details", "cached_tokens"),
    ("cached_tokens",),  # Together, Moonshot
    ("prompt_cache_hit_tokens",),  # DeepSeek
    ("num_cached_tokens",),  # Mistral
    ("prompt_token_details", "cached_tokens"),  # Mistral
    ("cache_read_input_tokens",),  # Vercel's gateway
)
_CACHE_WRITE = (
    ("prompt_tokens_details", "cache_write_tokens"),
    ("cache_write_tokens",),
    ("cache_creation_input_tokens",),  # DashScope, Vercel's gateway
)
_REASONING = (("completion_tokens_details", "reasoning_tokens"), ("reasoning_tokens",))
_AUDIO_IN = (("prompt_tokens_details", "audio_tokens"), ("audio_prompt_tokens",))
_AUDIO_OUT = (("completion_tokens_details", "audio_tokens"),)


def decode_usage(usage: Mapping[str, Any]) -> Usage:
    """Token counts; cached tokens are inside the input, reasoning inside the output."""
    prompt = _count(usage.get("prompt_tokens"))
    output = _count(usage.get("completion_tokens"))
    reasoning = _first(usage, _REASONING)
    if reasoning and prompt is not None and output is not None:
        # xAI counts reasoning beside the completion, others inside it; only the total tells.
        total = _count(usage.get("total_tokens"))
        if total != prompt + output and total == prompt + output + reasoning:
            output += reasoning
    return Usage(
        input_tokens=prompt,
        output_tokens=output,
        cache_read_tokens=_first(usage, _CACHE_READ),
        cache_write_tokens=_first(usage, _CACHE_WRITE),
        reasoning_tokens=reasoning,
        audio_input_tokens=_first(usage, _AUDIO_IN),
        audio_output_tokens=_first(usage, _AUDIO_OUT),
        native={NAME: usage},
    )


def _first(usage: Mapping[str, Any], places: tuple[tuple[str, ...], ...]) -> int | None:
    for place in places:
        value: Any = usage
        for name in place:
            value = value.get(name) if isinstance(value, dict) else None
        count = _count(value)
        if count is not None:
            return count
    return None


def _count(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None


def encode_usage(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object; what a provider told beyond it stays beside the counts."""
    told = dict(kept(usage.native))
    told.update(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
    )
    _details(
        told,
        "prompt_tokens_details",
        cached_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        audio_tokens=usage.audio_input_tokens,
    )
    _details(
        told,
        "completion_tokens_details",
        reasoning_tokens=usage.reasoning_tokens,
        audio_tokens=usage.audio_output_tokens,
    )
    return told


def _details(told: dict[str, Any], name: str, **counts: int | None) -> None:
    known = {key: count for key, count in counts.items() if count is not None}
    details = {**mapping(told.get(name)), **known}
    if details:
        told[name] = details


def decode_logprobs(value: object) -> tuple[TokenLogprob, ...] | None:
    """The log probabilities of a choice; None where it has none."""
    logprobs = mapping(value)
    lists = [logprobs.get(name) for name in ("content", "refusal")]
    if not any(isinstance(tokens, list) for tokens in lists):
        return None
    return tuple(
        TokenLogprob(token, logprob, tuple(_pairs(item.get("top_logprobs"))))
        for tokens in lists
        for item in items(tokens)
        for token, logprob in _pairs([item])
    )


def _pairs(entries: object) -> list[tuple[str, float]]:
    return [
        (entry["token"], float(entry["logprob"]))
        for entry in items(entries)
        if isinstance(entry, dict)
        and isinstance(entry.get("token"), str)
        and isinstance(entry.get("logprob"), int | float)
    ]


def encode_logprobs(tokens: tuple[TokenLogprob, ...]) -> dict[str, Any]:
    """The `logprobs` of a choice."""
    content = [
        {
            **_one(item.token, item.logprob),
            "top_logprobs": [_one(token, logprob) for token, logprob in item.top],
        }
        for item in tokens
    ]
    return {"content": content, "refusal": None}


def _one(token: str, logprob: float) -> dict[str, Any]:
    return {
        "token": token,
        "logprob": logprob,
        "bytes": list(json_.mend(token).encode()),
    }
