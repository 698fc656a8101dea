"""Streams one answer to standard output, and measures it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from moim.cli.terminal import note, write
from moim.client import Stream
from moim.types import Reply

__all__ = ["Timings", "after_answer", "stream_answer", "timings_of", "verbose_lines"]

_CUT = {
    "length": "The answer ends here because it reached max_tokens or the end of the context.",
    "content_filter": "The answer was cut by the provider's content filter.",
}


class Timings(Struct, frozen=True, kw_only=True):
    """Seconds and speeds of one answer; None is unknown.

    Attributes:
        load: starting the engine and loading the model, or finding it loaded.
        first_token: from the call to the first piece of the answer, `load` included.
        prompt: reading the prompt, without the tokens that were cached.
        generation: making the answer.
        total: from the call to the end of the answer.
        prompt_tokens: tokens that were read in `prompt`.
        prompt_per_second, generation_per_second: tokens a second.
        measured_by: `engine` where the engine's own clock gave the speeds, else `client`.
    """

    load: float | None = None
    first_token: float | None = None
    prompt: float | None = None
    generation: float | None = None
    total: float | None = None
    prompt_tokens: int | None = None
    prompt_per_second: float | None = None
    generation_per_second: float | None = None
    measured_by: str = "client"


def stream_answer(stream: Stream) -> Reply:
    """Write the answer as it comes, and a line end behind it.

    Raises:
        MoimError: the error that ended it; what came before has been written.
    """
    last = ""
    try:
        for piece in stream.text():
            write(piece)
            last = piece
    finally:
        if last and not last.endswith("\n"):
            write("\n")
    return stream.reply


def after_answer(reply: Reply) -> None:
    """Say on standard error what a reader of the answer should know about it."""
    if reply.refusal is not None:
        note(f"The model refused: {reply.refusal}")
    if reply.finish_reason in _CUT:
        note(f"note: {_CUT[reply.finish_reason]}")
    for warning in reply.warnings:
        note(f"warning: {warning.text}")


def timings_of(reply: Reply, first_token: float | None, total: float | None) -> Timings:
    """The times of an answer: the engine's own where it tells them, else ours.

    Args:
        reply: the whole reply.
        first_token: seconds from the call to its first piece.
        total: seconds from the call to its end.
    """
    engine = _engine_times(reply)
    if engine is not None:
        return _by_engine(engine, first_token, total)
    generation = None if first_token is None or total is None else total - first_token
    made = reply.usage.output_tokens if reply.usage else None
    return Timings(
        first_token=first_token,
        generation=generation,
        total=total,
        # The first token came with the first piece: the clock ran for the others.
        generation_per_second=(made - 1) / generation if generation and made else None,
    )


def _engine_times(reply: Reply) -> Mapping[str, Any] | None:
    """llama.cpp's `timings` object, in milliseconds."""
    for fields in reply.native.values():
        times = fields.get("timings") if isinstance(fields, Mapping) else None
        if isinstance(times, Mapping) and _number(times, "predicted_ms") is not None:
            return times
    return None


def _number(times: Mapping[str, Any], name: str) -> float | None:
    value = times.get(name)
    return float(value) if isinstance(value, int | float) else None


def _by_engine(times: Mapping[str, Any], first_token: float | None, total: float | None) -> Timings:
    prompt = (_number(times, "prompt_ms") or 0.0) / 1000
    generation = (_number(times, "predicted_ms") or 0.0) / 1000
    busy = prompt + generation
    count = _number(times, "prompt_n")
    return Timings(
        load=None if total is None else max(total - busy, 0.0),
        first_token=first_token,
        prompt=prompt,
        generation=generation,
        total=total,
        prompt_tokens=None if count is None else int(count),
        prompt_per_second=_number(times, "prompt_per_second"),
        generation_per_second=_number(times, "predicted_per_second"),
        measured_by="engine",
    )


def verbose_lines(reply: Reply, times: Timings) -> list[str]:
    """What `--verbose` prints."""
    usage = reply.usage
    asked = usage.input_tokens if usage else None
    read = asked if times.prompt_tokens is None else times.prompt_tokens
    cached = usage.cache_read_tokens if usage else None
    made = usage.output_tokens if usage else None
    rows = (
        ("load", None, times.load, None),
        ("first token", None, times.first_token, None),
        ("prompt", read, times.prompt, times.prompt_per_second),
        ("cached", cached or None, None, None),
        ("answer", made, times.generation, times.generation_per_second),
        ("total", None, times.total, None),
    )
    return [_line(*row) for row in rows if any(value is not None for value in row[1:])]


def _line(label: str, tokens: int | None, seconds: float | None, speed: float | None) -> str:
    cells = (
        f"{label + ':':<13}",
        "" if tokens is None else f"{tokens} tokens",
        "" if seconds is None else f"{seconds:.2f} s",
        "" if speed is None else f"{speed:.1f} tokens/s",
    )
    return f"{cells[0]}{cells[1]:>12}{cells[2]:>11}{cells[3]:>17}".rstrip()
