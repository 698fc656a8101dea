"""The memory estimate: close to what the engine takes, never far below, and it decides fairly."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_gguf import run_engine

from moim.errors import ConfigError, ModelTooLarge
from moim.local.gguf import (
    MemoryEstimate,
    ModelFacts,
    Shape,
    check_fits,
    estimate,
    free_memory,
    inspect,
    largest_context,
)
from moim.local.gguf import machine as machine_module
from moim.testing.tiny_gguf import write

MIB = 1 << 20


def facts(**changes: object) -> ModelFacts:
    """A dense 1B-parameter model of sixteen blocks; `shape` fields and others can be changed."""
    shape = {
        "key_length": 64,
        "value_length": 64,
        "kv_heads": (8,) * 16,
        "feed_forward_length": 8192,
        "vocabulary": 128_000,
    }
    shape |= {key: changes.pop(key) for key in list(changes) if key in Shape.__struct_fields__}
    fields = {
        "path": Path("/models/one.gguf"),
        "size": 800_000_000,
        "weights": 800_000_000,
        "kind": "model",
        "architecture": "llama",
        "name": "One",
        "parameters": 1_235_814_432,
        "size_label": "1.2B",
        "quantization": "Q4_K_M",
        "context_length": 131_072,
        "embedding_length": 2048,
        "block_count": 16,
        "head_count": 32,
        "head_count_kv": 8,
        "sliding_window": None,
        "expert_count": 0,
        "chat_template": None,
        "capabilities": ("completion",),
        "license": None,
        "languages": (),
        "shape": Shape(**shape),  # type: ignore[arg-type]
    }
    return ModelFacts(**(fields | changes))  # type: ignore[arg-type]


SETTINGS: list[dict[str, int | str | bool]] = [
    {"num_ctx": 2048},
    {"num_ctx": 300, "slots": 3, "ubatch": 64},
    {"num_ctx": 2048, "kv_type": "q8_0"},
    {"num_ctx": 2048, "flash_attention": False, "slots": 2},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the child's memory in /proc")
def test_the_estimate_is_what_the_engine_takes(
    settings: dict[str, int | str | bool], tmp_path: Path
) -> None:
    path = write(tmp_path / "m.gguf", embedding_length=256, feed_forward_length=512, block_count=4)
    known = inspect(path)
    need = estimate(known, **settings)  # type: ignore[arg-type]
    body = {"messages": [{"role": "user", "content": "word " * 40}], "max_tokens": 8}
    (run,) = run_engine(path, requests=[body], **settings)  # type: ignore[arg-type]

    def said(pattern: str) -> float:
        return sum(float(size) for size in re.findall(pattern, run.log)[-1:])

    cache = said(r"KV buffer size += +(\S+) MiB") * MIB
    compute = said(r"compute buffer size += +(\S+) MiB") * MIB
    fixed = estimate(known, num_ctx=1, ubatch=1).buffers
    assert abs(cache - need.kv_cache) <= 0.01 * MIB
    assert compute <= need.buffers - fixed + MIB <= 1.7 * compute + 3 * MIB
    assert 0.8 * run.rss <= need.total <= 1.6 * run.rss


# The engine's compute buffer for SmolLM2-135M, in MiB, as its log gives it (xllamacpp 2026.10).
MEASURED = [
    ({"num_ctx": 4096}, 18.64),
    ({"num_ctx": 8192}, 22.64),
    ({"num_ctx": 512, "ubatch": 128}, 3.79),
    ({"num_ctx": 4096, "ubatch": 2048}, 74.57),
]


def smollm2_compute(**settings: int | bool) -> float:
    known = facts(
        embedding_length=576,
        block_count=30,
        head_count=9,
        head_count_kv=3,
        kv_heads=(3,) * 30,
        feed_forward_length=1536,
        vocabulary=49_152,
    )
    fixed = estimate(known, num_ctx=1, ubatch=1).buffers
    return (estimate(known, **settings).buffers - fixed) / MIB  # type: ignore[arg-type]


@pytest.mark.parametrize(("settings", "measured"), MEASURED)
def test_the_buffers_of_a_known_model(settings: dict[str, int], measured: float) -> None:
    assert abs(smollm2_compute(**settings) - measured) < 0.1 + measured / 100


def test_the_buffers_of_a_known_model_without_flash_attention() -> None:
    """The log has 87.51 MiB; copies of the scores, at most 36 MiB, are not in that figure."""
    assert 87.51 < smollm2_compute(num_ctx=4096, flash_attention=False) < 87.51 + 36 + 8


def test_the_cache_by_hand() -> None:
    # 16 blocks, 8 heads, 64 + 64 numbers for each of 4,096 tokens, two bytes each
    assert estimate(facts(), num_ctx=4096).kv_cache == 16 * 8 * 128 * 4096 * 2
    assert (
        estimate(facts(), num_ctx=4096, kv_type="q8_0").kv_cache == 16 * 8 * 128 * 4096 * 34 // 32
    )
    assert estimate(facts(), num_ctx=4096, slots=3).kv_cache == 3 * 16 * 8 * 128 * 4096 * 2
    assert estimate(facts(), num_ctx=4000).kv_cache == 16 * 8 * 128 * 4096 * 2
    uneven = facts(kv_heads=(0, 8) * 8)
    assert estimate(uneven, num_ctx=4096).kv_cache == 8 * 8 * 128 * 4096 * 2
    # Sliding blocks keep the window and one batch: 512 + 512 of the 4,096.
    sliding = facts(sliding=(True, False) * 8, sliding_window=512)
    assert estimate(sliding, num_ctx=4096).kv_cache == 8 * 8 * 128 * (4096 + 1024) * 2
    assert estimate(facts(cached=False), num_ctx=4096).kv_cache == 0
    state = facts(kv_heads=(0,) * 16, recurrent=1000)
    assert estimate(state, num_ctx=4096, slots=2).kv_cache == 16 * 1000 * 4 * 2


sizes = st.integers(1, 200_000)


@given(sizes, sizes, st.integers(1, 8), st.integers(1, 2048), st.booleans())
def test_more_of_anything_never_takes_less(
    one: int, other: int, slots: int, ubatch: int, flash: bool
) -> None:
    small, large = sorted((one, other))
    known = facts(sliding=(True,) * 16, sliding_window=1024)

    def total(num_ctx: int, slots: int, ubatch: int) -> int:
        settings = {"slots": slots, "ubatch": ubatch, "flash_attention": flash}
        return estimate(known, num_ctx=num_ctx, **settings).total  # type: ignore[arg-type]

    assert total(small, slots, ubatch) <= total(large, slots, ubatch)
    assert total(small, slots, ubatch) < total(small, slots + 1, ubatch)
    assert total(small, slots, ubatch) <= total(small, slots, ubatch + 1)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"num_ctx": 0}, "num_ctx is 0, not from 1"),
        ({"num_ctx": 1 << 40}, "num_ctx is"),
        ({"num_ctx": 9, "slots": 0}, "slots is 0"),
        ({"num_ctx": 9, "ubatch": -1}, "ubatch is -1"),
        ({"num_ctx": 9, "kv_type": "q9"}, "kv_type is 'q9'"),
    ],
)
def test_settings_out_of_range(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        estimate(facts(), **settings)  # type: ignore[arg-type]


def test_quantised_keys_and_values_need_flash_attention() -> None:
    asked = estimate(facts(), num_ctx=4096, kv_type="q4_0", flash_attention=False)
    assert asked.flash_attention
    assert asked.buffers == estimate(facts(), num_ctx=4096, kv_type="q4_0").buffers


@given(wanted=sizes, budget=st.integers(0, 40_000_000_000))
def test_the_largest_context_fits_and_the_next_does_not(wanted: int, budget: int) -> None:
    known = facts()
    need = estimate(known, num_ctx=wanted)
    found = largest_context(known, need, budget)
    if found is not None:
        assert estimate(known, num_ctx=found).total <= budget and found <= wanted
    more = 256 if found is None else (found // 256 + 1) * 256
    if more <= wanted:
        assert estimate(known, num_ctx=more).total > budget


def refusal(known: ModelFacts, need: MemoryEstimate, free: int) -> ModelTooLarge:
    with pytest.raises(ModelTooLarge) as caught:
        check_fits(known, need, free=free)
    assert (caught.value.needed, caught.value.available) == (need.total, free)
    return caught.value


def test_a_fifth_of_the_free_memory_is_left_alone() -> None:
    need = estimate(facts(), num_ctx=4096)
    check_fits(facts(), need, free=need.total * 10 // 8 + 2)
    refusal(facts(), need, need.total * 10 // 8 - 2)
    refusal(facts(), need, 0)


def test_a_refusal_says_which_context_fits() -> None:
    need = estimate(facts(), num_ctx=131_072)
    error = refusal(facts(), need, 3_000_000_000)
    assert "One needs 5.4 GB" in error.message and "3.0 GB are free" in error.message
    found = re.search(r"set num_ctx to (\d+)", error.hint)
    assert found is not None
    check_fits(facts(), estimate(facts(), num_ctx=int(found[1])), free=3_000_000_000)


def test_a_refusal_says_which_quantisation_fits() -> None:
    error = refusal(facts(), estimate(facts(), num_ctx=4096), 1_000_000_000)
    assert "A Q3_K_M quantisation of it, of about 602.5 MB, would fit" in error.hint
    error = refusal(facts(), estimate(facts(), num_ctx=4096), 300_000_000)
    assert "choose a model with fewer parameters" in error.hint


def test_this_machine_says_how_much_memory_is_free() -> None:
    assert 1 << 20 < free_memory() < 1 << 50
    known = facts(weights=1)
    check_fits(known, estimate(known, num_ctx=1, ubatch=1))


def put(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    4000 kB\n"


def test_linux_without_limits(tmp_path: Path) -> None:
    put(tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/\n")
    assert machine_module._linux(tmp_path) == 4000 * 1024


def test_linux_in_a_group_of_version_2(tmp_path: Path) -> None:
    put(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/outer/inner\n",
        sys__fs__cgroup__outer__memory_DOT_max="1000000\n",
        sys__fs__cgroup__outer__memory_DOT_current="700000\n",
        sys__fs__cgroup__outer__memory_DOT_stat="anon 9\ninactive_file 50000\nactive_file 1000\n",
        sys__fs__cgroup__outer__inner__memory_DOT_max="max\n",
        sys__fs__cgroup__outer__inner__memory_DOT_current="5\n",
    )
    assert machine_module._linux(tmp_path) == 1_000_000 - 700_000 + 51_000


def test_linux_in_a_group_of_version_1_seen_from_its_container(tmp_path: Path) -> None:
    put(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="3:cpu:/\n4:memory:/../host\n0::/\n",
        sys__fs__cgroup__memory_DOT_limit_in_bytes="1\n",  # above the mount: not our group's
        sys__fs__cgroup__memory_DOT_usage_in_bytes="1\n",
        sys__fs__cgroup__memory__memory_DOT_limit_in_bytes="2000000\n",
        sys__fs__cgroup__memory__memory_DOT_usage_in_bytes="500000\n",
        sys__fs__cgroup__memory__memory_DOT_stat="total_inactive_file 7\ninactive_file 99\n",
    )
    assert machine_module._linux(tmp_path) == 1_500_007


def test_a_group_over_its_limit_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/\n",
        sys__fs__cgroup__memory_DOT_max="100\n",
        sys__fs__cgroup__memory_DOT_current="300\n",
    )
    monkeypatch.setitem(
        machine_module._PLATFORMS, sys.platform, lambda: machine_module._linux(tmp_path)
    )
    assert free_memory() == 0
