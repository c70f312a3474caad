"""One line from the person at the terminal, without blocking the event loop, and given up at once when cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import termios
from collections.abc import Iterator
from typing import Any

from kodo.cli.text import line
from kodo.p2p.errors import UsageError

__all__ = ["ask_line", "forget_typed", "show_typing", "unseen_typing"]

MAX_LINE_BYTES = 1 << 20

_unseen: dict[int, list[Any]] = {}
"""Terminals that do not show what is typed, and how they were set before."""


async def ask_line(prompt: str, secret: bool = False) -> str:
    """Show `prompt` on stderr and give the next line of stdin, which has to be a terminal. Cancelling is safe.

    The terminal itself collects the line (canonical mode), so no thread has to wait for it; one that waited could not
    be ended.

    Args:
        secret: what is typed is not shown.

    Raises:
        UsageError: the input ended (Ctrl-D).
    """
    loop = asyncio.get_running_loop()
    handle = sys.stdin.fileno()
    answered: asyncio.Future[bytes] = loop.create_future()
    buffer = bytearray()

    def readable() -> None:
        try:
            piece = os.read(handle, 65536)
        except OSError:
            piece = b""
        buffer.extend(piece)
        if not answered.done() and (not piece or b"\n" in piece or len(buffer) > MAX_LINE_BYTES):
            answered.set_result(bytes(buffer))

    print(line(prompt), end="" if prompt.endswith(" ") else " ", file=sys.stderr, flush=True)
    with _echo(handle, not secret):
        loop.add_reader(handle, readable)
        try:
            answer = await answered
        except asyncio.CancelledError:
            print(file=sys.stderr)  # what is said next begins on a line of its own
            raise
        finally:
            loop.remove_reader(handle)
    if secret or not answer.endswith(b"\n"):
        print(file=sys.stderr)
    if not answer:
        raise UsageError("the input ended before the form was complete")
    return answer.decode("utf-8", "replace").rstrip("\r\n")


@contextlib.contextmanager
def unseen_typing() -> Iterator[None]:
    """Show nothing of what is typed for as long as the block lasts; it is kept for whoever reads it later."""
    handle = _own_terminal()
    with _echo(handle or 0, handle is None):
        yield


def forget_typed() -> None:
    """Forget what was typed so far: it answers no question that comes now."""
    handle = _own_terminal()
    if handle is not None:
        termios.tcflush(handle, termios.TCIFLUSH)


def show_typing() -> None:
    """Show again what is typed: this process ends at once."""
    for handle in list(_unseen):
        _restore(handle)


def _own_terminal() -> int | None:
    """Return the terminal on stdin; None where there is none, or another program has it."""
    try:
        handle = sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):
        return None
    return handle if _is_ours(handle) else None


def _is_ours(handle: int) -> bool:
    """Return whether a terminal is there and this program's: who sets it from the background is stopped."""
    try:
        return os.isatty(handle) and os.tcgetpgrp(handle) == os.getpgrp()
    except OSError:
        return False


def _restore(handle: int) -> None:
    """Set a terminal as it was. One that another program has by now, the shell say, was set by that."""
    before = _unseen.pop(handle, None)
    if before is not None and _is_ours(handle):
        with contextlib.suppress(termios.error):  # it was closed
            termios.tcsetattr(handle, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _echo(handle: int, wanted: bool) -> Iterator[None]:
    if wanted:
        yield
        return
    quiet = termios.tcgetattr(handle)
    outermost = handle not in _unseen
    _unseen.setdefault(handle, termios.tcgetattr(handle))
    quiet[3] &= ~termios.ECHO
    try:
        termios.tcsetattr(handle, termios.TCSADRAIN, quiet)
        yield
    finally:
        if outermost:
            _restore(handle)
