"""The parent of one runner: it ends whatever the runner has left, however that has hidden.

A process in the runner's group, or with its mark, is found by its node. A daemon has neither: it was forked twice,
has a session of its own, and an environment of its own. But Linux gives a process whose parent has ended to the next
of its ancestors that has asked for it (`PR_SET_CHILD_SUBREAPER`): here. It also collects such a process when it ends,
so that a flow which waits for its daemon to be gone does not wait for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable

__all__ = ["keep_next"]

_PR_SET_CHILD_SUBREAPER = 36
_MOST_DESCRIPTORS = 256
"""More than the fork server ever has."""


def keep_next(begun: Callable[[int], None]) -> None:
    """Fork a runner, in which this returns, and be its keeper, in which it does not.

    Args:
        begun: is called in the keeper, with the runner's process id. After it the keeper has its first three
            descriptors only.
    """
    try:
        # Its own group, not a session: see `executors.niceness`.
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        runner = os.fork()
        if runner == 0:
            return
        begun(runner)
        os.closerange(3, _MOST_DESCRIPTORS)
    except BaseException:
        os._exit(1)
    try:
        _end_as(_kept(runner))
    finally:
        os._exit(1)


def _kept(runner: int) -> int:
    """Wait until the runner and all that it left have ended; return how the runner did, as of `os.waitpid`."""
    found: int | None = None
    while True:
        try:
            child, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return found or 0
        if child == runner:
            found = status
        if found is not None:
            for left in _children():
                with contextlib.suppress(OSError):
                    os.kill(left, signal.SIGKILL)


def _children() -> list[int]:
    """Return the children of this process, which has one thread; ended ones among them, until they are waited for."""
    me = os.getpid()
    try:
        with open(f"/proc/{me}/task/{me}/children", "rb") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:  # a kernel without it
        return [int(name) for name in os.listdir("/proc") if name.isdecimal() and _parent_of(name) == me]


def _parent_of(pid: str) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0


def _end_as(status: int) -> None:
    """End this process as another one has ended, for whoever waits for this one."""
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError, ValueError):  # some cannot be set
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
