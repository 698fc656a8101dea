"""The main job: a document is asked, and the answer comes from the passage and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_example import ENGLISH, KOREAN, ROOT, load_example, run_example

from moim.testing import tiny_gguf

example = load_example()


def best_heading(document: Path, question: str) -> str:
    passages = example.split(document.read_text(encoding="utf-8"))
    heading: str = example.best(passages, question, 1)[0].heading
    return heading


@pytest.mark.parametrize(
    ("question", "heading"),
    [
        (example.QUESTION, "Opening hours"),
        ("Who is the keeper of the tide library?", "The keeper"),
        ("How many books may a reader borrow?", "Borrowing"),
        ("How warm is the drying room?", "The drying room"),
        ("What is the oldest of the books?", "The collection"),
        ("On which day can school classes come?", "Visitors"),
    ],
)
def test_the_passage_that_fits_is_found(question: str, heading: str) -> None:
    assert best_heading(ENGLISH, question) == heading


@pytest.mark.parametrize(
    ("question", "heading"),
    [
        ("지붕의 초록 깃발은 무슨 뜻인가요?", "여는 시간"),
        ("사서는 누구인가요?", "사서"),
        ("책은 몇 권까지 빌릴 수 있나요?", "대출"),
        ("가장 오래된 책은 무엇인가요?", "소장 자료"),
        ("학교 단체는 무슨 요일에 갈 수 있나요?", "방문"),
    ],
)
def test_the_passage_that_fits_is_found_in_korean(question: str, heading: str) -> None:
    assert best_heading(KOREAN, question) == heading


def test_both_documents_have_the_same_shape() -> None:
    shapes = [
        [bool(p.heading) for p in example.split(file.read_text(encoding="utf-8"))]
        for file in (ENGLISH, KOREAN)
    ]
    assert shapes[0] == shapes[1]


@given(st.text(), st.text(), st.integers(min_value=1, max_value=5))
def test_any_text_can_be_asked(document: str, question: str, count: int) -> None:
    passages = example.split(document)
    chosen = example.best(passages, question, count)
    assert len(chosen) == min(count, len(passages))
    assert all(passage in passages for passage in chosen)


@given(st.lists(st.sampled_from(["red", "blue", "green", "초록색", "파란색", "깃발"]), min_size=1))
def test_a_rare_word_outweighs_a_common_one(words: list[str]) -> None:
    common = [example.Passage("", " ".join([*words, "the"])) for _ in range(4)]
    rare = example.Passage("", "the lighthouse")
    assert example.best([*common, rare], "the lighthouse", 1) == [rare]


def test_the_fact_stands_in_the_document_alone() -> None:
    """Nothing that the model could have been told elsewhere in the prompt or the example."""
    fact = "path across the sand is safe"
    holders = [
        file.relative_to(ROOT)
        for file in (ROOT / "examples").rglob("*")
        if file.is_file()
        and file.suffix in (".py", ".md")
        and fact in " ".join(file.read_text(encoding="utf-8").split())
    ]
    assert holders == [ENGLISH.relative_to(ROOT)]


def test_it_runs_with_any_model_and_no_terminal(tmp_path: Path) -> None:
    model = tiny_gguf.write(tmp_path / "tiny.gguf")
    done = run_example("--model", str(model), env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    for part in (
        f"Question: {example.QUESTION}",
        "[1] A green flag on the roof means that the path across the sand is safe.",
        "[2] ",
        "Answer of local/",
        "What to try next",
        "지붕의 초록 깃발",
    ):
        assert part in done.stdout
    for row in ("prompt", "answer", "time to first token", "speed"):
        assert re.search(rf"^{row} +[\d.]+ ", done.stdout, re.M), row
    assert done.stderr == ""


def test_a_document_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    done = run_example("--document", str(tmp_path / "none.md"), expect=2)
    assert "none.md" in done.stderr


def test_a_model_that_is_not_there_is_an_error() -> None:
    done = run_example("--model", "no-such-model", expect=1)
    assert done.stderr.startswith("error: ")
