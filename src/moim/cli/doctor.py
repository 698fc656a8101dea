"""`moim doctor`: what this machine can run and what moim has found on it, without a secret."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import click
from msgspec import Struct

from moim.cli.exits import FAILED
from moim.cli.terminal import print_json, print_text, size
from moim.errors import MoimError

if TYPE_CHECKING:
    from moim.config import Settings
    from moim.local.library import Library
    from moim.local.store import Store

__all__ = ["Finding", "doctor", "examine"]

_IMPORT_SECONDS = 60.0
_MARKS = {"ok": "ok", "note": "--", "problem": "!!"}
_PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


class Finding(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that was looked at.

    Attributes:
        topic: what it is about; several findings may share it.
        state: `problem` is something that does not work, `note` something that is not there.
        text: what was found.
        hint: what to do about it.
        facts: the same for a script.
    """

    topic: str
    state: Literal["ok", "note", "problem"] = "ok"
    text: str
    hint: str = ""
    facts: dict[str, Any] = {}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show what this machine can run and what was found.

    That is memory, engine, settings, model stores, the network, and which API keys are set. Only
    names of variables are shown, never a key. Exit code 1 means that something is broken.
    """
    findings = examine()
    if as_json:
        print_json({"findings": findings, "ok": not _problems(findings)})
    else:
        for finding in findings:
            print_text(f"{_MARKS[finding.state]}  {finding.topic:<14}{finding.text}")
            if finding.hint:
                print_text(f"{'':<18}{finding.hint}")
    if _problems(findings):
        ctx.exit(FAILED)


def _problems(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state == "problem"]


def examine() -> list[Finding]:
    """All findings; a part that cannot be looked at is a finding itself."""
    from moim.config import Settings, settings

    chosen = Settings()
    findings = [_version(), _machine()]
    try:
        chosen = settings()
        findings.append(_config(None))
    except MoimError as error:
        findings.append(_config(error))
    checks: tuple[Callable[[Settings], list[Finding]], ...] = (
        _engine, _models, _pip, _keys, _network,
    )  # fmt: skip
    for check in checks:
        try:
            findings += check(chosen)
        except MoimError as error:
            findings.append(_failed(check.__name__.strip("_"), error))
    return findings


def _failed(topic: str, error: MoimError) -> Finding:
    return Finding(topic=topic, state="problem", text=error.message, hint=error.hint)


def _version() -> Finding:
    import moim

    python = platform.python_version()
    return Finding(
        topic="moim",
        text=f"{moim.__version__} on Python {python}",
        facts={"version": moim.__version__, "python": python},
    )


def _machine() -> Finding:
    from moim.local import gguf
    from moim.local.cores import usable_cores

    cores = usable_cores() or os.cpu_count()
    free = gguf.free_memory()
    where = f"{platform.system()} {platform.machine()}"
    return Finding(
        topic="machine",
        text=f"{where}, {cores} cores, {size(free)} of memory free (a model may take 80 % of it)",
        facts={"system": where, "cores": cores, "free_memory": free},
    )


def _config(error: MoimError | None) -> Finding:
    from moim.config import config_path

    path = config_path()
    facts = {"path": str(path), "exists": path.is_file()}
    if error is not None:
        return Finding(
            topic="config", state="problem", text=error.message, hint=error.hint, facts=facts
        )
    text = str(path) if facts["exists"] else f"{path} (not there; every setting has a default)"
    return Finding(topic="config", text=text, facts=facts)


def _engine(chosen: Settings) -> list[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("xllamacpp")
    except PackageNotFoundError:
        return [
            Finding(
                topic="engine",
                state="problem",
                text="xllamacpp is not installed: local models cannot run, providers can.",
                hint="Run `pip install xllamacpp` (wheels for Linux, macOS and Windows).",
            )
        ]
    why = _import_failure()
    facts = {"package": "xllamacpp", "version": found, "works": not why}
    if why:
        hint = "Install it again, or use a machine that its wheels are made for."
        text = f"xllamacpp {found} cannot be loaded: {why}"
        return [Finding(topic="engine", state="problem", text=text, hint=hint, facts=facts)]
    return [Finding(topic="engine", text=f"llama.cpp by xllamacpp {found}", facts=facts)]


def _import_failure() -> str:
    """Why the engine cannot be loaded, tried where a crash of its hurts nobody; empty if it can."""
    from moim.local.engines.llama_cpp import child_environment

    program = "import sys; sys.path.extend(sys.argv[1:]); import xllamacpp"
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-c", program, *filter(None, sys.path)],
            env=child_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_IMPORT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    if tried.returncode == 0:
        return ""
    if tried.returncode == -4:
        return "this processor lacks an instruction that it needs."
    words = tried.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return words or f"it ended with code {tried.returncode}."


def _models(chosen: Settings) -> list[Finding]:
    from moim.local.library import library

    shelf = library()
    stores = [_store(store) for store in (shelf.store, *shelf.others)]
    return [*stores, _default(shelf, chosen.default_model)]


def _store(store: Store) -> Finding:
    try:
        models, problems = store.models()
    except MoimError as error:
        return _failed("store", error)
    facts = {
        "path": str(store.root),
        "models": len(models),
        "pulls_go_here": store.writable,
        "writable": store.writable and _can_write(store),
        "problems": [problem.message for problem in problems],
    }
    count = f"{len(models)} model{'' if len(models) == 1 else 's'}"
    text = f"{store.root} ({count}{'' if store.writable else ', read in place'})"
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        text, hint = f"{text}; {problems[0].message}{more}", problems[0].hint
        return Finding(topic="store", state="problem", text=text, hint=hint, facts=facts)
    if store.writable and not facts["writable"]:
        hint = "Pulls will fail. Set MOIM_MODELS to a folder that you may write to."
        text += "; it cannot be written"
        return Finding(topic="store", state="problem", text=text, hint=hint, facts=facts)
    return Finding(topic="store", text=text, facts=facts)


def _can_write(store: Store) -> bool:
    """Whether the store, or the nearest folder above it that exists, may be written."""
    for folder in (store.root, *store.root.parents):
        if folder.exists():
            return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return False


def _default(shelf: Library, name: str) -> Finding:
    from moim.cli.target import local_part

    local = local_part(name)
    if local is None:
        return Finding(topic="default", text=f"{name}, at its provider", facts={"name": name})
    try:
        present = shelf.find(local) is not None
    except MoimError as error:
        return _failed("default", error)
    facts = {"name": name, "present": present}
    if present:
        return Finding(topic="default", text=f"{name} is here", facts=facts)
    return Finding(
        topic="default",
        state="note",
        text=f"{name} is not here yet",
        hint=f"Get it: moim pull {name}",
        facts=facts,
    )


def _pip(chosen: Settings) -> list[Finding]:
    from importlib.util import find_spec

    if find_spec("pip") is not None:
        return [Finding(topic="pip", text="found (it tells where packages with models are)")]
    return [
        Finding(
            topic="pip",
            state="note",
            text="not in this environment; models in packages need a pip on the PATH",
            hint="Get one: python -m ensurepip, or uv pip install pip",
        )
    ]


def _keys(chosen: Settings) -> list[Finding]:
    from moim.providers import table

    return [
        _key(row.name, row.key_env) for row in table(chosen).values() if row.base and row.key_env
    ]


def _key(provider: str, variables: tuple[str, ...]) -> Finding:
    held = [name for name in variables if os.environ.get(name, "").strip()]
    facts = {"provider": provider, "variables": variables, "set": held}
    if held:
        return Finding(topic="key", text=f"{provider}: {held[0]} is set", facts=facts)
    text = f"{provider}: {' or '.join(variables)} is not set"
    return Finding(topic="key", state="note", text=text, facts=facts)


def _network(chosen: Settings) -> list[Finding]:
    if chosen.offline:
        text = "offline: nothing but this machine is contacted (MOIM_OFFLINE)"
        return [Finding(topic="network", state="note", text=text, facts={"offline": True})]
    proxy = chosen.proxy or next((os.environ[name] for name in _PROXIES if name in os.environ), "")
    facts = {"offline": False, "proxy": _host(proxy) or None}
    text = f"through the proxy {facts['proxy']}" if proxy else "direct, no proxy"
    return [Finding(topic="network", text=text, facts=facts)]


def _host(url: str) -> str:
    """Host and port of a URL, without the name and password that may stand in it."""
    from urllib.parse import urlsplit

    return urlsplit(url if "//" in url else f"//{url}").netloc.rpartition("@")[2]
