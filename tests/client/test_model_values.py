"""A model as a value: what it says of itself, copies, pickles, and what it cannot be made of."""

from __future__ import annotations

import asyncio
import copy
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support_script import JSON, WHOLE, Scripted

import moim
from moim.errors import AuthenticationError, ConfigError, RequestError, UnknownModel
from moim.testing import tiny_gguf

SECRET = "k-0123456789"
BASE = "http://server.test/v1"


def test_a_model_says_how_it_is_made() -> None:
    made = moim.model("m", base=BASE, seed=1, top_p=None)
    assert repr(made) == f"moim.model('m', base='{BASE}', seed=1)"
    assert repr(moim.model("openai/gpt-x", seed=1)) == "moim.model('openai/gpt-x', seed=1)"


@pytest.mark.parametrize(
    "given",
    [
        {"key": SECRET},
        {"headers": {"X-Key": SECRET}},
        {"base": f"http://me:{SECRET}@server.test/v1"},
    ],
)
def test_a_secret_is_neither_shown_nor_pickled(given: dict[str, Any]) -> None:
    made = moim.model("m", **{"base": BASE, **given})
    assert SECRET not in repr(made)
    with pytest.raises(ConfigError, match="pickled") as refused:
        pickle.dumps(made)
    assert SECRET not in str(refused.value)


def test_a_transport_is_not_pickled() -> None:
    with pytest.raises(ConfigError, match="transport"):
        pickle.dumps(moim.model("m", base=BASE, transport=Scripted()))


def test_a_pickled_model_is_made_again_with_what_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    made = moim.model("openai/gpt-x", headers={"X-Team": "$TEAM"}, temperature=0.5)
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("TEAM", "search")
    written = pickle.dumps(made.bind(seed=1))
    assert SECRET.encode() not in written
    again = pickle.loads(written)
    assert repr(again) == repr(made.bind(seed=1))
    endpoint = again._target.endpoint()
    assert endpoint.headers == {"X-Team": "search", "Authorization": f"Bearer {SECRET}"}
    elsewhere = pickle.loads(pickle.dumps(moim.model("m", base=BASE)))
    assert elsewhere._target.endpoint().base == BASE


def test_a_pickled_local_model_finds_its_file_again(tmp_path: Path) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf")
    made = moim.model(str(path), num_ctx=64)
    assert repr(pickle.loads(pickle.dumps(made))) == repr(made)


def test_copies_of_a_model_are_the_model() -> None:
    made = moim.model("m", base=BASE, key=SECRET)
    assert copy.copy(made) is made
    assert copy.deepcopy({"model": made})["model"] is made


def test_replies_messages_and_events_are_picklable_values() -> None:
    made = moim.model("m", base=BASE, transport=Scripted(WHOLE, headers=JSON))
    reply = made.invoke("hi")
    picture = moim.user("What?", moim.Image(moim.Source(data=b"x", media_type="image/png")))
    for value in (reply, picture, moim.Timeouts(first=3), moim.Tool(name="f")):
        assert pickle.loads(pickle.dumps(value)) == value
        assert copy.deepcopy(value) == value


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("base", 5),
        ("key", 5),
        ("key", b"k"),
        ("headers", "X: 1"),
        ("headers", {"X": 1}),
        ("headers", {1: "x"}),
        ("headers", [("X", "1")]),
        ("transport", object()),
    ],
)
def test_an_argument_of_the_wrong_type_is_named(argument: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=argument):
        moim.model("m", **{"base": BASE, argument: value})


@pytest.mark.parametrize("argument", ["key", "headers", "transport"])
def test_a_local_model_takes_nothing_that_is_for_servers(tmp_path: Path, argument: str) -> None:
    path = tiny_gguf.write(tmp_path / "m.gguf")
    value = {"key": SECRET, "headers": {"X": "1"}, "transport": Scripted()}[argument]
    with pytest.raises(ConfigError, match=argument) as refused:
        moim.model(str(path), **{argument: value})  # type: ignore[arg-type]
    assert "base=" in refused.value.hint


def test_the_name_of_a_provider_alone_asks_for_a_model() -> None:
    with pytest.raises(UnknownModel, match="openai/NAME"):
        moim.model("openai")


def test_an_alias_may_name_a_providers_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[aliases]\nbig = "openai/gpt-x"\n')
    monkeypatch.setenv("MOIM_CONFIG", str(config))
    assert moim.model("big").name == "openai/gpt-x"


def test_an_option_that_is_none_takes_a_default_back() -> None:
    script = Scripted(WHOLE, headers=JSON)
    made = moim.model("m", base=BASE, transport=script, seed=1)
    made.invoke("hi", seed=None, num_ctx=None)
    assert "seed" not in script.body


@pytest.mark.parametrize("prompts", [None, 3, b"x", moim.user("x"), {"role": "user"}])
def test_a_batch_of_what_is_no_list_asks_nothing(prompts: Any) -> None:
    made = moim.model("m", base=BASE, transport=Scripted(WHOLE, headers=JSON))
    with pytest.raises(RequestError, match="list of prompts"):
        made.batch(prompts)
    with pytest.raises(RequestError, match="list of prompts"):
        asyncio.run(made.abatch(prompts))


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        (moim.user(5), "int"),  # type: ignore[arg-type]
        (moim.Message("user", ("x",)), "str"),  # type: ignore[arg-type]
        (moim.Message("nobody", ()), "nobody"),  # type: ignore[arg-type]
        ([moim.user("a"), moim.Reply(id="r")], "`message`"),
        ([("user", b"x")], "content"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "content"),
    ],
)
def test_a_message_of_the_wrong_stuff_asks_nothing(prompt: Any, said: str) -> None:
    script = Scripted(WHOLE, headers=JSON)
    with pytest.raises(RequestError, match=said):
        moim.model("m", base=BASE, transport=script).invoke(prompt)
    assert script.asked == []


@pytest.mark.parametrize(("key", "said"), [(None, "OPENAI_API_KEY"), (SECRET, "key=")])
def test_a_refused_key_says_where_it_came_from(
    monkeypatch: pytest.MonkeyPatch, key: str | None, said: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    body = msgspec.json.encode({"error": {"message": "no", "code": "invalid_api_key"}})
    script = Scripted(body, status=401, headers=JSON)
    with pytest.raises(AuthenticationError) as refused:
        moim.model("openai/gpt-x", key=key, transport=script).invoke("hi")
    assert said in refused.value.hint
    assert ("OPENAI_API_KEY" in refused.value.hint) == (key is None)
