"""Runs pip, and lets it stop once it knows where a wheel is. Started as a program, by its path.

Releases of pip before 25.1 download a wheel before they report on it, without being able to
resume. Those releases will not change any more, so the one method that downloads is replaced for
them; where it does not exist or has nothing to do, pip runs as it is.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

__all__ = ["EARLY", "main"]

EARLY = ".early"
"""Added to the name of pip's report: the file that is written where pip is spared the download."""

_DOWNLOADS = "prepare_linked_requirements_more"


def main() -> int:
    """Runs pip with the arguments of this program."""
    run = importlib.import_module("pip._internal.cli.main").main
    options = [each for each in sys.argv[1:] if each.startswith("--report=")]
    if options:
        _spare_downloads(options[0].partition("=")[2] + EARLY)
    return int(run(sys.argv[1:]) or 0)


def _spare_downloads(path: str) -> None:
    try:
        preparer = importlib.import_module("pip._internal.operations.prepare").RequirementPreparer
        download = getattr(preparer, _DOWNLOADS)
    except (ImportError, AttributeError):
        return

    def report(self: Any, reqs: Any, *args: Any, **options: Any) -> Any:
        wheels = list(reqs)
        try:
            items = [_item(each.name, each.link) for each in wheels]
        except (AttributeError, ValueError):
            return download(self, wheels, *args, **options)
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123 (pip may run on any Python)
            json.dump({"install": items}, file)
        return None

    setattr(preparer, _DOWNLOADS, report)


def _item(name: str, link: Any) -> dict[str, Any]:
    """A wheel as pip's own report has it; ValueError where its hash is not known."""
    if link.hash_name != "sha256" or not link.hash:
        raise ValueError("the index gives no sha256")
    version = link.filename.split("-")[1]
    return {
        "download_info": {
            "url": link.url_without_fragment,
            "archive_info": {"hashes": {"sha256": link.hash}},
        },
        "metadata": {"name": name, "version": version},
    }


if __name__ == "__main__":
    sys.exit(main())
