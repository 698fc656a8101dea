"""GGUF model files: read without trust, say what they are, estimate the memory they take.

    facts = inspect("model.gguf")
    need = estimate(facts, num_ctx=4096)
    check_fits(facts, need)

Only metadata is read, never weights, and a file may be cut short, replaced or hostile: whatever
is wrong with it is one `ModelFileError` that names the file and the fault.
"""

from __future__ import annotations

from moim.local.gguf.cursor import Array, Value
from moim.local.gguf.facts import ModelFacts, Shape, inspect
from moim.local.gguf.machine import free_memory
from moim.local.gguf.memory import MemoryEstimate, check_fits, estimate, largest_context
from moim.local.gguf.reader import GGUF, TensorInfo, read
from moim.local.gguf.tables import TENSOR_TYPES, TensorType, ValueType

__all__ = [
    "GGUF",
    "TENSOR_TYPES",
    "Array",
    "MemoryEstimate",
    "ModelFacts",
    "Shape",
    "TensorInfo",
    "TensorType",
    "Value",
    "ValueType",
    "check_fits",
    "estimate",
    "free_memory",
    "inspect",
    "largest_context",
    "read",
]
