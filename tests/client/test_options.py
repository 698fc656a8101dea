"""What a person may type as an option, and what it becomes."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.client.options import LocalOptions, Options, check_options, make_request, make_timeouts
from moim.errors import RequestError
from moim.transport.protocol import Timeouts
from moim.types import JSONFormat, Request, Thinking, Tool, ToolChoice, user

HELLO = (user("hello"),)


def ask(**options: Any) -> Request:
    check_options(options)
    return make_request("m", "openai_chat", HELLO, options)


def test_every_request_field_is_an_option_or_the_calls_own() -> None:
    own = {"model", "messages", "stream", "native"}
    further = LocalOptions | {"timeout", "timeouts"}
    assert set(Options.__annotations__) - further == set(Request.__struct_fields__) - own


def test_an_unknown_option_names_its_neighbours() -> None:
    with pytest.raises(RequestError, match="max_tokens"):
        ask(max_token=3)


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [
        ("stop", "END", ("END",)),
        ("stop", ["a", "b"], ("a", "b")),
        ("response_format", "json", JSONFormat()),
        ("response_format", {"title": "T"}, JSONFormat(schema={"title": "T"}, name="T")),
        ("response_format", JSONFormat(name="x"), JSONFormat(name="x")),
        ("thinking", "low", Thinking(effort="low")),
        ("thinking", 512, Thinking(budget=512)),
        ("tool_choice", "required", ToolChoice("required")),
        ("tool_choice", "weather", ToolChoice("required", "weather")),
        ("tools", [Tool(name="f")], (Tool(name="f"),)),
        ("extra", {"top_a": 1}, {"openai_chat": {"top_a": 1}}),
        ("temperature", 1, 1.0),
        ("seed", 7, 7),
    ],
)
def test_short_forms(option: str, value: Any, field: Any) -> None:
    assert getattr(ask(**{option: value}), option) == field


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("stop", [1]),
        ("stop", ""),
        ("response_format", 3),
        ("thinking", True),
        ("tool_choice", 1),
        ("temperature", "hot"),
        ("max_tokens", 1.5),
        ("seed", "x"),
        ("logprobs", "yes"),
        ("tools", 3),
        ("tools", ["weather"]),
        ("stop", 3),
        ("extra", 3),
    ],
)
def test_a_wrong_type_names_the_option(option: str, value: Any) -> None:
    with pytest.raises(RequestError, match=option):
        ask(**{option: value})


@given(st.sampled_from(sorted(Options.__annotations__)))
def test_none_is_as_good_as_not_given(option: str) -> None:
    assert ask(**{option: None}) == ask()


WRONG_SECONDS = [0, -1, True, "3", float("nan"), float("inf"), 1e300]


@pytest.mark.parametrize("timeout", WRONG_SECONDS)
def test_a_timeout_is_a_number_above_zero(timeout: Any) -> None:
    with pytest.raises(RequestError, match="timeout"):
        make_timeouts({"timeout": timeout}, Timeouts())


@pytest.mark.parametrize("seconds", WRONG_SECONDS)
@pytest.mark.parametrize("limit", Timeouts.__struct_fields__)
def test_every_limit_is_a_number_above_zero_or_none(limit: str, seconds: Any) -> None:
    assert getattr(Timeouts(**{limit: None}), limit) is None
    with pytest.raises(RequestError, match=f"{limit}="):
        Timeouts(**{limit: seconds})


def test_timeouts_of_a_call() -> None:
    own = Timeouts(connect=1.0)
    assert make_timeouts({}, own) is own
    assert make_timeouts({"timeout": 3}, own) == msgspec.structs.replace(own, total=3.0)
    assert make_timeouts({"timeouts": Timeouts(first=2)}, own) == Timeouts(first=2)
    with pytest.raises(RequestError, match="timeouts"):
        make_timeouts({"timeouts": 3}, own)
