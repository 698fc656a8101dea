"""Runs the code blocks of a page, each in the way of its language.

| fence | what is done |
|---|---|
| `python` | run in the page's namespace |
| `console` | each line after `$ ` is run by bash; lines below it are its expected output, if any |
| `bash` | run as one script |
| `output` | compared with what the block above it printed |
| `toml` | read by moim's own loader of settings |
| `json` | parsed |
| `text` | not code: a diagram, a tree of files |

In an expected output `...` stands for anything. `<!-- not run: the reason -->` on the line above a
fence leaves the block out. Directives of MyST (`{toctree}`) are the site's business, not ours.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from sybil import Document, Example, Region, Sybil
from sybil.evaluators.python import pad
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer

from moim.config import read_settings

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120
MARKER = re.compile(r"<!-- not run: (?P<reason>.+?) -->\n[ \t]*\Z")
END = "@@ end of command, exit code"

PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if "_build" not in path.parts and path.name != "CHANGELOG.md"
)


class Page:
    """A page under test, with a folder in which its commands run."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder
        self.printed = ""
        self.module = ModuleType("__main__")  # so that classes of a page can be looked up by name
        sybil = Sybil([self.parse], path=str(path.parent))
        self.document: Document = sybil.parse(path)

    def run(self) -> int:
        """Run every block; how many were run."""
        examples = list(self.document.examples())
        for example in examples:
            example.evaluate()
        return len(examples)

    def parse(self, document: Document) -> Iterable[Region]:
        for region in RawFencedCodeBlockLexer(re.compile(r"(?P<language>[^\n]*)\n"))(document):
            language = region.lexemes["language"].strip()
            if language.startswith("{") and not language.startswith("{code"):
                continue
            if reason_not_to_run(document.text, region.start) is None:
                region.parsed = region.lexemes["source"]
                region.evaluator = self.evaluator(language, document.line_column(region.start))
                yield region

    def evaluator(self, language: str, place: str) -> Callable[[Example], None]:
        method = EVALUATORS.get(language)
        if method is None:
            known = ", ".join(EVALUATORS)
            raise AssertionError(
                f"{self.path.name}, {place}: the fence says {language!r}. Known: {known}."
            )
        return lambda example: method(self, example)

    def python(self, example: Example) -> None:
        source = pad(example.parsed, example.line + example.parsed.line_offset)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(source, example.path, "exec", dont_inherit=True), self.module.__dict__)
        self.printed = out.getvalue()

    def console(self, example: Example) -> None:
        commands = split_console(example.parsed)
        script = "\n".join(f"{command}\nprintf '\\n%s %s\\n' '{END}' $?" for command, _ in commands)
        printed = self.bash_script(script)
        parts = re.split(rf"\n{re.escape(END)} (\d+)\n", printed)
        assert len(parts) == 2 * len(commands) + 1, f"{place_of(example)} ended early:\n{printed}"
        for (command, expected), text, code in zip(commands, parts[::2], parts[1::2], strict=False):
            assert code == "0", f"{place_of(example)}: exit code {code} of: {command}\n{text}"
            if expected.strip():
                compare(expected, text, example)

    def bash(self, example: Example) -> None:
        self.printed = self.bash_script(f"set -euo pipefail\n{example.parsed}\n:")
        assert not self.failed, f"{place_of(example)} failed:\n{self.printed}"

    def bash_script(self, script: str) -> str:
        # In a file and not on standard input, which a command could read.
        path = self.folder / ".block.sh"
        path.write_text(script + "\n", encoding="utf-8")
        run = subprocess.run(
            ["bash", str(path)],
            cwd=self.folder,
            env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        self.failed = run.returncode != 0
        return run.stdout

    def output(self, example: Example) -> None:
        compare(example.parsed, self.printed, example)

    def toml(self, example: Example) -> None:
        path = self.folder / "block.toml"
        path.write_text(example.parsed, encoding="utf-8")
        read_settings({"MOIM_CONFIG": str(path)})

    def json(self, example: Example) -> None:
        json.loads(example.parsed)

    def text(self, example: Example) -> None:
        """Nothing to run."""


EVALUATORS: dict[str, Callable[[Page, Example], None]] = {
    "python": Page.python,
    "console": Page.console,
    "bash": Page.bash,
    "output": Page.output,
    "toml": Page.toml,
    "json": Page.json,
    "text": Page.text,
}


def reason_not_to_run(text: str, start: int) -> str | None:
    found = MARKER.search(text, 0, start)
    return found["reason"] if found else None


def reasons(path: Path) -> list[str]:
    """The reasons of a page's blocks that are not run."""
    return re.findall(r"^[ \t]*<!-- not run: (.+?) -->$", path.read_text(encoding="utf-8"), re.M)


def split_console(source: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with its expected output."""
    commands: list[tuple[str, str]] = []
    for line in source.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], ""))
        elif commands and line.startswith("> ") and not commands[-1][1]:
            commands[-1] = (f"{commands[-1][0]}\n{line[2:]}", "")
        elif commands:
            commands[-1] = (commands[-1][0], f"{commands[-1][1]}{line}\n")
        else:
            raise AssertionError(f"A console block begins with `$ `, not with {line!r}.")
    return commands


def compare(expected: str, printed: str, example: Example) -> None:
    pattern = r".*?".join(re.escape(part) for part in tidy(expected).split("..."))
    assert re.fullmatch(pattern, tidy(printed), flags=re.S), (
        f"{place_of(example)} expects:\n{expected}\nbut this was printed:\n{printed}"
    )


def tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def place_of(example: Example) -> str:
    return f"{Path(example.path).name}, line {example.line}"


def furnish(folder: Path) -> None:
    """Make the folder look like the clone, as far as pages refer to it; copies, not links."""
    for name in ("README.md", "README.ko.md"):
        shutil.copy(ROOT / name, folder)
    if (ROOT / "examples").is_dir():
        shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / ".venv").symlink_to(sys.prefix)
