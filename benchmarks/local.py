"""Generation and prompt speed through moim beside the same engine asked directly.

    python -m benchmarks.local [--quick] [--rounds N] [--model NAME-OR-PATH]

Both arms have an engine of their own in a child process, with the same settings, and answer the
same questions in turn. A question begins differently in every round, so nothing is remembered;
speeds are what the caller sees.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks import engine
from benchmarks.measure import Options, Table, interleave, pairs, spread, versions

PROMPT_WORDS = 400
TOKENS = 64

EXPECTED = "at least 0.97"

_WORDS = ("river", "stone", "market", "winter", "paper", "garden", "silver", "letter", "window")


def model_path(model: str) -> str | None:
    """The GGUF file of a local model, None where it is not on this machine."""
    from moim.local.library import library

    found = library().find(model)
    return None if found is None else str(found.path)


def absent(title: str, model: str) -> Table:
    """What stands in place of a table that needs a model."""
    return Table(
        title, ("skipped",), [(f"{model} is not on this machine: run `moim pull {model}`",)]
    )


def usable_threads() -> int:
    """As many as moim gives its engine."""
    from moim.local.cores import usable_cores

    return usable_cores() or os.cpu_count() or 1


def tables(options: Options) -> list[Table]:
    title = f"A local model: {options.model}"
    path = model_path(options.model)
    if path is None:
        return [absent(title, options.model)]
    threads = usable_threads()
    words, tokens = options.pick(PROMPT_WORDS, 20), options.pick(TOKENS, 4)
    rounds = options.count(15)
    with engine.serving(path, threads) as address, _moim(path, threads) as ask_moim:
        found = interleave(
            {
                "engine": _questions(partial(engine.ask, address), words, tokens),
                "moim": _questions(ask_moim, words, tokens),
            },
            rounds,
        )
    for direct, ours in zip(found["engine"], found["moim"], strict=True):
        if (direct.text, direct.prompt_tokens) != (ours.text, ours.prompt_tokens):
            raise SystemExit("The two engines did not do the same work; the speeds say nothing.")
    sizes = spread(timing.prompt_tokens for timing in found["moim"])
    notes = [
        f"{rounds} rounds of {sizes.middle:.0f} prompt tokens and {tokens} generated ones.",
        f"{versions('xllamacpp')}, {threads} threads, context {engine.CONTEXT}.",
        "Prompt: tokens by the time to the first piece. Generation: pieces after the first.",
    ]
    rows = [
        _row("prompt, tokens/s", found, "prompt_speed", 0),
        _row("generation, tokens/s", found, "generation_speed", 1),
    ]
    return [Table(title, ("speed", "engine", "moim", "moim / engine", "expected"), rows, notes)]


def _row(name: str, found: dict[str, list[engine.Timing]], field: str, digits: int) -> list[str]:
    direct, ours = ([getattr(t, field) for t in found[arm]] for arm in ("engine", "moim"))
    return [
        name,
        spread(direct).show(digits),
        spread(ours).show(digits),
        pairs(ours, direct).show(3),
        EXPECTED,
    ]


def _questions(
    ask: Callable[[str, int], engine.Timing], words: int, tokens: int
) -> Callable[[], engine.Timing]:
    """Asks another question each time; every arm gets the same row of questions."""
    source = random.Random(1)

    def once() -> engine.Timing:
        return ask(" ".join(source.choices(_WORDS, k=words)), tokens)

    return once


@contextmanager
def _moim(path: str, threads: int) -> Iterator[Callable[[str, int], engine.Timing]]:
    import moim

    model: Any = moim.model(path, num_ctx=engine.CONTEXT, threads=threads)

    def ask(prompt: str, max_tokens: int) -> engine.Timing:
        watch = engine.Watch()
        stream = model.stream(
            prompt, max_tokens=max_tokens, temperature=0, extra={"ignore_eos": True}
        )
        for piece in stream.text():
            watch.piece(piece)
        return watch.timing(stream.reply.native["openai_chat"]["timings"])

    yield ask


if __name__ == "__main__":
    from benchmarks.__main__ import program

    program(tables, __doc__)
