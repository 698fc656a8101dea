"""A package index on loopback that pip can ask, and that can misbehave in the ways indexes do."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from moim.local.catalog import built_in
from moim.local.download import Limits
from moim.local.library import Library
from moim.local.manifest import Digest
from moim.local.names import PyPIName
from moim.local.sources.pip import Offer
from moim.local.sources.pypi import PyPISource
from moim.local.store import Store
from moim.testing import tiny_gguf

FAST = Limits(attempts=3, backoff=0.01, connect_timeout=2.0, read_timeout=0.3, enough=1000)


def gguf_bytes(folder: Path, seed: int = 0) -> bytes:
    """A model of some 60 kB that `inspect` accepts."""
    path = tiny_gguf.write(
        folder / f"seed-{seed}.gguf",
        seed=seed,
        embedding_length=16,
        feed_forward_length=16,
        block_count=1,
        head_count=2,
        head_count_kv=1,
    )
    data = path.read_bytes()
    path.unlink()
    return data


def make_wheel(
    package: str, version: str, files: Mapping[str, bytes], *, stored: bool = False
) -> bytes:
    """A wheel that pip accepts, with these files in it."""
    module = package.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    everything = {
        **files,
        f"{info}/METADATA": metadata(package, version),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: moim\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    buffer = io.BytesIO()
    method = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in everything.items():
            archive.writestr(zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0)), data, method)
    return buffer.getvalue()


def metadata(package: str, version: str) -> bytes:
    return f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode()


@dataclass
class Asked:
    """A request that the index had."""

    path: str
    headers: dict[str, str]
    sent: int = 0


@dataclass
class Index:
    """The index's files, its faults and its log.

    The faults concern the wheels only. `cut_after` and `stall_after` count the bytes of one
    reply; `cuts` and `stalls` say how many replies are hit.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    log: list[Asked] = field(default_factory=list)
    metadata_apart: bool = True
    hashes: bool = True
    ranges: bool = True
    etag: str | None = '"v1"'
    cut_after: int | None = None
    cuts: int = 10**9
    stall_after: int | None = None
    stalls: int = 10**9
    statuses: list[int] = field(default_factory=list)
    declared_length: int | None = None
    content_range: str | None = None
    encoding: str | None = None
    served: bytes | None = None
    redirect_to: str | None = None
    login: str | None = None
    rate: int | None = None
    chunked: bool = False
    broken: bool = False

    def add(self, package: str, version: str, wheel: bytes) -> Offer:
        """Puts a wheel on the index."""
        name = f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        self.files[name] = wheel
        return Offer(
            name=PyPIName(package=package, version=version),
            url=f"{self.url}/files/{name}",
            digest=Digest.of(wheel),
        )

    @property
    def wheel_requests(self) -> list[Asked]:
        return [asked for asked in self.log if asked.path.endswith(".whl")]

    def page(self, package: str) -> bytes | None:
        rows: list[str] = []
        for name, data in self.files.items():
            owner, version = name.split("-")[:2]
            if owner.replace("_", "-") != package:
                continue
            apart = hashlib.sha256(metadata(package, version)).hexdigest()
            about = f' data-dist-info-metadata="sha256={apart}"' if self.metadata_apart else ""
            digest = f"#sha256={hashlib.sha256(data).hexdigest()}" if self.hashes else ""
            rows.append(f'<a href="/files/{name}{digest}"{about}>{name}</a>')
        return ("<!DOCTYPE html><html><body>" + "\n".join(rows)).encode() if rows else None


@contextmanager
def serving() -> Iterator[Index]:
    """An index that answers for as long as the block runs."""
    index = Index()

    class Handler(_Handler):
        books = index

    server = _Server(("127.0.0.1", 0), Handler)
    index.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is what many tests are about."""


class _Handler(BaseHTTPRequestHandler):
    books: Index
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        asked = Asked(path, {k.lower(): v for k, v in self.headers.items()})
        self.books.log.append(asked)
        if not self._let_in():
            return None
        if self.books.broken:
            return self._plain(500, b"broken")
        if match := re.fullmatch(r"/simple/([^/]+)/", path):
            return self._page(match[1])
        name = path.rpartition("/")[2]
        if name.endswith(".whl.metadata"):
            package, version = name.split("-")[:2]
            return self._plain(200, metadata(package.replace("_", "-"), version))
        if name in self.books.files:
            return self._wheel(asked, self.books.files[name])
        return self._plain(404, b"no such file")

    def _let_in(self) -> bool:
        login = self.books.login
        wanted = "Basic " + base64.b64encode((login or "").encode()).decode()
        if login is None or self.headers.get("Authorization") == wanted:
            return True
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="index"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return False

    def _page(self, package: str) -> None:
        page = self.books.page(package)
        if page is None:
            return self._plain(404, b"no such package")
        return self._plain(200, page)

    def _plain(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _wheel(self, asked: Asked, wheel: bytes) -> None:
        books = self.books
        wheel = wheel if books.served is None else books.served
        if books.statuses:
            return self._plain(books.statuses.pop(0), b"not now")
        if books.redirect_to is not None:
            self.send_response(302)
            self.send_header("Location", books.redirect_to)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        start = self._start(len(wheel))
        if start is None:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(wheel)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        self.send_response(206 if start >= 0 else 200)
        body = wheel[max(start, 0) :]
        if start >= 0:
            whole = f"bytes {start}-{len(wheel) - 1}/{len(wheel)}"
            self.send_header("Content-Range", books.content_range or whole)
        if books.etag:
            self.send_header("ETag", books.etag)
        if books.encoding:
            self.send_header("Content-Encoding", books.encoding)
        if books.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            length = len(body) if books.declared_length is None else books.declared_length
            self.send_header("Content-Length", str(length))
        self.end_headers()
        return self._body(asked, body)

    def _start(self, size: int) -> int | None:
        """Where the asked range starts; -1 for the whole file, None for one beyond it."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        unchanged = self.headers.get("If-Range") in (None, self.books.etag)
        if match is None or not self.books.ranges or not unchanged:
            return -1
        return int(match[1]) if int(match[1]) < size else None

    def _body(self, asked: Asked, body: bytes) -> None:
        books = self.books
        cut = self._use("cuts", books.cut_after)
        stall = self._use("stalls", books.stall_after)
        try:
            for offset in range(0, len(body), 1 << 16):
                piece = body[offset : offset + (1 << 16)]
                for limit, end in ((cut, self._hang_up), (stall, self._stall)):
                    if limit is not None and asked.sent + len(piece) >= limit:
                        self._send(asked, piece[: limit - asked.sent])
                        return end()
                self._send(asked, piece)
                if books.rate:
                    time.sleep(len(piece) / books.rate)
            if books.chunked:
                self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def _use(self, counter: str, limit: int | None) -> int | None:
        left = getattr(self.books, counter)
        if limit is None or left <= 0:
            return None
        setattr(self.books, counter, left - 1)
        return limit

    def _send(self, asked: Asked, piece: bytes) -> None:
        if self.books.chunked and piece:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        else:
            self.wfile.write(piece)
        asked.sent += len(piece)

    def _hang_up(self) -> None:
        self.close_connection = True

    def _stall(self) -> None:
        self.wfile.flush()
        time.sleep(1.0)
        self.close_connection = True


@contextmanager
def asked_by_pip(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index that pip asks, and nothing else, for as long as the block runs."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    with serving() as index:
        for name, value in pip_environment(index).items():
            monkeypatch.setenv(name, value)
        yield index


def pip_environment(index: Index, **more: str) -> dict[str, str]:
    """Variables that turn pip to this index and away from everything else on the machine."""
    return {
        **{f"PIP_{name}": "" for name in ("FIND_LINKS", "EXTRA_INDEX_URL", "CONSTRAINT")},
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{index.url}/simple/",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "0",
        "PIP_DEFAULT_TIMEOUT": "5",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        **more,
    }


def library_at(root: Path, *, limits: Limits = FAST, offline: bool = False) -> Library:
    """A library with one store and nobody else's models."""
    store = Store(root, writable=True)
    return Library(
        store=store,
        catalog=built_in(),
        offline=offline,
        source=PyPISource(store=store, limits=limits),
    )


def leftovers(root: Path) -> list[str]:
    """Files of a store that belong to no model: nothing but what a resume needs may be there."""
    store = Store(root)
    models, problems = store.models()
    assert not problems, problems
    named = {d.file_name for model in models for d in model.manifest.digests}
    manifests = {str(m.name.path_below(store.manifests)) for m in models}
    files = [path for path in root.rglob("*") if path.is_file()]
    return sorted(
        str(path.relative_to(root))
        for path in files
        if path.name not in named and str(path) not in manifests
    )
