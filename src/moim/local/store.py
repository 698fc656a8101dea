"""The model store: Ollama's own layout on disk, so that either program can read the other's.

    <root>/blobs/sha256-<hex>                          weights, configs, parameters, licences
    <root>/manifests/<host>/<namespace>/<model>/<tag>  which blobs make up a model
    <root>/locks/                                      ours; Ollama does not look at it

A manifest is written last, when every blob it names is durable, so a model that can be listed is
whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Set
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec
from msgspec import Struct

from moim.errors import ConfigError, StoreError
from moim.local import disk
from moim.local.manifest import (
    CONFIG,
    MESSAGES,
    PARAMS,
    WEIGHTS,
    Digest,
    Layer,
    Manifest,
    ModelConfig,
    decode_config,
    decode_manifest,
    encode_config,
    encode_manifest,
)
from moim.local.names import ModelName

__all__ = ["Store", "StoredModel", "hash_file"]

_MANIFEST_LIMIT = 1 << 20
_SMALL_BLOB_LIMIT = 4 << 20
_CHUNK = 1 << 20

_PARTIAL_AGE = 30 * 86_400.0
"""Seconds after which nobody comes back for an unfinished download."""
_ORPHAN_AGE = 3_600.0
"""Seconds for which a blob may wait for the manifest of another program that is writing it."""


_T = TypeVar("_T")


class _Message(Struct):
    role: Literal["system", "user", "assistant"]
    content: str = ""


class StoredModel(Struct, frozen=True, kw_only=True):
    """A model as its manifest describes it.

    Attributes:
        name: its name in the store.
        digest: hexadecimal sha256 of the manifest, which is the model's identity.
        manifest: its blobs.
        modified_at: when the manifest was written, in seconds since 1970.
        root: the store that it is in.
    """

    name: ModelName
    digest: str
    manifest: Manifest
    modified_at: float
    root: Path

    @property
    def size(self) -> int:
        """Bytes of all its blobs."""
        return self.manifest.size

    @property
    def weights(self) -> Layer:
        """The blob with the weights.

        Raises:
            StoreError: the model has none, such as one that runs elsewhere.
        """
        for layer in self.manifest.layers:
            if layer.media_type == WEIGHTS:
                return layer
        raise StoreError(f"{self.name} has no weights on this machine.", hint="Pull another tag.")


class Store:
    """One folder of models.

    Args:
        root: the folder; it need not exist until something is written.
        writable: whether this store may be changed. Others' stores are only read.
    """

    def __init__(self, root: Path, *, writable: bool = False) -> None:
        self.root = root
        self.writable = writable
        self.blobs = root / "blobs"
        self.manifests = root / "manifests"

    def __repr__(self) -> str:
        return f"Store({str(self.root)!r}, writable={self.writable})"

    # Reading

    def models(self) -> tuple[list[StoredModel], list[StoreError]]:
        """Every model, newest first, and an error for each manifest that cannot be read."""
        models: list[StoredModel] = []
        problems: list[StoreError] = []
        for parts in self._manifest_paths(problems):
            try:
                name = ModelName.from_parts(parts)
            except ConfigError:
                continue
            try:
                models.append(self._read(name))
            except StoreError as error:
                problems.append(error)
        models.sort(key=lambda model: (-model.modified_at, str(model.name)))
        return models, problems

    def find(self, name: ModelName) -> StoredModel | None:
        """The model of that name; case does not matter, and the spelling is that on disk.

        Raises:
            StoreError: there is a manifest, but it cannot be read or is damaged.
        """
        spelling = self._spelling(name)
        return self._read(spelling) if spelling else None

    def find_or_none(self, name: ModelName) -> StoredModel | None:
        """As `find`, with a damaged manifest counted as none: for whoever would write it anew."""
        try:
            return self.find(name)
        except StoreError:
            return None

    def holds(self, name: ModelName) -> bool:
        """Whether there is a manifest of that name, readable or not."""
        return self._spelling(name) is not None

    def tags(self, name: ModelName) -> list[StoredModel]:
        """Every readable model that differs from `name` in its tag at most, newest first."""
        wanted = tuple(part.lower() for part in name.parts[:3])
        return [m for m in self.models()[0] if tuple(p.lower() for p in m.name.parts[:3]) == wanted]

    def blob_path(self, digest: Digest) -> Path:
        """Where the blob is or would be."""
        return self.blobs / digest.file_name

    def partial_path(self, digest: Digest) -> Path:
        """Where the blob grows while it is downloaded."""
        return self.blobs / f"{digest.file_name}-partial"

    def extract_path(self, archive: Digest) -> Path:
        """Where weights grow while they are taken out of an archive."""
        return self.blobs / f"{archive.file_name}-extract"

    def read_blob(self, layer: Layer) -> bytes:
        """A small blob: a config, parameters, a licence.

        Raises:
            StoreError: it is missing, larger than 4 MiB, or cannot be read.
        """
        with disk.storage_errors("read the model store", self.blob_path(layer.digest)):
            return _read_limited(self.blob_path(layer.digest), _SMALL_BLOB_LIMIT)

    def texts(self, model: StoredModel, *media_types: str) -> list[str]:
        """The text blobs of some kinds, for example licences."""
        layers = [layer for layer in model.manifest.layers if layer.media_type in media_types]
        return [self.read_blob(layer).decode("utf-8", "replace") for layer in layers]

    def params(self, model: StoredModel) -> dict[str, Any]:
        """The parameters that the model brings with it.

        Raises:
            StoreError: they are not a JSON object.
        """
        merged: dict[str, Any] = {}
        for found in self._decoded(model, PARAMS, dict[str, Any], "parameters"):
            merged |= found
        return merged

    def messages(self, model: StoredModel) -> tuple[tuple[str, str], ...]:
        """The messages, as roles and texts, that the model puts before every conversation.

        Raises:
            StoreError: they are not a list of messages.
        """
        lists = self._decoded(model, MESSAGES, list[_Message], "example messages")
        return tuple((message.role, message.content) for found in lists for message in found)

    def config(self, model: StoredModel) -> ModelConfig:
        """What the config says of the model.

        Raises:
            StoreError: it is not a config.
        """
        try:
            return decode_config(self.read_blob(model.manifest.config))
        except StoreError as error:
            raise StoreError(
                f"The config of {model.name} in {self.root} is damaged: {error.message}",
                hint="Pull the model again.",
            ) from error

    def is_complete(self, model: StoredModel) -> bool:
        """Whether every blob is there with its size; does not read them."""
        return all(
            _size(self.blob_path(layer.digest)) == layer.size for layer in model.manifest.blobs
        )

    def is_intact(
        self, model: StoredModel, on_bytes: Callable[[int, int], None] | None = None
    ) -> bool:
        """Whether every blob has its hash; reads them all.

        Args:
            model: the model.
            on_bytes: called with the bytes read so far and in all.
        """
        if not self.is_complete(model):
            return False
        done = 0
        for layer in model.manifest.blobs:
            before = done

            def report(count: int, before: int = before) -> None:
                if on_bytes is not None:
                    on_bytes(before + count, model.size)

            path = self.blob_path(layer.digest)
            with disk.storage_errors("read the model store", path), path.open("rb") as file:
                if hash_file(file, report) != layer.digest:
                    return False
            done += layer.size
        return True

    # Writing

    def lock(
        self, digest: Digest, waiting: Callable[[], None] | None = None
    ) -> AbstractContextManager[None]:
        """Holds the right to download and unpack the blob of that digest.

        Raises:
            StoreError: this store is not to be written, or the disk refuses.
        """
        self._require_writable()
        return disk.exclusive(self._lock_path(digest.file_name), waiting=waiting)

    def prepare(self) -> None:
        """Makes the store's folders.

        Raises:
            StoreError: this store is not to be written, or the disk refuses.
        """
        self._require_writable()
        for folder in (self.blobs, self.manifests):
            with disk.storage_errors("write the model store", folder):
                folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        name: ModelName,
        *,
        weights: Path,
        digest: Digest,
        config: ModelConfig,
        texts: tuple[tuple[str, bytes], ...] = (),
    ) -> StoredModel:
        """Takes a finished file of weights into the store and writes its manifest.

        Args:
            name: the name to write; a name on disk that differs in case only is replaced.
            weights: the file, in this store's `blobs` folder; it is renamed.
            digest: its sha256, which the caller has computed.
            config: what the config shall say; the list of blobs is filled in.
            texts: media types and contents of further small blobs.

        Raises:
            StoreError: the disk refuses; no manifest has been written then.
        """
        self.prepare()
        with disk.storage_errors("write the model store", weights):
            layers = (
                Layer(WEIGHTS, digest, weights.stat().st_size),
                *(Layer(kind, Digest.of(data), len(data)) for kind, data in texts),
            )
            _sync_file(weights)
        about = encode_config(config, layers)
        manifest = Manifest(Layer(CONFIG, Digest.of(about), len(about)), layers)
        with self._writing():
            for data in (*(data for _, data in texts), about):
                self._write_blob(data)
            with disk.storage_errors("write the model store", weights):
                weights.replace(self.blob_path(digest))
                disk.sync_folder(self.blobs)
            return self._write_manifest(name, manifest)

    def remove(self, name: ModelName) -> tuple[ModelName, int]:
        """Removes a model, and of its blobs those that no other model names.

        While any other manifest is unreadable its blobs are unknown, so none is removed.

        Returns:
            The name as it was on disk, and how many bytes were freed.

        Raises:
            StoreError: there is no such model, this store is only read, or the disk refuses.
        """
        self._require_writable()
        with self._writing():
            spelling = self._spelling(name)
            if spelling is None:
                raise StoreError(f"{name} is not in the store {self.root}.")
            try:
                own = self._read(spelling)
            except StoreError:
                own = None
            path = spelling.path_below(self.manifests)
            with disk.storage_errors("remove the model", path):
                path.unlink()
                self._remove_empty_folders(path.parent)
            if own is None:
                return spelling, 0
            return spelling, self._remove_unnamed(own.manifest.digests)

    def prune(self, *, now: float | None = None, downloads_only: bool = False) -> int:
        """Removes blobs that no manifest names and downloads that nobody finished in 30 days.

        While any manifest is unreadable, no blob is removed.

        Args:
            now: the time to reckon from, in seconds since 1970.
            downloads_only: leave the blobs alone.

        Returns:
            How many bytes were freed.

        Raises:
            StoreError: this store is only read, or the disk refuses.
        """
        self._require_writable()
        now = time.time() if now is None else now
        with self._writing():
            orphans: set[Digest] = set()
            freed = 0
            for path in self._blob_files():
                digits, _, suffix = path.name.removeprefix("sha256-").partition("-")
                age = now - _modified(path)
                try:
                    digest = Digest(digits)
                except StoreError:
                    continue
                if not suffix and age > _ORPHAN_AGE:
                    orphans.add(digest)
                elif suffix and age > _PARTIAL_AGE:
                    freed += self._remove_unlocked(digest, path)
            return freed if downloads_only else freed + self._remove_unnamed(orphans)

    # Details

    def _decoded(
        self, model: StoredModel, media_type: str, kind: type[_T], what: str
    ) -> Iterator[_T]:
        for text in self.texts(model, media_type):
            try:
                yield msgspec.json.decode(text, type=kind)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise StoreError(
                    f"The {what} of {model.name} in {self.root} are damaged: {error}.",
                    hint="Pull the model again.",
                ) from error

    def _require_writable(self) -> None:
        if not self.writable:
            raise StoreError(
                f"The model store {self.root} belongs to another program; moim only reads it.",
                hint=f"To let moim write there, set MOIM_MODELS={self.root}.",
            )

    def _lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name}.lock"

    def _writing(self) -> AbstractContextManager[None]:
        """Held while names change, so that no blob is removed before its manifest is written."""
        return disk.exclusive(self._lock_path("store"), interval=0.02)

    def _write_blob(self, data: bytes) -> None:
        digest = Digest.of(data)
        path = self.blob_path(digest)
        if _size(path) == len(data):
            with disk.storage_errors("read the model store", path):
                if Digest.of(path.read_bytes()) == digest:
                    return
        disk.write_atomically(path, data, self.blobs / "moim-blob.tmp")

    def _write_manifest(self, name: ModelName, manifest: Manifest) -> StoredModel:
        spelling = self._twin(name)
        disk.write_atomically(
            spelling.path_below(self.manifests),
            encode_manifest(manifest),
            self.manifests / "moim-manifest.tmp",
        )
        return self._read(spelling)

    def _read(self, name: ModelName) -> StoredModel:
        path = name.path_below(self.manifests)
        with disk.storage_errors("read the model store", path):
            data = _read_limited(path, _MANIFEST_LIMIT)
            modified_at = path.stat().st_mtime
        try:
            manifest = decode_manifest(data)
        except StoreError as error:
            raise StoreError(
                f"The manifest of {name} in {self.root} is damaged: {error.message}",
                hint="Pull the model again, or remove it.",
            ) from error
        return StoredModel(
            name=name,
            digest=Digest.of(data).hex,
            manifest=manifest,
            modified_at=modified_at,
            root=self.root,
        )

    def _manifest_paths(self, problems: list[StoreError]) -> Iterator[tuple[str, str, str, str]]:
        for host in self._entries(self.manifests, problems):
            for namespace in self._entries(self.manifests / host, problems):
                for model in self._entries(self.manifests / host / namespace, problems):
                    folder = self.manifests / host / namespace / model
                    for tag in self._entries(folder, problems, files=True):
                        yield host, namespace, model, tag

    def _entries(
        self, folder: Path, problems: list[StoreError], *, files: bool = False
    ) -> list[str]:
        try:
            with disk.storage_errors("read the model store", folder), os.scandir(folder) as items:
                return sorted(item.name for item in items if item.is_file() == files)
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                problems.append(error)
            return []

    def _spelling(self, name: ModelName) -> ModelName | None:
        """The name as it is on disk, if a manifest of that name is there in any case."""
        found = self._spelled_parts(name)
        if len(found) != 4:
            return None
        host, namespace, model, tag = found
        return ModelName.from_parts((host, namespace, model, tag))

    def _twin(self, name: ModelName) -> ModelName:
        """The name with the spelling of the folders that are there already.

        A second spelling would be a second model on one file system and the same on the next.
        """
        found = self._spelled_parts(name)
        host, namespace, model, tag = (*found, *name.parts[len(found) :])
        return ModelName.from_parts((host, namespace, model, tag))

    def _spelled_parts(self, name: ModelName) -> tuple[str, ...]:
        problems: list[StoreError] = []
        spelled: list[str] = []
        folder = self.manifests
        for depth, part in enumerate(name.parts):
            entries = self._entries(folder, problems, files=depth == 3)
            if problems and self.writable:
                raise problems[0]
            # The exact spelling first, should a case-sensitive disk hold both.
            same = [entry for entry in entries if entry.lower() == part.lower()]
            if not same:
                break
            spelled.append(part if part in same else same[0])
            folder = folder / spelled[-1]
        return tuple(spelled)

    def _remove_unnamed(self, digests: Set[Digest]) -> int:
        models, problems = self.models()
        if problems:
            return 0
        named = {digest for model in models for digest in model.manifest.digests}
        return sum(self._remove_file(self.blob_path(digest)) for digest in digests - named)

    def _remove_unlocked(self, digest: Digest, path: Path) -> int:
        """Removes a file of a download unless somebody is at work on it."""

        class Busy(Exception):
            pass

        def give_up() -> None:
            raise Busy

        try:
            with self.lock(digest, give_up):
                return self._remove_file(path)
        except Busy:
            return 0

    def _remove_file(self, path: Path) -> int:
        with disk.storage_errors("remove from the model store", path):
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return 0
            return size

    def _remove_empty_folders(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            while folder != self.manifests:
                folder.rmdir()
                folder = folder.parent

    def _blob_files(self) -> list[Path]:
        names = self._entries(self.blobs, [], files=True)
        return [self.blobs / name for name in names if name.startswith("sha256-")]


def hash_file(file: BinaryIO, on_bytes: Callable[[int], None] | None = None) -> Digest:
    """The digest of what is left to read of `file`.

    Args:
        file: an open file.
        on_bytes: called after each piece with the bytes read so far.
    """
    hasher = hashlib.sha256()
    count = 0
    while chunk := file.read(_CHUNK):
        hasher.update(chunk)
        count += len(chunk)
        if on_bytes is not None:
            on_bytes(count)
    return Digest(hasher.hexdigest())


def _read_limited(path: Path, limit: int) -> bytes:
    if not path.is_file() and path.exists():
        raise StoreError(f"{path} is not a file.", hint="Remove it.")
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise StoreError(f"{path} is larger than {limit} bytes.", hint="Pull the model again.")
    return data


def _sync_file(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
