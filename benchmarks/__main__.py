"""Runs the benchmarks and prints their tables.

    python -m benchmarks [imports calls local first_token] [--quick] [--rounds N] [--write]

`--write` also puts the tables into benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from benchmarks.measure import Options, Table, machine, markdown, need_posix

PROGRAMS = ("imports", "calls", "local", "first_token")
README = Path(__file__).parent / "README.md"

Tables: TypeAlias = Callable[[Options], list[Table]]
"""What every benchmark's module offers by the name `tables`: measure, and sum up."""


def _parser(doc: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="tiny counts, to see that it works")
    parser.add_argument("--rounds", type=int, help="how often each arm runs")
    parser.add_argument("--model", default="smollm2", help="the local model, by name or path")
    return parser


def _options(given: argparse.Namespace, parser: argparse.ArgumentParser) -> Options:
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds is 1 or more")
    return Options(given.quick, given.rounds, given.model)


def _show(made: list[Table]) -> str:
    text = "\n\n".join(markdown(table) for table in made)
    print(text, end="\n\n", flush=True)
    return text


def program(tables: Tables, doc: str | None) -> None:
    """The command line of one benchmark."""
    need_posix()
    parser = _parser(doc)
    options = _options(parser.parse_args(), parser)
    print(machine(), end="\n\n", flush=True)
    _show(tables(options))


def replaced(readme: str, name: str, text: str) -> str:
    """The README with the tables of one program replaced."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    found = re.compile(f"(?<={re.escape(begin)}).*?(?={re.escape(end)})", re.DOTALL)
    if not found.search(readme):
        sys.exit(f"{README} has no place marked for {name}.")
    return found.sub(lambda _: f"\n{text}\n\n", readme, count=1)


def main() -> None:
    """Run the named benchmarks, or all of them."""
    need_posix()
    parser = _parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROGRAMS)}; all")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {README.name}")
    given = parser.parse_args()
    options = _options(given, parser)
    if unknown := set(given.names) - set(PROGRAMS):
        parser.error(f"there is no benchmark {min(unknown)}; there are {', '.join(PROGRAMS)}")
    for name in given.names or PROGRAMS:
        tables: Tables = import_module(f"benchmarks.{name}").tables
        where = machine()
        print(f"## {name}: {where}", end="\n\n", flush=True)
        text = _show(tables(options))
        if given.write:
            before = README.read_text(encoding="utf-8")
            after = replaced(before, name, f"Measured on {where}.\n\n{text}")
            README.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
