"""The program itself: what it says when asked nothing, what it loads, what it lists."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from support_cli import MOIM, SECONDS, environment, run_moim

import moim
from moim.cli import exits, program


def test_moim_alone_explains_itself_in_one_screen() -> None:
    shown = run_moim().stdout
    lines = shown.rstrip("\n").split("\n")
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for word in ("moim run smollm2", "moim doctor", "moim --help"):
        assert word in shown


def test_every_command_of_the_welcome_exists() -> None:
    named = set(re.findall(r"moim ([a-z]+)", program.WELCOME))
    assert {"run", "doctor"} <= named <= program._COMMANDS.keys()


def test_version() -> None:
    assert run_moim("--version").stdout == f"moim {moim.__version__}\n"


def test_help_lists_every_command_and_exit_code() -> None:
    shown = run_moim("--help").stdout
    for command in program._COMMANDS:
        assert f"\n  {command} " in shown
    for code, meaning in exits.MEANINGS.items():
        assert f"{code}" in shown
        assert meaning in " ".join(shown.split())
    assert "..." not in shown.split("Commands:")[1], "a summary is too long for its line"


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"], []])
def test_what_needs_no_model_loads_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "moim", *arguments],
        capture_output=True, text=True, timeout=SECONDS, env=environment(), check=True,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & {"rich", "prompt_toolkit", "xllamacpp", "aiohttp", "urllib3", "asyncio"}


def test_ls_is_list() -> None:
    assert run_moim("ls", "--json").stdout == run_moim("list", "--json").stdout


def test_the_shell_can_complete_commands() -> None:
    words = {"COMP_WORDS": "moim do", "COMP_CWORD": "1", "_MOIM_COMPLETE": "bash_complete"}
    assert "doctor" in run_moim(env=words).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
def test_help_into_a_pipe_that_nobody_reads_is_quiet() -> None:
    command = " ".join(f"'{word}'" for word in MOIM)
    done = subprocess.run(
        ["sh", "-c", f"{{ {command} --help; echo code $? >&2; }} | true"],
        capture_output=True, text=True, timeout=SECONDS, env=environment(), check=True,
    )  # fmt: skip
    assert done.stderr in ("code 141\n", "code 0\n")  # 0 where `true` was slower than moim


@pytest.mark.skipif(sys.platform == "win32", reason="a POSIX shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_bug(closed: str) -> None:
    command = " ".join(f"'{word}'" for word in MOIM)
    done = subprocess.run(
        ["sh", "-c", f"{command} list {closed}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS,
        env=environment(), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
