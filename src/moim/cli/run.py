"""`moim run`: one question, or a chat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moim.cli.terminal import is_terminal, note, print_json
from moim.errors import RequestError

if TYPE_CHECKING:
    from moim.client import Model, Stream

__all__ = ["run"]

_FORMATS = ("json",)


@click.command()
@click.argument("model", required=False)
@click.argument("prompt", nargs=-1)
@click.option("--system", metavar="TEXT", help="System message: how the model should answer.")
@click.option("--temperature", type=float, help="0 is always the likeliest word.")
@click.option("--max-tokens", type=int, help="Tokens that may be generated.")
@click.option("--seed", type=int, help="Same seed, same answer.")
@click.option("--top-p", type=float, help="Choose among the likeliest words of this probability.")
@click.option("--top-k", type=int, help="Choose among this many likeliest words.")
@click.option(
    "--stop", multiple=True, metavar="TEXT", help="Text that ends the answer; repeatable."
)
@click.option("--num-ctx", type=int, help="Context of a local model in tokens.")
@click.option("--truncate", is_flag=True, help="Cut a prompt that is too long, and say what.")
@click.option("--keep-alive", metavar="TIME", help="How long a chat keeps a local model: 5m, -1.")
@click.option("--format", "format_", type=click.Choice(_FORMATS), help="Answer in JSON.")
@click.option(
    "--json-schema",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Answer in JSON that follows this JSON Schema.",
)
@click.option(
    "-o",
    "--option",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="Any other option of a call, such as min_p=0.05; repeatable.",
)
@click.option("--base", metavar="URL", help="Ask this OpenAI-compatible server for MODEL.")
@click.option("--key-env", metavar="NAME", help="Variable that holds the API key for --base.")
@click.option("--no-history", is_flag=True, help="Keep no history of what is typed in a chat.")
@click.option("-v", "--verbose", is_flag=True, help="Print tokens, seconds and tokens per second.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with the answer.")
def run(
    model: str | None,
    prompt: tuple[str, ...],
    base: str | None,
    key_env: str | None,
    no_history: bool,
    verbose: bool,
    as_json: bool,
    system: str | None,
    **given: Any,
) -> None:
    """Ask MODEL, or chat with it where no PROMPT is given.

    A local model that is not on this machine is downloaded first. Text on standard input is put
    before PROMPT, with a blank line between them. The answer goes to standard output, everything
    else to standard error. Without MODEL it is the configured default, smollm2.
    """
    from moim.cli.target import open_model
    from moim.cli.values import key_from

    question = _question(prompt)
    if question is None and as_json:
        raise RequestError(
            "--json needs a prompt.", hint='For example: moim run smollm2 "Hi" --json'
        )
    target = open_model(model, _options(**given), base=base, key=key_from(key_env))
    if question is None:
        from moim.cli.chat import Chat

        Chat(target, system=system, verbose=verbose, history=not no_history).run()
        return
    messages = [("system", system)] if system else []
    _ask(target, [*messages, ("user", question)], verbose=verbose, as_json=as_json)


def _options(
    *,
    format_: str | None,
    json_schema: Path | None,
    pairs: tuple[str, ...],
    keep_alive: str | None,
    stop: tuple[str, ...],
    truncate: bool,
    **numbers: int | float | None,
) -> dict[str, Any]:
    """The options of the command line as those of a call; what was not given is left out."""
    from moim.cli.values import parse_pair, read_schema, seconds

    if format_ and json_schema:
        raise RequestError("--format and --json-schema exclude each other.")
    options: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
    options |= dict(parse_pair(pair) for pair in pairs)
    if keep_alive is not None:
        options["keep_alive"] = seconds(keep_alive)
    if stop:
        options["stop"] = list(stop)
    if truncate:
        options["truncate"] = True
    if json_schema is not None:
        options["response_format"] = read_schema(json_schema)
    elif format_:
        options["response_format"] = format_
    return options


def _question(words: tuple[str, ...]) -> str | None:
    """What is asked: standard input, if it is no terminal, then the arguments. None is a chat.

    Raises:
        RequestError: nothing is asked, and nobody is there to type.
    """
    typed = " ".join(words).strip()
    if is_terminal(sys.stdin):
        if typed or is_terminal(sys.stdout):
            return typed or None
        raise RequestError(
            "There is no prompt, and a chat needs a terminal for its answers.",
            hint='Give one: moim run smollm2 "Hello" > answer.txt',
        )
    piped = _piped()
    question = "\n\n".join(part for part in (piped, typed) if part)
    if question:
        return question
    raise RequestError(
        "There is no prompt: no argument, and nothing on standard input.",
        hint='Give one: moim run smollm2 "Hello", or pipe a text in.',
    )


def _piped() -> str:
    if sys.stdin is None:
        return ""
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise RequestError(
            f"Standard input is not UTF-8 text: byte {error.start} cannot be read.",
            hint="Convert it first, for example with: iconv -f CP949 -t UTF-8",
        ) from None


def _ask(target: Model, messages: list[tuple[str, str]], *, verbose: bool, as_json: bool) -> None:
    from moim.cli.answer import after_answer, stream_answer, timings_of, verbose_lines

    with target.stream(messages) as stream:
        reply = stream.read() if as_json else stream_answer(stream)
        times = timings_of(reply, stream.time_to_first_token, stream.seconds)
    if as_json:
        print_json(_object(target, stream))
    else:
        after_answer(reply)
    if verbose:
        for line in verbose_lines(reply, times):
            note(line)


def _object(target: Model, stream: Stream) -> dict[str, Any]:
    import msgspec

    from moim.cli.answer import timings_of

    reply = stream.reply
    usage = reply.usage
    return {
        "model": target.name,
        "text": reply.text,
        "reasoning": reply.reasoning or None,
        "refusal": reply.refusal,
        "finish_reason": reply.finish_reason,
        "usage": usage and msgspec.structs.replace(usage, native={}),
        "timings": timings_of(reply, stream.time_to_first_token, stream.seconds),
        "warnings": reply.warnings,
    }
