"""The pure parts of the command line: values, tables, times, progress."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.cli import terminal, values
from moim.cli.answer import timings_of, verbose_lines
from moim.cli.chat import _unquoted
from moim.cli.progress import Lines
from moim.errors import RequestError
from moim.local.download import Progress
from moim.types import Reply, Usage


@given(st.text())
def test_what_is_shown_cannot_steer_a_terminal(text: str) -> None:
    shown = terminal.printable(text)
    assert not [c for c in shown if unicodedata.category(c) == "Cc" and c not in "\n\t"]
    assert len(shown) == len(text)
    assert terminal.printable(shown) == shown


@given(st.integers(min_value=0, max_value=10**15))
def test_a_size_is_short_and_near(count: int) -> None:
    number, unit = terminal.size(count).split(" ")
    factor = 1000 ** ["B", "kB", "MB", "GB", "TB"].index(unit)
    assert abs(float(number) * factor - count) <= max(0.05 * count, 0.5)
    assert len(number) <= 4


@pytest.mark.parametrize(
    ("text", "value"),
    [("300", 300.0), ("90s", 90.0), ("5m", 300.0), ("1h", 3600.0), ("250ms", 0.25), ("-1", -1.0),
     ("0", 0.0), (" 2 d ", 172800.0)],
)  # fmt: skip
def test_lengths_of_time(text: str, value: float) -> None:
    assert values.seconds(text) == value


@pytest.mark.parametrize("text", ["", "soon", "5 minutes", "m", "1h30m"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(RequestError):
        values.seconds(text)


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        ("temperature=0.5", ("temperature", 0.5)),
        ("max-tokens=7", ("max_tokens", 7)),
        ("stop=END", ("stop", "END")),
        ("stop=3", ("stop", "3")),
        ('stop=["a", "b"]', ("stop", ["a", "b"])),
        ("truncate=true", ("truncate", True)),
        ("keep_alive=5m", ("keep_alive", 300.0)),
        ("user=김철수", ("user", "김철수")),
        ("thinking=low", ("thinking", "low")),
        ("response_format=json", ("response_format", "json")),
    ],
)
def test_pairs(pair: str, found: tuple[str, object]) -> None:
    assert values.parse_pair(pair) == found


@pytest.mark.parametrize(
    "pair", ["temperature", "=1", "tempo=1", "temperature=hot", "num_ctx=4.5", "truncate=perhaps"]
)
def test_wrong_pairs(pair: str) -> None:
    with pytest.raises(RequestError):
        values.parse_pair(pair)


def test_columns_are_aligned_for_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table(("NAME", "SIZE"), [("모델", "1"), ("model", "22")])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["NAME    SIZE", "모델    1", "model   22"]


REPLY = Reply(usage=Usage(input_tokens=10, output_tokens=5, cache_read_tokens=4))


def test_times_by_our_clock_count_the_tokens_after_the_first() -> None:
    times = timings_of(REPLY, 1.0, 3.0)
    assert times.generation == 2.0
    assert times.generation_per_second == 2.0  # four tokens in two seconds
    assert times.measured_by == "client"
    assert times.prompt is None


def test_times_by_the_engine_are_preferred() -> None:
    engine = {"prompt_n": 6, "prompt_ms": 300.0, "prompt_per_second": 20.0,
              "predicted_n": 5, "predicted_ms": 500.0, "predicted_per_second": 10.0}  # fmt: skip
    reply = Reply(usage=REPLY.usage, native={"openai_chat": {"timings": engine}})
    times = timings_of(reply, 1.4, 2.0)
    assert (times.prompt, times.generation, times.prompt_tokens) == (0.3, 0.5, 6)
    assert times.generation_per_second == 10.0
    assert times.load == pytest.approx(1.2)
    lines = verbose_lines(reply, times)
    assert [line.split(":")[0] for line in lines] == [
        "load", "first token", "prompt", "cached", "answer", "total",
    ]  # fmt: skip


@pytest.mark.parametrize("usage", [None, Usage(), Usage(output_tokens=0), Usage(output_tokens=1)])
@pytest.mark.parametrize(("first", "total"), [(None, None), (None, 1.0), (1.0, 1.0), (0.5, 1.0)])
def test_times_of_odd_replies(
    usage: Usage | None, first: float | None, total: float | None
) -> None:
    reply = Reply(usage=usage)
    for line in verbose_lines(reply, timings_of(reply, first, total)):
        assert line == line.rstrip()


def test_progress_without_a_terminal_is_a_few_lines() -> None:
    now = 0.0
    said: list[str] = []
    lines = Lines("m", said.append, lambda: now)
    lines(Progress("resolve"))
    lines(Progress("download", 40_000_000, 98_000_000))  # an earlier run fetched the first part
    for second in range(1, 12):
        now = float(second)
        lines(Progress("download", 40_000_000 + second * 5_000_000, 98_000_000))
    lines(Progress("extract", 0, 98_000_000))
    assert said == [
        "m: asking the package index",
        "m: downloading 98 MB, 40 %",
        "m: downloading 98 MB, 66 %, 5.0 MB/s, 6 seconds left",
        "m: downloading 98 MB, 91 %, 5.0 MB/s, 1 second left",
        "m: unpacking 98 MB",
    ]


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ('"""one\ntwo"""', "one\ntwo"),
        ('"""\none\n"""', "one"),
        ('say """x""" twice', 'say """x""" twice'),
        ("plain", "plain"),
        ('""""""', ""),
    ],
)
def test_triple_quotes(typed: str, sent: str) -> None:
    assert _unquoted(typed) == sent
