"""What every test gets: no user's settings, no network, and skips that are failures under CI."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
CI = bool(os.environ.get("CI"))

# The machines are shared and slow at times: what is bounded is the test run, not one example.
hypothesis.settings.register_profile("dev", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if CI else "dev"))

# Variables that would make a test depend on who runs it.
FOREIGN = ("_API_KEY", "_PROXY", "_TOKEN", "_BASE_URL", "_API_BASE")
FOREIGN_PREFIXES = ("MOIM_", "OLLAMA_", "XDG_", "SSL_CERT_")


def missing(what: str) -> NoReturn:
    """Skip with the reason, but fail under CI, where nothing may be missing."""
    if CI:
        pytest.fail(f"{what} (skipped on a developer's machine, a failure under CI)", pytrace=False)
    pytest.skip(what)


@pytest.fixture
def needs_program() -> Callable[[str], str]:
    """`needs_program("strace")` gives the program's path, or skips (fails under CI)."""

    def find(name: str) -> str:
        return shutil.which(name) or missing(f"the program {name} is not installed")

    return find


@pytest.fixture
def recordings() -> Path:
    """The folder of recorded exchanges: $MOIM_RECORDINGS, else the one beside the clone."""
    folder = Path(_RECORDINGS or ROOT.parent / "shared" / "recordings")
    if not folder.is_dir():
        missing(f"no recordings in {folder}; MOIM_RECORDINGS names their folder")
    return folder


@pytest.fixture
def smollm2(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the real model, in the store that `make test` has pulled it to."""
    store = ROOT / ".venv" / "models"
    if not (store / "manifests").is_dir():
        missing("the model smollm2 is not here; `make test` fetches it")
    monkeypatch.setenv("MOIM_MODELS", str(store))
    monkeypatch.setenv("MOIM_OFFLINE", "1")
    return "smollm2"


_RECORDINGS = os.environ.get("MOIM_RECORDINGS")


@pytest.fixture(autouse=True)
def nobodys_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An empty home, no keys, no proxies, no settings: in this process and in its children."""
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.upper().endswith(FOREIGN) or name.startswith(FOREIGN_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    monkeypatch.setenv("MOIM_CONFIG", str(home / "config.toml"))
    monkeypatch.setenv("MOIM_MODELS", str(home / "models"))


def _is_loopback(host: object) -> bool:
    text = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    if text == "localhost":
        return True
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_address(host: object) -> bool:
    try:
        ipaddress.ip_address(str(host).partition("%")[0])
    except ValueError:
        return False
    return True


def _refuse(what: str) -> NoReturn:
    pytest.fail(f"A test tried to reach {what}: tests talk to loopback only.")


def _on_connect(_socket: object, address: object) -> None:
    if isinstance(address, tuple) and not _is_loopback(address[0]):
        _refuse(f"{address[0]}:{address[1]}")


def _on_lookup(host: object, *_rest: object) -> None:
    if str(host).endswith(".invalid"):  # what a resolver would say, without asking one
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    if not _is_address(host) and not _is_loopback(host):
        _refuse(f"the name server for {host}")


_GUARDS: dict[str, Callable[..., None]] = {
    "socket.connect": _on_connect,
    "socket.sendto": _on_connect,
    "socket.getaddrinfo": _on_lookup,
    "socket.gethostbyname": _on_lookup,
}


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    if event in _GUARDS:
        _GUARDS[event](*arguments)


# An audit hook sees every socket of the process, whichever library opened it. It cannot be taken
# off again, which suits a test process.
sys.addaudithook(_guard)


@pytest.fixture(scope="session", autouse=True)
def working_directory() -> Iterator[None]:
    """Tests run from the clone, wherever pytest was started."""
    before = Path.cwd()
    os.chdir(ROOT)
    yield
    os.chdir(before)
