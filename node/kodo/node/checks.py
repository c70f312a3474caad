"""What a runner says is checked before it is believed: a flow's process is other people's code.

Pure. A runner that says what it may not say ends its run; it cannot harm the log, other runs or their followers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from kodo.node.executor import RunnerEvent
from kodo.node.forms import is_schema
from kodo.node.rows import NewEvent
from kodo.p2p.errors import KodoError
from kodo.protocol.events import EVENTS, RunView
from kodo.protocol.ids import is_id
from kodo.protocol.manifest import check_output_name

__all__ = ["MAX_LOCKS", "MAX_LOCK_BYTES", "MAX_OUTPUTS", "Conduct", "MisconductError"]

MAX_OUTPUTS = 10_000
"""Outputs of one run."""

MAX_LOCKS = 10_000
"""Locks of one run, open and closed ones."""

MAX_LOCK_BYTES = 16 << 20
"""Bytes of all of them."""

_MAX_TITLE = 4096
_MAX_SECONDS = 1e9


class MisconductError(KodoError):
    """A runner said what a runner may not say; `str()` is fit for a `fatal` event and holds nothing of the data."""


@dataclass(slots=True)
class Conduct:
    """What one run's runner has said so far, as far as it decides what it may say next.

    Attributes:
        rseq: the last number it used.
        lids: the locks it has opened, ever.
        outputs: the names of the files it has made.
        lock_bytes: the bytes of the locks that it has opened since this process drives it.
        over: whether it has said `final` or `fatal`.
    """

    rseq: int = 0
    lids: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    lock_bytes: int = 0
    over: bool = False

    @classmethod
    def resume(cls, rseq: int, view: RunView, closed_lids: set[str]) -> Conduct:
        """Take up a run whose first `rseq` events are in the log already."""
        return cls(rseq, set(view.locks) | closed_lids, set(view.outputs), view.state.over)

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
        match said.event:
            case "lock":
                self._lock(said.data)
                self.lock_bytes += len(new.packed)
                if self.lock_bytes > MAX_LOCK_BYTES:
                    raise MisconductError(f"the locks of a run have at most {MAX_LOCK_BYTES} bytes in all")
            case "unlock":
                self._verdict(said.event, said.data)
            case "unlock-deny":
                self._verdict(said.event, said.data)
                if not _texts(said.data.get("reasons", [])):
                    raise MisconductError("the reasons of an 'unlock-deny' are a list of texts")
            case "output":
                self._output(said.data)
            case "final":
                if not _seconds(said.data.get("runtime_s", 1.0), allow_zero=True):
                    raise MisconductError("the runtime of a 'final' is no number of seconds")
                self.over = True
            case "fatal":
                if not all(isinstance(said.data.get(key), str) for key in ("type", "message")):
                    raise MisconductError("a 'fatal' needs a type and a message")
                self.over = True
        self.rseq = said.rseq
        return new

    def _lock(self, data: dict[str, Any]) -> None:
        lid, title, schema = data.get("lid"), data.get("title"), data.get("schema")
        if not isinstance(lid, str) or not is_id(lid) or lid in self.lids:
            raise MisconductError("a 'lock' needs a lid of its own")
        if len(self.lids) >= MAX_LOCKS:
            raise MisconductError(f"a run has at most {MAX_LOCKS} locks")
        if not isinstance(title, str) or len(title) > _MAX_TITLE:
            raise MisconductError(f"a lock's title is a text of at most {_MAX_TITLE} characters")
        if not isinstance(schema, dict):
            raise MisconductError("a lock's schema is a map")
        if not is_schema(schema):
            raise MisconductError("a lock's schema is not a JSON Schema (2020-12)")
        for name in ("expires_s", "verdict_s"):
            if not _seconds(data.get(name, 1.0)):
                raise MisconductError(f"a lock's {name} is no number of seconds above 0")
        if not _texts(data.get("roles", [])) or not _texts(data.get("users", [])):
            raise MisconductError("a lock's roles and users are lists of texts")
        self.lids.add(lid)

    def _verdict(self, event: str, data: dict[str, Any]) -> None:
        if data.get("lid") not in self.lids:
            raise MisconductError(f"an {event!r} names no lock of this run")

    def _output(self, data: dict[str, Any]) -> None:
        name, size, digest, media = (data.get(key) for key in ("name", "size", "sha256", "media_type"))
        try:
            check_output_name(name if isinstance(name, str) else "")
        except ValueError:
            raise MisconductError("an output's name is not one that a file can bear everywhere") from None
        assert isinstance(name, str)
        if name in self.outputs:
            raise MisconductError("two outputs have the same name")
        if len(self.outputs) >= MAX_OUTPUTS:
            raise MisconductError(f"a run has at most {MAX_OUTPUTS} outputs")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
            raise MisconductError("an output's size is no number of bytes")
        if not isinstance(digest, str) or len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise MisconductError("an output's sha256 is not 64 hexadecimal digits")
        if not isinstance(media, str) or len(media) > 255:
            raise MisconductError("an output's media type is a text of at most 255 characters")
        self.outputs.add(name)


def _seconds(value: Any, *, allow_zero: bool = False) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return (value >= 0 if allow_zero else value > 0) and value <= _MAX_SECONDS


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
