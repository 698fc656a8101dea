"""Exit codes, and what a person sees of an error: one table, no traceback, no secret."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterable, Mapping

from moim import errors
from moim.errors import MoimError

__all__ = [
    "BUG",
    "FAILED",
    "INTERRUPTED",
    "LEFT",
    "MEANINGS",
    "OK",
    "USAGE",
    "describe",
    "exit_code",
    "show_bug",
    "show_error",
    "show_os_error",
]

OK = 0
FAILED = 1
USAGE = 2
CONFIG = 3
LOCAL = 4
AGAIN = 5
BUG = 70
INTERRUPTED = 130
LEFT = 141

MEANINGS = {
    OK: "done",
    FAILED: "the provider or the model failed or refused",
    USAGE: "wrong use: an argument, an option or its value",
    CONFIG: "configuration: unknown model, missing key, offline, a wrong setting",
    LOCAL: "this machine: download, model file, store, memory, engine",
    AGAIN: "may work later: no connection, timeout, rate limit, overload",
    BUG: "a bug in moim",
    INTERRUPTED: "interrupted by Ctrl-C",
    LEFT: "whoever read the output has left",
}

_CODES: tuple[tuple[type[MoimError], int], ...] = (
    (errors.Cancelled, INTERRUPTED),
    (errors.TransportError, AGAIN),
    (errors.RateLimitError, AGAIN),
    (errors.OverloadedError, AGAIN),
    (errors.UpstreamTimeout, AGAIN),
    (errors.ServerError, AGAIN),
    (errors.RequestError, USAGE),
    (errors.ConfigError, CONFIG),
    (errors.LocalError, LOCAL),
    (MoimError, FAILED),
)
"""The first class that an error is an instance of decides."""

_REPORT = "Please report it with what you did; MOIM_LOG=debug shows where it happened."
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_USER_IN_URL = re.compile(r"://[^/@\s]+@")


def exit_code(error: MoimError) -> int:
    """The exit code that tells a script what kind of error this is."""
    return next(code for kind, code in _CODES if isinstance(error, kind))


def describe(error: MoimError, label: str = "error") -> str:
    """An error as a person reads it: what happened, then what to do."""
    lines = [f"{label}: {error.message or type(error).__name__}"]
    return "\n".join([*lines, *([f"  {error.hint}"] if error.hint else [])])


def show_error(error: MoimError) -> int:
    """Print an error on standard error and return its exit code."""
    _show(describe(error), error)
    return exit_code(error)


def show_os_error(error: OSError) -> int:
    """Print what the system refused, such as writing to a full disk, and return the exit code."""
    _show(f"error: {error.strerror or type(error).__name__}.", error)
    return FAILED


def show_bug(error: Exception) -> int:
    """Print that moim has a bug, without the error's text unless debugging is on."""
    _show(f"error: moim itself failed ({type(error).__name__}). This is a bug.\n  {_REPORT}", error)
    return BUG


def _show(text: str, error: Exception) -> None:
    from moim.cli.terminal import note

    note(text)
    if os.environ.get("MOIM_LOG", "").lower() in ("debug", "wire"):
        note(_without_secrets("".join(_frames(error)), os.environ))


def _frames(error: Exception) -> Iterable[str]:
    # The errors behind this one are left out: their texts are other libraries' and may hold a URL
    # or a header as it was sent.
    yield from traceback.format_tb(error.__traceback__)
    yield from traceback.format_exception_only(type(error), error)


def _without_secrets(text: str, environ: Mapping[str, str]) -> str:
    for name, value in environ.items():
        if len(value) >= 6 and _SECRET_NAME.search(name):
            text = text.replace(value, "***")
    return _USER_IN_URL.sub("://***@", text)
