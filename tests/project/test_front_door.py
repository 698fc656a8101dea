"""`import moim`: one table of names, and nothing loaded before it is used."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import moim

SOURCE = Path(moim.__file__).parent
NAMES = sorted(set(moim.__all__) - {"__version__"})


def packages():
    yield "moim"
    for info in pkgutil.walk_packages([str(SOURCE)], "moim."):
        if info.ispkg:
            yield info.name


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_all_is_what_the_table_offers():
    assert set(moim.__all__) == {*moim._TABLE, "__version__"}
    assert set(moim.__all__) <= set(dir(moim))


def test_type_checkers_see_the_same_names():
    tree = ast.parse((SOURCE / "__init__.py").read_bytes())
    seen = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module != "__future__":
            names = {alias.name for alias in node.names}
            seen |= set(importlib.import_module(node.module).__all__) if names == {"*"} else names
    assert seen - {"import_module"} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_documented(name):
    value = getattr(moim, name)
    assert getattr(importlib.import_module(moim._TABLE[name]), name) is value
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        assert not undocumented(value)


def undocumented(cls: type) -> list[str]:
    """Public methods and properties of a class that say nothing, not even through a base."""
    return [
        name
        for name, member in inspect.getmembers(cls)
        if not name.startswith("_")
        and (inspect.isroutine(member) or isinstance(member, property))
        and member.__doc__ is None
        and inspect.getdoc(member) is None
    ]


def test_an_undocumented_method_would_be_seen():
    class Bare:
        def method(self): ...

    assert undocumented(Bare) == ["method"]


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'modle'"):
        moim.modle  # noqa: B018
    with pytest.raises(ImportError):
        from moim import modle  # noqa: F401


def test_star_import_offers_the_same():
    found = json.loads(fresh("from moim import *; import json; print(json.dumps(dir()))"))
    assert set(NAMES) <= set(found)


@pytest.mark.parametrize("package", sorted(packages()))
def test_no_exported_name_is_a_module(package):
    """Importing module `moim.x` would silently replace an exported `moim.x`."""
    module = importlib.import_module(package)
    modules = {info.name for info in pkgutil.iter_modules(module.__path__)}
    assert not modules & set(getattr(module, "__all__", ()))


def test_importing_moim_loads_nothing_else():
    code = """
import sys
before = set(sys.modules)
import moim
print(*sorted(set(sys.modules) - before))
"""
    assert set(fresh(code).split()) <= {"moim", "__future__"}


def test_the_public_call_loads_no_engine_and_no_terminal():
    heavy = "xllamacpp aiohttp asyncio rich prompt_toolkit click"
    code = f"import sys, moim; moim.model; print(*set('{heavy}'.split()) & set(sys.modules))"
    assert fresh(code).split() == []
