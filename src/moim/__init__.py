"""One library and one local server in front of every language model.

The front door is lazy: a name's module is imported on first use, so `import moim` costs a program
next to nothing until it calls something.
"""

from __future__ import annotations

__version__ = "0.1.0"

# Not from `typing`, whose import alone would cost more than everything else here. Type checkers
# know a constant of this name.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from moim.client import AsyncStream as AsyncStream
    from moim.client import Model as Model
    from moim.client import Options as Options
    from moim.client import Stream as Stream
    from moim.client import model as model
    from moim.client import run as run
    from moim.errors import *  # noqa: F403
    from moim.local import LocalModel as LocalModel
    from moim.local import Progress as Progress
    from moim.local import local_models as local_models
    from moim.local import pull as pull
    from moim.local import remove as remove
    from moim.transport import Timeouts as Timeouts
    from moim.types import Alternative as Alternative
    from moim.types import Audio as Audio
    from moim.types import Citation as Citation
    from moim.types import File as File
    from moim.types import Image as Image
    from moim.types import JSONFormat as JSONFormat
    from moim.types import Message as Message
    from moim.types import Reasoning as Reasoning
    from moim.types import Refusal as Refusal
    from moim.types import Reply as Reply
    from moim.types import Request as Request
    from moim.types import Source as Source
    from moim.types import Text as Text
    from moim.types import Thinking as Thinking
    from moim.types import TokenLogprob as TokenLogprob
    from moim.types import Tool as Tool
    from moim.types import ToolCall as ToolCall
    from moim.types import ToolChoice as ToolChoice
    from moim.types import ToolResult as ToolResult
    from moim.types import Usage as Usage
    from moim.types import Video as Video
    from moim.types import Warned as Warned
    from moim.types import assistant as assistant
    from moim.types import developer as developer
    from moim.types import system as system
    from moim.types import tool as tool
    from moim.types import user as user

_MODULES = {
    "moim.client": "AsyncStream Model Options Stream model run",
    "moim.errors": (
        "AuthenticationError BadRequestError BudgetError CacheError CallTimeout Cancelled"
        " ConfigError ConnectError ContentFilterError ContextLengthError DecodeError LoadError"
        " LocalError MissingExtra MissingKey ModelFileError ModelTooLarge MoimError NotFoundError"
        " OfflineError OverloadedError ParseError PermissionDeniedError ProviderError PullError"
        " QuotaError RateLimitError RequestError RequestTooLargeError RunnerError ServerError"
        " StoreError StreamBroken SuspendedError ToolError TransportError UnknownModel"
        " UnsupportedError UpstreamTimeout"
    ),
    "moim.local": "LocalModel Progress local_models pull remove",
    "moim.transport": "Timeouts",
    "moim.types": (
        "Alternative Audio Citation File Image JSONFormat Message Reasoning Refusal Reply Request"
        " Source Text Thinking TokenLogprob Tool ToolCall ToolChoice ToolResult Usage Video Warned"
        " assistant developer system tool user"
    ),
}
_TABLE = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted([*_TABLE, "__version__"])

if not TYPE_CHECKING:  # hidden from type checkers, who would believe in any name at all

    def __getattr__(name: str) -> object:
        module = _TABLE.get(name)
        if module is None:
            raise AttributeError(f"module 'moim' has no attribute {name!r}", name=name)
        from importlib import import_module

        value = globals()[name] = getattr(import_module(module), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
