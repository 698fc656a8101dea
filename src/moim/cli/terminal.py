"""Standard input and output: always UTF-8, plain text, safe to show, quiet when nobody reads."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO, cast

__all__ = [
    "ago",
    "arguments",
    "is_terminal",
    "note",
    "print_json",
    "print_table",
    "print_text",
    "quiet_exit",
    "size",
    "span",
    "use_utf8",
    "write",
]


def use_utf8() -> None:
    """Make the standard streams UTF-8 whatever the locale or PYTHONIOENCODING say.

    Models write every language, and a `C` locale is what containers and services have. A stream
    that was closed before the program began becomes an empty one.
    """
    sys.stdin = sys.stdin or _empty("r")
    sys.stdout = sys.stdout or _empty("w")
    sys.stderr = sys.stderr or _empty("w")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _empty(mode: str) -> TextIO:
    return cast("TextIO", open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123


def arguments() -> list[str]:
    """The command line's arguments, read as UTF-8 where the locale could not read them."""
    return [_as_utf8(each) for each in sys.argv[1:]]


def _as_utf8(text: str) -> str:
    if not any("\udc80" <= letter <= "\udcff" for letter in text):
        return text
    with contextlib.suppress(UnicodeDecodeError):
        return os.fsencode(text).decode("utf-8")
    return text


def quiet_exit(code: int) -> int:
    """Flush standard output before Python does it, which would complain about a closed pipe."""
    from moim.cli.exits import FAILED, LEFT

    try:
        sys.stdout.flush()
    except OSError as error:
        # What is buffered can never be written: give Python's own flush at exit another target.
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return LEFT if isinstance(error, BrokenPipeError) else code or FAILED
    return code


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person is at the other end."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def printable(text: str) -> str:
    """Text without control characters but line ends and tabs, so that what a model or a file says
    cannot steer the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def write(text: str) -> None:
    """Text to standard output, at once; made harmless if that is a terminal."""
    sys.stdout.write(printable(text) if is_terminal(sys.stdout) else text)
    sys.stdout.flush()


def print_text(text: str) -> None:
    """A line, or lines, to standard output."""
    write(text if text.endswith("\n") else f"{text}\n")


def note(text: str) -> None:
    """A line to standard error; a standard error that is gone is no reason to fail."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(printable(text).rstrip("\n") + "\n")
        sys.stderr.flush()


def print_json(value: Any) -> None:
    """One value as indented JSON to standard output."""
    import msgspec

    write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns under their names, aligned for wide (Korean) characters too."""
    lines = [list(header), *map(list, rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            text + " " * (width - _width(text)) for text, width in zip(line, widths, strict=True)
        )
        print_text("   ".join(cells).rstrip())


def _width(text: str) -> int:
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    combining = sum(bool(unicodedata.combining(letter)) for letter in text)
    return len(text) + wide - combining


def size(count: int) -> str:
    """Bytes for a person, in powers of 1000.

    >>> size(98_000_000), size(4_710_000_000), size(512)
    ('98 MB', '4.7 GB', '512 B')
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 999.5 or unit == "TB":
            break
        value /= 1000
    return f"{value:.1f} {unit}" if value < 9.95 and unit != "B" else f"{value:.0f} {unit}"


_UNITS = ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute"), (1.0, "second"))


def span(seconds: float) -> str:
    """A length of time for a person, in its largest unit.

    >>> span(0.4), span(61), span(7200)
    ('0 seconds', '1 minute', '2 hours')
    """
    length, name = next((unit for unit in _UNITS if seconds >= unit[0]), _UNITS[-1])
    count = int(max(seconds, 0) // length)
    return f"{count} {name}{'' if count == 1 else 's'}"


def ago(moment: float, now: float) -> str:
    """How long ago a moment was.

    >>> ago(100.0, 220.0)
    '2 minutes ago'
    """
    return f"{span(now - moment)} ago"
