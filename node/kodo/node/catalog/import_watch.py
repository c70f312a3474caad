"""Watches the process that imports flows to describe them: what it prints, which module it is at, for how long."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from kodo.flow._runtime.describe import BEGIN, END
from kodo.node.executors.runner_calls import log_imports

__all__ = ["IMPORT_SECONDS", "SLOW_SECONDS", "ImportWatch"]

logger = logging.getLogger(__name__)

SLOW_SECONDS = 5.0
"""After which it is told that a module is slow to import."""

IMPORT_SECONDS = 60.0
"""After which a module is given up: its flows are broken."""

_BEGIN, _END = BEGIN.encode(), END.encode()


class ImportWatch:
    """Hears one such process; `with` ends its timer. It needs a running loop.

    Attributes:
        unit: what is being imported, a line of the scope or a module; None between them.
    """

    def __init__(self) -> None:
        self.unit: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._began = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def hear(self, line: bytes) -> bool:
        """Take a line of its stderr; return whether it has come further."""
        loop = asyncio.get_running_loop()
        if line.startswith(_BEGIN):
            self._stop()
            self.unit, self._began = line[len(_BEGIN) :].decode("utf-8", "replace"), loop.time()
            self._timer = loop.call_later(SLOW_SECONDS, self._tell)
            return True
        if line.startswith(_END):
            if self._timer is not None and self._timer.when() <= loop.time():
                logger.warning("%s took %.0f s to import", self.unit, loop.time() - self._began)
            self._stop()
            self.unit = None
            return True
        if line.strip():
            log_imports(self.unit or "a flow", [line.decode("utf-8", "replace")])
        return False

    def _tell(self) -> None:
        logger.warning(
            "%s is slow to import, over %.0f s; it has up to %.0f s", self.unit, SLOW_SECONDS, IMPORT_SECONDS
        )

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
