"""The client's processor time of one call and of one streamed event.

    python -m benchmarks.calls [--quick] [--rounds N]

Every client is a process of its own and has the same exchange with the same server, which is
another process and speaks canned bytes. The bare clients read the bytes and parse nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TypeAlias

from benchmarks import fake_server
from benchmarks.measure import (
    ROOT,
    Options,
    Table,
    child_environment,
    interleave,
    pairs,
    spread,
    versions,
)

SHORT, LONG = 64, 512
WHOLE, STREAM, LONG_STREAM, PACED = "whole", f"burst-{SHORT}", f"burst-{LONG}", f"paced-{SHORT}"

# How many exchanges of each kind a round measures.
COUNTS = {WHOLE: 100, STREAM: 40, LONG_STREAM: 10, PACED: 10}

PACKAGES = {"openai": "openai", "openai async": "openai"}

# The bare client that moim stands on comes first, moim second, then the others.
SYNC_NAMES = ("urllib3", "moim", "openai", "http.client")
ASYNC_NAMES = ("aiohttp", "moim async", "openai async")

EXPECTED = "at most 0.1 of openai"

Found: TypeAlias = Mapping[str, Mapping[str, list[float]]]
"""Microseconds by kind and client, round by round."""


class Client:
    """A worker process that makes exchanges when told."""

    def __init__(self, name: str, process: subprocess.Popen[str]) -> None:
        self.name = name
        self._process = process

    def _ask(self, order: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        if not (answer := self._process.stdout.readline()):
            raise SystemExit(f"The client {self.name} ended; its error is above.")
        return answer

    def check(self, kind: str) -> None:
        """See that the client gets the whole answer; also opens its connection."""
        if json.loads(self._ask(f"check {kind}")) != fake_server.text_of(kind):
            raise SystemExit(f"The client {self.name} did not read the answer of {kind}.")

    def measure(self, kind: str, count: int) -> float:
        """Microseconds of processor time for one exchange."""
        return float(self._ask(f"{kind} {count}"))


@contextmanager
def client(name: str, address: str) -> Iterator[Client]:
    """A worker process, ended afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.call_worker", name, address],
        cwd=ROOT,
        env=child_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Client(name, process)
    finally:
        process.communicate(timeout=30)


def tables(options: Options) -> list[Table]:
    absent = {name for name, need in PACKAGES.items() if find_spec(need) is None}
    names = [name for name in (*SYNC_NAMES, *ASYNC_NAMES) if name not in absent]
    rounds = options.count(15)
    with fake_server.running() as address, ExitStack() as stack:
        clients = [stack.enter_context(client(name, address)) for name in names]
        found = _measure(clients, rounds, options)
    counts = ", ".join(f"{options.pick(count, 2)} {kind}" for kind, count in COUNTS.items())
    notes = [
        f"{rounds} rounds of {counts}; {versions('urllib3', 'aiohttp', 'openai')}.",
        "µs of the client's processor time, median (quartiles); ratios within a round.",
        *(["openai is not installed here: `make bench` installs it."] if absent else []),
    ]
    return [
        _table("Sync: one exchange", found, [n for n in SYNC_NAMES if n in names], notes),
        _table("Async: one exchange", found, [n for n in ASYNC_NAMES if n in names], notes),
    ]


def _measure(clients: Sequence[Client], rounds: int, options: Options) -> Found:
    """Every round has all clients at all kinds of exchange, kind by kind."""
    arms = {
        (kind, each.name): partial(each.measure, kind, options.pick(count, 2))
        for kind, count in COUNTS.items()
        for each in clients
    }
    for each in clients:
        for kind in COUNTS:
            each.check(kind)
    values = interleave(arms, rounds)
    return {kind: {each.name: values[kind, each.name] for each in clients} for kind in COUNTS}


def _further(found: Found) -> dict[str, list[float]]:
    """What one event more costs: the long stream less the short one, for each event between."""
    return {
        name: [
            (b - a) / (LONG - SHORT) for a, b in zip(short, found[LONG_STREAM][name], strict=True)
        ]
        for name, short in found[STREAM].items()
    }


def _table(title: str, found: Found, names: Sequence[str], notes: Sequence[str]) -> Table:
    bare, ours, *others = names
    rows = [
        _row("one `invoke`", found[WHOLE], names, "", digits=0),
        _row(f"a stream of {SHORT} events, at once", found[STREAM], names, EXPECTED, digits=0),
        _row("each further event of it", _further(found), names, EXPECTED, digits=2),
        _row(f"a stream of {SHORT} events, 1 ms apart", found[PACED], names, EXPECTED, digits=0),
    ]
    ratios = [f"{ours} / {name}" for name in (bare, *others[:1])]
    return Table(title, ("exchange", *names, f"{ours} − {bare}", *ratios, "expected"), rows, notes)


def _row(
    name: str,
    found: Mapping[str, list[float]],
    names: Sequence[str],
    expected: str,
    digits: int,
) -> list[str]:
    bare, ours, *others = names
    above = pairs(found[ours], found[bare], how=lambda a, b: a - b)
    ratios = [pairs(found[ours], found[other]).show(3) for other in (bare, *others[:1])]
    cells = [spread(found[client]).show(digits) for client in names]
    return [name, *cells, above.show(digits), *ratios, expected]


if __name__ == "__main__":
    from benchmarks.__main__ import program

    program(tables, __doc__)
