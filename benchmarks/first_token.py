"""The time from starting `moim run MODEL "…"` to its first token, and where it goes.

    python -m benchmarks.first_token [--quick] [--rounds N] [--model NAME-OR-PATH]

Every arm is a fresh process, timed from its start to the first byte that it prints. Each does
all that the one above it does, and something more, so the differences tell the price of a step.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import engine
from benchmarks.local import absent, model_path, usable_threads
from benchmarks.measure import (
    Options,
    Table,
    child_environment,
    interleave,
    pairs,
    spread,
    versions,
)

PROMPT = "What is the capital of South Korea?"

IN_PROCESS = "the engine in a bare process"
OVER_HTTP = "the engine in a bare child, over HTTP"
MOIM_MODEL = "moim in a script"
MOIM_RUN = "`moim run`"

WHAT = {
    "bare Python": "the interpreter",
    IN_PROCESS: "import, load, prompt: the engine's own load time",
    OVER_HTTP: "a second process, its start, HTTP",
    MOIM_MODEL: "imports, names, store, model facts, memory check, runner",
    MOIM_RUN: "the command line",
}


def tables(options: Options) -> list[Table]:
    title = f"From the start of the process to the first token: {options.model}"
    path = model_path(options.model)
    if path is None:
        return [absent(title, options.model)]
    rounds = options.count(10)
    programs = _programs(options.model, path, usable_threads())
    found = interleave({name: partial(_first, argv) for name, argv in programs.items()}, rounds)
    own = found[IN_PROCESS]
    rows = []
    before: list[float] | None = None
    for name, values in found.items():
        more = "" if before is None else pairs(values, before, lambda a, b: a - b).show(0)
        rows.append((name, spread(values).show(0), more, pairs(values, own).show(2), WHAT[name]))
        before = values
    notes = [
        f"{rounds} rounds; {versions('xllamacpp')}; wall time, median (quartiles).",
        "The model's file is in the page cache.",
    ]
    head = ("process", "first output, ms", "more than above, ms", "ratio to bare engine", "what")
    return [Table(title, head, rows, notes)]


def _programs(model: str, path: str, threads: int) -> dict[str, Sequence[str]]:
    python = [sys.executable, "-P"]
    bare = [*python, engine.__file__]
    tail = [path, str(threads), PROMPT]
    script = (
        "import moim, sys\n"
        f"model = moim.model(sys.argv[1], num_ctx={engine.CONTEXT})\n"
        "for piece in model.stream(sys.argv[2], max_tokens=1, temperature=0).text():\n"
        "    print(piece, end='', flush=True)"
    )
    options = ["--num-ctx", str(engine.CONTEXT), "--max-tokens", "1", "--temperature", "0"]
    return {
        "bare Python": [*python, "-c", "print(1)"],
        IN_PROCESS: [*bare, "in-process", *tail],
        OVER_HTTP: [*bare, "over-http", *tail],
        MOIM_MODEL: [*python, "-c", script, model, PROMPT],
        MOIM_RUN: [*python, "-m", "moim", "run", *options, model, PROMPT],
    }


def _first(argv: Sequence[str]) -> float:
    """Milliseconds to the first byte on standard output."""
    begin = time.perf_counter()
    child = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
        cwd=Path.home(),
    )
    assert child.stdout is not None
    piece = os.read(child.stdout.fileno(), 1)
    first = time.perf_counter() - begin
    _, words = child.communicate(timeout=60)
    if child.returncode or not piece:
        raise SystemExit(f"A measured program failed: {' '.join(argv)}\n{words.decode()}")
    return first * 1e3


if __name__ == "__main__":
    from benchmarks.__main__ import program

    program(tables, __doc__)
