"""How runners begin and end: with their parent, with time, by `stop`, and across processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import urllib3
from support_engine import (
    LONG_PROMPT,
    alive,
    ask,
    chat,
    error_of,
    local,
    open_chat,
    pool_in,
    program,
    slow,
    text_of,
    tiny,
    until,
)

from moim.errors import RunnerError
from moim.local import runner
from moim.local.registry import LoadedModel, Registry, identity
from moim.local.runner import Pool
from moim.runtime import BLOCKING, step

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and /proc")

SOON = 5.0
"""Seconds in which a runner must have followed its parent."""


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with pool_in(tmp_path) as pool:
        yield pool


@pytest.fixture(autouse=True)
def one_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runners that this process and its children share."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "moim" / "runners"


# Says `loading PID` or `ready PID`, then does what its second argument says until it is killed.
PARENT = """
import sys, threading, time
from pathlib import Path
from support_engine import *
from moim.local import runner

folder, phase = Path(sys.argv[1]), sys.argv[2]
pool = runner.pool()
# Four contexts of 32,768 tokens take half a second to set up.
spec = slow(folder, slots=4) if phase == "loading" else slow(folder)
transport = local(pool, spec)
if phase == "loading":
    threading.Thread(target=ask, args=(transport, chat()), daemon=True).start()
    until(lambda: pool._runners and pool._runners[spec].child)
    print("loading", pool._runners[spec].child.pid, flush=True)
    time.sleep(100)
step(transport.load(BLOCKING))
pid = pool.loaded()[0].pid
if phase == "reading":
    exchange = step(open_chat(BLOCKING, transport, chat(LONG_PROMPT)))
if phase == "generating":
    exchange = step(open_chat(BLOCKING, transport, chat(max_tokens=30000)))
    while b"data:" not in step(exchange.read()):
        pass
print("ready", pid, flush=True)
if phase == "exiting":
    sys.exit()
time.sleep(100)
"""


def child_of(parent: subprocess.Popen[str]) -> int:
    assert parent.stdout is not None
    return int(parent.stdout.readline().split()[1])


def is_mapping(pid: int, path: Path) -> bool:
    try:
        return str(path) in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("phase", ["reading", "generating", "idle"])
def test_no_runner_outlives_a_parent_that_is_killed(tmp_path: Path, phase: str) -> None:
    with program(PARENT, str(tmp_path), phase) as parent:
        pid = child_of(parent)
        assert alive(pid)
        parent.kill()
        until(lambda: not alive(pid), SOON)


def test_no_runner_outlives_a_parent_that_is_killed_during_the_load(tmp_path: Path) -> None:
    with program(PARENT, str(tmp_path), "loading") as parent:
        pid = child_of(parent)
        until(lambda: is_mapping(pid, tmp_path / "slow.gguf"))
        # Stopped, it stays in the load, and its own code cannot help it.
        os.kill(pid, signal.SIGSTOP)
        parent.kill()
        try:
            until(lambda: not alive(pid), SOON)
        finally:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.02, 0.05, 0.1, 0.2])
def test_no_runner_outlives_a_parent_that_is_killed_soon_after_the_start(
    tmp_path: Path, delay: float
) -> None:
    with program(PARENT, str(tmp_path), "loading") as parent:
        pid = child_of(parent)
        time.sleep(delay)
        parent.kill()
        until(lambda: not alive(pid), SOON)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_no_runner_outlives_a_parent_that_is_asked_to_end(
    tmp_path: Path, how: signal.Signals
) -> None:
    with program(PARENT, str(tmp_path), "generating", stderr=subprocess.DEVNULL) as parent:
        pid = child_of(parent)
        parent.send_signal(how)
        until(lambda: not alive(pid), SOON)
        assert parent.wait(SOON) != 0


def test_a_parent_that_ends_takes_its_runner_along(tmp_path: Path, one_registry: Path) -> None:
    with program(PARENT, str(tmp_path), "exiting") as parent:
        pid = child_of(parent)
        assert parent.wait(SOON * 4) == 0
        assert not alive(pid)
        assert not list(one_registry.glob("*.json"))


def test_the_end_of_its_input_ends_it_where_the_kernel_does_not(pool: Pool, tmp_path: Path) -> None:
    """What other systems than Linux have to rely on."""
    ask(local(pool, tiny(tmp_path)), chat())
    (model,) = pool.loaded()
    (entry,) = pool._runners.values()
    assert entry.child is not None
    assert entry.child._popen.stdin is not None
    entry.child._popen.stdin.close()
    until(lambda: not alive(model.pid), SOON)


def test_a_fork_has_no_runners_and_leaves_those_of_its_parent_alone(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from support_engine import *
from moim.local import runner

spec = tiny(Path(sys.argv[1]))
def call():
    answer = text_of(ask(LocalTransport(spec, name="tiny", http=http()), chat()))
    return runner.pool().loaded()[0].pid, answer

first = call()
fork = os.fork()
if not fork:
    assert runner.loaded()[0].pid == first[0]  # it is seen, as that of another process
    second = call()
    assert second[0] != first[0] and second[1] == first[1]
    runner.pool().close()
    os._exit(0)
assert os.waitpid(fork, 0)[1] == 0
assert call() == first
print("well")
"""
    with program(code, str(tmp_path)) as process:
        assert process.communicate(timeout=60)[0] == "well\n"


def test_a_lease_given_back_in_a_fork_ends_nothing(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from support_engine import *
from moim.local import runner

transport = LocalTransport(slow(Path(sys.argv[1])), name="slow", http=http())
exchange = step(open_chat(BLOCKING, transport, chat("x" * 3000)))
fork = os.fork()
if not fork:
    exchange._lease.abandon()
    os._exit(0)
assert os.waitpid(fork, 0)[1] == 0
while step(exchange.read()):
    pass
print("well")
"""
    with program(code, str(tmp_path)) as process:
        assert process.communicate(timeout=60)[0] == "well\n"


def test_secrets_of_the_parent_are_not_in_the_child(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "a-parents-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-parents-secret")
    ask(local(pool, tiny(tmp_path)), chat())
    (entry,) = pool._runners.values()
    folder = Path(f"/proc/{pool.loaded()[0].pid}")
    for part in ("environ", "cmdline"):
        content = (folder / part).read_bytes()
        assert content
        assert b"a-parents-secret" not in content
        assert entry.key.encode() not in content
    assert b"PATH=" in (folder / "environ").read_bytes()
    assert "Max core file size        0" in (folder / "limits").read_text()


def test_the_port_is_of_no_use_without_the_key(pool: Pool, tmp_path: Path) -> None:
    ask(local(pool, tiny(tmp_path)), chat())
    (entry,) = pool._runners.values()
    base = entry.endpoint.base
    assert base.startswith("http://127.0.0.1:")
    with urllib3.PoolManager() as http:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            for path in ("/props", "/v1/models", "/slots", "/metrics"):
                assert http.request("GET", base + path, headers=headers).status == 401
            body = chat().body
            posted = http.request("POST", f"{base}/chat/completions", body=body, headers=headers)
            assert posted.status == 401
    assert entry.key not in repr(entry.endpoint)


@pytest.mark.parametrize("keep_alive", [0.0, 0.2])
def test_an_unused_runner_ends_after_keep_alive(
    pool: Pool, tmp_path: Path, keep_alive: float
) -> None:
    transport = local(pool, tiny(tmp_path), keep_alive)
    begun = time.monotonic()
    ask(transport, chat())
    until(lambda: not psutil.Process().children(), SOON)
    assert time.monotonic() - begun >= keep_alive
    assert not pool.loaded()


def test_a_runner_in_use_stays_and_a_negative_keep_alive_is_for_ever(
    pool: Pool, tmp_path: Path
) -> None:
    exchange = step(open_chat(BLOCKING, local(pool, slow(tmp_path), 0.0), chat(max_tokens=100)))
    while step(exchange.read()):
        (model,) = pool.loaded()
        assert (model.busy, model.expires) == (1, None)
    assert not pool.loaded()
    ask(local(pool, tiny(tmp_path), -1.0), chat())
    (model,) = pool.loaded()
    assert (model.busy, model.expires) == (0, None)


def test_every_call_moves_the_end(pool: Pool, tmp_path: Path) -> None:
    ends = []
    for _ in range(3):
        ask(local(pool, tiny(tmp_path), 1000.0), chat())
        ends.append(pool.loaded()[0].expires or 0.0)
    assert ends == sorted(ends)
    assert ends[0] < ends[-1]
    assert ends[0] == pytest.approx(time.time() + 1000, abs=60)


def names(models: list[LoadedModel]) -> list[str]:
    return [model.name for model in models]


def test_other_processes_see_a_runner_and_can_stop_it(tmp_path: Path, one_registry: Path) -> None:
    with program(PARENT, str(tmp_path), "generating") as parent:
        pid = child_of(parent)
        until(runner.loaded)
        (model,) = runner.loaded()
        assert (model.name, model.pid, model.owner) == ("tiny", pid, parent.pid)
        assert (model.context, model.path) == (32768, str(tmp_path / "slow.gguf"))
        assert (model.memory or 0) > 7 << 20
        (file,) = one_registry.glob("*.json")
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
        assert runner.stop("another") == []
        assert alive(pid)
        assert names(runner.stop("tiny")) == ["tiny"]
        assert not alive(pid)
        assert runner.loaded() == []


def test_stopping_an_own_runner_fails_its_calls_with_the_reason(pool: Pool, tmp_path: Path) -> None:
    transport = local(pool, slow(tmp_path))
    exchange = step(open_chat(BLOCKING, transport, chat(LONG_PROMPT)))
    (model,) = pool.loaded()
    assert names(pool.stop(model.path)) == ["tiny"]
    assert not alive(model.pid)

    def read_on() -> None:
        while step(exchange.read()):
            pass

    error = error_of(read_on)
    assert isinstance(error, RunnerError)
    assert "stopped" in error.message
    assert not error.retryable
    exchange.close()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "100"])
    yield process
    process.kill()
    process.wait()


def loaded_as(pid: int) -> LoadedModel:
    return LoadedModel(name="x", path="/x", pid=pid, owner=1, since=0.0, context=1, slots=1)


def test_a_number_that_another_process_has_now_is_left_alone(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    registry = Registry(tmp_path)
    registry.write(loaded_as(stranger.pid))
    (file,) = tmp_path.glob("*.json")
    assert registry.loaded()
    told = json.loads(file.read_bytes())
    for look in (lambda: registry.loaded() == [], lambda: registry.end(loaded_as(stranger.pid))):
        file.write_text(json.dumps({**told, "identity": f"{told['identity']}0"}))
        assert look()
        assert alive(stranger.pid)
        assert not file.exists()


def test_what_is_left_of_a_dead_process_is_cleared_away(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    registry = Registry(tmp_path)
    registry.write(loaded_as(stranger.pid))
    stranger.kill()
    stranger.wait()
    assert registry.loaded() == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"identity":1}', b"\xff"])
def test_a_damaged_file_in_the_registry_is_no_runner(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "1.json").write_bytes(damage)
    assert Registry(tmp_path).loaded() == []


def test_without_a_folder_to_write_to_a_process_knows_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    registry = Registry(tmp_path / "file" / "runners")
    pool = Pool(registry)
    try:
        ask(local(pool, tiny(tmp_path)), chat())
        assert names(pool.loaded()) == ["tiny"]
        assert registry.loaded() == []
    finally:
        pool.close()


def test_a_process_is_told_from_another_with_its_number(
    stranger: subprocess.Popen[bytes],
) -> None:
    assert identity(stranger.pid) == identity(stranger.pid) != identity(os.getpid())
    stranger.kill()
    until(lambda: psutil.Process(stranger.pid).status() == psutil.STATUS_ZOMBIE)
    assert identity(stranger.pid) is None


def test_a_closed_pool_starts_nothing(tmp_path: Path) -> None:
    with pool_in(tmp_path) as pool:
        text_of(ask(local(pool, tiny(tmp_path)), chat()))
    assert isinstance(error_of(lambda: ask(local(pool, tiny(tmp_path)), chat())), RunnerError)
