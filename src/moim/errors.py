"""Every error that moim raises, as one tree.

    MoimError
      ConfigError         UnknownModel · MissingKey · MissingExtra · OfflineError
      RequestError        UnsupportedError · BudgetError · ToolError
      ProviderError       BadRequestError · AuthenticationError · PermissionDeniedError · QuotaError
                          · NotFoundError · RequestTooLargeError · ContextLengthError
                          · ContentFilterError · RateLimitError · OverloadedError
                          · UpstreamTimeout · ServerError
      TransportError      ConnectError · CallTimeout (also TimeoutError) · StreamBroken · Cancelled
      DecodeError · ParseError · LoadError · CacheError
      LocalError          PullError · StoreError · ModelFileError · ModelTooLarge · RunnerError
      SuspendedError

An error's text says what happened and to what; its `hint` says what to do next. Neither ever
holds a key.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AuthenticationError",
    "BadRequestError",
    "BudgetError",
    "CacheError",
    "CallTimeout",
    "Cancelled",
    "ConfigError",
    "ConnectError",
    "ContentFilterError",
    "ContextLengthError",
    "DecodeError",
    "LoadError",
    "LocalError",
    "MissingExtra",
    "MissingKey",
    "ModelFileError",
    "ModelTooLarge",
    "MoimError",
    "NotFoundError",
    "OfflineError",
    "OverloadedError",
    "ParseError",
    "PermissionDeniedError",
    "ProviderError",
    "PullError",
    "QuotaError",
    "RateLimitError",
    "RequestError",
    "RequestTooLargeError",
    "RunnerError",
    "ServerError",
    "StoreError",
    "StreamBroken",
    "SuspendedError",
    "ToolError",
    "TransportError",
    "UnknownModel",
    "UnsupportedError",
    "UpstreamTimeout",
]


class MoimError(Exception):
    """The root of moim's errors.

    Attributes:
        message: what happened, to which model or file.
        hint: what to do next, or an empty string.
        status: the HTTP status behind the error, or None.
        retryable: whether the same call can succeed later without any change.
    """

    retryable: bool = False
    status: int | None = None

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        status: int | None = None,
        retryable: bool | None = None,
    ) -> None:
        # The message is the only positional argument, so that pickling (which calls the class
        # with `args` and then restores `__dict__`) works for every subclass.
        super().__init__(message)
        self.message = message
        self.hint = hint
        if status is not None:
            self.status = status
        if retryable is not None:
            self.retryable = retryable

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        # Messages of services end as they like.
        stop = "" if self.message.endswith((".", "!", "?", ":", "…")) else "."
        return f"{self.message}{stop} {self.hint}"


class ConfigError(MoimError):
    """A setting, name or file that the user gave cannot be used as it is."""


class UnknownModel(ConfigError):
    """No model or provider of that name; the hint lists the nearest names."""


class MissingKey(ConfigError):
    """A provider wants an API key and none was found; names the variables that may hold it."""


class MissingExtra(ConfigError):
    """A feature needs a package that is not installed; the hint gives the install command."""


class OfflineError(ConfigError):
    """The call would have to leave this machine while `MOIM_OFFLINE=1` is set."""


class RequestError(MoimError):
    """The request is wrong in itself: nothing was sent and nothing was spent."""


class UnsupportedError(RequestError):
    """The target cannot do what the request asks for (`unsupported_parameter`)."""


class BudgetError(RequestError):
    """The call would exceed a budget."""


class ToolError(RequestError):
    """A tool's definition, arguments or run failed."""


class ProviderError(MoimError):
    """The service that serves the model answered with an error.

    Attributes:
        code: the service's own error code or type, or None.
        retry_after: seconds that the service asked to wait, or None.
        body: the service's error body, at most 64 KiB of it, decoded as UTF-8, or None.
        provider: name of the provider's row, or None.
        model: the model that was asked, or None.
    """

    default_status: ClassVar[int | None] = None

    def __init__(
        self,
        message: str = "",
        *,
        hint: str = "",
        status: int | None = None,
        retryable: bool | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        body: str | None = None,
        provider: str | None = None,
        model: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint, status=status, retryable=retryable)
        self.code = code
        self.retry_after = retry_after
        self.body = body
        self.provider = provider
        self.model = model


class BadRequestError(ProviderError):
    """The service refused the request as malformed or unsupported (400, 422)."""

    default_status = 400


class AuthenticationError(ProviderError):
    """The key is missing, wrong or expired (401)."""

    default_status = 401


class PermissionDeniedError(ProviderError):
    """The key is valid but may not do this (403)."""

    default_status = 403


class QuotaError(ProviderError):
    """Credit or a spending limit is used up (402, or 429 that waiting does not cure)."""

    default_status = 429


class NotFoundError(ProviderError):
    """The service knows no such model or path (404)."""

    default_status = 404


class RequestTooLargeError(ProviderError):
    """The body is larger than the service accepts (413)."""

    default_status = 413


class ContextLengthError(ProviderError):
    """The prompt does not fit the model's context.

    Attributes:
        prompt_tokens: tokens in the prompt, or None where the service did not say.
        context_tokens: tokens that fit the context, or None where the service did not say.
    """

    default_status = 400

    prompt_tokens: int | None = None
    context_tokens: int | None = None


class ContentFilterError(ProviderError):
    """The service refused the request for its content."""

    default_status = 400


class RateLimitError(ProviderError):
    """Too many requests or tokens a minute (429)."""

    default_status = 429
    retryable = True


class OverloadedError(ProviderError):
    """The service has no capacity just now (503, 529)."""

    default_status = 503
    retryable = True


class UpstreamTimeout(ProviderError):
    """The service itself gave up waiting (408, 499, 504)."""

    default_status = 504
    retryable = True


class ServerError(ProviderError):
    """The service failed (500, 502 and other 5xx)."""

    default_status = 500
    retryable = True


class TransportError(MoimError):
    """The exchange with the service failed below the level of its replies."""

    retryable = True


class ConnectError(TransportError):
    """No connection: refused, unreachable, name not found, TLS or proxy failure."""


class CallTimeout(TransportError, TimeoutError):
    """A deadline of the call passed; the message names which one."""


class StreamBroken(TransportError):
    """The reply ended before its terminator: what arrived is not the whole answer."""


class Cancelled(TransportError):
    """The call was closed by its own side, from another thread or task, before its end."""

    retryable = False


class DecodeError(MoimError):
    """The service answered with something that is not its dialect."""


class ParseError(MoimError):
    """A model's answer does not have the form that was asked for."""


class LoadError(MoimError):
    """A saved model, prompt or chain cannot be read back."""


class CacheError(MoimError):
    """A response cache cannot be opened or used."""


class LocalError(MoimError):
    """Something about a model on this machine."""


class PullError(LocalError):
    """A model could not be downloaded; what arrived so far is kept for the next try."""


class StoreError(LocalError):
    """The model store cannot be read or written (read-only, full disk, damaged manifest)."""


class ModelFileError(LocalError):
    """The file is not a model that can be read: not GGUF, cut short, malformed or hostile."""


class ModelTooLarge(LocalError):
    """The model and its context do not fit in this machine's free memory.

    Attributes:
        needed: bytes that the model would take, or None.
        available: bytes that are free, or None.
    """

    needed: int | None = None
    available: int | None = None


class RunnerError(LocalError):
    """The process that runs a local model failed; the message ends with its last words."""

    retryable = True


class SuspendedError(MoimError):
    """Code called without an event loop tried to wait for one; names the method to await."""
