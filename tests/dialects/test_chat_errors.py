from __future__ import annotations

import json

import pytest
from support_chat import CHAT

from moim import errors
from moim.dialects.faults import BODY_LIMIT, retry_after, scrub
from moim.errors import ContextLengthError, MoimError, ProviderError
from moim.types import HTTPReply


def answered(status, error=None, headers=None, body=None):
    data = body if body is not None else json.dumps({"error": error or {}}).encode()
    return CHAT.decode_error(HTTPReply(status=status, headers=headers or {}, body=data))


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (
            400,
            {"type": "invalid_request_error", "code": "unsupported_parameter"},
            "BadRequestError",
        ),
        (422, {}, "BadRequestError"),
        (401, {"type": "invalid_request_error", "code": "invalid_api_key"}, "AuthenticationError"),
        (401, {"type": "api_error"}, "AuthenticationError"),
        (403, {}, "PermissionDeniedError"),
        (402, {}, "QuotaError"),
        (429, {"type": "insufficient_quota", "code": "insufficient_quota"}, "QuotaError"),
        (429, {"code": "billing_hard_limit_reached"}, "QuotaError"),
        (429, {"code": "rate_limit_exceeded"}, "RateLimitError"),
        (429, {"type": "server_error", "code": "overloaded"}, "OverloadedError"),
        (404, {"type": "invalid_request_error", "code": "DeploymentNotFound"}, "NotFoundError"),
        (404, {"type": "invalid_request_error", "code": "model_not_found"}, "NotFoundError"),
        (400, {"code": "model_not_found"}, "NotFoundError"),
        (413, {}, "RequestTooLargeError"),
        (400, {"code": "context_length_exceeded"}, "ContextLengthError"),
        (400, {"code": "content_policy_violation"}, "ContentFilterError"),
        (503, {}, "OverloadedError"),
        (529, {"type": "overloaded_error"}, "OverloadedError"),
        (408, {}, "UpstreamTimeout"),
        (504, {}, "UpstreamTimeout"),
        (500, {"type": "server_error"}, "ServerError"),
        (502, {"type": "invalid_request_error"}, "ServerError"),
        (418, {}, "BadRequestError"),
        (555, {}, "ServerError"),
        (200, {"type": "invalid_request_error", "message": "m"}, "BadRequestError"),
        (200, {"type": "mystery", "message": "m"}, "ServerError"),
    ],
)
def test_the_class_of_an_error(status, error, expected):
    found = answered(status, error)
    assert type(found).__name__ == expected
    assert found.retryable == getattr(errors, expected).retryable


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "plain words"}', "plain words"),
        (b'{"message": "at the top"}', "at the top"),
        (b'{"detail": "of FastAPI"}', "of FastAPI"),
        (b'{"detail": [{"loc": ["body", "model"], "msg": "missing"}]}', "body.model: missing"),
        (b'{"object": "error", "message": "vLLM", "code": 400}', "vLLM"),
        (b'[{"error": {"message": "Gemini"}}]', "Gemini"),
        (b"just text", "just text"),
        (b"<html><title>Bad gateway</title>", "error 400"),
        (b"", "error 400"),
        (b"\xff\xfe", "\ufffd"),
        (b"[]", "error 400"),
    ],
)
def test_bodies_of_every_shape(body, message):
    found = answered(400, body=body)
    assert type(found).__name__ == "BadRequestError"
    assert message in str(found)
    assert found.status == 400


def test_openrouter_passes_on_what_its_upstream_said():
    raw = json.dumps({"error": {"message": "slow down", "type": "rate_limit_exceeded"}})
    error = {"message": "Provider returned error", "code": 400, "metadata": {"raw": raw}}
    found = answered(400, error)
    assert type(found).__name__ == "RateLimitError"
    assert "slow down" in str(found)
    error["metadata"]["raw"] = "not JSON"
    assert "Provider returned error" in str(answered(400, error))


@pytest.mark.parametrize(
    ("message", "numbers"),
    [
        ("maximum context length is 4097 tokens. However, you requested 5012 tokens", (5012, 4097)),
        ("context length is 8192 tokens. Your messages resulted in 9000 tokens.", (9000, 8192)),
        ("prompt is too long: 210000 tokens > 200000 maximum", (210000, 200000)),
        (
            "request (6000 tokens) exceeds the available context size (4096 tokens)",
            (6000, 4096),
        ),
        ("prompt too long; exceeded max context length by 1119046 tokens", (None, None)),
        ("Your input exceeds the context window of this model.", (None, None)),
    ],
)
def test_words_of_a_prompt_that_is_too_long(message, numbers):
    found = answered(400, {"message": message, "type": "invalid_request_error"})
    assert isinstance(found, ContextLengthError)
    assert (found.prompt_tokens, found.context_tokens) == numbers
    assert found.hint


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "9", "retry-after-ms": "1500"}, 1.5),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30.0,
        ),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "-1"}, None),
        ({"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}, 360.0),
        (
            {
                "x-ratelimit-reset-requests": "6m0s",
                "x-ratelimit-remaining-requests": "10",
                "x-ratelimit-reset-tokens": "120ms",
                "x-ratelimit-remaining-tokens": "0",
            },
            0.12,
        ),
        ({"x-ratelimit-reset-tokens": "1h1m1.5s"}, 3661.5),
    ],
)
def test_when_to_try_again(headers, seconds):
    assert retry_after(headers) == seconds
    assert answered(429, headers=headers).retry_after == seconds


def test_the_service_s_word_on_trying_again_counts():
    assert answered(500, headers={"x-should-retry": "false"}).retryable is False
    assert answered(400, headers={"x-should-retry": "true"}).retryable is True


def test_limits_that_are_not_the_cause_give_no_wait():
    headers = {"x-ratelimit-reset-requests": "6m0s", "x-ratelimit-remaining-requests": "0"}
    assert answered(400, headers=headers).retry_after is None


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-abcdefghijklmnop",
        "sk-ant-api03-abcdefghijkl",
        "gsk_abcdefghijklmnop",
        "AIzaSyabcdefghijklmnop",
        "hf_abcdefghijklmnop",
        "xai-abcdefghijklmnop",
    ],
)
def test_no_key_is_ever_repeated(key):
    message = f"Incorrect API key provided: {key}. Find yours at https://example.com/keys."
    found = answered(401, {"message": message})
    for text in (str(found), found.message, found.body or "", repr(found)):
        assert key not in text
        assert key[5:] not in text
    assert "https://example.com/keys" in str(found)
    assert key not in scrub(f"header was 'Bearer {key}'")
    assert scrub("provided: my-odd-key.") == "provided: [key]."


def test_words_that_only_look_a_little_like_keys_stay():
    text = "The model `key-value-store` ask-me-anything is not found; retry-after 5."
    assert "ask-me-anything" in scrub(text)


def test_a_huge_body_is_kept_in_part():
    found = answered(500, body=b"x" * (2 * BODY_LIMIT))
    assert len(found.body or "") == BODY_LIMIT
    assert len(str(found)) < 4000


CLASSES = [
    getattr(errors, name)
    for name in errors.__all__
    if issubclass(getattr(errors, name), MoimError) and getattr(errors, name) is not ProviderError
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_has_a_reply_for_the_client(kind):
    http = CHAT.encode_error(kind("It happened.", hint="Do this."))
    told = json.loads(http.body)["error"]
    assert 400 <= http.status <= 599
    assert told["message"] == "It happened. Do this."
    assert set(told) == {"message", "type", "param", "code"}
    assert http.headers["content-type"] == "application/json"


def test_an_error_tells_the_client_how_long_to_wait():
    http = CHAT.encode_error(errors.RateLimitError("m", retry_after=1.2))
    assert (http.headers["retry-after"], http.headers["retry-after-ms"]) == ("2", "1200")


def test_numbers_of_a_prompt_that_is_too_long_reach_the_client():
    error = ContextLengthError("m")
    error.prompt_tokens, error.context_tokens = 9, 5
    found = CHAT.decode_error(CHAT.encode_error(error))
    assert (found.prompt_tokens, found.context_tokens) == (9, 5)


def test_the_service_s_own_code_reaches_the_client():
    error = errors.BadRequestError("m", code="tool_use_failed", status=422)
    http = CHAT.encode_error(error)
    assert (http.status, json.loads(http.body)["error"]["code"]) == (422, "tool_use_failed")
