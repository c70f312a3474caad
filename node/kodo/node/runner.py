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
import queue
import re
import shutil
import sys
import sysconfig
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any

from kodo.flow.asks import AskQueue, error_of, pack_error
from kodo.flow.buffer import EventBuffer, pack_event
from kodo.flow.capture import EventLogHandler, StreamCapture
from kodo.flow.context import DONE, Context, Demand, Emitted, LockExpiredError, install
from kodo.flow.files import media_type_of, write_file
from kodo.flow.form import Form, reasons_of
from kodo.flow.inlet import EVENTS_VARIABLE, EventInlet
from kodo.flow.invoke import invoke
from kodo.flow.load import add_roots, load_entry
from kodo.flow.plain import plain
from kodo.node.crash import CRASH_FILE
from kodo.node.inbox import Inbox
from kodo.p2p.errors import CapacityError, KodoError, UsageError
from kodo.protocol.ids import make_id
from kodo.protocol.manifest import check_output_name
from kodo.protocol.secrets import Secrets, hide, reveal

__all__ = ["RunnerActor", "kodo_version", "prepare_worker", "runtime_text", "warm_up"]

PRELOAD_TIMEOUT = 20.0
"""Seconds for which a warm runner waits for the scope's imports; a module that hangs only delays its own flow."""

FLUSH_TIMEOUT = 5.0
"""Seconds that the end of a run waits for what was printed."""

TASK_QUIET_SECONDS = 0.5
"""How long the flow's Ray tasks must have said nothing at the run's end."""

MAX_READ_BYTES = 4 * 1024 * 1024
"""Bound of one `read_output`."""

MAX_MESSAGE_CHARACTERS = 10_000
MAX_TRACEBACK_CHARACTERS = 50_000

_RAY_MARK = re.compile(r":(job_id:[0-9a-f]{8}|actor_name:\w+|task_name:[\w.<>]+)")
"""What Ray prints into a worker's output for its log monitor."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAY_FOLDER = os.path.join(sysconfig.get_path("purelib"), "ray") + os.sep

_capture: StreamCapture | None = None


@functools.cache
def kodo_version() -> str:
    """Give the version of kodo that this process runs."""
    try:
        return version("kodo")
    except PackageNotFoundError:
        return "0"


def prepare_worker() -> None:
    """Make a Ray worker of a runner fit for user code; Ray calls it in each worker before anything else."""
    global _capture
    if "KODO_RUNNER" not in os.environ or _capture is not None:
        return
    context = _TaskContext(os.environ["KODO_RUNNER"], os.environ.get("KODO_NAMESPACE", ""))
    _capture = StreamCapture(context.line)
    _capture.start()
    install(context)
    _log_as_events(context)
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


def _log_as_events(context: Context) -> None:
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    root.addHandler(EventLogHandler(context.emit))
    if root.level in (logging.NOTSET, logging.WARNING):
        root.setLevel(logging.INFO)


class RunnerActor:
    """The Ray actor. Its methods are what `ray_executor` calls; all answer at once, but for `poll`."""

    def __init__(self, preload: Sequence[str], folder: str | None):
        """Start importing the modules of `preload`; keep files in `folder`, or in a new temporary one."""
        self._wanted = folder
        self._folder: Path | None = None
        self._context = RunnerContext()
        if _capture is not None:
            _capture.sink = self._context.line
        install(self._context)
        _log_as_events(self._context)
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
        """Give `fid`, the run it is for, or None, `started`, and `asking`. One that has not started never will."""
        self._sealed = self._spec is None
        return {"fid": self._fid, "started": self._spec is not None, "asking": self._context.buffer.asking}

    async def start(self, spec: dict[str, Any], secrets: Secrets) -> None:
        """Run a flow: `fid`, `path`, `entry`, `inputs`, and the node's version of `kodo`; once, unless sealed.

        `secrets` belong into the inputs.
        """
        if self._sealed:
            raise UsageError("another process of the node has given this runner up")
        if self._spec is not None:
            raise UsageError(f"this runner has been given the run {self._context.fid}")
        self._spec = {**spec, "inputs": reveal(spec["inputs"], secrets)}
        self._fid = spec["fid"]
        self._context.folder = self._make_folder() / "files"
        self._context.fid = spec["fid"]
        threading.Thread(target=self._run, name="kodo-flow", daemon=True).start()

    async def take_input(self, uid: str, name: str, offset: int, data: bytes, sha256: str | None) -> None:
        """Take a piece of a file that the inputs name, before `start`; see `Inbox.take`."""
        folder = self._make_folder() / "inputs"
        await asyncio.to_thread(self._inbox.take, folder, uid, name, offset, data, sha256)

    def _make_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(self._wanted or tempfile.mkdtemp(prefix="kodo-run-"))
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._folder

    async def poll(self, after: int, timeout: float) -> bytes:
        """See `EventBuffer.poll`."""
        return await self._context.buffer.poll(after, timeout)

    async def ingest(self, events: list[bytes]) -> None:
        """Take events that a Ray task of the flow made; waits while the node is behind."""
        self._context.last_ingest = time.monotonic()
        for packed in events:
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
        context, spec, folder = self._context, self._spec, self._folder
        assert spec is not None
        assert folder is not None
        started = time.monotonic()
        try:
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
            value = invoke(load_entry(spec["entry"]), self._inbox.fill_in(spec["inputs"]))
        except BaseException as error:  # SystemExit and KeyboardInterrupt end the run too, not this process
            data = _fatal(error)
            self._finish()
            context.end("fatal", data)
        else:
            seconds = round(time.monotonic() - started, 3)
            value = plain(value)
            self._finish()
            context.end("final", {"result": value, "runtime_s": seconds, "runtime": runtime_text(seconds)})

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


class RunnerContext(Context):
    """The flow's side of a runner."""

    def __init__(self) -> None:
        self.buffer = EventBuffer()
        self.asks = AskQueue(self.buffer.tell_asking)
        self.has_tasks = False
        self.last_ingest = 0.0
        self.folder: Path | None = None  # of outputs; there is none before there is a run
        self._outputs: dict[str, str] = {}  # by case-folded name: some clients' disks do not tell case apart
        self._guard = threading.Lock()
        self._locks: dict[str, _OpenLock] = {}
        self._considered: set[str] = set()

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        return self.buffer.put(pack_event(event, data))

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        if self.folder is None:
            raise UsageError("the node is asked while a flow runs, not when its module is imported")
        return self.asks.ask(op, args)

    def line(self, event: str, text: str) -> None:
        """Take one line of output."""
        if not _RAY_MARK.fullmatch(text):
            self.buffer.put(pack_event(event, {"text": text}))

    def end(self, event: str, data: dict[str, Any]) -> None:
        """Make the run's last event; a result too large for one becomes the output `final.json`."""
        try:
            packed = pack_event(event, data)
        except CapacityError:
            name = "final.json" if "final.json" not in self._outputs else f"final-{data['runtime_s']}.json"
            self.write_output(name, json.dumps(data["result"], ensure_ascii=False), None)
            packed = pack_event(event, {**data, "result": None, "output": name})
        self.buffer.put(packed, last=True)

    def lock(self, demand: Demand) -> Future[Any]:
        lid = make_id(time.time_ns() // 1_000_000, os.urandom(10))
        data: dict[str, Any] = {"lid": lid, "title": demand.title, "schema": demand.schema}
        if demand.has_default:
            data["default"] = plain(demand.default)
        if demand.roles:
            data["roles"] = list(demand.roles)
        if demand.users:
            data["users"] = list(demand.users)
        packed = pack_event("lock", {**data, "expires_s": demand.expires_s, "verdict_s": demand.verdict_s})
        opened = _OpenLock(demand)
        with self._guard:
            self._locks[lid] = opened
        self.buffer.put(packed)
        return opened.future

    def consider(self, lid: str, cid: str, candidate: Any) -> None:
        """Judge a candidate in a thread of its own, because a check is user code."""
        with self._guard:
            if cid in self._considered:
                return
            self._considered.add(cid)
            opened = self._locks.get(lid)
        if opened is None:
            self._say("unlock-deny", {"lid": lid, "cid": cid, "reasons": ["this lock is not open"]})
            return
        threading.Thread(target=self._judge, args=(opened, lid, cid, candidate), daemon=True).start()

    def _judge(self, opened: _OpenLock, lid: str, cid: str, candidate: Any) -> None:
        deadline = time.monotonic() + opened.demand.verdict_s
        reasons: list[str] = []
        value = shown = None
        try:
            value, shown = opened.demand.accept(candidate)
        except ValueError as error:
            reasons = reasons_of(error)
        except Exception as error:  # the flow's check is broken: the candidate is denied, the lock stays open
            reasons = [f"the check failed: {type(error).__name__}: {error}"[:MAX_MESSAGE_CHARACTERS]]
        with self._guard:
            if not reasons and time.monotonic() > deadline:
                reasons = ["the verdict came too late"]
            if not reasons and self._locks.pop(lid, None) is None:
                reasons = ["this lock is not open"]
            if reasons:
                self._say("unlock-deny", {"lid": lid, "cid": cid, "reasons": reasons})
                return
            self._say("unlock", {"lid": lid, "cid": cid, "answer": hide(opened.demand.schema, plain(shown))[0]})
        opened.future.set_result(value)

    def expire(self, lid: str) -> None:
        """End a lock without an answer."""
        with self._guard:
            opened = self._locks.pop(lid, None)
        if opened is None:
            return
        if opened.demand.has_default:
            opened.future.set_result(opened.demand.default)
        else:
            opened.future.set_exception(LockExpiredError(f"nobody answered {opened.demand.title!r} in time"))

    def _say(self, event: str, data: dict[str, Any]) -> None:
        """Make an event that must not wait: the actor's loop, or a lock's guard, would wait with it."""
        self.buffer.put(pack_event(event, data), wait=False)

    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        check_output_name(name)
        if self.folder is None:
            raise UsageError("an output is written while a flow runs, not when its module is imported")
        with self._guard:
            if name.casefold() in self._outputs:
                raise UsageError(f"this run has an output {self._outputs[name.casefold()]!r}; a name is used once")
            self._outputs[name.casefold()] = name
        try:
            manifest = write_file(self.folder / name, source, parts=self.folder.with_name("parts"))
        except BaseException as error:
            with self._guard:
                del self._outputs[name.casefold()]
            if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError)):
                raise UsageError(f"the output {name!r} is at the place of another one's folder") from error
            raise
        data = {
            "name": name,
            "size": manifest.size,
            "sha256": manifest.sha256.hex(),
            "media_type": media_type or media_type_of(name),
        }
        self.emit("output", data)
        return data

    def read_output(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a written output; `b""` at its end.

        Raises:
            UsageError: there is no such output.
        """
        if self.folder is None or self._outputs.get(name.casefold()) != name:
            raise UsageError(f"this run has no output {name!r}")
        with open(self.folder / name, "rb") as file:
            file.seek(offset)
            return file.read(length)


class _OpenLock:
    def __init__(self, demand: Demand):
        self.demand = demand
        self.future: Future[Any] = Future()


class _TaskContext(Context):
    """What a Ray task of the flow is connected to: its runner, by the runner's name."""

    def __init__(self, name: str, namespace: str):
        self._name = name
        self._namespace = namespace
        self._queue: queue.Queue[bytes] = queue.Queue(maxsize=10_000)
        self._sender: threading.Thread | None = None
        self._runner: Any = None

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        self._send(pack_event(event, data))
        # A task's events come before its result, for whoever waits for that; a loop is not held up.
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._queue.join()
        return DONE

    def line(self, event: str, text: str) -> None:
        """Take one line of output."""
        if not _RAY_MARK.fullmatch(text):
            self._send(pack_event(event, {"text": text}))

    def lock(self, demand: Demand) -> Future[Any]:
        raise UsageError("a lock is asked in the flow itself, not in its Ray tasks")

    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        raise UsageError("an output is written in the flow itself: return its bytes from the Ray task")

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        future: Future[Any] = Future()

        def carry() -> None:
            import ray

            try:
                told = ray.get(self._find_runner().relay.remote(op, dict(args)))
                if "error" in told:
                    raise error_of(told["error"])
                future.set_result(told["done"])
            except Exception as error:  # told to the task that waits
                future.set_exception(error)

        threading.Thread(target=carry, name="kodo-relay", daemon=True).start()
        return future

    def start(self) -> None:
        """Be ready to forward before there is something: a short task would be over before its first line."""
        self._sender = threading.Thread(target=self._forward, name="kodo-forward", daemon=True)
        self._sender.start()

    def _send(self, packed: bytes) -> None:
        self._queue.put(packed)

    def _forward(self) -> None:
        with contextlib.suppress(Exception):  # as below
            self._find_runner()
        while True:
            batch = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < 500:
                    batch.append(self._queue.get_nowait())
            with contextlib.suppress(Exception):  # the runner is gone: so is whoever would read this
                self._deliver(batch)
            for _ in batch:
                self._queue.task_done()

    def _deliver(self, batch: list[bytes]) -> None:
        import ray

        ray.get(self._find_runner().ingest.remote(batch))

    def _find_runner(self) -> Any:
        import ray

        if self._runner is None:
            self._runner = ray.get_actor(self._name, namespace=self._namespace)
        return self._runner


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


def _fatal(error: BaseException) -> dict[str, Any]:
    # An error in a Ray task comes wrapped; what went wrong is its cause, and Ray colours the text for terminals.
    cause = getattr(error, "cause", None)
    wrapped = type(error).__name__.startswith("RayTaskError") and isinstance(cause, BaseException)
    told: BaseException = cause if wrapped and cause is not None else error
    trace = _own_part(error.__traceback__)
    text = _COLOUR.sub("", "".join(traceback.format_exception(type(error), error, trace)))
    data: dict[str, Any] = {
        "type": type(told).__name__,
        "message": _message(told)[:MAX_MESSAGE_CHARACTERS],
        "traceback": text[-MAX_TRACEBACK_CHARACTERS:],
    }
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(_RAY_FOLDER)]
    if frames:
        data["where"] = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name}"
    result: dict[str, Any] = plain(data)
    return result


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the flow called sys.exit({error.code!r})"
    try:
        return str(error)
    except Exception:  # user code
        return ""


def _own_part(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames by which kodo and asyncio called the flow."""
    ours = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep, os.path.dirname(asyncio.__file__))
    part = trace
    while part is not None and part.tb_frame.f_code.co_filename.startswith(ours):
        part = part.tb_next
    return part or trace


def runtime_text(seconds: float) -> str:
    """Say a duration for people: `0.3 s`, `1 min 4 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
