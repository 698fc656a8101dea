"""`python -m moim` is the command `moim`."""

from __future__ import annotations

from moim.cli import main

if __name__ == "__main__":
    main()
