"""Ask a document a question: find the passages that fit, put them in the prompt, stream the answer.

    python examples/ask_document.py
    python examples/ask_document.py --document notes.md --question "When do we open?"

It needs no network once the model is on this machine, and no terminal.
"""

from __future__ import annotations

import argparse
import io
import math
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import moim

DOCUMENT = Path(__file__).with_name("documents") / "tide-library.md"
QUESTION = "What does a green flag on the roof mean?"
MODEL = "smollm2"
INSTRUCTION = "Answer the question from the passages in full sentences."
NEXT = """\
What to try next
  {python} examples/ask_document.py --question "Who is the keeper of the tide library?"
  {python} examples/ask_document.py --document examples/documents/tide-library.ko.md \\
      --question "지붕의 초록 깃발은 무슨 뜻인가요?" --model NAME
      (in Korean; the tiny smollm2 speaks English only, so name a bigger model)
  {moim} run smollm2
      a chat with the same model
  {moim} --help
      everything else"""


@dataclass(frozen=True)
class Passage:
    """One paragraph of the document and the heading above it."""

    heading: str
    text: str


def split(document: str) -> list[Passage]:
    """The paragraphs of a Markdown text."""
    passages = []
    heading = ""
    for block in re.split(r"\n\s*\n", document):
        line = " ".join(block.split())
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line:
            passages.append(Passage(heading, line))
    return passages


def terms(text: str) -> Counter[str]:
    """What texts are compared by: words; in scripts where endings stick to the word, such as
    Korean, every two neighbouring characters instead (도서관을 and 도서관이 share 도서, 서관)."""
    found: Counter[str] = Counter()
    for word in re.findall(r"\w+", text.lower()):
        if word.isascii() or len(word) == 1:
            found[word] += 1
        else:
            found.update(word[n : n + 2] for n in range(len(word) - 1))
    return found


def best(passages: Sequence[Passage], question: str, count: int) -> list[Passage]:
    """The passages that share most with the question, best first.

    A shared term counts for more the oftener the passage holds it, and the fewer passages hold it
    (its inverse document frequency): "flag" decides and "the" does not.
    """
    held = [terms(f"{passage.heading} {passage.text}") for passage in passages]
    holders = Counter(term for each in held for term in each)
    asked = terms(question).keys()

    def score(n: int) -> float:
        return sum(
            math.log(1 + held[n][term]) * math.log((1 + len(passages)) / holders[term])
            for term in asked & held[n].keys()
        )

    return [passages[n] for n in sorted(range(len(passages)), key=score, reverse=True)[:count]]


def make_prompt(passages: Sequence[Passage], question: str) -> list[moim.Message]:
    """The conversation that is sent to the model."""
    numbered = "\n\n".join(f"[{n}] {each.text}" for n, each in enumerate(passages, 1))
    return [
        moim.system(INSTRUCTION),
        moim.user(f"Passages:\n\n{numbered}\n\nQuestion: {question}"),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the example with these arguments and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # a model may write any language
    given = read_arguments(argv)
    try:
        passages = split(given.document.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        print(f"error: {given.document} cannot be read: {error}", file=sys.stderr)
        return 2
    chosen = best(passages, given.question, given.passages)
    print(f"Document: {given.document} ({len(passages)} passages)")
    print(f"Question: {given.question}\n")
    print("The passages that fit best, as they are put in the prompt:\n")
    for n, passage in enumerate(chosen, 1):
        print(textwrap.fill(f"[{n}] {passage.text}", 92, subsequent_indent="    "), end="\n\n")
    try:
        answer(moim.run(given.model), make_prompt(chosen, given.question))
    except moim.MoimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(NEXT.format(python=program("python"), moim=program("moim")))
    return 0


def answer(model: moim.Model, prompt: list[moim.Message]) -> None:
    """Stream the answer, then print what it took."""
    print(f"Answer of {model.name}: ", end="", flush=True)
    with model.stream(prompt, temperature=0, max_tokens=200) as stream:
        for piece in stream.text():
            print(piece, end="", flush=True)
    print("\n")
    usage, first, total = stream.reply.usage, stream.time_to_first_token, stream.seconds
    if usage is None or not usage.output_tokens or first is None or total is None:
        return
    print(f"{'prompt':<22}{usage.input_tokens} tokens")
    print(f"{'answer':<22}{usage.output_tokens} tokens")
    print(f"{'time to first token':<22}{first:.2f} s (starting the engine included)")
    if usage.output_tokens > 1 and total > first:
        # The first token arrives at `first`: the rest of the time made the others.
        print(f"{'speed':<22}{(usage.output_tokens - 1) / (total - first):.1f} tokens/s")
    print()


def program(name: str) -> str:
    """How to start a program of this environment from here, also where it is not activated."""
    folder = Path(sys.executable).parent
    here = Path.cwd()
    return str(folder.relative_to(here) / name) if folder.is_relative_to(here) else name


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments of the command line, with their defaults."""
    parser = argparse.ArgumentParser(description="Ask a document a question.")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="Markdown or plain text")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--model", default=MODEL, help="any model that moim knows")
    parser.add_argument("--passages", type=int, default=2, help="how many to put in the prompt")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
