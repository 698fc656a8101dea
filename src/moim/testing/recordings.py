"""Decodes a folder of recorded exchanges and holds every row to what it must give.

    python -m moim.testing.recordings DIR [--json] [--only DIALECT] [--jobs N] [--quick]

A folder holds one file `*.jsonl.gz` (or `*.jsonl`) for each dialect, with one exchange on a line.
For each row of a dialect that moim speaks:

- it decodes to the reply or to the class of error that a second, naive reading finds;
- it decodes to the same however its bytes are split: at every single place where it is short, byte
  by byte, and at random places (seeded by the row's id, so always the same ones);
- the laws hold on the reply: going over the wire again changes nothing, streamed or not;
- with its tail cut off it never gives a reply: not before its terminator. Behind the terminator (a
  finish reason for each answer seen, or `[DONE]`) the answer is whole and only the token count or
  the `[DONE]` is lost; such a cut must give what the naive reading of the same cut finds. Of JSON
  every cut is an error;
- its request, where there is one, decodes, encodes and decodes to the same.

The exit code is 0 only if there were rows and none failed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from moim.dialects import Dialect, Quirks, find, names
from moim.errors import MoimError
from moim.testing import oracle
from moim.testing.checks import decode_stream, encode_stream, normal
from moim.types import Alternative, HTTPReply, HTTPRequest, Reply, unfold

__all__ = ["FULL", "QUICK", "Effort", "Outcome", "Summary", "check_folder", "check_row", "main"]

# A server that takes whatever there is, so that a request comes back in full.
_TAKES_ALL = Quirks(
    system_role="kept",
    reasoning_field="reasoning_details",
    stream_usage=False,
    sampling={name: name for name in ("top_k", "min_p", "repeat_penalty")},
    video=True,
    tool_media=True,
)


class Effort(NamedTuple):
    """How many ways of splitting and cutting are tried.

    Attributes:
        short: bodies of at most so many bytes are split, and cut, at every place.
        random: random splittings of each body.
        tails: random cuts of each longer body, besides those around its last events.
        bytewise: whether bodies are also fed byte by byte.
    """

    short: int = 2048
    random: int = 12
    tails: int = 24
    bytewise: bool = True


FULL = Effort()
QUICK = Effort(short=256, random=2, tails=4, bytewise=False)


class Outcome(NamedTuple):
    """What came of one row: `decoded`, `error` (as expected), `failed` or `skipped`."""

    what: str
    row: str
    reason: str = ""
    request: str = ""  # "stable", a reason why it was skipped, or empty where there is none
    kept: int = 0  # request fields that only the dialect knows
    dropped: tuple[str, ...] = ()  # request fields that did not come back


class _Wrong(Exception):
    """A row that does not give what it must."""


def check_row(row: dict[str, Any], effort: Effort = FULL) -> Outcome:
    """Hold one row to everything; never raises for what is in the row."""
    name = str(row.get("id", "?"))
    try:
        dialect = find(row["dialect"])
        what = _check_response(dialect, row, effort)
        request = _check_request(dialect, row)
    except _Wrong as wrong:
        return Outcome("failed", name, str(wrong))
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        return Outcome("failed", name, f"the row is not of the format: {error!r}")
    except Exception as error:  # noqa: BLE001 - a codec must raise nothing else: that is checked
        return Outcome("failed", name, f"{type(error).__name__}: {error}")
    return Outcome(what, name, request=request.state, kept=request.kept, dropped=request.dropped)


def _body(row: dict[str, Any]) -> bytes:
    """The body as it was sent. Where the recording lost the framing it is put back."""
    response = row["response"]
    body: str = response["body"]
    if response["framing"] == "chunk-lines":
        body = "".join(f"data: {line}\n\n" for line in body.split("\n") if line.strip())
    return body.encode()


def _check_response(dialect: Dialect, row: dict[str, Any], effort: Effort) -> str:
    body = _body(row)
    status = row["response"].get("status")
    headers = row["response"].get("headers") or {}
    streamed = row["response"]["framing"] in ("sse", "chunk-lines")
    http = HTTPReply(status=status or 200, headers=headers, body=body)
    expected = (
        oracle.read_stream(body.decode()) if streamed else oracle.read_reply(status, body.decode())
    )

    def decode(pieces: Iterable[bytes]) -> Reply:
        return decode_stream(dialect, pieces)

    found = _outcome(lambda: decode([body]) if streamed else dialect.decode_reply(http))
    _compare(found, expected)
    if http.status < 400:
        _check_splits(lambda pieces: _outcome(lambda: decode(pieces)), found, body, row, effort)
    if isinstance(found, str):
        return "error"
    _check_laws(dialect, found, Random(row["id"]))
    _check_tails(lambda data: _outcome(lambda: decode([data])), body, streamed, row, effort)
    return "decoded"


def _outcome(decode: Any) -> Reply | str:
    """The reply, or the name of the class of the error."""
    try:
        reply: Reply = decode()
    except MoimError as error:
        return type(error).__name__
    return reply


def _compare(found: Reply | str, expected: oracle.Reading) -> None:
    if expected.error is not None:
        if found != expected.error:
            given = found if isinstance(found, str) else "a reply"
            raise _Wrong(f"gives {given} where {expected.error} is right")
        return
    if isinstance(found, str):
        raise _Wrong(f"gives {found} where a reply is right")
    first = Alternative(0, found.parts, found.finish_reason)
    answers = {answer.index: answer for answer in (first, *found.alternatives)}
    assert expected.answers is not None
    for index, answer in expected.answers.items():
        if index not in answers:
            raise _Wrong(f"lacks the answer {index}")
        _equal(f"answer {index}", _comparable(answers[index]), answer.comparable())
    if len(answers) != max(1, len(expected.answers)):
        raise _Wrong("has answers that were not sent")
    if any(not call.name for call in found.tool_calls):
        raise _Wrong("has a tool call without a name")
    usage = found.usage
    _equal("usage", usage and (usage.input_tokens, usage.output_tokens), expected.usage)


def _comparable(answer: Alternative) -> tuple[object, ...]:
    reply = Reply(parts=answer.parts)
    calls = [(call.name, call.arguments) for call in reply.tool_calls]
    return reply.text, reply.reasoning, reply.refusal or "", calls, answer.finish_reason


def _equal(what: str, found: object, expected: object) -> None:
    if found == expected:
        return
    texts = [repr(found), repr(expected)]
    # What is alike at the beginning says nothing.
    pairs = enumerate(zip(*texts, strict=False))
    start = max(0, next((at for at, (a, b) in pairs if a != b), 0) - 40)
    shown = [f"{'…' if start else ''}{text[start : start + 160]}" for text in texts]
    raise _Wrong(f"{what} is {shown[0]} where {shown[1]} is right")


def _check_splits(
    decode: Any, expected: Reply | str, body: bytes, row: dict[str, Any], effort: Effort
) -> None:
    for pieces in _splits(body, Random(row["id"]), effort):
        if decode(pieces) != expected:
            sizes = [len(piece) for piece in pieces][:20]
            raise _Wrong(f"gives something else when split into pieces of {sizes} bytes")


def _splits(body: bytes, random: Random, effort: Effort) -> Iterator[list[bytes]]:
    if len(body) <= effort.short:
        yield from ([body[:at], body[at:]] for at in range(len(body) + 1))
    if effort.bytewise:
        yield [body[at : at + 1] for at in range(len(body))]
    for _ in range(effort.random):
        many = random.randrange(1, 2 + min(len(body), 200))
        at = sorted(random.randrange(len(body) + 1) for _ in range(many))
        yield [body[a:b] for a, b in zip([0, *at], [*at, len(body)], strict=True)]


def _check_laws(dialect: Dialect, reply: Reply, random: Random) -> None:
    once = normal(dialect, reply)
    if normal(dialect, once) != once:
        raise _Wrong("a second trip over the wire changes the reply")
    body = encode_stream(dialect, unfold(once), random)
    for pieces in _splits(body, random, Effort(short=0, random=2, bytewise=False)):
        if decode_stream(dialect, pieces) != once:
            raise _Wrong("streamed, the reply says something else than whole")


def _check_tails(
    decode: Any, body: bytes, streamed: bool, row: dict[str, Any], effort: Effort
) -> None:
    whole = len(body.rstrip())
    for end in sorted(_ends(body[:whole], Random(row["id"]), effort)):
        found = decode(body[:end])
        if not streamed:
            if not isinstance(found, str):
                raise _Wrong(f"cut after {end} of {whole} bytes it still gives a reply")
            continue
        expected = oracle.read_stream(body[:end].decode("utf-8", "replace"))
        if expected.error is not None and isinstance(found, str):
            continue  # which error it is depends on where the cut falls
        try:
            _compare(found, expected)
        except _Wrong as wrong:
            raise _Wrong(f"cut after {end} of {whole} bytes: {wrong}") from None


def _ends(body: bytes, random: Random, effort: Effort) -> set[int]:
    """Where to cut: all places of a short body; of a longer one the ends of its last events, the
    places beside them, and random ones."""
    if len(body) <= effort.short:
        return set(range(len(body)))
    ends = {random.randrange(len(body)) for _ in range(effort.tails)}
    at = len(body)
    for _ in range(min(8, effort.tails)):
        at = body.rfind(b"data:", 0, at)
        if at < 0:
            break
        ends.update(end for end in range(at - 5, at + 2) if 0 <= end < len(body))
    return ends


class _Sent(NamedTuple):
    """What came of a row's request."""

    state: str = ""
    kept: int = 0
    dropped: tuple[str, ...] = ()


# Request fields that come back under another name.
_RENAMED = {
    "max_completion_tokens": "max_tokens",
    "functions": "tools",
    "function_call": "tool_choice",
    "safety_identifier": "user",
}


def _check_request(dialect: Dialect, row: dict[str, Any]) -> _Sent:
    request = row.get("request")
    if not request or row["kind"] not in ("chat", "chat-stream", "error"):
        return _Sent()
    text = request.get("body")
    if not text:
        return _Sent("skipped because the recording has no body")
    http = HTTPRequest(path=request["path"], body=text.encode())
    try:
        once = dialect.decode_request(http)
        again = dialect.encode_request(once, _TAKES_ALL)
        twice = dialect.decode_request(again)
    except MoimError as error:
        raise _Wrong(f"its request is refused: {error}") from None
    _equal("the request, the second time,", twice, once)
    written = again.body.decode()
    _equal(
        "the conversation written",
        oracle.read_conversation(written),
        oracle.read_conversation(text),
    )
    fields = json.loads(written)
    told = [name for name, value in json.loads(text).items() if value not in (None, False, [])]
    dropped = tuple(name for name in told if _RENAMED.get(name, name) not in fields)
    return _Sent("decode and encode stably", len(once.native.get(dialect.name, {})), dropped)


# --- folders ----------------------------------------------------------------------------------


class Summary(NamedTuple):
    """What came of one file; `problems` are its failures and the reasons of skipped rows."""

    file: str
    rows: int
    counts: Counter[str]
    failures: tuple[str, ...]
    skipped: Counter[str]
    requests: Counter[str]
    kept: int
    dropped: Counter[str]


def check_folder(
    folder: Path, *, only: str | None = None, jobs: int = 1, effort: Effort = FULL
) -> list[Summary]:
    """Check every file of a folder.

    Args:
        folder: holds `*.jsonl.gz` or `*.jsonl` files.
        only: the dialect to check; others are not read further.
        jobs: processes to work in.
        effort: how much to try.
    """
    files = sorted({*folder.glob("*.jsonl.gz"), *folder.glob("*.jsonl")})
    if jobs <= 1:
        return [_check_file(file, only, effort, map) for file in files]
    # Spawned, not forked: the caller may have threads.
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        return [_check_file(file, only, effort, pool.map) for file in files]


def _check_file(file: Path, only: str | None, effort: Effort, spread: Any) -> Summary:
    rows: list[dict[str, Any]] = []
    outcomes: list[Outcome] = []
    for place, row in _rows(file):
        if isinstance(row, str):
            outcomes.append(Outcome("failed", place, row))
        elif only is not None and row["dialect"] != only:
            continue
        elif row["dialect"] not in names():
            outcomes.append(Outcome("skipped", place, "dialect not implemented yet"))
        else:
            rows.append(row)
    # Long streams first, so that no worker is left with them at the end.
    rows.sort(key=lambda row: -len(str(row["response"])))
    outcomes += spread(_check_one, [(row, effort) for row in rows])
    return _sum_up(file.name, outcomes)


def _check_one(work: tuple[dict[str, Any], Effort]) -> Outcome:
    return check_row(*work)


def _rows(file: Path) -> Iterator[tuple[str, dict[str, Any] | str]]:
    """Each line with its place: the row, or what is wrong with it."""
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield f"{file.name}:{number}", _row(line)
    except (OSError, EOFError, zlib.error) as error:
        yield f"{file.name}:{number + 1}", f"the file cannot be read further: {error}"


def _row(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"the line is not JSON: {error}"
    if not isinstance(row, dict):
        return "the line is not a JSON object"
    for name, kind in (("id", str), ("dialect", str), ("kind", str), ("response", dict)):
        if not isinstance(row.get(name), kind):
            return f"the row has no `{name}`"
    response = row["response"]
    if not isinstance(response.get("framing"), str):
        return "the row's response has no `framing`"
    if not isinstance(response.get("body"), str) and not isinstance(response.get("body_b64"), str):
        return "the row's response has no `body`"
    return row


def _sum_up(file: str, outcomes: list[Outcome]) -> Summary:
    return Summary(
        file,
        len(outcomes),
        Counter(outcome.what for outcome in outcomes),
        tuple(sorted(f"{o.row}: {o.reason}" for o in outcomes if o.what == "failed")),
        Counter(o.reason for o in outcomes if o.what == "skipped"),
        Counter(o.request for o in outcomes if o.request),
        sum(outcome.kept for outcome in outcomes),
        Counter(name for outcome in outcomes for name in outcome.dropped),
    )


# --- the command ------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    options = _parser().parse_args(arguments)
    folder = Path(options.folder)
    if not folder.is_dir():
        return _refuse(f"{folder} is not a folder.")
    effort = QUICK if options.quick else FULL
    found = check_folder(folder, only=options.only, jobs=options.jobs, effort=effort)
    found = [summary for summary in found if summary.rows]
    if not found:
        what = f"no rows of {options.only}" if options.only else "no recordings (*.jsonl.gz)"
        return _refuse(f"There are {what} in {folder}.")
    print(json.dumps(_as_json(found), indent=2) if options.json else _as_table(found))
    return 1 if any(summary.failures for summary in found) else 0


def _refuse(why: str) -> int:
    print(why, file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m moim.testing.recordings",
        description="Decode a folder of recorded exchanges and check every row.",
        epilog="Exit codes: 0 all is well, 1 a row failed, 2 there was nothing to check.",
    )
    parser.add_argument("folder", help="where the *.jsonl.gz files are")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    parser.add_argument("--only", metavar="DIALECT", help="check the rows of this dialect alone")
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="processes to work in (default: one for each CPU)",
    )
    parser.add_argument("--quick", action="store_true", help="try fewer splittings and cuts")
    return parser


_COLUMNS = ("decoded", "error", "failed", "skipped")


def _as_table(summaries: list[Summary]) -> str:
    head = ("file", "rows", "decoded", "errors as expected", "failed", "skipped")
    rows = [
        (s.file, str(s.rows), *(str(s.counts.get(name, 0)) for name in _COLUMNS)) for s in summaries
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [_line(row, widths) for row in (head, *rows)]
    for summary in summaries:
        for reason, count in sorted(summary.skipped.items()):
            lines.append(f"{summary.file}: {count} skipped: {reason}")
        if summary.requests:
            told = ", ".join(f"{n} {what}" for what, n in sorted(summary.requests.items()))
            gone = ", ".join(f"{n} {name}" for name, n in sorted(summary.dropped.items()))
            lines.append(
                f"{summary.file}: requests: {told}; {summary.kept} fields kept for the dialect"
                f" alone; dropped: {gone or 'none'}"
            )
        lines += (f"{summary.file}: FAILED {failure}" for failure in summary.failures)
    return "\n".join(lines)


def _line(cells: Iterable[str], widths: list[int]) -> str:
    name, *numbers = zip(cells, widths, strict=True)
    aligned = [name[0].ljust(name[1]), *(cell.rjust(width) for cell, width in numbers)]
    return "  ".join(aligned).rstrip()


def _as_json(summaries: list[Summary]) -> dict[str, Any]:
    return {
        "files": [
            {
                "file": s.file,
                "rows": s.rows,
                "decoded": s.counts.get("decoded", 0),
                "errors_as_expected": s.counts.get("error", 0),
                "failed": s.counts.get("failed", 0),
                "skipped": dict(s.skipped),
                "requests": dict(s.requests),
                "request_fields_dropped": dict(s.dropped),
                "failures": list(s.failures),
            }
            for s in summaries
        ]
    }


if __name__ == "__main__":
    sys.exit(main())
