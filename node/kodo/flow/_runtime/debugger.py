"""`breakpoint()` in a flow: stops on the terminal of `koco run ./file.py`; elsewhere the run says it was skipped.

A flow's process has no terminal. `koco run` names its own by `TERMINAL`, and is asked by a lock to take its display
away before the debugger speaks; a `log` event of the logger `LOGGER` tells it when the flow goes on. Whoever sets
`PYTHONBREAKPOINT` has chosen another debugger, which is called as Python would.
"""

from __future__ import annotations

import os
import pdb
import sys
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from kodo.flow._runtime.context import Demand
from kodo.flow._runtime.current import current, emit_here
from kodo.protocol.breakpoints import FORM, LOGGER, TERMINAL
from kodo.protocol.events import LOCK_EXPIRES_S, LOCK_VERDICT_S

__all__ = ["stop_at_breakpoints"]

_one_at_a_time = threading.Lock()


def stop_at_breakpoints(warn: Callable[[str], object]) -> None:
    """Make `breakpoint()` use the terminal that `TERMINAL` names; without one, call `warn` instead."""

    def stop(*args: Any, **options: Any) -> Any:
        """Stop in the debugger."""
        chosen = os.environ.get("PYTHONBREAKPOINT", "")
        # Ray names its own debugger in each worker and driver: nobody chose it, and it would wait for ever.
        if chosen and not chosen.startswith("ray."):
            return sys.__breakpointhook__(*args, **options)
        frame = sys._getframe(1)
        place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
        terminal = os.environ.get(TERMINAL)
        if terminal is None or current().fid is None:
            warn(
                f"breakpoint() at {place} was skipped: this run has no terminal. `koco run ./file.py` on a terminal "
                "stops there; or set PYTHONBREAKPOINT to a debugger that is attached to, e.g. debugpy.breakpoint"
            )
            return None
        _TerminalDebugger(terminal, place).set_trace(frame)
        return None

    sys.breakpointhook = stop


class _TerminalDebugger(pdb.Pdb):
    """Python's own debugger on a terminal that another process shows a run on."""

    def __init__(self, terminal: str, place: str):
        # Open until the process ends, as a debugger's own terminal is.
        super().__init__(
            stdin=open(terminal),  # noqa: SIM115
            stdout=open(terminal, "w"),  # noqa: SIM115
            nosigint=True,
        )
        self._place = place
        self._held = False

    def interaction(self, frame: FrameType | None, tb_or_exc: TracebackType | BaseException | None) -> None:
        """Ask for the terminal, then for commands."""
        if not self._held:
            _one_at_a_time.acquire()  # another thread may have stopped, too
            self._held = True
            title = f"breakpoint() at {self._place}"
            demand = Demand(
                title, FORM, lambda value: (value, value), LOCK_EXPIRES_S, LOCK_VERDICT_S, True, True, (), ()
            )
            current().lock(demand).result()
        super().interaction(frame, tb_or_exc)  # type: ignore[arg-type]

    def set_continue(self) -> None:
        """Go on, and give the terminal back."""
        super().set_continue()
        self._leave()

    def set_quit(self) -> None:
        """End the flow, and give the terminal back."""
        super().set_quit()
        self._leave()

    def _leave(self) -> None:
        if self._held:
            self._held = False
            _one_at_a_time.release()
            emit_here("log", {"level": "INFO", "logger": LOGGER, "text": f"goes on after {self._place}"})
