"""What a manifest and a config say, in Ollama's form; no file is touched here.

What is read may have been written by others: a digest is a digest or an error, never a piece of a
path.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from moim.errors import StoreError

__all__ = [
    "ADAPTER",
    "CONFIG",
    "LICENSE",
    "MESSAGES",
    "PARAMS",
    "SYSTEM",
    "TEMPLATES",
    "WEIGHTS",
    "Digest",
    "Layer",
    "Manifest",
    "ModelConfig",
    "Provenance",
    "decode_config",
    "decode_manifest",
    "encode_config",
    "encode_manifest",
]

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.ollama.image."
WEIGHTS = f"{_LAYER}model"
PARAMS = f"{_LAYER}params"
LICENSE = f"{_LAYER}license"
SYSTEM = f"{_LAYER}system"
MESSAGES = f"{_LAYER}messages"
ADAPTER = f"{_LAYER}adapter"
TEMPLATES = (f"{_LAYER}template", f"{_LAYER}prompt")
"""The media type of a template today, and the one that it used to have."""

_HEX = frozenset("0123456789abcdef")


class Digest(Struct, frozen=True, order=True):
    """The sha256 of some bytes; no other text can ever be one.

    Attributes:
        hex: 64 lower-case hexadecimal digits.

    Raises:
        StoreError: the text is anything else.
    """

    hex: str

    def __post_init__(self) -> None:
        if len(self.hex) != 64 or not _HEX.issuperset(self.hex):
            raise StoreError(f"{self.hex[:80]!r} is not a sha256 digest.")

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @property
    def file_name(self) -> str:
        """What its blob is called in a store."""
        return f"sha256-{self.hex}"

    @classmethod
    def parse(cls, text: str) -> Digest:
        """From the form `sha256:<hex>`.

        Raises:
            StoreError: it does not have that form.
        """
        algorithm, _, digits = text.partition(":")
        if algorithm != "sha256":
            raise StoreError(f"{text[:80]!r} is not a sha256 digest.")
        return cls(digits)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """The digest of `data`."""
        return cls(hashlib.sha256(data).hexdigest())


class Layer(Struct, frozen=True):
    """One blob of a model.

    Attributes:
        media_type: what it holds.
        digest: its sha256.
        size: its length in bytes.
    """

    media_type: str
    digest: Digest
    size: int


class Manifest(Struct, frozen=True):
    """Which blobs make up a model.

    Attributes:
        config: the blob that describes it.
        layers: the others: weights, parameters, licences.
    """

    config: Layer
    layers: tuple[Layer, ...]

    @property
    def blobs(self) -> tuple[Layer, ...]:
        """The config and the layers."""
        return (self.config, *self.layers)

    @property
    def digests(self) -> frozenset[Digest]:
        """Of every blob."""
        return frozenset(blob.digest for blob in self.blobs)

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.blobs)


class _RawLayer(Struct, rename="camel"):
    media_type: str
    digest: str
    size: int


class _RawManifest(Struct, rename="camel"):
    config: _RawLayer
    layers: list[_RawLayer]
    schema_version: int = 2
    media_type: str = _MANIFEST


class _RootFS(Struct, frozen=True):
    # The list of blobs that container tools expect in a config.
    type: str = "layers"
    diff_ids: tuple[str, ...] | None = ()


class Provenance(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a model came from; ours, other programs skip it.

    Attributes:
        source: the name it was pulled by, with its version.
        archive: digest of the archive that the weights were taken out of.
        file: what the weights were called there.
    """

    source: str
    archive: str = ""
    file: str = ""


class ModelConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The config blob of a model, with Ollama's keys.

    Attributes:
        model_format: the format of the weights, `gguf`.
        model_family, model_families: the architecture.
        model_type: the number of parameters, for example `8.0B`.
        file_type: the quantisation, for example `Q4_K_M`.
        renderer, parser: which of Ollama's built-in programs takes the place of a template.
        moim: where the model came from; None in models that other programs pulled.
    """

    model_format: str = ""
    model_family: str = ""
    model_families: tuple[str, ...] | None = ()
    model_type: str = ""
    file_type: str = ""
    renderer: str = ""
    parser: str = ""
    architecture: str = ""
    os: str = ""
    rootfs: _RootFS | None = None
    moim: Provenance | None = None


def decode_manifest(data: bytes) -> Manifest:
    """Reads a manifest.

    Raises:
        StoreError: it is torn, or says what no manifest may say; gives the reason only.
    """
    try:
        raw = msgspec.json.decode(data, type=_RawManifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"{error}.") from error
    return Manifest(_layer(raw.config), tuple(_layer(layer) for layer in raw.layers))


def encode_manifest(manifest: Manifest) -> bytes:
    """Writes a manifest."""
    layers = [_raw(layer) for layer in manifest.layers]
    return msgspec.json.encode(_RawManifest(_raw(manifest.config), layers))


def decode_config(data: bytes) -> ModelConfig:
    """Reads a config.

    Raises:
        StoreError: it is torn or no config; gives the reason only.
    """
    try:
        return msgspec.json.decode(data, type=ModelConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"{error}.") from error


def encode_config(config: ModelConfig, layers: tuple[Layer, ...]) -> bytes:
    """Writes the config of a model with these blobs."""
    rootfs = _RootFS(diff_ids=tuple(str(layer.digest) for layer in layers))
    return msgspec.json.encode(msgspec.structs.replace(config, rootfs=rootfs))


def _layer(raw: _RawLayer) -> Layer:
    if raw.size < 0:
        raise StoreError(f"A blob cannot have {raw.size} bytes.")
    return Layer(raw.media_type, Digest.parse(raw.digest), raw.size)


def _raw(layer: Layer) -> _RawLayer:
    return _RawLayer(layer.media_type, str(layer.digest), layer.size)
