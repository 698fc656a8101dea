"""Typical user code, read by the type checkers and never run."""

from __future__ import annotations

from typing import assert_type

import moim


def ask() -> str:
    model = moim.model("openai/gpt-4o-mini")
    assert_type(model, moim.Model)
    reply = model.invoke("Hello")
    assert_type(reply, moim.Reply)
    return reply.text


def ask_with_parts(picture: bytes) -> moim.Reply:
    image = moim.Image(moim.Source(data=picture, media_type="image/png"))
    question = moim.user("What is this?", image)
    return moim.model("openai/gpt-4o-mini").invoke([moim.system("Be brief."), question])


def stream() -> moim.Usage | None:
    with moim.model("smollm2").stream("Hello") as answer:
        for piece in answer.text():
            assert_type(piece, str)
        return answer.reply.usage


async def stream_in_a_loop() -> list[str]:
    async with moim.model("smollm2").astream("Hello") as answer:
        return [piece async for piece in answer.text()]


def fail() -> str:
    try:
        return ask()
    except moim.RateLimitError as error:
        assert_type(error.retry_after, float | None)
        return error.hint
