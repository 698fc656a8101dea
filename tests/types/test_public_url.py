"""A URL in a message shows where, and never a login or a query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moim.types import public_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:1/v1", "http://host:1/v1"),
        ("http://me:pw@host:1/v1?key=pw#pw", "http://***@host:1/v1"),
        ("host/v1?x", "host/v1"),
        ("me:pw@host", "***@host"),
        ("", ""),
    ],
)
def test_examples(url: str, shown: str) -> None:
    assert public_url(url) == shown


@given(
    st.sampled_from(["http://", "https://", "", "HTTP://", "socks5://", "//"]),
    st.text("abc:/?#@.%", max_size=8),
    st.text("abc:/?#@.%", max_size=8),
)
def test_a_login_or_query_never_comes_out(scheme: str, before: str, after: str) -> None:
    secret = "S3CRET"
    assert secret not in public_url(f"{scheme}{before}{secret}{after}@host:1/v1")
    assert secret not in public_url(f"{scheme}host:1/v1?{before}{secret}{after}")
