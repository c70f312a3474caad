"""What becomes of runs that have begun when `koco up` is interrupted: a person at the terminal is asked.

One key must not end what others wait for. So Ctrl-C asks, a second Ctrl-C keeps the runs, and so does a terminal that
is closed. Who has decided beforehand (`--keep-runs`, `--end-runs`, the setting), or has no terminal, is not asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Literal

from kodo.p2p.errors import UsageError

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.node.app import Node

__all__ = ["stop_wanted"]

Choice = Literal["keep", "end", "continue"]

_WORDS: dict[str, Choice] = {
    **{"": "keep", "k": "keep", "keep": "keep"},
    **{"e": "end", "end": "end", "c": "continue", "continue": "continue"},
}


async def stop_wanted(context: Context, node: Node) -> None:
    """Wait until the node is to stop, and settle what becomes of its runs; `context.stop` is set by signals."""
    while True:
        assert context.stop is not None
        await context.stop.wait()
        begun, waiting = node.begun()
        if not begun or node.config.keep_runs is not None or node.keeps_runs or not context.interactive:
            return
        if context.signal == signal.SIGTERM:
            return  # nobody at the terminal has sent it
        choice: Choice = "keep" if context.signal == signal.SIGHUP else await _ask(context, begun, waiting)
        if choice == "keep":
            node.keep_runs()
        if choice != "continue":
            return
        context.say("the node goes on")


async def _ask(context: Context, begun: int, waiting: int) -> Choice:
    """Ask what becomes of the runs; another signal meanwhile keeps them."""
    from kodo.cli.terminal import ask_line

    context.signal, context.stop = None, asyncio.Event()
    runs = "1 run has begun" if begun == 1 else f"{begun} runs have begun"
    context.say(f"{runs}, of which {waiting} {'waits' if waiting == 1 else 'wait'} for an answer")
    interrupted = asyncio.ensure_future(context.stop.wait())
    try:
        while not interrupted.done():
            asking = asyncio.ensure_future(
                ask_line("keep them for the next `koco up`, end them, or continue running the node? [K/e/c]")
            )
            try:
                await asyncio.wait([asking, interrupted], return_when=asyncio.FIRST_COMPLETED)
                if not asking.done():
                    return "keep"
                choice = _WORDS.get(asking.result().strip().lower())
            except UsageError:
                return "keep"  # the input has ended
            finally:
                asking.cancel()
                with contextlib.suppress(asyncio.CancelledError, UsageError):
                    await asking
            if choice is not None:
                return choice
            context.say("enter k, e or c")
        return "keep"
    finally:
        interrupted.cancel()
