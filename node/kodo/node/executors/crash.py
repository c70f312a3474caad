"""What a runner's process leaves behind when a signal ends it: the report of Python's fault handler."""

from __future__ import annotations

from pathlib import Path

from kodo.node.executors.executor import RunnerDiedError
from kodo.p2p.net.files import open_plain

__all__ = ["CRASH_FILE", "add_crash", "read_crash"]

CRASH_FILE = "crash"
"""Its name in the folder of a run."""

_MAX_BYTES = 50_000
_HEAD = "Fatal Python error: "
_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
}


def read_crash(text: str) -> tuple[str | None, str]:
    """Read the fault handler's report: the signal's name, if it was one, and the stack of each thread."""
    if not text.startswith(_HEAD):
        return None, ""
    head, _, rest = text.partition("\n")
    return _SIGNALS.get(head.removeprefix(_HEAD)), f"{head}\n{rest}".strip()


def add_crash(error: RunnerDiedError, path: Path) -> None:
    """Add to an error what the report at `path` tells, if there is one."""
    try:
        with open_plain(path) as file:
            error.signal, error.stack = read_crash(file.read(_MAX_BYTES).decode("utf-8", "replace"))
    except OSError:
        return
    if error.signal:
        error.args = (f"the flow's process was ended by {error.signal}",)
