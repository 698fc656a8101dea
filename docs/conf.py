"""The documentation site: Markdown pages, and a reference that is generated from the docstrings.

docs/decisions/0004 says why it is built in this way.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from sphinx.pycode import ModuleAnalyzer

import moim

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "moim"
author = "moim contributors"
copyright = "moim contributors"
version = release = moim.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "decisions/template.md"]
html_theme = "furo"
html_title = f"moim {release}"

# A single backtick in a docstring: a link where the name is known, plain code where it is not.
default_role = "py:obj"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
# Attributes are described as they are written: their types stand in the signature already.
napoleon_custom_sections = [("Attributes", "params_style")]


class Page(NamedTuple):
    """A page of the reference: names of one module."""

    title: str
    module: str
    names: list[str]


def front(module: str) -> list[str]:
    """The names that the front door takes from a module."""
    return sorted(name for name, source in moim._TABLE.items() if source == module)


def rest(module: str) -> list[str]:
    """The names that a module exports and the front door does not."""
    return [name for name in importlib.import_module(module).__all__ if name not in moim.__all__]


def pages() -> dict[str, Page]:
    return {
        "calls": Page("Calling a model", "moim", front("moim.client") + front("moim.transport")),
        "messages": Page("Messages, requests and replies", "moim", front("moim.types")),
        "local": Page("Local models", "moim", front("moim.local")),
        "errors": Page("Errors", "moim", front("moim.errors")),
        "events": Page("Events and wire values", "moim.types", rest("moim.types")),
        "config": Page("Settings", "moim.config", rest("moim.config")),
        "providers": Page("Providers", "moim.providers", rest("moim.providers")),
    }


def write_reference(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "api" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    for stem, page in pages().items():
        text = reference(page)
        path = folder / f"{stem}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def reference(page: Page) -> str:
    lines = [page.title, "=" * len(page.title), "", f".. currentmodule:: {page.module}", ""]
    module = importlib.import_module(page.module)
    for name in page.names:
        value = getattr(module, name)
        if isinstance(value, type):
            lines += [f".. autoclass:: {name}", ""]
        elif inspect.isroutine(value):
            lines += [f".. autofunction:: {name}", ""]
        elif hasattr(value, "__args__"):
            lines += [*alias(module, name, value), ""]
        else:
            lines += [f".. autodata:: {name}", ""]
    return "\n".join(lines)


def alias(module: ModuleType, name: str, value: object) -> list[str]:
    """The description of a type alias, which autodoc has none for."""
    meaning = re.sub(r"(\w+\.)+(?=\w)", "", str(value))
    return [
        f".. py:type:: {name}",
        f"   :canonical: {meaning}",
        "",
        *(f"   {line}" for line in alias_doc(module, name)),
    ]


def alias_doc(module: ModuleType, name: str) -> list[str]:
    inside = pkgutil.iter_modules(getattr(module, "__path__", ()), f"{module.__name__}.")
    for each in [module.__name__, *(info.name for info in inside)]:
        documented = ModuleAnalyzer.for_module(each).find_attr_docs()
        if ("", name) in documented:
            return documented["", name]
    return []


class AsWritten:
    """An annotation that prints as the source has it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def struct_signature(
    _app: Sphinx, _what: str, _name: str, cls: object, *_rest: object
) -> tuple[str, None] | None:
    """The signature of a msgspec struct with its aliases unresolved: `parts: tuple[Part, ...]`."""
    if not (isinstance(cls, type) and hasattr(cls, "__struct_fields__")):
        return None
    written: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        written |= inspect.get_annotations(base)
    signature = inspect.signature(cls)
    parameters = [
        parameter.replace(
            annotation=AsWritten(written[name]),
            default=AsWritten("...") if "factory" in repr(parameter.default) else parameter.default,
        )
        for name, parameter in signature.parameters.items()
    ]
    return str(signature.replace(parameters=parameters)), None


autodoc_default_options = {"members": True, "show-inheritance": True}


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", write_reference)
    app.connect("autodoc-process-signature", struct_signature)
