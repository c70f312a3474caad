"""What a runner says is checked before it is believed: a flow's process is other people's code.

Pure. The bounds are those of `kodo.protocol.flow_limits`, to which a flow's calls are held before. A runner that says
what it may not say ends its run; it cannot harm the log, other runs or their followers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgpack

from kodo.node.executors.executor import RunnerEvent
from kodo.node.schemas.forms import is_schema
from kodo.node.store.rows import NewEvent
from kodo.p2p.errors import CapacityError, KodoError, UsageError
from kodo.protocol.event_budget import EventBudget
from kodo.protocol.events import EVENTS, MAX_EVENT_BYTES, RunView
from kodo.protocol.flow_limits import (
    NO_SCHEMA,
    check_lock,
    check_lock_room,
    check_output,
    check_output_room,
    is_seconds,
    is_texts,
)
from kodo.protocol.ids import is_id
from kodo.protocol.run_state import ends

__all__ = ["Conduct", "MisconductError", "unpack_event"]


class MisconductError(KodoError):
    """A runner said what a runner may not say; `str()` is fit for a `fatal` event and holds nothing of the data."""


def unpack_event(packed: Any) -> Any:
    """Return the data of an event that a runner has said.

    Raises:
        ValueError: it is larger than an event may be: then none of its values is made; or no msgpack.
        TypeError: it is not bytes.
        RecursionError: it is nested too deeply.
    """
    if len(packed) > MAX_EVENT_BYTES:
        raise ValueError(f"an event has {len(packed)} bytes, above the limit of {MAX_EVENT_BYTES}")
    return msgpack.unpackb(packed)


@dataclass(slots=True)
class Conduct:
    """What one run's runner has said so far, as far as it decides what it may say next.

    Attributes:
        rseq: the last number it used.
        lids: the locks it has opened, ever.
        outputs: the names of the files it has made.
        lock_bytes: the bytes of the locks that it has opened since this process drives it.
        over: whether it has said `final` or `fatal`.
        budget: what it may still say; None: a process of an earlier release told it, and counted.
    """

    rseq: int = 0
    lids: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    lock_bytes: int = 0
    over: bool = False
    budget: EventBudget | None = None

    @classmethod
    def resume(cls, rseq: int, view: RunView, closed_lids: set[str]) -> Conduct:
        """Take up a run whose first `rseq` events are in the log already."""
        return cls(rseq, set(view.locks) | closed_lids, set(view.outputs), over=view.state.over)

    def check(self, said: RunnerEvent) -> NewEvent:
        """Check the next event of the runner and make it ready for the log.

        Raises:
            MisconductError: saying what is wrong.
        """
        if self.over:
            raise MisconductError("the runner went on after its last event")
        if said.rseq != self.rseq + 1:
            raise MisconductError(f"the runner's event {said.rseq} came after {self.rseq}")
        known = EVENTS.get(said.event) if isinstance(said.event, str) else None
        if known is None or not known.flow:
            raise MisconductError(f"a flow may not make the event {str(said.event)[:64]!r}")
        if not isinstance(said.data, dict):
            raise MisconductError(f"the data of {said.event!r} is not a map")
        try:
            new = NewEvent.make(said.event, said.data, said.rseq, said.packed)
        except ValueError as error:
            raise MisconductError(str(error)) from None
        try:
            if self.budget is not None:
                self.budget.take(said.event, len(new.packed))
            self._judge(said, new)
        except (UsageError, CapacityError) as error:
            raise MisconductError(str(error)) from None
        self.rseq, self.over = said.rseq, ends(said.event)
        return new

    def _judge(self, said: RunnerEvent, new: NewEvent) -> None:
        match said.event:
            case "lock":
                self._lock(said.data, len(new.packed))
            case "unlock":
                self._verdict(said.event, said.data)
            case "unlock-deny":
                self._verdict(said.event, said.data)
                if not is_texts(said.data.get("reasons", [])):
                    raise MisconductError("the reasons of an 'unlock-deny' are a list of texts")
            case "output":
                self._output(said.data)
            case "final":
                if not is_seconds(said.data.get("runtime_s", 1.0), allow_zero=True):
                    raise MisconductError("the runtime of a 'final' is not a number of seconds")
            case "fatal":
                if not all(isinstance(said.data.get(key), str) for key in ("type", "message")):
                    raise MisconductError("a 'fatal' needs a type and a message")

    def _lock(self, data: dict[str, Any], size: int) -> None:
        lid = data.get("lid")
        if not isinstance(lid, str) or not is_id(lid) or lid in self.lids:
            raise MisconductError("a 'lock' needs a lid of its own")
        check_lock(data)
        if not is_schema(data["schema"]):
            raise MisconductError(NO_SCHEMA)
        # One may be the node's own, which asked for missing inputs.
        check_lock_room(max(len(self.lids) - 1, 0), self.lock_bytes + size)
        self.lids.add(lid)
        self.lock_bytes += size

    def _verdict(self, event: str, data: dict[str, Any]) -> None:
        lid = data.get("lid")
        if not isinstance(lid, str) or lid not in self.lids:
            raise MisconductError(f"an {event!r} names no lock of this run")

    def _output(self, data: dict[str, Any]) -> None:
        name, size, media = (data.get(key) for key in ("name", "size", "media_type"))
        try:
            check_output(name, media)
        except ValueError:
            raise MisconductError("an output's name is not a valid file name") from None
        assert isinstance(name, str)
        if name in self.outputs:
            raise MisconductError("two outputs have the same name")
        check_output_room(len(self.outputs), result=True)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
            raise MisconductError("an output's size is not a number of bytes")
        for key in ("sha256", "chunks_sha256"):
            digest = data.get(key)
            if digest is None and key == "chunks_sha256":
                continue  # of a runner that was started by an earlier release
            if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
                raise MisconductError(f"an output's {key} is not 64 hexadecimal digits")
        self.outputs.add(name)
