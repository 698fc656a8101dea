"""The traps of the chat wire, each by its number in the list of known ones."""

from __future__ import annotations

import json

import msgspec
import pytest
from support_chat import CHAT, body_of, call, chunk, decode, sse, stream, whole

from moim.dialects.quirks import LLAMA_CPP, OPENAI, Quirks
from moim.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    DecodeError,
    ProviderError,
    RateLimitError,
    ServerError,
    StreamBroken,
)
from moim.types import (
    Audio,
    Citation,
    HTTPReply,
    Reasoning,
    Reply,
    Request,
    Source,
    Text,
    Usage,
    assistant,
    developer,
    system,
    tool,
    unfold,
    user,
)

USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def counts(usage: Usage | None) -> tuple[int | None, int | None]:
    assert usage is not None
    return usage.input_tokens, usage.output_tokens


def test_trap_10_error_null_is_no_error():
    assert stream(chunk({"content": "x"}, error=None), chunk({}, "stop")).text == "x"
    assert whole({"content": "x"}, error=None).text == "x"


@pytest.mark.parametrize("error", ["text", {"message": "no"}, {"code": 1}, [1]])
def test_trap_10_any_other_error_is_one(error):
    with pytest.raises(ProviderError):
        stream(chunk({"content": "x"}), {"error": error}, chunk({}, "stop"))
    with pytest.raises(ProviderError):
        whole({"content": "x"}, error=error)


@pytest.mark.parametrize("body", [b"<!doctype html><p>hi", b"\n <html>", b""])
def test_trap_11_a_web_page_with_status_200(body):
    with pytest.raises(DecodeError):
        CHAT.decode_reply(HTTPReply(status=200, body=body))
    with pytest.raises((DecodeError, StreamBroken)):
        decode(body, 1)


def test_trap_11_other_bodies_that_are_no_answer():
    for body in (b"[]", b"{}", b'{"choices": []}', b'{"choices": null}', b'"x"', b"null", b"Hello"):
        with pytest.raises(DecodeError):
            CHAT.decode_reply(HTTPReply(status=200, body=body))
        with pytest.raises(DecodeError):
            decode(body)
    with pytest.raises(DecodeError):
        decode(b"data: [DONE]\n\n")


def test_trap_12_an_end_without_terminator_is_an_error():
    with pytest.raises(StreamBroken):
        stream(chunk({"content": "x"}), chunk({"content": "y"}), done=False)
    with pytest.raises(StreamBroken):
        decode(b"")
    with pytest.raises(StreamBroken):
        decode(b": hello\n\n")


def test_trap_12_each_of_several_answers_must_end():
    one = {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}
    two = {"index": 1, "delta": {"content": "b"}, "finish_reason": None}
    with pytest.raises(StreamBroken):
        stream(chunk(choices=[one, two]), done=False)
    assert stream(chunk(choices=[one, two])).alternatives[0].parts == (Text("b"),)


def test_trap_13_what_comes_after_the_end_is_of_no_account():
    decoder = CHAT.decoder()
    events = decoder.feed(sse(chunk({"content": "x"}, "stop")))
    assert decoder.feed(b'data: {"error": "late"}\n\n') == []
    assert decoder.close() == []
    assert type(events[-1]).__name__ == "Finish"


def test_trap_14_done_alone_is_an_end_and_so_is_a_finish_reason():
    assert stream(chunk({"content": "x"})).text == "x"
    assert stream(chunk({"content": "x"}, "stop"), done=False).text == "x"


def test_trap_16_errors_inside_a_stream_take_many_forms():
    begun = sse(chunk({"content": "x"}), done=False)
    for last in (
        b'data: {"error": {"message": "busy", "code": 429}}\n\n',
        b'event: error\ndata: {"error": {"message": "busy", "status_code": 429}}\n\n',
        b'event: error\ndata: {"message": "busy", "code": "rate_limit_exceeded"}\n\n',
        b'error: {"code": 429, "message": "busy"}\n\n',
        b'data: {"object": "error", "message": "busy", "code": 429}\n\n',
        sse(chunk({"content": "y"}, error={"message": "busy", "code": 429})),
    ):
        with pytest.raises(RateLimitError, match="busy") as caught:
            decode(begun + last, 3)
        assert caught.value.retryable


def test_trap_16_a_bare_body_in_place_of_a_stream():
    with pytest.raises(AuthenticationError):
        decode(b'{"error": {"message": "no", "code": "invalid_api_key"}}', 1)
    with pytest.raises(RateLimitError):
        decode(b'[{"error": {"message": "no", "code": 429}}]')
    body = CHAT.encode_reply(whole({"content": "all at once"})).body
    assert decode(body, 1) == CHAT.decode_reply(HTTPReply(status=200, body=body))
    with pytest.raises(DecodeError):
        decode(body[:-1])
    with pytest.raises(DecodeError, match="no stream"):
        decode(b"upstream connect error\n")


def test_trap_18_the_count_follows_the_finish_with_no_choices():
    reply = stream(chunk({"content": "x"}, "stop"), chunk(choices=[], usage=USAGE))
    assert counts(reply.usage) == (5, 7)


def test_trap_19_the_count_comes_with_the_finish():
    assert counts(stream(chunk({"content": "x"}, "stop", usage=USAGE)).usage) == (5, 7)


def test_trap_20_counts_of_many_chunks_are_replaced_and_not_added():
    early = {"prompt_tokens": 5, "completion_tokens": None, "total_tokens": None}
    reply = stream(
        chunk({"content": "x"}, usage=early),
        chunk({"content": "y"}, usage={**USAGE, "completion_tokens": 3}),
        chunk({}, "stop", usage=USAGE),
    )
    assert counts(reply.usage) == (5, 7)
    assert counts(stream(chunk({"content": "x"}, "stop", usage=early)).usage) == (5, None)


def test_trap_21_groq_has_the_count_in_a_place_of_its_own():
    reply = stream(
        chunk({"content": "x"}, x_groq={"id": "req"}), chunk({}, "stop", x_groq={"usage": USAGE})
    )
    assert counts(reply.usage) == (5, 7)
    assert reply.native["openai_chat"]["x_groq"] == {"id": "req", "usage": USAGE}


def test_trap_22_azure_opens_with_an_empty_chunk():
    first = {
        "choices": [],
        "id": "",
        "model": "",
        "object": "",
        "created": 0,
        "prompt_filter_results": [1],
    }
    reply = stream(first, chunk({"content": "x"}, "stop"))
    assert (reply.id, reply.model, reply.created) == ("chatcmpl-1", "m", 1700000000)
    assert reply.native["openai_chat"]["prompt_filter_results"] == [1]


def test_trap_23_content_and_a_second_finish_after_the_first():
    reply = stream(chunk({"content": "a"}, "stop"), chunk({"content": "b"}, "length", usage=USAGE))
    assert (reply.text, reply.finish_reason) == ("ab", "length")


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("eos", "stop"),
        ("function_call", "tool_calls"),
        ("sensitive", "other"),
        ("length", "length"),
    ],
)
def test_trap_24_finish_reasons_of_other_servers(word, reason):
    for reply in (stream(chunk({"content": "x"}, word)), whole({"content": "x"}, word)):
        assert (reply.finish_reason, reply.native_finish_reason) == (reason, word)


def test_trap_24_the_provider_s_word_crosses_our_own_wire():
    reply = whole({"content": "x"}, "eos")
    again = CHAT.decode_reply(CHAT.encode_reply(reply))
    assert (again.finish_reason, again.native_finish_reason) == ("stop", "eos")
    assert body_of(CHAT.encode_reply(reply))["choices"][0]["finish_reason"] == "stop"


def names_and_arguments(reply):
    return [(one.name, one.arguments) for one in reply.tool_calls]


def test_trap_25_calls_without_an_index():
    reply = stream(
        chunk(call(None, id="a", name="f", arguments="{")),
        chunk(call(None, arguments="}")),
        chunk(call(None, id="b", name="g", arguments="[")),
        chunk(call(None, id="a", arguments=" ")),
        chunk(call(None, arguments="]")),
        chunk({}, "tool_calls"),
    )
    assert names_and_arguments(reply) == [("f", "{} "), ("g", "[]")]


def test_trap_26_every_parallel_call_has_the_index_0():
    by_id = stream(
        chunk(call(0, id="a", name="f", arguments="1")),
        chunk(call(0, id="b", name="f", arguments="2")),
        chunk({}, "tool_calls"),
    )
    by_name = stream(
        chunk(call(0, name="f", arguments="1")),
        chunk(call(0, name="g", arguments="2")),
        chunk({}, "tool_calls"),
    )
    assert names_and_arguments(by_id) == [("f", "1"), ("f", "2")]
    assert names_and_arguments(by_name) == [("f", "1"), ("g", "2")]


def test_trap_27_empty_names_and_ids_overwrite_nothing():
    reply = stream(
        chunk(call(0, id="a", type="function", name="f", arguments="")),
        chunk(call(0, id=None, type=None, name="", arguments="{}")),
        chunk(call(0, id="", name=None, arguments=" ")),
        chunk({}, "tool_calls"),
    )
    (found,) = reply.tool_calls
    assert (found.id, found.name, found.arguments) == ("a", "f", "{} ")


def test_trap_28_arguments_may_be_null_or_come_before_the_name():
    reply = stream(
        chunk(call(0, id="a", arguments=None)),
        chunk(call(0, arguments='{"x"')),
        chunk(call(0, name="f", arguments=":1}")),
        chunk({}, "tool_calls"),
    )
    assert names_and_arguments(reply) == [("f", '{"x":1}')]
    assert reply.tool_calls[0].id == "a"


def test_trap_28_an_id_that_follows_the_name_is_still_the_id():
    reply = stream(
        chunk(call(0, name="f")), chunk(call(0, id="late", arguments="{}")), chunk({}, "stop")
    )
    assert [(one.id, one.name) for one in reply.tool_calls] == [("late", "f")]


def test_trap_29_several_calls_in_one_delta_without_index():
    calls = [{"id": n, "function": {"name": n, "arguments": n}} for n in ("a", "b")]
    more = [{"function": {"arguments": "1"}}, {"function": {"arguments": "2"}}]
    reply = stream(
        chunk({"tool_calls": calls}), chunk({"tool_calls": more}), chunk({}, "tool_calls")
    )
    assert names_and_arguments(reply) == [("a", "a1"), ("b", "b2")]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("", ""), ("null", "null"), ({"a": "é"}, '{"a":"é"}'), (None, ""), ('{"a', '{"a')],
)
def test_traps_30_and_31_arguments_are_kept_letter_for_letter(sent, kept):
    message = {"content": None, **call(0, id="a", name="f", arguments=sent)}
    for reply in (whole(message, "tool_calls"), stream(chunk(message, "tool_calls"))):
        assert reply.tool_calls[0].arguments == kept


def test_trap_30_a_call_without_arguments_is_written_with_an_empty_object():
    reply = whole({"content": None, **call(0, id="a", name="f", arguments="")}, "tool_calls")
    written = body_of(CHAT.encode_reply(reply))["choices"][0]["message"]
    assert written["tool_calls"][0]["function"]["arguments"] == "{}"


def sent(quirks: Quirks, *messages, **more):
    return body_of(CHAT.encode_request(Request(model="m", messages=messages, **more), quirks))


def test_trap_32_call_ids_are_replaced_alike_in_call_and_result():
    reply = whole({"content": None, **call(0, id="functions.x:0" * 5, name="f", arguments="{}")})
    talk = (user("q"), reply.message, tool(reply.tool_calls[0].id, "42"))
    for quirks, length in ((Quirks(call_ids="alnum9"), 9), (OPENAI, 37)):
        messages = sent(quirks, *talk)["messages"]
        made = messages[1]["tool_calls"][0]["id"]
        assert messages[2]["tool_call_id"] == made
        assert len(made) == length
    fits = sent(Quirks(call_ids="alnum9"), tool("EscTeQY62", "x"))["messages"][0]
    assert fits["tool_call_id"] == "EscTeQY62"


def test_trap_33_the_field_that_limits_tokens():
    assert sent(OPENAI, user("q"), max_tokens=5)["max_completion_tokens"] == 5
    body = sent(Quirks(), user("q"), max_tokens=5)
    assert body["max_tokens"] == 5
    assert "max_completion_tokens" not in body


def test_trap_34_roles_and_parameters_that_a_server_refuses():
    talk = (system("a"), developer("b"), user("c"))
    roles = [[m["role"] for m in sent(q, *talk)["messages"]] for q in (Quirks(), OPENAI)]
    assert roles == [["system", "system", "user"], ["system", "developer", "user"]]
    quirks = Quirks(refuses=("stop", "temperature"))
    request = Request(model="m", messages=talk, temperature=1.0, stop=("x",))
    body = body_of(CHAT.encode_request(request, quirks))
    assert not {"stop", "temperature"} & set(body)
    assert [w.code for w in CHAT.lost(request, quirks)] == ["param_dropped"] * 2


def test_trap_35_the_role_comes_often_or_never():
    often = stream(
        chunk({"role": "assistant", "content": "a"}),
        chunk({"role": "assistant", "content": "b"}, "stop"),
    )
    assert often.text == stream(chunk({"content": "ab"}, "stop")).text == "ab"


def test_trap_36_a_refusal_streams_beside_the_content():
    reply = stream(
        chunk({"content": None, "refusal": "I "}), chunk({"refusal": "won't"}), chunk({}, "stop")
    )
    assert (reply.refusal, reply.text) == ("I won't", "")


def test_trap_37_fields_of_no_meaning_are_kept_and_padding_is_not():
    reply = stream(
        chunk(
            {"content": "x", "token_id": 3, "channel": "final"},
            obfuscation="abc",
            p="xyz",
            sla_metrics={"a": 1},
        ),
        chunk({}, "stop"),
    )
    assert reply.native["openai_chat"] == {
        "sla_metrics": {"a": 1},
        "choices": [{"message": {"token_id": 3, "channel": "final"}}],
    }


def test_trap_38_null_where_something_should_be():
    nulls = dict.fromkeys(("id", "object", "created", "model", "choices", "usage"))
    reply = stream(
        nulls,
        chunk({"content": "x"}),
        {**nulls, "choices": [{"index": None, "delta": None}]},
        chunk({}, "stop"),
    )
    assert reply.text == "x"
    assert whole({"role": None, "content": None, "tool_calls": None, "refusal": None}).parts == ()


def test_trap_39_null_empty_and_absent_content_are_the_same():
    one = call(0, id="a", name="f", arguments="{}")
    turn, *others = [
        whole({**one, **content}).parts for content in ({"content": None}, {"content": ""}, {})
    ]
    assert others == [turn, turn]
    written = [sent(q, assistant(*turn))["messages"][0]["content"] for q in (OPENAI, LLAMA_CPP)]
    assert written == [None, ""]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_trap_40_reasoning_has_two_names(field):
    reply = stream(chunk({field: "think"}), chunk({field: "ing"}), chunk({"content": "x"}, "stop"))
    assert (reply.reasoning, reply.text) == ("thinking", "x")
    assert whole({field: "thinking", "content": "x"}).parts == reply.parts


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_traps_41_and_42_reasoning_is_given_back_where_the_server_wants_it(field):
    turn = assistant(Reasoning("why"), "so")
    assert sent(Quirks(reasoning_field=field), turn)["messages"][0][field] == "why"
    assert set(sent(OPENAI, turn)["messages"][0]) == {"role", "content"}


def test_trap_43_content_becomes_a_list_with_thinking():
    think = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}
    reply = stream(
        chunk({"content": ""}),
        chunk({"content": [think]}),
        chunk({"content": [think, {"type": "text", "text": "a"}]}),
        chunk({"content": "b"}, "stop"),
    )
    assert (reply.reasoning, reply.text) == ("hmhm", "ab")
    written = sent(Quirks(reasoning_field="thinking"), reply.message)["messages"][0]["content"]
    assert [part["type"] for part in written] == ["thinking", "text"]


def test_trap_45_citations_that_come_with_each_chunk_are_told_once():
    top = {
        "citations": ["https://a", "https://b"],
        "search_results": [{"url": "https://b", "title": "B"}],
    }
    reply = stream(
        chunk({"content": "x"}, **top), chunk({"content": "y"}, **top), chunk({}, "stop", **top)
    )
    (text,) = reply.parts
    assert [(c.url, c.title) for c in text.citations] == [("https://a", None), ("https://b", "B")]
    message = body_of(CHAT.encode_reply(reply))["choices"][0]["message"]
    assert len(message["annotations"]) == 2


def test_trap_46_xai_counts_reasoning_beside_the_completion():
    details = {"completion_tokens_details": {"reasoning_tokens": 228}}
    beside = {"prompt_tokens": 12, "completion_tokens": 1, "total_tokens": 241, **details}
    inside = {"prompt_tokens": 12, "completion_tokens": 229, "total_tokens": 241, **details}
    for usage in (beside, inside):
        found = whole({"content": "x"}, usage=usage).usage
        assert counts(found) == (12, 229)
        assert found.reasoning_tokens == 228
        assert found.total_tokens == 241


def test_trap_47_groq_tells_the_failed_generation():
    error = {
        "message": "m",
        "type": "invalid_request_error",
        "code": "tool_use_failed",
        "failed_generation": "{x",
    }
    with pytest.raises(BadRequestError) as caught:
        stream(chunk({"content": "x"}), {"error": {**error, "status_code": 400}}, done=False)
    assert caught.value.code == "tool_use_failed"
    assert json.loads(caught.value.body or "")["error"]["failed_generation"] == "{x"


def test_trap_50_azure_blocks_a_prompt_even_under_200():
    error = {
        "code": "content_filter",
        "message": "m",
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
    for status in (200, 400):
        with pytest.raises(ContentFilterError):
            CHAT.decode_reply(HTTPReply(status=status, body=json.dumps({"error": error}).encode()))
    blocked = chunk()
    blocked["choices"] = [
        {"index": 0, "finish_reason": "content_filter", "content_filter_results": {"a": 1}}
    ]
    reply = CHAT.decode_reply(HTTPReply(status=200, body=json.dumps(blocked).encode()))
    assert (reply.parts, reply.finish_reason) == ((), "content_filter")
    assert reply.native["openai_chat"]["choices"] == [{"content_filter_results": {"a": 1}}]


@pytest.mark.parametrize("code", ["401", 401])
def test_trap_51_the_code_is_the_status_as_text_or_number(code):
    body = json.dumps({"error": {"code": code, "message": "no"}}).encode()
    assert type(CHAT.decode_error(HTTPReply(status=401, body=body))) is AuthenticationError
    with pytest.raises(AuthenticationError):
        decode(sse({"error": {"code": code, "message": "no"}}))


@pytest.mark.parametrize(
    "place",
    [
        {"prompt_tokens_details": {"cached_tokens": 3}},
        {"cached_tokens": 3},
        {"prompt_cache_hit_tokens": 3, "prompt_cache_miss_tokens": 2},
        {"num_cached_tokens": 3},
        {"prompt_token_details": {"cached_tokens": 3}},
        {"prompt_tokens_details": None, "cache_read_input_tokens": 3},
    ],
)
def test_trap_52_cached_tokens_live_in_many_places(place):
    usage = whole({"content": "x"}, usage={**USAGE, **place}).usage
    assert usage.cache_read_tokens == 3
    assert counts(usage) == (5, 7)


def test_trap_52_counts_that_make_no_sense_are_not_corrected_to_other_nonsense():
    odd = {"prompt_tokens": 2168, "completion_tokens": 10, "total_tokens": 2178,
           "prompt_tokens_details": {"cached_tokens": 2161, "cache_write_tokens": 2161},
           "completion_tokens_details": {"reasoning_tokens": 11}}  # fmt: skip
    usage = whole({"content": "x"}, usage=odd).usage
    assert counts(usage) == (2168, 10)
    assert (usage.cache_read_tokens, usage.cache_write_tokens) == (2161, 2161)
    strange = {"prompt_tokens": -1, "completion_tokens": "7", "total_tokens": True}
    assert counts(whole({"content": "x"}, usage=strange).usage) == (None, None)


def test_trap_53_a_call_without_an_id_gets_one_of_its_own():
    calls = {"tool_calls": [{"id": "", "function": {"name": n, "arguments": "{}"}} for n in "fg"]}
    reply = whole({"content": None, **calls}, id="3SE-aKjdCcC")
    ids = [one.id for one in reply.tool_calls]
    assert len(set(ids)) == 2
    assert all("3SEaKjdCcC" in one for one in ids)
    assert [
        one.id for one in stream(chunk(calls, "tool_calls", id="3SE-aKjdCcC")).tool_calls
    ] == ids
    later = whole({"content": None, **calls}, id="other")
    assert not set(ids) & {one.id for one in later.tool_calls}


def test_llama_cpp_tells_both_numbers_of_a_prompt_that_is_too_long():
    error = {
        "code": 400,
        "message": "the request exceeds the available context size",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 5000,
        "n_ctx": 4096,
    }
    for status in (200, 400):  # it once came under 200
        with pytest.raises(ContextLengthError, match=r"5000.*4096") as caught:
            CHAT.decode_reply(HTTPReply(status=status, body=json.dumps({"error": error}).encode()))
        assert (caught.value.prompt_tokens, caught.value.context_tokens) == (5000, 4096)


def test_llama_cpp_tells_its_timings():
    timings = {"prompt_n": 1, "predicted_per_second": 117.7}
    reply = stream(chunk({"content": "x"}), chunk({}, "stop", timings=timings))
    assert reply.native["openai_chat"]["timings"] == timings
    assert body_of(CHAT.encode_reply(reply))["timings"] == timings


def test_the_first_of_several_answers_is_the_reply():
    choices = [
        {
            "index": n,
            "message": {"role": "assistant", "content": f"answer {n}"},
            "finish_reason": "stop",
        }
        for n in range(3)
    ]
    body = {**chunk(), "choices": choices}
    reply = CHAT.decode_reply(HTTPReply(status=200, body=json.dumps(body).encode()))
    assert reply.text == "answer 0"
    assert [(a.index, a.parts) for a in reply.alternatives] == [
        (1, (Text("answer 1"),)),
        (2, (Text("answer 2"),)),
    ]
    pieces = [
        chunk(choices=[{"index": n, "delta": {"content": piece}}])
        for piece in ("ans", "wer")
        for n in (1, 0)
    ]
    ends = [chunk(choices=[{"index": n, "delta": {}, "finish_reason": "stop"}]) for n in (0, 1)]
    streamed = stream(*pieces, *ends, done=False)
    assert streamed.text == "answer"
    assert streamed.alternatives[0].parts == (Text("answer"),)


def test_log_probabilities():
    def told(token):
        return {
            "token": token,
            "logprob": -0.5,
            "bytes": [1],
            "top_logprobs": [{"token": "y", "logprob": -2.0}],
        }

    pieces = [
        chunk(choices=[{"index": 0, "delta": {"content": t}, "logprobs": {"content": [told(t)]}}])
        for t in "ab"
    ]
    reply = stream(*pieces, chunk({}, "stop"))
    assert [(p.token, p.logprob, p.top) for p in reply.logprobs or ()] == [
        ("a", -0.5, (("y", -2.0),)),
        ("b", -0.5, (("y", -2.0),)),
    ]
    assert CHAT.decode_reply(CHAT.encode_reply(reply)).logprobs == reply.logprobs


def test_sound_comes_in_fragments_of_any_length():
    data = "AAECAwQFBgc="
    pieces = [chunk({"audio": {"data": data[at : at + 3]}}) for at in range(0, len(data), 3)]
    reply = stream(
        chunk({"audio": {"id": "au_1", "transcript": "he"}}),
        *pieces,
        chunk({"audio": {"transcript": "y", "expires_at": 9}}, "stop"),
    )
    assert reply.parts == (
        Audio(
            Source(data=bytes(range(8))),
            transcript="hey",
            id="au_1",
            native={"openai_chat": {"expires_at": 9}},
        ),
    )


def test_legacy_function_calls():
    reply = whole(
        {"content": None, "function_call": {"name": "f", "arguments": "{}"}}, "function_call"
    )
    assert names_and_arguments(reply) == [("f", "{}")]
    assert reply.finish_reason == "tool_calls"
    empty = whole(
        {"content": "x", "function_call": {"name": "", "arguments": ""}, "audio": {"id": ""}}
    )
    assert empty.parts == (Text("x"),)


def test_snowflake_sends_every_member_of_a_call():
    fragment = {
        "id": "a",
        "custom": {"name": "", "input": ""},
        "function": {"name": "f", "arguments": "{}"},
    }
    assert names_and_arguments(whole({"tool_calls": [fragment]})) == [("f", "{}")]
    custom = {"id": "a", "type": "custom", "custom": {"name": "f", "input": "4 + 4"}}
    (found,) = whole({"tool_calls": [custom]}).tool_calls
    assert (found.kind, found.arguments) == ("custom", "4 + 4")


def test_state_of_reasoning_is_given_back_as_it_came():
    details = [
        {"type": "reasoning.summary", "summary": "so", "format": "openai-responses-v1", "index": 0},
        {
            "type": "reasoning.encrypted",
            "data": "gAAA",
            "id": "rs_1",
            "format": "openai-responses-v1",
            "index": 0,
        },
    ]
    reply = whole({"content": "x", "reasoning": "so", "reasoning_details": details})
    first, second, _ = reply.parts
    assert (first.text, first.is_summary, second.opaque, second.id) == ("so", True, "gAAA", "rs_1")
    quirks = Quirks(reasoning_field="reasoning_details")
    assert sent(quirks, reply.message)["messages"][0]["reasoning_details"] == details
    written = body_of(CHAT.encode_reply(reply))["choices"][0]["message"]
    assert (written["reasoning_details"], written["reasoning_content"]) == (details, "so")


def test_state_of_another_origin_is_not_given_back():
    foreign = Reasoning("t", signature="s", origin="anthropic/anthropic/claude")
    own = Reasoning("t", signature="s", origin="openai_chat/openrouter/x")
    quirks = Quirks(reasoning_field="reasoning_details")
    for part, given in ((foreign, False), (own, True)):
        request = Request(model="m", messages=(assistant(part, "x"),))
        message = body_of(CHAT.encode_request(request, quirks))["messages"][0]
        assert ("reasoning_details" in message) == given
        assert [w.code for w in CHAT.lost(request, quirks)] == (
            [] if given else ["reasoning_state_lost"]
        )


def test_google_seals_of_calls_and_of_messages_are_given_back():
    seal = {"extra_content": {"google": {"thought_signature": "S"}}}
    reply = whole({"content": None, **call(0, id="a", name="f", arguments="{}", **seal), **seal})
    message = sent(Quirks(), reply.message)["messages"][0]
    assert message["extra_content"] == seal["extra_content"]
    assert message["tool_calls"][0]["extra_content"] == seal["extra_content"]


def test_an_answer_that_ended_in_an_error_is_an_error_to_a_client():
    reply = msgspec.structs.replace(whole({"content": "x"}), finish_reason="error")
    http = CHAT.encode_reply(reply)
    assert http.status == 500
    with pytest.raises(ServerError):
        CHAT.decode_reply(http)


@pytest.mark.parametrize(
    ("word", "reason"),
    [("stop", "tool_calls"), (None, "tool_calls"), ("length", "length"), ("content_filter",) * 2],
)
def test_an_answer_with_calls_stopped_for_them(word, reason):
    message = {"content": None, **call(0, id="a", name="f", arguments="{}")}
    for reply in (whole(message, word), stream(chunk(message, word))):
        assert (reply.finish_reason, reply.native_finish_reason) == (reason, word)


@pytest.mark.parametrize("body", [{"message": "nope"}, {"detail": "nope"}, {"object": "error"}])
def test_a_body_without_choices_that_complains_is_an_error(body):
    with pytest.raises(ProviderError):
        CHAT.decode_reply(HTTPReply(status=200, body=json.dumps(body).encode()))
    with pytest.raises(ProviderError):
        decode(sse(body))


def test_spans_of_a_second_text_move_with_it():
    one, two = (Citation(start=1, end=2, url=f"https://{n}") for n in "ab")
    reply = Reply(parts=(Text("first ", (one,)), Text("second", (two,))))
    streamed = decode(CHAT.encoder().feed(list(unfold(reply))))
    for found in (streamed, CHAT.decode_reply(CHAT.encode_reply(reply))):
        (text,) = found.parts
        assert isinstance(text, Text)
        assert text.text == "first second"
        assert [(c.start, c.end) for c in text.citations] == [(1, 2), (7, 8)]
