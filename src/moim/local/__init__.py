"""Models on this machine: the store, where they come from, and the engine that runs them."""

from __future__ import annotations

from moim.local.download import OnProgress, Progress
from moim.local.library import LocalModel, library

__all__ = ["LocalModel", "OnProgress", "Progress", "find", "local_models", "pull", "remove"]


def find(name: str) -> LocalModel | None:
    """The model of that name, or None if it is not on this machine.

    Args:
        name: a short name (`smollm2`), a store name, `pypi:PACKAGE[==VERSION]`, or a path to a
            GGUF file.

    Raises:
        ConfigError: it can be no model's name.
        ModelFileError: it is a path without a usable GGUF file.
        StoreError: the model is there, but damaged.
    """
    return library().find(name)


def pull(name: str, on_progress: OnProgress | None = None) -> LocalModel:
    """Make sure that a model is on this machine, whole and undamaged.

    Downloads what is missing; a download that was cut is continued, also by another process.

    Args:
        name: as for `find`.
        on_progress: called often with a `Progress`; what it raises ends the pull.

    Raises:
        UnknownModel: no source has it; gives the nearest names.
        OfflineError: it would have to be downloaded while `MOIM_OFFLINE=1`.
        PullError: the download failed; what arrived is kept for the next try.
        StoreError: the store cannot be written.
    """
    if on_progress is None:
        return library().pull(name)
    return library().pull(name, on_progress)


def local_models() -> list[LocalModel]:
    """The models on this machine, newest first; damaged ones are left out (`moim list` says)."""
    return list(library().models().models)


def remove(name: str) -> None:
    """Remove a model from moim's store.

    Raises:
        UnknownModel: there is no such model.
        StoreError: it is a file of yours or belongs to another program.
    """
    library().remove(name)
