"""`moim list` and `moim rm`: the models on this machine."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from moim.cli.exits import describe, exit_code
from moim.cli.terminal import ago, note, print_json, print_table, print_text, size
from moim.errors import LocalError

if TYPE_CHECKING:
    from moim.local.library import Library

__all__ = ["list_", "remove"]


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the models on this machine, newest first (also: ls).

    Models of Ollama are listed too and run in place.
    """
    from moim.cli.pull import as_object
    from moim.local.library import library

    shelf = library()
    listing = shelf.models()
    if as_json:
        print_json({"models": [as_object(model) for model in listing.models]})
    elif listing.models:
        now = time.time()
        print_table(
            ("NAME", "ID", "SIZE", "MODIFIED", "STORE"),
            [
                (
                    model.name,
                    (model.digest or "")[:12],
                    size(model.size),
                    ago(model.modified_at, now),
                    "moim" if model.store == shelf.store.root else str(model.store),
                )
                for model in listing.models
            ],
        )
    else:
        note("No models yet. Get one: moim pull smollm2")
    for problem in listing.problems:
        note(describe(problem, "warning"))
    if listing.problems and not listing.models:
        ctx.exit(exit_code(listing.problems[0]))


@click.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--json", "as_json", is_flag=True, help="Print what was removed as JSON.")
def remove(names: tuple[str, ...], as_json: bool) -> None:
    """Remove models from moim's store.

    A runner that has one of them loaded is stopped first. Files given by path and the stores of
    other programs are left alone.
    """
    from moim.cli.target import local_part
    from moim.local.library import library

    shelf = library()
    removed: list[dict[str, object]] = []
    for name in names:
        local = local_part(name) or name
        _stop_loaded(shelf, local)
        model = shelf.remove(local)
        removed.append({"name": name, "size": model.size if model else None})
        if not as_json:
            print_text(f"Removed {name}{f' ({size(model.size)})' if model else ''}.")
    if as_json:
        print_json({"removed": removed})


def _stop_loaded(shelf: Library, name: str) -> None:
    """End the runners of a model that is about to go: some systems keep a file that is in use."""
    from moim.local.runner import stop

    try:
        model = shelf.find(name)
    except LocalError:  # damaged, so nobody runs it; the removal will say what is wrong
        return
    if model is not None and model.writable:
        stop(str(model.path))
