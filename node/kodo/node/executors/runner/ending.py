"""How a run ends in its runner: its work is done, and its last event told, whatever goes wrong on the way.

    work ─► describe the result, or the error ─► flush what was printed ─► pack, or store as an output ─► hand over
                                                                              │
                 each step may raise anything: results and errors are user code; then the end is a plain `fatal`

A run whose last event cannot even be handed over has its process ended: the node tells that to whoever waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sysconfig
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any

from kodo.flow._runtime.buffer import pack_event
from kodo.flow._runtime.plain import plain
from kodo.p2p.errors import CapacityError, KodoError
from kodo.protocol.fatal import exact_text, make_fatal

__all__ = ["Ending", "describe_error", "runtime_text"]

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RAY_FOLDER = os.path.join(sysconfig.get_path("purelib"), "ray") + os.sep

_KODO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))) + os.sep
_NOT_THE_AUTHORS = (
    "<frozen ",
    os.path.join(_KODO, "flow") + os.sep,
    os.path.join(_KODO, "node") + os.sep,
    *(os.path.normpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib", "platlib")),
)

_UNTOLD = make_fatal("InternalError", "the run is over; how it ended could not be reported")
_UNTOLD_PACKED = pack_event("fatal", _UNTOLD)  # beforehand: at the end there may be no memory for it


@dataclass(frozen=True)
class Ending:
    """Does the work of one run and tells its end.

    Attributes:
        flush: makes events of everything that was printed before; bounded.
        store: stores a result too large for an event, given as JSON with what makes a second name; returns the name.
        put_last: takes the last event, as `pack_event` makes it.
        abort: ends this process at once.
    """

    flush: Callable[[], object]
    store: Callable[[str, str], str]
    put_last: Callable[[bytes], object]
    abort: Callable[[], object]

    def run(self, work: Callable[[], Any]) -> None:
        """Do `work`, and tell its result or its error as the last event; never raises.

        `SystemExit` and `KeyboardInterrupt` end the run with `fatal`, not this process.
        """
        began = time.monotonic()
        try:
            value = work()
            seconds = round(time.monotonic() - began, 3)
            event, data = "final", {"result": plain(value), "runtime_s": seconds, "runtime": runtime_text(seconds)}
        except BaseException as error:
            event, data = "fatal", _guarded(partial(describe_error, error), _UNTOLD)
        with contextlib.suppress(BaseException):  # what was printed last is lost, the end is not
            self.flush()
        self._hand_over(self._pack(event, data))

    def _pack(self, event: str, data: dict[str, Any]) -> bytes:
        try:
            return self._pack_fitting(event, data)
        except BaseException as error:
            try:
                return pack_event("fatal", _untold(event, error))
            except BaseException:
                return _UNTOLD_PACKED

    def _pack_fitting(self, event: str, data: dict[str, Any]) -> bytes:
        try:
            return pack_event(event, data)
        except CapacityError:
            if event != "final":
                raise
            text = json.dumps(data["result"], ensure_ascii=False)
            name = self.store(text, str(data["runtime_s"]))
            return pack_event(event, {**data, "result": None, "output": name})

    def _hand_over(self, packed: bytes) -> None:
        for last in (packed, _UNTOLD_PACKED):
            with contextlib.suppress(BaseException):
                self.put_last(last)
                return
        self.abort()


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return the data of a `fatal` that tells an error; whatever the error's own code raises, this does not."""
    told = _guarded(lambda: _told_of(error), error)
    trace = _guarded(lambda: _own_part(error.__traceback__), None)
    return make_fatal(
        _class_of(told),
        _guarded(lambda: exact_text(_message(told)), f"{_class_of(told)}, whose message could not be made"),
        where=_guarded(lambda: _place(trace), ""),
        traceback=_guarded(lambda: _traceback(error, trace), ""),
    )


def _guarded(make: Callable[[], Any], instead: Any) -> Any:
    try:
        return make()
    except BaseException:  # an error's class, attributes and texts are user code
        return instead


def _class_of(error: BaseException) -> str:
    """Name the class without asking it: a metaclass may have its own idea of `__name__`."""
    return exact_text(type.__dict__["__name__"].__get__(type(error)))


def _untold(event: str, error: BaseException) -> dict[str, Any]:
    reason = f"{_class_of(error)}: {error}" if isinstance(error, KodoError | OSError) else _class_of(error)
    what = "the flow ended, and its result could not be told" if event == "final" else "the flow failed"
    return make_fatal(_class_of(error), f"{what} ({reason})")


def _told_of(error: BaseException) -> BaseException:
    """Return what went wrong: an error in a Ray task comes wrapped."""
    if type(error).__name__.startswith("RayTaskError"):
        cause = getattr(error, "cause", None)
        if isinstance(cause, BaseException):
            return cause
    return error


def _message(error: BaseException) -> str:
    return f"the flow called sys.exit({error.code!r})" if isinstance(error, SystemExit) else str(error)


def _traceback(error: BaseException, trace: TracebackType | None) -> str:
    # Ray colours its text for terminals.
    return _COLOUR.sub("", "".join(traceback.format_exception(type(error), error, trace)))


def _place(trace: TracebackType | None) -> str:
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(_RAY_FOLDER)]
    # The author's own line says more than the one of a library, or of kodo, to which it led.
    frames = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_AUTHORS)] or frames
    if not frames:
        return ""
    return f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name}"


def _own_part(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames by which kodo, asyncio and Ray called the flow."""
    kodo = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
    ours = (kodo, os.path.dirname(asyncio.__file__), _RAY_FOLDER)
    part = trace
    while part is not None and part.tb_frame.f_code.co_filename.startswith(ours):
        part = part.tb_next
    return part or trace


def runtime_text(seconds: float) -> str:
    """Return a duration for people: `0.3 s`, `1 min 4 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
