"""A model of an Ollama store, asked through the public call: its layers take part, or it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import support_ollama

import moim
from moim.local import runner
from moim.testing import tiny_gguf

NAME = "registry.ollama.ai/library/keeper/latest"


@pytest.fixture(autouse=True)
def end_runners() -> Iterator[None]:
    yield
    for loaded in runner.pool().loaded():
        runner.pool().stop(loaded.name)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    return tmp_path / "ollama"


def test_its_layers_take_part_in_every_call(store: Path, tmp_path: Path) -> None:
    weights = tiny_gguf.write(tmp_path / "tiny.gguf").read_bytes()
    layers = (
        ("system", "You keep the tide library."),
        ("params", {"num_predict": 5, "temperature": 0}),
        ("template", "{{ .System }} {{ .Prompt }}"),
    )
    support_ollama.put(store, NAME, weights, *layers)
    bare = moim.model(str(tmp_path / "tiny.gguf"), max_tokens=5, temperature=0)
    model = moim.model("keeper")
    reply = model.invoke("Hello")
    by_hand = bare.invoke([("system", "You keep the tide library."), ("user", "Hello")])
    assert reply.text == by_hand.text
    assert reply.usage == by_hand.usage
    assert [warning.code for warning in reply.warnings] == ["template_ignored"]
    assert model.stream("Hello").read().warnings == reply.warnings
    assert model.invoke("Hello", max_tokens=2).usage.output_tokens == 2  # type: ignore[union-attr]
    with pytest.raises(moim.RequestError, match="keeper"):
        model.invoke("Hello", num_ctx=1_000_000)


def test_a_store_that_is_only_read_stays_as_it_is(store: Path, tmp_path: Path) -> None:
    weights = tiny_gguf.write(tmp_path / "tiny.gguf").read_bytes()
    support_ollama.put(store, NAME, weights, ("params", {"num_predict": 3}))
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*")}
    assert moim.run("keeper").invoke("Hello").text
    with pytest.raises(moim.StoreError, match="ollama rm"):
        moim.remove("keeper")
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*")} == before
