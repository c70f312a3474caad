"""Which state a run is in: one rule for the node's log, for what a runner may say, and for whoever follows. Pure.

pending ◄──► locked          by the locks that are open
   └────┬──────┘
        ├─ final ─► done ─┐
        └─ fatal ─► error ◄┘  (what ends a run once more changes `done` to `error`, and nothing else)

To people `pending` is two things, which the log does not tell apart: `queued`, while the run waits for its turn, and
`running`. See `shown_state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

__all__ = ["SHOWN_STATES", "Head", "RunState", "ends", "launched_state", "reduce", "shown_state", "state_of"]

SHOWN_STATES = ("queued", "running", "locked", "done", "error")
"""The states that people are shown."""


class RunState(StrEnum):
    """The state of a run, derived from its events."""

    PENDING = "pending"
    LOCKED = "locked"
    DONE = "done"
    ERROR = "error"

    @property
    def over(self) -> bool:
        """Whether nothing but `manage` events can follow."""
        return self in (RunState.DONE, RunState.ERROR)


@dataclass(frozen=True, slots=True)
class Head:
    """What decides the state of a run: whether it said `final` or `fatal`, and the lids of its open locks."""

    final: bool = False
    fatal: bool = False
    locks: frozenset[str] = frozenset()

    @property
    def state(self) -> RunState:
        """The state that these events make."""
        return state_of(final=self.final, fatal=self.fatal, locked=bool(self.locks))


def state_of(*, final: bool, fatal: bool, locked: bool) -> RunState:
    """Return the state of a run: `error` after a `fatal`, else `done` after a `final`, else by its open locks."""
    if fatal:
        return RunState.ERROR
    if final:
        return RunState.DONE
    return RunState.LOCKED if locked else RunState.PENDING


def shown_state(state: object, queue_position: object) -> str:
    """Return the state that people are shown: `queued` or `running` for `pending`, else `state` itself.

    Args:
        state: a state, of a run's row or of `run.state`.
        queue_position: its place in the queue beside it; an int while the run waits for its turn.
    """
    if state != RunState.PENDING:
        return str(state)
    return "queued" if isinstance(queue_position, int) else "running"


def launched_state(answer: Mapping[str, Any]) -> str:
    """Return the state that people are shown of a run that has just been launched.

    Args:
        answer: of `run.launch` or `run.restart`; that of an older node has no `queue_position` and says `pending`.
    """
    state = answer.get("state")
    return shown_state(state, answer["queue_position"]) if "queue_position" in answer else str(state)


def ends(event: str) -> bool:
    """Return whether an event of this name ends its run."""
    return event in ("final", "fatal")


def reduce(head: Head, event: str, data: Mapping[str, Any]) -> Head:
    """Return what an event, by its name and data, makes of a head; most events change nothing."""
    match event:
        case "final":
            return replace(head, final=True)
        case "fatal":
            return replace(head, fatal=True)
        case "lock":
            return replace(head, locks=head.locks | {_lid_of(data)})
        case "unlock" | "lock-timeout":
            return replace(head, locks=head.locks - {_lid_of(data)})
    return head


def _lid_of(data: Mapping[str, Any]) -> str:
    return str(data.get("lid", ""))
