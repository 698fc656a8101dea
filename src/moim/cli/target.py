"""From the name that a person typed to a model that can be asked, downloaded first if need be."""

from __future__ import annotations

from typing import Any

import moim
from moim.cli.progress import showing_progress
from moim.config import settings

__all__ = ["local_part", "open_model"]


def open_model(
    name: str | None,
    options: dict[str, Any],
    *,
    base: str | None = None,
    key: str | None = None,
) -> moim.Model:
    """The model of that name; a local one is on this machine afterwards.

    Raises:
        MoimError: no such model, or it cannot be downloaded.
    """
    chosen = name or settings().default_model
    local = None if base else local_part(chosen)
    if local is not None:
        _fetch(local)
    return moim.model(chosen, base=base, key=key, **options)


def local_part(name: str) -> str | None:
    """The name of a model on this machine without its prefix `local/`; None for a provider's."""
    from moim.providers import find

    found = find(name, settings())
    if found is None:
        return name
    row, rest = found
    return None if row.base else rest


def _fetch(name: str) -> None:
    """Download what can be downloaded and is not here. Any other name is the model's to refuse,
    who knows all kinds of names."""
    from moim.local.library import library
    from moim.local.names import PyPIName, looks_like_path, parse

    shelf = library()
    target = shelf.catalog.expand(name)
    if looks_like_path(target) or not isinstance(parse(target), PyPIName):
        return
    if shelf.find(name) is None:
        with showing_progress(name) as on_progress:
            shelf.pull(name, on_progress)
