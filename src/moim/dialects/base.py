"""What a wire format has to offer. Codecs are pure: no clock, no I/O, no logging.

Both directions serve both sides: towards a provider moim encodes requests and decodes replies;
its server decodes requests and encodes replies with the same object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from moim.dialects.quirks import Quirks
from moim.errors import MoimError, ProviderError
from moim.types import Event, HTTPReply, HTTPRequest, Reply, Request, Warned

__all__ = ["Decoder", "Dialect", "Encoder"]


class Decoder(Protocol):
    """Turns the bytes of a streamed reply into events, however they are cut."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that these bytes complete. After `Failed` there are no more."""
        ...

    def close(self) -> list[Event]:
        """The body has ended: the last events, `Finish` or `Failed` at the end.

        A stream without its dialect's terminator gives `Failed(StreamBroken)`.
        """
        ...


class Encoder(Protocol):
    """Turns events into the bytes of a streamed reply."""

    def feed(self, events: Sequence[Event]) -> bytes:
        """What to write for these events; `Finish` writes the terminator, `Failed` the error."""
        ...


class Dialect(Protocol):
    """One wire format of chat calls."""

    @property
    def name(self) -> str: ...

    def encode_request(self, request: Request, quirks: Quirks) -> HTTPRequest:
        """The call as this provider wants it.

        Raises:
            UnsupportedError: the dialect cannot say what is asked.
        """
        ...

    def lost(self, request: Request, quirks: Quirks) -> tuple[Warned, ...]:
        """What `encode_request` leaves out of the call, for the reply's warnings."""
        ...

    def decode_request(self, http: HTTPRequest) -> Request:
        """A client's call.

        Raises:
            RequestError: it is not of this dialect; the message is for the client.
        """
        ...

    def decode_reply(self, http: HTTPReply) -> Reply:
        """A whole answer.

        Raises:
            ProviderError: the body is an error, whatever the status.
            DecodeError: the body is no answer of this dialect.
        """
        ...

    def encode_reply(self, reply: Reply) -> HTTPReply: ...

    def decoder(self) -> Decoder: ...

    def encoder(self, request: Request | None = None) -> Encoder:
        """A writer for one streamed reply to `request`, as a client of this dialect sent it."""
        ...

    def decode_error(self, http: HTTPReply) -> ProviderError:
        """The error that a reply with an error status, or an error body, stands for."""
        ...

    def encode_error(self, error: MoimError) -> HTTPReply: ...
