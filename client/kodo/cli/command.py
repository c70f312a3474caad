"""How a command is made: its own parameters plus those that every command takes.

Command modules are imported for `koco --help`, so that this one and they import nothing heavy at their top.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from kodo.cli.complete import complete_node
from kodo.cli.examples import epilog
from kodo.cli.run_filters import FILTERS, selection

__all__ = ["COMMON", "command"]

HELP_COMMON = "Common options"

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON to stdout, and nothing else.", rich_help_panel=HELP_COMMON)
]
Node = Annotated[
    str | None,
    typer.Option(
        "--node",
        metavar="NODE",
        help="A node's name, peer id or address.",
        rich_help_panel=HELP_COMMON,
        autocompletion=complete_node,
    ),
]
Registry = Annotated[
    list[str] | None,
    typer.Option(
        "--registry", metavar="URL", help="A registry to use; may be repeated.", rich_help_panel=HELP_COMMON
    ),
]
Lan = Annotated[
    bool | None,
    typer.Option(
        "--lan/--no-lan", help="Look for nodes on the local network.", rich_help_panel=HELP_COMMON, show_default=False
    ),
]
Timeout = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="How long the command may take, e.g. 30 or 2m. For one that waits, asks or transfers:"
        " how long each of its calls and searches may take.",
        rich_help_panel=HELP_COMMON,
    ),
]
Home = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="Folder of keys and state.", rich_help_panel=HELP_COMMON),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print more, and tracebacks of errors.", rich_help_panel=HELP_COMMON)
]

COMMON: dict[str, tuple[Any, Any]] = {
    "json": (Json, False),
    "node": (Node, None),
    "registry": (Registry, None),
    "lan": (Lan, None),
    "timeout": (Timeout, None),
    "home": (Home, None),
    "verbose": (Verbose, False),
}
"""The parameters of every command: annotation and default."""


def command(
    app: typer.Typer, name: str, *, filters: bool = False, bounded: bool = False, **options: Any
) -> Callable[[Callable[..., Awaitable[int | None]]], Any]:
    """Make `async def name(context, …) -> exit code or None` a command of `app`.

    Args:
        filters: it takes the options of `run_filters`, and is called with what they mean as `wanted`.
        bounded: all of it is over within `--timeout`; else that is for each call and search alone.
    """

    def register(function: Callable[..., Awaitable[int | None]]) -> Callable[..., None]:
        # Commands name their context's type for type checkers only: importing it here would make `--help` slow.
        signature = inspect.signature(function, eval_str=True, locals={"Context": object, "RunSelection": object})
        own = [each for each in list(signature.parameters.values())[1:] if not filters or each.name != "wanted"]

        def run(**values: Any) -> None:
            from kodo.cli.runtime import execute

            common = {key: values.pop(key) for key in COMMON} | {"bounded": bounded}
            if filters:
                options = {key: values.pop(key) for key in FILTERS}
                raise typer.Exit(execute(partial(_with_selection, function, options), values, common))
            raise typer.Exit(execute(function, values, common))

        extra = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for key, (annotation, default) in {**(FILTERS if filters else {}), **COMMON}.items()
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + extra
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        run.__name__, run.__doc__ = function.__name__, function.__doc__
        app.command(name, epilog=epilog(function.__name__), **options)(run)
        return run

    return register


async def _with_selection(
    function: Callable[..., Awaitable[int | None]], options: Mapping[str, Any], context: Any, **values: Any
) -> int | None:
    return await function(context, wanted=selection(options), **values)
