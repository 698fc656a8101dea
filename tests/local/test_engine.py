"""The engine's program, what it is told and what it keeps closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import urllib3
from support_engine import ask, chat, error_of, local, pool_in, text_of, tiny, until

from moim.config import Settings
from moim.errors import ConfigError, MissingExtra, ModelFileError, RequestError, RunnerError
from moim.local import engines, gguf
from moim.local.cores import usable_cores
from moim.local.engines import LoadOptions, RunnerSpec, llama_child, llama_cpp, spec_for
from moim.local.engines.llama_cpp import LlamaCpp, child_environment
from moim.local.process import Child, how_it_ended
from moim.local.runner import Pool
from moim.runtime import BLOCKING, step
from moim.testing import tiny_gguf


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with pool_in(tmp_path_factory.mktemp("pool")) as pool:
        yield pool


def facts(folder: Path, **options: Any) -> gguf.ModelFacts:
    return gguf.inspect(tiny_gguf.write(folder / "facts.gguf", **options))


def test_the_context_is_what_is_asked_for_exactly(tmp_path: Path, pool: Pool) -> None:
    tiny_gguf.write(tmp_path / "tiny.gguf", embedding_length=128)  # q8_0 wants heads of 32
    spec = tiny(tmp_path, 2048, num_ctx=512, slots=3, threads=1, batch=64, kv_type="q8_0")
    properties = step(local(pool, spec).ask(BLOCKING, "/props"))
    assert properties["default_generation_settings"]["n_ctx"] == spec.num_ctx == 512
    assert properties["total_slots"] == 3
    assert text_of(ask(local(pool, spec), chat()))


@pytest.mark.parametrize(
    ("asked", "setting", "trained", "num_ctx"),
    [
        (None, None, 2048, 2048),
        (None, None, 100_000, 4096),
        (None, 8192, 100_000, 8192),
        (None, 8192, 2048, 2048),
        (512, 8192, 2048, 512),
        (2048, None, 2048, 2048),
        (300, None, 2048, 512),
        (1, None, 2048, 256),
        (1000, None, 1000, 768),
        (100, None, 100, 256),
    ],
)
def test_the_context_comes_from_the_call_then_the_settings_then_the_model(
    tmp_path: Path, asked: int | None, setting: int | None, trained: int, num_ctx: int
) -> None:
    known = facts(tmp_path, context_length=trained)
    spec = spec_for(known, LoadOptions(num_ctx=asked), Settings(num_ctx=setting))
    assert (spec.num_ctx, spec.trained) == (num_ctx, trained)


@pytest.mark.parametrize("num_ctx", [0, -1, 2049, 200_000])
def test_a_context_that_the_model_was_not_trained_for_is_refused(
    tmp_path: Path, num_ctx: int
) -> None:
    error = error_of(lambda: spec_for(facts(tmp_path), LoadOptions(num_ctx=num_ctx)))
    assert isinstance(error, RequestError)
    assert str(num_ctx) in error.message
    assert "facts.gguf was trained" in error.message
    assert "1 to 2048" in error.hint
    called = error_of(lambda: spec_for(facts(tmp_path), LoadOptions(num_ctx=num_ctx), name="m:1b"))
    assert "but m:1b was trained" in called.message  # in a store the file's name is a hash


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": 0},
        {"slots": 65},
        {"batch": 31},
        {"batch": 5000},
        {"threads": 0},
        {"keep_alive": float("nan")},
        {"keep_alive": float("inf")},
        {"kv_type": "q2_k"},
        {"kv_type": "q8_0", "flash_attention": False},
    ],
)
def test_load_options_have_ranges(tmp_path: Path, wrong: dict[str, Any]) -> None:
    error = error_of(lambda: spec_for(facts(tmp_path), LoadOptions(**wrong)))
    assert isinstance(error, RequestError)
    assert next(iter(wrong)) in error.message
    assert error.hint


def test_an_adapter_is_no_model(tmp_path: Path) -> None:
    kind = {"general.type": (gguf.ValueType.STRING, "adapter")}
    path = tiny_gguf.write(tmp_path / "adapter.gguf", metadata=kind)
    assert isinstance(error_of(lambda: spec_for(gguf.inspect(path))), ModelFileError)


def test_there_are_never_more_threads_than_cores(tmp_path: Path) -> None:
    cores = usable_cores()
    for threads in (None, 1, 1000):
        found = spec_for(facts(tmp_path), LoadOptions(threads=threads)).threads
        assert found == (1 if threads == 1 else cores or threads)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


FOUR_CORES = {
    f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n // 2 * 2}-{n // 2 * 2 + 1}"
    for n in range(8)
}
QUOTAS: list[tuple[dict[str, str], int]] = [
    ({}, 4),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, 4),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, 4),
    ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000"}, 3),
    (
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        1,
    ),
    (
        {
            "proc/self/cgroup": "4:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        4,
    ),
]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux")
@pytest.mark.parametrize(("files", "cores"), QUOTAS)
def test_hyperthreads_and_quotas_are_no_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    assert usable_cores(machine(tmp_path, FOUR_CORES | files)) == cores


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux")
def test_cores_outside_the_affinity_mask_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 4})
    assert usable_cores(machine(tmp_path, FOUR_CORES)) == 2
    assert usable_cores(tmp_path / "nothing") == 3


def test_what_is_not_needed_is_closed(tmp_path: Path, pool: Pool) -> None:
    transport = local(pool, tiny(tmp_path))
    ask(transport, chat())
    (entry,) = [r for r in pool._runners.values() if r.spec == transport.spec]
    endpoint = entry.endpoint
    key = {"authorization": endpoint.headers["authorization"]}
    with urllib3.PoolManager() as http:

        def status(method: str, path: str, **headers: str) -> int:
            return http.request(method, endpoint.base + path, headers=key | headers).status

        assert status("GET", "/slots") == status("GET", "/metrics") == 501
        assert status("POST", "/props") != 200
        assert status("GET", "/index.html") == 404
        foreign = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
        allowed = http.request(
            "OPTIONS", f"{endpoint.base}/chat/completions", headers=key | foreign
        )
        assert "evil.example" not in str(allowed.headers)
        assert allowed.headers.get("Access-Control-Allow-Origin", "") == ""
        assert allowed.headers.get("Access-Control-Allow-Headers", "") == ""
    properties = step(transport.ask(BLOCKING, "/props"))
    assert not any(properties[name] for name in ("endpoint_slots", "endpoint_props", "ui"))


def test_a_setting_that_the_engine_no_longer_has_is_not_passed_over() -> None:
    """`_CLOSED` is set attribute by attribute, so a renamed one must not vanish silently."""
    code = "import xllamacpp; xllamacpp.CommonParams().no_such_setting = 1"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "no_such_setting" in done.stderr
    assert "hostnames" in llama_child._CLOSED


def test_the_key_is_told_on_standard_input_alone(tmp_path: Path) -> None:
    launch = LlamaCpp().launch(tiny(tmp_path), "tiny", "the-key")
    assert b"the-key" in launch.config
    assert "the-key" not in repr(launch)
    assert "the-key" not in " ".join(launch.argv)
    assert "the-key" not in str(launch.environment)
    assert "moim" not in [module.split(".")[0] for module in imports_of(launch.argv[-1])]


def imports_of(file: str) -> list[str]:
    code = "import ast, sys; print([n.module if isinstance(n, ast.ImportFrom) else a.name"
    code += " for n in ast.walk(ast.parse(open(sys.argv[1]).read()))"
    code += " if isinstance(n, (ast.Import, ast.ImportFrom)) for a in n.names])"
    shown = subprocess.run([sys.executable, "-c", code, file], capture_output=True, timeout=60)
    found: list[str] = json.loads(shown.stdout.replace(b"'", b'"'))
    return found


def test_only_harmless_variables_are_passed_on() -> None:
    passed = {"PATH": "/bin", "LC_ALL": "C", "CUDA_VISIBLE_DEVICES": "0"}
    secrets = {"OPENAI_API_KEY": "s", "HTTPS_PROXY": "http://u:p@h", "PYTHONPATH": "/x", "X": "y"}
    assert child_environment(passed | secrets) == passed


def test_a_missing_engine_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_cpp, "find_spec", lambda _name: None)
    error = error_of(lambda: LlamaCpp().launch(tiny(tmp_path), "tiny", "k"))
    assert isinstance(error, MissingExtra)
    assert "pip install" in error.hint


def test_a_python_that_does_not_know_itself_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "")
    error = error_of(lambda: LlamaCpp().launch(tiny(tmp_path), "tiny", "k"))
    assert isinstance(error, RunnerError)


def test_a_program_that_cannot_be_started_is_an_error(
    tmp_path: Path, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))
    error = error_of(lambda: ask(local(pool, tiny(tmp_path)), chat()))
    assert isinstance(error, RunnerError)
    assert "cannot be started" in error.message


def test_an_unknown_engine_is_an_error(tmp_path: Path, pool: Pool) -> None:
    spec = msgspec.structs.replace(tiny(tmp_path), engine="abacus")
    error = error_of(lambda: ask(local(pool, spec), chat()))
    assert isinstance(error, ConfigError)
    assert "llama_cpp" in error.hint


LOGS = [
    (
        """0.00.024.284 E llama_model_load: error loading model: tensor 'a' is not within the file
0.00.024.326 E llama_model_load_from_file_impl: failed to load model
""",
        "tensor 'a' is not within the file",
    ),
    (
        """0.00.003.449 E gguf_init_from_reader: this GGUF file is version 9
0.00.003.6 E llama_model_load: error loading model: llama_model_loader: failed to load model from x
""",
        "this GGUF file is version 9",
    ),
    ("Traceback …\nImportError: libfoo.so: cannot open\n", "libfoo.so: cannot open"),
    ("/x/a.c:1: GGML_ASSERT(a == b) failed\nmore\n", "/x/a.c:1: GGML_ASSERT(a == b) failed"),
    ("0.00.003.449 I some: one\n0.00.003.449 E two: why\n0.00.003.449 E three\n", "why"),
    ("", ""),
]


@pytest.mark.parametrize(("log", "reason"), LOGS)
def test_the_telling_line_of_a_log_is_found(log: str, reason: str) -> None:
    assert LlamaCpp().reason(log) == reason


def test_the_last_words_are_the_last_line_unless_it_was_an_abort() -> None:
    assert LlamaCpp().last_words("0.1 E srv  send: a\n0.2 E srv  send: b\n") == "srv  send: b"
    assert LlamaCpp().last_words("x.c:1: GGML_ASSERT(a) failed\nb\n") == (
        "x.c:1: GGML_ASSERT(a) failed"
    )
    assert LlamaCpp().last_words("") == ""


def run_child(code: str, config: bytes = b"{}\n") -> Child:
    return Child(engines.Launch(argv=(sys.executable, "-c", code), environment={}, config=config))


def test_a_log_of_any_length_neither_blocks_the_child_nor_fills_memory() -> None:
    child = run_child("import sys; sys.stderr.write('x' * 3_000_000 + 'the end'); print('done')")
    assert child.report() == b"done\n"
    assert child.wait() == 0
    assert child.words().endswith("the end")
    assert len(child.words()) <= 4096
    child.close()


def test_a_child_that_dies_at_once_is_found_out() -> None:
    child = run_child("raise SystemExit(3)", config=b"x" * 1_000_000)
    assert child.report() == b""
    code = child.wait()
    assert how_it_ended(code) == "exit code 3"
    child.kill()
    child.close()


def test_how_processes_end_in_words() -> None:
    assert how_it_ended(-11) == "signal 11, SIGSEGV"
    assert how_it_ended(-250) == "signal 250"
    assert how_it_ended(None) == "still running"


def test_a_child_that_was_told_nothing_ends(tmp_path: Path) -> None:
    launch = LlamaCpp().launch(tiny(tmp_path), "tiny", "k")
    done = subprocess.run(launch.argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"")


def test_a_child_of_another_parent_ends(tmp_path: Path) -> None:
    """Its parent died between starting it and its binding itself to the parent."""
    launch = LlamaCpp().launch(tiny(tmp_path), "tiny", "k")
    config = json.dumps({**json.loads(launch.config), "parent": 1}).encode() + b"\n"
    child = Child(msgspec.structs.replace(launch, config=config))
    try:
        until(lambda: child._popen.poll() is not None)
        assert child.report() == b""
    finally:
        child.kill()
        child.wait()
        child.close()


def test_specs_are_keys(tmp_path: Path) -> None:
    one, other = tiny(tmp_path), tiny(tmp_path)
    assert {one: 1}[other] == 1
    assert isinstance(one, RunnerSpec)
    assert tiny(tmp_path, slots=2) != one
