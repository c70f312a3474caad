"""An executor without Ray: flows are coroutines in this process. For tests of all that stands above an executor.

It keeps the promises of `executor` to the letter (numbered events that are kept until committed, runners that outlive
the node's other parts, death that is noticed), so that the contract suite runs over it and over Ray alike.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import msgpack

from kodo.flow._runtime.node_requests import AskQueue
from kodo.node.executors.executor import ExecutorLoad, Runner, RunnerDiedError, RunnerEvent, RunSpec
from kodo.p2p.errors import NotFoundError
from kodo.protocol.secrets import Secrets, reveal

__all__ = ["InProcessExecutor", "InProcessFlow", "InProcessRunner", "LockDeniedError"]


class LockDeniedError(Exception):
    """What a judge raises to deny a candidate; its args are the reasons."""


class InProcessRunner:
    """One run of a coroutine; also what that coroutine is given to speak through."""

    def __init__(self, spec: RunSpec):
        self.fid = spec.fid
        self.spec = spec
        self.started = True
        self.task: asyncio.Task[None] | None = None
        self.released = False
        self.expired: list[str] = []
        self.answers: list[tuple[str, str, Any]] = []
        self._events: list[RunnerEvent] = []
        self._rseq = 0
        self._news = asyncio.Event()
        self._dead: str | None = None
        self._files: dict[str, bytes] = {}
        self._locks: dict[str, tuple[asyncio.Future[Any], Callable[[Any], Any]]] = {}
        self._judged: set[str] = set()
        self._defaults: dict[str, Any] = {}
        self.asking = self._told = False
        self._asks = AskQueue(self._noticed)

    # --- for the flow ---

    def emit(self, event: str, data: dict[str, Any] | None = None) -> None:
        """Make an event."""
        self._rseq += 1
        self.say(RunnerEvent(self._rseq, event, data or {}))

    def say(self, event: RunnerEvent) -> None:
        """Say something literally: how a runner would misbehave."""
        self._rseq = event.rseq
        self._events.append(event)
        self._news.set()

    def output(self, name: str, content: bytes, **claims: Any) -> None:
        """Make an output; `claims` replace what its event says, to lie."""
        self._files[name] = content
        data = {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.emit("output", {**data, "media_type": "application/octet-stream", **claims})

    async def lock(
        self,
        lid: str,
        schema: dict[str, Any] | None = None,
        *,
        judge: Callable[[Any], Any] = lambda candidate: candidate,
        **data: Any,
    ) -> Any:
        """Open a lock and wait for its answer. `judge` gives the accepted value or raises `LockDeniedError`."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._locks[lid] = (future, judge)
        if "default" in data:
            self._defaults[lid] = data["default"]
        self.emit("lock", {"lid": lid, "title": "Go on?", "schema": schema or {}, **data})
        return await future

    def _noticed(self) -> None:
        self.asking = True
        self._news.set()

    async def ask(self, op: str, **args: Any) -> Any:
        """Ask the node something."""
        return await asyncio.wrap_future(self._asks.ask(op, args))

    def crash(self, message: str = "killed by signal 9") -> None:
        """Die as a process does: at once, with all that was not polled."""
        self._dead = message
        self._news.set()
        if self.task is not None:
            self.task.cancel()

    # --- Runner ---

    async def poll(self, after: int, timeout: float) -> list[RunnerEvent]:
        """Give the events above `after`; see `Runner.poll`."""
        self._check()
        self._events = [event for event in self._events if event.rseq > after]
        told, self._told = self._told, self.asking
        if not self._events and told == self.asking:
            self._news.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                return []
            self._check()
        return list(self._events)

    async def asked(self, after: int, timeout: float) -> tuple[int, list[tuple[int, str, Any]]]:
        """Give open questions; see `Runner.asked`."""
        self._check()
        first, questions = msgpack.unpackb(await self._asks.poll(after, timeout))
        self._check()
        return first, [(aid, op, args) for aid, op, args in questions]

    async def reply(self, aid: int, answer: dict[str, Any]) -> None:
        """Take an answer; see `Runner.reply`."""
        self._check()
        self._asks.reply(aid, msgpack.packb(answer))

    async def answer(self, lid: str, cid: str, candidate: Any, secrets: Secrets | None = None) -> None:
        """Judge a candidate once; see `Runner.answer`."""
        self._check()
        if cid in self._judged:
            return
        self._judged.add(cid)
        candidate = reveal(candidate, secrets or [])
        self.answers.append((lid, cid, candidate))
        if lid not in self._locks:
            return
        future, judge = self._locks[lid]
        try:
            value = judge(candidate)
            if isinstance(value, Awaitable):
                value = await value
        except LockDeniedError as denial:
            self.emit("unlock-deny", {"lid": lid, "cid": cid, "reasons": [str(reason) for reason in denial.args]})
            return
        del self._locks[lid]
        self.emit("unlock", {"lid": lid, "cid": cid, "answer": value})
        if not future.done():
            future.set_result(value)

    async def expire(self, lid: str) -> None:
        """Go on with the default, or fail; see `Runner.expire`."""
        self._check()
        self.expired.append(lid)
        future, _ = self._locks.pop(lid, (None, None))
        if future is None or future.done():
            return
        if lid in self._defaults:
            future.set_result(self._defaults[lid])
        else:
            future.set_exception(TimeoutError("nobody answered the lock in time"))

    async def read_output(self, name: str, offset: int, length: int) -> bytes:
        """Give bytes of an output; see `Runner.read_output`."""
        self._check()
        if name not in self._files:
            raise NotFoundError("there is no such output")
        return self._files[name][offset : offset + length]

    async def kill(self) -> None:
        """End the flow; see `Runner.kill`."""
        if self._dead is None:
            self.crash("it was killed")
        if self.task is not None:
            await asyncio.gather(self.task, return_exceptions=True)

    async def release(self) -> None:
        """Let the flow's files go; see `Runner.release`."""
        self.released = True
        await self.kill()
        self._files.clear()

    def _check(self) -> None:
        if self._dead is not None:
            raise RunnerDiedError(f"the runner of {self.fid} is gone: {self._dead}")


InProcessFlow = Callable[[InProcessRunner], Awaitable[Any]]


class InProcessExecutor:
    """Runs the coroutines of a table, by `RunSpec.entry`; at most `slots` at once.

    It may outlive the node's other parts: a second `Runs` adopts what a first one left behind.
    """

    def __init__(self, flows: Mapping[str, InProcessFlow], *, slots: int = 64):
        self.flows = dict(flows)
        self.runners: dict[str, InProcessRunner] = {}
        self.launched: list[RunSpec] = []
        self.warm = 0
        self._slots = slots
        self._free = asyncio.Semaphore(slots)
        self._queued = 0
        self._group: asyncio.TaskGroup | None = None

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        for runner in self.runners.values():
            runner.crash("the executor was closed")
        if group is not None:
            await group.__aexit__(None, None, None)

    async def start(self) -> None:
        """Nothing has to be made ready: `async with` has done it."""

    async def adopt(self) -> list[Runner]:
        """Give the runners that are alive and not released."""
        return [runner for runner in self.runners.values() if runner._dead is None and not runner.released]

    async def launch(self, spec: RunSpec, about_to_start: Callable[[], Awaitable[None]] | None = None) -> Runner:
        """Start a coroutine once a slot is free."""
        self._queued += 1
        try:
            await self._free.acquire()
        finally:
            self._queued -= 1
        assert self._group is not None, "use the executor with `async with`"
        if about_to_start is not None:
            try:
                await about_to_start()
            except BaseException:
                self._free.release()
                raise
        runner = InProcessRunner(spec)
        self.launched.append(spec)
        self.runners[spec.fid] = runner
        runner.task = self._group.create_task(self._run(runner))
        return runner

    def scale(self, runners: int) -> None:
        """Remember it: coroutines are not warmed."""
        self.warm = runners

    async def spare(self, warm_s: float) -> list[str]:
        """None: coroutines end with their runs."""
        return []

    async def dismiss(self, name: str) -> None:
        """Nothing to do."""

    def load(self) -> ExecutorLoad:
        """Count slots."""
        busy = sum(1 for runner in self.runners.values() if runner.task is not None and not runner.task.done())
        return ExecutorLoad(self._slots - busy, busy, self._queued)

    async def aclose(self) -> None:
        """End all runners; `async with` does the rest."""
        for runner in self.runners.values():
            await runner.kill()

    async def _run(self, runner: InProcessRunner) -> None:
        try:
            flow = self.flows.get(runner.spec.entry)
            if flow is None:
                runner.emit("fatal", {"type": "ImportError", "message": f"no flow {runner.spec.entry}", "where": ""})
                return
            result = await flow(runner)
            runner.emit("final", {"result": result, "runtime_s": 0.0, "runtime": "0 s"})
        except Exception as error:
            runner.emit("fatal", {"type": type(error).__name__, "message": str(error), "where": "in process"})
        finally:
            self._free.release()
