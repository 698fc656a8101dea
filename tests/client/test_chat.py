"""The public call over a scripted transport: each law in both colours."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
from typing import Any

import msgspec
import pytest
from support_script import DONE, HELLO, JSON, WHOLE, Scripted, chunk, sse

import moim
from moim.errors import (
    AuthenticationError,
    Cancelled,
    ConfigError,
    MissingKey,
    ProviderError,
    RequestError,
    ServerError,
    StreamBroken,
    UnknownModel,
)
from moim.transport.protocol import Timeouts
from moim.types import Event, TextDelta, fold


def make(transport: Scripted, **options: Any) -> moim.Model:
    return moim.model("m", base="http://server.test/v1", transport=transport, **options)


class Blocking:
    """The verbs as plain functions, so that one test body serves both colours."""

    def invoke(self, model: moim.Model, prompt: Any, **options: Any) -> moim.Reply:
        return model.invoke(prompt, **options)

    def batch(self, model: moim.Model, prompts: Any, **options: Any) -> Any:
        return model.batch(prompts, **options)

    def stream(self, model: moim.Model, prompt: Any, take: int | None = None) -> Any:
        """The events, and the stream after them."""
        stream = model.stream(prompt)
        seen: list[Event] = []
        for event in stream:
            seen.append(event)
            if len(seen) == take:
                stream.close()
                break
        return seen, stream


class Asyncio:
    def invoke(self, model: moim.Model, prompt: Any, **options: Any) -> moim.Reply:
        return asyncio.run(model.ainvoke(prompt, **options))

    def batch(self, model: moim.Model, prompts: Any, **options: Any) -> Any:
        return asyncio.run(model.abatch(prompts, **options))

    def stream(self, model: moim.Model, prompt: Any, take: int | None = None) -> Any:
        async def run() -> Any:
            seen: list[Event] = []
            async with model.astream(prompt) as stream:
                async for event in stream:
                    seen.append(event)
                    if len(seen) == take:
                        break
            return seen, stream

        return asyncio.run(run())


@pytest.fixture(params=[Blocking(), Asyncio()], ids=["blocking", "asyncio"])
def verbs(request: pytest.FixtureRequest) -> Any:
    return request.param


def test_a_stream_ends_in_the_reply_that_invoke_gives(verbs: Any) -> None:
    whole = verbs.invoke(make(Scripted(WHOLE, headers=JSON)), "hi")
    seen, stream = verbs.stream(make(Scripted(*HELLO)), "hi")
    assert stream.reply == fold(seen) == whole
    assert whole.text == "Hello"
    assert whole.usage is not None
    assert whole.usage.total_tokens == 5


def test_what_is_asked(verbs: Any) -> None:
    script = Scripted(WHOLE, headers=JSON)
    model = make(script, temperature=0.5, seed=1, key="k-1", timeout=9)
    verbs.invoke(model, [("system", "s"), ("user", "u")], seed=2, temperature=None)
    endpoint, http, timeouts = script.asked[-1]
    assert endpoint.base + http.path == "http://server.test/v1/chat/completions"
    assert endpoint.headers["Authorization"] == "Bearer k-1"
    assert timeouts.total == 9
    body = script.body
    assert body["messages"] == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
    ]
    assert body["seed"] == 2
    assert "temperature" not in body
    assert not body.get("stream")


def test_reading_a_stream_to_its_end_leaves_the_connection_usable(verbs: Any) -> None:
    script = Scripted(*HELLO)
    verbs.stream(make(script), "hi")
    assert script.opened[0].read_to_end


def test_a_server_that_goes_on_behind_the_terminator_is_not_waited_for(verbs: Any) -> None:
    script = Scripted(*HELLO, *[b": still here\n\n"] * 1000)
    _, stream = verbs.stream(make(script), "hi")
    assert stream.reply.text == "Hello"
    assert len(script.opened[0].left) > 900
    assert script.opened[0].closed


@pytest.mark.parametrize("take", [1, 2, 3])
def test_leaving_a_stream_closes_its_exchange_at_once(verbs: Any, take: int) -> None:
    script = Scripted(*HELLO)
    _, stream = verbs.stream(make(script), "hi", take=take)
    assert script.opened[0].closed
    assert not script.opened[0].read_to_end
    with pytest.raises(RequestError, match="end"):
        _ = stream.reply


def test_a_stream_that_nobody_holds_closes_its_exchange() -> None:
    script = Scripted(*HELLO)
    for _ in make(script).stream("hi"):
        break
    gc.collect()
    assert script.opened[0].closed


def test_an_async_stream_that_nobody_holds_closes_its_exchange() -> None:
    script = Scripted(*HELLO)

    async def leave() -> None:
        stream = make(script).astream("hi")
        async for _ in stream:
            break
        del stream
        gc.collect()
        assert script.opened[0].closed

    asyncio.run(leave())


def test_a_cancelled_task_closes_its_exchange() -> None:
    script = Scripted(*HELLO[:2], *[b": wait\n\n"] * 10_000)

    async def main() -> None:
        task = asyncio.ensure_future(make(script).astream("hi").read())
        while not script.opened or len(script.opened[0].left) > 9_990:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert script.opened[0].closed

    asyncio.run(main())


def test_close_from_another_thread_ends_the_reading_one() -> None:
    stream: moim.Stream | None = None

    def close() -> None:
        assert stream is not None
        other = threading.Thread(target=stream.close)
        other.start()
        other.join()

    stream = make(Scripted(*HELLO[:2], close, *HELLO[2:])).stream("hi")
    with pytest.raises(Cancelled):
        stream.read()


def test_a_stream_closed_before_it_began_asks_nothing() -> None:
    script = Scripted(*HELLO)
    stream = make(script).stream("hi")
    stream.close()
    with pytest.raises(Cancelled):
        stream.read()
    assert script.asked == []


@pytest.mark.parametrize("kept", range(4))
def test_a_stream_without_its_terminator_is_an_error(verbs: Any, kept: int) -> None:
    with pytest.raises((StreamBroken, moim.DecodeError)):
        verbs.stream(make(Scripted(*HELLO[:kept])), "hi")


def test_a_connection_that_breaks_behind_the_terminator_is_no_error(verbs: Any) -> None:
    broken = StreamBroken("reset")
    for script in (Scripted(*HELLO, broken), Scripted(*HELLO[:4], broken)):
        _, stream = verbs.stream(make(script), "hi")
        assert stream.reply.text == "Hello"


def test_a_connection_that_breaks_in_the_middle_keeps_what_came(verbs: Any) -> None:
    model = make(Scripted(*HELLO[:3], StreamBroken("reset by peer")))
    stream = model.stream("hi")
    with pytest.raises(StreamBroken, match="reset"):
        stream.read()
    assert stream.so_far.text == "Hello"
    assert stream.so_far.finish_reason is None
    with pytest.raises(StreamBroken, match="reset"):
        _ = stream.reply
    with pytest.raises(StreamBroken, match="reset"):
        verbs.stream(model, "hi")


def test_an_error_in_the_stream_comes_after_what_was_said(verbs: Any) -> None:
    fault = sse({"error": {"message": "boom", "type": "server_error"}})
    model = make(Scripted(*HELLO[:2], fault))
    seen: list[Event] = []
    with pytest.raises(ProviderError, match="boom") as caught:
        seen.extend(model.stream("hi"))
    assert [e.text for e in seen if isinstance(e, TextDelta)] == ["Hel"]
    assert (caught.value.provider, caught.value.model) == ("server.test", "m")
    with pytest.raises(ProviderError, match="boom"):
        verbs.stream(model, "hi")


def test_an_error_status_is_its_class_in_every_verb(verbs: Any) -> None:
    body = msgspec.json.encode(
        {"error": {"message": "bad key", "type": "x", "code": "invalid_api_key"}}
    )
    model = make(Scripted(body, status=401, headers=JSON), key="k-secret")
    for ask in (verbs.invoke, verbs.stream):
        with pytest.raises(AuthenticationError) as caught:
            ask(model, "hi")
        assert caught.value.status == 401
        assert caught.value.provider == "server.test"
        assert "key" in caught.value.hint
        assert "k-secret" not in f"{caught.value}{caught.value!r}"


def test_a_redirect_is_an_error_that_names_the_other_host(verbs: Any) -> None:
    headers = {"location": "https://me:pw@elsewhere.test/v1?key=1"}
    model = make(Scripted(status=307, headers=headers))
    for ask in (verbs.invoke, verbs.stream):
        with pytest.raises(ProviderError, match=r"elsewhere\.test") as caught:
            ask(model, "hi")
        assert "pw" not in str(caught.value)
        assert "key=1" not in str(caught.value)


def test_what_the_dialect_loses_is_on_the_reply_either_way(verbs: Any) -> None:
    whole = verbs.invoke(make(Scripted(WHOLE, headers=JSON), top_k=3), "hi")
    _, stream = verbs.stream(make(Scripted(*HELLO), top_k=3), "hi")
    assert [w.code for w in whole.warnings] == ["param_dropped"]
    assert stream.reply == whole


def test_text_is_the_answers_alone() -> None:
    further = {
        "id": "c1",
        "choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}],
    }
    refusal = chunk(refusal="No.")
    model = make(Scripted(chunk(content="A"), sse(further), refusal, chunk(finish="stop"), DONE))
    assert list(model.stream("hi").text()) == ["A"]


def test_text_in_both_colours() -> None:
    async def pieces() -> list[str]:
        return [piece async for piece in make(Scripted(*HELLO)).astream("hi").text()]

    assert (
        list(make(Scripted(*HELLO)).stream("hi").text()) == asyncio.run(pieces()) == ["Hel", "lo"]
    )


def test_times_of_a_stream(verbs: Any) -> None:
    _, stream = verbs.stream(make(Scripted(*HELLO)), "hi")
    assert 0 <= stream.time_to_first_token <= stream.seconds


@pytest.mark.parametrize("limit", [1, 2, 8])
def test_batch_keeps_the_order(verbs: Any, limit: int) -> None:
    class Echo(Scripted):
        async def open(
            self, rt: Any, endpoint: Any, request: Any, timeouts: Any, opening: Any = None
        ) -> Any:
            said = msgspec.json.decode(request.body)["messages"][0]["content"]
            await rt.sleep(0.01 if said == "0" else 0)
            self.steps = (WHOLE.replace(b"Hello", said.encode()),)
            return await super().open(rt, endpoint, request, timeouts)

    prompts = [str(n) for n in range(20)]
    replies = verbs.batch(make(Echo(headers=JSON)), prompts, limit=limit)
    assert [reply.text for reply in replies] == prompts


def test_batch_gives_errors_back_when_asked(verbs: Any) -> None:
    model = make(Scripted(b"{}", status=500, headers=JSON))
    outcome = verbs.batch(model, ["a", "b"], return_errors=True)
    assert [type(each) for each in outcome] == [ServerError, ServerError]
    with pytest.raises(ServerError):
        verbs.batch(model, ["a", "b"])


def test_a_failed_batch_begins_nothing_more(verbs: Any) -> None:
    script = Scripted(b"{}", status=500, headers=JSON)
    with pytest.raises(ServerError):
        verbs.batch(make(script), ["x"] * 100, limit=2)
    assert len(script.asked) <= 4


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "2"])
def test_a_wrong_limit_asks_nothing(verbs: Any, limit: Any) -> None:
    script = Scripted(WHOLE, headers=JSON)
    with pytest.raises(RequestError, match="limit"):
        verbs.batch(make(script), ["a"], limit=limit)
    with pytest.raises(RequestError, match="list"):
        verbs.batch(make(script), "abc")
    assert script.asked == []


def test_an_empty_batch_is_empty(verbs: Any) -> None:
    assert verbs.batch(make(Scripted()), []) == []


@pytest.mark.parametrize(
    "prompt", [None, 3, b"x", [], [3], {"role": "user"}, [("nobody", "x")], [("user", 3)], [[]]]
)
def test_a_prompt_of_the_wrong_type_asks_nothing(verbs: Any, prompt: Any) -> None:
    script = Scripted(WHOLE, headers=JSON)
    with pytest.raises(RequestError):
        verbs.invoke(make(script), prompt)
    assert script.asked == []


def test_bind_makes_another_model() -> None:
    script = Scripted(WHOLE, headers=JSON)
    model = make(script, seed=1)
    bound = model.bind(seed=2, top_p=0.5)
    bound.invoke("hi")
    assert script.body["seed"] == 2
    model.invoke("hi")
    assert script.body["seed"] == 1
    assert "seed=1" in repr(model)
    with pytest.raises(RequestError, match="max_tokens"):
        model.bind(max_token=3)  # type: ignore[call-arg]


def test_a_local_option_of_a_remote_model_is_refused() -> None:
    with pytest.raises(RequestError, match="num_ctx"):
        make(Scripted()).invoke("hi", num_ctx=512)


def test_the_key_is_read_when_the_call_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    script = Scripted(WHOLE, headers=JSON)
    model = moim.model("openai/gpt-x", transport=script)
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        model.invoke("hi")
    monkeypatch.setenv("OPENAI_API_KEY", "k-2")
    model.invoke("hi")
    assert script.asked[-1][0].headers["Authorization"] == "Bearer k-2"
    assert "k-2" not in f"{model!r}{script.asked[-1][0]!r}"


def test_a_key_of_the_environment_goes_to_its_own_host_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k-2")
    script = Scripted(WHOLE, headers=JSON)
    moim.model("openai/gpt-x", base="http://elsewhere.test/v1", transport=script).invoke("hi")
    moim.model("gpt-x", base="http://elsewhere.test/v1", transport=script).invoke("hi")
    assert all("Authorization" not in endpoint.headers for endpoint, _, _ in script.asked)
    same = moim.model("openai/gpt-x", base="https://api.openai.com/v2", transport=script)
    same.invoke("hi")
    assert script.asked[-1][0].headers["Authorization"] == "Bearer k-2"


def test_headers_of_settings_row_and_argument(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        'between_timeout = 0\n[headers]\nX-A = "1"\nX-B = "1"\n[providers.lab]\nbase = "http://lab.test"\n'
        'key_env = "LAB_KEY"\nheaders = {X-B = "2", X-C = "$LAB_TEAM"}\n'
    )
    monkeypatch.setenv("MOIM_CONFIG", str(config))
    monkeypatch.setenv("LAB_KEY", "k")
    monkeypatch.setenv("LAB_TEAM", "t")
    script = Scripted(WHOLE, headers=JSON)
    moim.model("lab/a/b", transport=script, headers={"X-A": "3"}).invoke("hi")
    endpoint, _, timeouts = script.asked[-1]
    assert endpoint.headers == {"X-A": "3", "X-B": "2", "X-C": "t", "Authorization": "Bearer k"}
    assert script.body["model"] == "a/b"
    assert timeouts == Timeouts(between=None)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smolm2", "smollm2"),
        ("opena/gpt", "openai/gpt"),
        ("nobody/x", "openai/"),
        ("openai/", "openai/"),
    ],
)
def test_an_unknown_name_says_what_is_near(name: str, said: str) -> None:
    with pytest.raises((UnknownModel, ConfigError), match=said):
        moim.model(name)


def test_a_known_model_that_is_not_here_says_how_to_get_it() -> None:
    with pytest.raises(UnknownModel, match="moim pull smollm2"):
        moim.model("smollm2")


@pytest.mark.parametrize("name", [3, b"x"])
def test_a_name_is_a_text(name: Any) -> None:
    with pytest.raises(ConfigError, match="text"):
        moim.model(name)


def test_every_error_survives_pickling() -> None:
    from moim import errors

    for name in errors.__all__:
        error = getattr(errors, name)("what", hint="do", status=418)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert (str(again), again.status) == ("what. do", 418)


def test_calls_from_inside_a_running_loop_block_and_work() -> None:
    async def main() -> moim.Reply:
        return make(Scripted(WHOLE, headers=JSON)).invoke("hi")

    assert asyncio.run(main()).text == "Hello"
