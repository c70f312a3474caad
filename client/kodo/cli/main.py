"""`koco`: the composition root. The commands and their modules are in `commands`; one is imported when it runs."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from kodo.cli.commands import Commands

__all__ = ["app", "main"]

app = typer.Typer(
    name="koco",
    cls=Commands,
    rich_markup_mode=None,
    help="Find flows on the nodes around you, run them, follow them, answer them, fetch what they made.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from kodo.p2p.distribution import installed_version

        print(installed_version())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `koco` and exit."""
    _open_standard_streams()
    gc.disable()  # most commands import, ask and are over: a tenth of their CPU. `runtime` enables it for the others
    code = run(sys.argv[1:] if arguments is None else list(arguments))
    if not gc.isenabled():
        gc.freeze()  # the interpreter collects once more at its end
    sys.exit(code)


def _open_standard_streams() -> None:
    """Put the null device in the place of what the caller closed (`<&-`): else a database could become file 1."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process
            setattr(sys, name, stream)


def _spelled_out(arguments: Sequence[str]) -> list[str]:
    """Return `help` and `version`, which people type as commands, as the options that they are."""
    match list(arguments):
        case ["version"]:
            return ["--version"]
        case ["help", *command]:
            return [*command, "--help"]
        case given:
            return given


def run(arguments: Sequence[str]) -> int:
    """Run `koco`; give the exit code.

    Misuse of options is one line too, as JSON where that was asked for.
    """
    arguments = _spelled_out(arguments)
    try:
        code = app(list(arguments), standalone_mode=False, prog_name="koco")
    except typer.TyperException as error:
        if not error.format_message():
            return 2  # nothing was said but `koco`, and the help is shown
        from kodo.cli.runtime import report
        from kodo.p2p.errors import UsageError

        return report(UsageError(error.format_message()), json="--json" in arguments, verbose=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        from kodo.cli.runtime import close_pipe

        return close_pipe()
    return code if isinstance(code, int) else 0
