"""The chat of `moim run MODEL`, typed at a pseudo-terminal."""

from __future__ import annotations

import json
import stat
import sys
import threading
from pathlib import Path

import psutil
import pytest

if sys.platform == "win32":
    pytest.skip("no pseudo-terminals on Windows", allow_module_level=True)

from support_cli import MOIM, SECONDS, Answer, FakeServer, chatter, environment
from support_terminal import ALT_ENTER, CTRL_C, CTRL_D, ENTER, Terminal

from moim.testing import tiny_gguf


def chat_with(server: FakeServer, *options: str, **env: str) -> Terminal:
    terminal = Terminal([*MOIM, "run", "fake-1", "--base", server.base, *options], environment(env))
    terminal.expect(">>>")
    return terminal


def say(terminal: Terminal, text: str) -> None:
    terminal.type(text + ENTER)


def test_a_conversation_keeps_its_turns() -> None:
    with FakeServer() as server, chat_with(server, "--system", "Be kind.") as terminal:
        say(terminal, "Hello")
        terminal.expect("You said: Hello")
        terminal.expect(">>>")
        say(terminal, "안녕하세요")
        terminal.expect("You said: 안녕하세요")
        terminal.expect(">>>")
        say(terminal, "/bye")
        assert terminal.wait() == 0
        told = [(m["role"], m["content"]) for m in server.body["messages"]]
    assert told == [
        ("system", "Be kind."),
        ("user", "Hello"),
        ("assistant", "You said: Hello"),
        ("user", "안녕하세요"),
    ]
    assert "Traceback" not in terminal.seen


def test_ctrl_c_stops_the_answer_and_not_the_program() -> None:
    with FakeServer(chatter) as server, chat_with(server) as terminal:
        say(terminal, "Talk")
        terminal.expect("First.")
        terminal.expect("More.")
        terminal.type(CTRL_C)
        terminal.expect("(stopped)")
        assert server.left.wait(SECONDS), "the connection was not cut"
        terminal.expect(">>>")
        server.script = lambda answer: answer.stream("Still here")
        say(terminal, "And now?")
        terminal.expect("Still here")
        told = server.body["messages"]
        assert [m["role"] for m in told] == ["user", "assistant", "user"]
        assert told[1]["content"].startswith("First. More.")
        terminal.expect(">>>")
        terminal.type(CTRL_C)
        terminal.expect("/bye")
        terminal.expect(">>>")
        terminal.type(CTRL_D)
        assert terminal.wait() == 0
    assert "Traceback" not in terminal.seen


def test_ctrl_c_before_the_first_word_forgets_the_question() -> None:
    gone = threading.Event()

    def silent(answer: Answer) -> None:
        answer.begin()
        gone.wait(SECONDS)

    with FakeServer(silent) as server, chat_with(server) as terminal:
        say(terminal, "Anyone?")
        while not server.answers:
            terminal._read(0.05)
        terminal.type(CTRL_C)
        terminal.expect("(stopped)")
        gone.set()
        terminal.expect(">>>")
        server.script = lambda answer: answer.stream("Yes")
        say(terminal, "Hello?")
        terminal.expect("Yes")
        assert [m["content"] for m in server.body["messages"]] == ["Hello?"]


def test_an_error_does_not_end_the_chat() -> None:
    def refuse(answer: Answer) -> None:
        answer.fail(429, "Slow down.")

    with FakeServer(refuse) as server, chat_with(server) as terminal:
        say(terminal, "Hello")
        terminal.expect("error: ")
        terminal.expect(">>>")
        server.script = lambda answer: answer.stream("Better")
        say(terminal, "Again")
        terminal.expect("Better")
        assert [m["content"] for m in server.body["messages"]] == ["Again"]


def test_several_lines() -> None:
    with FakeServer() as server, chat_with(server) as terminal:
        say(terminal, '"""One')
        say(terminal, "two")
        say(terminal, 'three"""')
        terminal.expect("You said: One")
        assert server.answers[-1].prompt == "One\ntwo\nthree"
        terminal.expect(">>>")
        terminal.type("left" + ALT_ENTER + "right" + ENTER)
        terminal.expect("You said: left")
        assert server.answers[-1].prompt == "left\nright"


def test_commands() -> None:
    with FakeServer() as server, chat_with(server) as terminal:
        say(terminal, "/help")
        for command in ("/system", "/set", "/save", "/load", "/show", "/clear", "/bye"):
            terminal.expect(command)
        say(terminal, "/system Answer in rhymes.")
        terminal.expect("The system message is set.")
        say(terminal, "/set temperature 0.25")
        say(terminal, "/set max-tokens 17")
        say(terminal, "/set")
        terminal.expect("temperature 0.25")
        say(terminal, "Hello")
        terminal.expect("You said: Hello")
        body = server.body
        assert body["temperature"] == 0.25
        assert 17 in (body.get("max_tokens"), body.get("max_completion_tokens"))
        assert body["messages"][0]["content"] == "Answer in rhymes."
        say(terminal, "/show")
        terminal.expect("fake-1")
        terminal.expect("Answer in rhymes.")
        say(terminal, "/set temperature default")
        say(terminal, "/clear")
        terminal.expect("forgotten")
        say(terminal, "Once more")
        terminal.expect("You said: Once more")
        assert "temperature" not in server.body
        assert [m["role"] for m in server.body["messages"]] == ["system", "user"]
        say(terminal, "/set verbose on")
        say(terminal, "Count")
        terminal.expect("total:")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("/hlep", "Did you mean /help?"),
        ("/frobnicate", "/help lists them"),
        ("/set temprature 1", "Did you mean temperature"),
        ("/set temperature hot", "temperature"),
        ("/set temperature", "needs a value"),
        ("/set num_ctx many", "num_ctx"),
        ("/save", "needs the name of a file"),
        ("/save /no/such/folder/x.json", "cannot be written"),
        ("/load /no/such/file.json", "cannot be read"),
    ],
)
def test_wrong_commands_are_explained(typed: str, told: str) -> None:
    with FakeServer() as server, chat_with(server) as terminal:
        say(terminal, typed)
        terminal.expect("error: ")
        terminal.expect(told)
        terminal.expect(">>>")
        assert server.answers == []


def test_a_chat_is_saved_and_goes_on_later(tmp_path: Path) -> None:
    file, other = tmp_path / "대화.json", tmp_path / "diary.txt"
    other.write_text("Dear diary")
    with FakeServer() as server:
        with chat_with(server, "--system", "Be kind.") as terminal:
            say(terminal, "/set seed 5")
            say(terminal, "첫 번째")
            terminal.expect("You said: 첫 번째")
            say(terminal, f"/save {other}")
            terminal.expect("is not a saved chat")
            say(terminal, f"/save {file}")
            terminal.expect("Saved 2 messages")
        saved = json.loads(file.read_text(encoding="utf-8"))
        assert saved["messages"][0] == {"role": "user", "content": "첫 번째"}
        with chat_with(server) as terminal:
            say(terminal, f"/load {file}")
            terminal.expect("Loaded 2 messages")
            say(terminal, "두 번째")
            terminal.expect("You said: 두 번째")
        assert [m["role"] for m in server.body["messages"]] == [
            "system", "user", "assistant", "user",
        ]  # fmt: skip
        assert server.body["seed"] == 5
    assert other.read_text() == "Dear diary"


def test_history_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    with FakeServer() as server:
        with chat_with(server, **state) as terminal:
            say(terminal, "Remember me")
            terminal.expect("You said: Remember me")
            terminal.expect(">>>")
            terminal.type(CTRL_D)
            assert terminal.wait() == 0
        with chat_with(server, "--no-history", **state) as terminal:
            say(terminal, "Forget me")
            terminal.expect("You said: Forget me")
    (history,) = (path for path in tmp_path.rglob("history") if path.is_file())
    assert "Remember me" in history.read_text()
    assert "Forget me" not in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_a_home_that_cannot_be_written_costs_only_the_history(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    state = {"XDG_STATE_HOME": str(tmp_path / "file")}
    with FakeServer() as server, chat_with(server, **state) as terminal:
        assert "no history is kept" in terminal.seen
        say(terminal, "Hello")
        terminal.expect("You said: Hello")


def test_control_sequences_of_a_model_do_not_reach_the_terminal() -> None:
    def steer(answer: Answer) -> None:
        answer.stream("a\x1b]0;title\x07b\x1b[2Jc")

    with FakeServer(steer) as server, chat_with(server) as terminal:
        say(terminal, "Hello")
        terminal.expect("a\ufffd]0;title\ufffdb\ufffd[2Jc")


def test_a_local_model_chats_and_its_engine_ends_with_it(tmp_path: Path) -> None:
    file = tiny_gguf.write(tmp_path / "tiny.gguf")
    command = [*MOIM, "run", str(file), "--max-tokens", "4", "--verbose"]
    with Terminal(command, environment()) as terminal:
        terminal.expect(">>>")
        say(terminal, "Hello")
        terminal.expect("total:")
        terminal.expect(">>>")
        say(terminal, "/show")
        terminal.expect("llama")
        children = _children(terminal.process.pid)
        say(terminal, "/bye")
        assert terminal.wait() == 0
    assert children, "no engine was running"
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


def _children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]


def test_without_a_terminal_for_the_answers_there_is_no_chat(tmp_path: Path) -> None:
    shell = " ".join(f"'{word}'" for word in MOIM)
    script = f"{shell} run m --base http://127.0.0.1:9 > {tmp_path / 'out'}; echo code $?"
    with Terminal(["sh", "-c", script], environment()) as terminal:
        terminal.expect("There is no prompt")
        terminal.expect("code 2")
    assert (tmp_path / "out").stat().st_size == 0
