"""The generated parts of docs/cli.md: `python tests/cli/support_help.py` writes them again."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from moim.cli.chat import _COMMANDS
from moim.cli.program import program

PAGE = Path(__file__).resolve().parents[2] / "docs" / "cli.md"
_PART = re.compile(
    r"<!-- (help: [a-z ]+|chat) -->\n(?:\n(?:```text\n.*?```|\|.*?\|)\n(?=\n))?", re.S
)


def written(page: str) -> str:
    """The page with its generated parts as the program is now."""
    return _PART.sub(lambda found: f"<!-- {found[1]} -->\n\n{_part(found[1])}\n", page)


def _part(name: str) -> str:
    if name == "chat":
        rows = [f"| `/{f'{n} {c.takes}'.strip()}` | {c.does} |" for n, c in _COMMANDS.items()]
        return "\n".join(["| command | what it does |", "|---|---|", *rows])
    arguments = name.removeprefix("help: moim").split()
    shown = CliRunner().invoke(
        program, [*arguments, "--help"], prog_name="moim", terminal_width=78, color=False
    )
    assert shown.exit_code == 0, shown.output
    return f"```text\n{shown.output.rstrip()}\n```"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
