"""Runs the real engine on a model file in a process of its own, for the tests of the reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

# The child's program. It ends with os._exit: a server thread must not keep a test waiting.
_PROGRAM = """
import json, os, sys, urllib.request
import xllamacpp as x

wanted = json.load(sys.stdin)
params = x.CommonParams()
params.n_parallel = wanted["slots"]
params.n_ctx = wanted["num_ctx"] * wanted["slots"]
params.n_batch = params.n_ubatch = wanted["ubatch"]
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.verbosity = 5
params.ui = False
params.endpoint_slots = False
kinds = x.llama_flash_attn_type
params.flash_attn_type = (
    kinds.LLAMA_FLASH_ATTN_TYPE_AUTO if wanted["flash_attention"]
    else kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
)
params.cache_type_k = params.cache_type_v = x.ggml_type["GGML_TYPE_" + wanted["kv_type"].upper()]

def memory():
    lines = (line.split() for line in open("/proc/self/status"))
    return next(int(line[1]) * 1024 for line in lines if line[0] == "VmRSS:")

answers = []
servers = []  # kept: the engine can hang when a server goes away just after its start
for path in wanted["paths"]:
    print(f"== {path}", file=sys.stderr, flush=True)
    params.model.path = path
    try:
        servers.append(x.Server(params))
    except RuntimeError as error:
        answers.append({"error": str(error)})
        continue
    replies = [servers[-1].handle_chat_completions(body) for body in wanted["requests"]]
    rss = memory() if os.path.exists("/proc/self/status") else 0
    with urllib.request.urlopen(servers[-1].listening_address + "/props", timeout=20) as reply:
        caps = json.load(reply)["chat_template_caps"]
    answers.append({"rss": rss, "replies": replies, "caps": caps})
print(json.dumps(answers), flush=True)
os._exit(0)
"""


class Run(NamedTuple):
    """What the engine answered for one file: the replies, its log and its process's memory.

    `template` says what the engine found that the chat template can do.
    """

    replies: list[Any]
    log: str
    rss: int
    template: dict[str, bool]


def run_engine(
    *paths: Path,
    requests: list[dict[str, Any]] | None = None,
    num_ctx: int = 512,
    slots: int = 1,
    ubatch: int = 512,
    kv_type: str = "f16",
    flash_attention: bool = True,
) -> list[Run]:
    """Loads each file in turn, in one child, and sends it every request."""
    wanted = {
        "paths": [str(path) for path in paths],
        "requests": requests or [],
        "num_ctx": num_ctx,
        "slots": slots,
        "ubatch": ubatch,
        "kv_type": kv_type,
        "flash_attention": flash_attention,
    }
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        input=json.dumps(wanted),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(done.stdout.splitlines()[-1])
    logs = done.stderr.split("== /")[1:]
    return [
        Run(answer.get("replies", []), log, answer.get("rss", 0), answer.get("caps", {}))
        for answer, log in zip(answers, logs, strict=True)
    ]
