"""Makes the clone's own environment, or brings it up to date; with nothing to do it is quick.

    python3 scripts/environment.py runtime | dev | bench

Standard library only: this is the first thing that a newcomer's Python runs. Killed at any point,
the next run starts the environment over, so nothing half-installed is ever used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = "Scripts" if os.name == "nt" else "bin"
STAMP = "moim-installed.json"
UNFINISHED = "moim-unfinished"


class Stage(NamedTuple):
    """What one make target needs: a folder, groups of pyproject.toml, and the pins it obeys."""

    folder: str
    groups: tuple[str, ...]
    constraints: tuple[str, ...]
    includes: tuple[str, ...] = ()


STAGES = {
    "runtime": Stage(".venv", (), ("runtime", "dev")),
    "dev": Stage(".venv", ("dev",), ("runtime", "dev"), includes=("runtime",)),
    "bench": Stage(".venv-bench", ("bench",), ("runtime", "dev", "bench")),
}


class SetupError(Exception):
    """The environment cannot be made; the text says what to do."""


def project() -> dict[str, Any]:
    """pyproject.toml as a dictionary."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def requirements(group: str, table: dict[str, Any]) -> list[str]:
    """The requirement lines of a dependency group, with the groups that it includes."""
    lines: list[str] = []
    for entry in table["dependency-groups"][group]:
        lines += [entry] if isinstance(entry, str) else requirements(entry["include-group"], table)
    return lines


def key(stage: Stage) -> str:
    """Changes with the place of the clone, the requirements and the pins, and nothing else."""
    digest = hashlib.sha256(str(ROOT).encode())
    digest.update((ROOT / "pyproject.toml").read_bytes())
    for path in constraint_files(stage):
        digest.update((ROOT / path).read_bytes())
    return digest.hexdigest()


def constraint_files(stage: Stage) -> list[str]:
    # Relative to the clone: pip splits the variable that carries them at spaces.
    return [f"constraints/{name}.txt" for name in stage.constraints]


def stamps(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found


def works(folder: Path) -> bool:
    """Whether the environment's interpreter still starts (its base may have been removed)."""
    if (folder / UNFINISHED).exists():
        return False
    return runs(folder, "pass")


def runs(folder: Path, code: str) -> bool:
    """Whether the environment's interpreter runs a line of Python."""
    try:
        result = subprocess.run([folder / BIN / "python", "-c", code], capture_output=True)
    except OSError:
        return False
    return result.returncode == 0


def create(folder: Path) -> None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        version = ".".join(map(str, sys.version_info[:2]))
        raise SetupError(
            f"This Python ({sys.executable}) has no module {missing[0]}, which makes environments."
            f" On Debian and Ubuntu: apt install python{version}-venv"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / UNFINISHED).touch()
    print(f"Making the environment {folder.name} ...", flush=True)
    command([sys.executable, "-m", "venv", str(folder)], "The environment could not be made.")


def install(folder: Path, stage: Stage) -> None:
    """Install moim as an editable package with what the stage's groups list, at the pins."""
    print("Installing moim and what it needs ...", flush=True)
    (folder / UNFINISHED).touch()
    table = project()
    lines = [line for group in stage.groups for line in requirements(group, table)]
    python = str(folder / BIN / "python")
    if not runs(folder, "import pip"):  # an environment of the user's making, by another tool
        command([python, "-m", "ensurepip"], "This environment has no pip and cannot get it.")
    command(
        [python, "-m", "pip", "install", "--quiet", "--no-input", "--editable", ".", *lines],
        "pip could not install moim; its own message is above. With a network, try again.",
        pins=" ".join(constraint_files(stage)),
    )


def command(argv: list[str], failed: str, pins: str = "") -> None:
    # Constraints travel as a variable, because an option would not reach the build of moim itself.
    # Older versions of pip read the first one there, newer ones the second.
    env = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_USER": "0"}
    if pins:
        env |= {"PIP_CONSTRAINT": pins, "PIP_BUILD_CONSTRAINT": pins}
    env.pop("PYTHONPATH", None)
    run = subprocess.run(argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL)
    if run.returncode:
        raise SetupError(failed)


def ensure(name: str) -> None:
    """Bring the environment of a stage up to date."""
    stage = STAGES[name]
    folder = ROOT / stage.folder
    wanted = key(stage)
    usable = works(folder)
    if usable and stamps(folder).get(name) == wanted:
        return
    if not usable:
        create(folder)
    done = {included: key(STAGES[included]) for included in stage.includes} | {name: wanted}
    install(folder, stage)
    written = folder / f"{STAMP}.new"
    written.write_text(json.dumps(done), encoding="utf-8")
    written.replace(folder / STAMP)
    (folder / UNFINISHED).unlink()


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in STAGES:
        print(f"usage: {sys.argv[0]} {' | '.join(STAGES)}", file=sys.stderr)
        return 2
    try:
        ensure(sys.argv[1])
    except (SetupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; the next run starts the environment over.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
