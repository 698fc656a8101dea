"""Where a chat's input is typed: editing, history, several lines."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from moim.cli.terminal import note

__all__ = ["Screen", "history_path"]


class Screen:
    """The prompt of a chat.

    Args:
        history: whether lines are kept in a file of the user's for the next chat.
    """

    def __init__(self, *, history: bool = True) -> None:
        self._session: PromptSession[str] = PromptSession(
            history=_history() if history else InMemoryHistory(),
            multiline=Condition(_in_block),
            prompt_continuation="... ",
            key_bindings=_keys(),
        )

    def ask(self) -> str:
        """What the user typed.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed.
            EOFError: Ctrl-D was pressed.
        """
        return self._session.prompt(">>> ")


def _in_block() -> bool:
    """Whether triple quotes are open, so that Enter makes a new line."""
    return get_app().current_buffer.text.count('"""') % 2 == 1


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


def history_path() -> Path:
    """The file that holds what was typed in chats."""
    from platformdirs import user_state_path

    return user_state_path("moim", appauthor=False) / "history"


def _history() -> History:
    """The history file, readable by its owner only; memory where there can be no such file."""
    path = history_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError as error:
        note(f"note: no history is kept, because {path} cannot be written: {error.strerror}.")
        return InMemoryHistory()
    return _Kept(str(path))


class _Kept(FileHistory):
    """A history file on a disk that may fill up: a line that cannot be kept is no error."""

    def store_string(self, string: str) -> None:
        with contextlib.suppress(OSError):
            super().store_string(string)
