from __future__ import annotations

import json
import sys
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_chat import chunk, decode, sse

from moim.dialects.json_ import dumps, dumps_ascii, loads, mend, quote
from moim.errors import DecodeError, RequestError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)  # fmt: skip


@given(JSON)
def test_what_is_written_is_read_back(value):
    assert loads(dumps(value)) == value
    text = dumps_ascii(value)
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text) == value


@given(st.text())
def test_any_string_can_leave_the_process(text):
    assert json.loads(quote(text)) == mend(text)
    assert json.loads(dumps(text)) == mend(text)
    mend(text).encode()


def test_trap_5_surrogate_halves_of_two_fragments_are_one_character():
    body = sse(chunk({"content": "a"}), chunk({"content": "X"}), chunk({"content": "Yb"}, "stop"))
    body = body.replace(b'"X"', b'"\\ud83d"').replace(b'"Yb"', b'"\\ude00b"')
    assert decode(body, 1).text == "a😀b"


def test_trap_5_the_same_in_arguments_and_thoughts():
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "X"}}]}
    more = {"tool_calls": [{"index": 0, "function": {"arguments": "Y"}}]}
    body = sse(
        chunk({"reasoning": "X"}), chunk({"reasoning": "Y"}), chunk(call), chunk(more, "stop")
    )
    reply = decode(body.replace(b'"X"', b'"\\ud83d"').replace(b'"Y"', b'"\\ude00"'))
    assert reply.reasoning == "😀"
    assert reply.tool_calls[0].arguments == "😀"


@pytest.mark.parametrize("content", [b'"a\\ud83d"', b'"a\\ude00"', b'"a\\ud83d","x":1'])
def test_trap_5_a_lone_half_becomes_a_replacement_character(content):
    body = sse(chunk({"content": "X"}, "stop")).replace(b'"X"', content)
    reply = decode(body)
    assert reply.text == "a\ufffd"
    reply.text.encode()


def test_trap_6_the_last_of_two_keys_wins():
    assert loads(b'{"a": 1, "a": 2}') == {"a": 2}
    assert loads(b'{"a": "\\ud800", "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    "text",
    [b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b"1" * 5000, b"", b"{", b"{}x", b'"\x01"'],
)
def test_trap_7_what_is_no_json_is_one_error(text):
    with pytest.raises(DecodeError):
        loads(text)


def test_long_integers_are_read_and_written():
    number = 10**30
    assert loads(str(number).encode()) == number
    assert json.loads(dumps({"n": number})) == {"n": number}
    assert json.loads(dumps_ascii({"n": number, "s": "é"})) == {"n": number, "s": "é"}


@pytest.mark.parametrize("depth", [5_000, 200_000])
def test_deep_nesting_is_an_error_and_no_crash(depth):
    with pytest.raises(DecodeError, match="deep"):
        loads(b"[" * depth + b"]" * depth)
    with pytest.raises(DecodeError):
        decode(b"data: " + b"[" * depth + b"\n\n")
    assert sys.getrecursionlimit() < depth


def test_stray_bytes_are_replaced():
    assert loads(b'"a\xffb"') == "a\ufffdb"


@pytest.mark.parametrize(
    "value", [float("nan"), [float("inf")], {"a": {"b": (1.0, float("-inf"))}}]
)
def test_trap_7_not_a_number_is_never_written(value):
    with pytest.raises(RequestError, match="NaN"):
        dumps(value)


def test_mappings_are_objects_and_other_things_an_error():
    assert dumps(MappingProxyType({"a": None})) == b'{"a":null}'
    with pytest.raises(RequestError, match="complex"):
        dumps({"a": 1j})
