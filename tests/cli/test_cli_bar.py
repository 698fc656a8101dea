"""The progress bar of a pull, on a pseudo-terminal."""

from __future__ import annotations

import sys

import pytest

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals on Windows", allow_module_level=True)

from support_cli import environment
from support_terminal import Terminal

from moim.cli.progress import showing_progress

PROGRAM = """
import time
from moim.cli.progress import showing_progress
from moim.local.download import Progress
with showing_progress("m") as on_progress:
    on_progress(Progress("resolve"))
    for n in range(5, 11):
        on_progress(Progress("download", n * 9_800_000, 98_000_000))
        time.sleep(0.15)
    on_progress(Progress("verify", 98_000_000, 98_000_000))
print("over")
"""

UNKNOWN = 'on_progress(Progress("resolve")); time.sleep(0.3)'


def test_a_terminal_gets_a_bar_with_speed_and_time_left() -> None:
    with Terminal([sys.executable, "-c", PROGRAM], environment()) as terminal:
        terminal.expect("downloading")
        terminal.expect("MB/s")
        terminal.expect("0:00:")
        terminal.expect("over")
        assert terminal.wait() == 0


def test_a_phase_of_unknown_length_shows_no_numbers() -> None:
    program = PROGRAM.replace('on_progress(Progress("resolve"))', UNKNOWN)
    with Terminal([sys.executable, "-c", program], environment()) as terminal:
        assert terminal.wait() == 0
        before = terminal.raw.partition("downloading")[0]
    assert "asking" in before
    assert "bytes" not in before
    assert "?" not in before.replace("\x1b[?25", "")


def test_no_color_is_respected() -> None:
    plain, coloured = (_raw({"NO_COLOR": value, "TERM": "xterm-256color"}) for value in ("1", None))
    assert "\x1b[3" in coloured or "\x1b[1;3" in coloured
    assert "\x1b[3" not in plain
    assert "\x1b[1;3" not in plain


def _raw(changes: dict[str, str | None]) -> str:
    with Terminal([sys.executable, "-c", PROGRAM], environment(changes)) as terminal:
        assert terminal.wait() == 0
        return terminal.raw


def test_ctrl_c_says_that_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), showing_progress("smollm2"):
        raise KeyboardInterrupt
    assert "smollm2: interrupted; what has arrived is kept" in capsys.readouterr().err
