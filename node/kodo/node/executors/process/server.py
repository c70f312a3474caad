"""The fork server of runners that need no Ray: has imported what each needs, and forks one for its node.

It is one process with one thread, and does nothing else: no user code is imported here. It ends when its node does;
the runners that it has forked go on.

    fork server ── fork ─► keeper ── fork ─► runner ── starts ─► whatever a flow starts
                             ▲                                            │
                             └──── what its parent has left, daemons too ─┘

Each runner has a keeper (`kodo.node.executors.keeper`), which ends what is left when the runner has ended,
and then ends as the runner did. Messages of JSON travel on its socket: the node sends a `Plan`, with a listening
socket, and is told `{name, pid}`, or without `pid` when none could be forked, and later `{name, status}`, as of
`os.waitpid`. All of them have the same seed of `hash`, and the same addresses.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
from typing import Any

from kodo.node.executors.keeper import keep_next
from kodo.node.executors.niceness import step_session_back
from kodo.node.executors.process.main import DESCRIPTOR, MARK, Plan, find_mark, run_runner
from kodo.node.executors.runner.service import warm_up

__all__ = ["MAX_MESSAGE_BYTES", "main"]

MAX_MESSAGE_BYTES = 16 << 10
_PID_BYTES = 4

_LATER = ["kodo.node.schemas.forms"]
"""What most runs need not, and some need soon: imported once nobody has asked for a while."""

_QUIET_SECONDS = 0.5


def main() -> None:
    """Serve until the node is gone; in a child, be the runner."""
    os.setsid()
    os.chdir("/")
    mark = find_mark()
    del os.environ[MARK]
    warm_up()
    _freeze()
    step_session_back()
    control = socket.socket(fileno=DESCRIPTOR)
    order = _serve(control)
    if order is not None:
        run_runner(*order, mark)


def _freeze() -> None:
    gc.collect()
    gc.freeze()  # what is never looked at stays shared


def _serve(control: socket.socket) -> tuple[Plan, socket.socket] | None:
    """Fork for the node. Returns None when it is gone; in a child, what it is to be and where it is asked."""
    names: dict[int, str] = {}
    waking, wake = os.pipe()
    for end in (waking, wake):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    quiet: float | None = _QUIET_SECONDS
    while True:
        ready, _, _ = select.select([control.fileno(), waking], [], [], quiet)
        if not ready:
            quiet = None
            for module in _LATER:
                with contextlib.suppress(ImportError):
                    importlib.import_module(module)
            _freeze()
        if waking in ready:
            with contextlib.suppress(BlockingIOError):
                while os.read(waking, 4096):
                    pass
            _reap(control, names)
        if control.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE_BYTES, 1)
            if not data:
                return None
            order = _fork(control, names, data, descriptors)
            if order is not None:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.close(waking)
                os.close(wake)
                return order


def _fork(
    control: socket.socket, names: dict[int, str], data: bytes, descriptors: list[int]
) -> tuple[Plan, socket.socket] | None:
    """Fork one runner, and its keeper before; returns in the runner what it is to be."""
    plan = Plan(**json.loads(data))
    listener = socket.socket(fileno=descriptors[0])
    telling, told = os.pipe()
    runner = 0
    try:
        keeper = os.fork()
    except OSError:
        keeper = -1
    if keeper == 0:
        signal.set_wakeup_fd(-1)
        control.close()
        os.close(telling)
        keep_next(lambda pid: _begun(pid, told, listener))
        os.close(told)
        os.setpgid(0, 0)  # what it starts ends with it
        return plan, listener
    listener.close()
    os.close(told)
    with os.fdopen(telling, "rb") as end:
        if keeper > 0:
            names[keeper] = plan.name
            runner = int.from_bytes(end.read(), "big")
    _tell(control, {"name": plan.name, **({"pid": runner} if runner else {})})
    return None


def _begun(pid: int, told: int, listener: socket.socket) -> None:
    """Close, in a keeper, what belongs to its runner, and pass on the runner's process id."""
    listener.close()
    os.write(told, pid.to_bytes(_PID_BYTES, "big"))


def _reap(control: socket.socket, names: dict[int, str]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            if child in names:
                _tell(control, {"name": names.pop(child), "status": status})


def _tell(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a node that hears nothing more is stopped, or gone
        control.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)


if __name__ == "__main__":
    main()
