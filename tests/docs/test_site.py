"""The documentation builds without a warning and describes every public name."""

from __future__ import annotations

import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import moim

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-q",
            "-b",
            "html",
            "docs",
            str(out),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return out


def test_every_public_name_is_described(site):
    data = (site / "objects.inv").read_bytes()
    listing = zlib.decompress(data.split(b"\n", 4)[4]).decode()
    described = set(re.findall(r"^moim\.(\w+) py:", listing, flags=re.M))
    assert set(moim.__all__) - {"__version__"} <= described


def test_the_decisions_are_listed(site):
    index = (site / "decisions" / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs" / "decisions").glob("0*.md"):
        assert f"{page.stem}.html" in index
