"""Streamed replies: bytes, however they are cut, to events."""

from __future__ import annotations

import msgspec

from moim.dialects import json_, sse
from moim.dialects.openai_chat.assemble import Assembler
from moim.dialects.openai_chat.errors import error_from, is_error
from moim.dialects.openai_chat.plain import decode_plain
from moim.dialects.openai_chat.reply_decode import reply_events
from moim.errors import DecodeError, MoimError, StreamBroken
from moim.types import Event, Failed, HTTPReply

__all__ = ["ChatDecoder"]

_BOM = b"\xef\xbb\xbf"
_UNUSUAL = 4
_BODY_LIMIT = 64 * 1024 * 1024


class ChatDecoder:
    """Reads a chat stream.

    It ends with a finish reason for every choice or with `[DONE]`. After a finish reason reading
    goes on, because the token count follows it; so `Finish` comes with `[DONE]` or at `close`.
    A body that is JSON in place of a stream is read as a whole reply or as an error.
    """

    __slots__ = ("_assembler", "_head", "_over", "_pieces", "_reader", "_size", "_unusual")

    def __init__(self) -> None:
        self._assembler = Assembler()
        self._reader: sse.Reader | None = None
        self._head = b""  # bytes that do not yet tell what kind of body this is
        self._pieces: list[bytes] | None = None  # of a body that is no stream
        self._size = 0
        self._unusual = 0
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete. After `Finish` or `Failed` there are no more."""
        if self._over:
            return []
        events: list[Event] = []
        try:
            if self._reader is None:
                self._begin(data, events)
            else:
                self._take(self._reader.feed(data), events)
        except MoimError as error:
            self._fail(error, events)
        return events

    def close(self) -> list[Event]:
        """The body has ended: the last events, `Finish` or `Failed` at the end."""
        if self._over:
            return []
        events: list[Event] = []
        try:
            if self._pieces is not None:
                body = b"".join(self._pieces)
                events += reply_events(HTTPReply(status=200, body=body))
                self._over = True
            else:
                self._end(events)
        except MoimError as error:
            self._fail(error, events)
        return events

    def _begin(self, data: bytes, events: list[Event]) -> None:
        if self._pieces is not None:
            self._collect(data)
            return
        data = self._head + data
        seen = data.removeprefix(_BOM).lstrip()
        if not seen or _BOM.startswith(data):
            self._head = data if len(data) < 4096 else b""
            return
        self._head = b""
        if seen[0] == ord("<"):
            raise DecodeError(
                "The service answered with a web page in place of a stream.",
                hint="Check the base URL and any proxy.",
            )
        if seen[0] in b"{[":
            self._pieces = []
            self._collect(data)
            return
        self._reader = sse.Reader()
        self._take(self._reader.feed(data), events)

    def _collect(self, data: bytes) -> None:
        assert self._pieces is not None
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _BODY_LIMIT:
            raise DecodeError(f"The reply is larger than {_BODY_LIMIT} bytes.")

    def _take(self, found: list[tuple[bytes, bytes]], events: list[Event]) -> None:
        for name, data in found:
            if data[:1] != b"{" and data.strip() == b"[DONE]":
                self._done(events)
                return
            if self._unusual < _UNUSUAL and not name and self._plain(data, events):
                continue
            self._chunk(name, json_.loads(data, fragment=True), data, events)

    def _plain(self, data: bytes, events: list[Event]) -> bool:
        """Try the short way; a stream whose chunks keep being unusual is not tried further."""
        try:
            chunk = decode_plain(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._unusual += 1
            return False
        return self._assembler.take_plain(chunk, events)

    def _chunk(self, name: bytes, chunk: object, data: bytes, events: list[Event]) -> None:
        if name == b"error" or not isinstance(chunk, dict) or _may_be_error(chunk):
            if chunk is None:
                return
            if name == b"error" or is_error(chunk):
                raise error_from(chunk, raw=data)
            if not isinstance(chunk, dict):
                raise DecodeError("An event of the stream is JSON but no chat chunk.")
        self._assembler.take(chunk, events)

    def _done(self, events: list[Event]) -> None:
        if not self._assembler.answered:
            raise DecodeError("The stream holds no answer.")
        self._assembler.finish(events)
        self._over = True

    def _end(self, events: list[Event]) -> None:
        reader = self._reader or sse.Reader()
        last = reader.close()
        if last is not None:
            self._last(last, events)
        if self._over:
            return
        if self._assembler.ended:
            self._done(events)
            return
        if self._reader is not None and not reader.known:
            raise DecodeError("The reply is no stream of events.")
        raise StreamBroken(
            "The stream ended before its terminator: the answer is not whole.",
            hint="Ask again; if it happens each time, look at the proxy and its time limits.",
        )

    def _last(self, last: tuple[bytes, bytes], events: list[Event]) -> None:
        """An event that no blank line ended counts if it is whole."""
        try:
            if last[1].strip() != b"[DONE]":
                json_.loads(last[1])
        except DecodeError:
            return
        self._take([last], events)

    def _fail(self, error: MoimError, events: list[Event]) -> None:
        self._over = True
        events.append(Failed(error))


def _may_be_error(chunk: dict[str, object]) -> bool:
    return "choices" not in chunk or "error" in chunk
