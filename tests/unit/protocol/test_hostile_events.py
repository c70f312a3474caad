"""Events as a hostile node makes them up: what they add up to is wrong, and nothing falls over."""

from __future__ import annotations

from typing import Any

import pytest

from kodo.protocol.events import LOCK_EXPIRES_S, LOCK_VERDICT_S, Event, RunState, RunView

ANYTHING: list[Any] = [
    None,
    True,
    -1,
    1e308,
    float("inf"),
    float("nan"),
    2**64 - 1,
    "x",
    b"x",
    [],
    [[]],
    {},
    {"a": 1},
]


def lock(**data: Any) -> Event:
    return Event(1, 1000, "lock", "lock", {"lid": "l", **data})


@pytest.mark.parametrize("value", ANYTHING, ids=repr)
@pytest.mark.parametrize("name", ["title", "schema", "expires_s", "verdict_s", "roles", "users", "default"])
def test_a_lock_with_anything_in_any_field_is_a_lock(name: str, value: Any) -> None:
    view = RunView()
    view.apply(lock(**{name: value}))
    [found] = view.locks.values()
    assert view.state is RunState.LOCKED
    assert isinstance(found.schema, dict)
    assert isinstance(found.title, str)
    assert isinstance(found.expires_at, int)
    assert all(isinstance(each, str) for each in (*found.roles, *found.users))
    assert found.verdict_s in (LOCK_VERDICT_S, 1e9)


def test_times_that_are_times_are_kept() -> None:
    view = RunView()
    view.apply(lock(expires_s=5, verdict_s=2.5, roles=["a"], users=("b",)))
    [found] = view.locks.values()
    assert (found.expires_at, found.verdict_s, found.roles, found.users) == (6000, 2.5, ("a",), ("b",))
    view = RunView()
    view.apply(lock())
    assert view.locks["l"].expires_at == 1000 + LOCK_EXPIRES_S * 1000
