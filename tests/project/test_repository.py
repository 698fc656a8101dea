"""What must hold for the files of the repository as a whole."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from environment import STAGES, requirements

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DECLARED = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
EXTRA = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["testing"]]
PARTS = ("runtime", "dev", "bench")

# In pieces, so that this file does not hold what it looks for.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("deb", "debian", "org"),
        ("archive", "ubuntu", "com"),
    )
]


def tracked() -> list[Path]:
    """The files that are in git or would be by `git add .`."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def pins(part: str) -> dict[str, str]:
    text = (ROOT / "constraints" / f"{part}.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_no_file_names_a_package_registry():
    files = tracked()
    assert len(files) > 50
    named = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in files
        for host in REGISTRIES
        if host.encode() in path.read_bytes()
    ]
    assert not named


@pytest.mark.parametrize("part", PARTS)
def test_constraints_are_versions_and_nothing_else(part):
    lines = (ROOT / "constraints" / f"{part}.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not re.fullmatch(r"#.*|[a-z0-9-]+==[0-9a-z.]+", line)] == []
    assert len(pins(part)) > 10


def test_every_constraint_file_is_used():
    files = {path.stem for path in (ROOT / "constraints").iterdir()}
    assert files == {name for stage in STAGES.values() for name in stage.constraints} == {*PARTS}


def test_a_package_is_pinned_once():
    seen = [name for part in PARTS for name in pins(part)]
    assert sorted(seen) == sorted(set(seen))


@pytest.mark.parametrize("part", PARTS)
def test_what_pyproject_asks_for_is_pinned_within_its_bounds(part):
    lines = requirements(part, PROJECT) if part != "runtime" else map(str, DECLARED)
    known = {name: version for each in PARTS for name, version in pins(each).items()}
    for requirement in map(Requirement, lines):
        version = known[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is pinned at {version}"


def test_the_pins_of_the_runtime_are_closed():
    """Nothing that a pinned package requires is left to the day of the installation."""
    known = pins("runtime")
    for name in known:
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                assert canonicalize_name(requirement.name) in known, f"{name} requires {line}"


def test_every_import_of_another_package_is_declared():
    owners = importlib.metadata.packages_distributions()
    for path in (ROOT / "src" / "moim").rglob("*.py"):
        allowed = DECLARED + EXTRA if path.parent.name == "testing" else DECLARED
        declared = {canonicalize_name(requirement.name) for requirement in allowed}
        for package in imported(path) - set(sys.stdlib_module_names) - {"moim"}:
            names = {canonicalize_name(name) for name in owners.get(package, [package])}
            assert names & declared, f"{path.relative_to(ROOT)} imports {package}"


def imported(path: Path) -> set[str]:
    """The top-level packages that a module imports, at once or later."""
    names = []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return {name.partition(".")[0] for name in names}


def headings(path: Path) -> list[int]:
    """The levels of a Markdown file's headings, code blocks left out."""
    text = re.sub(r"^(```+).*?^\1", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [len(marks) for marks in re.findall(r"^(#+) ", text, flags=re.M)]


def test_both_readmes_have_the_same_outline():
    english, korean = headings(ROOT / "README.md"), headings(ROOT / "README.ko.md")
    assert english == korean
    assert english[0] == 1
    assert re.search(r"[가-힣]", (ROOT / "README.ko.md").read_text(encoding="utf-8"))


def test_the_change_notes_make_a_changelog():
    run = subprocess.run(
        [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "0.0", "--date", "x"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    assert "## 0.0 (x)" in run.stdout
    kinds = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}
    for note in (ROOT / "changelog.d").glob("*.md"):
        assert note.name == "README.md" or note.name.split(".")[1] in kinds, note


def test_ci_runs_the_tests_and_nothing_hides_their_result():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")]).returncode == 0
    assert "set -euo pipefail" in script and "export CI=true" in script
    assert script.rstrip().endswith("make test\nmake test-all")
