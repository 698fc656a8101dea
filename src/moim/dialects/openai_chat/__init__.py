"""OpenAI's chat completions, and the many servers that speak it more or less."""

from __future__ import annotations

from moim.dialects.openai_chat.errors import decode_error, encode_error
from moim.dialects.openai_chat.reply_decode import decode_reply
from moim.dialects.openai_chat.reply_encode import encode_reply
from moim.dialects.openai_chat.request_decode import decode_request, wants_usage
from moim.dialects.openai_chat.request_encode import encode_request, lost
from moim.dialects.openai_chat.stream_decode import ChatDecoder
from moim.dialects.openai_chat.stream_encode import ChatEncoder
from moim.dialects.quirks import Quirks
from moim.errors import MoimError, ProviderError
from moim.types import HTTPReply, HTTPRequest, Reply, Request, Warned

__all__ = ["DIALECT", "ChatDecoder", "ChatEncoder", "OpenAIChat"]


class OpenAIChat:
    """The codec. It has no state: `DIALECT` is all that is needed."""

    name = "openai_chat"

    def encode_request(self, request: Request, quirks: Quirks) -> HTTPRequest:
        """The call as this server wants it. `request.extra["openai_chat"]` is merged into the
        body last and wins over everything else in it.

        Raises:
            UnsupportedError: the server cannot do what is asked, or the dialect cannot say it.
            RequestError: a value that JSON has no form for.
        """
        return encode_request(request, quirks)

    def lost(self, request: Request, quirks: Quirks) -> tuple[Warned, ...]:
        """What `encode_request` leaves out of the call, to be told to the caller."""
        return lost(request, quirks)

    def decode_request(self, http: HTTPRequest) -> Request:
        """A client's call.

        Raises:
            RequestError: it is no chat request; the message names the field.
        """
        return decode_request(http)

    def decode_reply(self, http: HTTPReply) -> Reply:
        """A whole answer.

        Raises:
            ProviderError: the status or the body is an error.
            DecodeError: the body is no chat completion.
        """
        return decode_reply(http)

    def encode_reply(self, reply: Reply) -> HTTPReply:
        """The answer for a client; one that ended in an error becomes an error."""
        return encode_reply(reply)

    def decoder(self) -> ChatDecoder:
        """A reader for one streamed reply."""
        return ChatDecoder()

    def encoder(self, request: Request | None = None) -> ChatEncoder:
        """A writer for one streamed reply to `request`, as a client of this dialect sent it.

        The token count is written if the client asked for it, or where no request is given.
        """
        return ChatEncoder(usage=request is None or wants_usage(request))

    def decode_error(self, http: HTTPReply) -> ProviderError:
        """The error that a reply stands for."""
        return decode_error(http)

    def encode_error(self, error: MoimError) -> HTTPReply:
        """The reply that tells a client about an error."""
        return encode_error(error)


DIALECT = OpenAIChat()
