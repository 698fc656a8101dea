"""`list`, `show`, `rm`, `ps`, `stop` and `doctor` on stores that hold a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support_cli import SECONDS, FakeServer, environment, run_moim
from support_store import add_tiny

from moim.local.names import ModelName
from moim.testing import tiny_gguf

TINY = ModelName(model="tiny", tag="1b")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """moim's store with one model."""
    root = tmp_path / "own"
    add_tiny(root, TINY)
    monkeypatch.setenv("MOIM_MODELS", str(root))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return root


@pytest.fixture
def ollamas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another program's store with one model."""
    root = tmp_path / "ollama"
    add_tiny(root, ModelName(model="other"), seed=1)
    monkeypatch.setenv("OLLAMA_MODELS", str(root))
    return root


def test_nothing_to_list_says_what_to_do() -> None:
    done = run_moim("list")
    assert done.stdout == ""
    assert "moim pull smollm2" in done.stderr
    assert json.loads(run_moim("list", "--json").stdout) == {"models": []}


def test_list_shows_both_stores(own: Path, ollamas: Path) -> None:
    shown = run_moim("list").stdout.splitlines()
    assert shown[0].split() == ["NAME", "ID", "SIZE", "MODIFIED", "STORE"]
    assert {line.split()[0] for line in shown[1:]} == {"tiny:1b", "other:latest"}
    models = {
        each["name"]: each for each in json.loads(run_moim("list", "--json").stdout)["models"]
    }
    assert models["tiny:1b"]["writable"] is True
    assert models["other:latest"]["writable"] is False
    assert models["other:latest"]["store"] == str(ollamas)
    assert Path(models["tiny:1b"]["path"]).is_relative_to(own)


def test_a_damaged_manifest_is_a_warning(own: Path, ollamas: Path) -> None:
    (manifest,) = (path for path in (own / "manifests").rglob("1b") if path.is_file())
    manifest.write_text("{torn")
    done = run_moim("list")
    assert "other:latest" in done.stdout
    assert "warning: " in done.stderr
    assert ollamas.exists()


def test_show_tells_facts_memory_and_fit(own: Path) -> None:
    done = run_moim("show", "tiny:1b", "--num-ctx", "512")
    for part in ("llama", "512 tokens", "fits here", "yes", str(own)):
        assert part in done.stdout
    found = json.loads(run_moim("show", "tiny:1b", "--json").stdout)
    assert found["fits"] is True
    assert found["architecture"] == "llama"
    assert found["memory"]["total"] == sum(
        found["memory"][part] for part in ("weights", "kv_cache", "buffers")
    )
    assert found["context_length"] == 2048


def test_show_prints_one_part_alone(own: Path) -> None:
    path = run_moim("show", "tiny:1b", "--path").stdout.strip()
    assert Path(path).read_bytes()[:4] == b"GGUF"
    assert run_moim("show", path, "--template").stdout.rstrip(
        "\n"
    ) == tiny_gguf.CHAT_TEMPLATE.rstrip("\n")
    assert run_moim("show", path, "--license").stdout == "mit\n"


def test_show_refuses_a_context_beyond_the_trained_one(own: Path) -> None:
    assert "2048" in run_moim("show", "tiny:1b", "--num-ctx", "100000", expect=2).stderr


def test_rm_removes_what_is_moims_own(own: Path, ollamas: Path) -> None:
    assert run_moim("rm", "tiny:1b").stdout.startswith("Removed tiny:1b (")
    assert "tiny" not in run_moim("list").stdout
    assert not [path for path in (own / "blobs").iterdir() if path.name.startswith("sha256-")]
    refused = run_moim("rm", "other", expect=4)
    assert str(ollamas) in refused.stderr
    assert "other:latest" in run_moim("list").stdout


def test_rm_leaves_files_alone(tmp_path: Path) -> None:
    file = tiny_gguf.write(tmp_path / "mine.gguf")
    run_moim("rm", str(file), expect=4)
    assert file.exists()


def test_a_stored_model_answers(own: Path) -> None:
    found = json.loads(run_moim("run", "tiny:1b", "Hi", "--max-tokens", "3", "--json").stdout)
    assert found["model"] == "local/tiny:1b"


@pytest.fixture
def loaded(own: Path) -> Iterator[dict[str, Any]]:
    """The model, loaded by another process; what `moim ps` says of it."""
    program = (
        "import moim, sys; m = moim.model('tiny:1b'); m.invoke('Hi', max_tokens=2);"
        "print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (model,) = _wait_for_models(1)
        yield model
        process.communicate(timeout=SECONDS)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, even if its parent has not noticed yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_ps_and_stop_see_the_runner_of_another_process(loaded: dict[str, Any]) -> None:
    assert loaded["name"] == "tiny:1b"
    assert loaded["context"] == 2048
    shown = run_moim("ps").stdout.splitlines()
    assert shown[0].split() == ["NAME", "PID", "MEMORY", "CONTEXT", "LOADED", "UNTIL"]
    assert str(loaded["pid"]) in shown[1]
    done = run_moim("stop", "tiny:1b")
    assert done.stdout == f"Stopped tiny:1b (process {loaded['pid']}).\n"
    assert is_gone(loaded["pid"])
    assert run_moim("stop", "--all").stderr == "No model is loaded.\n"
    assert run_moim("ps").stderr == "No model is loaded.\n"


def test_stop_all_names_what_it_stopped(loaded: dict[str, Any]) -> None:
    stopped = json.loads(run_moim("stop", "--all", "--json").stdout)["stopped"]
    assert [model["pid"] for model in stopped] == [loaded["pid"]]
    assert is_gone(loaded["pid"])


def test_rm_stops_the_runner_first(loaded: dict[str, Any]) -> None:
    run_moim("rm", "tiny:1b")
    assert is_gone(loaded["pid"])
    assert not Path(loaded["path"]).exists()


def _wait_for_models(count: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        models: list[dict[str, Any]] = json.loads(run_moim("ps", "--json").stdout)["models"]
        if len(models) == count:
            return models
    raise AssertionError(f"{count} models were never loaded")


def findings(*, expect: int = 0, **env: str) -> dict[str, list[dict[str, object]]]:
    found = json.loads(run_moim("doctor", "--json", env=env, expect=expect).stdout)
    assert found["ok"] is (expect == 0)
    topics: dict[str, list[dict[str, object]]] = {}
    for finding in found["findings"]:
        topics.setdefault(finding["topic"], []).append(finding)
    return topics


def test_doctor_finds_what_is_there(own: Path, ollamas: Path) -> None:
    topics = findings()
    assert [store["facts"]["path"] for store in topics["store"]] == [str(own), str(ollamas)]  # type: ignore[index]
    assert topics["engine"][0].get("state", "ok") == "ok"
    assert topics["default"][0]["state"] == "note"
    assert topics["key"][0]["state"] == "note"
    shown = run_moim("doctor").stdout
    assert "OPENAI_API_KEY is not set" in shown
    assert str(own) in shown


def test_doctor_shows_names_and_hosts_but_no_secret() -> None:
    secrets = {
        "OPENAI_API_KEY": "sk-very-secret-1",
        "HTTPS_PROXY": "http://anna:secret-2@proxy.example:3128",
    }
    for arguments in (["doctor"], ["doctor", "--json"]):
        done = run_moim(*arguments, env=secrets)
        shown = done.stdout + done.stderr
        assert "OPENAI_API_KEY is set" in shown
        assert "proxy.example:3128" in shown
        for part in ("secret", "anna"):
            assert part not in shown


def test_doctor_names_what_is_broken(tmp_path: Path) -> None:
    config = tmp_path / "bad.toml"
    config.write_text("num_ctx = 'many'\n")
    broken = findings(expect=1, MOIM_CONFIG=str(config))
    assert broken["config"][0]["state"] == "problem"
    assert broken["engine"], "the other checks are made all the same"
    file = tmp_path / "file"
    file.write_text("")
    blocked = findings(expect=1, MOIM_MODELS=str(file))
    assert "problem" in {finding.get("state") for finding in blocked["store"]}


def test_doctor_offline_contacts_nobody() -> None:
    assert findings(MOIM_OFFLINE="1")["network"][0]["facts"] == {"offline": True}


def test_a_provider_of_the_users_own_is_asked(tmp_path: Path) -> None:
    with FakeServer() as server:
        config = tmp_path / "config.toml"
        config.write_text(f'[providers.mine]\nbase = "{server.base}"\nkey_env = "MINE"\n')
        env = {"MOIM_CONFIG": str(config), "MINE": "sk-mine"}
        assert run_moim("run", "mine/m-1", "Hi", env=env).stdout == "You said: Hi\n"
        assert server.body["model"] == "m-1"
        assert server.answers[-1].headers["authorization"] == "Bearer sk-mine"
        assert findings(**env)["key"][-1]["facts"] == {
            "provider": "mine", "variables": ["MINE"], "set": ["MINE"],
        }  # fmt: skip
