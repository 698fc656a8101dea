"""Local models through the public call: the tiny model, a real engine, no network."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import moim
from moim.local import runner
from moim.testing import tiny_gguf


@pytest.fixture(autouse=True)
def end_runners() -> Iterator[None]:
    """No runner of this process outlives its test."""
    yield
    for loaded in runner.pool().loaded():
        runner.pool().stop(loaded.name)


@pytest.fixture
def tiny(tmp_path: Path) -> str:
    return str(tiny_gguf.write(tmp_path / "tiny.gguf", context_length=1024))


def test_a_stream_ends_in_the_reply_that_invoke_gives_in_both_colours(tiny: str) -> None:
    model = moim.model(tiny, temperature=0, seed=1, max_tokens=12)

    async def asynchronous() -> tuple[moim.Reply, moim.Reply]:
        return await model.ainvoke("Hi"), await model.astream("Hi").read()

    replies = [model.invoke("Hi"), model.stream("Hi").read(), *asyncio.run(asynchronous())]
    assert len({reply.text for reply in replies}) == 1
    assert {reply.finish_reason for reply in replies} == {"length"}
    for reply in replies:
        assert reply.usage is not None
        assert reply.usage.output_tokens == 12
        assert reply.model == tiny


def test_options_reach_the_engine(tiny: str) -> None:
    model = moim.model(tiny, max_tokens=30)
    sampled = {model.invoke("Hi", temperature=1.5, seed=seed).text for seed in (1, 2, 3)}
    assert len(sampled) > 1
    assert len({model.invoke("Hi", temperature=1.5, seed=7).text for _ in range(2)}) == 1
    whole = model.invoke("Hi", temperature=0).text
    stopped = model.invoke("Hi", temperature=0, stop=whole[5:7])
    assert stopped.text == whole[: whole.index(whole[5:7])]
    assert stopped.finish_reason == "stop"


def test_korean_and_emoji_that_are_split_across_tokens_arrive_whole(tiny: str) -> None:
    said = "한글과 그림 🏝️👩‍👧 그리고 끝"
    schema = {"type": "object", "properties": {"said": {"const": said}}, "required": ["said"]}
    stream = moim.model(tiny).stream("Hi", response_format=schema, temperature=0)
    pieces = list(stream.text())
    assert json.loads("".join(pieces)) == {"said": said}
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_prompt_that_does_not_fit_gives_both_numbers_or_says_what_was_cut(tiny: str) -> None:
    model = moim.model(tiny, num_ctx=256, max_tokens=8)
    with pytest.raises(moim.ContextLengthError) as caught:
        model.invoke("word " * 600)
    assert caught.value.context_tokens == 256
    assert caught.value.prompt_tokens is not None
    assert caught.value.prompt_tokens > 600
    assert str(caught.value.prompt_tokens) in str(caught.value)
    assert "truncate=True" in caught.value.hint
    reply = model.invoke("word " * 600, truncate=True)
    assert [warning.code for warning in reply.warnings] == ["prompt_truncated"]
    assert reply.usage is not None
    assert reply.usage.input_tokens is not None
    assert reply.usage.input_tokens + 8 <= 256


def test_an_answer_that_fills_the_context_says_so(tiny: str) -> None:
    reply = moim.model(tiny, num_ctx=256).invoke("Hi")
    assert reply.finish_reason == "length"
    assert [warning.code for warning in reply.warnings] == ["context_full"]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 999.0},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"top_p": 2.0},
        {"num_ctx": 100_000},
        {"num_ctx": 0},
        {"num_ctx": "big"},
        {"threads": True},
        {"truncate": "yes"},
    ],
)
def test_what_is_out_of_range_never_reaches_the_engine(
    tiny: str, options: dict[str, object]
) -> None:
    with pytest.raises(moim.RequestError) as caught:
        moim.model(tiny).invoke("Hi", **options)  # type: ignore[arg-type]
    assert next(iter(options)) in str(caught.value)
    assert runner.pool().loaded() == []


def test_pictures_and_tools_are_refused_where_the_model_has_neither(tiny: str) -> None:
    picture = moim.Image(moim.Source(data=b"\x89PNG", media_type="image/png"))
    with pytest.raises(moim.UnsupportedError, match="picture"):
        moim.model(tiny).invoke([moim.user("What is it?", picture)])
    with pytest.raises(moim.UnsupportedError, match="tools"):
        moim.model(tiny).invoke("Hi", tools=[moim.Tool(name="f")])


def test_callers_share_one_runner_and_it_goes_after_keep_alive(tiny: str) -> None:
    model = moim.model(tiny, max_tokens=4)
    model.batch(["a", "b", "c"], limit=3)
    (loaded,) = runner.pool().loaded()
    assert loaded.owner == os.getpid()
    model.invoke("Hi", keep_alive=0)
    assert runner.pool().loaded() == []


def test_a_second_event_loop_works(tiny: str) -> None:
    model = moim.model(tiny, max_tokens=3, temperature=0)
    assert asyncio.run(model.ainvoke("Hi")).text == asyncio.run(model.ainvoke("Hi")).text


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("just notes")
    with pytest.raises(moim.ModelFileError, match=r"notes\.gguf"):
        moim.model(str(path))
    with pytest.raises(moim.ModelFileError, match=r"gone\.gguf"):
        moim.model(str(tmp_path / "gone.gguf"))


def test_run_of_a_path_downloads_nothing(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOIM_OFFLINE", "1")
    assert moim.run(tiny, max_tokens=3).invoke("Hi").text
    with pytest.raises(moim.OfflineError, match="smollm2"):
        moim.run("smollm2")
