"""What a model file says about its model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_gguf import run_engine

from moim.errors import ModelFileError
from moim.local.gguf import ModelFacts, ValueType, estimate, inspect
from moim.local.gguf.facts import size_label
from moim.testing.tiny_gguf import CHAT_TEMPLATE, GGUFBuilder, write

V = ValueType
Field = tuple[int, Any]


def facts_with(folder: Path, **fields: Field | None) -> ModelFacts:
    """Facts of a tiny model with some fields set or left out; `__` stands for a point."""
    metadata = {key.replace("__", "."): field for key, field in fields.items()}
    return inspect(write(folder / "model.gguf", metadata=metadata))


def test_facts_of_a_tiny_model(tmp_path: Path) -> None:
    path = write(tmp_path / "tiny.gguf", context_length=512, name="Small One")
    facts = inspect(path)
    assert msgspec.structs.replace(facts, shape=None) == ModelFacts(
        path=path,
        size=path.stat().st_size,
        weights=216_320,
        kind="model",
        architecture="llama",
        name="Small One",
        parameters=107_840,
        size_label="108K",
        quantization="F16",
        context_length=512,
        embedding_length=64,
        block_count=2,
        head_count=4,
        head_count_kv=2,
        sliding_window=None,
        expert_count=0,
        chat_template=CHAT_TEMPLATE,
        capabilities=("completion",),
        license="mit",
        languages=("en", "ko"),
        shape=None,  # type: ignore[arg-type]
    )
    assert facts.shape.kv_heads == (2, 2) and facts.shape.key_length == 16


def test_facts_are_what_the_engine_reads(tmp_path: Path) -> None:
    """The engine prints the sizes that it found and the buffers that it took: ours are those."""
    path = write(
        tmp_path / "odd.gguf",
        context_length=1536,
        embedding_length=96,
        block_count=3,
        feed_forward_length=160,
        head_count=6,
        head_count_kv=3,
    )
    facts = inspect(path)
    (run,) = run_engine(path, num_ctx=1024, slots=2)

    def said(pattern: str) -> str:
        return str(re.findall(pattern, run.log)[-1])

    printed = {
        "arch": facts.architecture,
        "n_ctx_train": facts.context_length,
        "n_embd": facts.embedding_length,
        "n_layer": facts.block_count,
        "n_head": facts.head_count,
        "n_head_kv": facts.head_count_kv,
        "n_embd_head_k": facts.shape.key_length,
        "n_embd_head_v": facts.shape.value_length,
        "n_ff": facts.shape.feed_forward_length,
        "n_vocab": facts.shape.vocabulary,
        "general.name": facts.name,
        "file type": facts.quantization,
    }
    assert {key: said(rf"print_info: {key} +=\s(\S+)") for key in printed} == {
        key: str(value) for key, value in printed.items()
    }
    assert said(r"model params += (\S+ K)") == f"{facts.parameters / 1000:.2f} K"
    assert abs(float(said(r"file size += (\S+) MiB")) - facts.weights / 2**20) < 0.01
    need = estimate(facts, num_ctx=1024, slots=2)
    assert abs(float(said(r"KV buffer size += +(\S+) MiB")) - need.kv_cache / 2**20) < 0.01


@pytest.mark.parametrize(
    ("parameters", "label"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1K"),
        (107_840, "108K"),
        (134_515_008, "134.52M"),
        (7_000_000, "7M"),
        (8_030_261_248, "8.0B"),
        (8_000_000_000, "8B"),
        (70_553_706_496, "70.6B"),
    ],
)
def test_size_label(parameters: int, label: str) -> None:
    assert size_label(parameters) == label


@given(st.integers(0, 10**13))
def test_a_size_label_says_the_number_to_within_its_last_digit(parameters: int) -> None:
    label = size_label(parameters)
    unit = {"B": 1e9, "M": 1e6, "K": 1e3}.get(label[-1], 1)
    step = {"B": 1e8, "M": 1e4, "K": 1e3}.get(label[-1], 1)
    assert abs(float(label.rstrip("BMK")) * unit - parameters) <= step / 2 + 1


@pytest.mark.parametrize(
    ("field", "named"),
    [
        ((V.UINT32, 15), "Q4_K_M"),
        ((V.UINT32, 1024 + 15), "Q4_K_M"),
        ((V.UINT32, 3), "Q4_1"),
        ((V.UINT32, 4), "unknown"),
        ((V.UINT32, 999), "unknown"),
        (None, "unknown"),
    ],
)
def test_quantization(field: Field | None, named: str, tmp_path: Path) -> None:
    assert facts_with(tmp_path, general__file_type=field).quantization == named


TEMPLATES = {
    "plain": ("{{ messages }}", ()),
    "tools": ("{% if tools %}{{ tools }}{% endif %}", ("tools",)),
    "tool calls": ("<tool_call>", ("tools",)),
    "toolset, another word": ("a toolset", ()),
    "thinking": ("<think>\n\n</think>", ("thinking",)),
    "only the end of thinking": ("{{ text.split('</think>') }}", ()),
    "both": ("{{ tools }}<think></think>", ("tools", "thinking")),
}


@pytest.mark.parametrize("case", TEMPLATES)
def test_capabilities_by_template(case: str, tmp_path: Path) -> None:
    template, more = TEMPLATES[case]
    facts = facts_with(tmp_path, tokenizer__chat_template=(V.STRING, template))
    assert facts.capabilities == ("completion", *more)


def test_capabilities_by_other_keys(tmp_path: Path) -> None:
    def having(**fields: Field | None) -> tuple[str, ...]:
        return facts_with(tmp_path, **fields).capabilities

    one = (V.UINT32, 1)
    tools = (V.STRING, "{{ tools }}")
    fim = {
        "tokenizer__ggml__fim_pre_token_id": one,
        "tokenizer__ggml__fim_suf_token_id": one,
    }
    assert having(llama__pooling_type=one) == ("embedding",)
    assert having(llama__pooling_type=(V.UINT32, 4)) == ("rerank",)
    assert having(llama__vision__block_count=one) == ("completion", "vision")
    assert having(llama__audio__block_count=one) == ("completion", "audio")
    assert having(**fim) == ("completion", "insert")
    assert having(tokenizer__ggml__fim_pre_token_id=one) == ("completion",)
    assert having(tokenizer__chat_template__tool_use=tools) == ("completion", "tools")


def bare(folder: Path, **fields: Field) -> Path:
    builder = GGUFBuilder().add_tensor("t", (32,), 0, bytes(128))
    for key, field in fields.items():
        builder.add(key.replace("__", "."), *field)
    path = folder / "bare.gguf"
    path.write_bytes(builder.build())
    return path


def test_a_projector_is_not_a_model(tmp_path: Path) -> None:
    facts = inspect(
        bare(
            tmp_path,
            general__architecture=(V.STRING, "clip"),
            clip__has_vision_encoder=(V.BOOL, True),
        )
    )
    assert (facts.kind, facts.capabilities, facts.context_length) == ("mmproj", ("vision",), 0)


def test_an_adapter_is_not_a_model(tmp_path: Path) -> None:
    facts = inspect(
        bare(
            tmp_path,
            general__architecture=(V.STRING, "llama"),
            general__type=(V.STRING, "adapter"),
        )
    )
    assert (facts.kind, facts.capabilities, facts.parameters) == ("adapter", (), 32)


WRONG: dict[str, tuple[dict[str, Field | None], str]] = {
    "no architecture": ({"general__architecture": None}, "does not name its architecture"),
    "architecture is a number": ({"general__architecture": (V.UINT32, 3)}, "is 3, not text"),
    "architecture is no name": ({"general__architecture": (V.STRING, "../x")}, "is no name"),
    "another architecture": (
        {"general__architecture": (V.STRING, "qwen3")},
        "lacks qwen3.block_count",
    ),
    "no context": ({"llama__context_length": None}, "lacks llama.context_length"),
    "context 0": ({"llama__context_length": (V.UINT32, 0)}, "lacks llama.context_length"),
    "context as text": ({"llama__context_length": (V.STRING, "9")}, "is '9', not a whole number"),
    "context as a truth value": ({"llama__context_length": (V.BOOL, True)}, "is True, not a whole"),
    "context as a fraction": ({"llama__context_length": (V.FLOAT32, 8.0)}, "is 8.0, not a whole"),
    "negative context": ({"llama__context_length": (V.INT32, -1)}, "is -1, not from 0 to"),
    "endless context": ({"llama__context_length": (V.UINT64, 2**40)}, "not from 0 to"),
    "endless blocks": ({"llama__block_count": (V.UINT32, 65_537)}, "not from 0 to 65536"),
    "width as an array": (
        {"llama__embedding_length": (V.ARRAY, (V.UINT32, [1]))},
        "is <Array of 1 UINT32>, not a whole number",
    ),
    "too few heads": (
        {"llama__attention__head_count_kv": (V.ARRAY, (V.UINT32, [1]))},
        "has 1 numbers for 2 blocks",
    ),
    "heads as texts": (
        {"llama__attention__head_count": (V.ARRAY, (V.STRING, ["a", "b"]))},
        "is 'a', not a whole number",
    ),
    "template as a number": ({"tokenizer__chat_template": (V.UINT8, 1)}, "is 1, not text"),
    "one language": ({"general__languages": (V.STRING, "en")}, "is 'en', not a list of texts"),
    "languages as numbers": (
        {"general__languages": (V.ARRAY, (V.UINT8, [1]))},
        "not a list of texts",
    ),
    "tokens as text": ({"tokenizer__ggml__tokens": (V.STRING, "a b")}, "not a list"),
    "causal as a number": ({"llama__attention__causal": (V.UINT8, 1)}, "not a truth value"),
    "part of a split model": (
        {"split__count": (V.UINT16, 3), "split__no": (V.UINT16, 1)},
        "is part 2 of 3 of a split model. Join the parts",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_facts_are_one_clear_error(case: str, tmp_path: Path) -> None:
    fields, told = WRONG[case]
    with pytest.raises(ModelFileError) as caught:
        facts_with(tmp_path, **fields)
    assert told in str(caught.value) and "model.gguf" in str(caught.value)
    assert caught.value.hint


def test_a_later_part_of_a_split_model_says_so(tmp_path: Path) -> None:
    """Such a part has nothing but its number and its tensors."""
    path = bare(tmp_path, split__count=(V.UINT16, 2), split__no=(V.UINT16, 1))
    with pytest.raises(ModelFileError, match="part 2 of 2"):
        inspect(path)


def shape_of(folder: Path, architecture: str, **fields: Field) -> ModelFacts:
    """Facts of a model of another architecture with eight blocks, its own fields added."""
    own = {
        "context_length": (V.UINT32, 4096),
        "embedding_length": (V.UINT32, 64),
        "block_count": (V.UINT32, 8),
        "attention.head_count": (V.UINT32, 4),
        **{key.replace("__", "."): field for key, field in fields.items()},
    }
    named = {f"{architecture}.{key}".replace(".", "__"): field for key, field in own.items()}
    return inspect(bare(folder, general__architecture=(V.STRING, architecture), **named))


def test_sliding_blocks(tmp_path: Path) -> None:
    window = (V.UINT32, 512)

    def sliding(architecture: str, **fields: Field) -> str:
        facts = shape_of(tmp_path, architecture, attention__sliding_window=window, **fields)
        assert facts.sliding_window == 512
        return "".join("s" if slides else "." for slides in facts.shape.sliding)

    assert sliding("gemma3") == "sssss.ss"
    assert sliding("gemma2") == "s.s.s.s."
    assert sliding("llama") == ""
    assert sliding("llama", attention__sliding_window_pattern=(V.UINT32, 4)) == "sss.sss."
    given = (V.ARRAY, (V.BOOL, [True, False, True]))
    assert sliding("new", attention__sliding_window_pattern=given) == "s.s....."
    assert shape_of(tmp_path, "gemma3").shape.sliding == ()


def test_blocks_without_attention(tmp_path: Path) -> None:
    heads = (V.ARRAY, (V.INT32, [0, 0, 2, 0, 0, 2, 0, 0]))
    facts = shape_of(tmp_path, "lfm2", attention__head_count_kv=heads)
    assert facts.shape.kv_heads == (0, 0, 2, 0, 0, 2, 0, 0) and facts.head_count_kv == 2
    facts = shape_of(tmp_path, "qwen3next", full_attention_interval=(V.UINT32, 4))
    assert facts.shape.kv_heads == (0, 0, 0, 4, 0, 0, 0, 4)
    mamba = {
        "ssm__conv_kernel": (V.UINT32, 4),
        "ssm__inner_size": (V.UINT32, 128),
        "ssm__state_size": (V.UINT32, 16),
    }
    facts = shape_of(tmp_path, "mamba", attention__head_count=(V.UINT32, 0), **mamba)
    assert facts.shape.recurrent == 3 * 128 + 128 * 16 and set(facts.shape.kv_heads) == {0}
