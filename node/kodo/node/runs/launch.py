"""What a launch is about, the bounds that it is held to, and the words in which it is refused.

    Order ──► NewRun ⊂ RunRow ──► LiveRun ──► RunSpec
    asked     stored              in memory   for its process

Each of them is made of the one before, in one place: `Order.new_run`, `NewRun.stored`, `LiveRun.spec`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kodo.node.store.rows import NewEvent, NewRun
from kodo.node.store.transaction import Transaction
from kodo.p2p.errors import CallError, CapacityError
from kodo.protocol.event_budget import MAX_RUN_EVENT_BYTES, MAX_RUN_EVENTS
from kodo.protocol.events import LOCK_EXPIRES_S, LOCK_VERDICT_S, RunState
from kodo.protocol.secrets import Secrets

__all__ = ["ROW_BYTES", "Order", "RunSettings", "bad_state", "disk_full", "stopping", "too_large"]


ROW_BYTES = 4096
"""What a row takes beside the inputs that it keeps, at most: a name, a note, tags."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Bounds and times of runs; seconds.

    Attributes:
        max_live: runs that are not over at once, waiting ones too.
        max_live_each: the same for one principal.
        max_runs: runs that have a runner and wait for nobody; further ones wait in line (`kodo.node.runs.queue`).
        poll_s: how long one poll waits for news.
        silent_s: how much longer than that a runner may take to answer one.
        grace_s: how long a restarted node looks for the runners it left.
        end_s: how long a runner may take to end.
        disk_s: how long a run outlives a disk that takes nothing.
        keep_runs: whether runs go on when the node is closed; else each that has begun ends with `fatal`.
        max_events, max_event_bytes: how much one run may say, but for locks, outputs and its end.
        versions: the data of each run's `version` event.
    """

    max_live: int = 1000
    max_live_each: int = 250
    max_runs: int = 64
    poll_s: float = 20.0
    silent_s: float = 30.0
    grace_s: float = 30.0
    end_s: float = 10.0
    disk_s: float = 600.0
    keep_runs: bool = False
    max_events: int = MAX_RUN_EVENTS
    max_event_bytes: int = MAX_RUN_EVENT_BYTES
    versions: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """What a launch is about; the inputs are valid already. `about`: the data of the run's `flow` event.

    `secrets`: what `kodo.protocol.secrets.hide` took out of the inputs.
    `check`: raises when the launch is to be refused after all; asked once the run is known to be new.
    `payer`: against whose bounds the run counts; empty: the account of its principal.
    `also`: what else is stored with the run, or refuses it, by its fid; not for a run that its `key` names.
    `then`: what is stored right behind it, in the same transaction, which knows the run.
    `code`: see `RunSpec`.
    `limit`: how many runs of its path may be unfinished at once; None: as many as the node has room for.
    `demand`: JSON Schema of inputs that are missing; the run begins with a lock that asks for them.
    """

    principal: str
    path: str
    name: str
    entry: str
    inputs: dict[str, Any]
    resources: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    key: str | None = None
    also: Callable[[sqlite3.Connection, str], None] | None = None
    then: Callable[[Transaction, str], None] | None = None
    demand: dict[str, Any] | None = None
    secrets: Secrets = field(default_factory=list)
    payer: str = ""
    code: str = ""
    limit: int | None = None
    check: Callable[[], Awaitable[None]] | None = None

    def new_run(self, fid: str, settings: RunSettings) -> NewRun:
        """Return what is stored of it, as the run `fid`; its inputs are in the run's events."""
        return NewRun(
            fid=fid,
            principal=self.principal,
            path=self.path,
            name=self.name,
            entry=self.entry,
            resources=self.resources,
            tags=self.tags,
            payer=self.payer,
            max_events=settings.max_events,
            max_event_bytes=settings.max_event_bytes,
        )

    def first_events(self, versions: Mapping[str, Any], new_id: Callable[[], str]) -> list[NewEvent]:
        """Return the events that the run begins with; the last one is a lock if inputs are missing.

        Args:
            new_id: gives the lock's id.

        Raises:
            ValueError: the inputs, or what is said of the flow, fit no event.
        """
        first = [
            NewEvent.make("version", dict(versions)),
            NewEvent.make("flow", self.about),
            NewEvent.make("inputs", self.inputs),
        ]
        if self.demand is not None:
            data = {"lid": new_id(), "title": f"Inputs of {self.name}"[:512], "schema": self.demand}
            first.append(NewEvent.make("lock", {**data, "expires_s": LOCK_EXPIRES_S, "verdict_s": LOCK_VERDICT_S}))
        return first


def stopping() -> CallError:
    """Return the refusal of a node that is about to end."""
    return CallError(503, "stopping", "this node is stopping; try again when it is back")


def too_large(why: ValueError) -> CallError:
    """Return the refusal of inputs that no event takes."""
    return CallError(413, "too-large", f"inputs do not fit an event: {why}; upload large ones")


def disk_full(error: CapacityError) -> CallError:
    """Return the refusal of something for which the disk has no room."""
    return CallError(507, "disk-full", str(error))


def bad_state(what: str, state: RunState) -> CallError:
    """Return the refusal of something that a run in `state` does not allow."""
    needed = "pending or locked" if state.over else "done or error"
    return CallError(
        400,
        "bad-state",
        f"cannot {what} a run that is {state.value}; it must be {needed}",
        {"state": state.value},
    )
