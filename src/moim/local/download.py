"""One file over HTTP, of which the hash is known; another process can go on where this one died.

The bytes grow in `<name>-partial`. Beside it `<name>-partial.json` says how many of them are
durable, so that neither a kill nor a power cut makes a resumed download wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urljoin, urlsplit, urlunsplit

import msgspec
from msgspec import Struct

from moim.errors import PullError, StoreError
from moim.local import disk
from moim.local.manifest import Digest

if TYPE_CHECKING:
    from types import TracebackType

    from urllib3 import BaseHTTPResponse, PoolManager

__all__ = [
    "Limits",
    "OnProgress",
    "Phase",
    "Progress",
    "download",
    "progress_so_far",
    "remove_partial",
    "without_secrets",
]

Phase = Literal["resolve", "download", "verify", "extract", "write"]


class Progress(Struct, frozen=True):
    """How far a pull is.

    Attributes:
        phase: what is being done.
        completed: bytes done in this phase.
        total: bytes of this phase; None while nobody knows.
    """

    phase: Phase
    completed: int = 0
    total: int | None = None


OnProgress = Callable[[Progress], None]


class Limits(Struct, frozen=True, kw_only=True):
    """When a download gives up.

    Attributes:
        attempts: connections in a row that bring less than `enough` bytes.
        enough: bytes after which a connection counts as a good one.
        backoff: seconds before the second attempt; doubles each time, up to 30.
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds without a byte after which the connection is given up.
        max_bytes: size above which nothing is downloaded.
        redirects: how many are followed.
        checkpoint_bytes, checkpoint_seconds: after how much of either, whichever comes first,
            what has arrived is made durable.
    """

    attempts: int = 5
    enough: int = 1 << 20
    backoff: float = 1.0
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    max_bytes: int = 256 << 30
    redirects: int = 5
    checkpoint_bytes: int = 8 << 20
    checkpoint_seconds: float = 2.0


class _Checkpoint(Struct):
    digest: str
    completed: int
    size: int | None
    etag: str


_CHUNK = 1 << 18
_LONGEST_WAIT = 30.0
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)")
_TRY_AGAIN = "What arrived is kept: pull again to go on."


def download(
    url: str,
    digest: Digest,
    path: Path,
    *,
    pool: PoolManager,
    size: int | None = None,
    credentials: Callable[[str], str | None] = lambda url: None,
    on_size: Callable[[int], None] = lambda size: None,
    on_progress: OnProgress = lambda progress: None,
    limits: Limits = Limits(),  # noqa: B008 (a frozen value)
) -> None:
    """Downloads to `path` what has that digest, going on from what is there.

    Args:
        url: where it is; http or https. A user and password in it are used and never shown.
        digest: its sha256.
        path: where it grows. When this returns it is whole, verified and durable.
        pool: makes the connections, with their proxy and certificate authorities.
        size: its length in bytes, if that is known beforehand.
        credentials: the value of `Authorization` for an address that wants one, or None.
        on_size: called with the number of bytes still to come as soon as it is known; what it
            raises ends the download.
        on_progress: called often.
        limits: when to give up.

    Raises:
        PullError: the server refuses, lies, is gone, or sends something else. Unless the message
            says otherwise what arrived is kept.
        StoreError: the disk refuses.
    """
    with _Partial(path, digest, limits) as partial:
        partial.resume(lambda n: on_progress(Progress("verify", n, partial.size)))
        if size is not None and partial.size not in (None, size):
            partial.reset()
        if not partial.is_complete:
            fetcher = _Fetcher(pool, url, partial, size, credentials, limits)
            fetcher.run(on_size, on_progress)
        partial.check()


def progress_so_far(path: Path) -> Progress:
    """How far another process is with the download to `path`."""
    checkpoint = _read_checkpoint(_sidecar(path))
    if checkpoint is None:
        return Progress("download")
    return Progress("download", checkpoint.completed, checkpoint.size)


def remove_partial(path: Path) -> None:
    """Forgets the download to `path`.

    Raises:
        StoreError: the disk refuses.
    """
    with disk.storage_errors("remove a finished download", path):
        # The sidecar first: without it the bytes count as nothing.
        _sidecar(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def without_secrets(url: str) -> str:
    """`url` as it may be shown: without user, password, query and fragment.

    >>> without_secrets("https://me:secret@host.example/x.whl?token=1")
    'https://host.example/x.whl'
    """
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return "an address that cannot be read"


class _Partial:
    """The bytes on disk, and what is known of them."""

    def __init__(self, path: Path, digest: Digest, limits: Limits) -> None:
        self.path = path
        self.digest = digest
        self.completed = 0
        self.size: int | None = None
        self.etag = ""
        self._limits = limits
        self._hasher = hashlib.sha256()
        self._durable = 0
        self._saved_at = time.monotonic()

    def __enter__(self) -> _Partial:
        with disk.storage_errors("write a download", self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
            # No buffer: what was written is in the file when the next error comes.
            self._file = self.path.open("r+b", buffering=0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # On a full disk the last durable checkpoint stands.
        with contextlib.suppress(StoreError):
            if kind is not None and self.completed > self._durable:
                self.save()
        self._file.close()
        if kind is not None and self.completed == self._durable == 0:
            with contextlib.suppress(StoreError):
                remove_partial(self.path)

    @property
    def is_complete(self) -> bool:
        return self.size is not None and self.completed == self.size

    def resume(self, on_bytes: Callable[[int], None]) -> None:
        """Takes over what an earlier process has left."""
        checkpoint = _read_checkpoint(_sidecar(self.path))
        if checkpoint is None or checkpoint.digest != str(self.digest):
            return self.reset()
        # From the start, so that an interruption while the bytes are read leaves the checkpoint.
        self.size, self.etag, self._durable = checkpoint.size, checkpoint.etag, checkpoint.completed
        with disk.storage_errors("read a download", self.path):
            if os.fstat(self._file.fileno()).st_size < checkpoint.completed:
                return self.reset()
            while self.completed < checkpoint.completed:
                chunk = self._file.read(min(1 << 20, checkpoint.completed - self.completed))
                if not chunk:
                    return self.reset()
                self._hasher.update(chunk)
                self.completed += len(chunk)
                on_bytes(self.completed)
            self._file.truncate(self.completed)
        return None

    def reset(self) -> None:
        """Begins anew."""
        with disk.storage_errors("write a download", self.path):
            _sidecar(self.path).unlink(missing_ok=True)
            self._file.seek(0)
            self._file.truncate(0)
        self._hasher = hashlib.sha256()
        self.completed = self._durable = 0
        self.size, self.etag = None, ""

    def write(self, chunk: bytes) -> None:
        self._hasher.update(chunk)
        with disk.storage_errors("write a download", self.path):
            disk.write_all(self._file, chunk)
        self.completed += len(chunk)
        fresh = self.completed - self._durable
        since = time.monotonic() - self._saved_at
        if fresh >= self._limits.checkpoint_bytes or since >= self._limits.checkpoint_seconds:
            self.save()

    def save(self) -> None:
        """Makes durable what has arrived, then says so in the sidecar."""
        with disk.storage_errors("write a download", self.path):
            os.fsync(self._file.fileno())
        state = _Checkpoint(str(self.digest), self.completed, self.size, self.etag)
        sidecar = _sidecar(self.path)
        disk.write_atomically(
            sidecar, msgspec.json.encode(state), sidecar.with_name(f"{sidecar.name}.tmp")
        )
        self._durable = self.completed
        self._saved_at = time.monotonic()

    def check(self) -> None:
        """Ends a whole download: either it has the right hash, or nothing of it stays."""
        actual = Digest(self._hasher.hexdigest())
        if actual == self.digest:
            return self.save()
        count = self.completed
        self.reset()
        raise PullError(
            f"The {count} bytes that arrived have the hash {actual} and not {self.digest}. "
            "They were thrown away.",
            hint="Pull again; if it stays so, the server or something before it changes the file.",
        )


class _Fetcher:
    """Connections to one server until all bytes are there."""

    def __init__(
        self,
        pool: PoolManager,
        url: str,
        partial: _Partial,
        size: int | None,
        credentials: Callable[[str], str | None],
        limits: Limits,
    ) -> None:
        self._pool = pool
        self._partial = partial
        self._size = size
        self._credentials = credentials
        self._limits = limits
        self._authorization: dict[tuple[str, str], str] = {}
        self._asks_for_ranges = True
        self._retry_after: int | None = None
        self._url = self._take_credentials(url)

    def run(self, on_size: Callable[[int], None], on_progress: OnProgress) -> None:
        failures = 0
        told = False
        while True:
            before = self._partial.completed
            try:
                with contextlib.closing(self._open()) as response:
                    if self._begin(response):
                        if not told and self._partial.size is not None:
                            on_size(self._partial.size - self._partial.completed)
                            told = True
                        self._receive(response, on_progress)
                return
            except PullError as error:
                gained = self._partial.completed - before
                failures = 0 if gained >= self._limits.enough else failures + 1
                if not error.retryable or failures >= self._limits.attempts:
                    raise
                time.sleep(self._pause(failures))

    def _pause(self, failures: int) -> float:
        asked, self._retry_after = self._retry_after, None
        own = self._limits.backoff * 2 ** max(0, failures - 1)
        return min(own if asked is None else asked, _LONGEST_WAIT)

    def _open(self) -> BaseHTTPResponse:
        """The answer at the end of the redirects."""
        url = self._url
        for _ in range(self._limits.redirects + 1):
            response = self._get(url)
            location = response.headers.get("Location")
            if response.status in (401, 403) and self._learn_credentials(url):
                response.close()
                continue
            if response.status not in _REDIRECTS or not location:
                return response
            response.close()
            url = self._redirected(url, location)
        raise PullError(f"{without_secrets(self._url)} redirects without end.", hint=_ASK_INDEX)

    def _get(self, url: str) -> BaseHTTPResponse:
        from urllib3 import Timeout

        limits = self._limits
        with _network_errors(url):
            return self._pool.request(
                "GET",
                url,
                headers=self._headers(url),
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=Timeout(connect=limits.connect_timeout, read=limits.read_timeout),
            )

    def _headers(self, url: str) -> dict[str, str]:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        # By origin: a redirect to another host never gets the credentials of the first.
        if authorization := self._authorization.get(_origin(url)):
            headers["Authorization"] = authorization
        if self._partial.completed and self._asks_for_ranges:
            headers["Range"] = f"bytes={self._partial.completed}-"
            # Without a strong ETag the hash alone tells whether the pieces belong together.
            if self._partial.etag.startswith('"'):
                headers["If-Range"] = self._partial.etag
        return headers

    def _begin(self, response: BaseHTTPResponse) -> bool:
        """Prepares for the body; False where there is nothing to receive."""
        partial = self._partial
        if response.status == 416:
            return self._not_satisfiable(response)
        if response.status not in (200, 206):
            raise self._refused(response)
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise PullError(
                f"{without_secrets(self._url)} sends the file encoded ({encoding[:20]}), "
                "which was not asked for.",
                hint=_ASK_INDEX,
            )
        if response.status == 206:
            total = self._range_total(response)
        else:
            partial.reset()
            total = _number(response.headers.get("Content-Length"))
        self._check_total(total)
        partial.size = total
        partial.etag = response.headers.get("ETag", "")
        return True

    def _not_satisfiable(self, response: BaseHTTPResponse) -> bool:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match and match[3] == str(self._partial.completed):
            self._partial.size = self._partial.completed
            return False
        raise self._start_over("does not have the rest of the file")

    def _range_total(self, response: BaseHTTPResponse) -> int | None:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or match[1] != str(self._partial.completed):
            raise self._start_over("sends another range than was asked for")
        total = _number(match[3])
        if self._partial.size is not None and total is not None and total != self._partial.size:
            raise self._start_over("has another file there now")
        return total if total is not None else self._partial.size

    def _start_over(self, reason: str) -> PullError:
        self._partial.reset()
        self._asks_for_ranges = False
        return PullError(
            f"{without_secrets(self._url)} {reason}; the download begins anew.", retryable=True
        )

    def _check_total(self, total: int | None) -> None:
        if total is None:
            return
        if self._size is not None and total != self._size:
            raise PullError(
                f"{without_secrets(self._url)} has {total} bytes where {self._size} are expected.",
                hint=_ASK_INDEX,
            )
        if total > self._limits.max_bytes:
            raise PullError(
                f"{without_secrets(self._url)} has {total} bytes; the limit is "
                f"{self._limits.max_bytes}.",
                hint=_ASK_INDEX,
            )

    def _receive(self, response: BaseHTTPResponse, on_progress: OnProgress) -> None:
        partial = self._partial
        ceiling = partial.size if partial.size is not None else self._size
        ceiling = self._limits.max_bytes if ceiling is None else ceiling
        on_progress(Progress("download", partial.completed, partial.size))
        while True:
            with _network_errors(self._url):
                chunk = response.read1(_CHUNK)
            if not chunk:
                break
            if partial.completed + len(chunk) > ceiling:
                count = partial.completed + len(chunk)
                partial.reset()
                raise PullError(
                    f"{without_secrets(self._url)} sends more than {ceiling} bytes (at least "
                    f"{count}). What arrived was thrown away.",
                    hint=_ASK_INDEX,
                )
            partial.write(chunk)
            on_progress(Progress("download", partial.completed, partial.size))
        if partial.size is None:
            partial.size = partial.completed
        if not partial.is_complete:
            raise PullError(
                f"{without_secrets(self._url)} ended after {partial.completed} of "
                f"{partial.size} bytes.",
                hint=_TRY_AGAIN,
                retryable=True,
            )

    def _refused(self, response: BaseHTTPResponse) -> PullError:
        status = response.status
        what, hint = _REFUSALS.get(status, ("refuses it", _TRY_AGAIN))
        self._retry_after = _number(response.headers.get("Retry-After"))
        return PullError(
            f"{without_secrets(self._url)} {what} (status {status}).",
            hint=hint,
            status=status,
            retryable=status in _RETRIED,
        )

    def _redirected(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        scheme = _origin(target)[0]
        if scheme not in ("http", "https") or (scheme == "http" and url.startswith("https")):
            raise PullError(
                f"{without_secrets(url)} redirects to {without_secrets(target)}, which is not "
                "safe to follow.",
                hint=_ASK_INDEX,
            )
        return target

    def _take_credentials(self, url: str) -> str:
        import base64
        from urllib.parse import unquote

        try:
            parts = urlsplit(url)
            user, password = unquote(parts.username or ""), unquote(parts.password or "")
        except ValueError:
            raise PullError("The index gives an address that cannot be read.") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PullError(
                f"{without_secrets(url)} cannot be downloaded: only http and https can.",
                hint=_ASK_INDEX,
            )
        clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        if user or password:
            pair = base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
            self._authorization[_origin(clean)] = f"Basic {pair}"
        return clean

    def _learn_credentials(self, url: str) -> bool:
        origin = _origin(url)
        if origin in self._authorization:
            return False
        self._authorization[origin] = self._credentials(url) or ""
        return bool(self._authorization[origin])


_ASK_INDEX = "Ask whoever runs that package index."
_REFUSALS = {
    401: (
        "wants a user and a password",
        "Give pip the credentials of that index, or use ~/.netrc.",
    ),
    403: ("does not let this user have it", "Give pip the credentials of that index."),
    404: ("is gone", "Pull again; if it stays so, ask whoever runs that package index."),
    407: ("is behind a proxy that wants a password", "Put user and password in the proxy's URL."),
    410: ("is gone", "Pull another version."),
    429: ("is asked too often", "Wait a while, then pull again: what arrived is kept."),
}


@contextlib.contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """Turns what urllib3 raises in the block into a `PullError`."""
    from urllib3 import exceptions as failed

    try:
        yield
    except failed.HTTPError as error:
        text, retryable, hint = next(
            (row[1:] for row in _network_table() if isinstance(error, row[0])),
            (f"failed ({type(error).__name__})", True, _TRY_AGAIN),
        )
        raise PullError(
            f"The connection to {_origin(url)[1]} {text}.", hint=hint, retryable=retryable
        ) from error


def _network_table() -> tuple[tuple[type[Exception], str, bool, str], ...]:
    from urllib3 import exceptions as failed

    certificates = "If the network has its own certificate authority, set MOIM_CA_FILE to its file."
    proxy = "Check the proxy settings (HTTPS_PROXY, MOIM_PROXY)."
    network = f"Check the network. {_TRY_AGAIN}"
    # In this order: what the name servers say is also a connection error, and that also a timeout.
    return (
        (failed.SSLError, "is not trusted: its certificate is not valid", False, certificates),
        (failed.ProxyError, "failed at the proxy", True, proxy),
        (failed.ReadTimeoutError, "stalled", True, network),
        (failed.NameResolutionError, "failed: nobody knows that host", True, network),
        (failed.NewConnectionError, "was refused", True, network),
        (failed.ConnectTimeoutError, "could not be made in time", True, network),
        (failed.LocationValueError, "failed: the address is malformed", False, _ASK_INDEX),
        (failed.ProtocolError, "broke off", True, network),
    )


def _origin(url: str) -> tuple[str, str]:
    """Scheme, and host with port."""
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.netloc.rpartition("@")[2].lower()
    except ValueError:
        return "", ""


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read_checkpoint(sidecar: Path) -> _Checkpoint | None:
    """What the sidecar says; None where it says nothing that can be trusted."""
    try:
        checkpoint = msgspec.json.decode(sidecar.read_bytes(), type=_Checkpoint)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    sound = 0 <= checkpoint.completed <= (checkpoint.size or checkpoint.completed)
    return checkpoint if sound else None
