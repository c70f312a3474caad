"""What runs ask their node for while they run: fetched from the runner, done, answered.

A run that asks nothing costs nothing: its runner says with its events that there are questions, and only then they
are fetched, by a loop of their own, so that an answer does not wait for events to be stored. A runner keeps a
question until it is answered. A restarted node is asked again, by the same number.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kodo.flow._runtime.node_requests import pack_error
from kodo.node.executors.executor import Runner, RunnerDiedError
from kodo.node.runs.live import LiveRun
from kodo.p2p.errors import CallError, DeadlineError, KodoError

__all__ = ["Asking", "Question"]

logger = logging.getLogger(__name__)

_POLL_S = 20.0
_AT_ONCE = 32
_REPLIES = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What a run asks.

    Attributes:
        aid: its number in the run: 1, 2, 3 …
        first_open: the lowest number that is not answered yet.
        fid, path, principal: the run, its flow, and whom it belongs to.
    """

    fid: str
    path: str
    principal: str
    aid: int
    first_open: int
    op: str
    args: Mapping[str, Any]


class Asking:
    """Answers runs.

    Args:
        handlers: by the part of an op before its dot; each gives the answer or raises `KodoError`.
        when_over: each is told the fid of a run that asks nothing more, because it is over.
    """

    def __init__(
        self,
        handlers: Mapping[str, Callable[[Question], Awaitable[Any]]],
        when_over: Sequence[Callable[[str], Awaitable[None]]] = (),
    ):
        self._handlers = handlers
        self._when_over = when_over

    async def ended(self, fid: str) -> None:
        """Note that a run which has asked something is over."""
        for tell in self._when_over:
            await tell(fid)

    async def serve(self, live: LiveRun, runner: Runner) -> None:
        """Answer one run's questions until its runner is gone; cancelling is safe."""
        seen = 0
        slots = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    first_open, asked = await runner.asked(seen, _POLL_S)
                except DeadlineError:
                    continue  # it may only be slow: the run's driver, which ends this, decides when it is not
                except KodoError:
                    return  # the run's driver learns it too
                for aid, op, args in asked:
                    seen = max(seen, int(aid))
                    row = live.row
                    question = Question(row.fid, row.path, row.principal, int(aid), int(first_open), str(op), args)
                    await slots.acquire()
                    task = group.create_task(self._answer(runner, question))
                    task.add_done_callback(lambda _: slots.release())

    async def _answer(self, runner: Runner, question: Question) -> None:
        try:
            handler = self._handlers.get(question.op.partition(".")[0])
            if handler is None or not isinstance(question.args, Mapping):
                raise CallError(404, "no-such-op", f"this node cannot do {question.op[:64]!r} for a run")
            answer: dict[str, Any] = {"done": await handler(question)}
        except KodoError as error:
            answer = {"error": pack_error(error)}
        except Exception as error:
            logger.error("run %s: %s failed: %s", question.fid, question.op[:64], type(error).__name__)
            answer = {"error": pack_error(CallError(500, "failed", f"the node failed: {type(error).__name__}"))}
        for _ in range(_REPLIES):
            try:
                return await runner.reply(question.aid, answer)
            except RunnerDiedError:
                return
            except KodoError as error:
                logger.warning("run %s took no answer to %s: %s", question.fid, question.op[:64], error)
