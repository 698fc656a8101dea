"""llama.cpp by the package `xllamacpp`: its own server, without a compiler, in a child process."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec

from moim.errors import MissingExtra, RunnerError
from moim.local.engines import Launch, RunnerSpec

__all__ = ["LlamaCpp", "child_environment"]

_PASSED = frozenset({
    "HOME", "LANG", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PATH", "SYSTEMROOT", "TEMP", "TMP",
    "TMPDIR", "TZ", "WINDIR",
    "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
})  # fmt: skip
_PASSED_PREFIXES = ("LC_", "GGML_", "GOMP_", "OMP_", "OPENBLAS_", "VK_")
_STAMP = re.compile(r"^[\d.]+ [A-Z] +", re.MULTILINE)
_ABORT = re.compile(r"^.*(?:GGML_ASSERT|GGML_ABORT|what\(\):).*$", re.MULTILINE)
_REASONS = (
    re.compile(r"error loading model: (?!llama_model_loader: failed to load)(.+)"),
    _ABORT,
    # Causes are logged before the failures that follow from them.
    re.compile(r"^[\d.]+ E (?:\w+ +)?\w+: (.+)$", re.MULTILINE),
    re.compile(r"^(?:MemoryError|ImportError|OSError): (.+)", re.MULTILINE),
)


class LlamaCpp:
    """The engine of GGUF models."""

    name = "llama_cpp"

    def launch(self, spec: RunnerSpec, name: str, key: str) -> Launch:
        """How to start the child.

        It runs in Python's isolated mode and without `site`: nothing of the user's start-up
        files, environment or working folder takes part.
        """
        if not sys.executable:
            raise RunnerError(
                "This Python does not know its own program (sys.executable is empty).",
                hint="Run moim in an ordinary Python interpreter.",
                retryable=False,
            )
        child = Path(__file__).with_name("llama_child.py")
        config = {
            **msgspec.structs.asdict(spec),
            "name": name,
            "key": key,
            "parent": os.getpid(),
            "packages": _packages(),
        }
        return Launch(
            argv=(sys.executable, "-I", "-S", str(child)),
            environment=child_environment(os.environ),
            config=json.dumps(config).encode() + b"\n",  # takes file names in any encoding
        )

    def reason(self, words: str) -> str:
        """The line of llama.cpp's log that tells why a model cannot be loaded."""
        for pattern in _REASONS:
            if match := pattern.search(words):
                return match[match.lastindex or 0].strip()
        return self.last_words(words)

    def last_words(self, words: str) -> str:
        """Why it aborted if it says so, else the last line of its log."""
        if match := _ABORT.search(words):
            return match[0].strip()
        return _STAMP.sub("", words).strip().rpartition("\n")[2]


def _packages() -> str:
    """The folder that `xllamacpp` is installed in; found without importing it."""
    spec = find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise MissingExtra(
            "Local models need the package xllamacpp, which is not installed.",
            hint="Run `pip install xllamacpp` (there are wheels for Linux, macOS and Windows).",
        )
    return str(Path(spec.origin).parent.parent)


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the environment the engine may see: paths, language and devices, no secrets."""
    return {
        name: value
        for name, value in environ.items()
        if name.upper() in _PASSED or name.upper().startswith(_PASSED_PREFIXES)
    }
