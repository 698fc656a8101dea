from __future__ import annotations

import codecs
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_chat import chunk, decode, sse

from moim.dialects.sse import Reader, write
from moim.errors import DecodeError


def by_the_book(body: bytes) -> list[tuple[str, str]]:
    """The standard's algorithm on the whole text, one line at a time."""
    text = codecs.decode(body, "utf-8-sig", "replace")
    events, name, data = [], "", []
    *lines, _unfinished = re.split("\r\n|\n|\r", text)
    for line in lines:
        if not line:
            if data:
                events.append((name, "\n".join(data)))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    return events


LINES = st.lists(
    st.sampled_from(
        [
            b"data: a", b"data:b", b"data", b"data:  two spaces", b"data:", b": comment", b":",
            b"event: error", b"id: 1", b"retry: 5", b"junk", b"", b"", b"", b" data: x",
            "data: \u2028\x0b\x85 안녕 😀".encode(),
        ]
    ),
    max_size=12,
)  # fmt: skip
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@given(st.booleans(), LINES, st.lists(ENDS, min_size=12, max_size=12), st.data())
def test_any_bytes_in_any_pieces_are_read_by_the_standard(bom, lines, ends, data):
    pairs = zip(lines, ends, strict=False)
    body = (b"\xef\xbb\xbf" if bom else b"") + b"".join(line + end for line, end in pairs)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=5)))
    reader = Reader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True):
        found += reader.feed(body[start:end])
    assert [(name.decode(), text.decode()) for name, text in found] == by_the_book(body)


def test_trap_1_line_separators_of_unicode_end_no_line():
    reply = decode(sse(chunk({"content": "a\u2028b\u2029c\u0085d\x0be\x0cf"}, "stop")))
    assert reply.text == "a\u2028b\u2029c\u0085d\x0be\x0cf"
    assert "\u2028" not in write(json.dumps({"x": "\u2028"}))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, None])
def test_trap_2_every_line_end_also_across_pieces(end, size):
    body = sse(chunk({"content": "hi"}), chunk({}, "stop")).replace(b"\n", end)
    assert decode(body, size).text == "hi"


def test_trap_2_data_lines_are_joined():
    body = sse(chunk({"content": "hi"}, "stop")).replace(b'"content": ', b'"content":\ndata: ')
    assert decode(body).text == "hi"


def test_trap_3_a_byte_order_mark_loses_nothing():
    assert decode(b"\xef\xbb\xbf" + sse(chunk({"content": "first"}, "stop")), 1).text == "first"


def test_trap_4_characters_are_split_anywhere():
    assert decode(sse(chunk({"content": "안녕 😀"}, "stop")), 1).text == "안녕 😀"


def test_trap_8_events_without_data_are_nothing():
    body = b"event: ping\n\nid: 7\n\nretry: 10\n\n" + sse(chunk({"content": "x"}, "stop"))
    assert decode(body).text == "x"


def test_trap_9_the_last_event_needs_no_blank_line_if_it_is_whole():
    body = sse(chunk({"content": "x"}), done=False)
    last = json.dumps(chunk({"content": "y"}, "stop")).encode()
    assert decode(body + b"data: " + last).text == "xy"
    assert decode(body + b"data: " + last + b"\n").text == "xy"


def test_trap_14_done_may_have_no_blank_line():
    body = sse(chunk({"content": "x"}), done=False)
    assert decode(body + b"data: [DONE]").text == "x"
    assert decode(body + b"data:[DONE] \r\n").text == "x"


def test_trap_15_comments_between_events():
    body = sse(chunk({"content": "x"}, "stop")).replace(
        b"data:", b": OPENROUTER PROCESSING\n\ndata:"
    )
    assert decode(body, 5).text == "x"


def test_an_endless_line_takes_bounded_memory():
    reader = Reader(limit=1000)
    reader.feed(b"data: " + b"x" * 900)
    with pytest.raises(DecodeError, match="1000 bytes"):
        reader.feed(b"x" * 200)


@pytest.mark.parametrize("size", [1, 10, 5000])
@pytest.mark.parametrize("body", [b"data: " + b"x" * 2000 + b"\n\n", b"data: x\n" * 800 + b"\n"])
def test_the_limits_hold_however_the_bytes_are_cut(body, size):
    reader = Reader(limit=1000)
    with pytest.raises(DecodeError):  # noqa: PT012
        for at in range(0, len(body), size):
            reader.feed(body[at : at + size])


def test_a_long_line_is_read_in_linear_time():
    body = sse(chunk({"content": "x" * 1_000_000}, "stop"))
    assert len(decode(body, 16).text) == 1_000_000
