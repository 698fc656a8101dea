"""Every error ends with the documented exit code, a message, and never a traceback or a secret."""

from __future__ import annotations

import socket
from pathlib import Path

import click
import pytest
from support_cli import Answer, FakeServer, ask, run_moim

from moim import errors
from moim.cli import exits, program
from moim.errors import MoimError
from moim.testing import tiny_gguf

CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_class_has_a_documented_code(kind: type[MoimError]) -> None:
    code = exits.exit_code(kind("What happened."))
    assert code in exits.MEANINGS
    assert code not in (exits.OK, exits.BUG, exits.LEFT)


def test_no_row_of_the_table_is_hidden_by_one_above_it() -> None:
    rows = [kind for kind, _ in exits._CODES]
    for n, kind in enumerate(rows):
        assert not any(issubclass(kind, above) for above in rows[:n]), kind
    assert rows[-1] is MoimError


def test_an_error_is_shown_with_its_hint() -> None:
    assert exits.describe(MoimError("It broke.", hint="Mend it.")) == "error: It broke.\n  Mend it."
    assert exits.describe(MoimError("It broke.")) == "error: It broke."


REFUSALS = {
    400: exits.FAILED,
    401: exits.FAILED,
    403: exits.FAILED,
    404: exits.FAILED,
    429: exits.AGAIN,
    500: exits.AGAIN,
    503: exits.AGAIN,
}


@pytest.mark.parametrize(("status", "code"), REFUSALS.items())
def test_a_refusal_of_the_server(status: int, code: int) -> None:
    with FakeServer(lambda answer: answer.fail(status, "Not today.")) as server:
        done = ask(server, "Hi", expect=code)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "Not today." in done.stderr


def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        done = run_moim("run", "m", "Hi", "--base", base, expect=exits.AGAIN)
    assert done.stderr.startswith("error: ")


def nonsense(answer: Answer) -> None:
    answer.begin()
    answer.raw(b"data: {broken\n\n")


def test_a_server_that_speaks_another_language() -> None:
    with FakeServer(nonsense) as server:
        ask(server, "Hi", expect=exits.FAILED)


USAGE = [
    ["no-such-command"],
    ["run", "--no-such-option"],
    ["run", "m", "Hi", "--temperature", "hot"],
    ["run", "m", "Hi", "-o", "no_such_option=1"],
    ["run", "m", "Hi", "-o", "temperature"],
    ["run", "m", "Hi", "-o", "temperature=warm"],
    ["run", "m", "Hi", "--keep-alive", "soon"],
    ["run", "m", "Hi", "--format", "xml"],
    ["run", "m", "Hi", "--format", "json", "--json-schema", "x.json"],
    ["run", "m", "--json"],
    ["pull"],
    ["rm"],
    ["stop"],
    ["stop", "m", "--all"],
]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_wrong_use(arguments: list[str]) -> None:
    done = run_moim(*arguments, expect=exits.USAGE)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")


CONFIGURATION: list[tuple[list[str], dict[str, str]]] = [
    (["run", "openai/gpt-5-mini", "Hi"], {}),
    (["run", "smolm2", "Hi"], {}),
    (["run", "nobody/anything", "Hi"], {}),
    (["run", "smollm2", "Hi"], {"MOIM_OFFLINE": "1"}),
    (["run", "openai/gpt-5-mini", "Hi"], {"MOIM_OFFLINE": "1", "OPENAI_API_KEY": "sk-0"}),
    (["run", "m", "Hi", "--base", "nowhere"], {}),
    (["run", "m", "Hi", "--base", "http://127.0.0.1:9", "--key-env", "NO_SUCH"], {}),
    (["run", "m", "Hi", "--json-schema", "no-such-file.json"], {}),
    (["run", "m", "Hi"], {"MOIM_NUM_CTX": "many"}),
    (["pull", "openai/gpt-5-mini"], {}),
    (["pull", "smollm2"], {"MOIM_OFFLINE": "1"}),
    (["pull", "pypi:"], {}),
    (["show", "smollm2"], {}),
    (["show", "no-such-model"], {}),
    (["rm", "no-such-model"], {}),
    (["stop", "no-such-model"], {}),
]


@pytest.mark.parametrize(("arguments", "env"), CONFIGURATION, ids=lambda value: str(value))
def test_wrong_configuration(arguments: list[str], env: dict[str, str]) -> None:
    done = run_moim(*arguments, env=env, expect=exits.CONFIG)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert "sk-0" not in done.stderr


def test_an_unknown_model_names_the_nearest() -> None:
    assert "smollm2" in run_moim("run", "smolm2", "Hi", expect=exits.CONFIG).stderr
    assert "openai" in run_moim("run", "opnai/gpt-5", "Hi", expect=exits.CONFIG).stderr


@pytest.fixture
def bad_files(tmp_path: Path) -> dict[str, Path]:
    whole = tiny_gguf.write(tmp_path / "whole.gguf").read_bytes()
    files = {
        "text": b"This is not a model.\n",
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "hostile": whole[:8] + b"\xff" * 16 + whole[24:],
    }
    for name, data in files.items():
        (tmp_path / f"{name}.gguf").write_bytes(data)
    return {name: tmp_path / f"{name}.gguf" for name in [*files, "missing"]}


def test_files_that_are_no_models(bad_files: dict[str, Path]) -> None:
    for file in bad_files.values():
        for command in (["run", str(file), "Hi"], ["show", str(file)]):
            done = run_moim(*command, expect=exits.LOCAL)
            assert done.stderr.startswith("error: ")
            assert file.name in done.stderr


def test_a_store_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "store"
    file.write_text("not a folder")
    done = run_moim("rm", "smollm2", env={"MOIM_MODELS": str(file)}, expect=None)
    assert done.returncode in (exits.CONFIG, exits.LOCAL)
    assert file.read_text() == "not a folder"


@pytest.fixture
def broken_command(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def broken() -> None:
        raise ValueError("header Bearer sk-very-secret at https://me:word@host/")

    monkeypatch.setattr(program._Commands, "get_command", lambda self, ctx, name: broken)


@pytest.mark.usefixtures("broken_command")
def test_a_bug_says_so_and_keeps_its_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    assert program.run_program(["run"]) == exits.BUG
    quiet = capsys.readouterr().err
    assert "bug" in quiet
    assert "ValueError" in quiet
    assert "sk-very-secret" not in quiet
    assert "Traceback" not in quiet
    assert len(quiet.splitlines()) == 2


@pytest.mark.usefixtures("broken_command")
def test_debugging_shows_where_a_bug_is_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setenv("MOIM_LOG", "debug")
    assert program.run_program(["run"]) == exits.BUG
    shown = capsys.readouterr().err
    assert "test_cli_exits.py" in shown
    assert "header Bearer *** at https://***@host/" in shown
    assert "sk-very-secret" not in shown
    assert "word@" not in shown
