"""The context of this process: a runner's of a node, or, outside of one, the terminal.

One process serves one run, so the context is the process's: emitters find it from any thread, any asyncio task and
any callback of an agent framework without being handed anything.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from typing import Any

from kodo.flow._runtime.child import ChildContext
from kodo.flow._runtime.context import Context
from kodo.flow._runtime.event_socket import EVENTS_VARIABLE

__all__ = ["connect_children", "current", "emit_here", "fid", "install", "install_here", "installed"]

_registered = False
_installed: Context | None = None
_of_this_code: ContextVar[Context | None] = ContextVar("kodo_context", default=None)
_console_guard = threading.Lock()


def install(context: Context | None) -> None:
    """Make `context` the one that this process's emitters use; None: the terminal again."""
    global _installed
    _installed = context


def install_here(context: Context | None) -> None:
    """Make `context` the one of this code, and of tasks and threads that inherit its variables, whatever the process
    has installed; None: the process's again.
    """
    _of_this_code.set(context)


def installed() -> Context | None:
    """Return what `install` was given last."""
    return _installed


def current() -> Context:
    """Return the context of this code, else this process's; outside of a node's runners the first use makes it."""
    global _installed
    context = _of_this_code.get() or _installed
    if context is None:
        with _console_guard:
            if _installed is None:
                _installed = _found()
            context = _installed
    return context


def emit_here(event: str, data: dict[str, Any]) -> object:
    """Make an event of this process: after a fork another context than the one before."""
    return current().emit(event, data)


def _found() -> Context:
    """Make the context of a process that was given none: a flow has started it, or a person has."""
    if place := os.environ.get(EVENTS_VARIABLE):
        return ChildContext(place)
    from kodo.flow._runtime.console import ConsoleContext

    return ConsoleContext()


def fid() -> str | None:
    """Return the id of the run that this code belongs to, None outside of a node."""
    return current().fid


def connect_children() -> None:
    """Connect every process that this one forks from now on, by the socket that its environment names then."""
    global _registered
    if not _registered:
        _registered = True
        os.register_at_fork(after_in_child=_connect)


def _connect() -> None:
    install_here(None)
    install(ChildContext(os.environ.get(EVENTS_VARIABLE, ""), current().fid))
