"""The rules that tests/conftest.py lays on every other test."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.config import settings


def test_an_address_beyond_loopback_is_refused():
    with socket.socket() as s, pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"):
        s.connect(("192.0.2.1", 80))


def test_a_datagram_beyond_loopback_is_refused():
    with (
        socket.socket(type=socket.SOCK_DGRAM) as s,
        pytest.raises(pytest.fail.Exception, match=r"192\.0\.2\.1"),
    ):
        s.sendto(b"x", ("192.0.2.1", 53))


def test_a_name_is_not_looked_up():
    with pytest.raises(pytest.fail.Exception, match="name server"):
        socket.create_connection(("example.org", 80), timeout=1)


def test_an_invalid_name_is_unknown_as_without_a_network():
    with pytest.raises(socket.gaierror):
        socket.create_connection(("nobody.invalid", 80), timeout=1)


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1")])
def test_loopback_is_reached(family, host):
    with socket.create_server((host, 0), family=family) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()


def test_the_users_settings_are_out_of_reach(monkeypatch):
    assert not [name for name in os.environ if name.endswith("_API_KEY")]
    assert not Path(os.environ["HOME"], ".ollama").exists()
    assert settings().models == os.environ["MOIM_MODELS"]


@given(st.integers())
def test_the_fixtures_suit_hypothesis(number):
    assert isinstance(number, int)
    assert "MOIM_CONFIG" in os.environ
