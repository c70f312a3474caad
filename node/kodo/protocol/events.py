"""Events: their kinds, producers and levels, and what the events of one run add up to; `run_state` has its state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import msgpack

from kodo.protocol.numbers import seconds_within
from kodo.protocol.run_state import RunState, state_of

__all__ = [
    "EVENTS",
    "LOCK_EXPIRES_S",
    "LOCK_VERDICT_S",
    "MAX_EVENT_BYTES",
    "MAX_EVENT_DEPTH",
    "MAX_HELD",
    "MAX_LISTED",
    "Event",
    "EventType",
    "Kind",
    "OpenLock",
    "RunState",
    "RunView",
    "event_level",
    "is_whole",
    "visible",
]

MAX_EVENT_BYTES = 256 * 1024
"""Bound of one event's `data` as msgpack."""

MAX_EVENT_DEPTH = 48
"""Maps and lists inside each other in one event's `data`: a call's frame with the event around it takes 64."""

MAX_LISTED = 1000
"""How many agents, tasks, tools, steps and words of config (of each, the latest) a `RunView` keeps."""

MAX_HELD = 10_000
"""How many open locks and outputs it keeps."""

_LISTED_BYTES = 1 << 20
_HELD_BYTES = 256 << 20

_MAX_SECONDS = 1e9

LOCK_EXPIRES_S = 64_800.0
"""Seconds that a lock stays open when it does not say (18 h)."""

LOCK_VERDICT_S = 60.0
"""Seconds that a flow has to judge a candidate when its lock does not say."""


class Kind(StrEnum):
    """What part of a run's life an event belongs to."""

    DATA = "data"
    PROCESS = "process"
    LOCK = "lock"
    MANAGE = "manage"


class EventType(NamedTuple):
    """`level`: the least grant level that sees it. `flow`: a flow's process may make it. `node`: the node may."""

    kind: Kind
    level: int
    flow: bool
    node: bool


def _types() -> dict[str, EventType]:
    table: list[tuple[Kind, int, bool, bool, str]] = [
        (Kind.DATA, 0, False, True, "inputs version flow"),
        (Kind.DATA, 2, True, True, "config agent task tool"),
        (Kind.PROCESS, 0, True, False, "progress final"),
        (Kind.PROCESS, 0, True, True, "fatal"),
        (Kind.PROCESS, 0, False, True, "wait"),
        (Kind.PROCESS, 1, True, False, "result result-error output"),
        (Kind.PROCESS, 2, True, False, "action action-error log stdout stderr"),
        (Kind.LOCK, 0, True, True, "lock unlock unlock-deny"),
        (Kind.LOCK, 0, False, True, "candidate unlock-timeout lock-timeout"),
        (Kind.MANAGE, 0, False, True, "acknowledge kill delete share unshare"),
    ]
    return {
        name: EventType(kind, level, flow, node) for kind, level, flow, node, names in table for name in names.split()
    }


EVENTS: Mapping[str, EventType] = _types()
"""Every event there is, by name."""


_pack = msgpack.Packer().pack


def _wire_names(kind: str, event: str) -> bytes:
    return b"".join((b"\xa4kind", _pack(str(kind)), b"\xa5event", _pack(event), b"\xa4data"))


_WIRE_NAMES = {name: _wire_names(known.kind.value, name) for name, known in EVENTS.items()}


def event_level(event: str) -> int:
    """Return the least level that sees `event`; an unknown one is shown at level 2 only."""
    known = EVENTS.get(event)
    return known.level if known else 2


class Event(NamedTuple):
    """One entry of a run's log.

    `seq` counts 1, 2, 3 … without gaps in the log; `at` is ms UTC from the node's clock, never decreasing.
    """

    seq: int
    at: int
    kind: str
    event: str
    data: dict[str, Any]

    def to_wire(self) -> dict[str, Any]:
        """Return the map that goes over the wire and into JSON."""
        return {"seq": self.seq, "at": self.at, "kind": self.kind, "event": self.event, "data": self.data}

    def pack_wire(self, data: bytes) -> bytes:
        """Return `to_wire` as msgpack; `data` is the event's data as msgpack."""
        head = _WIRE_NAMES.get(self.event) or _wire_names(self.kind, self.event)
        return b"".join((b"\x85\xa3seq", _pack(self.seq), b"\xa2at", _pack(self.at), head, data))

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> Event:
        """Read an event that a peer sent.

        Raises:
            ValueError: when a field is missing or of a wrong type.
        """
        seq, at, kind, event, data = (value.get(name) for name in ("seq", "at", "kind", "event", "data"))
        if (
            not isinstance(seq, int)
            or not isinstance(at, int)
            or not isinstance(kind, str)
            or not isinstance(event, str)
            or not isinstance(data, dict)
            or seq < 1
        ):
            raise ValueError("not an event: seq, at, kind, event and data are needed")
        return cls(seq, at, kind, event, data)


def visible(event: Event, level: int, *, manages: bool = True) -> Event | None:
    """Return `event` as a reader of `level` (0, 1 or 2) may see it, or None when it may not.

    Args:
        manages: whether the reader launched the run or is an operator: with whom it is shared is for them only.
    """
    if event_level(event.event) > level or (event.event in ("share", "unshare") and not manages):
        return None
    if event.event == "fatal" and level < 2 and "traceback" in event.data:
        return event._replace(data={key: value for key, value in event.data.items() if key != "traceback"})
    return event


@dataclass(slots=True)
class OpenLock:
    """A lock that waits: `candidate` is the id of the answer that awaits its verdict, if any. Times in ms UTC."""

    lid: str
    title: str
    schema: dict[str, Any]
    opened_at: int
    expires_at: int
    default: Any = None
    has_default: bool = False
    candidate: str | None = None
    candidate_at: int = 0
    verdict_s: float = LOCK_VERDICT_S
    roles: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


@dataclass(slots=True)
class RunView:
    """What the events of one run add up to; feed them in order with `apply`.

    Pure and cheap: a node keeps one per live run, a client one per followed run. Bounded, whatever the events: what
    is oldest of a kind is dropped first. What `kodo.node.executors.checks` lets a flow say is never above the bounds
    of locks and outputs.

    Attributes:
        progress: the latest progress that is not a part of another one.
        steps: the latest of each progress that has an `id`; its `parent` is the id of what it is a part of.
    """

    last_seq: int = 0
    created: int = 0
    modified: int = 0
    progress: dict[str, Any] | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    version: dict[str, Any] = field(default_factory=dict)
    flow: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    agents: list[dict[str, Any]] = field(default_factory=list)
    tasks: list[dict[str, Any]] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    locks: dict[str, OpenLock] = field(default_factory=dict)
    final: dict[str, Any] | None = None
    fatal: dict[str, Any] | None = None
    acknowledged: bool = False
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    _bounds: dict[str, _Bound] = field(default_factory=dict, repr=False, compare=False)

    @property
    def state(self) -> RunState:
        """`error` after a `fatal`, else `done` after a `final`, else `locked` by an open lock, else `pending`."""
        return state_of(final=self.final is not None, fatal=self.fatal is not None, locked=bool(self.locks))

    def extend(self, events: Iterable[Event]) -> None:
        """Apply several events in order."""
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Take the next event; one that was taken before changes nothing."""
        if event.seq <= self.last_seq:
            return
        self.last_seq = event.seq
        self.created = self.created or event.at
        self.modified = event.at
        data = event.data
        match event.event:
            case "progress":
                self.go_on(data)
            case "inputs":
                self.inputs = data
            case "version":
                self.version = data
            case "flow":
                self.flow = data
            case "config":
                for word, value in data.items():
                    self._put("config", self.config, word, value)
            case "agent":
                self._list("agents", self.agents, data)
            case "task":
                self._list("tasks", self.tasks, data)
            case "tool":
                self._list("tools", self.tools, data)
            case "output":
                self._put("outputs", self.outputs, str(data.get("name")), data, MAX_HELD, _HELD_BYTES)
            case "final":
                self.final = data
            case "fatal":
                if self.fatal is None:
                    self.fatal = data
            case "acknowledge":
                self.acknowledged = True
            case "lock" | "candidate" | "unlock" | "unlock-deny" | "unlock-timeout" | "lock-timeout":
                self._apply_lock(event)

    def go_on(self, progress: dict[str, Any]) -> None:
        """Take the data of a `progress`."""
        if is_whole(progress):
            self.progress = progress
        if isinstance(step := progress.get("id"), str):
            self._put("steps", self.steps, step, progress)

    def _apply_lock(self, event: Event) -> None:
        data = event.data
        lid = str(data.get("lid", ""))
        if event.event == "lock":
            opened = OpenLock(
                lid=lid,
                title=str(data.get("title", "")),
                schema=schema if isinstance(schema := data.get("schema"), dict) else {},
                opened_at=event.at,
                expires_at=event.at
                + int(seconds_within(data.get("expires_s"), LOCK_EXPIRES_S, most=_MAX_SECONDS) * 1000),
                default=data.get("default"),
                has_default="default" in data,
                verdict_s=_seconds(data, "verdict_s", LOCK_VERDICT_S),
                roles=_words(data.get("roles")),
                users=_words(data.get("users")),
            )
            self._put("locks", self.locks, lid, opened, MAX_HELD, _HELD_BYTES, data)
        elif event.event in ("unlock", "lock-timeout"):
            self.locks.pop(lid, None)
            if "locks" in self._bounds:
                self._bounds["locks"].forget(lid)
        elif lid in self.locks:
            lock = self.locks[lid]
            if event.event == "candidate":
                lock.candidate, lock.candidate_at = str(data.get("cid", "")), event.at
            elif event.event in ("unlock-deny", "unlock-timeout") and data.get("cid") in (
                None,
                lock.candidate,
            ):
                lock.candidate = None

    def _put(
        self,
        name: str,
        held: dict[str, Any],
        key: str,
        value: Any,
        count: int = MAX_LISTED,
        size: int = _LISTED_BYTES,
        data: Any = None,
    ) -> None:
        bound = self._bounds.setdefault(name, _Bound(count, size))
        held[key] = value  # where it stood: what changes often is not moved about
        for dropped in bound.take(key, value if data is None else data):
            held.pop(dropped, None)

    def _list(self, name: str, rows: list[dict[str, Any]], data: dict[str, Any]) -> None:
        bound = self._bounds.setdefault(name, _Bound(MAX_LISTED, _LISTED_BYTES))
        rows.append(data)
        del rows[: len(bound.take(str(self.last_seq), data))]


def is_whole(progress: Mapping[str, Any]) -> bool:
    """Whether a progress's data is about the run, not about a part of what another progress is about."""
    return progress.get("parent") is None


class _Bound:
    """Counts and weighs what is kept, and says what is to be dropped: the oldest, never the latest."""

    __slots__ = ("_count", "_size", "_total", "_weights")

    def __init__(self, count: int, size: int):
        self._count = count
        self._size = size
        self._total = 0
        self._weights: dict[str, int] = {}

    def take(self, key: str, value: Any) -> list[str]:
        self.forget(key)
        self._weights[key] = weight = _weigh(value) + len(key)
        self._total += weight
        dropped: list[str] = []
        while len(self._weights) > self._count or (self._total > self._size and len(self._weights) > 1):
            oldest = next(iter(self._weights))
            self.forget(oldest)
            dropped.append(oldest)
        return dropped

    def forget(self, key: str) -> None:
        self._total -= self._weights.pop(key, 0)


def _weigh(value: Any) -> int:
    """Estimate the memory that a value of JSON takes, in bytes."""
    total, left = 0, [value]
    while left:
        each = left.pop()
        total += 16
        if isinstance(each, (str, bytes)):
            total += len(each)
        elif isinstance(each, Mapping):
            total += sum(map(len, each))
            left.extend(each.values())
        elif isinstance(each, (list, tuple)):
            left.extend(each)
    return total


def _seconds(data: Mapping[str, Any], name: str, default: float) -> float:
    return seconds_within(data.get(name), default, most=_MAX_SECONDS)


def _words(value: Any) -> tuple[str, ...]:
    return tuple(str(each) for each in value) if isinstance(value, (list, tuple)) else ()
