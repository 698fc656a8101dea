"""The wheel is whole: built from the sdist, and run with the runtime's packages and no others."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import moim

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"


def run(*argv: object, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(word) for word in argv], cwd=cwd, env=env, capture_output=True, text=True, timeout=180
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel and the runtime's pinned packages alone."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps")
    run(*pip, "--quiet", wheel, cwd=folder)
    packages = folder / "packages"
    packages.mkdir()
    link_runtime_packages(packages)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "runtime.pth").write_text(f"{packages}\n")
    return python.parent


def link_runtime_packages(packages: Path) -> None:
    """Links to what is installed here, which spares the test an installation of its own."""
    lines = (ROOT / "constraints" / "runtime.txt").read_text(encoding="utf-8").splitlines()
    for name in (line.partition("==")[0] for line in lines if not line.startswith("#")):
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (packages / top).symlink_to(distribution.locate_file(top))


def test_the_wheel_holds_every_file_of_the_package(wheel):
    expected = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "moim").rglob("*")
        if path.is_file() and path.suffix not in {".pyc", ".gguf"}
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith("moim-")}
    assert names == expected
    assert "moim/py.typed" in names


def test_its_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = next(each for each in archive.namelist() if each.endswith("/METADATA"))
        text = archive.read(name).decode()
    assert f"\nVersion: {moim.__version__}\n" in text
    assert "\nRequires-Python: >=3.11\n" in text
    assert "\nLicense-Expression: MIT\n" in text
    assert "Requires-Dist: xllamacpp>=2026.10; (" in text


def test_it_imports_from_where_it_was_installed(installed, tmp_path):
    code = "import moim; print(moim.__file__); moim.model, moim.pull, moim.Message"
    place = Path(run(installed / "python", "-c", code, cwd=tmp_path))
    assert place.is_relative_to(installed.parent)


def test_the_command_tells_its_version(installed, tmp_path):
    assert moim.__version__ in run(installed / "moim", "--version", cwd=tmp_path)


def test_every_module_does_with_the_declared_packages(installed, tmp_path):
    """Also the late imports' targets: a module needs nothing that only the tests install.

    Below moim.testing a module may need hypothesis, which its extra brings; `make recordings` does
    without.
    """
    code = """
import importlib, pkgutil, moim, moim.testing
for info in pkgutil.walk_packages(moim.__path__, "moim."):
    try:
        importlib.import_module(info.name)
    except ModuleNotFoundError as error:
        optional = info.name.startswith("moim.testing.") and info.name != "moim.testing.recordings"
        if not optional or error.name != "hypothesis":
            raise
import aiohttp, click, msgspec, platformdirs, prompt_toolkit, rich.progress, urllib3, xllamacpp
"""
    run(installed / "python", "-c", code, cwd=tmp_path)
