from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support_chat import chunk, sse

from moim.testing import oracle
from moim.testing.recordings import QUICK, check_folder, check_row, main

SRC = Path(__file__).resolve().parents[2] / "src"


def row(
    body: str, kind: str = "chat-stream", framing: str = "sse", status: int | None = 200, **more
):
    return {
        "id": "row-1",
        "dialect": "openai_chat",
        "kind": kind,
        "request": None,
        "response": {"status": status, "headers": {}, "framing": framing, "body": body},
        **more,
    }


GOOD_STREAM = sse(chunk({"content": "hi"}), chunk({}, "stop")).decode()
WHOLE = {
    **chunk(),
    "choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}],
}
GOOD_REPLY = json.dumps(WHOLE)
ERROR = '{"error": {"message": "no", "type": "invalid_request_error", "code": "invalid_api_key"}}'


def write(folder: Path, *rows, name: str = "openai_chat.jsonl.gz") -> Path:
    lines = "".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in rows)
    with gzip.open(folder / name, "wt", encoding="utf-8") as file:
        file.write(lines)
    return folder


def only(folder: Path):
    (summary,) = check_folder(folder, effort=QUICK)
    return summary


def test_the_recorded_traffic_decodes_right(recordings):
    """The quick half; `test_all_of_the_recorded_traffic` tries every splitting."""
    (summary,) = (s for s in check_folder(recordings, only="openai_chat", effort=QUICK) if s.rows)
    assert summary.failures == ()
    assert summary.counts["decoded"] > 1000
    assert summary.counts["error"] > 20
    assert not summary.skipped


@pytest.mark.slow
def test_all_of_the_recorded_traffic(recordings, capsys):
    assert main([str(recordings), "--json", "--jobs", "2"]) == 0
    files = {one["file"]: one for one in json.loads(capsys.readouterr().out)["files"]}
    chat = files["openai_chat.jsonl.gz"]
    assert chat["decoded"] + chat["errors_as_expected"] == chat["rows"] == 1190
    assert set(files["gemini.jsonl.gz"]["skipped"]) == {"dialect not implemented yet"}


@pytest.mark.parametrize(
    ("good", "what"),
    [
        (row(GOOD_STREAM), "decoded"),
        (row(GOOD_REPLY, "chat", "json"), "decoded"),
        (row(json.dumps(chunk({"content": "x"}, "stop")) + "\n", framing="chunk-lines"), "decoded"),
        (row(ERROR, "error", "json", 401), "error"),
        (row(ERROR.replace("invalid_api_key", "x"), "error", "json", None), "error"),
        (row("", "error", "text", 500), "error"),
        (row(sse(chunk({"content": "x"}), done=False).decode()), "error"),
    ],
)
def test_good_rows(good, what):
    outcome = check_row(good)
    assert (outcome.what, outcome.reason) == (what, "")


def test_a_request_is_checked_too():
    body = {"model": "m", "messages": [{"role": "user", "content": "q"}], "store": True, "seed": 1}
    request = {"path": "/chat/completions", "body": json.dumps(body)}
    outcome = check_row(row(GOOD_STREAM, request=request))
    assert (outcome.request, outcome.kept, outcome.dropped) == ("decode and encode stably", 1, ())
    request["body"] = json.dumps({"model": "m", "messages": "?"})
    assert "request" in check_row(row(GOOD_STREAM, request=request)).reason


class Mistaken:
    """The chat dialect with the mistake that a test gives it."""

    def __init__(self, **mistakes):
        self.__dict__.update(mistakes)
        self.name = "openai_chat"

    def __getattr__(self, name):
        from support_chat import CHAT

        return getattr(CHAT, name)


def wrong(monkeypatch, good, **mistakes) -> str:
    import moim.testing.recordings as module

    monkeypatch.setattr(module, "find", lambda name: Mistaken(**mistakes))
    outcome = check_row(good)
    assert outcome.what == "failed"
    return outcome.reason


def altered(change):
    """A decoder whose events go through `change`."""
    from support_chat import CHAT

    class Decoder:
        def __init__(self):
            self.inner = CHAT.decoder()

        def feed(self, data):
            return change(self, data, self.inner.feed(data))

        def close(self):
            return change(self, None, self.inner.close())

    return Decoder


def test_a_wrong_text_is_a_failure(monkeypatch):
    import msgspec

    from moim.types import TextDelta

    def change(self, data, events):
        return [
            msgspec.structs.replace(e, text="ho") if isinstance(e, TextDelta) else e for e in events
        ]

    reason = wrong(monkeypatch, row(GOOD_STREAM), decoder=altered(change))
    assert "'ho'" in reason
    assert "'hi'" in reason


def test_a_reply_that_depends_on_the_splitting_is_a_failure(monkeypatch):
    from moim.types import TextDelta

    def change(self, data, events):
        # Forgets text that a read of odd length brought.
        odd = data is not None and len(data) % 2 and data != GOOD_STREAM.encode()
        return [e for e in events if not (odd and isinstance(e, TextDelta))]

    assert "split" in wrong(monkeypatch, row(GOOD_STREAM), decoder=altered(change))


def test_a_reply_from_a_cut_body_is_a_failure(monkeypatch):
    from moim.types import Failed, Finish

    def change(self, data, events):
        return [Finish("stop", "stop") if isinstance(e, Failed) else e for e in events]

    assert "cut after" in wrong(monkeypatch, row(GOOD_STREAM), decoder=altered(change))


def test_an_error_of_another_class_is_a_failure(monkeypatch):
    from moim.errors import ServerError

    def decode_reply(http):
        raise ServerError("no")

    reason = wrong(monkeypatch, row(ERROR, "error", "json", 401), decode_reply=decode_reply)
    assert reason == "gives ServerError where AuthenticationError is right"


def test_an_exception_that_is_not_ours_is_a_failure(monkeypatch):
    def decode_reply(http):
        raise ZeroDivisionError("oops")

    reason = wrong(monkeypatch, row(GOOD_REPLY, "chat", "json"), decode_reply=decode_reply)
    assert "ZeroDivisionError" in reason


def test_a_law_that_is_broken_is_a_failure(monkeypatch):
    from support_chat import CHAT

    def encode_reply(reply):
        import msgspec

        return CHAT.encode_reply(msgspec.structs.replace(reply, id=reply.id + "!"))

    assert "trip" in wrong(monkeypatch, row(GOOD_STREAM), encode_reply=encode_reply)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("{not json", "not JSON"),
        ("[1]", "not a JSON object"),
        ({"id": "x"}, "dialect"),
        ({**row(GOOD_STREAM), "response": {"body": "x"}}, "framing"),
        ({**row(GOOD_STREAM), "response": {"framing": "sse"}}, "body"),
        ({**row(GOOD_STREAM), "response": None}, "response"),
    ],
)
def test_bad_lines_are_failures_named_by_file_and_line(tmp_path, line, word):
    (failure,) = only(write(tmp_path, row(GOOD_STREAM), line)).failures
    assert failure.startswith("openai_chat.jsonl.gz:2: ")
    assert word in failure


def test_a_row_of_strange_types_is_a_failure_and_no_traceback(tmp_path):
    strange = row(GOOD_STREAM, request={"path": 5, "body": 7})
    assert only(write(tmp_path, strange)).counts["failed"] == 1


def test_a_file_that_is_cut_is_a_failure(tmp_path):
    file = write(tmp_path, *[row(GOOD_STREAM)] * 50) / "openai_chat.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-12])
    assert any("read further" in one for one in only(tmp_path).failures)


def test_dialects_that_are_not_spoken_yet_are_skipped_with_the_reason(tmp_path):
    other = {**row(GOOD_STREAM), "dialect": "klingon"}
    write(tmp_path, other, name="klingon.jsonl.gz")
    (tmp_path / "openai_chat.jsonl").write_text(
        json.dumps(row(GOOD_STREAM)) + "\n\n", encoding="utf-8"
    )
    chat, klingon = sorted(
        check_folder(tmp_path, effort=QUICK), key=lambda s: s.file == "klingon.jsonl.gz"
    )
    assert klingon.skipped == {"dialect not implemented yet": 1}
    assert chat.counts == {"decoded": 1}


def test_the_exit_code_and_the_table(tmp_path, capsys):
    write(tmp_path, row(GOOD_STREAM), row(ERROR, "error", "json", 401))
    assert main([str(tmp_path), "--jobs", "1"]) == 0
    head, line, *_ = capsys.readouterr().out.splitlines()
    assert " ".join(head.split()) == "file rows decoded errors as expected failed skipped"
    assert line.split() == ["openai_chat.jsonl.gz", "2", "1", "1", "0", "0"]
    write(tmp_path, row(GOOD_STREAM), "{")
    assert main([str(tmp_path), "--jobs", "1"]) == 1
    assert "FAILED openai_chat.jsonl.gz:2" in capsys.readouterr().out
    assert main([str(tmp_path), "--jobs", "1", "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)["files"]
    assert (told["rows"], told["failed"], len(told["failures"])) == (2, 1, 1)


def test_nothing_to_check_is_no_success(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "nowhere")]) == 2
    write(tmp_path, row(GOOD_STREAM))
    assert main([str(tmp_path), "--only", "klingon"]) == 2
    assert "klingon" in capsys.readouterr().err


def test_the_command_works_in_several_processes(tmp_path):
    write(tmp_path, *[row(GOOD_STREAM)] * 3, "{")
    run = subprocess.run(
        [sys.executable, "-m", "moim.testing.recordings", str(tmp_path), "--jobs", "2", "--quick"],
        env={**os.environ, "PYTHONPATH": str(SRC)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1, run.stderr
    assert run.stdout.splitlines()[1].split()[1:4] == ["4", "3", "0"]


def test_the_second_reading_shares_no_code_with_the_first():
    source = Path(oracle.__file__).read_text(encoding="utf-8")
    assert "moim" not in "".join(line for line in source.splitlines() if "import" in line)
