"""A store as Ollama writes it, by hand: its layout and media types, with nothing of ours."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"


def put(root: Path, name: str, weights: bytes, *layers: tuple[str, Any], **config: Any) -> None:
    """Adds a model.

    Args:
        root: of the store.
        name: below its manifests, as in `registry.ollama.ai/library/llama3/latest`.
        layers: kind and content of the blobs beside the weights; what is no text becomes JSON.
        config: keys beside those that every config has.
    """
    about = {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": None,
        "model_type": "108K",
        "file_type": "F16",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": None},
        **config,
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": _blob(root, _CONFIG, json.dumps(about).encode()),
        "layers": [_layer(root, "model", weights), *(_layer(root, *each) for each in layers)],
    }
    path = root / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))


def _layer(root: Path, kind: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, bytes):
        text = content if isinstance(content, str) else json.dumps(content)
        content = text.encode()
    return _blob(root, f"application/vnd.ollama.image.{kind}", content)


def _blob(root: Path, media_type: str, data: bytes) -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    path = root / "blobs" / f"sha256-{digest}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
