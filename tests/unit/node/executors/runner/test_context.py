"""The flow's side of a runner, without Ray: what a lock's check does wrong is a verdict, never silence."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import msgpack
import pytest

from kodo.flow._runtime.context import Demand
from kodo.flow.locks import DeniedError
from kodo.node.executors.checks import Conduct
from kodo.node.executors.executor import RunnerEvent
from kodo.node.executors.runner.context import RunnerContext
from kodo.protocol.events import MAX_EVENT_BYTES


def demand(accept: Callable[[Any], tuple[Any, Any]]) -> Demand:
    return Demand("Go on?", {}, accept, 60.0, 60.0, None, False, (), ())


def opened(tmp_path: Path) -> RunnerContext:
    context = RunnerContext()
    context.folder = tmp_path / "files"
    return context


async def said(context: RunnerContext, conduct: Conduct, timeout: float = 30.0) -> list[tuple[str, dict[str, Any]]]:
    """Poll what was said since; the node's checks take all of it."""
    first, events, _ = msgpack.unpackb(await context.buffer.poll(conduct.rseq, timeout))
    found = []
    for rseq, (event, data) in enumerate(events, first):
        value = msgpack.unpackb(data)
        conduct.check(RunnerEvent(rseq, event, value, data))
        found.append((event, value))
    return found


def raises(make: Callable[[], BaseException]) -> Callable[[Any], Any]:
    """Raise an error that is made only then: parameters live as long as the tests do."""

    def accept(candidate: Any) -> Any:
        raise make()

    return accept


class RaisingTextError(ValueError):
    """One that cannot be told."""

    def __str__(self) -> str:
        raise self


@pytest.mark.parametrize(
    "accept",
    [
        raises(lambda: ValueError("no")),
        raises(lambda: DeniedError(["\udcff" * 300_000] * 100)),
        raises(lambda: DeniedError([])),
        raises(RaisingTextError),
        raises(lambda: RuntimeError("x" * 300_000)),
        raises(lambda: SystemExit(1)),
        raises(KeyboardInterrupt),
        raises(MemoryError),
        lambda candidate: (candidate, "x" * MAX_EVENT_BYTES),
    ],
)
async def test_a_candidate_that_breaks_its_check_is_denied_and_the_lock_stays_open(
    tmp_path: Path, accept: Callable[[Any], tuple[Any, Any]]
) -> None:
    context, conduct = opened(tmp_path), Conduct()
    answers = iter([accept, lambda candidate: (candidate, candidate)])

    def judge(candidate: Any) -> tuple[Any, Any]:
        return next(answers)(candidate)

    answer = context.lock(demand(judge))
    ((_, lock),) = await said(context, conduct)
    context.consider(lock["lid"], "c1", 1)
    ((event, data),) = await said(context, conduct)
    assert (event, data["lid"], data["cid"]) == ("unlock-deny", lock["lid"], "c1")
    assert data["reasons"]
    context.consider(lock["lid"], "c2", 2)
    ((event, data),) = await said(context, conduct)
    assert (event, data["answer"]) == ("unlock", 2)
    assert answer.result(30) == 2


def _answered(context: RunnerContext, lid: str, answer: Future[Any]) -> None:
    context._judge(context._locks[lid], lid, "c1", 1)


@pytest.mark.parametrize(
    "end",
    [
        _answered,
        lambda context, lid, answer: context.expire(lid),
        lambda context, lid, answer: context.expire(lid, RuntimeError("the run ends")),
        lambda context, lid, answer: context.close_lock(answer, 1),
    ],
    ids=["answered", "expired", "ended", "closed"],
)
async def test_a_lock_that_ends_while_its_flow_gives_up_waiting_breaks_nothing(
    tmp_path: Path, end: Callable[[RunnerContext, str, Future[Any]], None]
) -> None:
    context, conduct = opened(tmp_path), Conduct()
    answer = context.lock(demand(lambda candidate: (candidate, candidate)))
    ((_, lock),) = await said(context, conduct)
    answer.cancel()
    end(context, lock["lid"], answer)
    assert answer.cancelled()
