"""docs/cli.md says what the program says."""

from __future__ import annotations

import re

from support_cli import option_names, run_moim
from support_help import PAGE, written

from moim.cli import exits
from moim.cli.program import _ALIASES, _COMMANDS

TEXT = PAGE.read_text(encoding="utf-8")


def test_the_generated_parts_are_up_to_date() -> None:
    assert written(TEXT) == TEXT, "run: python tests/cli/support_help.py"


def test_every_command_and_option_is_on_the_page() -> None:
    for command in _COMMANDS:
        assert f"<!-- help: moim {command} -->" in TEXT
        help_text = run_moim(command, "--help").stdout
        assert help_text.rstrip() in TEXT, f"{command}: run python tests/cli/support_help.py"
        for option in option_names(help_text):
            assert option in TEXT
    for alias, command in _ALIASES.items():
        assert f"(also: {alias})" in run_moim(command, "--help").stdout


def test_the_exit_codes_are_those_of_the_program() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", TEXT, re.M)
    assert {int(code): meaning for code, meaning in rows} == exits.MEANINGS
