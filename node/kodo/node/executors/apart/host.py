"""`python -m kodo.node.executors.apart.host`: keeps the runners of a node, under the account of the flows.

Stdin is the socket to the node. Ray, what its processes write, and the files of runs are this process's alone: the
node reads and writes none of them, so nothing that a flow puts there leads it anywhere. When the node goes away, this
process ends and leaves Ray and the runs as they are: the node's next one takes them up.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from kodo.node.executors.apart.wire import pack_error, pack_events, pack_frame, read_frame
from kodo.node.executors.executor import Executor, InputFile, Runner, RunnerDiedError, RunnerEvent, RunSpec
from kodo.node.executors.process.executor import ProcessExecutor, end_left
from kodo.node.executors.ray.cluster import stop_cluster
from kodo.node.executors.ray.logs import stale_logs
from kodo.p2p.errors import BrokenSessionError, KodoError, UsageError

__all__ = ["RunnerHost", "main"]

SAID_BYTES = 1 << 20
"""About how much of what a dead runner had said goes into one answer."""

MAX_LOGS = 10_000
"""Logs that are told of at once; the others are another time."""

LOOK_SECONDS = 0.25
"""How often it is looked whether the load has changed, for whoever waits for that."""


class RunnerHost:
    """Serves one node.

    Args:
        make: gives the executor for the settings that the node says at its start.
    """

    def __init__(self, make: Callable[[Mapping[str, Any]], Executor]):
        self._make = make
        self._executor: Executor | None = None
        self._settings: dict[str, Any] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._runners: dict[str, Runner] = {}
        self._said: dict[str, _Said] = {}
        self._names = itertools.count(1)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._told: dict[int, asyncio.Future[Any]] = {}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer calls until the node has gone."""
        self._writer = writer
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    try:
                        number, op, args = await read_frame(reader)
                    except BrokenSessionError:
                        break
                    if op == "cancel":
                        if args in self._tasks:
                            self._tasks[args].cancel()
                    elif op == "told":
                        waiting = self._told.pop(number, None)
                        if waiting is not None and not waiting.done():
                            waiting.set_result(args)
                    else:
                        task = group.create_task(self._answer(number, op, args))
                        self._tasks[number] = task
                for task in list(self._tasks.values()):
                    task.cancel()
        finally:
            writer.close()

    async def _answer(self, number: int, op: str, args: list[Any]) -> None:
        try:
            frame = [number, "done", await self._do(number, op, args)]
            packed = pack_frame(frame)
        except asyncio.CancelledError:
            packed = pack_frame([number, "error", pack_error(KodoError("the call was cancelled"))])
        except KodoError as error:
            packed = pack_frame([number, "error", pack_error(error)])
        except Exception as error:  # whatever Ray raises: the node gets an answer to each of its calls
            packed = pack_frame([number, "error", pack_error(KodoError(f"{type(error).__name__}: {error}"))])
        finally:
            self._tasks.pop(number, None)
            self._told.pop(number, None)
        await self._send(packed)

    async def _send(self, packed: bytes) -> None:
        writer = self._writer
        if writer is not None and not writer.is_closing():
            writer.write(packed)
            try:
                await writer.drain()
            except OSError:
                writer.close()

    async def _do(self, number: int, op: str, args: list[Any]) -> Any:
        if op == "start":
            self._settings = args[0]
            self._executor = await asyncio.to_thread(self._make, args[0])
            return await self._executor.start()
        if op in _RUNNER_OPS:
            name, *rest = args
            return await self._of_runner(op, name, rest)
        executor = self._executor
        if executor is None:
            raise UsageError("the executor was not started")
        if op == "adopt":
            return [self._keep(runner) for runner in await executor.adopt()]
        if op == "launch":
            return self._keep(await self._launch(executor, number, args[0]))
        if op == "load":
            return await self._load(executor, args[0])
        if op == "refresh":
            self._settings["preload"] = list(args[0])
            return executor.refresh()
        if op == "scale":
            return executor.scale(args[0])
        if op == "spare":
            return await executor.spare(args[0])
        if op == "dismiss":
            return await executor.dismiss(args[0])
        if op == "logs":
            return await asyncio.to_thread(self._logs, args[0])
        if op == "forget_log":
            return await asyncio.to_thread((self._sessions / args[0]).unlink, missing_ok=True)
        if op == "close":
            return await executor.aclose()
        raise UsageError(f"there is no {op}")

    def _keep(self, runner: Runner) -> list[Any]:
        name = str(next(self._names))
        self._runners[name] = runner
        return [name, runner.fid, runner.started, runner.asking]

    async def _launch(self, executor: Executor, number: int, told: Mapping[str, Any]) -> Runner:
        files = tuple(
            InputFile(uid, name, Path(), size, sha256, self._reader_of(number, index))
            for index, (uid, name, size, sha256) in enumerate(told["files"])
        )

        async def about_to_start() -> None:
            await self._ask(number, "begin", [])

        return await executor.launch(RunSpec(**{**told, "files": files}), about_to_start)

    def _reader_of(self, number: int, index: int) -> Callable[[int, int], Awaitable[bytes]]:
        async def read(offset: int, length: int) -> bytes:
            return bytes(await self._ask(number, "piece", [index, offset, length]))

        return read

    async def _ask(self, number: int, what: str, args: list[Any]) -> Any:
        """Ask the node something for its launch of that number."""
        self._told[number] = waiting = asyncio.get_running_loop().create_future()
        await self._send(pack_frame([number, "ask", [what, args]]))
        answer, error = await waiting
        if error is not None:
            raise KodoError(error)
        return answer

    async def _of_runner(self, op: str, name: str, args: list[Any]) -> Any:
        runner = self._runners.get(name)
        if op == "said":
            said = self._said.get(name)
            return [] if said is None else pack_events(await asyncio.to_thread(said.page, args[0]))
        if runner is None:
            if op in ("kill", "release"):
                return None
            raise RunnerDiedError("the runner is gone")
        try:
            if op == "poll":
                return [pack_events(await runner.poll(*args)), runner.asking]
            answer = await getattr(runner, op)(*args)
        except RunnerDiedError as error:
            self._said.setdefault(name, _Said(error.said))
            raise
        if op in ("kill", "release"):
            self._runners.pop(name, None)
            self._said.pop(name, None)
            return None
        return answer

    async def _load(self, executor: Executor, known: list[int] | None) -> list[int]:
        """Return the counts of runners once they differ from those that are known, or after some seconds."""
        deadline = time.monotonic() + 5.0
        while True:
            load = executor.load()
            found = [load.free, load.busy, load.queued]
            if found != known or time.monotonic() > deadline:
                return found
            await asyncio.sleep(LOOK_SECONDS)

    @property
    def _sessions(self) -> Path:
        return Path(self._settings["home"]) / "ray" / "sessions"

    def _logs(self, now: int) -> list[list[Any]]:
        found = stale_logs(self._sessions, now - self._settings["log_s"] * 1000, psutil.pids())
        return [list(each) for each in found[:MAX_LOGS]]


class _Said:
    """What a dead runner had said, given page by page: only the next page can be had."""

    def __init__(self, said: Iterable[RunnerEvent]):
        self._rest = iter(said)
        self._given = 0

    def page(self, after: int) -> list[RunnerEvent]:
        """Return the next events, the first `after` being known; nothing at the end. Blocks."""
        page: list[RunnerEvent] = []
        size = 0
        if after == self._given:
            for event in self._rest:
                page.append(event)
                size += len(event.packed or b"") + 64
                if size > SAID_BYTES:
                    break
        self._given += len(page)
        return page


_RUNNER_OPS = frozenset(["answer", "asked", "expire", "kill", "poll", "read_output", "release", "reply", "said"])


def _executor_of(settings: Mapping[str, Any]) -> Executor:
    """Make what runs the flows, in the account's own folder; what another one left there ends."""
    home = Path(settings["home"])
    roots = [Path(root) for root in settings["roots"]]
    if settings["afresh"] or not settings["on_ray"]:
        stop_cluster(home, politely=False)
    if settings["afresh"] or settings["on_ray"]:
        end_left(home)
    if not settings["on_ray"]:
        return ProcessExecutor(
            home,
            roots=roots,
            preload=lambda: list(settings["preload"]),
            runners=settings["runners"],
            stays=settings["stays"],
        )
    from kodo.node.executors.ray.executor import RayExecutor

    return RayExecutor(
        home,
        settings["namespace"],
        roots=roots,
        preload=lambda: list(settings["preload"]),
        num_cpus=settings["num_cpus"],
        object_store_bytes=settings["object_store_bytes"],
        runners=settings["runners"],
    )


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # The node says when it is over, whoever else is told at the same time.
        loop.add_signal_handler(number, lambda: None)
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=os.dup(0)))
    try:
        await RunnerHost(_executor_of).serve(reader, writer)
    finally:
        # Threads of Ray, and calls to it that hang, must not keep this process.
        os._exit(0)


def main() -> None:
    """Serve the node at the other end of stdin until it has gone."""
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
