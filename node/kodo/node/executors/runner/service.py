"""What a runner's process does for its node, however the two speak: one flow, run once, and all that it says.

The flow has a thread of its own (an async flow an event loop in it), so that the loop which answers the node always
does. The Ray actor (`ray.actor`) and the plain process (`process.main`) are this, reached in two ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import functools
import os
import platform
import shutil
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kodo.flow._runtime.capture import StreamCapture
from kodo.flow._runtime.current import connect_children, emit_here, install
from kodo.flow._runtime.debugger import stop_at_breakpoints
from kodo.flow._runtime.event_socket import EVENTS_VARIABLE, EventInlet
from kodo.flow._runtime.form import Form
from kodo.flow._runtime.invoke import invoke
from kodo.flow._runtime.kept_code import use_kept_code
from kodo.flow._runtime.load import LoadedFlow, load_entry
from kodo.flow._runtime.log_events import log_as_events, own_packages
from kodo.flow._runtime.pending import tell_forgotten
from kodo.flow._runtime.results import result_of
from kodo.flow._runtime.sources import import_source
from kodo.flow._runtime.spool import SPOOL_FILE
from kodo.flow._runtime.terminal_input import ask_by_locks
from kodo.node.executors.crash import CRASH_FILE
from kodo.node.executors.runner.context import RunnerContext
from kodo.node.executors.runner.ending import Ending
from kodo.node.executors.runner.environment import NODE, RUN
from kodo.node.executors.runner.imports import ImportLog, group_of
from kodo.node.executors.runner.leftovers import handle_leftovers
from kodo.node.executors.runner.storage import place_of_runner
from kodo.node.executors.runner.threads import (
    GRACE_SECONDS,
    as_in_a_main_thread,
    explain_signals,
    wait_for_threads,
)
from kodo.node.executors.runner.upload_receiver import Inbox
from kodo.p2p.distribution import installed_version
from kodo.p2p.errors import UsageError
from kodo.p2p.net.files import plain_descriptor
from kodo.protocol.event_budget import EventBudget
from kodo.protocol.secrets import Secrets, reveal

__all__ = ["FLUSH_TIMEOUT", "RunnerService", "kodo_version", "warm_up"]

PRELOAD_TIMEOUT = 50.0
"""Seconds for which a warm runner waits for its flow's module; one that takes longer is imported in its run."""

FLUSH_TIMEOUT = 5.0
"""Seconds that the end of a run waits for what was printed."""

MAX_READ_BYTES = 4 * 1024 * 1024
"""Bound of one `read_output`."""

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC

UNTOLD_EXIT = 70
"""Exit code of a runner that could not even say that its run is over; `EX_SOFTWARE` of sysexits.h."""


@functools.cache
def kodo_version() -> str:
    """Return the version of kodo that this process runs, looked up once: before each run it is compared."""
    return installed_version()


class RunnerService:
    """One runner. Its coroutines are what the node calls; all answer at once, but for `poll` and `asked`."""

    def __init__(
        self,
        preload: Sequence[str],
        folder: str | None,
        capture: StreamCapture | None = None,
    ):
        """Start importing the modules of `preload`: those of one flow, and of no other.

        Args:
            folder: where its files are, when the node can reach them there; None: in a temporary folder.
            capture: what reads this process's output; its lines become events.
        """
        self._wanted = folder
        self._folder: Path | None = None
        self._context = RunnerContext()
        self._context.imports = self._imports = ImportLog()
        self._capture = capture
        if capture is not None:
            capture.sink = self._context.line
            capture.draw = self._context.draw
        install(self._context)
        connect_children()
        log_as_events(emit_here)
        ask_by_locks(self._last_line)
        explain_signals(self._context.warn)
        stop_at_breakpoints(self._context.warn)
        self._connect()
        self._inlet = EventInlet(self._context.emit)
        self._fid: str | None = None
        self._sealed = False
        self._spec: dict[str, Any] | None = None
        self._inbox = Inbox()
        self._imported = True
        self._preload = threading.Thread(
            target=self._import_all, args=(list(preload),), name="kodo-preload", daemon=True
        )
        self._preload.start()

    @property
    def fid(self) -> str | None:
        """The run that this runner is for; None: there is none yet."""
        return self._fid

    def _last_line(self) -> str:
        """Return what the flow printed last, with or without a line end."""
        if self._capture is not None:
            self._capture.flush(FLUSH_TIMEOUT)
        return self._context.last_line

    def _connect(self) -> None:
        """Connect more than this process to the context, before any user code is imported."""

    async def ready(self) -> dict[str, Any]:
        """Wait until the imports are done, or have taken too long.

        Returns what `describe` does, `imported`, which is False where a module was not, and `said`, lines that were
        printed meanwhile.
        """
        await asyncio.to_thread(self._preload.join, PRELOAD_TIMEOUT)
        imported = self._imported and not self._preload.is_alive()
        return {**await self.describe(), "imported": imported, "said": self._imports.read()}

    async def describe(self) -> dict[str, Any]:
        """Return `pid`, and the versions `kodo` and `python`."""
        return {
            "pid": os.getpid(),
            "kodo": kodo_version(),
            "python": platform.python_version(),
        }

    async def assign(self, fid: str) -> None:
        """Name the run that this runner is for; it has not started by that."""
        self._fid = fid

    async def seal(self) -> dict[str, Any]:
        """Return `fid`, the run it is for, or None, `started`, `asking` and `pid`.

        One that has not started never will.
        """
        self._sealed = self._spec is None
        started, asking = self._spec is not None, self._context.buffer.asking
        return {"fid": self._fid, "started": started, "asking": asking, "pid": os.getpid()}

    async def start(self, spec: dict[str, Any], secrets: Secrets) -> None:
        """Run a flow: `fid`, `path`, `entry`, `inputs`, `max_events`, `max_event_bytes`, the name of the `node`, and
        its version of `kodo`; once, unless sealed.

        `secrets` belong into the inputs.
        """
        if self._sealed:
            raise UsageError("another process of the node has released this runner")
        if self._spec is not None:
            raise UsageError(f"this runner has been given the run {self._context.fid}")
        self._spec = {**spec, "inputs": reveal(spec["inputs"], secrets)}
        self._fid = spec["fid"]
        folder = self._make_folder()
        if self._wanted is not None:  # on the node's own machine, where it is read
            self._context.buffer.keep_in(folder / SPOOL_FILE)
            if self._capture is not None:
                self._capture.keep_rests(folder)
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

    async def answer(self, lid: str, cid: str, candidate: Any, secrets: Secrets) -> None:
        """Pass a candidate to the flow; its verdict becomes an event. One `cid` is considered once."""
        self._context.consider(lid, cid, reveal(candidate, secrets))

    async def expire(self, lid: str) -> None:
        """Answer a lock with its default."""
        self._context.expire(lid)

    async def asked(self, after: int, timeout: float) -> bytes:
        """See `AskQueue.poll`."""
        return await self._context.asks.poll(after, timeout)

    async def reply(self, aid: int, packed: bytes) -> None:
        """See `AskQueue.reply`."""
        self._context.asks.reply(aid, packed)

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
                f"the flow's process has kodo {kodo_version()}, the node {spec['kodo']}: restart the node; "
                "of a Ray cluster, install the same version on every machine"
            )
        self._preload.join(PRELOAD_TIMEOUT)
        work = folder / "work"
        work.mkdir(mode=0o700, exist_ok=True)
        faulthandler.enable(open(plain_descriptor(folder / CRASH_FILE, _NEW), "w"))  # noqa: SIM115 (open for as long as this process lives)
        wanted, before = "", threading.enumerate()
        as_in_a_main_thread()
        try:
            own_packages.add(spec["entry"].partition(":")[0].partition(".")[0])
            loaded = self._imported_flow(spec["entry"])
            before = threading.enumerate()
            os.environ |= {
                EVENTS_VARIABLE: str(self._inlet.start(folder / "events")),
                RUN: spec["fid"],
                NODE: spec["node"],
            }
            os.chdir(work)  # files that a flow leaves lying about are its own, and go with it
            wanted = loaded.definition.outputs
            value = result_of(invoke(loaded, self._inbox.fill_in(spec["inputs"])))
            wait_for_threads(before, self._context.warn, GRACE_SECONDS)
            return value
        except SystemExit as error:
            if error.code:
                raise
            return None  # as a program that ends well
        finally:
            with contextlib.suppress(Exception):  # the run's own end is worth more
                write = partial(self._context.write_output, media_type=None)
                handle_leftovers(work, wanted, self._context.sources, write, self._context.warn)

    def _import_all(self, entries: list[str]) -> None:
        """Import the flow's module ahead of time; one that fails fails again, and is told, in a run of its own."""
        as_in_a_main_thread()
        for module in dict.fromkeys(map(group_of, entries)):
            try:
                own_packages.add(module.partition(".")[0])
                import_source(module)
            except BaseException:  # user code, SystemExit included
                self._imported = False
        warm_up()
        if entries and self._capture is not None:
            self._capture.flush(FLUSH_TIMEOUT)

    def _imported_flow(self, entry: str) -> LoadedFlow:
        """Import the run's flow, unless that was done; from then on what is said is the run's."""
        known = group_of(entry) in sys.modules
        code = self._spec["code"] if self._spec is not None else ""
        if code and not known:
            use_kept_code(code)
        try:
            return load_entry(entry)
        finally:
            if not known and self._capture is not None:
                self._capture.flush(FLUSH_TIMEOUT)
            self._context.imports = None
            if said := self._imports.read():
                self._context.ask("imports.said", {"entry": entry, "lines": said})

    def _finish(self) -> None:
        """Make events of all that was printed, before the last one; bounded."""
        tell_forgotten()
        if self._capture is not None:
            self._capture.flush(FLUSH_TIMEOUT)
        self._inlet.flush(FLUSH_TIMEOUT)


def warm_up() -> None:
    """Do what costs a process milliseconds once: its first form, and finding its version."""
    Form(_example).arguments({"number": 1})
    kodo_version()


def _example(number: int = 0) -> None:
    """Hold parameters."""
