"""What our own server writes: the rules that strict clients hold it to."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from support_chat import CHAT, chunk, sse, stream

from moim.dialects import find, names
from moim.dialects.openai_chat import ChatEncoder
from moim.errors import ConfigError, OverloadedError
from moim.testing.strategies import replies
from moim.types import (
    ArgsDelta,
    Failed,
    Finish,
    HTTPRequest,
    PartStart,
    Reply,
    Start,
    Text,
    TextDelta,
    ToolCall,
    Usage,
    UsageSeen,
    unfold,
)


def chunks(body: bytes) -> list[dict]:
    """The chunks of a body whose framing is exactly ours."""
    assert body.isascii()
    *events, rest = body.split(b"\n\n")
    assert rest == b""
    assert all(event.startswith(b"data: ") and b"\n" not in event for event in events)
    assert events[-1] == b"data: [DONE]"
    return [json.loads(event[6:]) for event in events[:-1]]


@given(replies())
def test_what_strict_clients_rely_on(reply):
    found = chunks(CHAT.encoder().feed(list(unfold(reply))))
    assert len({(one["id"], one["created"], one["model"]) for one in found}) == 1
    ends: dict[int, int] = {}
    calls: dict[int, list[dict]] = {}
    for one in found:
        assert one["object"] == "chat.completion.chunk"
        assert isinstance(one["choices"], list)
        assert "error" not in one
        for choice in one["choices"]:
            index = choice["index"]
            assert choice.get("finish_reason") in (
                None,
                "stop",
                "length",
                "tool_calls",
                "content_filter",
            )
            ends[index] = ends.get(index, 0) + (choice.get("finish_reason") is not None)
            for fragment in choice["delta"].get("tool_calls", ()):
                known = calls.setdefault(index, [])
                if fragment["index"] == len(known):
                    assert fragment["id"]
                    assert fragment["type"] in ("function", "custom")
                    known.append(fragment)
                else:
                    assert fragment["index"] < len(known)
                    assert not {"id", "type"} & set(fragment)
                    assert "name" not in fragment.get("function", {})
    assert set(ends) == {0, *(answer.index for answer in reply.alternatives)}
    assert set(ends.values()) == {1}


def test_the_first_chunk_of_an_answer_tells_the_role():
    found = chunks(CHAT.encoder().feed(list(unfold(Reply(id="x", parts=(Text("hi"),))))))
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert sum("role" in one["choices"][0]["delta"] for one in found) == 1


def test_the_count_is_a_chunk_of_its_own_and_only_if_asked_for():
    events = [Start("x", "m"), UsageSeen(Usage(input_tokens=1, output_tokens=2)), Finish("stop")]
    *_, last = chunks(CHAT.encoder().feed(events))
    assert last["choices"] == []
    assert (last["usage"]["prompt_tokens"], last["usage"]["total_tokens"]) == (1, 3)

    def encoder(**fields):
        body = {
            "model": "m",
            "messages": [{"role": "user", "content": "q"}],
            "stream": True,
            **fields,
        }
        http = HTTPRequest(path="/chat/completions", body=json.dumps(body).encode())
        return CHAT.encoder(CHAT.decode_request(http))

    assert all(one["choices"] for one in chunks(encoder().feed(events)))
    asking = encoder(stream_options={"include_usage": True})
    assert chunks(asking.feed(events))[-1]["choices"] == []


def test_the_server_may_answer_under_another_name():
    body = ChatEncoder(model="alias").feed([Start("x", "real"), Finish("stop")])
    assert {one["model"] for one in chunks(body)} == {"alias"}


def test_an_error_in_the_middle_is_the_last_event_and_no_done_follows():
    encoder = CHAT.encoder()
    body = encoder.feed([Start("x", "m"), Failed(OverloadedError("busy"))])
    assert b"[DONE]" not in body
    last = json.loads(body.split(b"\n\n")[-2][6:])
    assert (last["error"]["message"], last["error"]["code"]) == ("busy", "overloaded")
    assert encoder.feed([Finish("stop")]) == b""


def test_pause_is_stop_and_error_is_an_error():
    paused = chunks(CHAT.encoder().feed([Start(), Finish("pause", "pause_turn")]))
    assert paused[-1]["choices"][0]["finish_reason"] == "stop"
    assert b'"error"' in CHAT.encoder().feed([Start(), Finish("error", "MALFORMED")])


def test_a_call_without_arguments_streams_an_empty_object():
    events = list(unfold(Reply(parts=(ToolCall("a", "f"), ToolCall("b", "g", "[1]")))))
    found = chunks(CHAT.encoder().feed(events))
    text = ["", ""]
    for one in found:
        for fragment in one["choices"][0]["delta"].get("tool_calls", ()):
            text[fragment["index"]] += fragment["function"]["arguments"]
    assert text == ["{}", "[1]"]


def test_events_of_parts_that_never_began_are_nothing():
    events = [Start("x"), TextDelta(7, "?"), ArgsDelta(8, "?"), Finish("stop")]
    assert CHAT.encoder().feed(events) == CHAT.encoder().feed([Start("x"), Finish("stop")])


def test_events_may_come_without_a_start():
    found = chunks(
        CHAT.encoder().feed([PartStart(0, Text("")), TextDelta(0, "hi"), Finish("stop")])
    )
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in found) == "hi"


def test_fields_of_the_provider_go_on_to_the_client_of_its_dialect():
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost": 0.5}
    reply = stream(chunk({"content": "x"}, provider="P"), chunk({}, "stop", usage=usage))
    found = chunks(CHAT.encoder().feed(list(unfold(reply))))
    assert any(one.get("provider") == "P" for one in found)
    assert found[-1]["usage"]["cost"] == 0.5


def test_a_usual_chunk_and_an_unusual_one_are_read_alike():
    """The quick way must not depend on whether it was taken."""
    plain = [chunk({"content": "a", "reasoning": "r"}), chunk({"content": "b"}), chunk({}, "stop")]
    slow = [
        chunk({"content": "a", "reasoning": "r"}, x=None),
        chunk({"content": "b"}, x=None),
        chunk({}, "stop", x=None),
    ]
    assert stream(*plain) == stream(*slow)
    changed = [
        chunk({"content": "a"}, service_tier="x"),
        chunk({"content": "b"}, service_tier="y"),
        chunk({}, "stop"),
    ]
    assert stream(*changed).native["openai_chat"] == {"service_tier": "y"}


def test_the_quick_way_is_not_tried_for_ever(monkeypatch):
    from moim.dialects.openai_chat import stream_decode

    tried = []
    real = stream_decode.decode_plain
    monkeypatch.setattr(stream_decode, "decode_plain", lambda data: tried.append(1) or real(data))
    decoder = CHAT.decoder()
    decoder.feed(
        sse(*(chunk({"content": "x"}, content_filter={"n": n}) for n in range(50)), done=False)
    )
    assert 0 < len(tried) < 10


def test_dialects_are_found_by_name():
    assert find("openai_chat") is CHAT
    assert "openai_chat" in names()
    with pytest.raises(ConfigError, match="openai_chat"):
        find("klingon")
