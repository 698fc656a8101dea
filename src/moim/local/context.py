"""Whether a prompt fits the context of a local model, and how it is cut when it may be.

Tokens are counted by the engine itself, with the model's own template and vocabulary, so the
numbers are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Protocol

import msgspec

from moim.dialects import registry
from moim.dialects.quirks import LLAMA_CPP
from moim.errors import ContextLengthError, DecodeError, UnsupportedError
from moim.local.engines import RunnerSpec
from moim.local.limits import check_request, without_foreign
from moim.runtime import Runtime
from moim.types import Message, Reply, Request, Text, Usage, Warned

__all__ = ["RunningModel", "check_request", "context_warnings", "count_tokens", "fit", "prepare"]

_RESERVE_SHARE = 4  # of the context is left for the answer where max_tokens does not say
_MAX_CUTS = 32  # each brings the prompt nearer to its size; two or three are usual


class RunningModel(Protocol):
    """What is needed of `moim.local.transport.LocalTransport`."""

    name: str
    spec: RunnerSpec

    async def ask(self, rt: Runtime, path: str, body: bytes = b"") -> Any: ...


async def prepare(
    rt: Runtime, model: RunningModel, request: Request, *, truncate: bool = False
) -> tuple[Request, tuple[Warned, ...]]:
    """See that a local model can do what is asked, before it is asked.

    Args:
        truncate: cut a prompt that does not fit, see `fit`; else the engine refuses it.

    Returns:
        The request to send, and what the reply should say was done to it.

    Raises:
        RequestError: a value is out of its range.
        UnsupportedError: the model has no tools, or cannot read pictures or sound.
        ContextLengthError: even cut, the prompt does not fit.
    """
    check_request(request, slots=model.spec.slots)
    request, dropped = without_foreign(request)
    if request.tools:
        await _require_tools(rt, model)
    if not truncate:
        return request, dropped
    request, cut = await fit(rt, model, request)
    return request, (*dropped, *cut)


async def _require_tools(rt: Runtime, model: RunningModel) -> None:
    """The engine ignores tools silently where the model's template has no place for them."""
    properties = await model.ask(rt, "/props")
    if not properties.get("chat_template_caps", {}).get("supports_tools"):
        raise UnsupportedError(
            f"{model.name} does not support tools: its chat template has no place for them.",
            hint="Use a model whose capabilities (`moim show`) include tools.",
        )


async def count_tokens(rt: Runtime, model: RunningModel, request: Request) -> int:
    """How many tokens the prompt has: exactly the reply's `usage.input_tokens`.

    Raises:
        ProviderError: the model's template refuses the conversation.
        RunnerError: the engine does not run.
    """
    body = registry.find("openai_chat").encode_request(request, LLAMA_CPP).body
    prompt = await model.ask(rt, "/apply-template", body)
    return len(await _tokens(rt, model, _field(prompt, "prompt"), special=True))


async def fit(
    rt: Runtime, model: RunningModel, request: Request
) -> tuple[Request, tuple[Warned, ...]]:
    """Cut a prompt so that it fits the context and leaves room for the answer.

    The oldest turns go first: a turn is a user's message with all that answers it, so that no
    tool result loses its call. System messages and the last turn stay; if that is still too
    long, the last user message loses the start of its text. Room is left for `max_tokens`, or
    for a quarter of the context, but never more than half of it.

    Returns:
        The request, and a warning `prompt_truncated` that says what was cut; none if it fitted.

    Raises:
        ContextLengthError: what has to stay does not fit.
    """
    room = model.spec.num_ctx - _reserve(request, model.spec.num_ctx)
    whole = await count_tokens(rt, model, request)
    if whole <= room:
        return request, ()
    shorter, left = await _drop_turns(rt, model, request, room)
    characters = 0
    if left > room:
        shorter, left, characters = await _cut_last(rt, model, shorter, left, room)
    dropped = len(request.messages) - len(shorter.messages)
    return shorter, (_warning(dropped, characters, whole, left, model.spec.num_ctx),)


def context_warnings(request: Request, reply: Reply, num_ctx: int) -> tuple[Warned, ...]:
    """A warning `context_full` if the answer ended because the context did, not `max_tokens`."""
    usage = reply.usage or Usage()
    if reply.finish_reason != "length" or (usage.total_tokens or 0) < num_ctx:
        return ()
    if request.max_tokens is not None and (usage.output_tokens or 0) >= request.max_tokens:
        return ()
    return (
        Warned(
            "context_full",
            f"The answer was cut short: the context of {num_ctx} tokens is full"
            f" ({usage.input_tokens} of the prompt, {usage.output_tokens} of the answer)."
            " Give a larger num_ctx or a shorter prompt.",
        ),
    )


def _reserve(request: Request, num_ctx: int) -> int:
    wanted = request.max_tokens or num_ctx // _RESERVE_SHARE
    return min(wanted, num_ctx // 2)


async def _drop_turns(
    rt: Runtime, model: RunningModel, request: Request, room: int
) -> tuple[Request, int]:
    """Without as few of the oldest turns as will do, and its tokens; without all if need be."""
    turns = _turns(request.messages)
    low, high = 0, len(turns) - 1  # dropping `low` is known to be too few
    shorter = _without(request, turns[:high])
    left = await count_tokens(rt, model, shorter)
    if left > room:
        return shorter, left
    while high - low > 1:
        middle = (low + high) // 2
        tried = _without(request, turns[:middle])
        tokens = await count_tokens(rt, model, tried)
        if tokens > room:
            low = middle
        else:
            high, shorter, left = middle, tried, tokens
    return shorter, left


def _turns(messages: Sequence[Message]) -> list[list[int]]:
    """Indexes of the messages that may go, oldest first, those of one turn together.

    Never empty: the last message is in the last turn, whatever its role.
    """
    turns: list[list[int]] = [[]]
    for index, message in enumerate(messages):
        if message.role in ("system", "developer"):
            continue
        if message.role == "user" and turns[-1]:
            turns.append([])
        turns[-1].append(index)
    return turns


def _without(request: Request, turns: Sequence[Sequence[int]]) -> Request:
    gone = {index for turn in turns for index in turn}
    kept = tuple(m for index, m in enumerate(request.messages) if index not in gone)
    return msgspec.structs.replace(request, messages=kept)


async def _cut_last(
    rt: Runtime, model: RunningModel, request: Request, tokens: int, room: int
) -> tuple[Request, int, int]:
    """With the start of the last user message cut off, its tokens, and the characters cut."""
    index = _last_user(request.messages)
    text = request.messages[index].text if index is not None else ""
    ends = await _token_ends(rt, model, text)
    shorter, excess, skipped = request, tokens - room, 0
    for _ in range(_MAX_CUTS):
        skipped += excess
        if index is None or skipped > len(ends) or (cut := ends[skipped - 1]) == len(text):
            break
        shorter = _with_text_cut(request, index, cut)
        excess = await count_tokens(rt, model, shorter) - room
        if excess <= 0:
            return shorter, excess + room, cut
    raise _cannot_fit(model, tokens, room)


def _last_user(messages: Sequence[Message]) -> int | None:
    return max((n for n, m in enumerate(messages) if m.role == "user"), default=None)


async def _token_ends(rt: Runtime, model: RunningModel, text: str) -> list[int]:
    """For each token of a text how many of its characters have ended with it.

    A character that is split between tokens ends with the last of them.
    """
    if not text:
        return []
    tokens = await _tokens(rt, model, text, special=False)
    # For each byte, how many characters have ended with the one that it belongs to.
    ended = [n for n, char in enumerate(text, 1) for _ in char.encode("utf-8", "surrogatepass")]
    last_bytes = accumulate(len(token) for token in tokens)
    return [ended[min(max(end, 1), len(ended)) - 1] for end in last_bytes]


def _with_text_cut(request: Request, index: int, characters: int) -> Request:
    message = request.messages[index]
    parts = []
    for part in message.parts:
        if isinstance(part, Text):
            kept = part.text[characters:]
            characters = max(0, characters - len(part.text))
            part = msgspec.structs.replace(part, text=kept, citations=())
            if not kept:
                continue
        parts.append(part)
    cut = msgspec.structs.replace(message, parts=tuple(parts))
    messages = (*request.messages[:index], cut, *request.messages[index + 1 :])
    return msgspec.structs.replace(request, messages=messages)


def _cannot_fit(model: RunningModel, tokens: int, room: int) -> ContextLengthError:
    num_ctx = model.spec.num_ctx
    error = ContextLengthError(
        f"The prompt cannot be cut to fit: the system messages and the last turn have {tokens}"
        f" tokens, and {model.name} has a context of {num_ctx}, of which {num_ctx - room} are"
        " kept for the answer.",
        hint=f"Shorten them, ask for fewer max_tokens, or give a num_ctx above {num_ctx}"
        f" ({model.spec.trained} at most).",
        model=model.name,
    )
    error.prompt_tokens, error.context_tokens = tokens, num_ctx
    return error


def _warning(dropped: int, characters: int, before: int, after: int, num_ctx: int) -> Warned:
    cuts = []
    if dropped:
        cuts.append(f"dropped {dropped} message{'s' if dropped > 1 else ''}")
    if characters:
        cuts.append(f"cut {characters} characters from the start of the last user message")
    return Warned(
        "prompt_truncated",
        f"The prompt did not fit the context of {num_ctx} tokens: {' and '.join(cuts)},"
        f" {before - after} of {before} tokens in all.",
    )


async def _tokens(rt: Runtime, model: RunningModel, text: str, *, special: bool) -> list[bytes]:
    """The tokens of a text, each as its bytes.

    `special` reads it as the engine reads a prompt: with the markers that the model starts with,
    and with names of special tokens meaning these tokens.
    """
    body = msgspec.json.encode(
        {"content": text, "add_special": special, "parse_special": special, "with_pieces": True}
    )
    answer = _field(await model.ask(rt, "/tokenize", body), "tokens")
    return [
        piece.encode("utf-8", "surrogatepass") if isinstance(piece := token["piece"], str)
        else bytes(piece)
        for token in answer
    ]  # fmt: skip


def _field(answer: Any, name: str) -> Any:
    if not isinstance(answer, dict) or name not in answer:
        raise DecodeError(f"The engine's answer has no {name!r}.")
    return answer[name]
