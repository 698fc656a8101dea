"""`moim show`: what is known of one model, and whether it fits this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from moim.cli.terminal import print_json, print_text, size

if TYPE_CHECKING:
    from moim.local.gguf import MemoryEstimate, ModelFacts
    from moim.local.library import LocalModel

__all__ = ["facts_lines", "show"]


@click.command()
@click.argument("name")
@click.option("--num-ctx", type=int, help="Context to estimate the memory for, in tokens.")
@click.option("--template", "part", flag_value="template", help="Print the chat template alone.")
@click.option("--license", "part", flag_value="license", help="Print the licence alone.")
@click.option("--path", "part", flag_value="path", help="Print the path of the file alone.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def show(name: str, num_ctx: int | None, part: str | None, as_json: bool) -> None:
    """Show what a model is and whether it fits here.

    The facts come from its file; the memory is an estimate for the given context.
    """
    model, facts = _find(name)
    parts = {
        "template": facts.chat_template or "",
        "license": model.license or facts.license or "",
        "path": str(model.path),
    }
    if part is not None:
        print_text(parts[part])
        return
    need = _memory(facts, num_ctx)
    verdict = _verdict(facts, need)
    if as_json:
        print_json(_object(model, facts, need, verdict))
        return
    for line in facts_lines(model, facts):
        print_text(line)
    print_text(f"  {'memory':<14}{_memory_text(need)}")
    print_text(f"  {'fits here':<14}{verdict or 'yes'}")


def _find(name: str) -> tuple[LocalModel, ModelFacts]:
    from moim.cli.target import local_part
    from moim.errors import UnknownModel
    from moim.local import gguf
    from moim.local.library import library

    local = local_part(name)
    if local is None:
        raise UnknownModel(f"{name} runs at its provider: there is no file of it to show.")
    shelf = library()
    model = shelf.find(local)
    if model is None:
        raise _absent(shelf, local)
    return model, gguf.inspect(model.path)


def _absent(shelf: Any, name: str) -> Exception:
    from moim.errors import UnknownModel
    from moim.local.names import PyPIName, parse

    target = shelf.catalog.expand(name)
    known = parse(target)
    if isinstance(known, PyPIName):
        return UnknownModel(f"{name} is not on this machine.", hint=f"Get it: moim pull {name}")
    unknown: Exception = shelf.unknown(name)
    return unknown


def _memory(facts: ModelFacts, num_ctx: int | None) -> MemoryEstimate:
    from moim.config import settings
    from moim.local import engines, gguf

    spec = engines.spec_for(facts, engines.LoadOptions(num_ctx=num_ctx), settings())
    return gguf.estimate(facts, num_ctx=spec.num_ctx, slots=spec.slots)


def _verdict(facts: ModelFacts, need: MemoryEstimate) -> str:
    """Why the model does not fit this machine now; empty if it does."""
    from moim.errors import ModelTooLarge
    from moim.local import gguf

    try:
        gguf.check_fits(facts, need)
    except ModelTooLarge as error:
        return str(error)
    return ""


def facts_lines(model: LocalModel, facts: ModelFacts) -> list[str]:
    """What a person wants to know of a model, a line each."""
    license_ = (model.license or facts.license or "unknown").strip().splitlines()[0]
    rows = {
        "called": facts.name,
        "architecture": facts.architecture,
        "parameters": facts.size_label,
        "quantization": facts.quantization,
        "context": f"{facts.context_length} tokens" if facts.context_length else None,
        "can do": ", ".join(facts.capabilities),
        "languages": ", ".join(facts.languages),
        "license": license_,
        "options": ", ".join(f"{name}={value}" for name, value in model.params.items()),
        "source": model.source,
        "size": size(model.size),
        "path": str(model.path),
    }
    return [model.name, *(f"  {label:<14}{text}" for label, text in rows.items() if text)]


def _memory_text(need: MemoryEstimate) -> str:
    return (
        f"{size(need.total)} with a context of {need.num_ctx} tokens (weights {size(need.weights)},"
        f" context {size(need.kv_cache)}, buffers {size(need.buffers)})"
    )


def _object(
    model: LocalModel, facts: ModelFacts, need: MemoryEstimate, verdict: str
) -> dict[str, Any]:
    import msgspec

    from moim.cli.pull import as_object
    from moim.local import gguf

    described = msgspec.structs.asdict(facts)
    del described["shape"], described["path"], described["size"]
    return {
        **as_object(model),
        **described,
        "license": model.license or facts.license,
        "params": model.params,
        "memory": {**msgspec.structs.asdict(need), "total": need.total},
        "free_memory": gguf.free_memory(),
        "fits": not verdict,
    }
