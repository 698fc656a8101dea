"""The program of the child process that runs llama.cpp.

It imports nothing of moim, so that it starts quickly and holds nothing of its parent. What it is
told comes as one line of JSON on standard input, because arguments and environment can be read
by others; standard input stays open as long as the parent lives.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_LEAST_VERBOSE = 1  # errors only: they are the last words that the parent reports
_PING_SECONDS = 5  # a comment in a silent stream: the parent's timeouts are checked at each
_PROMPT_CACHE_MIB = 256  # llama.cpp's own 8 GiB would be half of many machines

# llama.cpp's server opens more by default than one parent on loopback needs.
_CLOSED = {
    "api_prefix": "",
    "cors_credentials": False,
    "cors_headers": "",
    "cors_methods": "",
    "cors_origins": "",
    "cors_origins_explicit": True,
    "endpoint_metrics": False,
    "endpoint_props": False,
    "endpoint_slots": False,
    "hf_token": "",
    "hostnames": ["127.0.0.1"],
    "mcp_servers_config": "",
    "mcp_servers_json": "",
    "media_path": "",
    "models_autoload": False,
    "models_dir": "",
    "offline": True,
    "path_prompts_log_dir": "",
    "port": 0,
    "public_path": "",
    "reuse_port": False,
    "server_tools": [],
    "slot_save_path": "",
    "ui": False,
    "ui_mcp_proxy": False,
}
_KV_TYPES = {"f16": "F16", "q8_0": "Q8_0", "q4_0": "Q4_0"}
_FLASH_ATTENTION = {None: "AUTO", True: "ENABLED", False: "DISABLED"}


def main() -> None:
    """Load what standard input says, report, and serve until standard input ends."""
    report = _take_stdout()
    config = json.loads(sys.stdin.buffer.readline() or b"null")
    if config is None:
        return
    _stay_bound_to(config["parent"])
    _harden()
    watcher = threading.Thread(target=_leave_at_end_of_input, daemon=True)
    watcher.start()
    try:
        server = _load(config)
    except Exception as error:  # noqa: BLE001  whatever it is, the parent reports it
        _say(report, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    _say(report, {"address": server.listening_address})
    watcher.join()


def _take_stdout() -> int:
    """Standard output for the report alone: what the engine prints goes to the log."""
    report = os.dup(1)
    os.dup2(2, 1)
    return report


def _say(report: int, message: dict[str, Any]) -> None:
    os.write(report, json.dumps(message).encode() + b"\n")


def _stay_bound_to(parent: int) -> None:
    """On Linux the kernel ends this process with the parent's thread that started it.

    The end of standard input says the same everywhere, but during a load nobody can read it:
    the loading call holds the interpreter's lock.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(0)


def _harden() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold the conversation
    if sys.platform == "linux":
        # If memory runs out, the kernel should take this process and not the user's program.
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")


def _leave_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(0)


def _load(config: dict[str, Any]) -> Any:
    sys.path.append(config["packages"])
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    for name, value in _CLOSED.items():
        setattr(params, name, value)
    params.api_keys = [config["key"]]
    params.sse_ping_interval = _PING_SECONDS
    params.verbosity = _LEAST_VERBOSE
    _describe_model(params, config, xllamacpp)
    return xllamacpp.Server(params)


def _describe_model(params: Any, config: dict[str, Any], xllamacpp: Any) -> None:
    params.model.path = config["path"]
    params.model_alias = {config["name"]}
    params.n_parallel = config["slots"]
    params.n_ctx = config["num_ctx"] * config["slots"]  # llama.cpp divides it among them
    params.n_batch = params.n_ubatch = config["batch"]
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    kv_type = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{_KV_TYPES[config['kv_type']]}")
    params.cache_type_k = params.cache_type_v = kv_type
    params.flash_attn_type = getattr(
        xllamacpp.llama_flash_attn_type,
        f"LLAMA_FLASH_ATTN_TYPE_{_FLASH_ATTENTION[config['flash_attention']]}",
    )
    if config["gpu_layers"] is not None:
        params.n_gpu_layers = config["gpu_layers"]
    if config["threads"] is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]


if __name__ == "__main__":
    main()
