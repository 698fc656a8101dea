"""Wire formats: pure codecs between bytes and the neutral types, both ways."""

from __future__ import annotations

from moim.dialects.base import Decoder, Dialect, Encoder
from moim.dialects.quirks import Quirks
from moim.dialects.registry import find, names

__all__ = ["Decoder", "Dialect", "Encoder", "Quirks", "find", "names"]
