"""What a flow logs, as `log` events: its own records from INFO on, those of libraries from WARNING on.

A level that somebody sets, on a logger or by `logging.basicConfig`, counts as it does in any program.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import sysconfig
from collections.abc import Callable
from typing import Any

from kodo.protocol.fatal import exact_text

__all__ = ["EventLogHandler", "log_as_events", "own_packages"]

own_packages: set[str] = set()
"""Packages that are the flow's own, wherever they are installed."""

MAX_LOG_CHARACTERS = 60_000
"""A longer log record is cut; whatever its characters are, it fits an event."""

_MAX_NAME_CHARACTERS = 1000
_LIBRARIES = tuple(
    os.path.normpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def log_as_events(emit: Callable[[str, dict[str, object]], object]) -> None:
    """Make `log` events of what this process logs from now on, and log nothing elsewhere."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    quiet = _Quiet()
    made = EventLogHandler(emit)
    made.addFilter(quiet)
    root.addHandler(made)
    if root.level in (logging.NOTSET, logging.WARNING):
        root.setLevel(logging.INFO)
    set_level, original = root.setLevel, logging.basicConfig

    def choose(level: int | str) -> None:
        """Take the level that somebody sets for all."""
        quiet.chosen = True
        set_level(level)

    vars(root)["setLevel"] = choose

    def configure(**options: Any) -> None:
        """Take the level, which Python's own leaves alone where there is a handler already."""
        if options.get("level") is not None:
            root.setLevel(options["level"])
        original(**options)

    logging.basicConfig = configure


class _Quiet(logging.Filter):
    """Keeps back what libraries tell below WARNING, as every program does in which nobody sets a level."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is told."""
        return (
            record.levelno >= logging.WARNING
            or self.chosen
            or not _is_library(record.name.partition(".")[0])
            or _has_level(record.name)
        )


def _has_level(name: str) -> bool:
    """Return whether somebody set the level of a logger, or of one above it but the root."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None and logger.parent is not None:
        if logger.level:
            return True
        logger = logger.parent
    return False


def _is_library(package: str) -> bool:
    file = getattr(sys.modules.get(package), "__file__", None)
    return package not in own_packages and isinstance(file, str) and os.path.normpath(file).startswith(_LIBRARIES)


class EventLogHandler(logging.Handler):
    """Turns log records into `log` events: `{level, logger, text}`."""

    def __init__(self, emit: Callable[[str, dict[str, object]], object]):
        super().__init__()
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        """Make the event; a record that cannot be formatted is said to be so, without its arguments."""
        try:
            text = self.format(record)
        except Exception as error:  # arguments that do not fit the format, a __str__ that fails
            text = f"{record.msg!s:.1000} <{type(error).__name__}>"
        with contextlib.suppress(Exception):  # logging must not raise in the flow
            self._emit(
                "log",
                {
                    "level": exact_text(str(record.levelname))[:_MAX_NAME_CHARACTERS],
                    "logger": exact_text(str(record.name))[:_MAX_NAME_CHARACTERS],
                    "text": exact_text(text)[:MAX_LOG_CHARACTERS],
                },
            )
