"""Calls of a runner: sharing, leaving early, crashes, and both runtimes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from support_engine import (
    LONG_PROMPT,
    NOWHERE,
    PATIENCE,
    alive,
    answer,
    ask,
    chat,
    error_of,
    local,
    open_chat,
    pool_in,
    slow,
    text_of,
    tiny,
    until,
)

from moim.errors import (
    CallTimeout,
    ContextLengthError,
    ModelFileError,
    ModelTooLarge,
    RunnerError,
)
from moim.local import gguf
from moim.local.runner import Pool
from moim.local.transport import LocalTransport
from moim.runtime import BLOCKING, step
from moim.runtime.asyncio_ import ASYNCIO
from moim.testing import tiny_gguf
from moim.transport.protocol import Exchange, Timeouts


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    with pool_in(tmp_path) as pool:
        yield pool


def only_pid(pool: Pool) -> int:
    (model,) = pool.loaded()
    return model.pid


def begun(transport: LocalTransport, **fields: Any) -> Exchange:
    """A stream whose first tokens have arrived, of an answer that goes on for long."""
    exchange = step(open_chat(BLOCKING, transport, chat(max_tokens=30000, **fields)))
    while b"data:" not in step(exchange.read()):
        pass
    return exchange


def test_the_same_request_at_temperature_0_has_the_same_answer(pool: Pool, tmp_path: Path) -> None:
    transport = local(pool, tiny(tmp_path))
    first, second = (ask(transport, chat(max_tokens=20)) for _ in range(2))
    assert text_of(first) == text_of(second) != ""
    assert first[-1]["model"] == "tiny"
    assert first[-1]["usage"]["completion_tokens"] == 20


def test_many_first_callers_share_one_start(pool: Pool, tmp_path: Path) -> None:
    spec = tiny(tmp_path)
    barrier = threading.Barrier(8)

    def call() -> str:
        barrier.wait(PATIENCE)
        return text_of(ask(local(pool, spec), chat()))

    before = set(psutil.Process().children())
    with ThreadPoolExecutor(8) as threads:
        answers = {future.result() for future in [threads.submit(call) for _ in range(8)]}
    assert len(answers) == 1
    assert [child.pid for child in set(psutil.Process().children()) - before] == [only_pid(pool)]


def test_another_context_is_another_runner(pool: Pool, tmp_path: Path) -> None:
    for context in (256, 512):
        ask(local(pool, tiny(tmp_path, 2048, num_ctx=context)), chat())
    assert [model.context for model in pool.loaded()] == [256, 512]


def test_a_replaced_file_is_not_answered_from_the_old_one(pool: Pool, tmp_path: Path) -> None:
    old = text_of(ask(local(pool, tiny(tmp_path)), chat(max_tokens=20)))
    new_file = tiny_gguf.write(tmp_path / "new", context_length=2048, seed=1)
    new_file.replace(tmp_path / "tiny.gguf")
    os.utime(tmp_path / "tiny.gguf", (1, 1))
    assert text_of(ask(local(pool, tiny(tmp_path)), chat(max_tokens=20))) != old


def test_it_works_under_two_event_loops_in_turn_and_beside_threads(
    pool: Pool, tmp_path: Path
) -> None:
    transport = local(pool, tiny(tmp_path, slots=2))
    expected = text_of(ask(transport, chat()))

    async def together() -> list[str]:
        calls = [answer(ASYNCIO, transport, chat()) for _ in range(3)]
        return [text_of(events) for events in await asyncio.gather(*calls)]

    with ThreadPoolExecutor(2) as threads:
        beside = [threads.submit(ask, transport, chat()) for _ in range(4)]
        assert asyncio.run(together()) == asyncio.run(together()) == [expected] * 3
        assert {text_of(future.result()) for future in beside} == {expected}
    assert len(pool.loaded()) == 1


def test_an_event_loop_runs_on_while_a_model_loads(pool: Pool, tmp_path: Path) -> None:
    transport = local(pool, slow(tmp_path))

    async def main() -> int:
        loading = asyncio.ensure_future(transport.load(ASYNCIO))
        ticks = 0
        while not loading.done():
            await asyncio.sleep(0)
            ticks += 1
        await loading
        return ticks

    assert asyncio.run(main()) > 10


def test_leaving_while_tokens_are_generated_frees_the_slot(pool: Pool, tmp_path: Path) -> None:
    transport = local(pool, slow(tmp_path))
    begun(transport).close()
    pid = only_pid(pool)
    runner = psutil.Process(pid)
    ask(transport, chat("next"))
    used = runner.cpu_times()
    assert only_pid(pool) == pid
    # All 30,000 tokens of the answer that was left would take half a minute of processor time.
    assert used.user + used.system < 10


def test_leaving_during_the_prompt_ends_a_runner_that_nobody_else_uses(
    pool: Pool, tmp_path: Path
) -> None:
    transport = local(pool, slow(tmp_path))
    exchange = step(open_chat(BLOCKING, transport, chat(LONG_PROMPT)))
    pid = only_pid(pool)
    exchange.close()
    exchange.close()
    until(lambda: not alive(pid), 5)
    assert text_of(ask(transport, chat()))
    assert only_pid(pool) != pid


def test_leaving_during_the_prompt_spares_the_calls_of_others(pool: Pool, tmp_path: Path) -> None:
    transport = local(pool, slow(tmp_path, slots=2))
    other = begun(transport)
    pid = only_pid(pool)
    exchange = step(open_chat(BLOCKING, transport, chat("x" * 4000)))
    exchange.close()
    assert step(other.read())
    assert only_pid(pool) == pid
    assert alive(pid)
    other.close()
    assert text_of(ask(transport, chat()))
    assert only_pid(pool) == pid


def test_a_cancelled_task_leaves_at_once(pool: Pool, tmp_path: Path) -> None:
    transport = local(pool, slow(tmp_path))

    async def main() -> None:
        await transport.load(ASYNCIO)
        task = asyncio.ensure_future(answer(ASYNCIO, transport, chat(LONG_PROMPT)))
        while not pool.loaded()[0].busy:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)

    asyncio.run(main())
    assert not pool.loaded()


def test_the_time_for_the_first_token_covers_the_prompt(pool: Pool, tmp_path: Path) -> None:
    transport = local(pool, slow(tmp_path))
    step(transport.load(BLOCKING))
    pid = only_pid(pool)

    def call() -> None:
        timeouts = Timeouts(first=1.0, between=PATIENCE)
        exchange = step(transport.open(BLOCKING, NOWHERE, chat(LONG_PROMPT), timeouts))
        try:
            while step(exchange.read()):
                pass
        finally:
            exchange.close()

    assert isinstance(error_of(call), CallTimeout)
    until(lambda: not alive(pid), 5)


@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_while_answering_is_an_error_and_the_next_call_starts_afresh(
    pool: Pool, tmp_path: Path, how: signal.Signals
) -> None:
    transport = local(pool, slow(tmp_path))
    exchange = begun(transport)
    pid = only_pid(pool)
    os.kill(pid, how)

    def read_on() -> None:
        while step(exchange.read()):
            pass

    error = error_of(read_on)
    exchange.close()
    assert isinstance(error, RunnerError)
    assert f"signal {how.value}, {how.name}" in str(error)
    assert error.retryable
    assert text_of(ask(transport, chat()))
    assert only_pid(pool) != pid


def test_a_runner_that_died_while_idle_is_replaced_without_an_error(
    pool: Pool, tmp_path: Path
) -> None:
    transport = local(pool, tiny(tmp_path))
    for _ in range(3):
        ask(transport, chat())
        os.kill(only_pid(pool), signal.SIGKILL)
    assert text_of(ask(transport, chat()))


def test_all_callers_of_a_runner_that_dies_get_an_error_of_their_own(
    pool: Pool, tmp_path: Path
) -> None:
    transport = local(pool, slow(tmp_path, slots=2))
    exchanges = [begun(transport), begun(transport)]
    os.kill(only_pid(pool), signal.SIGSEGV)
    errors = []
    for exchange in exchanges:

        def read_on(exchange: Exchange = exchange) -> None:
            while step(exchange.read()):
                pass

        errors.append(error_of(read_on))
        exchange.close()
    assert str(errors[0]) == str(errors[1])
    assert errors[0] is not errors[1]


def test_ctrl_c_does_not_reach_the_engine(pool: Pool, tmp_path: Path) -> None:
    transport = local(pool, slow(tmp_path))
    exchange = begun(transport)
    pid = only_pid(pool)
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGINT)
    for _ in range(5):
        assert step(exchange.read())
    exchange.close()
    assert text_of(ask(transport, chat()))
    assert only_pid(pool) == pid


def test_a_prompt_that_does_not_fit_gives_both_numbers_and_what_to_do(
    pool: Pool, tmp_path: Path
) -> None:
    transport = local(pool, tiny(tmp_path, 2048, num_ctx=256))
    error = error_of(lambda: ask(transport, chat("x" * 500)))
    assert isinstance(error, ContextLengthError)
    assert (error.prompt_tokens, error.context_tokens) == (518, 256)
    assert "518" in error.message
    assert "256" in error.message
    assert "num_ctx=2048" in error.hint
    assert "truncate=True" in error.hint
    assert pool.loaded()[0].busy == 0


def test_another_refusal_of_the_engine_is_handed_on(pool: Pool, tmp_path: Path) -> None:
    transport = local(pool, tiny(tmp_path))
    wrong = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "wibble"}}}
    exchange = step(open_chat(BLOCKING, transport, chat(response_format=wrong)))
    assert exchange.status == 400
    assert b"wibble" in step(exchange.read())
    assert step(exchange.read()) == b""
    assert pool.loaded()[0].busy == 0


def test_what_does_not_fit_in_memory_is_refused_before_it_is_started(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf, "free_memory", lambda: 1 << 20)
    error = error_of(lambda: ask(local(pool, tiny(tmp_path)), chat()))
    assert isinstance(error, ModelTooLarge)
    assert error.available == 1 << 20
    assert error.needed is not None
    assert error.needed > error.available
    assert not pool.loaded()


def test_an_idle_runner_makes_room_and_a_busy_one_does_not(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for one model: what is free grows again when the other runner is gone."""
    monkeypatch.setattr(gguf, "free_memory", lambda: 0 if pool.loaded() else 1 << 40)
    first, second = (local(pool, tiny(tmp_path, 2048, num_ctx=n)) for n in (256, 512))
    busy = begun(first)
    assert isinstance(error_of(lambda: ask(second, chat())), ModelTooLarge)
    busy.close()
    assert text_of(ask(second, chat()))
    assert [model.context for model in pool.loaded()] == [512]


def test_a_file_that_is_no_model_is_refused_before_the_engine_sees_it(
    pool: Pool, tmp_path: Path
) -> None:
    spec = tiny(tmp_path)
    Path(spec.path).write_bytes(b"GGUF" + bytes(100))
    before = set(psutil.Process().children())
    assert isinstance(error_of(lambda: ask(local(pool, spec), chat())), ModelFileError)
    assert set(psutil.Process().children()) == before


def test_what_the_engine_cannot_load_says_why_in_its_own_words(pool: Pool, tmp_path: Path) -> None:
    path = tiny_gguf.write(
        tmp_path / "tiny.gguf",
        metadata={"tokenizer.ggml.pre": (gguf.ValueType.STRING, "never-heard-of")},
    )
    error = error_of(lambda: ask(local(pool, tiny(path.parent)), chat()))
    assert isinstance(error, RunnerError)
    assert "never-heard-of" in error.message
    assert not error.retryable


@pytest.mark.skipif(os.name == "nt", reason="file names are bytes on POSIX alone")
def test_a_file_name_in_no_encoding_is_loaded_or_refused_but_never_hangs(
    pool: Pool, tmp_path: Path
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path / "caf") + b"\xe9.gguf"))
    tiny_gguf.write(odd)
    error = error_of(lambda: ask(local(pool, tiny(tmp_path, name=odd.name)), chat()))
    assert isinstance(error, RunnerError)
    assert "could not load tiny" in error.message


@pytest.mark.parametrize("keep_alive", [float("inf"), float("nan"), 1e300])
def test_any_keep_alive_is_borne(pool: Pool, tmp_path: Path, keep_alive: float) -> None:
    for _ in range(2):
        ask(local(pool, tiny(tmp_path), keep_alive), chat())
    assert len(pool.loaded()) == 1
    assert len(list((tmp_path / "runners").glob("*.json"))) == 1
    assert text_of(ask(local(pool, tiny(tmp_path, num_ctx=256)), chat()))


def test_a_load_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    with pool_in(tmp_path, load_seconds=0.001) as pool:
        error = error_of(lambda: ask(local(pool, tiny(tmp_path)), chat()))
        assert isinstance(error, RunnerError)
        assert "0.001 seconds" in error.message
        assert not pool.loaded()
