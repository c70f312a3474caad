"""What the events of a run add up to: nested progress, and bounds that hold whatever a node says."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kodo.protocol.events import MAX_HELD, MAX_LISTED, Event, RunState, RunView

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "runview.json").read_text())


def shown(view: RunView) -> dict[str, Any]:
    """What a vector says of a view: maps as lists of pairs, whose order counts."""
    names = ("last_seq", "created", "modified", "progress", "inputs", "version", "flow", "agents", "tasks", "tools")
    locks = [{**asdict(lock), "roles": list(lock.roles), "users": list(lock.users)} for lock in view.locks.values()]
    return {
        **{name: getattr(view, name) for name in (*names, "final", "fatal", "acknowledged")},
        **{name: [list(pair) for pair in getattr(view, name).items()] for name in ("config", "outputs", "steps")},
        "state": view.state,
        "locks": locks,
    }


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_events_add_up_to_what_the_vectors_say(case):
    view = RunView()
    view.extend(Event(seq, at, "any", event, data) for seq, at, event, data in case["events"])
    assert shown(view) == case["view"]


def view_of(*said: tuple[str, dict[str, Any]]) -> RunView:
    view = RunView()
    view.extend(Event(seq, seq, "any", event, data) for seq, (event, data) in enumerate(said, 1))
    return view


def test_a_part_does_not_replace_the_whole():
    view = view_of(
        ("progress", {"percent": 10, "text": "all", "id": "all"}),
        ("progress", {"done": 1, "id": "pages", "parent": "all"}),
        ("progress", {"percent": 90, "id": "images", "parent": "pages"}),
        ("progress", {"done": 2, "total": 4, "percent": 50.0, "id": "pages", "parent": "all"}),
    )
    assert view.progress == {"percent": 10, "text": "all", "id": "all"}
    assert list(view.steps) == ["all", "pages", "images"]
    assert view.steps["pages"]["total"] == 4
    assert view_of(("progress", {"percent": 90, "parent": "x"})).progress is None
    assert view_of(("progress", {"percent": 5}), ("progress", {"percent": 6})).progress == {"percent": 6}


@pytest.mark.parametrize(
    ("event", "make", "field", "most"),
    [
        ("agent", lambda n: {"name": str(n)}, "agents", MAX_LISTED),
        ("task", lambda n: {"name": str(n)}, "tasks", MAX_LISTED),
        ("tool", lambda n: {"name": str(n)}, "tools", MAX_LISTED),
        ("config", lambda n: {str(n): n}, "config", MAX_LISTED),
        ("progress", lambda n: {"id": str(n)}, "steps", MAX_LISTED),
        ("output", lambda n: {"name": str(n)}, "outputs", MAX_HELD),
        ("lock", lambda n: {"lid": str(n)}, "locks", MAX_HELD),
    ],
)
def test_the_latest_are_kept_and_no_more_than_so_many(event: str, make: Any, field: str, most: int):
    view = view_of(*((event, make(number)) for number in range(most + 10)))
    kept = getattr(view, field)
    assert len(kept) == most
    names = [str(each["name"]) for each in kept] if isinstance(kept, list) else list(kept)
    assert names == [str(number) for number in range(10, most + 10)]


@pytest.mark.parametrize("field", ["agent", "task", "tool", "config", "progress"])
def test_what_is_large_is_bounded_in_bytes(field: str):
    tracemalloc.start()
    try:
        view = RunView()
        for number in range(300):
            text = str(number) + "x" * 250_000
            view.apply(Event(number + 1, 1, "data", field, {"id": str(number), f"k{number}": text}))
        assert tracemalloc.get_traced_memory()[0] < 5_000_000
    finally:
        tracemalloc.stop()
    assert view.last_seq == 300


def test_a_lock_that_was_answered_makes_room():
    view = RunView()
    for number in range(3 * MAX_HELD):
        lid = str(number // 2)
        view.apply(Event(number + 1, 1, "lock", ("lock", "unlock")[number % 2], {"lid": lid}))
    assert not view.locks
    view.apply(Event(3 * MAX_HELD + 1, 1, "lock", "lock", {"lid": "last"}))
    assert view.state is RunState.LOCKED
