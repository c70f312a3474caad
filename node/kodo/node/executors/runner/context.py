"""What a flow is connected to in its runner: its events, locks and outputs. Nothing of Ray is in it."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any

from kodo.flow._runtime.bars import RayBars
from kodo.flow._runtime.buffer import EventBuffer, pack_event
from kodo.flow._runtime.context import DONE, Context, Demand, Emitted, LockExpiredError
from kodo.flow._runtime.files import is_name_of_file, media_type_of, write_file
from kodo.flow._runtime.form import reasons_of
from kodo.flow._runtime.node_requests import AskQueue
from kodo.flow._runtime.plain import plain
from kodo.node.executors.local_files import open_below
from kodo.node.executors.runner.imports import ImportLog
from kodo.p2p.errors import CapacityError, IntegrityError, UsageError
from kodo.protocol.event_budget import EventBudget
from kodo.protocol.fatal import exact_text
from kodo.protocol.flow_limits import (
    MAX_REASON_CHARACTERS,
    MAX_REASONS,
    NO_SCHEMA,
    check_lock_room,
    check_output,
    check_output_room,
)
from kodo.protocol.ids import make_id
from kodo.protocol.portable_names import fold, portability
from kodo.protocol.secrets import hide

__all__ = ["RunnerContext", "is_rays_mark"]

_RAY_MARK = re.compile(r":(job_id:[0-9a-f]{8}|actor_name:\w+|task_name:[\w.<>]+)")


def is_rays_mark(line: str) -> bool:
    """Return whether a line of output is what Ray prints into it for its log monitor."""
    return _RAY_MARK.fullmatch(line) is not None


class RunnerContext(Context):
    """The flow's side of a runner."""

    def __init__(self) -> None:
        self.buffer = EventBuffer()
        self.asks = AskQueue(self.buffer.tell_asking)
        self.has_tasks = False
        self.last_ingest = 0.0
        self.folder: Path | None = None  # of outputs; there is none before there is a run
        self._outputs: dict[str, str] = {}  # names, and what systems that do not tell case apart take them for
        self.sources: set[tuple[int, int]] = set()  # device and inode of files that outputs were made of
        self._bars = RayBars()
        self.last_line = ""  # of what was printed
        self._guard = threading.Lock()
        self._locks: dict[str, _OpenLock] = {}
        self._opened = self._lock_bytes = 0
        self.budget = EventBudget()
        self._counting = threading.Lock()
        self._considered: set[str] = set()
        self.imports: ImportLog | None = None  # while there is no run, and its module is imported

    def emit(self, event: str, data: dict[str, Any]) -> Emitted:
        if self.imports is not None:
            self.imports.take(event, data)
            return DONE
        packed = pack_event(event, data)
        self.count(event, len(packed))
        return self.buffer.put(packed)

    def count(self, event: str, size: int) -> None:
        """Count an event of the flow's, and tell the flow when it has made nearly, or too, many.

        Raises:
            CapacityError: it may not be made.
        """
        with self._counting:
            try:
                self.budget.take(event, size)
                notice = self.budget.notice()
            except CapacityError:
                notice = self.budget.notice(refused=True)
                raise
            finally:
                if notice is not None:
                    self._say("log", {"level": "WARNING", "logger": __name__, "text": notice})

    def ask(self, op: str, args: Mapping[str, Any]) -> Future[Any]:
        if self.folder is None:
            raise UsageError("a flow can ask its node only while it runs, not while its module is imported")
        return self.asks.ask(op, args)

    def line(self, event: str, text: str) -> None:
        """Take one line of output."""
        if event == "stdout":
            self.last_line = text
        is_bar, data = self._bars.read(text, time.monotonic())
        if data is not None:
            self.draw(data)
        if not is_bar and not is_rays_mark(text):
            with contextlib.suppress(CapacityError):  # what is printed is dropped then, and the flow was told
                self.emit(event, {"text": text})

    def draw(self, data: dict[str, Any]) -> None:
        """Take what a progress bar shows."""
        with contextlib.suppress(CapacityError):
            self.emit("progress", data)

    def store_result(self, text: str, spare: str) -> str:
        """Store a result too large for an event as the output `final.json`; return its name.

        Args:
            text: the result as JSON.
            spare: makes the name another one when the flow has used it.
        """
        name = "final.json" if "final.json" not in self._outputs else f"final-{spare}.json"
        self._write(name, text, "application/json", result=True)
        return name

    def lock(self, demand: Demand) -> Future[Any]:
        return self.open_lock(make_id(time.time_ns() // 1_000_000, os.urandom(10)), demand)

    def open_lock(self, lid: str, demand: Demand) -> Future[Any]:
        """Open a lock under this id; see `lock`."""
        from kodo.node.schemas.forms import is_schema  # many flows ask nothing, and need not wait for its libraries

        data = demand.event(lid)
        if not is_schema(data["schema"]):
            raise UsageError(NO_SCHEMA)
        packed = pack_event("lock", data)
        opened = _OpenLock(demand)
        with self._guard:
            check_lock_room(self._opened, self._lock_bytes + len(packed))
            self._opened += 1
            self._lock_bytes += len(packed)
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
        value = accepted = None
        try:
            value, shown = opened.demand.accept(candidate)
            # Packed before the lock is closed: an answer that does not fit is denied, and the lock stays open.
            answer = hide(opened.demand.schema, plain(shown))[0]
            accepted = pack_event("unlock", {"lid": lid, "cid": cid, "answer": answer})
        except BaseException as error:  # the check is user code: what it raises denies, or nobody would be told
            reasons = _reasons_against(error)
        with self._guard:
            if not reasons and time.monotonic() > deadline:
                reasons = ["the verdict came too late"]
            if not reasons and self._locks.pop(lid, None) is None:
                reasons = ["this lock is not open"]
            if reasons or accepted is None:
                self._say("unlock-deny", {"lid": lid, "cid": cid, "reasons": reasons})
                return
            self.buffer.put(accepted, wait=False)
        _settle(opened.future, value)

    def expire(self, lid: str, error: Exception | None = None) -> None:
        """End a lock without an answer: by its default, or by an error, which may be given."""
        with self._guard:
            opened = self._locks.pop(lid, None)
        if opened is None:
            return
        if error is None and not opened.demand.has_default:
            error = LockExpiredError(f"nobody answered {opened.demand.title!r} in time")
        _settle(opened.future, opened.demand.default, error)

    def close_lock(self, future: Future[Any], answer: Any) -> None:
        with self._guard:
            lid = next((lid for lid, opened in self._locks.items() if opened.future is future), None)
            if lid is None:
                return
            opened = self._locks.pop(lid)
            hidden = hide(opened.demand.schema, plain(answer))[0]
            self._say("unlock", {"lid": lid, "cid": "", "answer": hidden})
        _settle(opened.future, answer)

    def _say(self, event: str, data: dict[str, Any]) -> None:
        """Make an event that must not wait: the actor's loop, or a lock's guard, would wait with it."""
        self.buffer.put(pack_event(event, data), wait=False)

    def warn(self, text: str) -> None:
        """Make a `log` event of level WARNING, unless the run has made too many."""
        with contextlib.suppress(CapacityError):
            self.emit("log", {"level": "WARNING", "logger": "kodo.flow", "text": text})

    def write_output(self, name: str, source: Any, media_type: str | None) -> dict[str, Any]:
        return self._write(name, source, media_type or media_type_of(name), result=False)

    def _write(self, name: str, source: Any, media_type: str, *, result: bool) -> dict[str, Any]:
        check_output(name, media_type)
        if self.folder is None:
            raise UsageError("a flow can write an output only while it runs, not while its module is imported")
        with self._guard:
            if name in self._outputs:
                raise UsageError(f"this run has an output {name!r}; a name is used once")
            check_output_room(len(self._outputs), result=result)
            folded = fold(name)
            alike = [other for other, its in self._outputs.items() if its == folded]
            self._outputs[name] = folded
        if why := portability(name, alike):
            text = f"the output {name!r} is renamed when it is downloaded to a system that cannot store it: {why}"
            self.warn(text)
        if is_name_of_file(source):
            self.warn(
                f"the output {name!r} is the text {source!r}: for the file of that name, write Path({source!r})"
            )
        try:
            manifest = write_file(self.folder / name, source, parts=self.folder.with_name("parts"))
        except BaseException as error:
            with self._guard:
                del self._outputs[name]
            if isinstance(error, (FileExistsError, NotADirectoryError, IsADirectoryError)):
                raise UsageError(
                    f"the output {name!r} would take the place of another output or its folder"
                ) from error
            raise
        data = {
            "name": name,
            "size": manifest.size,
            "sha256": manifest.sha256.hex(),
            "media_type": media_type,
        }
        if isinstance(source, os.PathLike):
            with contextlib.suppress(OSError):
                about = os.stat(source)
                self.sources.add((about.st_dev, about.st_ino))
        self.emit("output", {**data, "chunks_sha256": manifest.chunks_sha256.hex()})
        return data

    def read_output(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a written output; `b""` at its end.

        Raises:
            UsageError: there is no such output.
            IntegrityError: the flow has removed it, or put something else in its place.
        """
        if self.folder is None or name not in self._outputs:
            raise UsageError(f"this run has no output {name!r}")
        descriptor = open_below(self.folder, name)
        if descriptor is None:
            raise IntegrityError(f"the output {name!r} is not the file any more that the flow had written")
        try:
            return os.pread(descriptor, length, offset)
        finally:
            os.close(descriptor)


class _OpenLock:
    def __init__(self, demand: Demand):
        self.demand = demand
        self.future: Future[Any] = Future()


def _settle(future: Future[Any], value: Any, error: Exception | None = None) -> None:
    """End what a flow waits for; it may have given up waiting, as `asyncio.wait_for` does, at just this moment."""
    with contextlib.suppress(InvalidStateError):
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


def _reasons_against(error: BaseException) -> list[str]:
    """Return why a candidate is denied; whatever the error's code does, there is a reason, and all fit an event."""
    try:
        if isinstance(error, ValueError):
            reasons = reasons_of(error)
        else:
            reasons = [f"the check failed: {type(error).__name__}: {error}"]
        return [exact_text(reason)[:MAX_REASON_CHARACTERS] for reason in reasons[:MAX_REASONS]]
    except BaseException:
        return ["the check failed, and its error could not be told"]
