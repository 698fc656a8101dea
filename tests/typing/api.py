"""Typical user code, read by the type checkers and never run."""

from __future__ import annotations

from typing import Unpack, assert_type

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


def ask_with_options(**options: Unpack[moim.Options]) -> tuple[moim.Warned, ...]:
    model = moim.model("smollm2", timeouts=moim.Timeouts(first=30)).bind(**options)
    choice = moim.ToolChoice("required", "weather")
    tools = [moim.Tool(name="weather")]
    reply = model.invoke("Hello", tools=tools, tool_choice=choice, thinking=moim.Thinking(budget=9))
    return reply.warnings


def fetch() -> list[moim.LocalModel]:
    def show(progress: moim.Progress) -> None:
        print(progress.phase, progress.completed, progress.total)

    return [moim.pull("smollm2", show), *moim.local_models()]


def fail() -> str:
    try:
        return ask()
    except moim.RateLimitError as error:
        assert_type(error.retry_after, float | None)
        return error.hint
