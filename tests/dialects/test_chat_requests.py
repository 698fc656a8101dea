from __future__ import annotations

import json

import pytest
from support_chat import CHAT, body_of

from moim.dialects.openai_chat.request_decode import wants_usage
from moim.dialects.quirks import GENERIC, LLAMA_CPP, OPENAI, Quirks
from moim.errors import RequestError, UnsupportedError
from moim.types import (
    Audio,
    File,
    HTTPRequest,
    Image,
    JSONFormat,
    Message,
    Refusal,
    Request,
    Source,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Video,
    assistant,
    tool,
    user,
)

PNG = b"\x89PNG\r\n"


def encode(quirks: Quirks = GENERIC, *messages: Message, **more):
    request = Request(model="m", messages=messages or (user("q"),), **more)
    return body_of(CHAT.encode_request(request, quirks))


def decode(body, path="/chat/completions"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return CHAT.decode_request(HTTPRequest(path=path, body=data))


def asked(**fields):
    return decode({"model": "m", "messages": [{"role": "user", "content": "q"}], **fields})


@pytest.mark.parametrize(
    ("fields", "wire"),
    [
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"top_p": 0.9}, {"top_p": 0.9}),
        ({"seed": 0}, {"seed": 0}),
        ({"stop": ("a", "b")}, {"stop": ["a", "b"]}),
        ({"frequency_penalty": 1.0}, {"frequency_penalty": 1.0}),
        ({"presence_penalty": -1.0}, {"presence_penalty": -1.0}),
        ({"n": 3}, {"n": 3}),
        ({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"metadata": {"a": "b"}}, {"metadata": {"a": "b"}}),
        ({"user": "u"}, {"user": "u"}),
        ({"max_tokens": 9}, {"max_tokens": 9}),
        ({"thinking": Thinking(effort="low")}, {"reasoning_effort": "low"}),
        ({"tool_choice": ToolChoice("required")}, {"tool_choice": "required"}),
        (
            {"tool_choice": ToolChoice("required", "f")},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        ({"response_format": JSONFormat()}, {"response_format": {"type": "json_object"}}),
        (
            {"response_format": JSONFormat(schema={"type": "object"}, name="x", strict=True)},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": True},
                }
            },
        ),
        (
            {
                "tools": (
                    Tool(name="f", description="d", parameters={"type": "object"}, strict=True),
                )
            },
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "description": "d",
                            "parameters": {"type": "object"},
                            "strict": True,
                        },
                    }
                ]
            },
        ),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    ],
)
def test_each_parameter_has_its_field_and_comes_back(fields, wire):
    body = encode(**fields)
    assert {k: v for k, v in body.items() if k not in ("model", "messages")} == wire
    found = decode(body)
    assert {name: getattr(found, name) for name in fields} == fields


def test_what_any_server_lacks_is_dropped_with_a_warning_that_names_it():
    request = Request(
        model="m", messages=(user("q"),), top_k=5, min_p=0.1, thinking=Thinking(budget=9)
    )
    assert set(body_of(CHAT.encode_request(request, GENERIC))) == {"model", "messages"}
    warnings = CHAT.lost(request, GENERIC)
    assert [w.code for w in warnings] == ["param_dropped"] * 3
    assert [
        name in w.text
        for name, w in zip(("top_k", "min_p", "thinking.budget"), warnings, strict=True)
    ] == [True] * 3


def test_llama_cpp_takes_its_own_sampling_and_thinking():
    body = encode(
        LLAMA_CPP,
        top_k=5,
        min_p=0.1,
        repeat_penalty=1.1,
        thinking=Thinking(effort="none", budget=64),
    )
    assert (body["top_k"], body["min_p"], body["repeat_penalty"]) == (5, 0.1, 1.1)
    assert body["chat_template_kwargs"]["enable_thinking"] is False
    assert body["thinking_budget_tokens"] == 64
    found = decode(body)
    assert (found.top_k, found.min_p, found.repeat_penalty) == (5, 0.1, 1.1)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"tools": (Tool(name="f"),)},
        {"tool_choice": ToolChoice("required")},
        {"tool_choice": ToolChoice("auto", "f")},
        {"response_format": JSONFormat()},
    ],
)
def test_what_would_change_the_answer_s_meaning_is_an_error(fields):
    (name,) = fields
    with pytest.raises(UnsupportedError, match=name):
        encode(Quirks(refuses=(name,)), **fields)


@pytest.mark.parametrize(
    "fields", [{"n": 1}, {"tool_choice": ToolChoice("auto")}, {"seed": 1}, {"user": "u"}]
)
def test_what_would_not_is_left_out_and_told(fields):
    (name,) = fields
    quirks = Quirks(refuses=(name,))
    body = encode(quirks, **fields)
    assert set(body) == {"model", "messages"}
    assert name in CHAT.lost(Request(model="m", messages=(user("q"),), **fields), quirks)[0].text


def test_the_end_user_s_name_has_another_field_at_openai():
    assert encode(OPENAI, user="u")["safety_identifier"] == "u"
    assert asked(safety_identifier="s", user="u").user == "s"


def test_extra_is_merged_last_and_wins():
    request = Request(
        model="m",
        messages=(user("q"),),
        temperature=0.5,
        extra={"openai_chat": {"temperature": 1, "store": True}, "anthropic": {"x": 1}},
    )
    body = body_of(CHAT.encode_request(request, GENERIC))
    assert (body["temperature"], body["store"]) == (1, True)
    assert "x" not in body


def test_fields_that_nobody_knows_are_kept_and_written_back():
    fields = {"store": True, "prediction": {"type": "content"}, "web_search_options": {}}
    found = asked(**fields)
    assert found.native == {"openai_chat": fields}
    body = body_of(CHAT.encode_request(found, GENERIC))
    assert {name: body[name] for name in fields} == fields


def test_the_client_s_stream_options_are_read_and_ours_win():
    found = asked(stream=True, stream_options={"include_usage": False, "x": 1})
    assert not wants_usage(found)
    body = body_of(CHAT.encode_request(found, GENERIC))
    assert body["stream_options"] == {"include_usage": True, "x": 1}
    assert wants_usage(asked(stream=True, stream_options={"include_usage": True}))
    quiet = asked(stream_options={"include_usage": True})
    assert "stream_options" not in body_of(CHAT.encode_request(quiet, GENERIC))


def test_every_kind_of_part_crosses_the_wire():
    said = Message(
        "user",
        (
            Text("look"),
            Image(Source(data=PNG, media_type="image/png"), "high"),
            Image(Source(url="https://example.com/a.png")),
            Audio(Source(data=b"RIFF", media_type="audio/wav"), "wav"),
            File(Source(data=b"%PDF", media_type="application/pdf"), "a.pdf"),
            File(Source(file_id="file-1")),
            Video(Source(url="https://example.com/v.mp4")),
        ),
    )
    request = Request(model="m", messages=(said,))
    http = CHAT.encode_request(request, Quirks(video=True))
    assert CHAT.decode_request(http) == request
    with pytest.raises(UnsupportedError, match="Video"):
        CHAT.encode_request(request, GENERIC)


def test_a_lone_text_is_a_string_and_empty_ones_vanish():
    bodies = [
        encode(GENERIC, user(*texts))["messages"][0]["content"]
        for texts in (["a"], ["a", ""], ["a", "b"])
    ]
    assert bodies[0] == "a"
    assert bodies[1] == [{"type": "text", "text": "a"}]
    assert [part["text"] for part in bodies[2]] == ["a", "b"]


def test_a_sound_needs_bytes_and_a_format():
    with pytest.raises(RequestError, match="format"):
        encode(GENERIC, user(Audio(Source(data=b"x"))))
    with pytest.raises(UnsupportedError, match="bytes"):
        encode(GENERIC, user(Audio(Source(url="https://example.com/a.wav"), "wav")))


def test_images_of_tool_results_follow_the_last_result():
    image = Image(Source(data=PNG, media_type="image/png"))
    talk = (tool("a", "one", image), tool("b", "two"), user("and?"))
    messages = encode(GENERIC, *talk)["messages"]
    assert [m["role"] for m in messages] == ["tool", "tool", "user", "user"]
    assert messages[0]["content"].startswith("one")
    assert [part["type"] for part in messages[2]["content"]] == ["text", "image_url"]
    assert [w.code for w in CHAT.lost(Request(model="m", messages=talk), GENERIC)] == [
        "tool_result_moved"
    ]
    inside = encode(Quirks(tool_media=True), *talk)["messages"]
    assert [m["role"] for m in inside] == ["tool", "tool", "user"]


def test_a_failed_tool_says_so_in_its_text():
    (message,) = encode(GENERIC, tool("a", "no such city", is_error=True))["messages"]
    assert message == {"role": "tool", "tool_call_id": "a", "content": "Error: no such city"}


def test_results_inside_a_user_s_turn_become_messages_before_it():
    turn = Message(
        "user", (Text("thanks"), ToolResult("a", (Text("1"),)), ToolResult("b", (Text("2"),)))
    )
    messages = encode(GENERIC, turn)["messages"]
    assert [(m["role"], m["content"]) for m in messages] == [
        ("tool", "1"),
        ("tool", "2"),
        ("user", "thanks"),
    ]


def test_calls_of_the_server_s_own_are_left_out():
    talk = (assistant("x", ToolCall("s", "web_search", "{}", "server")),)
    assert encode(GENERIC, *talk)["messages"][0] == {"role": "assistant", "content": "x"}
    assert [w.code for w in CHAT.lost(Request(model="m", messages=talk), GENERIC)] == [
        "tool_call_dropped"
    ]


def test_an_assistant_s_turn():
    turn = assistant(ToolCall("a", "f", ""), ToolCall("b", "g", "4 + 4", "custom"))
    (message,) = encode(GENERIC, turn)["messages"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "b", "type": "custom", "custom": {"name": "g", "input": "4 + 4"}},
    ]
    refused = encode(GENERIC, assistant(Refusal("no")))["messages"][0]
    assert refused == {"role": "assistant", "content": None, "refusal": "no"}
    heard = encode(GENERIC, assistant(Audio(id="au_1"), "x"))["messages"][0]
    assert heard["audio"] == {"id": "au_1"}


def test_functions_of_the_old_kind_are_tools():
    found = decode(
        {
            "model": "m",
            "functions": [{"name": "f", "parameters": {"type": "object"}}],
            "function_call": {"name": "f"},
            "messages": [
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    "content": None,
                    "function_call": {"name": "f", "arguments": "{}"},
                },
                {"role": "function", "name": "f", "content": "42"},
            ],
        }
    )
    assert [one.name for one in found.tools] == ["f"]
    assert found.tool_choice == ToolChoice("required", "f")
    (made,) = found.messages[1].tool_calls
    (result,) = found.messages[2].parts
    assert isinstance(result, ToolResult)
    assert result.call_id == made.id != ""


def test_azure_names_the_model_in_the_path():
    found = decode(
        {"messages": [{"role": "user", "content": "q"}]},
        "/openai/deployments/gpt%204/chat/completions?x=1",
    )
    assert found.model == "gpt 4"


def test_both_names_of_the_limit_are_read_and_the_newer_wins():
    assert asked(max_tokens=1).max_tokens == 1
    assert asked(max_tokens=1, max_completion_tokens=2).max_tokens == 2
    assert asked(max_completion_tokens=2, max_tokens=1).max_tokens == 2
    assert asked(max_tokens=4.0).max_tokens == 4


def test_a_part_that_nobody_knows_comes_back_as_it_was():
    part = {"type": "document_url", "document_url": "https://example.com/a.pdf"}
    found = decode({"model": "m", "messages": [{"role": "user", "content": [part]}]})
    body = body_of(CHAT.encode_request(found, GENERIC))
    assert body["messages"][0]["content"] == [part]


def test_tools_of_other_kinds_come_back_as_they_were():
    custom = {"type": "custom", "custom": {"name": "x"}}
    marked = {
        "type": "function",
        "cache_control": {"type": "ephemeral"},
        "function": {"name": "f", "parameters": {}, "requires_confirmation": True},
    }
    body = body_of(CHAT.encode_request(asked(tools=[marked, custom]), GENERIC))
    assert body["tools"] == [marked, custom]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        ({}, "messages"),
        ({"model": "m", "messages": []}, "empty"),
        ({"model": "m", "messages": "hi"}, "messages"),
        ({"model": 5, "messages": [{"role": "user", "content": "q"}]}, "model"),
        ({"model": "m", "messages": ["hi"]}, "messages[0]"),
        ({"model": "m", "messages": [{"role": "robot", "content": "q"}]}, "role"),
        ({"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"text": "x"}]}]}, "type"),
        ({"model": "m", "messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        (
            {
                "model": "m",
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "data:image/png;base64,!!!"}}
                        ],
                    }
                ],
            },
            "base64",
        ),
        (
            {
                "model": "m",
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image_url", "image_url": {"url": "data:text/plain,hi"}}
                        ],
                    }
                ],
            },
            "base64",
        ),
    ],
)
def test_a_body_that_is_no_request_is_told_which_field_is_wrong(body, word):
    with pytest.raises(RequestError) as caught:
        decode(body)
    assert word in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "hot"},
        {"temperature": True},
        {"max_tokens": 1.5},
        {"max_tokens": "9"},
        {"stream": "yes"},
        {"stop": 5},
        {"stop": [5]},
        {"tools": {}},
        {"tools": [5]},
        {"tools": [{"type": "function", "function": {}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": 5}}]},
        {"tool_choice": 5},
        {"response_format": "json"},
        {"response_format": {"type": "json_schema"}},
        {"metadata": []},
        {"user": 5},
        {"reasoning_effort": 5},
    ],
)
def test_a_parameter_of_the_wrong_type_is_named(fields):
    (name,) = fields
    with pytest.raises(RequestError) as caught:
        asked(**fields)
    assert name in str(caught.value)


def test_null_is_the_same_as_absent():
    names = ("temperature", "stop", "tools", "tool_choice", "response_format", "stream", "x")
    assert asked(**dict.fromkeys(names)) == asked()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_number_that_json_cannot_write(value):
    with pytest.raises(RequestError, match="temperature"):
        encode(temperature=value)
    with pytest.raises(RequestError, match="NaN"):
        encode(extra={"openai_chat": {"x": [value]}})
    with pytest.raises(RequestError, match="JSON"):
        encode(tools=(Tool(name="f", parameters={"x": object()}),))
