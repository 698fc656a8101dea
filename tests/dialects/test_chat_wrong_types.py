"""Values of every type in every place: a reply or one of moim's errors, never anything else."""

from __future__ import annotations

import copy
import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_chat import CHAT, chunk, decode, sse

from moim.dialects.quirks import Quirks
from moim.errors import MoimError
from moim.testing.checks import decode_stream, encode_stream, normal
from moim.types import HTTPReply, HTTPRequest, unfold

FULL = {
    "role": "assistant",
    "content": [{"type": "text", "text": "x"}, {"type": "thinking", "thinking": [{"text": "t"}]}],
    "refusal": "r",
    "reasoning_content": "c",
    "reasoning_details": [
        {"type": "reasoning.text", "text": "t", "signature": "s", "index": 0, "id": "i"},
        {"type": "reasoning.encrypted", "data": "d", "index": 1},
    ],
    "tool_calls": [
        {
            "index": 0,
            "id": "a",
            "type": "function",
            "function": {"name": "f", "arguments": "{}"},
            "extra_content": {"google": {"thought_signature": "s"}},
        },
        {"type": "custom", "id": "b", "custom": {"name": "g", "input": "i"}},
    ],
    "function_call": {"name": "f", "arguments": "{}"},
    "audio": {"id": "a", "data": "AAAA", "transcript": "t", "expires_at": 1},
    "annotations": [
        {
            "type": "url_citation",
            "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 2},
        }
    ],
    "extra_content": {"google": {"thought_signature": "s"}},
}
CHOICE = {
    "index": 0,
    "finish_reason": "stop",
    "native_finish_reason": "end",
    "stop_reason": "x",
    "logprobs": {
        "content": [{"token": "t", "logprob": -1, "top_logprobs": [{"token": "u", "logprob": -2}]}]
    },
}
USAGE = {
    "prompt_tokens": 1,
    "completion_tokens": 2,
    "total_tokens": 6,
    "completion_tokens_details": {"reasoning_tokens": 3},
    "prompt_tokens_details": {"cached_tokens": 1},
}
MORE = {
    "usage": USAGE,
    "citations": ["https://a"],
    "search_results": [{"url": "https://a", "title": "A"}],
    "x_groq": {"usage": USAGE},
    "system_fingerprint": "fp",
    "service_tier": "t",
}
REPLY = chunk(
    choices=[{**CHOICE, "message": FULL}, {**CHOICE, "index": 1, "message": FULL}], **MORE
)
CHUNK = chunk(choices=[{**CHOICE, "delta": FULL}], **MORE)
REQUEST = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "s"},
        {
            "role": "user",
            "name": "n",
            "content": [
                {"type": "text", "text": "t"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "file", "file": {"file_data": "data:a/b;base64,AAAA", "filename": "f"}},
                {"type": "video_url", "video_url": {"url": "https://v"}},
            ],
        },
        {k: v for k, v in FULL.items() if k != "tool_calls"},
        {"role": "assistant", "tool_calls": FULL["tool_calls"], "audio": {"id": "x"}},
        {"role": "tool", "tool_call_id": "a", "content": "c", "name": "f"},
        {"role": "function", "name": "f", "content": "c"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {}, "strict": True}}],
    "functions": [{"name": "f"}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
    "stop": ["s"],
    "stream_options": {"include_usage": True},
    "stream": True,
    "metadata": {"a": "b"},
    "max_tokens": 1,
    "temperature": 0.5,
    "reasoning_effort": "low",
}
ODD = [None, True, False, 0, -1, 2**70, 1.5, "", "x", "\ud800", [], [None], [[]], {}, {"a": None}]


def spoil(value, random: Random):
    """A copy with another value in one place, or with a member more or less."""
    value = copy.deepcopy(value)
    places = []

    def walk(node, path):
        places.append(path)
        for key in (
            node if isinstance(node, dict) else range(len(node) if isinstance(node, list) else 0)
        ):
            walk(node[key], (*path, key))

    walk(value, ())
    *path, last = random.choice(places[1:])
    node = value
    for key in path:
        node = node[key]
    if random.random() < 0.8:
        node[last] = random.choice(ODD)
    else:
        del node[last]
    return value


@given(st.randoms(use_true_random=False))
def test_replies(random):
    body = json.dumps(spoil(spoil(REPLY, random), random)).encode()
    try:
        reply = CHAT.decode_reply(HTTPReply(status=200, body=body))
    except MoimError:
        return
    once = normal(CHAT, reply)
    assert normal(CHAT, once) == once
    assert decode_stream(CHAT, [encode_stream(CHAT, unfold(once))]) == once
    str(reply)
    repr(reply).encode()


@given(st.randoms(use_true_random=False))
def test_streams(random):
    chunks = [spoil(CHUNK, random) if random.random() < 0.5 else CHUNK for _ in range(3)]
    body = sse(chunk({"content": "x"}), *chunks) if random.random() < 0.5 else sse(*chunks)
    outcomes = []
    for size in (1, 7, None):
        try:
            outcomes.append(decode(body, size))
        except MoimError as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@given(st.randoms(use_true_random=False))
def test_requests(random):
    body = json.dumps(spoil(spoil(REQUEST, random), random)).encode()
    try:
        once = CHAT.decode_request(HTTPRequest(path="/chat/completions", body=body))
        again = CHAT.encode_request(once, Quirks(video=True, tool_media=True))
    except MoimError as error:
        assert str(error)
        return
    json.loads(again.body)


@given(st.randoms(use_true_random=False))
def test_errors(random):
    error = {
        "message": "m",
        "code": "c",
        "type": "t",
        "detail": [{"loc": ["a"], "msg": "b"}],
        "innererror": {"code": "x"},
        "metadata": {"raw": '{"error": {"code": 5}}'},
        "n_prompt_tokens": 1,
        "n_ctx": 2,
    }
    body = spoil(spoil({"error": error, "message": "m", "object": "error"}, random), random)
    found = CHAT.decode_error(
        HTTPReply(status=random.choice((200, 400, 500)), body=json.dumps(body).encode())
    )
    assert str(found)
    str(found).encode()


def test_the_unspoiled_ones_are_whole():
    assert len(CHAT.decode_reply(HTTPReply(status=200, body=json.dumps(REPLY).encode())).parts) > 6
    assert len(decode(sse(CHUNK)).parts) > 6
    found = CHAT.decode_request(HTTPRequest(path="/x", body=json.dumps(REQUEST).encode()))
    assert len(found.messages) == 6


@pytest.mark.parametrize("value", ODD)
def test_an_event_of_any_type(value):
    body = sse(chunk({"content": "x"}), value, chunk({}, "stop"))
    try:
        assert decode(body).text == "x"
    except MoimError:
        assert value not in (None, {}, {"a": None})
