from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.errors import RequestError
from moim.types import (
    Image,
    Message,
    Source,
    Text,
    assistant,
    developer,
    system,
    to_messages,
    tool,
    user,
)

IMAGE = Image(Source(url="https://example.com/a.png"))


@given(st.text())
def test_a_string_is_a_user_s_message(text):
    assert to_messages(text) == (user(text),)


@pytest.mark.parametrize(
    "prompt",
    [
        [system("a"), user("b")],
        [("system", "a"), ("user", "b")],
        [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
        (system("a"), ("user", "b")),
        [("system", Text("a")), ("user", ["b"])],
    ],
)
def test_conversations_in_every_form(prompt):
    assert to_messages(prompt) == (system("a"), user("b"))


def test_messages_and_parts_by_themselves():
    assert to_messages(developer("x")) == (developer("x"),)
    assert to_messages(IMAGE) == (user(IMAGE),)
    assert to_messages([("user", ["look", IMAGE])]) == (user("look", IMAGE),)
    assert to_messages(to_messages("x")) == to_messages("x")


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        5,
        b"bytes",
        {},
        {"role": "user", "content": "x"},
        [],
        [5],
        ["text"],
        [("robot", "x")],
        [("user", 5)],
        [("user", "x", "y")],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [(None, "x")],
        [(["user"], "x")],
        [{"role": {}, "content": "x"}],
    ],
)
def test_what_is_no_prompt_is_one_clear_error(prompt):
    with pytest.raises(RequestError) as caught:
        to_messages(prompt)
    assert caught.value.hint


def test_what_a_message_says():
    turn = assistant("a", IMAGE, "b")
    assert turn.text == "ab"
    assert turn.tool_calls == ()
    result = tool("id", "x", is_error=True)
    assert isinstance(result, Message)
    assert result.parts[0].is_error


@pytest.mark.parametrize("given_", [{}, {"url": "u", "data": b"x"}, {"url": "u", "file_id": "f"}])
def test_a_source_is_one_thing(given_):
    with pytest.raises(RequestError):
        Source(**given_)
