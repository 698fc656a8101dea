"""How a name finds its row, and that a key goes nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.config import ProviderEntry, Settings
from moim.errors import ConfigError, MissingKey
from moim.providers import (
    compatible,
    find,
    find_key,
    key_headers,
    nearest,
    resolve_headers,
    split_name,
    table,
)

OPENAI = table(Settings())["openai"]


@pytest.mark.parametrize("name", ["openai/gpt-x", "openai:gpt-x"])
def test_both_separators_are_read(name: str) -> None:
    found = find(name, Settings())
    assert found is not None
    assert (found[0].name, found[1]) == ("openai", "gpt-x")


@given(st.text(min_size=1), st.text(min_size=1), st.sampled_from("/:"))
def test_only_the_first_separator_splits(model: str, more: str, separator: str) -> None:
    assert split_name(f"openai{separator}{model}/{more}") == ("openai", f"{model}/{more}")


@pytest.mark.parametrize("name", ["smollm2", "openai/", "/x", "nobody/x", "", "./x.gguf"])
def test_a_name_without_a_known_row_finds_none(name: str) -> None:
    assert find(name, Settings()) is None


def test_a_users_row_is_found_and_may_replace_a_built_in_one() -> None:
    rows = {
        "openai": ProviderEntry(base="http://localhost:1/v1/"),
        "lab": ProviderEntry(base="https://lab.test"),
    }
    found = find("openai/x", Settings(providers=rows))
    assert found is not None and found[0].base == "http://localhost:1/v1"
    assert find("lab:a/b:c", Settings(providers=rows))[1] == "a/b:c"  # type: ignore[index]


@pytest.mark.parametrize(
    "base",
    ["", "localhost:1", "ftp://x", "http://", "http://h:port", "http://h/?q=1", "file:///etc"],
)
def test_a_base_that_is_no_http_address_is_refused(base: str) -> None:
    with pytest.raises(ConfigError, match="base URL"):
        compatible(base)


def test_a_refused_base_keeps_its_password_to_itself() -> None:
    with pytest.raises(ConfigError) as caught:
        compatible("ftp://me:hunter2@host/")
    assert "hunter2" not in str(caught.value)


def test_wrong_quirks_of_a_users_row_are_named() -> None:
    rows = {"lab": ProviderEntry(base="http://lab.test", quirks={"max_tokens_field": 3})}
    with pytest.raises(ConfigError, match="lab"):
        table(Settings(providers=rows))


def test_nearest_prefixes() -> None:
    assert nearest("opena", Settings()) == ["openai"]


def test_a_missing_key_names_its_variable_and_where_to_get_one() -> None:
    with pytest.raises(MissingKey) as caught:
        find_key(OPENAI, {})
    assert "OPENAI_API_KEY" in str(caught.value)
    assert "https://platform.openai.com" in str(caught.value)


def test_a_key_is_trimmed_and_blank_counts_as_missing() -> None:
    assert find_key(OPENAI, {"OPENAI_API_KEY": " sk-1\n"}) == "sk-1"
    with pytest.raises(MissingKey):
        find_key(OPENAI, {"OPENAI_API_KEY": "  "})


@given(st.text(min_size=1))
def test_a_key_is_sent_whole_or_refused_without_being_shown(key: str) -> None:
    try:
        headers = key_headers(OPENAI, key)
    except ConfigError as error:
        assert not (key.isascii() and key.isprintable())
        assert len(key) < 8 or key not in str(error)
    else:
        assert headers == {"Authorization": f"Bearer {key}"}


@given(st.text("abcdefghijklmnop0123456789", min_size=8, max_size=20))
def test_no_secret_is_in_the_repr_of_a_row_or_in_a_refusal(secret: str) -> None:
    entry = ProviderEntry(base=f"https://u:{secret}@h/v1", headers={"X-Key": secret})
    row = table(Settings(providers={"p": entry}))["p"]
    assert secret not in repr(row)
    assert "X-Key" in repr(row)
    assert "@h/v1" in repr(row)
    with pytest.raises(ConfigError) as refused:
        compatible(f"https://u:{secret}@h/v1?key={secret}")
    assert secret not in str(refused.value)


def test_headers_come_from_the_environment_when_they_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "t-1")
    assert resolve_headers({"X-Team": "$TEAM_TOKEN", "X-Plain": "p"}) == {
        "X-Team": "t-1",
        "X-Plain": "p",
    }
    with pytest.raises(ConfigError, match="NO_SUCH"):
        resolve_headers({"X-Team": "$NO_SUCH"})
