"""Settings: the order of sources, every key both ways, and every mistake one clear error."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.config import ProviderEntry, Settings, config_path, data_path, read_settings, settings
from moim.errors import ConfigError

Write = Callable[[str], dict[str, str]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write the configuration file and give the environment that names it."""

    def put(text: str) -> dict[str, str]:
        path = tmp_path / "config.toml"
        before = path.stat().st_mtime_ns if path.exists() else 0
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(before + 10**9, before + 10**9))
        return {"MOIM_CONFIG": str(path)}

    return put


def test_without_anything_the_defaults_hold(tmp_path: Path) -> None:
    assert read_settings({"MOIM_CONFIG": str(tmp_path / "none.toml")}) == Settings()
    assert read_settings({"MOIM_CONFIG": str(tmp_path / "no" / "folder.toml")}) == Settings()


def test_settings_reads_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not settings().offline
    monkeypatch.setenv("MOIM_OFFLINE", "1")
    assert settings().offline


# One row per key: a value for the file, its text for the environment, and what becomes of both.
KEYS: dict[str, tuple[str, str, Any]] = {
    "default_model": ('"qwen"', "qwen", "qwen"),
    "models": ('"/m"', "/m", "/m"),
    "offline": ("true", "yes", True),
    "keep_alive": ("-1", "-1", -1.0),
    "num_ctx": ("8192", "8192", 8192),
    "threads": ("3", "3", 3),
    "ca_file": ('"/ca.pem"', "/ca.pem", "/ca.pem"),
    "proxy": ('"http://h:1"', "http://h:1", "http://h:1"),
    "connect_timeout": ("2", "2", 2.0),
    "first_timeout": ("2.5", "2.5", 2.5),
    "between_timeout": ("0", "0", 0.0),
    "total_timeout": ("1e3", "1e3", 1000.0),
    "log": ('"wire"', "wire", "wire"),
}
TABLES = {"headers", "aliases", "providers"}


def test_every_key_is_in_the_table() -> None:
    assert set(KEYS) | TABLES == set(Settings.__struct_fields__)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_from_file_and_environment(key: str, write: Write) -> None:
    in_file, in_environment, value = KEYS[key]
    expected = msgspec.structs.replace(Settings(), **{key: value})
    assert read_settings(write(f"{key} = {in_file}\n")) == expected
    assert read_settings({**write(""), f"MOIM_{key.upper()}": in_environment}) == expected
    assert type(getattr(expected, key)) is type(
        getattr(read_settings(write(f"{key} = {in_file}")), key)
    )


def test_the_environment_wins_over_the_file(write: Write) -> None:
    environ = write('default_model = "a"\nnum_ctx = 10\noffline = true\n')
    found = read_settings({**environ, "MOIM_DEFAULT_MODEL": "b", "MOIM_OFFLINE": "0"})
    assert (found.default_model, found.num_ctx, found.offline) == ("b", 10, False)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_variable_is_one_that_is_not_set(key: str, empty: str, write: Write) -> None:
    environ = write(f"{key} = {KEYS[key][0]}\n")
    assert read_settings({**environ, f"MOIM_{key.upper()}": empty}) == read_settings(environ)


def test_the_tables(write: Write) -> None:
    found = read_settings(
        write(
            'headers = { X-Team = "a" }\n'
            "[aliases]\n"
            'mine = "smollm2"\n'
            "[providers.home]\n"
            'base = "http://localhost:8000/v1"\n'
            'headers = { X-Key = "$MY_KEY" }\n'
            "quirks = { max_tokens_field = 'max_tokens' }\n"
        )
    )
    assert found.headers == {"X-Team": "a"}
    assert found.aliases == {"mine": "smollm2"}
    entry = found.providers["home"]
    assert (entry.base, entry.key_env, entry.dialect) == (
        "http://localhost:8000/v1", None, "openai_chat",
    )  # fmt: skip
    assert entry.quirks == {"max_tokens_field": "max_tokens"}


WRONG = [
    'default_modle = "a"',
    "offline = 1",
    'offline = "yes"',
    'num_ctx = "8192"',
    "num_ctx = 0",
    "num_ctx = -5",
    "num_ctx = 1.5",
    "num_ctx = nan",
    "num_ctx = 99999999999999999999999",
    "threads = 0",
    "connect_timeout = -1",
    "connect_timeout = inf",
    "first_timeout = nan",
    "keep_alive = nan",
    'log = "loud"',
    "proxy = 3",
    "headers = { a = 1 }",
    "headers = 3",
    "providers = { a = 3 }",
    "[providers.a]\n",
    '[providers.a]\nbase = "http://h"\nunknown = 1\n',
    "not toml",
    "a = ",
    "x = " + "[" * 5000,
    "log = 2020-01-01",
]


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_file_is_a_config_error_that_names_it(text: str, write: Write) -> None:
    environ = write(text)
    with pytest.raises(ConfigError) as raised:
        read_settings(environ)
    assert environ["MOIM_CONFIG"] in str(raised.value)
    assert raised.value.__cause__ is None
    assert read_settings(write("")) == Settings(), "the next correct call works"


WRONG_VARIABLES = {
    "MOIM_OFFLINE": ["maybe", "2"],
    "MOIM_NUM_CTX": ["many", "1.5", "0", "-1"],
    "MOIM_THREADS": ["all"],
    "MOIM_CONNECT_TIMEOUT": ["soon", "nan", "inf", "-1", "1e300"],
    "MOIM_KEEP_ALIVE": ["for ever", "nan", "-inf"],
    "MOIM_LOG": ["loud"],
    "MOIM_CONFIG": ["~no-such-user-here/x.toml"],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in WRONG_VARIABLES.items() for text in texts]
)
def test_a_wrong_variable_is_a_config_error(name: str, text: str, write: Write) -> None:
    with pytest.raises(ConfigError):
        read_settings({**write(""), name: text})


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings({"MOIM_CONFIG": str(tmp_path)})
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'default_model = "caf\xe9"')
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_settings({"MOIM_CONFIG": str(latin)})


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfnum_ctx = 7\n")
    assert read_settings({"MOIM_CONFIG": str(path)}).num_ctx == 7


def test_a_changed_file_is_read_again(write: Write) -> None:
    assert read_settings(write("num_ctx = 1\n")).num_ctx == 1
    assert read_settings(write("num_ctx = 2\n")).num_ctx == 2


def test_what_one_caller_does_to_its_settings_another_never_sees(write: Write) -> None:
    environ = write('[aliases]\na = "b"\n')
    read_settings(environ).aliases["c"] = "d"
    assert read_settings(environ).aliases == {"a": "b"}
    assert Settings().aliases == {}


def test_threads_may_read_while_the_file_changes(write: Write, tmp_path: Path) -> None:
    environ = write("num_ctx = 1\n")
    failures: list[ConfigError] = []

    def read() -> None:
        for _ in range(50):
            try:
                assert read_settings(environ).num_ctx in (1, 2)
            except ConfigError as error:
                failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in (2, 1, 2):
        new = tmp_path / "new.toml"
        new.write_text(f"num_ctx = {number}\n")
        new.replace(environ["MOIM_CONFIG"])
    for thread in threads:
        thread.join(20)
    assert not failures


def test_the_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    assert config_path({"MOIM_CONFIG": "~/a.toml"}) == Path("~/a.toml").expanduser()
    assert config_path({}).name == "config.toml"
    assert Settings(models="~/m").models_path == Path("~/m").expanduser()
    assert Settings().models_path == data_path() / "models"
    with pytest.raises(ConfigError, match="no such home"):
        _ = Settings(models="~no-such-user-here/m").models_path


@given(st.text("abcdefghijklmnop0123456789", min_size=8, max_size=20))
def test_no_secret_is_in_a_repr(secret: str) -> None:
    entry = ProviderEntry(base=f"https://u:{secret}@h/v1", headers={"X-Key": secret})
    found = Settings(
        proxy=f"http://u:{secret}@h:1", headers={"X-Key": secret}, providers={"p": entry}
    )
    assert secret not in repr(found)
    assert "X-Key" in repr(found)
    assert "h:1" in repr(found)


@given(st.floats(), st.sampled_from(["connect", "first", "between", "total"]))
def test_a_timeout_that_is_accepted_can_be_waited_for(seconds: float, name: str) -> None:
    environ = {"MOIM_CONFIG": os.devnull + ".none", f"MOIM_{name.upper()}_TIMEOUT": repr(seconds)}
    try:
        found = getattr(read_settings(environ), f"{name}_timeout")
    except ConfigError:
        return
    assert math.isfinite(found)
    assert 0 <= found <= 1_000_000
