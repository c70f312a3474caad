"""Run a flow in a test, and keep all that it said and made."""

from __future__ import annotations

import contextlib
import contextvars
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgpack

from kodo.flow import memory as flow_memory
from kodo.flow._runtime import current as installed
from kodo.flow._runtime.buffer import EventBuffer
from kodo.flow._runtime.context import DONE, Demand, Emitted
from kodo.flow._runtime.form import InputsError
from kodo.flow._runtime.input_check import InputCheck
from kodo.flow._runtime.invoke import invoke
from kodo.flow._runtime.load import LoadedFlow
from kodo.flow._runtime.local_memory import LocalMemory
from kodo.flow._runtime.not_awaited import NotAwaitedError
from kodo.flow._runtime.pending import FORGOTTEN, tell_forgotten
from kodo.flow._runtime.plain import plain
from kodo.flow._runtime.results import result_of
from kodo.flow._runtime.terminal_input import asking_by_locks
from kodo.flow.decorator import FLOW_ATTRIBUTE, FlowDefinition
from kodo.node.executors.runner.context import RunnerContext
from kodo.node.executors.runner.leftovers import handle_leftovers
from kodo.p2p.errors import DeadlineError
from kodo.protocol.ids import make_id
from kodo.testing.answers import EXPIRE, Answers, AnswersGiven, Lock
from kodo.testing.delegates import Delegates, DelegatesGiven

__all__ = ["Event", "Output", "Run", "run"]

FID = "0" * 26
"""The id of a run in a test."""

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its name, as `progress`, and its data."""

    event: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Output:
    """One output: what it holds and its media type."""

    content: bytes
    media_type: str

    @property
    def text(self) -> str:
        """Its content as text (UTF-8)."""
        return self.content.decode()


@dataclass(slots=True)
class Run:
    """A flow that ran.

    Attributes:
        result: what it gave, as clients get it.
        error: what it raised; None when it did not.
        events: all that it said, in order, but for what it printed.
        outputs: what it wrote, by name.
        locks: what it asked, in order.
        long, short: what it left in `memory.long` and `memory.short`, by key.
    """

    result: Any = None
    error: BaseException | None = None
    events: list[Event] = field(default_factory=list)
    outputs: dict[str, Output] = field(default_factory=dict)
    locks: list[Lock] = field(default_factory=list)
    long: dict[str, Any] = field(default_factory=dict)
    short: dict[str, Any] = field(default_factory=dict)

    def told(self, event: str) -> list[dict[str, Any]]:
        """Return the data of all events of this name, as `told("progress")`."""
        return [each.data for each in self.events if each.event == event]


def run(
    flow: Any,
    inputs: Mapping[str, Any] | None = None,
    /,
    *,
    answers: AnswersGiven = (),
    delegates: DelegatesGiven = MappingProxyType({}),
    long: Mapping[str, Any] | None = None,
    check: bool = True,
    timeout: float = 60.0,
    **more: Any,
) -> Run:
    """Run a flow to its end, in a thread and an empty working folder of its own.

    In async tests: `await asyncio.to_thread(run, flow, …)`.

    Args:
        flow: a function, class, graph or crew, with `@flow` or without.
        inputs: as clients send them, a `Path` for a `File`; or give them by name, as `run(plan, budget=5)`.
        answers: to its locks: a map by title, a list in the order of the locks, or a function that gets the `Lock`.
            `tries(…)` as an answer stands for several, `EXPIRE` lets the lock expire. A lock without an answer goes
            on with its default.
        delegates: what stands for flows of other nodes, by `NODE/FLOW`: a function of their inputs, which may be a
            generator that yields `Ask`, `Tells` and `Makes`.
        long: what `memory.long` holds at the start, by key, as `long` of a run before.
        check: whether what the flow raises is raised here too; else it is the run's `error`.
        timeout: seconds until the test fails.

    Raises:
        InputsError: the inputs do not fit the form, or the flow's `check` refuses them; `places` says where.
        CheckFailedError: that check failed.
        UnansweredError: a lock has neither an answer nor a default.
        NotAwaitedError: an `await` was forgotten.
        DeadlineError: the flow takes longer than `timeout`. Its thread goes on until it next makes an event, asks
            or writes something: that raises.
        BaseException: whatever the flow raises.
    """
    with _one_at_a_time, tempfile.TemporaryDirectory(prefix="kodo-testing-") as folder:
        context = _TestContext(Path(folder), Answers(answers), Delegates(delegates))
        made = context.run
        with _installed(context):
            for key, value in (long or {}).items():
                flow_memory.Memory("long").ask("set", {"key": key, "value": plain(value), "version": None})
            try:
                _in_thread(lambda: _work(context, flow, {**(inputs or {}), **more}), timeout)
            except DeadlineError:
                context.give_up()
                raise
            made.long, made.short = (_contents(flow_memory.Memory(scope)) for scope in ("long", "short"))
            context.keep_outputs()
    if check and made.error is not None:
        raise made.error
    return made


def _work(context: _TestContext, flow: Any, inputs: Mapping[str, Any]) -> None:
    made = context.run
    installed.install_here(context)
    found = getattr(flow, FLOW_ATTRIBUTE, None)
    definition = found if isinstance(found, FlowDefinition) else FlowDefinition(name="test")
    try:
        try:
            loaded = LoadedFlow("test", "test:flow", flow, definition, "")
            _check_inputs(loaded, inputs)
            made.result = result_of(invoke(loaded, inputs))
        finally:
            if not context.is_over:
                handle_leftovers(context.work, definition.outputs, context.sources, context.keep, context.warn)
        tell_forgotten()
        forgotten = [log["text"] for log in made.told("log") if (log["level"], log["logger"]) == FORGOTTEN]
        if forgotten:
            raise NotAwaitedError("; ".join(forgotten))
    except SystemExit as error:
        made.error = error if error.code else None
    except BaseException as error:
        made.error = error


def _check_inputs(loaded: LoadedFlow, inputs: Mapping[str, Any]) -> None:
    """Judge inputs by the author's own check, as a node does before it launches a flow."""
    if loaded.definition.check is None:
        return
    places = InputCheck(loaded, loaded.inputs_schema()).faults(inputs)
    if places:
        reasons = "; ".join(": ".join(filter(None, (place["at"], place["message"]))) for place in places)
        raise InputsError(reasons, places)


def _in_thread(work: Any, timeout: float) -> None:
    inherited = contextvars.copy_context()
    thread = threading.Thread(target=lambda: inherited.run(work), name="kodo-flow", daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        raise DeadlineError(f"the flow has not ended within {timeout:g} s; give run(…, timeout=…) if it needs longer")


@contextlib.contextmanager
def _installed(context: _TestContext) -> Iterator[None]:
    """Connect this process's emitters to the run, in its working folder."""
    before, place = installed.installed(), Path.cwd()
    context.work.mkdir()
    os.chdir(context.work)
    installed.install(context)
    try:
        with asking_by_locks():
            yield
    finally:
        os.chdir(place)
        installed.install(before)
        context.memory.forget()


def _contents(memory: flow_memory.Memory) -> dict[str, Any]:
    return {key: memory.ask("get", {"key": key})["value"] for key in memory.pages("keys", "")}


class _Events(EventBuffer):
    """Keeps events as values instead of waiting for a node."""

    def __init__(self, tell: Any):
        super().__init__()
        self._tell = tell

    def put(self, packed: bytes, *, wait: bool = True, last: bool = False) -> Emitted:
        """Take one event."""
        name, data = msgpack.unpackb(packed)
        self._tell(Event(name, msgpack.unpackb(data)))
        return DONE


class _TestContext(RunnerContext):
    """A runner's context whose locks are answered by a test."""

    def __init__(self, folder: Path, answers: Answers, delegates: Delegates):
        super().__init__()
        self.buffer = _Events(self._take)
        self.fid = FID
        self.folder = folder / "files"
        self.work = folder / "work"
        self.is_over = False
        self.run = Run()
        self.memory = LocalMemory()
        self._answers = answers
        self._delegates = delegates
        self._asked: list[str] = []
        self._verdicts: dict[str, Future[Event]] = {}

    def give_up(self) -> None:
        """Take nothing more of the flow, which hangs: what it does from now on belongs to no test."""
        self.is_over = True
        for lid in self._asked:
            self.expire(lid, self._over())

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        """Take one event."""
        self._check()
        return super().emit(event, data)

    def open_lock(self, lid: str, demand: Demand) -> Future[Any]:
        """Open a lock, which the test answers."""
        self._check()
        self._asked.append(lid)
        return super().open_lock(lid, demand)

    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        """Write an output."""
        self._check()
        return super().write_output(name, source, media_type)

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        """Answer questions about memories and other nodes' runs."""
        self._check()
        return (self.memory if op.startswith("memory.") else self._delegates).ask(op, args)

    def keep(self, name: str, path: Path) -> None:
        """Write an output of a file that the flow left."""
        self.write_output(name, path, None)

    def keep_outputs(self) -> None:
        """Read all outputs, before their folder goes."""
        for data in self.run.told("output"):
            path = Path(str(self.folder), data["name"])
            self.run.outputs[data["name"]] = Output(path.read_bytes(), data["media_type"])

    def _check(self) -> None:
        if self.is_over:
            raise self._over()

    @staticmethod
    def _over() -> DeadlineError:
        return DeadlineError("the test that ran this flow has ended: the flow took too long")

    def _take(self, event: Event) -> None:
        self.run.events.append(event)
        if event.event == "lock":
            data = event.data
            lock = Lock(
                data["title"],
                data["schema"],
                data.get("default"),
                "default" in data,
                tuple(data.get("roles", ())),
                tuple(data.get("users", ())),
            )
            self.run.locks.append(lock)
            threading.Thread(target=self._answer, args=(data["lid"], lock), name="kodo-answers", daemon=True).start()
        elif event.event in ("unlock", "unlock-deny") and (waiting := self._verdicts.pop(event.data["cid"], None)):
            waiting.set_result(event)

    def _answer(self, lid: str, lock: Lock) -> None:
        while True:
            try:
                answer = self._answers.next(lock)
            except Exception as error:  # the test's function is code of its own
                self.expire(lid, error)
                return
            if answer is EXPIRE:
                self.expire(lid)
                return
            lock.tried.append(answer)
            cid = make_id(time.time_ns() // 1_000_000, os.urandom(10))
            verdict = self._verdicts[cid] = Future()
            self.consider(lid, cid, plain(answer))
            event = verdict.result()
            if event.event == "unlock":
                lock.answer = event.data["answer"]
                return
            lock.denied.append(event.data["reasons"])
