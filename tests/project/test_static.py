"""The static checks gate: what `make check` runs is run here too."""

from __future__ import annotations

import pytest

import check


@pytest.mark.parametrize("tool", check.TOOLS)
def test_static_check(tool):
    result = check.run(tool)
    assert result.returncode == 0, result.stdout


def test_each_tool_fails_on_what_it_is_for(tmp_path, monkeypatch):
    """A tool that looked at nothing would pass for ever."""
    bad = tmp_path / "bad.py"
    bad.write_text("import os\ndef f(x) :\n  return x+'a'\nn: int = 'text'\n")
    for tool in ("format", "lint", "mypy", "pyright"):
        program, *options = check.TOOLS[tool]
        monkeypatch.setitem(
            check.TOOLS, tool, (program, *[o for o in options if o != "."], str(bad))
        )
        assert check.run(tool).returncode != 0, tool


def test_the_longest_function_is_counted_without_its_docstring(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "SOURCE", tmp_path)
    path = tmp_path / "sample" / "__init__.py"
    path.parent.mkdir()
    path.write_text(
        '"""Doc."""\n\n\n'
        'def one():\n    """Two\n    lines."""\n    return 1\n\n\n'
        "class C:\n    async def two(self):\n        def inner():\n            return 2\n\n"
        "        return inner\n"
    )
    sizes = {size.name: size.lines for size in check.functions(path)}
    assert sizes == {"sample.one": 2, "sample.C.two": 5, "sample.C.two.inner": 2}
    assert [(size.name, size.lines) for size in check.modules()] == [("sample", 15)]


def test_make_check_prints_both_figures(monkeypatch, capsys):
    monkeypatch.setattr(check, "TOOLS", {})
    assert check.main() == 0
    longest, largest = capsys.readouterr().out.splitlines()
    assert longest.startswith("longest function") and " lines  moim." in longest
    assert largest.startswith("largest module") and " lines  moim." in largest
