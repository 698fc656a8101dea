"""Writes constraints/*.txt: every package that moim and its tools bring along, at one version.

    .venv/bin/python scripts/lock.py

The versions come from pip's own resolver (its installation report), on the oldest Python that moim
supports, so that one set of pins serves the newer ones too. Packages that only another platform or
Python asks for are found by evaluating the markers for those. No address is ever written.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from environment import ROOT, project, requirements

Pins = dict[str, str]

OLDEST = (3, 11)
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = (
    {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
    {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
)
HEADER = "# Written by scripts/lock.py (`make lock`) from pyproject.toml; edit that instead.\n"


def resolve(lines: Iterable[str], known: Pins) -> list[dict[str, Any]]:
    """Ask pip which packages the requirement lines would install, given known versions."""
    pins = [f"{name}=={version}" for name, version in known.items()]
    pip = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    run = subprocess.run(
        [*pip, "--only-binary=:all:", "--report", "-", *lines, "-c", "/dev/stdin"],
        input="\n".join(pins),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    if run.returncode:
        sys.exit(f"pip found no set of versions for: {', '.join(lines)}")
    return [item["metadata"] for item in json.loads(run.stdout)["install"]]


def elsewhere(packages: list[dict[str, Any]], pins: Pins) -> set[str]:
    """Requirements that apply on another platform or Python and have no pin yet."""
    found = set()
    for package in packages:
        for requirement in map(Requirement, package.get("requires_dist", ())):
            unknown = canonicalize_name(requirement.name) not in pins
            if unknown and requirement.marker is not None and applies(requirement):
                requirement.marker = None
                found.add(str(requirement))
    return found


def applies(requirement: Requirement) -> bool:
    marker = requirement.marker
    return marker is None or any(
        marker.evaluate({**platform, "python_version": python, "extra": ""})
        for platform, python in itertools.product(PLATFORMS, PYTHONS)
    )


def closure(lines: list[str], known: Pins) -> Pins:
    """Pins of everything that the lines bring along, beyond what is known already."""
    pins: Pins = {}
    wanted = list(lines)
    while True:
        packages = resolve(wanted, known)
        pins |= {canonicalize_name(p["name"]): p["version"] for p in packages}
        more = elsewhere(packages, known | pins)
        if not more:
            return {name: version for name, version in pins.items() if name not in known}
        wanted += sorted(more)


def write(path: Path, pins: Pins) -> None:
    lines = [f"{name}=={version}\n" for name, version in sorted(pins.items())]
    path.write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"{path.relative_to(ROOT)}: {len(pins)} packages")


def main() -> None:
    if sys.version_info[:2] != OLDEST:
        sys.exit(f"Run this with Python {OLDEST[0]}.{OLDEST[1]}, the oldest that moim supports.")
    table = project()
    runtime = [line.partition(";")[0] for line in table["project"]["dependencies"]]
    parts = {
        "runtime": runtime,
        "dev": requirements("dev", table) + table["build-system"]["requires"],
        "bench": requirements("bench", table),
    }
    known: Pins = {}
    for name, lines in parts.items():
        pins = closure(lines, known)
        write(ROOT / "constraints" / f"{name}.txt", pins)
        known |= pins


if __name__ == "__main__":
    main()
