"""`MOIM_LOG`: what goes over the wire, one line per event, without a key and without content.

Everything is hidden but what a table here allows: which names, which words, which numbers. So a
field that a vendor invents tomorrow is hidden too.

`info`   a line per exchange: request, status, time, sizes
`debug`  its headers too
`wire`   its JSON bodies and each piece of a stream too, as structure
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from moim.errors import ConfigError

__all__ = ["DEBUG", "INFO", "LEVELS", "OFF", "UNSET", "WIRE", "Entry", "configure", "level"]

UNSET, OFF, INFO, DEBUG, WIRE = range(-1, 4)
LEVELS = {"off": OFF, "info": INFO, "debug": DEBUG, "wire": WIRE}

level = UNSET
"""The level in force; UNSET until the first call asks the settings. Reading it is all that a call
costs while the log is off."""

_logger = logging.getLogger("moim")
_handler: logging.Handler | None = None

_LARGEST_BODY = 1 << 20
_LONGEST_LINE = 1 << 16
_DEEPEST = 24
_MOST_ITEMS = 8


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SHOWN_HEADERS = _words(
    "accept accept-encoding age cache-control connection content-encoding content-language "
    "content-length content-type date keep-alive retry-after retry-after-ms transfer-encoding "
    "vary x-should-retry openai-processing-ms x-ratelimit-limit-requests "
    "x-ratelimit-limit-tokens x-ratelimit-remaining-requests x-ratelimit-remaining-tokens "
    "x-ratelimit-reset-requests x-ratelimit-reset-tokens"
)
_HEADER_NAMES = _SHOWN_HEADERS | _words(
    "accept-ranges access-control-allow-origin alt-svc anthropic-beta anthropic-version "
    "api-key authorization cf-cache-status cf-ray content-disposition cookie etag host "
    "last-modified location openai-organization openai-project openai-version proxy-authorization "
    "request-id server set-cookie strict-transport-security user-agent via x-api-key "
    "x-content-type-options x-goog-api-key x-request-id"
)
_WORDS = _words(
    "acknowledged any application array assistant audio auto base64 between boolean bytes cache "
    "call calls chat chatcmpl chunk chunked close completed completion completions content "
    "content_block_delta content_block_start content_block_stop content_filter created delta "
    "deflate delete developer document done embedding embeddings end_turn ephemeral error "
    "event-stream failed false file float function function_call generate grammar gzip high "
    "identity image image_url in_progress incomplete input_audio input_file input_image "
    "input_json_delta input_text integer json json_object json_schema keep-alive length list low "
    "max max-age max_tokens medium message message_delta message_start message_stop minimal model "
    "model_context_window_exceeded models must-revalidate no-cache no-store none null number "
    "object ok output_text pause_turn ping private public queued reasoning recitation refusal "
    "required response responses safety signature_delta stop stop_sequence store string "
    "summary_text system text text_delta thinking thinking_delta tool tool_call tool_calls "
    "tool_choice tool_result tool_use true user utf-8 video x-ndjson chat.completion "
    "chat.completion.chunk text_completion authentication_error invalid_request_error "
    "invalid_api_key rate_limit_error rate_limit_exceeded overloaded_error server_error "
    "insufficient_quota context_length_exceeded exceed_context_size_error not_found_error "
    "api_error permission_error timeout"
)
_PATH_WORDS = _WORDS | _words(
    "v1 v1beta v1alpha v2 v3 v4 api openai anthropic messages rerank embed tags show batches "
    "count_tokens deployments engines tokenize apply-template health props generateContent "
    "streamGenerateContent countTokens inference beta proxy gateway audio speech"
)
_MODEL_PARENTS = frozenset({"models", "deployments", "engines"})
_WORD_KEYS = _words(
    "role type object finish_reason native_finish_reason stop_reason status reason effort detail "
    "tool_choice mode format encoding_format response_format service_tier media_type mime_type "
    "code truncation done_reason"
)
_MODEL_KEYS = frozenset({"model", "default_model", "system_fingerprint_model"})
_KEYS = (
    _WORD_KEYS
    | _MODEL_KEYS
    | _words(
        "additionalProperties alternatives annotations arguments audio b64_json best_of "
        "cache_control cache_creation_input_tokens cache_n cache_read_input_tokens cached_tokens "
        "choices citations completion_tokens completion_tokens_details content content_block "
        "created created_at data delta description dimensions done echo embedding enum error "
        "eval_count eval_duration file file_data file_id filename frequency_penalty function "
        "function_call functions grammar id image_url include include_usage index input "
        "input_audio input_schema input_tokens input_tokens_details instructions items json_schema "
        "load_duration logit_bias logprobs max_completion_tokens max_output_tokens max_tokens "
        "message messages metadata min_p n n_ctx n_predict n_prompt_tokens name num_ctx "
        "num_predict options output output_text output_tokens output_tokens_details param "
        "parallel_tool_calls parameters parts predicted_ms predicted_n predicted_per_second "
        "predicted_per_token_ms presence_penalty prompt prompt_eval_count prompt_eval_duration "
        "prompt_ms prompt_n "
        "prompt_per_second prompt_per_token_ms prompt_tokens prompt_tokens_details properties "
        "reasoning reasoning_content reasoning_effort reasoning_tokens refusal repeat_penalty "
        "required response schema seed signature source stop stop_sequence stop_sequences store "
        "stream stream_options strict system system_fingerprint temperature text thinking "
        "timings tokens tool_call_id tool_calls tools top_k top_logprobs top_p total_duration "
        "total_tokens url usage user"
    )
)
_QUERY_KEYS = _words("after alt api-version before key limit order")

_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,6})?(ms|s|m)?")
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT")
_TOKENS = re.compile(r"[^\s,;=/\"]+")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,99}")
_LONG_RUN = re.compile(r"[A-Za-z0-9]{20}")
_KEY_LIKE = re.compile(
    r"(^|[^A-Za-z0-9])(sk|pk|rk|gsk|xai|hf|ghp|glpat|nvapi|r8|csk|fw|pplx|AIza|ya29|AKIA|eyJ)[_-]?"
    r"[A-Za-z0-9_-]{8}"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{64,}={0,2}")


def configure(name: str) -> None:
    """Set the level and, unless it is `off`, write to standard error; a second call replaces it.

    Args:
        name: `off`, `info`, `debug` or `wire`.

    Raises:
        ConfigError: another name.
    """
    global level, _handler
    if name.strip().lower() not in LEVELS:
        raise ConfigError(
            f"The log level is {name[:20]!r}.", hint=f"Set MOIM_LOG to one of {', '.join(LEVELS)}."
        )
    if _handler is not None:
        _logger.removeHandler(_handler)
        _handler = None
    level = LEVELS[name.strip().lower()]
    _logger.propagate = level == OFF
    if level == OFF:
        return
    _handler = _Stderr()
    _handler.setFormatter(logging.Formatter("%(asctime)s.%(msecs)03d moim %(message)s", "%H:%M:%S"))
    _logger.addHandler(_handler)
    _logger.setLevel(logging.DEBUG)


class _Stderr(logging.StreamHandler[Any]):
    """Whatever standard error is at the moment of writing."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


class Entry:
    """What is logged about one exchange. Made only while the log is on.

    Args:
        method: HTTP method.
        url: with everything; shown redacted.
        headers: those sent, credentials included; shown redacted.
        body: the bytes sent.
    """

    def __init__(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        self._began = time.monotonic()
        self._line = f"{method} {shown_url(url)}"
        self._sent = len(body)
        self._status: int | None = None
        self._received = 0
        self._pieces = 0
        self._tail = b""
        self._streamed = False
        self._done = False
        if level >= DEBUG:
            _write(f"> {self._line} {shown_headers(headers)}")
        if level >= WIRE and body:
            _write(f"> body {shown_body(body)}")

    def replied(self, status: int, headers: Mapping[str, str]) -> None:
        """The reply's head is here."""
        self._status = status
        self._streamed = "event-stream" in headers.get("content-type", "")
        if level >= DEBUG:
            _write(f"< {status} after {self._elapsed()} {shown_headers(headers)}")

    def received(self, piece: bytes) -> None:
        """A piece of the body is here; an empty one is its end."""
        if not piece:
            self._finish("")
            return
        self._received += len(piece)
        self._pieces += 1
        if level < WIRE:
            return
        if self._streamed:
            _write(f"< piece of {len(piece)} bytes after {self._elapsed()}")
        whole = self._tail + piece
        if self._streamed:
            *lines, self._tail = whole[-_LONGEST_LINE:].split(b"\n")
            for line in lines:
                if line.strip():
                    _write(f"< {_shown_line(line)}")
        elif len(whole) <= _LARGEST_BODY:
            self._tail = whole

    def failed(self, error: BaseException) -> None:
        """The exchange ended with an error, which is named and not quoted."""
        self._finish(f" {type(error).__name__}")

    def closed(self) -> None:
        """Our own side ended the exchange."""
        self._finish(" closed")

    def _finish(self, how: str) -> None:
        if self._done:
            return
        self._done = True
        if level >= WIRE and self._tail:
            shown = _shown_line(self._tail) if self._streamed else shown_body(self._tail)
            _write(f"< body {shown}")
        pieces = f" in {self._pieces} pieces" if self._streamed else ""
        _write(
            f"{self._line} {self._status or '-'}{how} {self._elapsed()}, "
            f"sent {self._sent} bytes, received {self._received} bytes{pieces}"
        )

    def _elapsed(self) -> str:
        return f"{(time.monotonic() - self._began) * 1000:.0f} ms"


def _write(line: str) -> None:
    _logger.log(logging.INFO, "%s", line.replace("\r", " ").replace("\n", " "))


def shown_url(url: str) -> str:
    """A URL with its host and known words of its path; user, password and values are `***`."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "***"
    login = "***@" if parts.username is not None else ""
    path = "/".join(_path_segments(parts.path.split("/")))
    query = "&".join(_shown_parameter(pair) for pair in parts.query.split("&") if pair)
    return (
        f"{parts.scheme}://{login}{parts.hostname or ''}{port}{path}{'?' if query else ''}{query}"
    )


def _path_segments(segments: list[str]) -> Iterable[str]:
    parent = ""
    for segment in segments:
        name, colon, verb = segment.partition(":")
        if parent in _MODEL_PARENTS and name:
            yield _shown_model(name) + (f":{_shown_path_word(verb)}" if colon else "")
        else:
            yield _shown_path_word(segment)
        parent = segment


def _shown_path_word(word: str) -> str:
    return word if not word or word in _PATH_WORDS else "***"


def _shown_parameter(pair: str) -> str:
    name = pair.partition("=")[0]
    return f"{name if name in _QUERY_KEYS else '***'}=***"


def shown_headers(headers: Mapping[str, str]) -> str:
    """Headers as `name: value`; an unknown name or a value that no table allows is `***`."""
    return ", ".join(f"{_shown_name(n)}: {_shown_value(n, v)}" for n, v in headers.items())


def _shown_name(name: str) -> str:
    return name.lower() if name.lower() in _HEADER_NAMES else "***"


def _shown_value(name: str, value: str) -> str:
    if name.lower() not in _SHOWN_HEADERS:
        return "***"
    if _NUMBER.fullmatch(value) or _HTTP_DATE.fullmatch(value) or value == "*/*":
        return value
    words = _TOKENS.findall(value.lower())
    ordinary = all(
        word in _WORDS or word in _HEADER_NAMES or word in ("charset", "timeout", "origin")
        or _NUMBER.fullmatch(word)
        for word in words
    )  # fmt: skip
    return value if ordinary else "***"


def shown_body(body: bytes) -> str:
    """A JSON body as its structure, anything else as its size."""
    if len(body) > _LARGEST_BODY:
        return f"<{len(body)} bytes>"
    import msgspec

    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return f"<{len(body)} bytes>"
    return msgspec.json.encode(_shape(decoded)).decode()


def _shown_line(line: bytes) -> str:
    field, colon, value = line.strip().partition(b":")
    value = value.strip()
    if not colon or field not in (b"data", b"event", b"id", b"retry"):
        return shown_body(line.strip())
    if field == b"data" and value != b"[DONE]":
        return f"data: {shown_body(value)}"
    text = value.decode("utf-8", "replace")
    return f"{field.decode()}: {text if text in _WORDS or text == '[DONE]' else '***'}"


def _shape(value: Any, key: str = "", depth: int = 0) -> Any:
    """The value with its structure kept and its content measured."""
    if isinstance(value, str):
        return _shown_text(value, key)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return value if key in _KEYS else "<number>"
    if depth >= _DEEPEST:
        return "<deeper>"
    if isinstance(value, list):
        shown = [_shape(item, key, depth + 1) for item in value[:_MOST_ITEMS]]
        more = len(value) - len(shown)
        return [*shown, f"<{more} more>"] if more else shown
    return {
        name if name in _KEYS else f"<{len(name)} chars, {n}>": _shape(item, name, depth + 1)
        for n, (name, item) in enumerate(value.items())
    }


def _shown_text(text: str, key: str) -> str:
    if key in _WORD_KEYS and text in _WORDS:
        return text
    if key in _MODEL_KEYS:
        return _shown_model(text)
    encoded = text.partition(";base64,")[2] if text.startswith("data:") else text
    if _BASE64.fullmatch(encoded):
        return f"<{len(encoded.rstrip('=')) * 3 // 4} bytes>"
    return f"<{len(text)} chars>"


def _shown_model(text: str) -> str:
    ordinary = _MODEL.fullmatch(text) and not _LONG_RUN.search(text) and not _KEY_LIKE.search(text)
    return text if ordinary else f"<{len(text)} chars>"
