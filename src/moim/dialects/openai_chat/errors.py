"""Errors of the chat dialect: reading the many shapes of body, and writing OpenAI's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from moim.dialects import faults, json_
from moim.dialects.openai_chat.fields import items, mapping
from moim.errors import (
    AuthenticationError,
    BadRequestError,
    BudgetError,
    CallTimeout,
    Cancelled,
    ConfigError,
    ContentFilterError,
    ContextLengthError,
    DecodeError,
    MissingKey,
    ModelTooLarge,
    MoimError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RequestError,
    RequestTooLargeError,
    ServerError,
    TransportError,
    UnknownModel,
    UpstreamTimeout,
)
from moim.types import HTTPReply

__all__ = ["decode_error", "encode_error", "error_from", "error_object", "is_error"]


def is_error(body: object) -> bool:
    """Whether a decoded body is an error, whatever the status: `"error": null` is none."""
    if isinstance(body, list):
        return len(body) == 1 and is_error(body[0])
    if not isinstance(body, Mapping):
        return False
    if body.get("error") or body.get("object") == "error":
        return True
    return "choices" not in body and bool(body.get("detail") or body.get("message"))


def decode_error(http: HTTPReply) -> ProviderError:
    """The error that a reply stands for; the body may be of any kind or missing."""
    try:
        body = json_.loads(http.body)
    except DecodeError:
        body = _words(http)
    return error_from(body, status=http.status, headers=http.headers, raw=http.body)


def _words(http: HTTPReply) -> str:
    """A body of plain text is the message; a page of HTML says nothing to a reader."""
    text = http.body[: faults.BODY_LIMIT].decode("utf-8", "replace").strip()
    if http.content_type == "text/html" or text.startswith("<"):
        return ""
    return text


def error_from(
    body: object,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    raw: bytes = b"",
) -> ProviderError:
    """The error that a decoded body stands for."""
    if isinstance(body, list) and body:
        body = body[0]
    outer: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    told = outer.get("error") or outer
    error: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    upstream = _upstream(error)
    inner = mapping(error.get("innererror"))
    return faults.make_error(
        status,
        message=faults.first_text(
            upstream.get("message"),
            error.get("message"),
            told,
            error.get("detail"),
            _details(error.get("detail")),
            body,
        ),
        codes=(
            *_codes(upstream),
            error.get("code"),
            inner.get("code"),
            error.get("type"),
            error.get("status_code"),
            error.get("http_status_code"),
        ),
        headers=headers,
        body=raw,
        prompt_tokens=error.get("n_prompt_tokens"),
        context_tokens=error.get("n_ctx"),
    )


def _codes(error: Mapping[str, Any]) -> tuple[object, object]:
    return error.get("code"), error.get("type")


def _upstream(error: Mapping[str, Any]) -> Mapping[str, Any]:
    """What OpenRouter's own upstream said: JSON text in `metadata.raw`."""
    raw = mapping(error.get("metadata")).get("raw")
    if not isinstance(raw, str):
        return {}
    try:
        body = mapping(json_.loads(raw.encode("utf-8", "replace")))
    except DecodeError:
        return {}
    return mapping(body.get("error")) or body


def _details(detail: object) -> str:
    """FastAPI's list of what is wrong with which field."""
    return "; ".join(
        f"{'.'.join(map(str, items(item.get('loc'))))}: {item.get('msg', '')}"
        for item in items(detail)
        if isinstance(item, Mapping)
    )


# Class → (status, type, code). The first row that matches counts, so subclasses stand first.
_ROWS: tuple[tuple[type[MoimError], int, str, str | None], ...] = (
    (ContextLengthError, 400, "invalid_request_error", "context_length_exceeded"),
    (ContentFilterError, 400, "invalid_request_error", "content_filter"),
    (AuthenticationError, 401, "invalid_request_error", "invalid_api_key"),
    (PermissionDeniedError, 403, "permission_error", None),
    (NotFoundError, 404, "invalid_request_error", "model_not_found"),
    (RequestTooLargeError, 413, "invalid_request_error", "request_too_large"),
    (QuotaError, 429, "insufficient_quota", "insufficient_quota"),
    (RateLimitError, 429, "rate_limit_error", "rate_limit_exceeded"),
    (OverloadedError, 503, "server_error", "overloaded"),
    (UpstreamTimeout, 504, "server_error", "timeout"),
    (BadRequestError, 400, "invalid_request_error", None),
    (ServerError, 500, "server_error", None),
    (BudgetError, 429, "insufficient_quota", "insufficient_quota"),
    (RequestError, 400, "invalid_request_error", None),
    (UnknownModel, 404, "invalid_request_error", "model_not_found"),
    (MissingKey, 401, "invalid_request_error", "invalid_api_key"),
    (ConfigError, 500, "server_error", None),
    (CallTimeout, 504, "server_error", "timeout"),
    (Cancelled, 499, "server_error", "cancelled"),
    (TransportError, 502, "server_error", None),
    (DecodeError, 502, "server_error", None),
    (ModelTooLarge, 503, "server_error", "overloaded"),
    (MoimError, 500, "server_error", None),
)


def _row(error: MoimError) -> tuple[int, str, str | None]:
    return next(row[1:] for row in _ROWS if isinstance(error, row[0]))


def error_object(error: MoimError) -> dict[str, Any]:
    """OpenAI's error body; also what a stream that breaks off ends with."""
    status, kind, code = _row(error)
    said = getattr(error, "code", None)
    # The service's own code is kept unless it would say something else than the class does.
    if (
        code is None
        and said
        and type(error_from({"error": {"code": said}}, status=status)) is (type(error))
    ):
        code = said
    told: dict[str, Any] = {
        "message": str(error) or type(error).__name__,
        "type": kind,
        "param": None,
        "code": code,
    }
    if isinstance(error, ContextLengthError) and error.prompt_tokens and error.context_tokens:
        told.update(n_prompt_tokens=error.prompt_tokens, n_ctx=error.context_tokens)
    return {"error": told}


def encode_error(error: MoimError) -> HTTPReply:
    """The reply that tells a client about `error`, with the wait it should keep, if any."""
    status = _row(error)[0]
    own = error.status
    if own is not None and own >= 400 and type(error_from({}, status=own)) is type(error):
        status = own
    headers = {"content-type": "application/json"}
    wait = getattr(error, "retry_after", None)
    if wait is not None:
        headers["retry-after-ms"] = str(math.ceil(wait * 1000))
        headers["retry-after"] = str(math.ceil(wait))
    return HTTPReply(status=status, headers=headers, body=json_.dumps(error_object(error)))
