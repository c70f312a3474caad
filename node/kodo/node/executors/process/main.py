"""A runner without Ray: a process of its own, which its node reaches by a Unix socket in the node's home.

    node ── prepare ─► service ── assign ─► has a run ── start ─► runs ── clean ─► gone
             │                      │                       │
       the node goes: it ends   it waits for the next node, unless it is to go with its own

Whoever may open the socket is told what the run says: it lies in a folder of the node's user alone (0700), and a
peer of another user is refused. What a flow starts is in the runner's process group, and has its mark in its
environment, so it ends with it; on Linux so does what has neither, by the runner's keeper (`executors.keeper`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from kodo.flow._runtime.capture import StreamCapture
from kodo.flow._runtime.kept_code import use_kept_code
from kodo.flow._runtime.sources import enter_scope
from kodo.node.executors.niceness import step_back, step_session_back
from kodo.node.executors.process.wire import FrameReader, pack_answer, pack_refusal
from kodo.node.executors.runner.service import RunnerService
from kodo.node.executors.runner.storage import FOLDER, own_storage
from kodo.p2p.errors import UsageError

__all__ = ["DESCRIPTOR", "MARK", "PLACE", "SOCKET_FILE", "Plan", "find_mark", "is_same_user", "main", "run_runner"]

MARK = "KODO_RUNNER"
"""The variable that marks a runner's process, and all that it starts, with the runner's name."""

PLACE = "-" * 64
"""What `MARK` is in the environment of a process that will be a runner: room for a name."""

SOCKET_FILE = "socket"
"""Its name in the folder of a runner."""

DESCRIPTOR = 3
"""Where a process that the node starts has the socket that it was given."""

ORPHAN_SECONDS = 60.0
"""How often a runner whose node is gone looks whether its folder is still there: without, nobody finds it."""

_OOM_WEIGHT = b"500"
"""The kernel, when memory runs out, ends a flow rather than its node."""

_CALLS = frozenset(
    [
        "answer",
        "asked",
        "assign",
        "clean",
        "describe",
        "expire",
        "poll",
        "read_output",
        "ready",
        "reply",
        "seal",
        "start",
        "take_input",
    ]
)
"""What of a `RunnerService` a node may call; `prepare`, which makes it, comes first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What process a runner is to be.

    Attributes:
        name: the runner's, by which its processes are known.
        folder: where its files are, its socket among them.
        stays: whether it goes on when its node is gone, and waits for the next one.
    """

    name: str
    folder: str
    stays: bool


def run_runner(plan: Plan, listener: socket.socket, mark: int | None = None) -> None:
    """Be a runner, in a process that is fresh; never returns.

    Args:
        listener: where the node connects.
        mark: what `find_mark` gave.
    """
    try:
        os.umask(0o077)
        step_back()
        os.environ[MARK] = plan.name
        os.environ[FOLDER] = plan.folder
        own_storage(os.environ, plan.folder)
        if mark is not None:
            ctypes.memmove(mark, plan.name.encode().ljust(len(PLACE), b"\0"), len(PLACE))
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+b", buffering=0) as file:
            file.write(_OOM_WEIGHT)
        os.chdir(plan.folder)
        tempfile.tempdir = None
        time.tzset()
        sys.argv = ["kodo-runner"]
        capture = StreamCapture(lambda event, text: None)
        capture.start()
        asyncio.run(_Host(plan, listener, capture).serve())
    finally:
        os._exit(1)


def find_mark() -> int | None:
    """Return where this process's environment, as others see it, has room for a runner's name."""
    library = ctypes.CDLL(None)
    library.getenv.restype = ctypes.c_void_p
    address: int | None = library.getenv(MARK.encode())
    return address if os.environ.get(MARK) == PLACE else None


def is_same_user(connection: socket.socket) -> bool:
    """Return whether the other end is a process of this user; True where the system does not tell."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", told)[1] == os.getuid())


class _Host:
    """Answers calls of the node, for as long as there is a reason to."""

    def __init__(self, plan: Plan, listener: socket.socket, capture: StreamCapture):
        self.plan = plan
        self.service: RunnerService | None = None
        self.group: asyncio.TaskGroup | None = None
        self.links: set[_Link] = set()
        self._listener = listener
        self._capture = capture
        os.register_at_fork(after_in_child=self._forget)

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as self.group:
            await loop.create_unix_server(lambda: _Link(self), sock=self._listener)
            while True:
                await asyncio.sleep(ORPHAN_SECONDS)
                if not self.links and not self._can_be_found():
                    self.end()

    def _can_be_found(self) -> bool:
        return os.path.exists(os.path.join(self.plan.folder, SOCKET_FILE))

    def prepare(self, roots: list[str], preload: list[str], code: str = "") -> None:
        """Make the service, and let it import what flows need; later nodes find it made."""
        if self.service is None:
            enter_scope(roots)
            if code:
                use_kept_code(code)
            self.service = RunnerService(preload, self.plan.folder, self._capture)

    def lost(self, link: _Link) -> None:
        """See to it that a runner which nobody will ever ask for ends."""
        self.links.discard(link)
        has_run = self.service is not None and self.service.fid is not None
        if not self.links and not (has_run and self.plan.stays):
            self.end()

    def end(self) -> None:
        """End this process, and what it started, and remove its files."""
        shutil.rmtree(self.plan.folder, ignore_errors=True)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    def _forget(self) -> None:
        """Close, in a process that the flow forks, what leads to the node: it would hold it open."""
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for end in (self._listener, *(link.socket for link in self.links)):
            with contextlib.suppress(OSError):
                os.dup2(nothing, end.fileno(), inheritable=False)
        os.close(nothing)


class _Link(asyncio.Protocol):
    """One connection of a node."""

    socket: Any

    def __init__(self, host: _Host):
        self._host = host
        self._reader = FrameReader()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.socket = transport.get_extra_info("socket")
        self._transport = transport
        if is_same_user(self.socket):
            self._host.links.add(self)
        else:
            transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self in self._host.links:
            self._host.lost(self)

    def data_received(self, data: bytes) -> None:
        if self not in self._host.links or self._host.group is None:
            return
        try:
            for number, method, args in self._reader.feed(data):
                self._host.group.create_task(self._answer(number, method, args))
        except (ValueError, TypeError):
            if self._transport is not None:
                self._transport.abort()

    async def _answer(self, number: int, method: str, args: list[Any]) -> None:
        try:
            frame = pack_answer(number, await self._call(method, args))
        except Exception as error:  # told to the node, for which it is one runner's fault
            frame = pack_refusal(number, error)
        if self._transport is not None:
            self._transport.write(frame)

    async def _call(self, method: str, args: list[Any]) -> Any:
        if method == "prepare":
            return self._host.prepare(*args)
        if self._host.service is None or method not in _CALLS:
            raise UsageError(f"a runner has no call {method!r}, or was not prepared")
        return await getattr(self._host.service, method)(*args)


def main() -> None:
    """Be a runner as the words of the command say, where none is forked: name, folder, whether it stays."""
    name, folder, stays = sys.argv[1:]
    os.setsid()
    step_session_back()
    mark = find_mark()
    run_runner(Plan(name, folder, stays == "stays"), socket.socket(fileno=DESCRIPTOR), mark)


if __name__ == "__main__":
    main()
