"""The default model answers from the passage: its fact is in the answer, and another fact in the
passage is another answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from support_example import ENGLISH, load_example, run_example

import moim

example = load_example()
FACT = "the path across the sand is safe"


@pytest.fixture(autouse=True)
def one_thread(smollm2: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real model, on one thread: two that share their cores with other tests would wait for
    each other most of the time."""
    assert smollm2 == example.MODEL
    monkeypatch.setenv("MOIM_THREADS", "1")


def answer_of(output: str) -> str:
    return output.partition("Answer of ")[2].partition("\n\n")[0]


def changed(folder: Path, old: str, new: str) -> Path:
    """The document with another fact in it, wherever its lines break."""
    text = ENGLISH.read_text(encoding="utf-8")
    words = " ".join(text.split())
    assert words.count(old) == 1
    paragraphs = [" ".join(block.split()) for block in text.split("\n\n")]
    file = folder / "changed.md"
    file.write_text("\n\n".join(paragraphs).replace(old, new), encoding="utf-8")
    return file


def test_the_answer_holds_the_fact_of_the_passage() -> None:
    assert FACT in answer_of(run_example().stdout)


def test_without_the_passage_the_model_does_not_know() -> None:
    reply = moim.model("smollm2").invoke(
        [("system", example.INSTRUCTION), ("user", f"Question: {example.QUESTION}")],
        temperature=0,
        max_tokens=80,
    )
    assert reply.text.strip()
    assert "sand" not in reply.text


@pytest.mark.parametrize(
    "fact",
    [
        "the soup is ready",
        "a storm is coming from the north",
        "the library is closed for cleaning",
    ],
)
def test_another_fact_in_the_passage_is_another_answer(tmp_path: Path, fact: str) -> None:
    answer = answer_of(run_example("--document", str(changed(tmp_path, FACT, fact))).stdout)
    assert fact in answer
    assert FACT not in answer


@pytest.mark.parametrize("name", ["Ines Dovrak", "Tomas Brell", "Yuna Park"])
def test_the_keeper_is_whoever_the_passage_names(tmp_path: Path, name: str) -> None:
    document = changed(tmp_path, "Ines Dovrak", name)
    question = "Who is the keeper of the tide library?"
    done = run_example("--document", str(document), "--question", question)
    assert name in answer_of(done.stdout)
