"""`scripts/environment.py`: quick when nothing is to do, and never trusting what was cut short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import environment

ROOT = Path(__file__).resolve().parents[2]
PROJECT = """
[project]
name = "sample"
[dependency-groups]
test = ["pytest>=9"]
dev = ["ruff", { include-group = "test" }]
bench = ["openai"]
"""


class Clone:
    """A clone in which making and installing are only written down."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.commands: list[list[str]] = []
        self.fails: str | None = None
        (root / "constraints").mkdir()
        (root / "pyproject.toml").write_text(PROJECT)
        for name in ("runtime", "dev", "bench"):
            (root / "constraints" / f"{name}.txt").write_text("a==1\n")
        monkeypatch.setattr(environment, "ROOT", root)
        monkeypatch.setattr(environment, "command", self.command)

    def command(self, argv: list[str], failed: str, pins: str = "") -> None:
        self.commands.append(argv)
        if self.fails is not None and self.fails in argv:
            raise environment.SetupError(failed)
        if "venv" in argv:
            (Path(argv[-1]) / environment.BIN).mkdir()
            (Path(argv[-1]) / environment.BIN / "python").symlink_to(sys.executable)

    def ensure(self, stage: str) -> list[str]:
        """What bringing the stage up to date did: `made`, `installed`."""
        self.commands.clear()
        environment.ensure(stage)
        return ["made" if "venv" in argv else "installed" for argv in self.commands]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    return Clone(tmp_path, monkeypatch)


def test_the_first_run_makes_and_installs_and_the_second_does_nothing(clone):
    assert clone.ensure("runtime") == ["made", "installed"]
    assert clone.ensure("runtime") == []


def test_the_test_environment_serves_a_run_too(clone):
    assert clone.ensure("dev") == ["made", "installed"]
    assert clone.ensure("runtime") == []


def test_a_run_is_not_enough_for_the_tests(clone):
    clone.ensure("runtime")
    assert clone.ensure("dev") == ["installed"]
    assert clone.commands[0][-2:] == ["ruff", "pytest>=9"]


def test_other_pins_are_installed_over_the_old_ones(clone):
    clone.ensure("runtime")
    (clone.root / "constraints" / "runtime.txt").write_text("a==2\n")
    assert clone.ensure("runtime") == ["installed"]
    assert clone.ensure("runtime") == []


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_what_was_cut_short_is_started_over(clone, step):
    clone.fails = step
    with pytest.raises(environment.SetupError):
        clone.ensure("runtime")
    clone.fails = None
    assert clone.ensure("runtime") == ["made", "installed"]
    assert clone.ensure("runtime") == []


def test_an_update_that_was_cut_short_is_started_over(clone):
    clone.ensure("runtime")
    clone.fails = "pip"
    with pytest.raises(environment.SetupError):
        clone.ensure("dev")
    clone.fails = None
    assert clone.ensure("runtime") == ["made", "installed"]


def test_an_environment_whose_python_went_away_is_made_again(clone):
    clone.ensure("runtime")
    (clone.root / ".venv" / environment.BIN / "python").unlink()
    assert clone.ensure("runtime") == ["made", "installed"]


def test_an_environment_of_the_users_own_making_is_kept(clone):
    folder = clone.root / ".venv" / environment.BIN
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    assert clone.ensure("runtime") == ["installed"]


def test_a_clone_that_was_moved_is_installed_again(clone, tmp_path_factory, monkeypatch):
    clone.ensure("runtime")
    moved = tmp_path_factory.mktemp("elsewhere") / "clone"
    clone.root.rename(moved)
    monkeypatch.setattr(environment, "ROOT", moved)
    assert clone.ensure("runtime") != []


def test_the_benchmarks_have_an_environment_of_their_own(clone):
    clone.ensure("dev")
    assert clone.ensure("bench") == ["made", "installed"]
    assert (clone.root / ".venv-bench").is_dir()
    assert not any("openai" in argv for argv in clone.commands[:1])


def test_a_python_without_venv_is_told_what_to_install(clone, monkeypatch, capsys):
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["environment.py", "runtime"])
    assert environment.main() == 1
    assert "apt install python3." in capsys.readouterr().err


def test_an_old_python_is_told_so(tmp_path):
    """`make` with an interpreter that says no to the version question, as an old one would."""
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.8.1"\nexit 1\n')
    old.chmod(0o755)
    run = subprocess.run(
        ["make", "runtime", f"PYTHON={old}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode != 0
    assert "Python 3.11 or newer" in run.stderr and "Python 3.8.1" in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
