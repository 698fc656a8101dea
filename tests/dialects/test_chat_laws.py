from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_chat import CHAT, body_of

from moim.dialects.quirks import LLAMA_CPP, OPENAI, Quirks
from moim.testing import LAWS, check_dialect, check_law
from moim.testing.checks import decode_stream, encode_stream, normal
from moim.testing.strategies import replies, requests
from moim.types import HTTPReply, Reasoning, ReasoningDelta, SignatureDelta, fold, unfold


@pytest.mark.parametrize("law", LAWS)
def test_the_laws_hold(law):
    check_law(CHAT, law, examples=40)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
def test_the_laws_hold_at_length(law):
    check_law(CHAT, law, examples=1000)


@pytest.mark.parametrize(
    "quirks",
    [
        OPENAI,
        LLAMA_CPP,
        Quirks(reasoning_field="reasoning_details", video=True, tool_media=True),
        Quirks(reasoning_field="thinking", call_ids="alnum9", system_role="developer"),
    ],
)
def test_requests_are_stable_for_every_kind_of_server(quirks):
    check_law(CHAT, "requests are stable", quirks=quirks, examples=20)


@given(replies())
def test_a_reply_is_the_fold_of_its_events(reply):
    assert fold(unfold(reply)) == reply


class Wrapped:
    """The chat dialect with one thing wrong."""

    name = "openai_chat"

    def __getattr__(self, attribute):
        return getattr(CHAT, attribute)


class LosesText(Wrapped):
    def encode_reply(self, reply):
        return CHAT.encode_reply(reply.__class__(id=reply.id))


class Loud(Wrapped):
    """Writes no error as an error."""

    def encode_error(self, error):
        return HTTPReply(status=200, body=b"{}")


class EndsEarly(Wrapped):
    """Takes any end for the end of the answer."""

    def decoder(self):
        decoder = CHAT.decoder()

        class Lenient:
            def __init__(self):
                self.seen = []

            def feed(self, data):
                self.seen += (events := decoder.feed(data))
                return events

            def close(self):
                from moim.types import Failed, Finish

                return [
                    Finish("stop", "stop") if isinstance(e, Failed) else e for e in decoder.close()
                ]

        return Lenient()


class ForgetsCalls(Wrapped):
    """Gives every parallel call's arguments to the last one begun."""

    def encoder(self, request=None):
        import msgspec

        from moim.types import ArgsDelta, PartStart

        encoder = CHAT.encoder(request)

        class Confused:
            last = 0

            def feed(self, events):
                out = []
                for event in events:
                    if isinstance(event, PartStart):
                        self.last = event.index
                    if isinstance(event, ArgsDelta):
                        event = msgspec.structs.replace(event, index=self.last)
                    out.append(event)
                return encoder.feed(out)

        return Confused()


@pytest.mark.parametrize(
    ("dialect", "law"),
    [
        (LosesText(), "what the wire can carry arrives"),
        (EndsEarly(), "a cut stream is never a reply"),
        (ForgetsCalls(), "parts may grow side by side"),
    ],
)
def test_a_dialect_that_breaks_a_law_is_caught(dialect, law):
    with pytest.raises(AssertionError):
        check_law(dialect, law, examples=100, shrink=False)


def test_all_laws_at_once():
    check_dialect(CHAT, examples=5)
    with pytest.raises(AssertionError):
        check_dialect(Loud(), examples=5)


def test_a_seal_that_comes_late_is_the_seal_of_the_thoughts_before_it():
    part = Reasoning("thought", signature="sealed")
    whole = normal(CHAT, fold_of(part))
    events = [
        ReasoningDelta(e.index, e.text) if isinstance(e, ReasoningDelta) else e
        for e in unfold(fold_of(Reasoning("thought")))
    ]
    at = next(n for n, e in enumerate(events) if isinstance(e, ReasoningDelta)) + 1
    events.insert(at, SignatureDelta(0, "sealed"))
    assert decode_stream(CHAT, [encode_stream(CHAT, events)]).parts == whole.parts == (part,)


def fold_of(*parts):
    from moim.types import Reply

    return Reply(id="x", model="m", parts=parts, finish_reason="stop", native_finish_reason="stop")


@given(requests(), st.booleans())
def test_what_is_written_is_always_json_of_the_dialect(request, openai):
    http = CHAT.encode_request(request, OPENAI if openai else Quirks())
    body = body_of(http)
    assert http.path == "/chat/completions"
    assert http.stream == request.stream == body.get("stream", False)
    assert all("role" in message and "content" in message for message in body["messages"])
    assert ("stream_options" in body) == request.stream
    CHAT.lost(request, Quirks())
