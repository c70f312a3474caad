"""`koco new`: a folder with a flow to begin with, its test, and its scope file."""

from __future__ import annotations

import keyword
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["module_name", "register", "write_project"]


async def new(
    context: Context,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="What the flow, and the folder that is made, are called, e.g. greeting."),
    ],
    yaml: Annotated[
        bool,
        typer.Option(
            "--yaml", help="Keep the flow's name, form and texts in a YAML file, and its code in a Python function."
        ),
    ] = False,
    crew: Annotated[bool, typer.Option("--crew", help="A crewAI crew. Needs the extra crewai.")] = False,
    graph: Annotated[bool, typer.Option("--graph", help="A LangGraph graph. Needs the extra langgraph.")] = False,
) -> None:
    """Write a flow to begin with: a folder with its code, its test and its scope file."""
    from kodo.cli.templates import KINDS
    from kodo.p2p.errors import UsageError

    chosen = [kind for kind, wanted in (("yaml", yaml), ("crew", crew), ("graph", graph)) if wanted]
    if len(chosen) > 1:
        raise UsageError(f"give one of {', '.join(f'--{kind}' for kind in chosen)}")
    kind = KINDS[chosen[0] if chosen else "function"]
    folder = Path(name)
    module = module_name(folder.name)
    written = write_project(folder, {file: text(module) for file, text in kind.files(module).items()})
    run = f"koco run {shlex.quote(kind.run(module))} topic=bees"
    if context.json:
        context.emit({"folder": str(folder), "files": written, "run": run})
        return
    for file in written:
        context.show(str(folder / file))
    context.say(f"next: cd {shlex.quote(str(folder))}")
    context.say("  python -m pytest    tests it (pip install pytest, once)")
    context.say(f"  {run}    runs it")
    context.say("  koco up scope.yaml    offers it to others")


def module_name(name: str) -> str:
    """Return the name of the module for a flow of this name.

    Raises:
        UsageError: none can be made of it, or Python has a module of that name.
    """
    from kodo.p2p.errors import UsageError

    module = re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_")
    if not module.isidentifier() or keyword.iskeyword(module):
        raise UsageError(f"{name!r} makes no name of a Python module; use letters and digits, as greeting or my-flow")
    if module in sys.stdlib_module_names or module in ("kodo", "crewai", "langgraph", "pytest", "ray"):
        raise UsageError(f"{module} is the name of another module; choose another, as my-{name}")
    return module


def write_project(folder: Path, files: dict[str, str]) -> list[str]:
    """Write files into a folder, which is made; return their names.

    Raises:
        UsageError: one of them is there already, or the folder cannot be written; then nothing is written.
    """
    from kodo.p2p.errors import UsageError

    there = [name for name in files if (folder / name).exists()]
    if there:
        raise UsageError(f"{folder / there[0]} exists already; nothing was written")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            with (folder / name).open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from error
    return list(files)


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "new", bounded=True)(new)
