"""What moim's own tests stand on, for programs that use or extend moim.

`check_dialect` holds a wire format to its laws; `python -m moim.testing.recordings DIR` decodes a
folder of recorded exchanges. Both need the package `hypothesis` or nothing at all, so they are
imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moim.testing.checks import LAWS as LAWS
    from moim.testing.checks import check_dialect as check_dialect
    from moim.testing.checks import check_law as check_law

_TABLE = dict.fromkeys(("LAWS", "check_dialect", "check_law"), "moim.testing.checks")

__all__ = ["LAWS", "check_dialect", "check_law"]


def __getattr__(name: str) -> object:
    if name not in _TABLE:
        raise AttributeError(f"module 'moim.testing' has no attribute {name!r}", name=name)
    from importlib import import_module

    value = globals()[name] = getattr(import_module(_TABLE[name]), name)
    return value
