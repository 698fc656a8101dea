"""Who serves models: rows of one table, and how a name finds its row."""

from __future__ import annotations

from moim.providers.auth import find_key, key_headers, resolve_headers
from moim.providers.registry import LOCAL, Provider, compatible, find, nearest, split_name, table

__all__ = [
    "LOCAL",
    "Provider",
    "compatible",
    "find",
    "find_key",
    "key_headers",
    "nearest",
    "resolve_headers",
    "split_name",
    "table",
]
