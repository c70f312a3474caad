"""Starts the processes of runners: forked from one that has imported what they need, or each by itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from kodo.node.executors.executor import RunnerDiedError
from kodo.node.executors.process.main import DESCRIPTOR, MARK, PLACE, Plan
from kodo.node.executors.process.server import MAX_MESSAGE_BYTES
from kodo.p2p.errors import DeadlineError

__all__ = ["ForkingStarter", "PlainStarter", "Starter", "can_fork"]

START_SECONDS = 30.0
"""For a process to be forked, the server's own start included."""

LOG_FILE = "server.log"
"""What the fork server has to say when it cannot start."""


def can_fork() -> bool:
    """Return whether runners are forked on this system: elsewhere its libraries do not allow it."""
    return sys.platform == "linux"


class Starter(Protocol):
    """Starts processes, and learns how they ended."""

    def begin(self) -> None:
        """Do what takes time before the first one is needed; returns at once."""
        ...

    async def start(self, plan: Plan, listener: socket.socket) -> int:
        """Start a runner; returns its process id.

        Raises:
            RunnerDiedError: it could not be started.
            DeadlineError: it was not in time.
        """
        ...

    async def status(self, name: str, seconds: float) -> int | None:
        """Return how a runner's process ended, as `os.waitpid` does, waiting at most `seconds`; None: not known."""
        ...

    def forget(self, name: str) -> None:
        """Take note that nobody will ask for the status of a runner."""
        ...

    async def aclose(self) -> None:
        """Start no more; those that run are let be."""
        ...


class _Statuses:
    """How processes ended, for whoever asks before or after."""

    def __init__(self) -> None:
        self._ended: dict[str, asyncio.Future[int]] = {}

    def expect(self, name: str) -> None:
        self._ended[name] = asyncio.get_running_loop().create_future()

    def ended(self, name: str, status: int) -> None:
        waiting = self._ended.get(name)
        if waiting is not None and not waiting.done():
            waiting.set_result(status)

    async def status(self, name: str, seconds: float) -> int | None:
        waiting = self._ended.get(name)
        if waiting is None:
            return None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await asyncio.shield(waiting)
        return None

    def forget(self, name: str) -> None:
        self._ended.pop(name, None)


class PlainStarter(_Statuses):
    """Starts each process by itself: it imports all that it needs.

    Args:
        environment: of every runner.
    """

    def __init__(self, environment: Mapping[str, str]):
        super().__init__()
        self._environment = dict(environment)

    def begin(self) -> None:
        """Nothing has to be made ready."""

    async def start(self, plan: Plan, listener: socket.socket) -> int:
        """See `Starter.start`."""
        words = [plan.name, plan.folder, "stays" if plan.stays else "goes"]
        environment = {**self._environment, MARK: plan.name}
        pid = _spawn("kodo.node.executors.process.main", words, environment, listener, os.devnull)
        self.expect(plan.name)
        loop = asyncio.get_running_loop()

        def wait() -> None:
            # Another one may have waited for it, or the loop is closed: nobody asks.
            with contextlib.suppress(ChildProcessError, RuntimeError):
                _, status = os.waitpid(pid, 0)
                loop.call_soon_threadsafe(self.ended, plan.name, status)

        threading.Thread(target=wait, name="kodo-runner-end", daemon=True).start()
        return pid

    async def aclose(self) -> None:
        """Nothing has to be ended."""


class ForkingStarter(_Statuses):
    """Has processes forked by `process_server`, which is started when it is first needed, and again when it died.

    Args:
        environment: of every runner.
        folder: where the server's log lies.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path):
        super().__init__()
        self._environment = dict(environment)
        self._folder = folder
        self._control: socket.socket | None = None
        self._pid = 0
        self._forked: dict[str, asyncio.Future[int]] = {}

    def begin(self) -> None:
        """Start the server, unless it runs; needs a running loop."""
        if self._control is not None:
            return
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._control.setblocking(False)
            # The last one: who reads the environment of a process may stop where a shorter name leaves nothing.
            environment = {**self._environment, MARK: PLACE}
            log = os.fspath(self._folder / LOG_FILE)
            self._pid = _spawn("kodo.node.executors.process.server", [], environment, theirs, log)
        asyncio.get_running_loop().add_reader(self._control, self._hear)

    async def start(self, plan: Plan, listener: socket.socket) -> int:
        """See `Starter.start`."""
        self.begin()
        assert self._control is not None
        forked = self._forked[plan.name] = asyncio.get_running_loop().create_future()
        self.expect(plan.name)
        try:
            socket.send_fds(self._control, [json.dumps(asdict(plan)).encode()], [listener.fileno()])
            async with asyncio.timeout(START_SECONDS):
                pid: int = await forked
                return pid
        except TimeoutError:
            raise DeadlineError(f"no process for the flow was started within {START_SECONDS:g} s") from None
        except OSError as error:
            raise RunnerDiedError(f"no process for the flow could be started: {error.strerror}") from error
        finally:
            del self._forked[plan.name]

    async def aclose(self) -> None:
        """End the server; idempotent."""
        pid = self._end()
        if pid:
            await asyncio.to_thread(_wait, pid)

    def _hear(self) -> None:
        while self._control is not None:
            try:
                data = self._control.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                threading.Thread(target=_wait, args=(self._end(),), name="kodo-fork-server-end", daemon=True).start()
                return
            self._take(json.loads(data))

    def _take(self, told: Mapping[str, object]) -> None:
        name, forked = str(told["name"]), self._forked.get(str(told["name"]))
        if isinstance(status := told.get("status"), int):
            self.ended(name, status)
        elif forked is None or forked.done():
            return
        elif isinstance(pid := told.get("pid"), int):
            forked.set_result(pid)
        else:
            forked.set_exception(RunnerDiedError("no process for the flow could be started: too many, or no memory"))

    def _end(self) -> int:
        control, self._control = self._control, None
        pid, self._pid = self._pid, 0
        if control is not None:
            asyncio.get_running_loop().remove_reader(control)
            control.close()
        for forked in self._forked.values():
            if not forked.done():
                log = self._folder / LOG_FILE
                forked.set_exception(RunnerDiedError(f"what starts the processes of flows ended; see {log}"))
        return pid


def _spawn(module: str, words: list[str], environment: Mapping[str, str], end: socket.socket, errors: str) -> int:
    """Start `module` with a socket as its `DESCRIPTOR`; it inherits no other one, and no folder to import from."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-P", "-m", module, *words],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, errors, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, end.fileno(), DESCRIPTOR),
        ],
    )


def _wait(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
