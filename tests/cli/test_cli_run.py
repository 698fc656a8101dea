"""`moim run` with one question, against a server on loopback and a tiny model."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from support_cli import (
    MOIM,
    SECONDS,
    Answer,
    FakeServer,
    ask,
    chatter,
    environment,
    run_moim,
    start_moim,
)

from moim.testing import tiny_gguf


def test_the_answer_alone_goes_to_standard_output() -> None:
    with FakeServer() as server:
        done = ask(server, "Hello", "there")
    assert done.stdout == "You said: Hello there\n"
    assert done.stderr == ""


def test_the_answer_is_shown_before_it_is_whole() -> None:
    seen = threading.Event()

    def script(answer: Answer) -> None:
        answer.begin()
        answer.piece("First")
        assert seen.wait(SECONDS)
        answer.piece(" second")
        answer.end()

    with FakeServer(script) as server:
        process = start_moim("run", "m", "Hi", "--base", server.base)
        assert process.stdout is not None
        assert process.stdout.read(5) == b"First"
        seen.set()
        rest, _ = process.communicate(timeout=SECONDS)
    assert rest == b" second\n"
    assert process.returncode == 0


def test_standard_input_comes_before_the_prompt() -> None:
    with FakeServer() as server:
        ask(server, "Summarize this.", stdin="\ufeffLine one\nline two\n")
        assert server.answers[-1].prompt == "Line one\nline two\n\nSummarize this."
        ask(server, stdin="Only this")
        assert server.answers[-1].prompt == "Only this"


@pytest.mark.parametrize(
    "locale",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp949"},
        {"LC_ALL": "C.UTF-8"},
    ],
)
def test_korean_and_emoji_pass_in_any_locale(locale: dict[str, str]) -> None:
    with FakeServer() as server:
        done = ask(server, "안녕하세요 🌊", stdin="바다는 왜 짤까요?", env=locale)
        assert server.answers[-1].prompt == "바다는 왜 짤까요?\n\n안녕하세요 🌊"
    assert done.stdout == "You said: 바다는 왜 짤까요?\n\n안녕하세요 🌊\n"


def test_standard_input_in_another_encoding_is_refused() -> None:
    done = run_moim(
        "run", "m", "--base", "http://127.0.0.1:9", stdin="한국어".encode("cp949"), expect=2
    )
    assert "not UTF-8" in done.stderr
    assert "iconv" in done.stderr


def test_no_prompt_and_nobody_to_chat_with_is_refused() -> None:
    done = run_moim("run", "m", "--base", "http://127.0.0.1:9", expect=2)
    assert "There is no prompt" in done.stderr


def test_options_reach_the_server(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "title": "numbers"}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema))
    with FakeServer() as server:
        ask(
            server, "Hi", "--system", "Be brief.", "--temperature", "0", "--max-tokens", "9",
            "--seed", "3", "--top-p", "0.5", "--stop", "END", "--stop", "FIN",
            "--json-schema", str(file), "-o", "presence_penalty=0.25", "-o", 'user=anna',
        )  # fmt: skip
        body = server.body
    assert body["messages"][0]["content"] == "Be brief."
    assert body["model"] == "fake-1"
    assert body["stream"] is True
    assert (body["temperature"], body["seed"], body["top_p"]) == (0, 3, 0.5)
    assert 9 in (body.get("max_tokens"), body.get("max_completion_tokens"))
    assert body["stop"] == ["END", "FIN"]
    assert body["presence_penalty"] == 0.25
    assert body["user"] == "anna"
    assert body["response_format"]["json_schema"]["schema"] == schema


def test_format_json_asks_for_json() -> None:
    with FakeServer() as server:
        ask(server, "Hi", "--format", "json")
        assert server.body["response_format"] == {"type": "json_object"}


def test_the_key_comes_from_the_named_variable_and_from_no_other() -> None:
    with FakeServer() as server:
        ask(server, "Hi", "--key-env", "MY_OWN", env={"MY_OWN": "sk-given"})
        assert server.answers[-1].headers["authorization"] == "Bearer sk-given"
        ask(server, "Hi", env={"OPENAI_API_KEY": "sk-other"})
        assert "authorization" not in server.answers[-1].headers


def test_json_prints_one_object() -> None:
    with FakeServer() as server:
        done = ask(server, "Hi", "--json")
    found = json.loads(done.stdout)
    assert found["text"] == "You said: Hi"
    assert found["finish_reason"] == "stop"
    assert found["usage"]["input_tokens"] == 7
    assert found["timings"]["measured_by"] == "client"
    assert 0 <= found["timings"]["first_token"] <= found["timings"]["total"]
    assert found["warnings"] == []
    assert done.stderr == ""


def test_verbose_prints_the_numbers_on_standard_error() -> None:
    times = {"prompt_n": 7, "prompt_ms": 100.0, "prompt_per_second": 70.0,
             "predicted_n": 2, "predicted_ms": 40.0, "predicted_per_second": 50.0}  # fmt: skip
    with FakeServer(lambda answer: answer.stream("Hi", " you", timings=times)) as server:
        done = ask(server, "Hello", "--verbose")
    assert done.stdout == "Hi you\n"
    lines = {line.split(":")[0]: line for line in done.stderr.splitlines()}
    assert "7 tokens" in lines["prompt"]
    assert "70.0 tokens/s" in lines["prompt"]
    assert "50.0 tokens/s" in lines["answer"]
    assert set(lines) == {"load", "first token", "prompt", "answer", "total"}


def test_an_answer_that_was_cut_says_so() -> None:
    with FakeServer(lambda answer: answer.stream("Once upon", finish="length")) as server:
        done = ask(server, "Tell a story")
    assert done.stdout == "Once upon\n"
    assert "max_tokens" in done.stderr


def test_a_stream_that_breaks_is_no_answer() -> None:
    def script(answer: Answer) -> None:
        answer.begin()
        answer.piece("Half of")

    with FakeServer(script) as server:
        done = ask(server, "Hi", expect=5)
    assert done.stdout == "Half of\n"
    assert done.stderr.startswith("error: ")


def test_ctrl_c_stops_the_call_and_leaves_quietly() -> None:
    with FakeServer(chatter) as server:
        process = start_moim("run", "m", "Hi", "--base", server.base)
        assert process.stdout is not None
        assert process.stdout.read(6) == b"First."
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
        assert server.left.wait(SECONDS), "the connection was not cut"
    assert process.returncode == 130
    assert errors.strip() == b""


def test_a_reader_that_leaves_is_no_error() -> None:
    with FakeServer(chatter) as server:
        process = start_moim("run", "m", "Hi", "--base", server.base)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(6) == b"First."
        process.stdout.close()
        errors = process.stderr.read()
        process.wait(SECONDS)
        process.stderr.close()
        assert server.left.wait(SECONDS), "the connection was not cut"
    assert process.returncode == 141
    assert errors == b""


def test_a_full_disk_under_the_output_is_an_error(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    with FakeServer() as server, full.open("wb") as out:
        done = subprocess.run(
            [*MOIM, "run", "m", "Hi", "--base", server.base],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, env=environment(),
            timeout=SECONDS, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: No space left")
    assert b"Traceback" not in done.stderr


def test_a_model_file_runs_where_it_lies(tmp_path: Path) -> None:
    file = tiny_gguf.write(tmp_path / "작은 모델.gguf")
    before = file.read_bytes()
    arguments = ("run", str(file), "Hello", "--temperature", "0", "--max-tokens", "8", "--json")
    first, second = (json.loads(run_moim(*arguments).stdout) for _ in range(2))
    assert first["text"] == second["text"]
    assert first["usage"]["output_tokens"] <= 8
    assert first["timings"]["measured_by"] == "engine"
    assert file.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]


def test_a_prompt_beyond_the_context_names_both_numbers(tmp_path: Path) -> None:
    file = str(tiny_gguf.write(tmp_path / "tiny.gguf", context_length=512))
    done = run_moim("run", file, stdin="word " * 3000, expect=1)
    assert "512" in done.stderr
    cut = run_moim("run", file, "--truncate", "--max-tokens", "4", stdin="word " * 3000)
    assert "warning: " in cut.stderr
