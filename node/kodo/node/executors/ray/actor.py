"""A runner: the process, a Ray actor, that runs one flow once and tells what it does.

The flow has a thread of its own (an async flow an event loop in it), so that the actor's loop always answers. Before
any user code is imported, `prepare_worker` has redirected the process's output: nothing that a flow prints reaches
Ray's log files. The same hook runs in the workers of the flow's Ray tasks; they belong to this one runner, because
they inherit its environment (`KODO_RUNNER`), and send their lines and events to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import importlib
import json
import logging
import os
import platform
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kodo.flow._runtime.capture import EventLogHandler, StreamCapture
from kodo.flow._runtime.child import connect_children
from kodo.flow._runtime.context import current, install
from kodo.flow._runtime.event_socket import EVENTS_VARIABLE, EventInlet
from kodo.flow._runtime.form import Form
from kodo.flow._runtime.invoke import invoke
from kodo.flow._runtime.load import add_roots, load_entry
from kodo.flow._runtime.node_requests import pack_error
from kodo.flow._runtime.spool import SPOOL_FILE
from kodo.node.executors.crash import CRASH_FILE
from kodo.node.executors.ray.task import TaskContext
from kodo.node.executors.ray.upload_receiver import Inbox
from kodo.node.executors.runner.context import RunnerContext
from kodo.node.executors.runner.ending import Ending
from kodo.node.executors.runner.storage import FOLDER, own_storage, place_of_runner
from kodo.p2p.distribution import installed_version
from kodo.p2p.errors import CapacityError, KodoError, UsageError
from kodo.protocol.event_budget import EventBudget
from kodo.protocol.secrets import Secrets, reveal

__all__ = ["RunnerActor", "kodo_version", "prepare_worker", "warm_up"]

PRELOAD_TIMEOUT = 20.0
"""Seconds for which a warm runner waits for the scope's imports; a module that hangs only delays its own flow."""

FLUSH_TIMEOUT = 5.0
"""Seconds that the end of a run waits for what was printed."""

TASK_QUIET_SECONDS = 0.5
"""How long the flow's Ray tasks must have said nothing at the run's end."""

MAX_READ_BYTES = 4 * 1024 * 1024
"""Bound of one `read_output`."""

UNTOLD_EXIT = 70
"""Exit code of a runner that could not even say that its run is over; `EX_SOFTWARE` of sysexits.h."""

_capture: StreamCapture | None = None


@functools.cache
def kodo_version() -> str:
    """Return the version of kodo that this process runs, looked up once: before each run it is compared."""
    return installed_version()


def prepare_worker() -> None:
    """Make a Ray worker of a runner fit for user code; Ray calls it in each worker before anything else."""
    global _capture
    if "KODO_RUNNER" not in os.environ or _capture is not None:
        return
    own_storage(os.environ, os.environ.get(FOLDER) or place_of_runner(os.environ["KODO_RUNNER"]))
    context = TaskContext(os.environ["KODO_RUNNER"], os.environ.get("KODO_NAMESPACE", ""))
    _capture = StreamCapture(context.line)
    _capture.start()
    install(context)
    connect_children()
    _log_as_events()
    context.start()
    from ray._private import worker

    # A flow blocks its own thread, not the actor's loop, for which Ray would scold it once.
    worker.blocking_get_inside_async_warned = worker.blocking_wait_inside_async_warned = True
    add_roots([*json.loads(os.environ.get("KODO_ROOTS", "[]")), *_unpacked_roots()])


def _unpacked_roots() -> list[str]:
    """Find the folders that travelled by Ray's `py_modules`: it puts each one's *parent* on the import path."""
    names = json.loads(os.environ.get("KODO_PACKAGES", "[]"))
    parents = [path for path in sys.path if os.path.basename(path).startswith("_ray_pkg_")]
    return [
        os.path.join(parent, name)
        for name in names
        for parent in parents
        if os.path.isdir(os.path.join(parent, name))
    ]


def _emit_here(event: str, data: dict[str, Any]) -> object:
    """Make an event of this process: after a fork another context than the one before."""
    return current().emit(event, data)


def _log_as_events() -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(EventLogHandler(_emit_here))
    if root.level in (logging.NOTSET, logging.WARNING):
        root.setLevel(logging.INFO)


class RunnerActor:
    """The Ray actor. Its methods are what `ray_executor` calls; all answer at once, but for `poll`."""

    def __init__(self, preload: Sequence[str], folder: str | None):
        """Start importing the modules of `preload`; keep files in `folder`, or in a temporary one."""
        self._wanted = folder
        self._folder: Path | None = None
        self._context = RunnerContext()
        if _capture is not None:
            _capture.sink = self._context.line
        install(self._context)
        connect_children()
        _log_as_events()
        _notice_tasks(self._context)
        self._inlet = EventInlet(self._context.emit)
        self._fid: str | None = None
        self._sealed = False
        self._spec: dict[str, Any] | None = None
        self._inbox = Inbox()
        self._preload = threading.Thread(target=_import_all, args=(list(preload),), name="kodo-preload", daemon=True)
        self._preload.start()

    async def ready(self) -> dict[str, Any]:
        """Wait until the imports are done, or have taken too long."""
        await asyncio.to_thread(self._preload.join, PRELOAD_TIMEOUT)
        return await self.describe()

    async def describe(self) -> dict[str, Any]:
        """Give `pid`, and the versions `kodo` and `python`."""
        return {
            "pid": os.getpid(),
            "kodo": kodo_version(),
            "python": platform.python_version(),
        }

    async def assign(self, fid: str) -> None:
        """Say which run this runner is for; it has not started by that."""
        self._fid = fid

    async def seal(self) -> dict[str, Any]:
        """Give `fid`, the run it is for, or None, `started`, `asking` and `pid`.

        One that has not started never will.
        """
        self._sealed = self._spec is None
        started, asking = self._spec is not None, self._context.buffer.asking
        return {"fid": self._fid, "started": started, "asking": asking, "pid": os.getpid()}

    async def start(self, spec: dict[str, Any], secrets: Secrets) -> None:
        """Run a flow: `fid`, `path`, `entry`, `inputs`, `max_events`, `max_event_bytes`, and the node's version of
        `kodo`; once, unless sealed.

        `secrets` belong into the inputs.
        """
        if self._sealed:
            raise UsageError("another process of the node has given this runner up")
        if self._spec is not None:
            raise UsageError(f"this runner has been given the run {self._context.fid}")
        self._spec = {**spec, "inputs": reveal(spec["inputs"], secrets)}
        self._fid = spec["fid"]
        folder = self._make_folder()
        if self._wanted is not None:  # on the node's own machine, where it is read
            self._context.buffer.keep_in(folder / SPOOL_FILE)
        self._context.folder = folder / "files"
        self._context.fid = spec["fid"]
        self._context.budget = EventBudget(spec["max_events"], spec["max_event_bytes"])
        threading.Thread(target=self._run, name="kodo-flow", daemon=True).start()

    async def take_input(self, uid: str, name: str, offset: int, data: bytes, sha256: str | None) -> None:
        """Take a piece of a file that the inputs name, before `start`; see `Inbox.take`."""
        folder = self._make_folder() / "inputs"
        await asyncio.to_thread(self._inbox.take, folder, uid, name, offset, data, sha256)

    def _make_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(self._wanted or place_of_runner(os.environ["KODO_RUNNER"]))
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o700)  # a library that was imported ahead of time may have made it
        return self._folder

    async def poll(self, after: int, timeout: float) -> bytes:
        """See `EventBuffer.poll`.

        Raises:
            UsageError: no run was started meanwhile: whoever waits for one would wait for ever.
        """
        batch = await self._context.buffer.poll(after, timeout)
        if self._spec is None:
            raise UsageError("this runner was asked for events, and has not been given a run")
        return batch

    async def ingest(self, events: list[bytes]) -> None:
        """Take events that a Ray task of the flow made; waits while the node is behind."""
        self._context.last_ingest = time.monotonic()
        for packed in events:
            try:
                self._context.count("", len(packed))  # tasks make no events but such as are counted
            except CapacityError:
                continue
            while self._context.buffer.full and not self._context.buffer.closed:
                await self._context.buffer.drained()
            self._context.buffer.put(packed, wait=False)

    async def answer(self, lid: str, cid: str, candidate: Any, secrets: Secrets) -> None:
        """Give a candidate to the flow; its verdict becomes an event. One `cid` is considered once."""
        self._context.consider(lid, cid, reveal(candidate, secrets))

    async def expire(self, lid: str) -> None:
        """Let a lock go on with its default."""
        self._context.expire(lid)

    async def asked(self, after: int, timeout: float) -> bytes:
        """See `AskQueue.poll`."""
        return await self._context.asks.poll(after, timeout)

    async def reply(self, aid: int, packed: bytes) -> None:
        """See `AskQueue.reply`."""
        self._context.asks.reply(aid, packed)

    async def relay(self, op: str, args: dict[str, Any]) -> dict[str, Any]:
        """Ask the node something for a Ray task of the flow; gives `{done}` or `{error}`."""
        try:
            return {"done": await asyncio.wrap_future(self._context.ask(op, args))}
        except KodoError as error:
            return {"error": pack_error(error)}

    async def read_output(self, name: str, offset: int, length: int) -> bytes:
        """Read from a file that an `output` event named."""
        return await asyncio.to_thread(self._context.read_output, name, offset, min(length, MAX_READ_BYTES))

    async def clean(self) -> None:
        """Remove the run's files from this machine."""
        await asyncio.to_thread(self._inlet.close)
        if self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _run(self) -> None:
        context = self._context
        try:
            Ending(
                flush=self._finish,
                store=context.store_result,
                put_last=lambda packed: context.buffer.put(packed, last=True),
                abort=lambda: os._exit(UNTOLD_EXIT),
            ).run(self._work)
        finally:
            if not context.buffer.closed:  # nobody would ever be told that the run is over
                os._exit(UNTOLD_EXIT)

    def _work(self) -> Any:
        spec, folder = self._spec, self._folder
        assert spec is not None
        assert folder is not None
        if spec["kodo"] != kodo_version():
            raise UsageError(
                f"the worker has kodo {kodo_version()}, the node {spec['kodo']}: "
                "install the same version on every machine of the Ray cluster"
            )
        self._preload.join(PRELOAD_TIMEOUT)
        work = folder / "work"
        work.mkdir(mode=0o700, exist_ok=True)
        faulthandler.enable(open(folder / CRASH_FILE, "w"))  # noqa: SIM115 (open for as long as this process lives)
        os.environ[EVENTS_VARIABLE] = str(self._inlet.start(folder / "events"))
        os.chdir(work)  # files that a flow leaves lying about are its own, and go with it
        return invoke(load_entry(spec["entry"]), self._inbox.fill_in(spec["inputs"]))

    def _finish(self) -> None:
        context, now = self._context, time.monotonic()
        while context.has_tasks and time.monotonic() < now + FLUSH_TIMEOUT:
            # The last lines of Ray tasks are on their way: a task's result may overtake what it printed.
            quiet = time.monotonic() - max(now, context.last_ingest)
            if quiet > TASK_QUIET_SECONDS:
                break
            time.sleep(TASK_QUIET_SECONDS - quiet + 0.01)
        if _capture is not None:
            _capture.flush(FLUSH_TIMEOUT)
        self._inlet.flush(FLUSH_TIMEOUT)


def _notice_tasks(context: RunnerContext) -> None:
    """Let the context know when the flow gives Ray a task or makes an actor: their lines come by another way."""
    from ray.actor import ActorClass
    from ray.remote_function import RemoteFunction

    for owner in (RemoteFunction, ActorClass):
        original = owner._remote

        def noticed(self: Any, *args: Any, _original: Any = original, **options: Any) -> Any:
            context.has_tasks = True
            return _original(self, *args, **options)

        owner._remote = noticed  # type: ignore[method-assign]


def _import_all(entries: list[str]) -> None:
    """Import the scope's modules ahead of time; one that fails fails again, and is told, in its own run."""
    for module in dict.fromkeys(entry.partition(":")[0] for entry in entries):
        with contextlib.suppress(BaseException):  # user code, SystemExit included
            importlib.import_module(module)
    warm_up()


def warm_up() -> None:
    """Do what costs a process milliseconds once: its first form, and finding its version."""
    Form(_example).arguments({"number": 1})
    kodo_version()


def _example(number: int = 0) -> None:
    """Have parameters."""
