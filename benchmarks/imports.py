"""What a program pays to start with moim: the import alone, and up to its first reply.

    python -m benchmarks.imports [--quick] [--rounds N]

Every measurement is a fresh process with a fresh bare Python before it; bare Python is measured
against itself too, which shows what the machine's noise alone makes. Wall and processor time are
of the whole process, as its user waits for it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple

from benchmarks import fake_server
from benchmarks.measure import (
    Options,
    Table,
    child_environment,
    interleave,
    spread,
    versions,
)

BARE = "bare Python"
SETTLE = 3


class Start(NamedTuple):
    """A program that is measured, and the package that it needs besides moim's own."""

    code: str
    needs: str = ""


IMPORTS = {
    BARE: Start("pass"),
    "import moim": Start("import moim"),
    "import openai": Start("import openai", "openai"),
    "import litellm": Start("import litellm", "litellm"),
}

# BASE, ANSWER, PROMPT and ASK are defined in front of each of these.
_URLLIB3 = """
import urllib3
reply = urllib3.PoolManager().request("POST", BASE + "/chat/completions", json=ASK)
assert reply.json()["choices"][0]["message"]["content"] == ANSWER
"""
_MOIM = """
import moim
model = moim.model("m", base=BASE, key="k")
"""
_MOIM_CALL = """
assert model.invoke(PROMPT).text == ANSWER
"""
_OPENAI = """
import openai
client = openai.OpenAI(base_url=BASE, api_key="k", max_retries=0)
"""
_OPENAI_CALL = """
assert client.chat.completions.create(**ASK).choices[0].message.content == ANSWER
"""
_LITELLM = """
import litellm
reply = litellm.completion("openai/m", ASK["messages"], api_base=BASE, api_key="k", max_retries=0)
assert reply.choices[0].message.content == ANSWER
"""

FIRST_REPLY = {
    BARE: Start("pass"),
    "urllib3, one POST": Start(_URLLIB3),
    "moim.model(…), no call": Start(_MOIM),
    "moim.model(…).invoke(…)": Start(_MOIM + _MOIM_CALL),
    "OpenAI(…), no call": Start(_OPENAI, "openai"),
    "OpenAI(…).chat…create(…)": Start(_OPENAI + _OPENAI_CALL, "openai"),
    "litellm.completion(…)": Start(_LITELLM, "litellm"),
}


class Cost(NamedTuple):
    """Milliseconds of one process."""

    wall: float
    cpu: float


class Pair(NamedTuple):
    """A process, and the bare Python that ran just before it."""

    bare: Cost
    own: Cost


def tables(options: Options) -> list[Table]:
    with fake_server.running() as address:
        setup = _setup(address)
        first = {
            name: start._replace(code=setup + start.code) for name, start in FIRST_REPLY.items()
        }
        expected = {"import moim": "under 5 ms above Python"}
        return [
            _table("Import, a fresh process each", IMPORTS, options, expected),
            _table("Up to the first reply, a fresh process each", first, options, {}),
        ]


def _setup(address: str) -> str:
    prompt = "What is the capital of South Korea?"
    ask = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    known = {
        "BASE": f"{address}/whole", "ANSWER": fake_server.ANSWER, "PROMPT": prompt, "ASK": ask
    }  # fmt: skip
    return "".join(f"{name} = {value!r}\n" for name, value in known.items())


def _table(
    title: str, programs: Mapping[str, Start], options: Options, expected: Mapping[str, str]
) -> Table:
    needs = {start.needs for start in programs.values() if start.needs}
    absent = sorted(name for name in needs if find_spec(name) is None)
    arms = {
        name: partial(_pair, start.code)
        for name, start in programs.items()
        if start.needs not in absent
    }
    rounds = options.count(20)
    # One round first fills the caches of files and of compiled modules.
    found = interleave(arms, rounds)
    notes = [
        f"{rounds} rounds; {versions('openai', 'litellm')}; median (quartiles).",
        "Above, and the ratio: to the bare Python just before.",
        *(f"{name} is not installed here: `make bench` installs it." for name in absent),
    ]
    rows = [
        (
            name,
            spread(pair.own.wall for pair in each).show(),
            spread(pair.own.cpu for pair in each).show(),
            spread(pair.own.wall - pair.bare.wall for pair in each).show(),
            spread(pair.own.cpu - pair.bare.cpu for pair in each).show(),
            spread(pair.own.cpu / pair.bare.cpu for pair in each).show(2),
            expected.get(name, ""),
        )
        for name, each in found.items()
    ]
    head = ("process", "wall ms", "CPU ms", "wall above", "CPU above", "CPU ratio", "expected")
    return Table(title, head, rows, notes)


def _pair(code: str) -> Pair:
    # Whatever ran before (litellm empties the processor's caches) must not weigh on the first.
    for _ in range(SETTLE):
        _spawn("pass")
    return Pair(bare=_spawn("pass"), own=_spawn(code))


def _spawn(code: str) -> Cost:
    # -P: the clone's own folders must not be found as modules.
    argv = [sys.executable, "-P", "-c", code]
    begin = time.perf_counter()
    child = os.posix_spawn(sys.executable, argv, child_environment())
    _, status, used = os.wait4(child, 0)
    wall = time.perf_counter() - begin
    if status:
        raise SystemExit(f"A measured program failed (wait status {status}):\n{code}")
    return Cost(wall * 1e3, (used.ru_utime + used.ru_stime) * 1e3)


if __name__ == "__main__":
    from benchmarks.__main__ import program

    program(tables, __doc__)
