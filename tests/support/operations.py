"""How much work something is, in bytecodes: the same on every machine, however busy."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

__all__ = ["operations"]


def operations(work: Callable[[], Any]) -> int:
    """Count the bytecodes that `work` runs in this thread; what C code does inside one is not seen."""
    # Python 3.13 tells a trace function nothing of a frame's first steps after it was asked to: whatever runs once
    # would count as nothing. What it can be asked instead is not there before 3.12.
    return _monitored(work) if sys.version_info >= (3, 12) else _traced(work)


def _monitored(work: Callable[[], Any]) -> int:
    count = 0
    mine = threading.get_ident()

    def step(code: CodeType, offset: int) -> None:
        nonlocal count
        if threading.get_ident() == mine:
            count += 1

    monitoring: Any = vars(sys)["monitoring"]
    tool, event = monitoring.PROFILER_ID, monitoring.events.INSTRUCTION
    monitoring.use_tool_id(tool, "operations")
    monitoring.register_callback(tool, event, step)
    monitoring.set_events(tool, event)
    try:
        work()
    finally:
        monitoring.set_events(tool, 0)
        monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)
    return count


def _traced(work: Callable[[], Any]) -> int:
    count = 0

    def inside(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "opcode":
            count += 1
        return inside

    def called(frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return inside

    before = sys.gettrace()
    sys.settrace(called)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
