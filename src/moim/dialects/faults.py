"""From what a service says about a failure to the class of error that it is.

Services disagree on nearly everything: the same mistake comes with another status, code and
wording from each. So the body's code decides first, then the status, then the words.
Shared by all dialects; each finds code and message in its own kind of body.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from moim.errors import (
    AuthenticationError,
    BadRequestError,
    ContentFilterError,
    ContextLengthError,
    NotFoundError,
    OverloadedError,
    PermissionDeniedError,
    ProviderError,
    QuotaError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    UpstreamTimeout,
)

__all__ = ["BODY_LIMIT", "first_text", "make_error", "retry_after", "scrub", "should_retry"]

BODY_LIMIT = 64 * 1024
"""Bytes of an error body that are kept."""

_MESSAGE_LIMIT = 2000

# Codes and types that mean the same wherever they occur. Words that only repeat the status
# (`invalid_request_error`, `server_error`, `api_error`) are in _WEAK: some services put them on
# every error. Lower case, without separators.
_CODES: dict[str, type[ProviderError]] = {
    "authenticationerror": AuthenticationError,
    "invalidapikey": AuthenticationError,
    "invalidauthentication": AuthenticationError,
    "unauthenticated": AuthenticationError,
    "unauthorized": AuthenticationError,
    "permissiondenied": PermissionDeniedError,
    "permissionerror": PermissionDeniedError,
    "billingerror": QuotaError,
    "billinghardlimitreached": QuotaError,
    "insufficientbalance": QuotaError,
    "insufficientquota": QuotaError,
    "deploymentnotfound": NotFoundError,
    "modelnotfound": NotFoundError,
    "notfounderror": NotFoundError,
    "requesttoolarge": RequestTooLargeError,
    "contextlengthexceeded": ContextLengthError,
    "exceedcontextsizeerror": ContextLengthError,
    "contentfilter": ContentFilterError,
    "contentpolicyviolation": ContentFilterError,
    "responsibleaipolicyviolation": ContentFilterError,
    "ratelimiterror": RateLimitError,
    "ratelimitexceeded": RateLimitError,
    "ratelimitreached": RateLimitError,
    "toomanyrequests": RateLimitError,
    "engineoverloaded": OverloadedError,
    "overloaded": OverloadedError,
    "overloadederror": OverloadedError,
    "timeout": UpstreamTimeout,
    "timeouterror": UpstreamTimeout,
    "invalidvalue": BadRequestError,
    "toolusefailed": BadRequestError,
    "unsupportedparameter": BadRequestError,
    "unsupportedvalue": BadRequestError,
}

_WEAK: dict[str, type[ProviderError]] = {
    "apierror": ServerError,
    "internalservererror": ServerError,
    "invalidrequesterror": BadRequestError,
    "servererror": ServerError,
}

_STATUS: dict[int, type[ProviderError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: QuotaError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: UpstreamTimeout,
    413: RequestTooLargeError,
    422: BadRequestError,
    429: RateLimitError,
    498: AuthenticationError,
    499: UpstreamTimeout,
    503: OverloadedError,
    504: UpstreamTimeout,
    529: OverloadedError,
}

# Words of a prompt that is too long, with the counts where they are told.
_TOO_LONG = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"context length is (?P<context>\d+) .*?(?:requested|resulted in)\D*(?P<prompt>\d+) tokens",
        r"prompt is too long: (?P<prompt>\d+) tokens > (?P<context>\d+)",
        r"token count \(?(?P<prompt>\d+)\)? exceeds the maximum.*?allowed \(?(?P<context>\d+)",
        r"request \((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<context>\d+)",
        r"maximum context length is (?P<context>\d+)",
        r"exceeds the available context size",
        r"exceed(?:s|ed|ing)? (?:the )?(?:max(?:imum)? )?context (?:length|window|size)",
        r"exceeds the maximum number of tokens",
        r"prompt (?:is )?too long",
    )
)

_HINTS: dict[type[ProviderError], str] = {
    AuthenticationError: "Check the provider's API key.",
    QuotaError: "Check the plan and the spending limit of the account.",
    NotFoundError: "Check the model's name and the base URL.",
    ContextLengthError: "Send a shorter prompt, or use a model with a larger context.",
}

_SECRETS = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|pplx|hf|nvapi|csk|fw|r8|key|AIza)[-_]?[A-Za-z0-9][A-Za-z0-9_*\-]{10,}"
    r"|(?<=Bearer )\S+"
    r"|(?<=provided: )\S*[A-Za-z0-9*](?=[.,]?(?:\s|$))",
    re.IGNORECASE,
)


def scrub(text: str) -> str:
    """The text without anything that looks like a key: services like to quote the key they got."""
    return _SECRETS.sub("[key]", text)


def make_error(
    status: int | None,
    *,
    message: str = "",
    codes: tuple[object, ...] = (),
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    prompt_tokens: object = None,
    context_tokens: object = None,
) -> ProviderError:
    """The error for what a service said.

    Args:
        status: HTTP status; None or one below 400 counts as unknown.
        message: the service's words.
        codes: its codes and types, the most telling first; any JSON values.
        headers: of the reply, names in lower case, for retry hints.
        body: as received.
        prompt_tokens, context_tokens: counts that the body tells, if any.
    """
    headers = headers or {}
    words = [str(code) for code in codes if isinstance(code, str | int) and code != ""]
    status = _status(status, words)
    kind = _kind(status, words, message)
    counts = _counts(message, prompt_tokens, context_tokens)
    error = kind(
        scrub(_sentence(message, status, kind, counts)),
        hint=_HINTS.get(kind, ""),
        status=status,
        retryable=should_retry(headers),
        code=words[0] if words else None,
        retry_after=retry_after(headers, limited=kind in (RateLimitError, OverloadedError)),
        body=scrub(body[:BODY_LIMIT].decode("utf-8", "replace")) if body else None,
    )
    if isinstance(error, ContextLengthError):
        error.prompt_tokens, error.context_tokens = counts
    return error


def _status(status: int | None, words: list[str]) -> int | None:
    if status is not None and status >= 400:
        return status
    told = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) == 3]
    return next((number for number in told if 400 <= number <= 599), None)


def _kind(status: int | None, words: list[str], message: str) -> type[ProviderError]:
    plain = [re.sub(r"[^a-z0-9]", "", word.lower()) for word in words]
    for word in plain:
        if word in _CODES:
            return _CODES[word]
    kind = _STATUS.get(status) if status is not None else None
    if kind is None and status is not None:
        kind = BadRequestError if status < 500 else ServerError
    if kind is None:
        kind = next((_WEAK[word] for word in plain if word in _WEAK), ServerError)
    if kind in (BadRequestError, RequestTooLargeError) and _too_long(message):
        return ContextLengthError
    return kind


def _too_long(message: str) -> re.Match[str] | None:
    found = (pattern.search(message) for pattern in _TOO_LONG)
    return next((match for match in found if match), None)


def _counts(message: str, prompt: object, context: object) -> tuple[int | None, int | None]:
    match = _too_long(message)
    groups = match.groupdict() if match else {}
    told = (prompt or groups.get("prompt"), context or groups.get("context"))
    first, second = (_count(value) for value in told)
    return first, second


def _count(value: object) -> int | None:
    if isinstance(value, str) and len(value) < 16 and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _sentence(
    message: str,
    status: int | None,
    kind: type[ProviderError],
    counts: tuple[int | None, int | None],
) -> str:
    text = message.strip()[:_MESSAGE_LIMIT]
    if not text:
        text = "The service answered with an error" + (f" {status}." if status else ".")
    if kind is ContextLengthError and None not in counts:
        prompt, context = counts
        if not (str(prompt) in text and str(context) in text):
            text = f"{text} The prompt has {prompt} tokens and the context {context}."
    return text


def should_retry(headers: Mapping[str, str]) -> bool | None:
    """What the service itself says about trying again (`x-should-retry`), or None."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").lower())


def retry_after(headers: Mapping[str, str], *, limited: bool = True) -> float | None:
    """Seconds that the service asks to wait, or None.

    `retry-after-ms`, then `retry-after` (seconds, or a date, which counts from the reply's own
    `date`), then, where a limit is the cause, the `x-ratelimit-reset-*` of what is used up.
    """
    for value in (
        _seconds(headers.get("retry-after-ms"), 1000),
        _seconds(headers.get("retry-after"), 1),
        _until(headers.get("retry-after"), headers.get("date")),
    ):
        if value is not None:
            return value
    return _reset(headers) if limited else None


def _seconds(text: str | None, unit: int) -> float | None:
    try:
        value = float(text or "") / unit
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until(when: str | None, now: str | None) -> float | None:
    if not when or not now:
        return None
    from email.utils import parsedate_to_datetime  # slow to import, and dates are rare

    try:
        wait = parsedate_to_datetime(when) - parsedate_to_datetime(now)
    except (ValueError, TypeError):
        return None
    return max(0.0, wait.total_seconds())


_RESET = "x-ratelimit-reset-"
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s|d)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _reset(headers: Mapping[str, str]) -> float | None:
    waits = [
        wait
        for name, text in headers.items()
        if name.startswith(_RESET)
        and headers.get("x-ratelimit-remaining-" + name.removeprefix(_RESET)) in ("0", None)
        and (wait := _duration(text)) is not None
    ]
    return max(waits, default=None)


def _duration(text: str) -> float | None:
    """Seconds in Go's way of writing them: `6m0s`, `120ms`, `1.5s`."""
    pieces = _DURATION.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        return _seconds(text, 1)
    return float(sum(float(number) * _UNITS[unit] for number, unit in pieces))


def first_text(*values: Any) -> str:
    """The first of these that is a string and not empty."""
    return next((value for value in values if isinstance(value, str) and value), "")
