"""A machine for the pages: a tiny model under the default's name, and a cloud on loopback."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support_cloud import serve
from support_pages import Page, furnish

from moim.testing import tiny_gguf


@pytest.fixture(scope="session")
def cloud() -> Iterator[str]:
    with serve() as base:
        yield base


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def open_page(
    cloud: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], Page]:
    """Opens a page in the machine that the pages suppose."""
    folder = tmp_path / "clone"
    folder.mkdir()
    furnish(folder)
    (folder / "model.gguf").symlink_to(tiny_model)
    Path(os.environ["MOIM_CONFIG"]).write_text(
        f"[aliases]\nsmollm2 = {json.dumps(str(tiny_model))}\n"
        f'[providers.openai]\nbase = "{cloud}"\nkey_env = "OPENAI_API_KEY"\n',
        encoding="utf-8",
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    # The guard on sockets sees this process only; the commands of a page get this rule instead.
    monkeypatch.setenv("MOIM_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(folder)

    def open_it(path: Path) -> Page:
        page = Page(path, folder)
        monkeypatch.setitem(sys.modules, "__main__", page.module)
        return page

    return open_it
