"""One client in a process of its own, told over standard input what to do.

    python -m benchmarks.call_worker CLIENT ADDRESS

Answers each line `KIND COUNT` with the microseconds of processor time that one exchange took in
this process. A line `check KIND` is answered with the text that the client read, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import urlsplit

MESSAGES = [{"role": "user", "content": "What is the capital of South Korea?"}]
PROMPT = MESSAGES[0]["content"]
HEADERS = {
    "content-type": "application/json",
    "authorization": "Bearer benchmark",
    "accept": "application/json",
}

# A client makes, for one kind of exchange, a function that does it once and gives its result: the
# text, or the body's bytes where nothing was parsed. An async client yields it in its event loop.
Blocking: TypeAlias = Callable[[], Any]
Async: TypeAlias = Callable[[], Awaitable[Any]]


def _body(kind: str) -> bytes:
    """What the SDKs send, for clients that know of no dialect."""
    stream = {} if kind == "whole" else {"stream": True}
    return json.dumps({"model": "m", "messages": MESSAGES, **stream}).encode()


def http_client(address: str, kind: str) -> Blocking:
    import http.client

    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    path, body = f"/{kind}/chat/completions", _body(kind)

    def exchange() -> bytes:
        connection.request("POST", path, body, HEADERS)
        reply = connection.getresponse()
        data = b""
        while piece := reply.read1():
            data += piece
        reply.close()
        return data

    return exchange


def urllib3_client(address: str, kind: str) -> Blocking:
    import urllib3

    pool = urllib3.PoolManager(retries=False)
    url, body = f"{address}/{kind}/chat/completions", _body(kind)

    def exchange() -> bytes:
        reply = pool.request("POST", url, body=body, headers=HEADERS, preload_content=False)
        data = b""
        while piece := reply.read1():
            data += piece
        reply.release_conn()
        return data

    return exchange


def moim_client(address: str, kind: str) -> Blocking:
    import moim

    model = moim.model("m", base=f"{address}/{kind}", key="benchmark")
    if kind == "whole":
        return lambda: model.invoke(PROMPT).text

    def exchange() -> str:
        return "".join(model.stream(PROMPT).text())

    return exchange


def openai_client(address: str, kind: str) -> Blocking:
    import openai  # type: ignore[import-not-found, unused-ignore]

    client = openai.OpenAI(base_url=f"{address}/{kind}", api_key="benchmark", max_retries=0)
    ask: Any = client.chat.completions.create
    if kind == "whole":
        return lambda: ask(model="m", messages=MESSAGES).choices[0].message.content

    def exchange() -> str:
        stream = ask(model="m", messages=MESSAGES, stream=True)
        return "".join(c.choices[0].delta.content or "" for c in stream if c.choices)

    return exchange


@asynccontextmanager
async def aiohttp_client(address: str, kind: str) -> AsyncIterator[Async]:
    import aiohttp

    url, body = f"{address}/{kind}/chat/completions", _body(kind)
    async with aiohttp.ClientSession() as session:

        async def exchange() -> bytes:
            data = b""
            async with session.post(url, data=body, headers=HEADERS) as reply:
                async for piece in reply.content.iter_any():
                    data += piece
            return data

        yield exchange


@asynccontextmanager
async def moim_async_client(address: str, kind: str) -> AsyncIterator[Async]:
    import moim

    model = moim.model("m", base=f"{address}/{kind}", key="benchmark")

    async def whole() -> str:
        return (await model.ainvoke(PROMPT)).text

    async def streamed() -> str:
        return "".join([piece async for piece in model.astream(PROMPT).text()])

    yield whole if kind == "whole" else streamed


@asynccontextmanager
async def openai_async_client(address: str, kind: str) -> AsyncIterator[Async]:
    import openai  # type: ignore[import-not-found, unused-ignore]

    async with openai.AsyncOpenAI(
        base_url=f"{address}/{kind}", api_key="benchmark", max_retries=0
    ) as client:
        ask: Any = client.chat.completions.create

        async def whole() -> str:
            reply = await ask(model="m", messages=MESSAGES)
            return str(reply.choices[0].message.content)

        async def streamed() -> str:
            stream = await ask(model="m", messages=MESSAGES, stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

        yield whole if kind == "whole" else streamed


BLOCKING: dict[str, Callable[[str, str], Blocking]] = {
    "http.client": http_client,
    "urllib3": urllib3_client,
    "moim": moim_client,
    "openai": openai_client,
}
ASYNC: dict[str, Callable[[str, str], AbstractAsyncContextManager[Async]]] = {
    "aiohttp": aiohttp_client,
    "moim async": moim_async_client,
    "openai async": openai_async_client,
}


def _text(found: Any) -> str:
    """The answer in a body that was not parsed, so that every client is seen to get it whole."""
    if isinstance(found, str):
        return found
    if found.startswith(b"{"):
        return str(json.loads(found)["choices"][0]["message"]["content"])
    events = [line[6:] for line in found.splitlines() if line.startswith(b"data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def _report(spent: float, count: int) -> None:
    print(spent / count * 1e6, flush=True)


def _serve_blocking(address: str, make: Callable[[str, str], Blocking]) -> None:
    made: dict[str, Blocking] = {}
    for line in sys.stdin:
        order, argument = line.split()
        kind = argument if order == "check" else order
        exchange = made.get(kind) or made.setdefault(kind, make(address, kind))
        if order == "check":
            print(json.dumps(_text(exchange())), flush=True)
            continue
        count = int(argument)
        begin = time.process_time()
        for _ in range(count):
            exchange()
        _report(time.process_time() - begin, count)


async def _serve_async(
    address: str, make: Callable[[str, str], AbstractAsyncContextManager[Async]]
) -> None:
    loop = asyncio.get_running_loop()
    made: dict[str, Async] = {}
    async with AsyncExitStack() as clients:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order, argument = line.split()
            kind = argument if order == "check" else order
            if kind not in made:
                made[kind] = await clients.enter_async_context(make(address, kind))
            exchange = made[kind]
            if order == "check":
                print(json.dumps(_text(await exchange())), flush=True)
                continue
            count = int(argument)
            begin = time.process_time()
            for _ in range(count):
                await exchange()
            _report(time.process_time() - begin, count)


def main() -> None:
    client, address = sys.argv[1:]
    if client in BLOCKING:
        _serve_blocking(address, BLOCKING[client])
    else:
        asyncio.run(_serve_async(address, ASYNC[client]))


if __name__ == "__main__":
    main()
