"""What a model of Ollama's brings beside its weights, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support_engine import error_of
from support_ollama import put

from moim.errors import ModelFileError, StoreError, UnsupportedError
from moim.local import gguf
from moim.local.catalog import built_in
from moim.local.context import check_request
from moim.local.engines import LoadOptions, spec_for
from moim.local.gguf.tables import ValueType
from moim.local.library import Library, LocalModel
from moim.local.preset import Preset, preset_of
from moim.local.store import Store
from moim.testing import tiny_gguf
from moim.types import Request, to_messages

GO = "{{ if .System }}<s>{{ .System }}</s>{{ end }}{{ .Prompt }}"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("preset") / "tiny.gguf", context_length=512)


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a chat template."""
    path = tmp_path_factory.mktemp("preset") / "bare.gguf"
    return tiny_gguf.write(path, context_length=512, chat_template=None)


def found(root: Path, weights: Path, *layers: tuple[str, Any], **config: Any) -> LocalModel:
    """A model with these layers, as the library finds it."""
    put(root, "registry.ollama.ai/library/m/latest", weights.read_bytes(), *layers, **config)
    model = Library(store=Store(root), catalog=built_in()).find("m")
    assert model is not None
    return model


def preset(root: Path, weights: Path, *layers: tuple[str, Any], **config: Any) -> Preset:
    model = found(root, weights, *layers, **config)
    return preset_of(model, gguf.inspect(model.path))


def codes(preset: Preset) -> list[str]:
    return [warned.code for warned in preset.warnings]


def test_a_model_that_brings_nothing_changes_nothing(tmp_path: Path, tiny: Path) -> None:
    plain = preset(tmp_path, tiny)
    assert plain == Preset()
    asked = to_messages([("system", "s"), ("user", "u")])
    assert plain.conversation(asked) == asked


def test_a_file_by_path_brings_nothing(tiny: Path, tmp_path: Path) -> None:
    model = Library(store=Store(tmp_path), catalog=built_in()).find(str(tiny))
    assert model is not None
    assert preset_of(model, gguf.inspect(model.path)) == Preset()


def test_every_layer_is_read(tmp_path: Path, tiny: Path) -> None:
    model = found(
        tmp_path,
        tiny,
        ("template", GO),
        ("system", "older"),
        ("system", "You are a pirate."),
        ("params", {"temperature": 0}),
        ("params", {"top_k": 3}),
        ("messages", [{"role": "user", "content": "ahoy"}, {"role": "assistant"}]),
        ("license", "one"),
        ("license", "two"),
        renderer="qwen3-coder",
    )
    assert model.template == GO
    assert model.system == "You are a pirate."
    assert model.params == {"temperature": 0, "top_k": 3}
    assert model.messages == (("user", "ahoy"), ("assistant", ""))
    assert model.license == "one\n\ntwo"
    assert model.renderer == "qwen3-coder"
    assert not model.adapter


def test_the_system_message_stands_in_for_a_missing_one(tmp_path: Path, tiny: Path) -> None:
    examples = [{"role": "user", "content": "ahoy"}, {"role": "assistant", "content": "arr"}]
    both = preset(tmp_path, tiny, ("system", "pirate"), ("messages", examples))

    def sent(*prompt: tuple[str, str]) -> list[tuple[str, str]]:
        return [(m.role, m.text) for m in both.conversation(to_messages(list(prompt)))]

    shown = [("user", "ahoy"), ("assistant", "arr")]
    assert sent(("user", "hi")) == [("system", "pirate"), *shown, ("user", "hi")]
    own = ("system", "poet"), ("developer", "rhyme")
    assert sent(*own, ("user", "hi")) == [*own, *shown, ("user", "hi")]
    late = ("user", "hi"), ("system", "poet")
    assert sent(*late) == [("system", "pirate"), *shown, *late]
    assert sent(own[0]) == [own[0], *shown]


def test_parameters_become_options(tmp_path: Path, tiny: Path) -> None:
    brought = preset(
        tmp_path,
        tiny,
        (
            "params",
            {
                "stop": ["<|a|>", "<|b|>"],
                "temperature": 0,
                "top_k": 40.0,
                "num_predict": 64,
                "num_ctx": 256,
                "num_thread": 1,
                "repeat_last_n": 64,
                "mirostat": 2,
                "num_gpu": 99,
                "use_mmap": None,
            },
        ),
    )
    assert brought.options == {
        "stop": ["<|a|>", "<|b|>"],
        "temperature": 0,
        "top_k": 40,
        "max_tokens": 64,
        "num_ctx": 256,
        "threads": 1,
        "extra": {"repeat_last_n": 64},
    }
    assert brought.warnings == ()


def test_a_parameter_that_means_none_is_none(tmp_path: Path, tiny: Path) -> None:
    unlimited = ("params", {"num_predict": -1, "num_thread": 0, "stop": "x"})
    assert preset(tmp_path, tiny, unlimited) == Preset(options={"stop": ["x"]})
    assert preset(tmp_path, tiny, ("params", {"num_predict": -2})) == Preset()


def test_a_context_beyond_the_trained_one_is_cut_to_it(tmp_path: Path, tiny: Path) -> None:
    brought = preset(tmp_path, tiny, ("params", {"num_ctx": 131072}))
    assert brought == Preset(options={"num_ctx": 512})
    spec = spec_for(gguf.inspect(tiny), LoadOptions(num_ctx=brought.options["num_ctx"]))
    assert spec.num_ctx == 512


def test_parameters_that_cannot_be_used_are_named(tmp_path: Path, tiny: Path) -> None:
    wrong = {"temperature": "hot", "stop": [5], "num_ctx": -4, "top_k": 1.5, "what\n": 1}
    brought = preset(tmp_path, tiny, ("params", {**wrong, "top_p": 0.5}))
    assert brought.options == {"top_p": 0.5}
    (warned,) = brought.warnings
    assert warned.code == "param_dropped"
    assert warned.text.startswith("Of the parameters that m:latest brings")
    assert all(name in warned.text for name in ("temperature", "stop", "num_ctx", "top_k", "what"))
    assert "\n" not in warned.text
    many = preset(tmp_path, tiny, ("params", {f"p{n}": n for n in range(20)}))
    assert "and 12 more" in many.warnings[0].text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
names = st.sampled_from(["num_ctx", "num_gpu", "num_predict", "num_thread", "repeat_last_n", "seed",
    "stop", "temperature", "top_k", "top_p", "typical_p"])  # fmt: skip


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(params=st.dictionaries(names | st.text(max_size=5), json_values, max_size=5))
def test_whatever_the_parameters_say_the_engine_takes_what_is_left(
    tiny: Path, params: dict[str, Any]
) -> None:
    model = LocalModel(
        name="m", path=tiny, digest=None, size=1, source="", modified_at=0.0, store=None,
        params=params,
    )  # fmt: skip
    facts = gguf.inspect(tiny)
    options = dict(preset_of(model, facts).options)
    load = {n: options.pop(n) for n in ("num_ctx", "threads") if n in options}
    spec_for(facts, LoadOptions(**load))
    extra = {"openai_chat": options.pop("extra", {})}
    fields = {f.name: f.type for f in msgspec.structs.fields(Request)}
    checked = {n: msgspec.convert(value, fields[n]) for n, value in options.items()}
    messages = to_messages("x")
    check_request(Request(model="m", messages=messages, extra=extra, **checked))


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("params", [1, 2]),
        ("params", "{"),
        ("messages", {"role": "user"}),
        ("messages", "[" * 5000),
        ("messages", [{"role": "wizard", "content": "x"}]),
    ],
)
def test_a_damaged_layer_is_one_error(
    tmp_path: Path, tiny: Path, kind: str, content: object
) -> None:
    error = error_of(lambda: found(tmp_path, tiny, (kind, content)))
    assert isinstance(error, StoreError)
    assert "m:latest" in error.message
    assert error.hint
    put(tmp_path, "registry.ollama.ai/library/other/latest", tiny.read_bytes())
    listing = Library(store=Store(tmp_path), catalog=built_in()).models()
    assert [model.name for model in listing.models] == ["other:latest"]


def test_a_template_of_ollamas_is_left_out_and_said(tmp_path: Path, tiny: Path) -> None:
    for brought in (
        preset(tmp_path, tiny, ("template", GO)),
        preset(tmp_path, tiny, ("prompt", GO)),
        preset(tmp_path, tiny, renderer="qwen3-coder"),
        preset(tmp_path, tiny, parser="qwen3-coder"),
    ):
        assert codes(brought) == ["template_ignored"]
        assert "m:latest" in brought.warnings[0].text
    assert codes(preset(tmp_path, tiny, ("template", "{{ .Prompt }}"))) == []


def test_a_template_of_ollamas_that_nothing_can_replace_is_an_error(
    tmp_path: Path, bare: Path
) -> None:
    error = error_of(lambda: preset(tmp_path, bare, ("template", GO)))
    assert isinstance(error, ModelFileError)
    assert "m:latest" in error.message
    assert "Ollama" in error.hint
    assert isinstance(error_of(lambda: preset(tmp_path, bare, renderer="x")), ModelFileError)


def test_a_model_without_a_template_says_so(tmp_path: Path, bare: Path) -> None:
    assert codes(preset(tmp_path, bare)) == ["template_missing"]
    assert codes(preset(tmp_path, bare, ("template", " {{ .Prompt }}\n"))) == ["template_missing"]


def test_an_adapter_is_never_left_out(tmp_path: Path, tiny: Path) -> None:
    error = error_of(lambda: preset(tmp_path, tiny, ("adapter", b"GGUF")))
    assert isinstance(error, ModelFileError)
    assert "adapter" in error.message
    assert error.hint


def test_a_model_for_embeddings_does_not_chat(tmp_path: Path) -> None:
    pooled: dict[str, tuple[int, Any] | None] = {"llama.pooling_type": (ValueType.UINT32, 1)}
    weights = tiny_gguf.write(tmp_path / "e.gguf", metadata=pooled)
    error = error_of(lambda: preset(tmp_path / "store", weights))
    assert isinstance(error, UnsupportedError)
    assert "embedding" in error.message
