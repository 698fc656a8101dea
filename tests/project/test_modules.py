"""Every module imports on its own, in whichever order a program comes to it."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys

import pytest

import moim

MODULES = sorted(info.name for info in pkgutil.walk_packages(moim.__path__, "moim."))

# One interpreter forks once for each module, which costs a fraction of starting one for each.
# Other people's packages are imported before, because it is moim's own order that is in question.
FORKED = """
import importlib, os, sys, traceback
import aiohttp, click, msgspec, prompt_toolkit, rich.progress, urllib3, xllamacpp
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        failed.append(name)
print(*failed)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_every_module_imports_on_its_own():
    assert len(MODULES) > 20
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKED, *MODULES],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout.split() == [], run.stderr
