"""What the flow's side accepts, the node takes: whatever a flow hands to a call, only the call may refuse it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from kodo.flow import action, agent, emit, lock, output, progress, result, task, tool
from kodo.flow._runtime.context import Demand, Emitted
from kodo.flow._runtime.current import install
from kodo.flow._runtime.event_socket import parse_line
from kodo.flow._runtime.log_events import EventLogHandler
from kodo.node.executors.checks import Conduct, MisconductError
from kodo.node.executors.executor import RunnerEvent
from kodo.node.executors.ray.runner import read_events
from kodo.node.executors.runner.context import RunnerContext
from kodo.node.executors.runner.ending import Ending
from kodo.p2p.errors import CapacityError, KodoError, UsageError
from kodo.protocol import flow_limits
from kodo.protocol.events import MAX_EVENT_BYTES


class Opaque:
    """What no event has a form for."""

    def __str__(self) -> str:
        return "\udcff"


def nested(depth: int, inner: Any = None) -> Any:
    for _ in range(depth):
        inner = [inner]
    return inner


class Model(BaseModel):
    """A form whose default not JSON can hold."""

    number: float = float("nan")


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=20)
    | st.binary(max_size=20)
    | st.sampled_from(
        [
            1 << 64,
            float("nan"),
            float("inf"),
            "\udcff",
            "x" * 5000,
            Opaque(),
            Opaque,
            Model(),
            nested(45),
            nested(100),
        ]
    )
)
keys = st.text(max_size=5) | st.integers() | st.none() | st.binary(max_size=3) | st.tuples(st.integers())
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.tuples(inner)
        | st.frozensets(st.integers() | st.floats(), max_size=3)
    ),
    max_leaves=12,
)
data = st.dictionaries(st.text(max_size=5) | st.sampled_from(["percent", "done", "total", "id", "\udcff"]), values)


class Ready(RunnerContext):
    """A runner whose locks nobody waits for."""

    def lock(self, demand: Demand) -> Future[Any]:
        super().lock(demand)
        answered: Future[Any] = Future()
        answered.set_result(None)
        return answered


def taken(*calls: Callable[[], Any]) -> list[str]:
    """Make calls as a flow would; what they accept goes through the node's checks. Return its events' names."""
    with TemporaryDirectory() as folder:
        context = Ready()
        context.folder = Path(folder, "files")
        install(context)
        try:
            for call in calls:
                with contextlib.suppress(KodoError, ValueError, TypeError):  # refused where it was called
                    call()
        finally:
            install(None)
        return judged(context)


def judged(context: RunnerContext) -> list[str]:
    conduct, names = Conduct(), []
    while True:
        events, _ = read_events(asyncio.run(context.buffer.poll(conduct.rseq, 0.0)))
        if not events:
            return names
        for event in events:
            conduct.check(event)
            names.append(event.event)


def written(event: str, line: dict[str, Any]) -> Emitted:
    """Hand a line to the socket's service, whose sink is the context."""
    from kodo.flow._runtime.current import current

    return current().emit(*parse_line(json.dumps({"event": event, "data": line}, default=str).encode()))


EMITTERS: dict[str, Callable[[Any], Any]] = {
    "action": action,
    "result": result,
    "agent": lambda value: agent(value, field=value),
    "task": lambda value: task(value, field=value),
    "tool": lambda value: tool(value, field=value),
    "progress": lambda value: progress(value, value, done=value, total=value, id=value, parent=value),
    "log": lambda value: (
        logging.getLogger("flow").handlers[0].emit(logging.LogRecord(value, logging.INFO, "", 0, value, None, None))
    ),
    "output": lambda value: output.write("a.md", b"", value),
    "output name": lambda value: output.write(value, b"x"),
    "lock title": lock,
    "lock schema": lambda value: lock("Go on?", {"description": "a", "default": value, "x": value}),
    "lock default": lambda value: lock("Go on?", {}, default=value),
    "lock roles": lambda value: lock("Go on?", roles=[value], users=[value]),
    "lock expires": lambda value: lock("Go on?", expires=value, verdict=value),
}
"""Each call of a flow, made with one value wherever it takes one."""


@pytest.fixture(scope="module", autouse=True)
def handler() -> Any:
    made = EventLogHandler(_emit)
    logging.getLogger("flow").addHandler(made)
    yield
    logging.getLogger("flow").removeHandler(made)


def _emit(event: str, data: dict[str, Any]) -> Emitted:
    from kodo.flow._runtime.current import current

    return current().emit(event, data)


@pytest.mark.parametrize("name", EMITTERS)
@settings(max_examples=30)
@given(value=values)
@example(value="\U0001f600" * 60_000)
@example(value="x" * 300_000)
@example(value="\udcff" * 4096)
@example(value=float("nan"))
@example(value=5)
@example(value={"type": 5})
@example(value=nested(41))
def test_what_a_call_accepts_the_node_takes(name: str, value: Any) -> None:
    taken(lambda: EMITTERS[name](value))


@pytest.mark.parametrize("event", ["progress", "result", "log", "config", "action-error", "stdout"])
@settings(max_examples=30)
@given(fields=data)
def test_what_emit_accepts_the_node_takes(event: str, fields: dict[str, Any]) -> None:
    taken(lambda: emit(event, fields))


@pytest.mark.parametrize("event", ["progress", "result", "config"])
@settings(max_examples=30)
@given(fields=st.dictionaries(st.text(max_size=5), values))
@example(fields={"a": float("nan")})
@example(fields={"a": float("-inf")})
@example(fields={"a": nested(47)})
@example(fields={"a": nested(48)})
@example(fields={"a": nested(100)})
@example(fields={"a": 1 << 70})
@example(fields={"\udcff": "\udcff"})
def test_what_the_socket_accepts_the_node_takes(event: str, fields: dict[str, Any]) -> None:
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        json.dumps(fields, default=str)
        taken(lambda: written(event, fields))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_has_not_are_refused_in_a_line(constant: str) -> None:
    with pytest.raises(ValueError, match="not JSON"):
        parse_line(f'{{"event": "result", "data": {{"a": {constant}}}}}'.encode())


@settings(max_examples=30)
@given(value=values | data)
def test_what_a_flow_returns_the_node_takes(value: Any) -> None:
    with TemporaryDirectory() as folder:
        context = RunnerContext()
        context.folder = Path(folder, "files")
        Ending(lambda: None, context.store_result, lambda last: context.buffer.put(last, last=True), os.abort).run(
            lambda: value
        )
        assert judged(context)[-1] in ("final", "fatal")


def test_a_form_with_a_default_that_json_has_not_is_refused_where_it_is_asked() -> None:
    with pytest.raises(UsageError, match="not finite"):
        Ready().lock(Demand("Go on?", Model.model_json_schema(), lambda c: (c, c), 1.0, 1.0, None, False, (), ()))


def test_each_bound_of_a_count_is_met_by_the_call_and_never_by_the_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(flow_limits, "MAX_OUTPUTS", 3)
    monkeypatch.setattr(flow_limits, "MAX_LOCKS", 3)
    context = RunnerContext()
    context.folder = tmp_path / "files"
    demand = Demand("Go on?", {}, lambda c: (c, c), 1.0, 1.0, None, False, (), ())
    for number in range(3):
        context.write_output(f"{number}.md", b"", None)
        context.lock(demand)
    for refused in (lambda: context.write_output("4.md", b"", None), lambda: context.lock(demand)):
        with pytest.raises(CapacityError, match="at most 3"):
            refused()
    Ending(lambda: None, context.store_result, lambda last: context.buffer.put(last, last=True), os.abort).run(
        lambda: "x" * MAX_EVENT_BYTES
    )
    assert judged(context)[-2:] == ["output", "final"]


def test_the_bytes_of_locks_are_met_by_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_limits, "MAX_LOCK_BYTES", 1000)
    context = RunnerContext()
    demand = Demand("x" * 400, {}, lambda c: (c, c), 1.0, 1.0, None, False, (), ())
    context.lock(demand)
    context.lock(demand)
    with pytest.raises(CapacityError, match="1000 bytes"):
        context.lock(demand)
    assert judged(context) == ["lock", "lock"]


def test_the_nodes_own_lock_takes_no_place_from_the_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_limits, "MAX_LOCKS", 2)
    context = RunnerContext()
    demand = Demand("Go on?", {}, lambda c: (c, c), 1.0, 1.0, None, False, (), ())
    conduct = Conduct(lids={"0" * 26})
    for _ in range(2):
        context.lock(demand)
    events, _ = read_events(asyncio.run(context.buffer.poll(0, 0.0)))
    for event in events:
        conduct.check(event)
    with pytest.raises(MisconductError, match="at most 2 locks"):
        conduct.check(RunnerEvent(3, "lock", {**events[0].data, "lid": "1" * 26}))
