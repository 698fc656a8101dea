"""The program `moim`: its commands, each loaded when it is used, and the end of every run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module

import click

import moim
from moim.cli import exits
from moim.cli.terminal import note, print_text
from moim.errors import MoimError

__all__ = ["program", "run_program"]

WELCOME = """\
moim: every language model through one door, on this machine or behind an API.

First steps
  moim run smollm2 "Write one sentence about the sea."
      downloads a tiny model (98 MB, once), runs it here and streams the answer
  moim run smollm2
      a chat; /help lists its commands, /bye leaves
  moim doctor
      what this machine can run, which keys are set, which models were found

Further
  moim run openai/gpt-5-mini "Hello"  a provider's model (needs OPENAI_API_KEY)
  cat notes.txt | moim run smollm2 "Summarize this in one sentence."
  moim run ./model.gguf "Hello"       a GGUF file where it lies

Help
  moim --help lists the commands, moim run --help explains one
"""

_COMMANDS = {
    "run": "moim.cli.run:run",
    "pull": "moim.cli.pull:pull",
    "list": "moim.cli.models:list_",
    "show": "moim.cli.show:show",
    "rm": "moim.cli.models:remove",
    "ps": "moim.cli.runners:ps",
    "stop": "moim.cli.runners:stop",
    "doctor": "moim.cli.doctor:doctor",
}
_ALIASES = {"ls": "list"}


class _Commands(click.Group):
    """Commands by the place of their code, so that one command does not load the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _COMMANDS.get(_ALIASES.get(cmd_name, cmd_name))
        if place is None:
            return None
        module, _, name = place.partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in exits.MEANINGS.items()])


@click.command(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(moim.__version__, message="moim %(version)s")
@click.pass_context
def program(ctx: click.Context) -> None:
    """One door to every language model, on this machine or behind an API.

    A MODEL is a short name (smollm2), a path to a .gguf file, a model in a Python package
    (pypi:PACKAGE), or a provider's model (openai/gpt-5-mini).
    """
    if ctx.invoked_subcommand is None:
        print_text(WELCOME)


def run_program(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; every error has been shown."""
    try:
        if "_MOIM_COMPLETE" in os.environ:
            program.main(list(arguments), prog_name="moim")
        return _run(list(arguments))
    except MoimError as error:
        return exits.show_error(error)
    except (KeyboardInterrupt, click.Abort):
        note("")
        return exits.INTERRUPTED
    except BrokenPipeError:
        return exits.LEFT
    except OSError as error:
        return exits.show_os_error(error)
    except Exception as error:  # noqa: BLE001 - the last line of defence: no traceback for a person
        return exits.show_bug(error)


def _run(arguments: list[str]) -> int:
    # Not `program.main`: it would turn a closed pipe into exit code 1 before we see it.
    try:
        with program.make_context("moim", arguments) as context:
            program.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        note(_usage(error))
        return exits.USAGE
    return exits.OK


def _usage(error: click.UsageError) -> str:
    command = error.ctx.command_path if error.ctx else "moim"
    return f"error: {error.format_message()}\n  {command} --help explains it."
