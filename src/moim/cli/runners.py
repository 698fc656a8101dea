"""`moim ps` and `moim stop`: the models that moim processes of this user have loaded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from moim.cli.terminal import ago, note, print_json, print_table, print_text, size, span
from moim.errors import RequestError, RunnerError, UnknownModel

if TYPE_CHECKING:
    from moim.local.registry import LoadedModel

__all__ = ["ps", "stop"]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def ps(as_json: bool) -> None:
    """List the models that are loaded.

    All moim processes of this user count. A runner ends with the process that started it.
    """
    from moim.local.runner import loaded

    models = loaded()
    if as_json:
        print_json({"models": models})
    elif models:
        now = time.time()
        print_table(
            ("NAME", "PID", "MEMORY", "CONTEXT", "LOADED", "UNTIL"),
            [_row(model, now) for model in models],
        )
    else:
        note("No model is loaded.")


def _row(model: LoadedModel, now: float) -> tuple[str, ...]:
    return (
        model.name,
        str(model.pid),
        "unknown" if model.memory is None else size(model.memory),
        str(model.context),
        ago(model.since, now),
        _until(model, now),
    )


def _until(model: LoadedModel, now: float) -> str:
    if model.busy:
        return "in use"
    return "for ever" if model.expires is None else f"{span(model.expires - now)} from now"


@click.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Stop every model.")
@click.option("--json", "as_json", is_flag=True, help="Print what was stopped as JSON.")
def stop(name: str | None, every: bool, as_json: bool) -> None:
    """Unload a model, whichever process has it.

    Answers in progress end with an error.
    """
    if every == (name is not None):
        raise RequestError("Give the NAME of one model, or --all.", hint="moim ps lists them.")
    stopped = _stop_all() if name is None else _stop_one(name)
    if as_json:
        print_json({"stopped": stopped})
        return
    for model in stopped:
        print_text(f"Stopped {model.name} (process {model.pid}).")
    if not stopped:
        note("No model is loaded.")


def _stop_all() -> list[LoadedModel]:
    from moim.local import runner

    return _stopped(runner.loaded())


def _stop_one(name: str) -> list[LoadedModel]:
    from moim.cli.target import local_part
    from moim.local import runner
    from moim.local.library import library

    local = local_part(name) or name
    model = library().find(local)
    names = {local, *([model.name, str(model.path)] if model else [])}
    wanted = [each for each in runner.loaded() if {each.name, each.path} & names]
    if not wanted:
        raise UnknownModel(f"{name} is not loaded.", hint="moim ps lists the models that are.")
    return _stopped(wanted)


def _stopped(wanted: list[LoadedModel]) -> list[LoadedModel]:
    from moim.local import runner

    for path in {model.path for model in wanted}:
        runner.stop(path)
    left = {model.pid for model in runner.loaded()} & {model.pid for model in wanted}
    if left:
        raise RunnerError(
            f"Process {', '.join(map(str, sorted(left)))} did not end.",
            hint="It may belong to another user; end it yourself.",
        )
    return wanted
