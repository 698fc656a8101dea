"""The chat of `moim run MODEL`: a prompt, streamed answers, and commands that begin with `/`."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from moim.cli.answer import after_answer, stream_answer, timings_of, verbose_lines
from moim.cli.exits import describe
from moim.cli.screen import Screen
from moim.cli.terminal import note, print_text
from moim.cli.values import check_option, parse_value
from moim.client import Model, Stream
from moim.errors import ConfigError, MoimError, RequestError

if TYPE_CHECKING:
    from moim.types import Reply

__all__ = ["Chat", "SavedChat"]


class Turn(Struct, frozen=True):
    """What one side said."""

    role: str
    content: str


class SavedChat(Struct, frozen=True, kw_only=True):
    """The file that `/save` writes and `/load` reads.

    Attributes:
        moim_chat: version of this format.
        model: who answered.
        system: the system message.
        options: what was set with `/set`.
        messages: the turns in order.
    """

    moim_chat: int = 1
    model: str
    system: str | None = None
    options: dict[str, Any] = {}
    messages: tuple[Turn, ...] = ()


class Chat:
    """A conversation with one model at a terminal.

    Args:
        model: who answers.
        system: the first system message.
        verbose: whether to print the numbers of each answer.
        history: whether to keep what is typed for the next chat.
    """

    def __init__(
        self, model: Model, *, system: str | None, verbose: bool, history: bool = True
    ) -> None:
        self.model = model
        self.system = system
        self.options: dict[str, Any] = {}
        self.turns: list[Turn] = []
        self._verbose = verbose
        self._history = history
        self._over = False

    def run(self) -> None:
        """Ask for input and answer it until the user leaves."""
        screen = Screen(history=self._history)
        note(f"Chat with {self.model.name}. /help lists the commands, /bye or Ctrl-D leaves.")
        while not self._over:
            try:
                self._take(screen.ask())
            except KeyboardInterrupt:
                note("To leave, type /bye or press Ctrl-D.")
            except EOFError:
                break

    def _take(self, text: str) -> None:
        try:
            if text.startswith("/"):
                self._command(text[1:])
            elif text.strip():
                self._answer(_unquoted(text))
        except MoimError as error:
            note(describe(error))

    def _answer(self, question: str) -> None:
        asked = Turn("user", question)
        stream = self.model.stream(self._messages(asked), **self.options)
        try:
            with stream:
                reply = stream_answer(stream)
        except KeyboardInterrupt:
            note("(stopped)")
            said = stream.so_far.text
            # A question without any answer would make the next one an odd conversation.
            self.turns += [asked, Turn("assistant", said)] if said.strip() else []
            return
        self.turns += [asked, Turn("assistant", reply.text)]
        self._after(stream, reply)

    def _messages(self, asked: Turn) -> list[tuple[str, str]]:
        system = [Turn("system", self.system)] if self.system else []
        return [(turn.role, turn.content) for turn in (*system, *self.turns, asked)]

    def _after(self, stream: Stream, reply: Reply) -> None:
        after_answer(reply)
        if self._verbose:
            times = timings_of(reply, stream.time_to_first_token, stream.seconds)
            note("\n".join(verbose_lines(reply, times)))

    def _command(self, line: str) -> None:
        name, _, rest = line.strip().partition(" ")
        known = _COMMANDS.get(_SHORT.get(name, name))
        if known is not None:
            known.act(self, rest.strip())
            return
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        guess = f"Did you mean /{near[0]}? " if near else ""
        raise RequestError(
            f"There is no command /{name}.",
            hint=f"{guess}/help lists them. To send such a text, put a blank before it.",
        )

    def _help(self, _: str) -> None:
        for name, command in _COMMANDS.items():
            print_text(f"  /{f'{name} {command.takes}'.strip():<20}{command.does}")
        print_text(f"  {chr(34) * 3:<21}begins and ends a text of several lines; so does Alt-Enter")
        print_text(f"  {'Ctrl-C':<21}stops the answer; Ctrl-D leaves")

    def _set_system(self, text: str) -> None:
        if not text:
            print_text(self.system or "There is no system message.")
            return
        self.system = _unquoted(text).strip() or None
        note("The system message is set." if self.system else "The system message is gone.")

    def _set(self, text: str) -> None:
        name, _, value = text.partition(" ")
        name = name.replace("-", "_")
        if not name:
            shown = {"verbose": self._verbose, **self.options}
            for option, now in shown.items():
                print_text(f"  {option} {_shown(now)}")
            return
        if not value.strip():
            raise RequestError(
                f"/set {name} needs a value.", hint=f"For example /set {name} 0.5, or default."
            )
        self._set_one(name, value.strip())

    def _set_one(self, name: str, value: str) -> None:
        if name == "verbose":
            self._verbose = value.lower() in ("on", "true", "1", "yes")
        elif value == "default":
            self.options.pop(name, None)
        else:
            self.options[name] = check_option(name, parse_value(value))

    def _save(self, file: str) -> None:
        path = _path(file, "save")
        if path.exists():
            _read(path)  # only another saved chat is ever overwritten
        saved = SavedChat(
            model=self.model.name,
            system=self.system,
            options=self.options,
            messages=tuple(self.turns),
        )
        try:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(saved), indent=2) + b"\n")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}.") from None
        note(f"Saved {len(self.turns)} messages to {path}.")

    def _load(self, file: str) -> None:
        path = _path(file, "load")
        saved = _read(path)
        self.system = saved.system
        self.options = {name: check_option(name, value) for name, value in saved.options.items()}
        self.turns = list(saved.messages)
        note(f"Loaded {len(self.turns)} messages from {path}; they were with {saved.model}.")

    def _show(self, _: str) -> None:
        for line in _facts(self.model.name):
            print_text(line)
        print_text(f"  {'messages':<14}{len(self.turns)}")
        for option, value in self.options.items():
            print_text(f"  {option:<14}{_shown(value)}")
        if self.system:
            print_text(f"  {'system':<14}{self.system}")

    def _clear(self, _: str) -> None:
        self.turns.clear()
        note("The conversation is forgotten; the system message and the options stay.")

    def _bye(self, _: str) -> None:
        self._over = True


class _Command(Struct, frozen=True):
    takes: str
    does: str
    act: Callable[[Chat, str], None]


_COMMANDS: Mapping[str, _Command] = {
    "help": _Command("", "this list", Chat._help),
    "system": _Command("[TEXT]", "set the system message, or show it", Chat._set_system),
    "set": _Command("[OPTION VALUE]", "set an option of the answers, or show them", Chat._set),
    "save": _Command("FILE", "save the conversation", Chat._save),
    "load": _Command("FILE", "go on with a saved conversation", Chat._load),
    "show": _Command("", "show the model and what is set", Chat._show),
    "clear": _Command("", "forget the conversation", Chat._clear),
    "bye": _Command("", "leave", Chat._bye),
}
_SHORT = {"?": "help", "exit": "bye", "quit": "bye"}


def _unquoted(text: str) -> str:
    """A text without the triple quotes around it."""
    inner = text.strip()
    if len(inner) >= 6 and inner.startswith('"""') and inner.endswith('"""'):
        return inner[3:-3].strip("\n")
    return text


def _shown(value: Any) -> str:
    return msgspec.json.encode(value).decode() if not isinstance(value, str) else value


def _path(file: str, command: str) -> Path:
    if not file:
        raise RequestError(f"/{command} needs the name of a file.", hint=f"/{command} chat.json")
    try:
        return Path(file).expanduser()
    except RuntimeError:
        raise RequestError(f"{file} names a user who is not on this machine.") from None


def _read(path: Path) -> SavedChat:
    try:
        return msgspec.json.decode(path.read_bytes(), type=SavedChat)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from None
    except msgspec.DecodeError:
        raise ConfigError(
            f"{path} is not a saved chat.", hint="Choose another name; nothing was changed."
        ) from None


def _facts(name: str) -> list[str]:
    """What `moim show` says of a local model; the name of any other."""
    from moim.cli.show import facts_lines
    from moim.local import gguf
    from moim.local.library import library

    prefix, _, local = name.partition("local/")
    model = library().find(local) if not prefix else None
    return [name] if model is None else facts_lines(model, gguf.inspect(model.path))
