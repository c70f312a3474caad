"""An executor without processes: flows are coroutines in this one. For tests of all that stands above an executor.

A flow's locks, outputs, questions and events are those of `RunnerContext`, as in every runner; what is left out is
the process around it. Besides, a flow may misbehave here as a hostile process could: `say`, `claim_output`, `crash`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgpack

from kodo.flow._runtime.buffer import pack_event
from kodo.flow._runtime.context import DONE, Demand, Emitted
from kodo.flow.locks import DeniedError
from kodo.node.executors.executor import ExecutorLoad, Runner, RunnerDiedError, RunnerEvent, RunSpec
from kodo.node.executors.runner.context import RunnerContext
from kodo.node.executors.runner.ending import Ending
from kodo.node.executors.runner_calls import read_events, read_questions
from kodo.p2p.errors import NotFoundError
from kodo.protocol.event_budget import EventBudget
from kodo.protocol.events import LOCK_EXPIRES_S, LOCK_VERDICT_S
from kodo.protocol.secrets import Secrets, reveal

__all__ = ["InProcessExecutor", "InProcessFlow", "InProcessRunner", "LockDeniedError"]


class LockDeniedError(DeniedError):
    """What a judge raises to deny a candidate; its arguments are the reasons."""

    def __init__(self, *reasons: str):
        super().__init__(reasons)


class _Context(RunnerContext):
    """A context whose flow runs in the loop of whoever polls: it never waits for that."""

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        packed = pack_event(event, data)
        self.count(event, len(packed))
        self.buffer.put(packed, wait=False)
        return DONE


class InProcessRunner:
    """One run of a coroutine; also what that coroutine is given to speak through."""

    def __init__(self, spec: RunSpec, folder: Path):
        self.fid = spec.fid
        self.spec = spec
        self.started = True
        self.asking = False
        self.task: asyncio.Task[None] | None = None
        self.released = False
        self.expired: list[str] = []
        self.answers: list[tuple[str, str, Any]] = []
        self.context = _Context()
        self.context.fid = spec.fid
        self.context.folder = folder / "files"
        self.context.budget = EventBudget(spec.max_events, spec.max_event_bytes)
        self._folder = folder
        self._literal: dict[int, RunnerEvent] = {}
        self._claimed: dict[str, bytes] = {}
        self._considered: set[str] = set()
        self._dead: str | None = None

    # --- for the flow ---

    def emit(self, event: str, data: dict[str, Any] | None = None) -> None:
        """Make an event."""
        self.context.emit(event, data or {})

    def output(self, name: str, content: bytes | Iterator[bytes], *, media_type: str | None = None) -> None:
        """Make an output."""
        self.context.write_output(name, content, media_type)

    async def lock(
        self,
        lid: str,
        schema: dict[str, Any] | None = None,
        *,
        judge: Callable[[Any], Any] = lambda candidate: candidate,
        title: str = "Go on?",
        expires_s: float = LOCK_EXPIRES_S,
        verdict_s: float = LOCK_VERDICT_S,
        **more: Any,
    ) -> Any:
        """Open a lock and wait for its answer. `judge` gives the accepted value or raises `LockDeniedError`.

        Args:
            more: `default`, `roles`, `users`.
        """
        loop = asyncio.get_running_loop()

        async def wait(value: Awaitable[Any]) -> Any:
            return await value

        def accept(candidate: Any) -> tuple[Any, Any]:
            value = judge(candidate)
            if isinstance(value, Awaitable):
                value = asyncio.run_coroutine_threadsafe(wait(value), loop).result()
            return value, value

        roles, users = more.get("roles", ()), more.get("users", ())
        default, has_default = more.get("default"), "default" in more
        demand = Demand(
            title, schema or {}, accept, expires_s, verdict_s, default, has_default, tuple(roles), tuple(users)
        )
        return await asyncio.wrap_future(self.context.open_lock(lid, demand))

    async def ask(self, op: str, **args: Any) -> Any:
        """Ask the node something."""
        return await asyncio.wrap_future(self.context.ask(op, args))

    # --- for a flow that misbehaves ---

    def say(self, event: RunnerEvent) -> None:
        """Write something literally, whatever it is."""
        self.context.buffer.put(pack_event("log", {}), wait=False)
        self._literal[self.context.buffer.last] = event

    def claim_output(self, name: str, content: bytes, **claims: Any) -> None:
        """Announce an output that no flow could make, of which `claims` say what is not so."""
        self._claimed[name] = content
        data = {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        said = {**data, "media_type": "application/octet-stream", **claims}
        self.say(RunnerEvent(self.context.buffer.last + 1, "output", said))

    def crash(self, message: str = "killed by signal 9") -> None:
        """Die as a process does: at once, with all that was not polled."""
        self._dead = message
        self.context.buffer.put(b"", wait=False, last=True)  # whoever polls looks again
        if self.task is not None:
            self.task.cancel()

    # --- Runner ---

    async def poll(self, after: int, timeout: float) -> list[RunnerEvent]:
        """Return the events above `after`; see `Runner.poll`."""
        self._check()
        await asyncio.sleep(0)  # no process answers before the loop has turned
        packed = await self.context.buffer.poll(after, timeout)
        self._check()
        events, self.asking = read_events(packed)
        return [self._literal.get(event.rseq, event) for event in events]

    async def asked(self, after: int, timeout: float) -> tuple[int, list[tuple[int, str, Any]]]:
        """Return open questions; see `Runner.asked`."""
        self._check()
        packed = await self.context.asks.poll(after, timeout)
        self._check()
        return read_questions(packed)

    async def reply(self, aid: int, answer: dict[str, Any]) -> None:
        """Take an answer; see `Runner.reply`."""
        self._check()
        self.context.asks.reply(aid, msgpack.packb(answer))

    async def answer(self, lid: str, cid: str, candidate: Any, secrets: Secrets | None = None) -> None:
        """Make a candidate judged once; see `Runner.answer`."""
        self._check()
        candidate = reveal(candidate, secrets or [])
        if cid not in self._considered:
            self._considered.add(cid)
            self.answers.append((lid, cid, candidate))
        self.context.consider(lid, cid, candidate)

    async def expire(self, lid: str) -> None:
        """Go on with the default, or fail; see `Runner.expire`."""
        self._check()
        self.expired.append(lid)
        self.context.expire(lid)

    async def read_output(self, name: str, offset: int, length: int) -> bytes:
        """Return bytes of an output; see `Runner.read_output`."""
        self._check()
        if name in self._claimed:
            return self._claimed[name][offset : offset + length]
        return self.context.read_output(name, offset, length)

    def open_output(self, name: str) -> int | None:
        """Return None: what stands above an executor is tried by `read_output`, as from another machine."""
        return None

    async def kill(self) -> None:
        """End the flow; see `Runner.kill`."""
        if self._dead is None:
            self.crash("it was killed")
        if self.task is not None:
            await asyncio.gather(self.task, return_exceptions=True)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def release(self) -> None:
        """Release the flow's files; see `Runner.release`."""
        self.released = True
        await self.kill()

    async def run(self, flow: InProcessFlow | None) -> None:
        """Run a flow to its end, which its last event tells."""

        def end() -> Any:
            if failed is not None:
                raise failed
            return value

        value, failed = None, None
        try:
            if flow is None:
                raise NotFoundError(f"there is no flow {self.spec.entry}")
            value = await flow(self)
        except Exception as error:
            failed = error
        Ending(
            flush=lambda: None,
            store=self.context.store_result,
            put_last=lambda packed: self.context.buffer.put(packed, wait=False, last=True),
            abort=self.crash,
        ).run(end)

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
        self._stack = contextlib.AsyncExitStack()
        self._group: asyncio.TaskGroup | None = None
        self._folder = Path()

    async def __aenter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="kodo-")))
        self._group = await self._stack.enter_async_context(asyncio.TaskGroup())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group = None
        for runner in self.runners.values():
            runner.crash("the executor was closed")
        await self._stack.aclose()

    async def start(self) -> None:
        """Nothing has to be made ready: `async with` has done it."""

    async def adopt(self) -> list[Runner]:
        """Return the runners that are alive and not released."""
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
        runner = InProcessRunner(spec, self._folder / spec.fid)
        self.launched.append(spec)
        self.runners[spec.fid] = runner
        runner.task = self._group.create_task(self._run(runner))
        return runner

    def scale(self, runners: int) -> None:
        """Remember it: coroutines are not warmed."""
        self.warm = runners

    def refresh(self) -> None:
        """Nothing to do: coroutines are not warmed."""

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
            await runner.run(self.flows.get(runner.spec.entry))
        finally:
            self._free.release()
