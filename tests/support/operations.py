"""How much work something is, in bytecodes: the same on every machine, however busy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["operations"]


def operations(work: Callable[[], Any]) -> int:
    """Give the number of bytecodes that `work` runs; what C code does inside one is not seen."""
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
    # From Python 3.12 on nothing is told of bytecodes unless a frame has asked for them before tracing begins.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(called)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
