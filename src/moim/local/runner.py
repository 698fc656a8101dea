"""The runners of this process: started on first use, shared, ended when nobody needs them.

A call holds a lease on its runner. The last lease given back starts the clock of `keep_alive`; a
call that is left while the engine reads its prompt cannot be stopped, so then the runner itself
is ended unless others use it.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import os
import queue
import secrets
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgspec

from moim.config import settings
from moim.errors import CallTimeout, ModelTooLarge, MoimError, RunnerError
from moim.local import engines, gguf
from moim.local.engines import Engine, RunnerSpec
from moim.local.process import Child, how_it_ended
from moim.local.registry import LoadedModel, Registry, memory_of
from moim.runtime import Runtime
from moim.transport.protocol import Endpoint

__all__ = ["LOAD_SECONDS", "Lease", "Pool", "loaded", "pool", "stop"]

LOAD_SECONDS = 300.0
"""A model that is not ready after this is given up."""

_END_SECONDS = 5.0  # a killed process is gone long before
_LONGEST_PAUSE = 3600.0  # the system's timers cannot take any number
_LAST_WORDS = 600  # characters of the log in a message


class Lease:
    """The right to use a runner until `release` or `abandon`, whichever is called first.

    Both may be called from any thread, never wait, and are harmless when repeated.
    """

    def __init__(self, owner: Pool, runner: Runner) -> None:
        self._owner = owner
        self.runner = runner

    def release(self) -> None:
        """The call is over, or its slot frees itself when the connection is cut."""
        self._owner._give_back(self, at_once=False)

    def abandon(self) -> None:
        """The call was left while the engine works on something that it cannot stop."""
        self._owner._give_back(self, at_once=True)


class Runner:
    """One engine process, from the wish to have it until its end.

    Attributes:
        spec: what it serves.
        name: what messages call the model.
        ready: its base URL, or why it could not be started.
        exited: done when the process is gone and its last words are known.
        failure: why it is gone; None while it lives.
    """

    def __init__(self, spec: RunnerSpec, name: str, load_seconds: float) -> None:
        self.spec = spec
        self.name = name
        self.key = secrets.token_urlsafe(32)
        self.ready: Future[str] = Future()
        self.exited: Future[None] = Future()
        self.failure: MoimError | None = None
        self.leases: set[Lease] = set()
        self.child: Child | None = None
        self.since = time.time()
        self.load_by = time.monotonic() + load_seconds
        self.keep_alive = 0.0
        self.idle_since: float | None = None
        self.needed = 0
        self.ended_because = ""
        self.shown: LoadedModel | None = None
        self.buried = False

    @property
    def endpoint(self) -> Endpoint:
        """Where it listens. Only after `ready`."""
        return Endpoint(
            base=self.ready.result(0),
            # The engine closes a connection after a streamed reply without saying so; asking for
            # it keeps HTTP clients from sending the next request into the closing connection.
            headers={"authorization": f"Bearer {self.key}", "connection": "close"},
            name=self.name,
        )

    @property
    def is_ready(self) -> bool:
        return self.ready.done() and self.ready.exception() is None

    @property
    def ends_at(self) -> float | None:
        """On the monotonic clock: when it has been idle, or loading, for too long."""
        if not self.ready.done():
            return self.load_by
        if self.idle_since is None or self.keep_alive < 0:
            return None
        return self.idle_since + self.keep_alive

    def describe(self) -> LoadedModel | None:
        """What `moim ps` shows of it; None before it is ready."""
        ends_at = self.ends_at
        if self.child is None or not self.is_ready:
            return None
        return LoadedModel(
            name=self.name,
            path=self.spec.path,
            pid=self.child.pid,
            owner=os.getpid(),
            since=self.since,
            expires=None if ends_at is None else time.time() + ends_at - time.monotonic(),
            context=self.spec.num_ctx,
            slots=self.spec.slots,
            busy=len(self.leases),
        )


class Pool:
    """All runners of one process. Safe to use from any thread or event loop.

    Args:
        registry: where other processes see them; None is the user's own.
        load_seconds: how long a model may take to load.
    """

    def __init__(self, registry: Registry | None = None, load_seconds: float = LOAD_SECONDS):
        self._registry = registry or Registry()
        self._load_seconds = load_seconds
        # Re-entrant, since a lease may be given back by the garbage collector at any point.
        self._lock = threading.RLock()
        self._writing = threading.Lock()  # of the registry
        self._runners: dict[RunnerSpec, Runner] = {}
        self._leaving: set[Runner] = set()
        self._keeper = _Keeper(self._tidy)
        self._closed = False

    async def lease(
        self,
        rt: Runtime,
        spec: RunnerSpec,
        *,
        name: str,
        keep_alive: float | None = None,
        timeout: float | None = None,
    ) -> Lease:
        """Use of the runner for `spec`, which is started if there is none.

        Callers of the same spec share one start. A caller that leaves during the load ends it,
        unless others wait for it too.

        Args:
            keep_alive: seconds, see `LoadOptions`; the last caller's word holds.
            timeout: seconds to wait for the load; None waits for the pool's own limit.

        Raises:
            ModelFileError, ModelTooLarge: it cannot be loaded here.
            RunnerError: the engine failed; the message has its last words.
            CallTimeout: `timeout` passed.
        """
        if keep_alive is None:
            keep_alive = settings().keep_alive
        lease = self._join(spec, name, keep_alive)
        try:
            await rt.wait(lease.runner.ready, timeout)
        except MoimError as error:
            lease.release()
            raise copy.copy(error) from None  # one error is shared by all who waited
        except TimeoutError:
            lease.abandon()
            raise CallTimeout(f"{name} was not loaded within {timeout:g} seconds.") from None
        except BaseException:
            lease.abandon()
            raise
        return lease

    def loaded(self) -> list[LoadedModel]:
        """The models that this process has loaded, the oldest first."""
        with self._lock:
            shown = [runner.describe() for runner in self._runners.values()]
        return [
            msgspec.structs.replace(model, memory=memory_of(model.pid)) for model in shown if model
        ]

    def stop(self, name: str) -> list[LoadedModel]:
        """End the runners of a model, given by name or path; calls in progress fail."""
        stopped = []
        with self._lock:
            for runner in list(self._runners.values()):
                shown = runner.describe()
                if shown is not None and _is_called(shown, name):
                    self._end(runner, "it was stopped by `moim stop`")
                    stopped.append((shown, runner))
        for _, runner in stopped:
            _wait(runner.exited, _END_SECONDS)
        return [shown for shown, _ in stopped]

    def close(self) -> None:
        """End all runners and wait until they are gone."""
        with self._lock:
            self._closed = True
            for runner in list(self._runners.values()):
                self._end(runner, "the program has ended")
            leaving = list(self._leaving)
        for runner in leaving:
            _wait(runner.exited, _END_SECONDS)
        self._keeper.stop()

    def disown(self) -> None:
        """In a forked copy of the process: these runners belong to the original."""
        self._lock = threading.RLock()  # whoever held it does not exist here
        for runner in (*self._runners.values(), *self._leaving):
            if runner.child is not None:
                runner.child.disown()
        self._runners.clear()
        self._leaving.clear()
        self._closed = True

    def _join(self, spec: RunnerSpec, name: str, keep_alive: float) -> Lease:
        with self._lock:
            if self._closed:
                raise RunnerError("The program is ending.", retryable=False)
            runner = self._runners.get(spec)
            if runner is None:
                runner = Runner(spec, name, self._load_seconds)
                _start(f"moim-{name}", self._live, runner)
                self._runners[spec] = runner
                self._keeper.wake()
            lease = Lease(self, runner)
            runner.leases.add(lease)
            runner.keep_alive = keep_alive
            runner.idle_since = None
            return lease

    def _give_back(self, lease: Lease, *, at_once: bool) -> None:
        runner = lease.runner
        with self._lock:
            if lease not in runner.leases:
                return
            runner.leases.discard(lease)
            if runner.leases:
                return
            runner.idle_since = time.monotonic()
            if at_once:
                self._end(runner, "its last caller left before the prompt was read")
            elif runner.keep_alive == 0:
                self._end(runner, "keep_alive is 0")
        self._keeper.wake()

    def _end(self, runner: Runner, because: str) -> None:
        """Under the lock: no further caller gets it, and its process is killed."""
        if self._runners.get(runner.spec) is runner:
            del self._runners[runner.spec]
            self._leaving.add(runner)
        runner.ended_because = runner.ended_because or because
        if runner.child is not None:
            runner.child.kill()

    def _tidy(self) -> float | None:
        """End what has idled or loaded too long, keep the registry; seconds until the next end."""
        now = time.monotonic()
        with self._lock:
            for runner in list(self._runners.values()):
                if runner.ends_at is not None and runner.ends_at <= now:
                    self._end(runner, self._overdue(runner))
            runners = list(self._runners.values())
        for runner in runners:
            self._show(runner)
        ends = [at for runner in runners if (at := runner.ends_at) is not None]
        return min(ends) - now if ends else None

    def _overdue(self, runner: Runner) -> str:
        if runner.ready.done():
            return "keep_alive has passed"
        return f"it was not loaded within {self._load_seconds:g} seconds"

    def _show(self, runner: Runner) -> None:
        shown = runner.describe()
        if shown is None or (runner.shown is not None and _same(shown, runner.shown)):
            return
        with self._writing:
            if runner.buried:
                return
            runner.shown = shown
            self._registry.write(shown)

    def _live(self, runner: Runner) -> None:
        """The life of a runner, on a thread of its own.

        Linux ends a child with the thread that started it, so this thread starts the child and
        stays until the child has ended.
        """
        try:
            address = self._load(runner)
        except MoimError as error:
            runner.failure = error
        except Exception as error:  # noqa: BLE001  whoever waits must hear of it
            runner.failure = RunnerError(f"The engine of {runner.name} cannot be started: {error}.")
        else:
            runner.ready.set_result(address)
            self._keeper.wake()
            runner.failure = self._outlive(runner)
        self._bury(runner)

    def _load(self, runner: Runner) -> str:
        engine = engines.engine(runner.spec.engine)
        self._make_room(runner)
        launch = engine.launch(runner.spec, runner.name, runner.key)
        child = Child(launch)
        with self._lock:
            runner.child = child
            if runner.ended_because:
                child.kill()
        report = _report(child.report())
        address = report.get("address")
        if isinstance(address, str) and not runner.ended_because:
            return address
        raise self._stillborn(runner, engine, "error" in report)

    def _stillborn(self, runner: Runner, engine: Engine, said_so: bool) -> RunnerError:
        assert runner.child is not None
        if not said_so:
            runner.child.kill()  # it closed its output and may still be there
        code = runner.child.wait(_END_SECONDS)
        if runner.ended_because:
            return RunnerError(
                f"{runner.name} could not be loaded: {runner.ended_because}.", retryable=False
            )
        reason = _short(engine.reason(self._log(runner)))
        how = "" if said_so else f" ({how_it_ended(code)})"
        return RunnerError(
            f"The engine could not load {runner.name}{how}: {reason or 'it did not say why'}.",
            hint=f"Check the file with `moim show {runner.spec.path}`.",
            retryable=False,
        )

    def _outlive(self, runner: Runner) -> RunnerError:
        """Wait for the end of a runner that has served."""
        assert runner.child is not None
        code = runner.child.wait()
        if runner.ended_because:
            return RunnerError(
                f"The engine of {runner.name} was ended: {runner.ended_because}.", retryable=False
            )
        if code == -signal.SIGTERM:
            return RunnerError(
                f"The engine of {runner.name} was ended by another program, as `moim stop` does.",
                retryable=False,
            )
        words = _short(engines.engine(runner.spec.engine).last_words(self._log(runner)))
        last = f" Its last words: {words}" if words else ""
        return RunnerError(
            f"The engine of {runner.name} stopped unexpectedly ({how_it_ended(code)}).{last}",
            hint="The next call starts it again." + _advice(code),
        )

    def _log(self, runner: Runner) -> str:
        assert runner.child is not None
        return runner.child.words().replace(runner.key, "***")

    def _bury(self, runner: Runner) -> None:
        with self._lock:
            if self._runners.get(runner.spec) is runner:
                del self._runners[runner.spec]
            self._leaving.discard(runner)
        if not runner.ready.done() and runner.failure is not None:
            runner.ready.set_exception(runner.failure)
        child = runner.child
        if child is not None:
            child.kill()
            child.wait(_END_SECONDS)
            with self._writing:
                runner.buried = True
                self._registry.remove(child.pid)
        runner.exited.set_result(None)
        if child is not None:
            child.close()

    def _make_room(self, runner: Runner) -> None:
        """See that the model fits, at the cost of idle runners of other models if need be.

        The strict reader sees the file first, for the engine trusts what it loads.
        """
        spec = runner.spec
        facts = gguf.inspect(spec.path)
        need = gguf.estimate(
            facts,
            num_ctx=spec.num_ctx,
            slots=spec.slots,
            kv_type=spec.kv_type,
            ubatch=spec.batch,
            flash_attention=spec.flash_attention is not False,
        )
        runner.needed = need.total
        while True:
            try:
                gguf.check_fits(facts, need, free=gguf.free_memory() - self._promised(runner))
            except ModelTooLarge:
                if not self._evict_one():
                    raise
            else:
                return

    def _promised(self, runner: Runner) -> int:
        """Bytes that other runners are about to take."""
        with self._lock:
            return sum(
                other.needed
                for other in self._runners.values()
                if other is not runner and not other.ready.done()
            )

    def _evict_one(self) -> bool:
        """End the runner that has been idle for longest, and wait; False if there is none."""
        with self._lock:
            idle = [r for r in self._runners.values() if r.is_ready and not r.leases]
            if idle:
                oldest = min(idle, key=lambda r: r.idle_since or 0.0)
                self._end(oldest, "its memory was needed for another model")
            leaving = list(self._leaving)
        for gone in leaving:
            _wait(gone.exited, _END_SECONDS)
        return bool(leaving)


class _Keeper:
    """A thread that tidies up when it is woken and when its last answer, in seconds, has passed.

    Waking it goes through a queue that may be used at any point, a garbage collection included.
    """

    def __init__(self, tidy: Callable[[], float | None]) -> None:
        self._tidy = tidy
        self._woken: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._started = threading.Lock()

    def wake(self) -> None:
        """Tidy up soon. Never waits."""
        self._woken.put(True)
        if self._started.acquire(blocking=False):
            try:
                _start("moim-runners", self._serve)
            except RunnerError:
                self._started.release()
                raise

    def stop(self) -> None:
        """End the thread."""
        self._woken.put(False)

    def _serve(self) -> None:
        pause: float | None = None
        while True:
            with contextlib.suppress(queue.Empty):
                if not self._woken.get(timeout=pause):
                    return
            left = self._tidy()
            pause = None if left is None else max(0.0, min(_LONGEST_PAUSE, left))


def _start(name: str, work: Callable[..., None], *arguments: object) -> None:
    try:
        threading.Thread(target=work, args=arguments, name=name, daemon=True).start()
    except RuntimeError as error:
        raise RunnerError(f"No thread for a local model: {error}.") from None


def _report(line: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}


def _short(words: str) -> str:
    return words if len(words) <= _LAST_WORDS else f"{words[:_LAST_WORDS]}…"


def _advice(code: int | None) -> str:
    if code == -9:
        return " If the system ran out of memory, use a smaller num_ctx or model."
    if code == -4:
        return " The processor may lack an instruction that the engine needs."
    return ""


def _wait(future: Future[None], seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        future.result(seconds)


def _is_called(model: LoadedModel, name: str) -> bool:
    return model.name == name or Path(model.path) == Path(name).expanduser().absolute()


def _same(one: LoadedModel, other: LoadedModel) -> bool:
    """Whether they differ in nothing but the time that passed between them."""
    if (one.expires is None) != (other.expires is None):
        return False
    apart = abs((one.expires or 0.0) - (other.expires or 0.0))
    return apart < 0.5 and one.busy == other.busy


_pool: Pool | None = None
_making = threading.Lock()


def pool() -> Pool:
    """The pool of this process."""
    global _pool
    if _pool is None:
        with _making:
            if _pool is None:
                _pool = Pool()
    return _pool


def loaded() -> list[LoadedModel]:
    """Every model that moim processes of this user have loaded, the oldest first."""
    own = [] if _pool is None else _pool.loaded()
    others = [model for model in Registry().loaded() if model.owner != os.getpid()]
    return sorted([*own, *others], key=lambda model: model.since)


def stop(name: str) -> list[LoadedModel]:
    """End the runners of a model, whichever process of this user has them.

    Args:
        name: as `loaded` shows it, or the path of the file.

    Returns:
        The runners that are gone; empty when none was loaded.
    """
    own = [] if _pool is None else _pool.stop(name)
    registry = Registry()
    others = [
        model
        for model in registry.loaded()
        if model.owner != os.getpid() and _is_called(model, name) and registry.end(model)
    ]
    return [*own, *others]


def _close_own() -> None:
    if _pool is not None:
        _pool.close()


def _forget_parents() -> None:
    global _pool, _making
    _making = threading.Lock()
    if _pool is not None:
        _pool.disown()
        _pool = None


atexit.register(_close_own)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)
