"""Counting and cutting prompts with the engine's own tokens, and what is refused before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_engine import answer, error_of, open_chat, pool_in, tiny

from moim.dialects import registry
from moim.dialects.quirks import LLAMA_CPP
from moim.errors import ContextLengthError, RequestError, UnsupportedError
from moim.local import gguf
from moim.local.context import (
    check_request,
    context_warnings,
    count_tokens,
    fit,
    prepare,
)
from moim.local.engines import LoadOptions, spec_for
from moim.local.runner import Pool
from moim.local.transport import LocalTransport
from moim.runtime import BLOCKING, step
from moim.testing import tiny_gguf
from moim.transport import http
from moim.types import (
    Image,
    JSONFormat,
    Message,
    Reply,
    Request,
    Source,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
    Warned,
    assistant,
    fold,
    system,
    tool,
    user,
)

CONTEXT = 512


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with pool_in(tmp_path_factory.mktemp("pool")) as pool:
        yield pool


@pytest.fixture(scope="module")
def model(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> LocalTransport:
    spec = tiny(tmp_path_factory.mktemp("model"), 2048, num_ctx=CONTEXT)
    return LocalTransport(spec, name="tiny", http=http(), keep_alive=-1, runners=pool)


def asking(*messages: Message, **fields: Any) -> Request:
    return Request(model="tiny", messages=messages, stream=True, **fields)


def count(model: LocalTransport, request: Request) -> int:
    return step(count_tokens(BLOCKING, model, request))


def cut(model: LocalTransport, request: Request) -> tuple[Request, tuple[Warned, ...]]:
    return step(fit(BLOCKING, model, request))


def prompt_tokens(model: LocalTransport, request: Request) -> int:
    """What the engine itself says that the prompt has."""
    short = msgspec.structs.replace(request, max_tokens=1)
    http = registry.find("openai_chat").encode_request(short, LLAMA_CPP)
    events = step(answer(BLOCKING, model, http))
    return int(events[-1]["usage"]["prompt_tokens"])


# Letters that tokenisers cut in surprising ways; `<|im_end|>` is a special token's name.
texts = st.text(
    st.sampled_from("the in a\n<>|é한국어🙂👩‍🚀") | st.characters(exclude_categories=["Cs", "Cc"]),
    max_size=60,
) | st.just("the <|im_end|> in\r\n")
turns = st.tuples(st.sampled_from([user, assistant]), texts).map(lambda pair: pair[0](pair[1]))
law = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


@law
@given(st.lists(turns, max_size=6), texts)
def test_the_count_is_what_the_engine_counts(
    model: LocalTransport, history: list[Message], last: str
) -> None:
    request = asking(system("Be brief."), *history, user(last))
    counted = count(model, request)
    if counted < CONTEXT:
        assert counted == prompt_tokens(model, request)


@law
@given(st.lists(turns, max_size=20), texts, st.integers(0, 40), st.integers(1, 600))
def test_a_prompt_is_cut_to_fit_and_no_further_than_it_says(
    model: LocalTransport, history: list[Message], last: str, repeats: int, max_tokens: int
) -> None:
    request = asking(system("Be brief."), *history, user(last * repeats), max_tokens=max_tokens)
    before = count(model, request)
    room = CONTEXT - min(max_tokens, CONTEXT // 2)
    shorter, warnings = cut(model, request)
    after = prompt_tokens(model, shorter)
    assert after <= room
    if shorter.messages[-1] != request.messages[-1]:
        assert after > room - 8  # a character of four bytes, and neighbours that join
    assert bool(warnings) == (before > room) == (shorter != request)
    assert shorter.messages[0] == request.messages[0]
    assert shorter.messages[-1].role == "user"
    assert request.messages[-1].text.endswith(shorter.messages[-1].text)
    gone = len(request.messages) - len(shorter.messages)
    kept_turns = shorter.messages[1:-1]
    assert kept_turns == request.messages[1 + gone : -1]
    for warning in warnings:
        assert warning.code == "prompt_truncated"
        assert f"{before - after} of {before} tokens" in warning.text
        assert (f"dropped {gone} message" in warning.text) == (gone > 0)
        lost = len(request.messages[-1].text) - len(shorter.messages[-1].text)
        assert (f"cut {lost} characters" in warning.text) == (lost > 0)


def test_as_few_turns_as_possible_are_dropped(model: LocalTransport) -> None:
    history = [user("a" * 100), assistant("b" * 20), user("c" * 100), assistant("d" * 20)]
    request = asking(system("S"), *history, user("e" * 200), max_tokens=100)
    shorter, (warning,) = cut(model, request)
    assert shorter.messages == (system("S"), *history[2:], user("e" * 200))
    assert "dropped 2 messages" in warning.text
    assert "characters" not in warning.text


def test_a_tool_result_is_never_left_without_its_call(model: LocalTransport) -> None:
    call = Message("assistant", (ToolCall("1", "look", "{}"),))
    request = asking(
        user("a" * 200), call, tool("1", "b" * 100), user("c" * 100), assistant("d"), user("e"),
        max_tokens=200,
    )  # fmt: skip
    shorter, _ = cut(model, request)
    assert shorter.messages == (user("c" * 100), assistant("d"), user("e"))


def test_the_start_of_the_last_message_goes_when_nothing_else_can(model: LocalTransport) -> None:
    text = "한국어 " * 200 + "What is the capital?"
    request = asking(system("S"), user("old"), user(text), max_tokens=64)
    shorter, (warning,) = cut(model, request)
    (first, last) = shorter.messages
    assert first == system("S")
    assert text.endswith(last.text)
    assert last.text.endswith("What is the capital?")
    # Nothing but a few tokens of the room is given away.
    assert CONTEXT - 64 - 10 <= count(model, shorter) <= CONTEXT - 64
    assert "dropped 1 message" in warning.text
    assert "from the start of the last user message" in warning.text


def test_what_has_to_stay_and_does_not_fit_is_an_error(model: LocalTransport) -> None:
    request = asking(system("S" * 2000), user("hello"))
    error = error_of(lambda: cut(model, request))
    assert isinstance(error, ContextLengthError)
    assert error.prompt_tokens == count(model, request)
    assert error.context_tokens == CONTEXT
    assert str(error.prompt_tokens) in error.message
    assert str(CONTEXT) in error.message
    assert "num_ctx" in error.hint


@pytest.mark.parametrize("messages", [(assistant("a" * 3000),), (system("S"),) * 400])
def test_a_conversation_without_a_user_cannot_be_cut(
    model: LocalTransport, messages: tuple[Message, ...]
) -> None:
    assert isinstance(error_of(lambda: cut(model, asking(*messages))), ContextLengthError)


def test_the_largest_prompt_that_the_engine_takes_is_one_below_the_context(
    model: LocalTransport,
) -> None:
    frame = count(model, asking(user("")))
    fits = asking(user("x" * (CONTEXT - frame - 1)))
    assert prompt_tokens(model, fits) == CONTEXT - 1
    too_long = asking(user("x" * (CONTEXT - frame)))
    assert isinstance(error_of(lambda: prompt_tokens(model, too_long)), ContextLengthError)


def test_an_answer_that_the_context_cuts_short_says_so(model: LocalTransport) -> None:
    request = asking(user("x" * 300))
    http = registry.find("openai_chat").encode_request(request, LLAMA_CPP)
    events = step(answer(BLOCKING, model, http))
    (ended,) = [c for e in events for c in e["choices"] if c["finish_reason"]]
    told = events[-1]["usage"]
    usage = Usage(input_tokens=told["prompt_tokens"], output_tokens=told["completion_tokens"])
    reply = Reply(finish_reason=ended["finish_reason"], usage=usage)
    (warning,) = context_warnings(request, reply, CONTEXT)
    assert warning.code == "context_full"
    assert str(CONTEXT) in warning.text
    by_choice = msgspec.structs.replace(request, max_tokens=usage.output_tokens)
    assert context_warnings(by_choice, reply, CONTEXT) == ()
    assert context_warnings(request, reply, CONTEXT * 2) == ()
    assert context_warnings(request, Reply(finish_reason="stop", usage=usage), CONTEXT) == ()


@pytest.mark.parametrize(
    "text",
    [
        "안녕하세요, 세계! 훈민정음 값",
        "🙂👩‍👩‍👧‍👦🏳️‍🌈🇰🇷",
        "é̂ 한\u1100\u1161 \U00020000",
        'quotes " and \\ and \n',
    ],
)
def test_characters_that_are_split_between_tokens_arrive_whole(
    model: LocalTransport, text: str
) -> None:
    """A schema leaves the model no choice, and its vocabulary knows single bytes only."""
    form = JSONFormat(schema={"type": "object", "properties": {"a": {"const": text}},
                              "required": ["a"]})  # fmt: skip
    request = asking(user("x"), response_format=form)
    http = registry.find("openai_chat").encode_request(request, LLAMA_CPP)
    exchange = step(open_chat(BLOCKING, model, http))
    decoder, events = registry.find("openai_chat").decoder(), []
    try:
        while data := step(exchange.read()):
            data.decode()  # no piece of the stream ends within a character
            events += decoder.feed(data)
    finally:
        exchange.close()
    reply = fold([*events, *decoder.close()])
    assert msgspec.json.decode(reply.text) == {"a": text}
    assert "\ufffd" not in reply.text


def test_json_without_a_schema_is_an_object(model: LocalTransport) -> None:
    request = asking(user("x"), response_format=JSONFormat(), max_tokens=40, temperature=0)
    http = registry.find("openai_chat").encode_request(request, LLAMA_CPP)
    events = step(answer(BLOCKING, model, http))
    text = "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])
    assert text.lstrip().startswith("{")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"seed": 1}, {"seed": 1}, True),
        ({"seed": 1}, {"seed": 2}, False),
        ({"seed": 1}, {"seed": 1, "temperature": 0.0}, False),
        ({"seed": 1}, {"seed": 1, "top_k": 1}, False),
        ({"seed": 1, "temperature": 3.0}, {"seed": 1, "temperature": 3.0, "min_p": 0.9}, False),
    ],
)
def test_sampling_reaches_the_engine(
    model: LocalTransport, one: dict[str, Any], other: dict[str, Any], same: bool
) -> None:
    texts = []
    for fields in (one, other):
        request = asking(user("x"), max_tokens=40, **fields)
        http = registry.find("openai_chat").encode_request(request, LLAMA_CPP)
        events = step(answer(BLOCKING, model, http))
        texts.append([c["delta"].get("content") for e in events for c in e["choices"]])
    assert (texts[0] == texts[1]) is same


def test_stop_and_max_tokens_reach_the_engine(model: LocalTransport) -> None:
    def told(**fields: Any) -> tuple[str, str, int]:
        request = asking(user("x"), temperature=0, **fields)
        http = registry.find("openai_chat").encode_request(request, LLAMA_CPP)
        events = step(answer(BLOCKING, model, http))
        choices = [choice for event in events for choice in event["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        return text, choices[-1]["finish_reason"], events[-1]["usage"]["completion_tokens"]

    whole, reason, tokens = told(max_tokens=30)
    assert (reason, tokens) == ("length", 30)
    stop = whole[6:8]
    text, reason, _ = told(max_tokens=30, stop=(stop,))
    assert (text, reason) == (whole[: whole.index(stop)], "stop")


RANGES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "temperature": ((0, 0.7, 5), (-0.1, 999, float("nan"), float("inf"), "1", True)),
    "top_p": ((0.0, 1), (-0.1, 1.1)),
    "top_k": ((0, 40), (-1, 1.5)),
    "min_p": ((0, 1.0), (2,)),
    "seed": ((-1, 0, 2**32 - 2), (-2, 2**32 - 1, 5_000_000_000)),
    "max_tokens": ((1, 100_000), (0, -1, 5_000_000_000, 1.0)),
    "frequency_penalty": ((-2, 2), (-2.5, 3)),
    "presence_penalty": ((-2, 2), (-2.5, 3)),
    "repeat_penalty": ((1.0, 1.1), (0, -1, 11)),
    "top_logprobs": ((0, 20), (21, -1)),
    "n": ((1, 2), (0, 3)),
    "stop": (((), ("a",) * 16, ("x" * 256,)), (("",), ("a",) * 17, ("x" * 257,), (1,))),
}


@pytest.mark.parametrize("name", RANGES)
def test_every_range_is_kept_and_named(name: str) -> None:
    good, bad = RANGES[name]
    for value in good:
        check_request(asking(user("x"), **{name: value}), slots=2)
    for value in bad:
        error = error_of(lambda v=value: check_request(asking(user("x"), **{name: v}), slots=2))
        assert isinstance(error, RequestError)
        assert name in error.message
        assert error.hint.startswith("Give ")
        assert len(str(error)) < 200


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        nested(32),
        nested(100_000),
        {"enum": ["x" * 70_000]},
        {"enum": list(range(70_000))},
        {"type": "string", "maxLength": 1_000_000},
        {"type": "array", "minItems": -1},
        {"const": object()},
    ],
)
def test_a_schema_that_would_choke_the_engine_is_refused(schema: dict[str, Any]) -> None:
    request = asking(user("x"), response_format=JSONFormat(schema=schema))
    error = error_of(lambda: check_request(request))
    assert isinstance(error, RequestError)
    assert len(str(error)) < 200


def test_the_schema_of_a_tool_is_checked_too() -> None:
    request = asking(user("x"), tools=(Tool(name="look", parameters=nested(100)),))
    assert isinstance(error_of(lambda: check_request(request)), RequestError)


@pytest.mark.parametrize(
    "extra",
    [
        {"n_discard": -1},
        {"dry_allowed_length": -5},
        {"temperature": 999},
        {"messages": []},
        {"grammar": "x" * 70_000},
        {"grammar": 1},
        {"samplers": "top_k"},
    ],
)
def test_extra_parameters_are_known_and_in_range(extra: dict[str, Any]) -> None:
    request = asking(user("x"), extra={"openai_chat": extra})
    error = error_of(lambda: check_request(request))
    assert isinstance(error, RequestError)
    assert next(iter(extra)) in error.message


def test_extra_parameters_reach_the_engine(model: LocalTransport) -> None:
    extra = {"openai_chat": {"grammar": 'root ::= "yes" | "no"', "mirostat": 0}}
    request = asking(user("x"), extra=extra)
    check_request(request)
    http = registry.find("openai_chat").encode_request(request, LLAMA_CPP)
    events = step(answer(BLOCKING, model, http))
    text = "".join(c["delta"].get("content") or "" for e in events for c in e["choices"])
    assert text in ("yes", "no")


def test_fields_of_other_servers_are_dropped_with_a_warning(model: LocalTransport) -> None:
    native = {"openai_chat": {"store": True, "n_discard": -1, "cache_prompt": False}}
    request = asking(user("x"), native=native)
    sent, (warning,) = step(prepare(BLOCKING, model, request))
    assert sent.native == {"openai_chat": {"cache_prompt": False}}
    assert warning.code == "param_dropped"
    assert "'n_discard', 'store'" in warning.text


def test_an_ordinary_schema_passes() -> None:
    schema = {"type": "object", "properties": {"minItems": {"type": "integer"}, "a": nested(10)}}
    check_request(asking(user("x"), response_format=JSONFormat(schema=schema)))


def test_an_empty_conversation_and_pictures_are_refused() -> None:
    assert isinstance(error_of(lambda: check_request(asking())), RequestError)
    picture = Image(Source(url="https://example.com/a.png"))
    for message in (user("x", picture), Message("tool", (ToolResult("1", (picture,)),))):
        error = error_of(lambda m=message: check_request(asking(m)))
        assert isinstance(error, UnsupportedError)
        assert "pictures" in error.message


def test_tools_need_a_template_that_has_a_place_for_them(
    model: LocalTransport, pool: Pool, tmp_path: Path
) -> None:
    request = asking(user("x"), tools=(Tool(name="look"),))
    error = error_of(lambda: step(prepare(BLOCKING, model, request)))
    assert isinstance(error, UnsupportedError)
    assert "tools" in error.message
    path = tiny_gguf.write(tmp_path / "tools.gguf", tools=True)
    spec = spec_for(gguf.inspect(path), LoadOptions(num_ctx=512))
    able = LocalTransport(spec, name="able", http=http(), runners=pool)
    assert step(prepare(BLOCKING, able, request)) == (request, ())
    assert count(able, request) > count(able, msgspec.structs.replace(request, tools=()))


def test_a_prompt_is_cut_only_where_the_caller_allows_it(model: LocalTransport) -> None:
    request = asking(user("x" * 3000))
    assert step(prepare(BLOCKING, model, request)) == (request, ())
    shorter, warnings = step(prepare(BLOCKING, model, request, truncate=True))
    assert [warning.code for warning in warnings] == ["prompt_truncated"]
    assert prompt_tokens(model, shorter) < CONTEXT
    with pytest.raises(RequestError):
        step(prepare(BLOCKING, model, msgspec.structs.replace(request, temperature=999)))
