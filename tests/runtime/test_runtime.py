"""Waiting is written once: what every runtime does, and how `step` and `iterate` run it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import logging
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import SuspendedError
from moim.runtime import BLOCKING, Runtime, iterate, step
from moim.runtime.asyncio_ import ASYNCIO
from moim.runtime.fake import FakeRuntime

PATIENCE = 20.0


def run(name: str, body: Callable[[Runtime], Coroutine[Any, Any, Any]]) -> Any:
    if name == "asyncio":
        return asyncio.run(asyncio.wait_for(body(ASYNCIO), PATIENCE))
    return step(body(FakeRuntime() if name == "fake" else BLOCKING))


@pytest.fixture(params=["blocking", "asyncio"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["blocking", "asyncio", "fake"])
def any_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- step ---


async def deep(levels: int, value: Any) -> Any:
    return value if levels == 0 else await deep(levels - 1, value)


@given(st.integers(0, 50), st.integers() | st.text() | st.none())
def test_step_returns_what_the_coroutine_returns(levels: int, value: object) -> None:
    assert step(deep(levels, value)) == value


def test_step_raises_what_the_coroutine_raises() -> None:
    async def fails() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        step(fails())


class Ready:
    """An awaitable that is neither a coroutine nor a generator."""

    def __await__(self) -> Any:
        return iter(())


class Waits:
    def __await__(self) -> Generator[None, None, str]:
        yield
        return "never"


def test_step_runs_any_awaitable() -> None:
    assert step(Ready()) is None  # type: ignore[func-returns-value]
    with pytest.raises(SuspendedError):
        step(Waits())


def test_a_coroutine_that_suspends_is_named_closed_and_cleaned_up() -> None:
    cleaned = []

    async def suspends() -> None:
        try:
            await Waits()
        finally:
            cleaned.append(True)

    with pytest.raises(SuspendedError, match="suspends") as raised:
        step(suspends())
    assert "async twin" in raised.value.hint
    assert cleaned == [True]


def test_a_coroutine_that_waits_while_it_is_closed_is_the_same_error() -> None:
    async def stubborn() -> None:
        try:
            await Waits()
        finally:
            await Waits()

    with pytest.raises(SuspendedError):
        step(stubborn())


def test_step_works_inside_a_running_loop() -> None:
    async def outer() -> int:
        return step(deep(8, 5))

    assert asyncio.run(outer()) == 5


# --- iterate ---


async def batches(items: list[list[int]], closed: list[bool]) -> AsyncGenerator[list[int], None]:
    try:
        for item in items:
            yield item
    finally:
        closed.append(True)


@given(st.lists(st.lists(st.integers(), max_size=4), max_size=6), st.integers(0, 20))
def test_iterate_gives_the_items_in_order_and_closes(items: list[list[int]], stop: int) -> None:
    closed: list[bool] = []
    flat = [number for batch in items for number in batch]
    found = []
    walk = iterate(batches(items, closed))
    for _, number in zip(range(stop), walk, strict=False):
        found.append(number)
    walk.close()  # type: ignore[attr-defined]
    assert found == flat[:stop]
    begun = stop > 0
    assert closed == ([True] if begun else [])


def test_an_abandoned_iterator_closes_its_generator() -> None:
    closed: list[bool] = []
    for number in iterate(batches([[1, 2], [3]], closed)):
        assert number == 1
        break
    gc.collect()
    assert closed == [True]


def test_iterate_passes_errors_on_and_closes() -> None:
    async def fails() -> AsyncGenerator[list[int], None]:
        yield [1]
        raise ValueError("broken")

    walk = iterate(fails())
    assert next(walk) == 1
    with pytest.raises(ValueError, match="broken"):
        next(walk)


def test_iterate_over_a_generator_that_suspends_is_one_clear_error() -> None:
    cleaned = []

    async def suspends() -> AsyncGenerator[list[int], None]:
        try:
            yield [1]
            await Waits()
            yield [2]
        finally:
            cleaned.append(True)

    walk = iterate(suspends())
    assert next(walk) == 1
    with pytest.raises(SuspendedError):
        next(walk)
    assert cleaned == [True]


# --- every runtime ---


def test_sleep_moves_the_clock(any_name: str) -> None:
    async def body(rt: Runtime) -> None:
        before = rt.now()
        await rt.sleep(0.02)
        assert rt.now() - before >= 0.019

    run(any_name, body)


def test_call_gives_result_and_error(any_name: str) -> None:
    def fails(text: str) -> None:
        raise ValueError(text)

    async def body(rt: Runtime) -> None:
        assert await rt.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(ValueError, match="no"):
            await rt.call(fails, "no")
        own = await rt.call(threading.get_ident) == threading.get_ident()
        assert own == rt.blocks

    run(any_name, body)


def test_call_keeps_the_context(any_name: str) -> None:
    scope: contextvars.ContextVar[str] = contextvars.ContextVar("scope", default="none")

    async def body(rt: Runtime) -> None:
        scope.set("inside")
        assert await rt.call(scope.get) == "inside"

    run(any_name, body)


def test_wait_gives_what_another_thread_sets(name: str) -> None:
    async def body(rt: Runtime) -> None:
        for value in (1, None, ValueError("bad")):
            future: Future[Any] = Future()
            setter = future.set_exception if isinstance(value, Exception) else future.set_result
            timer = threading.Timer(0.01, setter, [value])
            timer.start()
            if isinstance(value, Exception):
                with pytest.raises(ValueError, match="bad"):
                    await rt.wait(future, PATIENCE)
            else:
                assert await rt.wait(future, PATIENCE) == value
            timer.join(PATIENCE)

    run(name, body)


def test_a_wait_that_takes_too_long_leaves_the_future_alone(any_name: str) -> None:
    async def body(rt: Runtime) -> None:
        future: Future[int] = Future()
        with pytest.raises(TimeoutError):
            await rt.wait(future, 0.01)
        assert not future.cancelled()
        future.set_result(3)
        assert await rt.wait(future, 0.01) == 3
        assert await rt.wait(future) == 3

    run(any_name, body)


def test_a_cancelled_future_does_not_look_like_a_cancelled_task(any_name: str) -> None:
    async def body(rt: Runtime) -> None:
        future: Future[int] = Future()
        future.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            await rt.wait(future, 1)

    run(any_name, body)


def test_a_cancelled_waiter_does_not_cancel_what_others_wait_for() -> None:
    async def body(rt: Runtime) -> None:
        future: Future[int] = Future()
        waiter = asyncio.ensure_future(rt.wait(future))
        other = asyncio.ensure_future(rt.wait(future))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        future.set_result(4)
        assert await other == 4

    run("asyncio", body)


@pytest.mark.parametrize("how", ["result", "error"])
def test_a_future_done_after_its_waiter_s_loop_is_closed_is_quiet(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    future: Future[int] = Future()

    async def body(rt: Runtime) -> None:
        with pytest.raises(TimeoutError):
            await rt.wait(future, 0.01)

    run("asyncio", body)
    with caplog.at_level(logging.DEBUG):
        if how == "result":
            future.set_result(1)
        else:
            future.set_exception(ValueError("late"))
        gc.collect()
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []


def test_home_is_the_loop_or_one_value_for_all_threads() -> None:
    async def loop_is_home(rt: Runtime) -> None:
        assert rt.home() is asyncio.get_running_loop()

    run("asyncio", loop_is_home)
    assert BLOCKING.home() is BLOCKING.home()
    assert BLOCKING.blocks
    assert not ASYNCIO.blocks


# --- gather ---


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_gather_keeps_order_and_limit(any_name: str, limit: int) -> None:
    lock = threading.Lock()
    running = most = 0

    async def body(rt: Runtime) -> None:
        async def work(number: int) -> int:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            await rt.sleep(0.002 * (number % 3))
            with lock:
                running -= 1
            return number * number

        made = [lambda n=n: work(n) for n in range(9)]
        assert await rt.gather(made, limit) == [n * n for n in range(9)]
        assert await rt.gather([], limit) == []

    run(any_name, body)
    assert most <= limit


@pytest.mark.parametrize("limit", [0, -1])
def test_gather_always_does_its_work(any_name: str, limit: int) -> None:
    async def body(rt: Runtime) -> None:
        assert await rt.gather([lambda: deep(1, "a"), lambda: deep(1, "b")], limit) == ["a", "b"]

    run(any_name, body)


def test_gather_is_parallel(name: str) -> None:
    """Each piece of work waits for the other to begin."""

    async def body(rt: Runtime) -> None:
        begun: list[Future[None]] = [Future(), Future()]

        async def meet(own: int) -> str:
            begun[own].set_result(None)
            await rt.wait(begun[1 - own], PATIENCE)
            return "met"

        assert await rt.gather([lambda: meet(0), lambda: meet(1)], 2) == ["met", "met"]

    run(name, body)


@pytest.mark.parametrize("limit", [1, 2])
def test_the_first_error_stops_what_has_not_begun(any_name: str, limit: int) -> None:
    begun: list[int] = []

    async def body(rt: Runtime) -> None:
        async def work(number: int) -> None:
            begun.append(number)
            if number == 1:
                raise ValueError("second")
            if number == 0 and limit == 2 and any_name != "fake":
                await rt.sleep(0.05)

        made = [lambda n=n: work(n) for n in range(50)]
        with pytest.raises(ValueError, match="second"):
            await rt.gather(made, limit)

    run(any_name, body)
    assert len(begun) < 50
    if any_name != "fake":
        assert begun == [0, 1]


def test_work_sees_the_context_and_does_not_share_its_changes(name: str) -> None:
    scope: contextvars.ContextVar[str] = contextvars.ContextVar("scope", default="none")

    async def body(rt: Runtime) -> None:
        scope.set("outer")
        seen: list[str] = []

        async def work(number: int) -> None:
            seen.append(scope.get())
            await rt.sleep(0.001)

        await rt.gather([lambda n=n: work(n) for n in range(4)], 4)
        assert seen == ["outer"] * 4
        assert scope.get() == "outer"

    run(name, body)


def test_a_cancelled_gather_cancels_its_tasks_and_waits_for_them() -> None:
    ended: list[int] = []

    async def body(rt: Runtime) -> None:
        async def work(number: int) -> None:
            try:
                await asyncio.sleep(PATIENCE)
            finally:
                await asyncio.sleep(0)
                ended.append(number)

        task = asyncio.ensure_future(rt.gather([lambda n=n: work(n) for n in range(3)], 2))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sorted(ended) == [0, 1]

    run("asyncio", body)


def test_gather_keeps_nothing_alive(name: str) -> None:
    class Big:
        pass

    async def body(rt: Runtime) -> weakref.ref[Big]:
        async def work() -> Big:
            return Big()

        results = await rt.gather([work, work], 2)
        return weakref.ref(results[0])

    reference = run(name, body)
    gc.collect()
    assert reference() is None


# --- the fake clock ---


@given(st.lists(st.floats(0, 1e6), max_size=8))
def test_the_fake_clock_is_the_sum_of_its_sleeps(seconds: list[float]) -> None:
    rt = FakeRuntime()

    async def body() -> None:
        for each in seconds:
            await rt.sleep(each)

    began = time.monotonic()
    step(body())
    assert rt.slept == seconds
    assert rt.now() == pytest.approx(sum(seconds))
    assert time.monotonic() - began < 1


def test_a_fake_wait_takes_its_whole_limit_at_once() -> None:
    rt = FakeRuntime()
    with pytest.raises(TimeoutError):
        step(rt.wait(Future(), 600))
    assert rt.now() == 600
