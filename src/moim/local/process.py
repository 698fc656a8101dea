"""One child process: how it is started, what it says, how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import IO

from moim.local.engines import Launch

__all__ = ["Child", "how_it_ended"]

_APART = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) | getattr(
    subprocess, "CREATE_NO_WINDOW", 0
)  # Windows' way of a session of its own; nothing elsewhere
_WORDS = 4096  # bytes of the log that are kept
_LINE = 65536  # the report is far shorter


class Child:
    """A started engine. Its log is always being read, so that it can never stop for a full pipe.

    Start it from a thread that outlives it: Linux ends the child with that thread.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, launch: Launch) -> None:
        self._popen: subprocess.Popen[bytes] = subprocess.Popen(
            launch.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=dict(launch.environment),
            cwd=os.path.abspath(os.sep),  # noqa: PTH100  it must not hold the user's folder
            start_new_session=True,  # Ctrl-C in the terminal is for the parent to handle
            creationflags=_APART,
        )
        self.pid = self._popen.pid
        self._words = bytearray()
        self._log_reader = threading.Thread(
            target=self._read_log, name=f"moim-log-{self.pid}", daemon=True
        )
        self._log_reader.start()
        self._tell(launch.config)

    def _tell(self, line: bytes) -> None:
        # A child that has died already is found out when its report is read.
        with contextlib.suppress(BrokenPipeError):
            _stream(self._popen.stdin).write(line)

    def report(self) -> bytes:
        """Wait for its one line on standard output; empty when it died without one."""
        return _stream(self._popen.stdout).readline(_LINE)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end: the exit code, below 0 a signal's number; None after `timeout`."""
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            return None

    def words(self) -> str:
        """The end of its log. After `wait` it is all there."""
        if self._popen.returncode is not None:
            self._log_reader.join(1.0)
        return bytes(self._words).decode("utf-8", "replace")

    def kill(self) -> None:
        """End it at once, from any thread and without waiting. It has nothing to save."""
        with contextlib.suppress(OSError):  # gone already
            self._popen.kill()

    def close(self) -> None:
        """Give its pipes back, after its end."""
        self._log_reader.join(1.0)
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            with contextlib.suppress(OSError):
                _stream(stream).close()

    def disown(self) -> None:
        """In a forked copy of the parent: it is the parent's child and not ours."""
        self._popen.returncode = 0  # so that nothing here waits for it or warns about it
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            with contextlib.suppress(OSError):
                _stream(stream).close()

    def _read_log(self) -> None:
        log = _stream(self._popen.stderr)
        with contextlib.suppress(OSError, ValueError):  # closed under us
            while data := log.read(_WORDS):
                self._words += data
                del self._words[:-_WORDS]


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # every stream of a Child is a pipe
    return stream


def how_it_ended(code: int | None) -> str:
    """An exit code in words: `signal 11, SIGSEGV` or `exit code 1`."""
    if code is None:
        return "still running"
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code}, {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
