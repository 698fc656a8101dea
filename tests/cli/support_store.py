"""A model store with a tiny model in it, without any download."""

from __future__ import annotations

import hashlib
from pathlib import Path

from moim.local.manifest import Digest, ModelConfig
from moim.local.names import ModelName
from moim.local.store import Store, StoredModel
from moim.testing import tiny_gguf


def add_tiny(root: Path, name: ModelName, **settings: int) -> StoredModel:
    """Put a tiny model into the store at `root` under this name."""
    store = Store(root, writable=True)
    store.prepare()
    file = tiny_gguf.write(store.blobs / "incoming", **settings)
    digest = Digest(hashlib.sha256(file.read_bytes()).hexdigest())
    return store.add(name, weights=file, digest=digest, config=ModelConfig())
