"""The store on disk: Ollama's layout, both ways; damage and hostility; every write may fail."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_pypi import leftovers

from moim.errors import StoreError
from moim.local import disk
from moim.local.manifest import LICENSE, PARAMS, Digest, ModelConfig, Provenance, decode_manifest
from moim.local.names import ModelName, PyPIName
from moim.local.store import Store, StoredModel

HEX = "0123456789abcdef" * 4
CONFIG = ModelConfig(
    model_format="gguf",
    model_family="llama",
    model_families=("llama",),
    model_type="134.52M",
    file_type="Q4_1",
    architecture="amd64",
    os="linux",
    moim=Provenance(source="pypi:tiny==1.0"),
)
NAME = ModelName(model="Tiny", tag="1.0")


def add(
    store: Store, name: ModelName = NAME, data: bytes = b"GGUF weights", **options: Any
) -> StoredModel:
    store.prepare()
    digest = Digest.of(data)
    weights = store.extract_path(digest)
    weights.write_bytes(data)
    return store.add(name, weights=weights, digest=digest, config=CONFIG, **options)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models", writable=True)


def test_a_model_is_found_as_it_was_added(store: Store) -> None:
    texts = ((LICENSE, b"MIT"), (PARAMS, b'{"stop":["x"],"seed":1}'))
    added = add(store, texts=texts)
    found = store.find(NAME)
    assert found == added
    assert found is not None
    assert store.params(found) == {"stop": ["x"], "seed": 1}
    assert store.texts(found, LICENSE) == ["MIT"]
    assert store.config(found).moim == CONFIG.moim
    assert store.blob_path(found.weights.digest).read_bytes() == b"GGUF weights"
    assert store.is_complete(found)
    assert store.is_intact(found)
    assert leftovers(store.root) == []


def test_it_lies_where_ollama_looks(store: Store) -> None:
    model = add(store, texts=((LICENSE, b"MIT"),))
    manifest = store.root / "manifests/registry.ollama.ai/library/Tiny/1.0"
    read = json.loads(manifest.read_bytes())
    assert read["schemaVersion"] == 2
    assert read["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    assert read["config"]["mediaType"] == "application/vnd.docker.container.image.v1+json"
    assert [layer["mediaType"] for layer in read["layers"]] == [
        "application/vnd.ollama.image.model",
        "application/vnd.ollama.image.license",
    ]
    for layer in (read["config"], *read["layers"]):
        blob = store.root / "blobs" / layer["digest"].replace(":", "-")
        assert blob.stat().st_size == layer["size"]
        assert str(Digest.of(blob.read_bytes())) == layer["digest"]
    config = json.loads(
        (store.root / "blobs" / read["config"]["digest"].replace(":", "-")).read_bytes()
    )
    assert config["model_format"] == "gguf"
    assert config["model_families"] == ["llama"]
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in read["layers"]]
    assert model.digest == Digest.of(manifest.read_bytes()).hex
    assert model.size == sum(x["size"] for x in (read["config"], *read["layers"]))


def test_what_ollama_writes_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = tmp_path / "manifests/hf.co/Org/Repo-GGUF/Q4_K_M"
    manifest.parent.mkdir(parents=True)
    layer = {"digest": f"sha256:{HEX}", "size": 5, "from": "x", "name": "y"}
    manifest.write_text(
        json.dumps(
            {
                "schemaVersion": 2,
                "config": {"mediaType": "c", **layer},
                "layers": [{"mediaType": "application/vnd.ollama.image.model", **layer}],
                "extra": 1,
            }
        )
    )
    (model,), problems = store.models()
    assert not problems
    assert str(model.name) == "hf.co/Org/Repo-GGUF:Q4_K_M"
    assert model.weights.digest == Digest(HEX)
    assert store.find(ModelName(host="HF.co", namespace="org", model="REPO-gguf", tag="q4_k_m"))
    assert not store.is_complete(model)


@given(st.text(max_size=80) | st.from_regex(r"sha256[:-][0-9a-fA-F./]{60,66}", fullmatch=True))
def test_a_digest_is_one_or_an_error(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except StoreError:
        return
    assert str(digest) == text
    assert len(digest.file_name) == 71
    assert "/" not in digest.file_name


@pytest.mark.parametrize(
    "digest",
    [
        "sha256:../../../../../../etc/passwd", "sha256:..", "sha256:", "", "sha256:" + "a" * 63,
        "sha256:" + "a" * 65, "sha256:" + "A" * 64, "sha512:" + "a" * 64, "sha256-" + "a" * 64,
        "sha256:" + "a" * 61 + "/..", "sha256:" + "a" * 63 + "\n", "sha256:" + "٣" * 64,
        "../" * 22 + "etc",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["config", "layer"])
def test_a_hostile_digest_never_becomes_a_path(store: Store, digest: str, place: str) -> None:
    secret = store.root.parent / "secret"
    secret.write_text("mine")
    good = add(store)
    path = store.root / "manifests/registry.ollama.ai/library/evil/1"
    path.parent.mkdir(parents=True)
    layer = {
        "mediaType": "application/vnd.ollama.image.model",
        "digest": f"sha256:{HEX}",
        "size": 1,
    }
    bad = {**layer, "digest": digest}
    config, layers = (bad, [layer]) if place == "config" else (layer, [bad])
    path.write_text(json.dumps({"config": config, "layers": layers}))
    models, problems = store.models()
    assert models == [good]
    assert len(problems) == 1
    with pytest.raises(StoreError, match="damaged"):
        store.find(ModelName(model="evil", tag="1"))
    store.remove(ModelName(model="evil", tag="1"))
    assert secret.read_text() == "mine"
    assert store.models() == ([good], [])


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_any_bytes_are_a_manifest_or_an_error(data: bytes) -> None:
    with pytest.raises(StoreError):
        decode_manifest(data)


@pytest.mark.parametrize("keep", range(0, 300, 17))
def test_a_torn_manifest_is_a_problem_and_no_crash(store: Store, keep: int) -> None:
    add(store, ModelName(model="whole"))
    add(store, ModelName(model="torn"), b"GGUF other")
    path = store.root / "manifests/registry.ollama.ai/library/torn/latest"
    path.write_bytes(path.read_bytes()[:keep])
    models, problems = store.models()
    assert [model.name.model for model in models] == ["whole"]
    (problem,) = problems
    assert "torn" in str(problem)
    assert problem.hint
    with pytest.raises(StoreError):
        store.find(ModelName(model="torn"))
    assert store.find_or_none(ModelName(model="torn")) is None
    assert store.holds(ModelName(model="torn"))


def test_stray_files_are_no_models(store: Store) -> None:
    add(store)
    for stray in (".DS_Store", "registry.ollama.ai/.x", "registry.ollama.ai/library/.y/z", "a/b/c"):
        path = store.manifests / stray
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    os.mkfifo(store.manifests / "registry.ollama.ai/library/Tiny/fifo")
    (store.manifests / "registry.ollama.ai/library/Tiny/con").write_text("x")
    models, problems = store.models()
    assert [model.name for model in models] == [NAME]
    assert problems == []


def test_the_newest_comes_first(store: Store) -> None:
    for age, model in enumerate(("c", "a", "b")):
        add(store, ModelName(model=model))
        os.utime(store.root / f"manifests/registry.ollama.ai/library/{model}/latest", (age, age))
    assert [model.name.model for model in store.models()[0]] == ["b", "a", "c"]


def test_a_name_that_differs_in_case_replaces(store: Store) -> None:
    add(store, ModelName(model="Tiny", tag="Q4"))
    add(store, ModelName(model="tINY", tag="q4"), b"GGUF two")
    (model,) = store.models()[0]
    assert str(model.name) == "Tiny:Q4"
    assert model.weights.digest == Digest.of(b"GGUF two")


def test_an_exact_spelling_beats_its_twin(store: Store) -> None:
    add(store, ModelName(model="Tiny"))
    twin = store.manifests / "registry.ollama.ai/library/TINY"
    twin.mkdir()
    (twin / "latest").write_text("torn")
    assert store.find(ModelName(model="Tiny")) is not None
    with pytest.raises(StoreError):
        store.find(ModelName(model="TINY"))


def test_changed_weights_are_found_out(store: Store) -> None:
    model = add(store)
    blob = store.blob_path(model.weights.digest)
    blob.write_bytes(b"GGUF wEights")
    assert store.is_complete(model)
    assert not store.is_intact(model)
    blob.unlink()
    assert not store.is_complete(model)
    assert not store.is_intact(model)


def test_removing_keeps_what_others_name(store: Store) -> None:
    add(store, ModelName(model="one"))
    add(store, ModelName(model="two"))
    alone = add(store, ModelName(model="alone"), b"GGUF alone")
    spelled, freed = store.remove(ModelName(model="ALONE"))
    assert spelled.model == "alone"
    assert freed == alone.size
    assert not store.blob_path(alone.weights.digest).exists()
    assert store.remove(ModelName(model="one"))[1] == 0
    two = store.find(ModelName(model="two"))
    assert two is not None
    assert store.is_intact(two)
    store.remove(ModelName(model="two"))
    assert [path for path in store.root.rglob("*") if path.is_file()] == []
    assert list(store.manifests.iterdir()) == []


def test_no_blob_goes_while_a_manifest_is_unreadable(store: Store) -> None:
    model = add(store, ModelName(model="one"))
    add(store, ModelName(model="torn"), b"GGUF torn")
    (store.manifests / "registry.ollama.ai/library/torn/latest").write_text("{")
    assert store.remove(ModelName(model="one"))[1] == 0
    assert store.blob_path(model.weights.digest).exists()
    assert store.prune(now=1e12) == 0
    store.remove(ModelName(model="torn"))
    assert store.prune(now=1e12) > 0
    assert list(store.blobs.iterdir()) == []


def test_prune_leaves_models_and_young_files(store: Store) -> None:
    model = add(store)
    orphan = store.blob_path(Digest.of(b"orphan"))
    orphan.write_bytes(b"orphan")
    partial = store.partial_path(Digest.of(b"partial"))
    partial.write_bytes(b"part")
    busy = store.partial_path(Digest.of(b"busy"))
    busy.write_bytes(b"busy")
    (store.blobs / "README").write_text("not ours")
    assert store.prune() == 0
    with store.lock(Digest.of(b"busy")):
        assert store.prune(now=time.time() + 29 * 86_400, downloads_only=True) == 0
        assert orphan.exists()
        assert store.prune(now=1e12) == len(b"orphan") + len(b"part")
    assert busy.exists()
    assert (store.blobs / "README").exists()
    assert store.is_intact(model)


def test_removing_what_is_not_there(store: Store) -> None:
    with pytest.raises(StoreError, match="is not in the store"):
        store.remove(NAME)


def test_a_store_of_others_is_never_written(tmp_path: Path) -> None:
    add(Store(tmp_path / "theirs", writable=True))
    before = sorted(tmp_path.rglob("*"))
    theirs = Store(tmp_path / "theirs")
    assert theirs.find(NAME) is not None
    for attempt in (
        lambda: theirs.remove(NAME),
        lambda: theirs.prune(),
        lambda: theirs.prepare(),
        lambda: theirs.lock(Digest(HEX)),
    ):
        with pytest.raises(StoreError, match="only reads") as caught:
            attempt()
        assert "MOIM_MODELS" in caught.value.hint
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    store = Store(tmp_path / "nowhere")
    assert store.models() == ([], [])
    assert store.find(NAME) is None
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.write_text("a file")
    store = Store(root, writable=True)
    for attempt in (store.prepare, lambda: add(store), lambda: store.find(NAME)):
        with pytest.raises(StoreError, match="a file is where a folder should be") as caught:
            attempt()
        assert caught.value.hint
    assert Store(root).find(NAME) is None
    assert len(Store(root).models()[1]) == 1
    assert root.read_text() == "a file"


def test_a_stored_package_comes_back(store: Store) -> None:
    name = PyPIName(package="a-b", version="1!2.0rc1+x.1", file="Model.Q4")
    add(store, name.stored())
    (model,) = store.models()[0]
    assert PyPIName.from_stored(model.name) == name


class Faulty:
    """Fails the n-th write to the disk, and everything like it from then on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int, code: int) -> None:
        self.count = 0
        self.fail_at = fail_at
        self.code = code
        self.repaired = False
        for owner, name in (
            (disk, "write_all"),
            (os, "fsync"),
            (Path, "replace"),
            (Path, "mkdir"),
            (Path, "open"),
        ):
            monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name), name))

    def wrapped(self, real: Any, name: str) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            reads = name == "open" and (args[1:] or ("r",))[0] in ("r", "rb")
            if not reads and not self.repaired:
                self.count += 1
                if self.count > self.fail_at:
                    raise OSError(self.code, os.strerror(self.code))
            return real(*args, **options)

        return call


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
def test_whatever_write_fails_no_half_model_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    fail_at = 0
    while True:
        store = Store(tmp_path / str(fail_at), writable=True)
        weights = tmp_path / "weights"
        weights.write_bytes(b"GGUF")
        with monkeypatch.context() as patch:
            faulty = Faulty(patch, fail_at, code)
            try:
                store.add(
                    NAME, weights=weights, digest=Digest.of(b"GGUF"), config=CONFIG,
                    texts=((LICENSE, b"MIT"),),
                )  # fmt: skip
            except StoreError as error:
                assert error.hint
                faulty.repaired = True
                check_nothing_half_written(store)
            else:
                break
        fail_at += 1
    assert fail_at > 8, "the fault was injected at too few writes to mean anything"


def check_nothing_half_written(store: Store) -> None:
    models, problems = store.models()
    assert problems == []
    # The last step makes a name durable that is already right.
    assert all(store.is_intact(model) for model in models)
    assert not list(store.root.rglob("*.tmp"))


def test_locks_exclude_threads_and_leave_no_file(store: Store) -> None:
    inside: list[int] = []
    most: list[int] = []
    waited: list[int] = []

    def work() -> None:
        for _ in range(10):
            with store.lock(Digest(HEX), lambda: waited.append(1)):
                inside.append(1)
                most.append(len(inside))
                threading.Event().wait(0.002)
                inside.pop()

    store.prepare()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(most) == 40
    assert set(most) == {1}
    assert waited
    assert list((store.root / "locks").iterdir()) == []


@pytest.fixture
def holder(store: Store) -> Iterator[subprocess.Popen[str]]:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from moim.local.store import Store, Digest\n"
        "store = Store(Path(sys.argv[1]), writable=True)\n"
        "with store.lock(Digest(sys.argv[2])):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(store.root), HEX],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


def test_a_lock_ends_with_its_process(store: Store, holder: subprocess.Popen[str]) -> None:
    waits = 0

    def waiting() -> None:
        nonlocal waits
        waits += 1
        if waits == 2:
            holder.kill()

    with store.lock(Digest(HEX), waiting):
        assert waits >= 2
