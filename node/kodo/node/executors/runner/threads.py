"""Threads of a flow: its signal handlers, which Python runs in the main thread alone, and threads that outlast it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Collection
from typing import Any

__all__ = ["GRACE_SECONDS", "as_in_a_main_thread", "explain_signals", "wait_for_threads"]

GRACE_SECONDS = 10.0
"""How long the end of a flow waits for threads that it started, as Python waits at its own end."""

_ENDING = frozenset(["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
_INSTEAD = (
    "a flow runs in a thread of its runner's process, and Python takes signal handlers in the main thread only; "
    "use asyncio.timeout for a time limit, try … finally for what is to be done in the end"
)


def explain_signals(warn: Callable[[str], object]) -> None:
    """Make `signal.signal` outside of the main thread say what to use instead.

    A handler of a signal that would end the program is left out with a warning: programs for terminals set one for
    Ctrl-C, and a run is ended otherwise.
    """
    original, original_wakeup = signal.signal, signal.set_wakeup_fd

    def set_handler(number: Any, handler: Any, /) -> Any:
        """Set a signal handler, in the main thread."""
        if threading.current_thread() is threading.main_thread():
            return original(number, handler)
        name = signal.Signals(number).name
        if name not in _ENDING:
            raise ValueError(f"no handler of {name} can be set: {_INSTEAD}")
        warn(f"the handler of {name} is never called: {_INSTEAD}")
        return signal.getsignal(number)

    def set_wakeup(descriptor: int, **options: Any) -> int:
        """Set where signals are told, in the main thread."""
        if threading.current_thread() is threading.main_thread():
            return original_wakeup(descriptor, **options)
        raise ValueError(f"no handler of a signal can be added: {_INSTEAD}")

    signal.signal = set_handler  # type: ignore[assignment]
    signal.set_wakeup_fd = set_wakeup


def as_in_a_main_thread() -> None:
    """Make threads that this one starts no daemons unless they say so: they inherit it, and this one is one."""
    vars(threading.current_thread())["_daemonic"] = False


def wait_for_threads(before: Collection[threading.Thread], warn: Callable[[str], object], grace: float) -> None:
    """Wait for what a flow started and did not join, as Python does at the end of a program; then tell what goes on.

    Daemon threads and workers of a `ThreadPoolExecutor`, which wait for work for ever, are left alone.

    Args:
        before: threads that there were before the flow.
        grace: seconds.
    """
    deadline = time.monotonic() + grace
    for thread in _started(before):
        thread.join(max(deadline - time.monotonic(), 0.0))
    left = _started(before)
    if left:
        names = ", ".join(sorted(thread.name for thread in left)[:10])
        still = f"{len(left)} of its threads still run after {grace:g} s ({names})"
        warn(
            f"the flow has returned, and {still}: what they do from now on is lost; join them before the flow returns"
        )


def _started(before: Collection[threading.Thread]) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before
        and not thread.daemon
        and thread is not threading.current_thread()
        and getattr(getattr(thread, "_target", None), "__module__", "") != "concurrent.futures.thread"
        and not thread.name.startswith(("kodo-", "asyncio_"))
    ]
