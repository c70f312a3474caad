"""A run that is not over, as the node holds it in memory. All of it can be had again from the log."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from kodo.node.executors.executor import InputFile, Runner, RunSpec
from kodo.node.runs.launch import RunSettings
from kodo.node.store.rows import RunRow
from kodo.protocol.access import account_of
from kodo.protocol.events import Event, RunView
from kodo.protocol.secrets import Secrets
from kodo.protocol.uploads import find_uploads

__all__ = ["STDERR_LINES", "LiveRun"]

STDERR_LINES = 40
"""How many lines of stderr the `fatal` of a runner that died repeats."""


@dataclass(slots=True, eq=False)
class LiveRun:
    """One live run.

    Attributes:
        row: its facts as they were when it became live; what changes stands in `view`.
        view: what its committed events add up to, always up to date.
        handed: whether its flow may have begun; then it is not started again.
        lids: all its locks, open and closed.
        runner: once there is one.
        driver: the task that carries the runner's events into the log.
        server: the task that answers what the run asks the node, once it has asked something.
        ending: held by whoever ends the run from outside.
        claimed: locks with an answer, or a timeout, under way to the log.
        moved: set after each commit.
        handed_at: lock → the steady ms at which its candidate was last handed to the runner.
        code: see `RunSpec`; of a run that an earlier process of the node launched it is not known.
        waits: what it waits for now, `room` on the disk; else empty.
        waited: how often that was told.
        stderr: the last lines that it printed there, for the case that its process dies.
    """

    row: RunRow
    view: RunView = field(default_factory=RunView)
    lids: set[str] = field(default_factory=set)
    handed: bool = False
    runner: Runner | None = None
    driver: asyncio.Task[None] | None = None
    server: asyncio.Task[None] | None = None
    ending: asyncio.Lock = field(default_factory=asyncio.Lock)
    claimed: set[str] = field(default_factory=set)
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    handed_at: dict[str, int] = field(default_factory=dict)
    code: str = ""
    waits: str = ""
    waited: int = 0
    stderr: deque[str] = field(default_factory=lambda: deque(maxlen=STDERR_LINES))
    _uploads: frozenset[str] | None = None

    @property
    def fid(self) -> str:
        """The run's id."""
        return self.row.fid

    @property
    def payer(self) -> str:
        """Against whose bounds it counts."""
        return self.row.payer or account_of(self.row.principal)

    @property
    def uploads(self) -> frozenset[str]:
        """The ids of the uploads among its inputs, which are searched once."""
        if self._uploads is None and self.view.inputs:
            self._uploads = frozenset(find_uploads(self.view.inputs))
        return self._uploads or frozenset()

    def spec(self, settings: RunSettings, files: tuple[InputFile, ...], secrets: Secrets) -> RunSpec:
        """Return what a runner needs of this run.

        Args:
            files: the uploads among its inputs.
            secrets: what belongs in the place of each `MASK` in them.
        """
        row = self.row
        return RunSpec(
            fid=row.fid,
            path=row.path,
            entry=row.entry,
            inputs=self.view.inputs,
            resources=row.resources,
            files=files,
            secrets=secrets,
            # As they were when it was launched: a process of this node that takes it up knows them too.
            max_events=row.max_events or settings.max_events,
            max_event_bytes=row.max_event_bytes or settings.max_event_bytes,
            node=str(settings.versions.get("node", "")),
            code=self.code,
        )

    def apply(self, events: list[Event]) -> None:
        """Take events that were committed."""
        self.view.extend(events)
        self.moved.set()
        for event in events:
            if event.event == "lock":
                self.lids.add(str(event.data.get("lid")))
            elif event.event == "stderr":
                self.stderr.append(str(event.data.get("text"))[:1000])
