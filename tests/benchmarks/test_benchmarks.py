"""The benchmark programs work: tiny counts, real processes, and never a word about speed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NUMBER = re.compile(r"\d")

pytestmark = pytest.mark.skipif(not hasattr(os, "wait4"), reason="the benchmarks are for POSIX")


@pytest.fixture(autouse=True)
def clone_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


def rows(output: str) -> dict[str, list[str]]:
    """First cell of every Markdown row, with the others."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in output.splitlines()
        if line.startswith("| ")
    ]
    return {first: rest for first, *rest in cells}


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from moim.testing import tiny_gguf

    return tiny_gguf.write(tmp_path_factory.mktemp("model") / "tiny.gguf", context_length=4096)


def test_imports_prints_a_row_for_each_start() -> None:
    done = run("benchmarks.imports", "--quick", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    for name in ("bare Python", "import moim", "moim.model(…).invoke(…)"):
        assert NUMBER.search(found[name][0]), found
    assert "under 5 ms above Python" in found["import moim"]


def test_calls_prints_both_colours_and_every_exchange() -> None:
    done = run("benchmarks.calls", "--quick", "--rounds", "1")
    assert done.returncode == 0, done.stderr
    for title in ("### Sync", "### Async"):
        table = done.stdout.partition(title)[2].partition("###")[0]
        found = rows(table)
        assert len(found) == 5, table
        assert all(NUMBER.search(cell) for cell in found["one `invoke`"][:3]), table


def test_local_compares_moim_with_the_engine(tiny_model: Path) -> None:
    done = run("benchmarks.local", "--quick", "--rounds", "1", "--model", str(tiny_model))
    assert done.returncode == 0, done.stderr
    found = rows(done.stdout)
    for name in ("prompt, tokens/s", "generation, tokens/s"):
        assert all(NUMBER.search(cell) for cell in found[name][:3]), found


def test_first_token_climbs_from_python_to_moim_run(tiny_model: Path) -> None:
    done = run(
        "benchmarks.first_token",
        "--quick",
        "--rounds",
        "1",
        "--model",
        str(tiny_model),
    )
    assert done.returncode == 0, done.stderr
    assert NUMBER.search(rows(done.stdout)["`moim run`"][0])


def test_a_model_that_is_absent_is_skipped_by_name() -> None:
    done = run("benchmarks", "local", "first_token", "--quick")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("`moim pull smollm2`") == 2


def test_an_unknown_benchmark_is_refused() -> None:
    done = run("benchmarks", "speed")
    assert done.returncode == 2
    assert "imports, calls, local, first_token" in done.stderr


def test_the_readme_has_a_place_for_every_program() -> None:
    from benchmarks.__main__ import PROGRAMS, README, replaced

    before = README.read_text(encoding="utf-8")
    after = before
    for name in PROGRAMS:
        after = replaced(after, name, f"new table of {name}")
        assert f"new table of {name}" in after
    assert before.startswith(after.split("<!-- imports: begin -->")[0])


def test_a_client_that_reads_another_answer_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import calls, fake_server

    with fake_server.running() as address, calls.client("urllib3", address) as client:
        client.check("whole")
        monkeypatch.setattr(fake_server, "ANSWER", "something else")
        with pytest.raises(SystemExit, match="did not read"):
            client.check("whole")


def test_ratios_are_taken_within_a_round_and_the_warm_up_is_left_out() -> None:
    from benchmarks.measure import interleave, pairs

    order: list[str] = []

    def arm(name: str, factor: float) -> float:
        order.append(name)
        return factor * len(order) ** 2  # a machine that slows down all the time

    found = interleave({"a": lambda: arm("a", 2.0), "b": lambda: arm("b", 1.0)}, 3)
    assert order == ["a", "b"] * 4
    assert len(found["a"]) == len(found["b"]) == 3
    ratio = pairs(found["a"], found["b"])
    assert ratio.low <= ratio.middle <= ratio.high
    assert ratio.middle == pytest.approx(2 * (5 / 6) ** 2)
