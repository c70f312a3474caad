"""`koco web`."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from kodo.cli.command import command

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["register"]


async def web(
    context: Context,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            metavar="PORT",
            help="TCP port on this machine; 0 takes a free one. Default: the one used last, at first 8361.",
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in your browser.", show_default=False)
    ] = True,
) -> None:
    """Open kodo's page in your browser: find flows, run them, answer them, download; it runs until Ctrl-C."""
    from kodo.mcp.config import configs_of_flow
    from kodo.web.server import WebConfig, WebServer

    context.cleaning = True
    loaded = context.loaded
    configs = partial(configs_of_flow, loaded=loaded)
    async with WebServer(WebConfig(loaded.home, loaded.settings, port, configs)) as server:
        context.stop = asyncio.Event()
        if context.json:
            context.emit({"ready": True, "url": server.url})
        else:
            context.show(server.url)
            context.say("this address is for you alone: it lets a browser in. Ctrl-C stops the page's server")
            if browser and _has_screen():
                await asyncio.to_thread(_open, server.write_entry())
        await context.stop.wait()


def _has_screen() -> bool:
    """Return whether there is a desktop: without one, Python would start a browser inside of this terminal."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _open(url: str) -> None:
    import webbrowser

    webbrowser.open(url)


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app, "web")(web)
