"""Runs the static checks, then says which function is longest and which module is largest.

    .venv/bin/python scripts/check.py

The two figures fail nothing: they point a reviewer at what to read first.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src"
BIN = Path(sys.executable).parent

# The wrapper would otherwise look on the network for a newer pyright than the pinned one.
QUIET = {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}

TOOLS = {
    "format": ("ruff", "format", "--check", "--quiet", "."),
    "lint": ("ruff", "check", "--quiet", "."),
    "mypy": ("mypy", "--no-error-summary"),
    "pyright": ("pyright",),
    "imports": ("lint-imports", "--no-logo"),
}


class Size(NamedTuple):
    """Lines of a function or module, and where it is."""

    lines: int
    name: str
    place: str


def run(tool: str) -> subprocess.CompletedProcess[str]:
    """Run one tool over the repository; its output is kept."""
    program, *arguments = TOOLS[tool]
    return subprocess.run(
        [str(BIN / program), *arguments],
        cwd=ROOT,
        env=os.environ | QUIET,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def functions(path: Path) -> Iterator[Size]:
    """Every function of a module, with its lines counted without its docstring."""
    module = module_name(path)
    for name, node in definitions(ast.parse(path.read_bytes()), module):
        place = f"{path.relative_to(ROOT)}:{node.lineno}"
        yield Size(lines_of(node) - docstring_lines(node), name, place)


Function = ast.FunctionDef | ast.AsyncFunctionDef


def definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.ClassDef):
            yield from definitions(child, prefix)
            continue
        name = f"{prefix}.{child.name}"
        if isinstance(child, Function):
            yield name, child
        yield from definitions(child, name)


def lines_of(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def docstring_lines(node: Function) -> int:
    return lines_of(node.body[0]) if ast.get_docstring(node, clean=False) is not None else 0


def modules() -> Iterator[Size]:
    """Every module of the package, with all its lines."""
    for path in SOURCE.rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        yield Size(lines, module_name(path), str(path.relative_to(ROOT)))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def main() -> int:
    failed = 0
    for tool in TOOLS:
        started = time.perf_counter()
        result = run(tool)
        verdict = "FAILED" if result.returncode else "ok"
        print(f"{tool:8} {verdict:6} {time.perf_counter() - started:6.1f} s", flush=True)
        if result.returncode:
            failed += 1
            print(result.stdout, flush=True)
    longest = max(size for path in SOURCE.rglob("*.py") for size in functions(path))
    largest = max(modules())
    print(f"longest function  {longest.lines:5} lines  {longest.name}  ({longest.place})")
    print(f"largest module    {largest.lines:5} lines  {largest.name}  ({largest.place})")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
