"""The import contracts hold, and each one breaks when its rule is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from check import BIN, ROOT


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package with its contracts, to break."""
    shutil.copytree(
        ROOT / "src" / "moim",
        tmp_path / "src" / "moim",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "lint-imports"), "--no-cache", "--no-logo"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_copy_as_it_is_keeps_every_contract(copy):
    result = lint(copy)
    assert result.returncode == 0, result.stdout
    assert "0 broken" in result.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("errors.py", "import moim.types", "Imports go down"),
        ("runtime/upward.py", "from moim.client import Model", "Imports go down"),
        ("types/upward.py", "def f():\n    import moim.config", "Imports go down"),
        ("local/sideways.py", "import moim.flow", "Imports go down"),
        ("flow/sideways.py", "from moim import local", "Imports go down"),
        ("newcomer.py", "", "Imports go down"),
        ("flow/loop.py", "import asyncio", "Event loops"),
        ("client/loop.py", "def f():\n    from aiohttp import web", "Event loops"),
        ("dialects/wire.py", "import socket", "Protocol code"),
        ("dialects/clock.py", "from time import monotonic", "Protocol code"),
    ],
)
def test_a_broken_rule_is_seen(copy, module, line, contract):
    with (copy / "src" / "moim" / module).open("a") as file:
        file.write(f"\n{line}\n")
    result = lint(copy)
    assert result.returncode != 0
    broken = [row for row in result.stdout.splitlines() if "BROKEN" in row]
    assert any(row.startswith(contract) for row in broken), result.stdout
