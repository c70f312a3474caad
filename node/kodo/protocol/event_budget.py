"""How many events a run may make, and of how many bytes: what a loop in a flow can fill a node with is bounded.

Counted are the events that a flow makes as it likes. Locks, verdicts, outputs and the end have bounds of their own: a
flow that has used up its events can still end in order. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from kodo.p2p.errors import CapacityError

__all__ = ["MAX_RUN_EVENTS", "MAX_RUN_EVENT_BYTES", "UNCOUNTED", "EventBudget"]

MAX_RUN_EVENTS = 1_000_000
"""Events of one run unless its node says otherwise: one a second for eleven days."""

MAX_RUN_EVENT_BYTES = 512 << 20
"""Their bytes unless its node says otherwise; larger things are outputs."""

UNCOUNTED = frozenset(["lock", "unlock", "unlock-deny", "output", "final", "fatal"])
"""Events that are not counted."""

_WARN_AT = 0.9
_NOTICES = 2
_NOTICE_BYTES = 4096


@dataclass(slots=True)
class EventBudget:
    """What one run may still say.

    Attributes:
        max_events, max_bytes: the bounds.
        events, size: what was taken.
    """

    max_events: int = MAX_RUN_EVENTS
    max_bytes: int = MAX_RUN_EVENT_BYTES
    events: int = 0
    size: int = 0
    _noticed: int = 0

    @classmethod
    def of_node(cls, max_events: int, max_bytes: int) -> EventBudget:
        """Return a node's own count of what a flow says: the flow's, and the notices about it."""
        return cls(max_events + _NOTICES, max_bytes + _NOTICES * _NOTICE_BYTES)

    def take(self, event: str, size: int) -> None:
        """Count an event of `size` bytes.

        Raises:
            CapacityError: it is one too many; it was not counted.
        """
        if event in UNCOUNTED:
            return
        if self.events >= self.max_events or self.size + size > self.max_bytes:
            raise CapacityError(
                f"this run has made {self.events} events of {self.size} bytes together; {self.max_events} events of"
                f" {self.max_bytes} bytes are allowed: make fewer events, or write an output instead"
            )
        self.events += 1
        self.size += size

    def notice(self, *, refused: bool = False) -> str | None:
        """Return what the flow is to be told now, once each: that little is left, and that something was refused."""
        stage = 2 if refused else 1
        used = max(self.events / self.max_events, self.size / self.max_bytes)
        if self._noticed >= stage or (not refused and used < _WARN_AT):
            return None
        self._noticed = stage
        told = f"{self.events} of {self.max_events} events, {self.size} of {self.max_bytes} bytes"
        if refused:
            return f"this run has used up its events ({told}): what it prints and logs from now on is dropped"
        return f"this run has nearly used up its events ({told}): make fewer, or write an output instead"
