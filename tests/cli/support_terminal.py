"""A pseudo-terminal with a program in it: type, read, press Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

SECONDS = 30.0
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()=>][A-Z0-9]?|\r")

CTRL_C = "\x03"
CTRL_D = "\x04"
ENTER = "\r"
ALT_ENTER = "\x1b\r"


class Terminal:
    """One program on a terminal of 80 columns and 24 lines."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**env, "PROMPT_TOOLKIT_NO_CPR": "1"},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self._seen = ""
        self._bytes = b""
        self._read_to = 0

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def expect(self, text: str) -> str:
        """Wait until `text` is shown, after what was waited for before; give what came with it."""
        deadline = time.monotonic() + SECONDS
        while (found := self._seen.find(text, self._read_to)) < 0:
            assert time.monotonic() < deadline, f"{text!r} never came: {self._seen!r}"
            assert self._read(0.2) or self.process.poll() is None or self._read(0.2), (
                f"the program ended without {text!r}: {self._seen!r}"
            )
        before = self._seen[self._read_to : found]
        self._read_to = found + len(text)
        return before

    def wait(self) -> int:
        """Wait for the end of the program; its exit code."""
        deadline = time.monotonic() + SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it does not end: {self._seen!r}"
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.process.returncode

    @property
    def raw(self) -> str:
        """All that was shown, with its control sequences."""
        return self._bytes.decode(errors="replace")

    @property
    def seen(self) -> str:
        """All that was shown, without control sequences."""
        return self._seen

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # Linux says so when the last program has left the terminal
            return False
        self._bytes += data
        self._seen = _CONTROL.sub("", self.raw)
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(SECONDS)
        os.close(self._master)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
