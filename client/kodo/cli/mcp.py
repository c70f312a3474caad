"""`koco mcp`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["register"]

CLOSE_SECONDS = 3.0


async def mcp(
    context: Context,
    flow: Annotated[
        list[str] | None,
        typer.Option(
            "--flow", metavar="GLOB", help="Show only flows whose path, or NODE/path, matches; may be repeated."
        ),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow",
            metavar="GLOB",
            help="Allow launching only flows that match; may be repeated. Default: all that are shown.",
        ),
    ] = None,
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only", help="Only read: refuse to launch, answer, end or share runs, and to write files."
        ),
    ] = False,
    level: Annotated[
        int, typer.Option("--level", min=0, max=2, metavar="LEVEL", help="Show events up to this level.")
    ] = 1,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--files", metavar="DIR", help="A folder to read inputs from and save outputs to; may be repeated."
        ),
    ] = None,
    wait: Annotated[
        str,
        typer.Option("--wait", metavar="SECONDS", help="How long a call waits for a run, e.g. 50 or 5m."),
    ] = "50",
    print_config: Annotated[
        str | None,
        typer.Option(
            "--print-config",
            metavar="HOST",
            help="Print the configuration to paste into HOST (claude, vscode, cursor or codex) and exit.",
        ),
    ] = None,
) -> int | None:
    """Serve flows to an assistant or editor, as a server of MCP (Model Context Protocol) on stdin and stdout."""
    from kodo.mcp.options import BridgeOptions
    from kodo.p2p.errors import UsageError
    from kodo.settings.units import parse_seconds

    wait_s = parse_seconds(wait)
    if not isinstance(wait_s, (int, float)) or not 0.1 <= wait_s <= 3600:
        raise UsageError(f"--wait takes seconds up to an hour, such as 50 or 5m, not {wait!r}")
    options = BridgeOptions(
        node=context.node,
        flows=tuple(flow or ()),
        allow=tuple(allow or ()),
        read_only=read_only,
        level=level,
        files=tuple(files or ()),
        wait_s=float(wait_s),
    )
    if print_config is not None:
        from kodo.mcp.config import config_for

        print(config_for(print_config, options, context.loaded), end="", flush=True)
        return None
    return await _serve(context, options)


async def _serve(context: Context, options: object) -> int | None:
    from kodo.cli.exits import Exit
    from kodo.p2p.distribution import how_to_install
    from kodo.p2p.errors import UsageError

    try:
        from kodo.mcp.server import serve
    except ImportError as error:
        raise UsageError(
            f"this needs the package mcp, which is not installed ({error}); {how_to_install('mcp')}"
        ) from error
    from kodo.client import Client
    from kodo.mcp.bridge import Bridge
    from kodo.mcp.state import load_secret

    secret = load_secret(context.loaded.home)
    context.stop = asyncio.Event()
    gone = asyncio.Event()
    async with Client(settings=context.loaded) as client, asyncio.TaskGroup() as tasks:
        bridge = Bridge(client, options, secret)  # type: ignore[arg-type]
        serving = tasks.create_task(serve(bridge, secret, gone.set))
        stopping, leaving = tasks.create_task(context.stop.wait()), tasks.create_task(gone.wait())
        await asyncio.wait({serving, stopping, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if gone.is_set() and not (await asyncio.wait({serving}, timeout=CLOSE_SECONDS))[0]:
            # A thread waits for the host to read what it was told, which it may never do.
            sys.stderr.flush()
            os._exit(Exit.OK)
        if context.signal is not None:
            # A thread waits for the host's next line, and nothing but the host ends that wait.
            sys.stderr.flush()
            os._exit(Exit.TERMINATED)
        stopping.cancel()
        leaving.cancel()
    return None


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "mcp")(mcp)
