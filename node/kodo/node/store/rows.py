"""What goes into the store and what comes out of it, as data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import msgpack

from kodo.p2p.core.callframe import check_value
from kodo.p2p.errors import KodoError
from kodo.protocol.events import EVENTS, MAX_EVENT_BYTES, MAX_EVENT_DEPTH, RunState
from kodo.protocol.manifest import Manifest
from kodo.protocol.secrets import MAX_SECRET_BYTES

__all__ = [
    "KEY_REUSED",
    "Created",
    "KeyReusedError",
    "NewEvent",
    "NewRun",
    "OnceKey",
    "OutputRow",
    "RunNotOverError",
    "RunOverError",
    "RunRow",
    "RunSharedError",
    "SearchTooLongError",
    "check_packed",
    "digest_of",
]


class RunOverError(KodoError):
    """An event came for a run that is over, so it was not stored. `state`: done or error."""

    def __init__(self, fid: str, state: RunState):
        super().__init__(f"the run {fid} is over: {state.value}")
        self.fid = fid
        self.state = state


class RunNotOverError(KodoError):
    """Something was asked that only a run which is over allows. `state`: pending or locked."""

    def __init__(self, fid: str, state: RunState):
        super().__init__(f"the run {fid} is not over: {state.value}")
        self.fid = fid
        self.state = state


class SearchTooLongError(KodoError):
    """A search in texts took all the work that it may. `seconds`: how much that is."""

    def __init__(self, seconds: float):
        super().__init__(f"the search took over {seconds:g} s of work; narrow it by flow, tag or time")
        self.seconds = seconds


KEY_REUSED = "this key was used for something else within the last 24 h; take another"


class RunSharedError(KodoError):
    """A run was to be removed unless it is shared, and it is."""


class KeyReusedError(KodoError):
    """An idempotency key came again with other contents; nothing was stored."""


def check_packed(value: Any) -> None:
    """Check that a value may become an event's data, before more is done with it; its secrets are kept beside that.

    Raises:
        ValueError: it is not plain data, or has more bytes than an event and its secrets.
    """
    try:
        check_value(value, MAX_EVENT_DEPTH)
        size, most = len(msgpack.packb(value)), MAX_EVENT_BYTES + MAX_SECRET_BYTES
    except (TypeError, OverflowError) as error:
        raise ValueError(f"it is not plain data: {type(error).__name__}") from None
    if size > most:
        raise ValueError(f"it has {size} bytes, above the limit of {most}")


class NewEvent(NamedTuple):
    """An event that asks to be stored. Make it with `NewEvent.make`.

    `rseq` is the runner's own number of it, None for the node's events.
    """

    event: str
    data: dict[str, Any]
    packed: bytes
    rseq: int | None = None

    @classmethod
    def make(cls, event: str, data: dict[str, Any], rseq: int | None = None, packed: bytes | None = None) -> NewEvent:
        """Check `data`, and pack it unless it came `packed`.

        Raises:
            ValueError: when the event is unknown, or its data is not plain or larger than `MAX_EVENT_BYTES`.
        """
        if event not in EVENTS:
            raise ValueError(f"there is no event {event[:64]!r}")
        try:
            check_value(data, MAX_EVENT_DEPTH)
            packed = packed or msgpack.packb(data)
        except (TypeError, ValueError, OverflowError) as error:
            why = str(error) if type(error) is ValueError else type(error).__name__
            raise ValueError(f"the data of {event!r} is not plain data: {why}") from None
        assert packed is not None
        if len(packed) > MAX_EVENT_BYTES:
            raise ValueError(f"the event {event!r} has {len(packed)} bytes, above the limit of {MAX_EVENT_BYTES}")
        return cls(event, data, packed, rseq)


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that asks to be stored.

    Attributes:
        principal: to whom it belongs.
        entry, resources: what an executor needs, see `RunSpec`.
        payer: against whose bounds it counts; empty: its principal's account, or it is over: where its launch came
            from is not kept for longer than it takes up room.
        max_events, max_event_bytes: what it may say, see `EventBudget`; None: an earlier release launched it.
    """

    fid: str
    principal: str
    path: str
    name: str
    entry: str
    resources: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    payer: str = ""
    max_events: int | None = None
    max_event_bytes: int | None = None

    def stored(self, now_ms: int) -> RunRow:
        """Return the row of this run as it is when it was stored at `now_ms`, ms UTC."""
        own = {each.name: getattr(self, each.name) for each in fields(NewRun)}
        return RunRow(**own, created=now_ms, modified=now_ms)


@dataclass(frozen=True, slots=True)
class OnceKey:
    """An idempotency key: what is stored with it is stored once a day at most.

    Attributes:
        principal: whose key it is.
        key: the key itself.
        value: what a second caller gets instead of a second deed (a fid, a cid).
        digest: `bytes[32]`, the SHA-256 of what the deed is about.
    """

    principal: str
    key: str
    value: str
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow(NewRun):
    """One run as it is stored, without its events.

    Attributes:
        created, modified: ms UTC of its first and last event.
        last_seq, last_rseq: the last numbers that were stored; 0 for none.
        handed: whether an executor may have started it.
        killed: whether its log has a `kill`.
        runtime_s: seconds, as the flow's process measured them; None before `final`.
        acknowledged: ms UTC at which it was acknowledged, if it was.
    """

    created: int
    modified: int
    state: RunState = RunState.PENDING
    progress: dict[str, Any] | None = None
    runtime_s: float | None = None
    handed: bool = False
    killed: bool = False
    last_seq: int = 0
    last_rseq: int = 0
    acknowledged: int | None = None


@dataclass(frozen=True, slots=True)
class OutputRow:
    """One output of a run, complete on this node's disk."""

    name: str
    media_type: str
    manifest: Manifest


class Created(NamedTuple):
    """The answer to `Store.create`: the run's fid, and whether it was made just now (else: by its key, earlier)."""

    fid: str
    fresh: bool


def digest_of(value: Any) -> bytes:
    """Return the SHA-256 (`bytes[32]`) of plain data, whatever the order of its maps' keys.

    Raises:
        ValueError: when `value` is not plain data.
    """
    try:
        return hashlib.sha256(msgpack.packb(_ordered(value))).digest()
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not plain data: {type(error).__name__}") from None


def _ordered(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value, key=lambda key: (type(key).__name__, key))}
    if isinstance(value, list | tuple):
        return [_ordered(item) for item in value]
    return value
