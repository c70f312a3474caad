"""How busy the machine and the node are: counts and percentages, never who runs what."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from kodo.node.executors.executor import Executor
from kodo.registry.records.record import Ping

__all__ = ["Load", "LoadMeter", "has_spare_memory", "live_processes"]

_SPARE = 0.2
"""The part of the machine's memory that is left to runs which work, when processes are kept that only wait."""


@dataclass(frozen=True, slots=True)
class Load:
    """`cpu`, `memory`, `disk`: percent in use, 0–100. The others count runners, and runs that wait for one."""

    cpu: float
    memory: float
    disk: float
    free: int
    busy: int
    queued: int


class LoadMeter:
    """Reads the load; CPU use is that since the reading before.

    Args:
        home: whose disk is meant.
        waiting: how many runs wait for the executor.
    """

    def __init__(self, executor: Executor, home: Path, waiting: Callable[[], int] = lambda: 0):
        self._waiting = waiting
        self._executor = executor
        self._home = home
        psutil.cpu_percent(interval=None)

    def read(self) -> Load:
        """Read the load now. Does not block."""
        runners = self._executor.load()
        disk = shutil.disk_usage(self._home)
        return Load(
            cpu=float(psutil.cpu_percent(interval=None)),
            memory=float(psutil.virtual_memory().percent),
            disk=round(100 * disk.used / max(disk.total, 1), 1),
            free=runners.free,
            busy=runners.busy,
            queued=runners.queued + self._waiting(),
        )

    def ping(self) -> Ping:
        """Return what registries are told of the load now."""
        load = self.read()
        return Ping(
            cpu=min(load.cpu, 100.0),
            memory=min(load.memory, 100.0),
            disk=min(load.disk, 100.0),
            runners_free=max(load.free, 0),
            runners_busy=load.busy,
            queued=load.queued,
        )


def has_spare_memory() -> bool:
    """Return whether there is memory to keep processes that only wait."""
    memory = psutil.virtual_memory()
    return bool(memory.available >= memory.total * _SPARE)


def live_processes() -> list[int]:
    """Return the ids of all processes of this machine."""
    return list(psutil.pids())
