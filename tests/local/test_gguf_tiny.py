"""The tiny model is a model: the real engine loads it, and says the same thing each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support_gguf import run_engine

from moim.errors import ModelFileError
from moim.local.gguf import ValueType, inspect, read
from moim.testing.tiny_gguf import TOOLS_TEMPLATE, GGUFBuilder, write

ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Say something. 안녕 🙂"}],
    "max_tokens": 24,
    "temperature": 0,
}


def said(reply: dict[str, Any]) -> str:
    text = reply["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    one, same, other = (
        write(tmp_path / f"{n}.gguf", seed=seed).read_bytes() for n, seed in enumerate((0, 0, 1))
    )
    assert one == same != other
    assert 200_000 < len(one) < 260_000


def test_the_engine_generates_the_same_text_each_time(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf")
    other = write(tmp_path / "other.gguf", seed=1)
    first, second = run_engine(path, other, requests=[ASKED, ASKED | {"temperature": 1, "seed": 7}])
    (again,) = run_engine(path, requests=[ASKED])
    greedy, warm = first.replies
    assert said(greedy) == said(again.replies[0]) != said(second.replies[0])
    assert said(warm) != said(greedy)
    for reply in (greedy, warm):
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["usage"]["completion_tokens"] == 24
        assert said(reply).isascii() and said(reply).isprintable()


def test_a_grammar_makes_it_say_anything(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf")
    (run,) = run_engine(path, requests=[ASKED | {"grammar": 'root ::= "안녕하세요 🙂"'}])
    assert said(run.replies[0]) == "안녕하세요 🙂"
    assert run.replies[0]["choices"][0]["finish_reason"] == "stop"


def test_a_short_context_overflows_quickly(tmp_path: Path) -> None:
    path = write(tmp_path / "short.gguf", context_length=256)
    assert inspect(path).context_length == 256
    long = ASKED | {"messages": [{"role": "user", "content": "word " * 300}]}
    (run,) = run_engine(path, requests=[long, ASKED | {"max_tokens": 1000}], num_ctx=256)
    refused, filled = run.replies
    assert refused["error"]["type"] == "exceed_context_size_error"
    assert refused["error"]["n_ctx"] == 256
    assert filled["choices"][0]["finish_reason"] == "length"
    assert filled["usage"]["total_tokens"] <= 256


def test_a_template_with_tools(tmp_path: Path) -> None:
    plain, able = write(tmp_path / "a.gguf"), write(tmp_path / "b.gguf", tools=True)
    assert "tools" not in inspect(plain).capabilities
    assert "tools" in inspect(able).capabilities
    assert inspect(able).chat_template == TOOLS_TEMPLATE
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    call = {"name": "weather", "arguments": "{}"}
    called: list[dict[str, Any]] = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "1", "content": "Sun."},
    ]
    asked = [ASKED, ASKED | {"tools": [tool]}, ASKED | {"messages": called, "tools": [tool]}]
    without_template, with_template = run_engine(plain, able, requests=asked[:2], num_ctx=1024)
    (answered,) = run_engine(able, requests=asked[2:], num_ctx=1024)
    assert not without_template.template["supports_tools"]
    assert with_template.template["supports_tools"]
    assert with_template.template["supports_tool_calls"]

    def prompt(reply: dict[str, Any]) -> int:
        return int(reply["usage"]["prompt_tokens"])

    bare, listed = with_template.replies
    assert prompt(listed) > prompt(bare) + len("weather")
    assert prompt(without_template.replies[1]) == prompt(without_template.replies[0])
    assert "choices" in answered.replies[0]


def test_fields_can_be_set_and_left_out(tmp_path: Path) -> None:
    path = write(
        tmp_path / "changed.gguf",
        chat_template=None,
        metadata={"general.name": None, "extra": (ValueType.UINT8, 5)},
    )
    metadata = read(path).metadata
    assert metadata["extra"] == 5
    assert not {"general.name", "tokenizer.chat_template"} & set(metadata)
    with pytest.raises(TypeError):
        write(tmp_path / "x.gguf", heads=3)


def test_counts_can_lie(tmp_path: Path) -> None:
    path = tmp_path / "lying.gguf"
    builder = GGUFBuilder().add("k", ValueType.UINT8, 1)
    path.write_bytes(builder.build(field_count=2))
    with pytest.raises(ModelFileError):
        read(path)
    path.write_bytes(builder.build())
    assert dict(read(path).metadata) == {"k": 1}
