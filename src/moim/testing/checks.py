"""Laws that every back end of a kind must keep, as functions to run against your own.

    from moim.testing import check_dialect

    check_dialect(MyDialect())

Needs the package `hypothesis`, which looks for a counterexample and shrinks the one it finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from random import Random
from typing import Any, NamedTuple

import msgspec

from moim.dialects.base import Dialect
from moim.dialects.quirks import Quirks
from moim.errors import MissingExtra, MoimError, ProviderError
from moim.types import (
    ChoiceEnd,
    Event,
    Failed,
    Finish,
    HTTPReply,
    Reply,
    Request,
    Start,
    fold,
    unfold,
)

__all__ = ["LAWS", "check_dialect", "check_law", "decode_stream", "encode_stream", "normal"]


def normal(dialect: Dialect, reply: Reply) -> Reply:
    """What is left of a reply that went over the wire whole."""
    return dialect.decode_reply(dialect.encode_reply(reply))


def encode_stream(dialect: Dialect, events: Iterable[Event], random: Random | None = None) -> bytes:
    """The bytes for these events, handed to the encoder in batches of any size."""
    encoder = dialect.encoder()
    waiting = list(events)
    pieces = []
    while waiting:
        size = len(waiting) if random is None else random.randrange(1, len(waiting) + 1)
        pieces.append(encoder.feed(waiting[:size]))
        waiting = waiting[size:]
    return b"".join(pieces)


def decode_stream(dialect: Dialect, pieces: Iterable[bytes]) -> Reply:
    """The reply in these pieces of a body.

    Raises:
        MoimError: the error that the stream ends with.
    """
    decoder = dialect.decoder()
    events: list[Event] = []
    for piece in pieces:
        events += decoder.feed(piece)
    return fold([*events, *decoder.close()])


def _same(found: object, expected: object, why: str) -> None:
    assert found == expected, f"{why}\n found: {found!r}\n not:   {expected!r}"


# Each law takes the dialect, the server's quirks, a generated value and a source of chance.


def _idempotent(dialect: Dialect, quirks: Quirks, reply: Reply, random: Random) -> None:
    once = normal(dialect, reply)
    _same(normal(dialect, once), once, "A second trip over the wire changed the reply.")


def _stream(dialect: Dialect, quirks: Quirks, reply: Reply, random: Random) -> None:
    from moim.testing.strategies import cuts

    whole = normal(dialect, reply)
    body = encode_stream(dialect, unfold(whole), random)
    found = decode_stream(dialect, cuts(body, random))
    _same(found, whole, "Streaming does not say what not-streaming says.")


def _interleaved(dialect: Dialect, quirks: Quirks, reply: Reply, random: Random) -> None:
    from moim.testing.strategies import cuts, interleave

    whole = normal(dialect, reply)
    events = interleave(whole, random)
    body = encode_stream(dialect, events, random)
    found = decode_stream(dialect, cuts(body, random))
    _same(found, whole, "Parts that grow side by side do not come out as they went in.")


def _carried(dialect: Dialect, quirks: Quirks, reply: Reply, random: Random) -> None:
    found = normal(dialect, reply)
    _same(_plain(found), _plain(reply), "A reply that every dialect can carry was changed.")


def _plain(reply: Reply) -> Reply:
    """Without what the wire adds: the provider's words and its own objects."""
    usage = reply.usage and msgspec.structs.replace(reply.usage, native={})
    return msgspec.structs.replace(
        reply, usage=usage, native={}, native_finish_reason=None, created=None
    )


def _cut(dialect: Dialect, quirks: Quirks, reply: Reply, random: Random) -> None:
    events = [e for e in unfold(reply) if not isinstance(e, Finish | ChoiceEnd)]
    body = encode_stream(dialect, events)
    for end in {len(body), *(random.randrange(len(body) + 1) for _ in range(20))}:
        try:
            found = decode_stream(dialect, [body[:end]])
        except MoimError:
            continue
        raise AssertionError(f"A stream without its terminator gave a reply: {found!r}")


def _failed(dialect: Dialect, quirks: Quirks, error: ProviderError, random: Random) -> None:
    body = encode_stream(dialect, [Start("x", "x"), Failed(error)])
    try:
        decode_stream(dialect, [body])
    except MoimError as found:
        _same(type(found), type(error), "An error in a stream came out as another.")
        return
    raise AssertionError("A stream that ended in an error gave a reply.")


def _errors(dialect: Dialect, quirks: Quirks, error: ProviderError, random: Random) -> None:
    http = dialect.encode_error(error)
    assert http.status >= 400, f"{type(error).__name__} was written with status {http.status}."
    found = dialect.decode_error(http)
    _same(type(found), type(error), "An error came out as another.")
    _same(found.retry_after, error.retry_after, "The time to wait was changed.")


def _requests(dialect: Dialect, quirks: Quirks, request: Request, random: Random) -> None:
    once = dialect.decode_request(dialect.encode_request(request, quirks))
    twice = dialect.decode_request(dialect.encode_request(once, quirks))
    _same(twice, once, "A second trip over the wire changed the request.")


def _simple_requests(dialect: Dialect, quirks: Quirks, request: Request, random: Random) -> None:
    found = dialect.decode_request(dialect.encode_request(request, quirks))
    found = msgspec.structs.replace(found, native={})
    _same(found, request, "A request that every dialect can carry was changed.")


def _robust(dialect: Dialect, quirks: Quirks, reply: Reply, random: Random) -> None:
    from moim.testing.strategies import cuts

    body = bytearray(encode_stream(dialect, unfold(reply)))
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(len(body))
        if random.random() < 0.5:
            body[at] = random.randrange(256)
        else:
            del body[at : at + random.randrange(20)]
            body = body or bytearray(b"\n")
    whole = bytearray(dialect.encode_reply(reply).body)
    whole[random.randrange(len(whole))] = random.randrange(256)
    outcomes = {_outcome(lambda: decode_stream(dialect, cuts(bytes(body), random)))}
    outcomes.add(_outcome(lambda: decode_stream(dialect, [bytes(body)])))
    assert len(outcomes) == 1, f"The same damaged bytes, cut differently: {outcomes}"
    _outcome(lambda: dialect.decode_reply(HTTPReply(status=200, body=bytes(whole))))


def _outcome(run: Callable[[], Reply]) -> str:
    """What came of it; anything but a reply or one of moim's errors goes through."""
    try:
        return repr(run())
    except MoimError as error:
        return type(error).__name__


class _Law(NamedTuple):
    values: str  # the strategy's name in moim.testing.strategies
    check: Callable[[Dialect, Quirks, Any, Random], None]


LAWS: dict[str, _Law] = {
    "the wire is idempotent": _Law("replies", _idempotent),
    "streaming says what not-streaming says": _Law("replies", _stream),
    "parts may grow side by side": _Law("parallel_replies", _interleaved),
    "what the wire can carry arrives": _Law("simple_replies", _carried),
    "a cut stream is never a reply": _Law("replies", _cut),
    "an error in a stream arrives": _Law("errors", _failed),
    "errors arrive": _Law("errors", _errors),
    "requests are stable": _Law("requests", _requests),
    "simple requests arrive": _Law("simple_requests", _simple_requests),
    "damaged bytes do no harm": _Law("replies", _robust),
}
"""The laws of a dialect, by name."""


def check_dialect(dialect: Dialect, *, quirks: Quirks | None = None, examples: int = 100) -> None:
    """Hold a dialect to all of `LAWS`.

    Args:
        dialect: the codec.
        quirks: of the server that requests are written for.
        examples: generated values for each law.

    Raises:
        AssertionError: a law is broken; the notes hold the smallest example that was found.
        MissingExtra: `hypothesis` is not installed.
    """
    for name in LAWS:
        check_law(dialect, name, quirks=quirks, examples=examples)


def check_law(
    dialect: Dialect,
    name: str,
    *,
    quirks: Quirks | None = None,
    examples: int = 100,
    shrink: bool = True,
) -> None:
    """Hold a dialect to one of `LAWS`; as `check_dialect`. Without `shrink` the first example
    that breaks the law is shown as it was found, which is quicker."""
    if find_spec("hypothesis") is None:
        raise MissingExtra(
            "Checking laws needs the package hypothesis.", hint="Run: pip install hypothesis"
        )
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    from moim.testing import strategies

    law = LAWS[name]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, *([Phase.shrink] if shrink else [])],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.large_base_example,
        ],
    )
    @given(getattr(strategies, law.values)(), st.randoms(use_true_random=False))
    def hold(value: Any, random: Random) -> None:
        law.check(dialect, quirks or Quirks(), value, random)

    hold()
