"""The command line. `main` is all that a program that imports this gets: the rest loads on use."""

from __future__ import annotations

__all__ = ["main"]

_INTERRUPTED = 130  # as in moim.cli.exits, which may not have been loaded when it is needed


def main() -> None:
    """Run `moim` with this process's arguments and end it with the exit code of docs/cli.md."""
    import sys

    try:
        from moim.cli.terminal import arguments, quiet_exit, use_utf8

        use_utf8()
        from moim.cli.program import run_program

        code = quiet_exit(run_program(arguments()))
    except KeyboardInterrupt:  # while the program itself was still loading
        code = _INTERRUPTED
    sys.exit(code)
