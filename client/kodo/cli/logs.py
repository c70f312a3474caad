"""What goes to stderr as a log: remarks of a command, or the log of a node or registry that runs.

A line of a program that serves has its time, UTC. As JSON it is one object: `at`, `level`, `logger`, `message`, and
what the line is about (`event`, `run`, `flow`, `by`, …), by which a log can be searched. Nothing that a user sent or
a flow made is in it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time

from kodo.cli.text import line

__all__ = ["LogHandler", "log_commands", "log_service", "logs_json"]

ABOUT = ("event", "run", "flow", "by", "why", "runtime_s", "peer")
"""What a line may be about, in the order in which it is written."""


class LogHandler(logging.Handler):
    """Writes each line to stderr, made safe; after that has been closed it is lost.

    Args:
        form: `remark`, `text` or `json`; a remark has no time.
    """

    def __init__(self, form: str):
        super().__init__()
        self.form = form

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        with contextlib.suppress(Exception):
            print(self.shown(record), file=sys.stderr, flush=True)

    def shown(self, record: logging.LogRecord) -> str:
        """Return the line."""
        level, text = record.levelname.lower(), record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        if self.form == "json":
            about = {name: getattr(record, name) for name in ABOUT if hasattr(record, name)}
            at = _time(record.created, "%Y-%m-%dT%H:%M:%S", "Z")
            told = {"at": at, "level": level, "logger": record.name, "message": text, **about}
            return json.dumps(told)
        if self.form == "text":
            return f"{_time(record.created, '%Y-%m-%d %H:%M:%S')} {level}: {line(text)}"
        return f"{level}: {line(text)}"


def log_commands(verbose: bool) -> None:
    """Log as a command does that is soon over: warnings, or with `verbose` everything."""
    _install(LogHandler("remark"), logging.DEBUG if verbose else logging.WARNING, verbose=verbose)


def log_service(form: str, level: str, *, verbose: bool) -> None:
    """Log as a program does that serves.

    Args:
        form: `text` or `json`.
        level: the least that is logged.
        verbose: log everything, other libraries' warnings too.
    """
    _install(LogHandler(form), logging.DEBUG if verbose else getattr(logging, level.upper()), verbose=verbose)


def logs_json() -> bool:
    """Return whether everything on stderr has to be JSON."""
    return any(isinstance(each, LogHandler) and each.form == "json" for each in logging.getLogger().handlers)


def _install(handler: LogHandler, level: int, *, verbose: bool) -> None:
    root = logging.getLogger()
    for each in list(root.handlers):
        root.removeHandler(each)
    if not verbose:
        # Some libraries set their loggers' levels themselves; what they remark on is nothing a user can act upon.
        handler.addFilter(logging.Filter("kodo"))
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("kodo").setLevel(level)


def _time(seconds: float, form: str, end: str = "") -> str:
    return f"{time.strftime(form, time.gmtime(seconds))}.{int(seconds * 1000) % 1000:03d}{end}"
