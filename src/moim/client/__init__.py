"""The public call: `moim.model(name)` with `invoke`, `stream`, `batch` and their async twins."""

from __future__ import annotations

from moim.client.chat import Model, model, run
from moim.client.options import Options
from moim.client.streams import AsyncStream, Stream

__all__ = ["AsyncStream", "Model", "Options", "Stream", "model", "run"]
