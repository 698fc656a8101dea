"""Server-sent events, by the rules of the HTML standard: bytes in, events out, and back.

Lines end with LF, CR or CRLF and with nothing else: `str.splitlines` would also cut at U+2028,
which is plain text inside JSON.
"""

from __future__ import annotations

from moim.errors import DecodeError

__all__ = ["LIMIT", "Reader", "write"]

LIMIT = 16 * 1024 * 1024
"""The largest line and the largest event, in bytes: an endless one must not eat the memory."""

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data", b"event", b"id", b"retry", b"error")


class Reader:
    """Cuts a stream of bytes into events `(name, data)`, however it arrives.

    Attributes:
        known: whether anything so far was a field or comment of the format.
    """

    __slots__ = ("_data", "_limit", "_name", "_pieces", "_size", "_skip_lf", "_start", "known")

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []  # of the line under way
        self._size = 0
        self._data: list[bytes] = []  # of the event under way
        self._name = b""
        self._skip_lf = False
        self._start = True
        self.known = False

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """The events that these bytes complete.

        Raises:
            DecodeError: a line or an event is larger than the limit.
        """
        if self._skip_lf and data:
            data = data.removeprefix(b"\n")
            self._skip_lf = False
        if b"\r" in data:
            # A CR at the end ends its line now; should an LF follow, it belongs to it.
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            self._hold(data)
            return []
        if self._pieces:
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
            self._size = 0
        lines = data.split(b"\n")
        if len(data) > self._limit and max(map(len, lines)) > self._limit:
            raise _too_large("line", self._limit)
        self._hold(lines.pop())
        return self._lines(lines)

    def close(self) -> tuple[bytes, bytes] | None:
        """The event under way, if any, when the body has ended: it may be cut short."""
        line = b"".join(self._pieces)
        self._pieces.clear()
        if line and any(field.startswith(line) for field in _FIELDS):
            self.known = True
        whole = self._lines([line]) if line else []
        if whole:  # an `error` field is an event by itself
            return whole[-1]
        if not self._data:
            return None
        self.known = True
        return self._name, self._joined()

    def _hold(self, data: bytes) -> None:
        if not data:
            return
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._limit:
            raise _too_large("line", self._limit)

    def _lines(self, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
        events: list[tuple[bytes, bytes]] = []
        if self._start:
            self._start = False
            lines[0] = lines[0].removeprefix(_BOM)
        pending = self._data
        for line in lines:
            if line[:6] == b"data: ":
                pending.append(line[6:])
            elif line:
                self._field(line, events)
            elif pending:
                events.append((self._name, pending[0] if len(pending) == 1 else self._joined()))
                self.known = True
                self._name = b""
                pending.clear()
            else:
                self._name = b""
        if len(pending) > 1:
            self._joined()
        return events

    def _joined(self) -> bytes:
        if sum(map(len, self._data)) + len(self._data) > self._limit:
            raise _too_large("event", self._limit)
        return b"\n".join(self._data)

    def _field(self, line: bytes, events: list[tuple[bytes, bytes]]) -> None:
        name, _, value = line.partition(b":")
        self.known = self.known or not name or name in _FIELDS
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value
        elif name == b"error":  # llama.cpp once wrote its errors as a field of their own
            events.append((b"error", value))


def _too_large(what: str, limit: int) -> DecodeError:
    return DecodeError(f"The stream holds {what}s of more than {limit} bytes.")


def write(data: str) -> str:
    """One event: `data` must hold no line end."""
    return f"data: {data}\n\n"
