"""What a flow's author has inputs judged by (`@flow(check=…)`), asked before a launch in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from kodo.access.places import Places
from kodo.node.catalog.user_code import ask_process
from kodo.p2p.errors import CallError, DeadlineError, KodoError

if TYPE_CHECKING:
    from kodo.node.executors.apart.account import Account

__all__ = ["CHECK_S", "Ask", "AuthorChecks"]

CHECK_S = 20.0
"""How long the import of a flow and its check may take: with `WAIT_S` less than a client waits for a launch."""

WAIT_S = 5.0
"""How long inputs wait for their turn."""

AT_ONCE = 4
MAX_WAITING = 64
"""Inputs that are judged or wait, `MAX_WAITING // 2` of one payer."""

_MAX_ANSWER_BYTES = 64 << 10

Ask = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class AuthorChecks:
    """Judges inputs by the authors' checks, a few at once.

    Args:
        roots: folders from which flows are imported.
        account: under which the checks run; None: this process's.
        ask: gives the answer to one request; by default a process does.
    """

    def __init__(self, roots: list[str], *, account: Account | None = None, ask: Ask | None = None):
        self._roots = roots
        self._ask: Ask = ask or partial(
            ask_process,
            "kodo.flow._runtime.input_check",
            seconds=CHECK_S,
            most_bytes=_MAX_ANSWER_BYTES,
            account=account,
        )
        self._places = Places("checks of inputs", most=MAX_WAITING, each=MAX_WAITING // 2)
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def faults(
        self, path: str, entry: str, inputs: Mapping[str, Any], payer: str, code: str = ""
    ) -> list[dict[str, str]]:
        """Return what the author's check finds wrong, `[{at, message}]`. Cancelling is safe.

        Raises:
            CallError: 409 `check-failed` with `path`: it gave no answer; 429 `busy`.
        """
        with self._places.hold(payer):
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._turns.acquire()
            except TimeoutError:
                message = "other inputs are being checked; try again"
                raise CallError(429, "busy", message, {"retry_after_ms": 1000}) from None
            try:
                answer = await self._ask(
                    {"roots": self._roots, "entry": entry, "inputs": dict(inputs), **({"code": code} if code else {})}
                )
            except DeadlineError:
                why = f"it took longer than {CHECK_S:.0f} s"
            except KodoError as error:
                why = str(error)
            else:
                why = _failure(answer)
            finally:
                self._turns.release()
        if why:
            message = f"the check of inputs that {path} has from its author failed: {why}"
            raise CallError(409, "check-failed", message, {"path": path})
        return [{"at": str(place["at"]), "message": str(place["message"])} for place in answer["places"]]


def _failure(answer: Mapping[str, Any]) -> str:
    """Return why an answer is none; the process runs the author's code, which may say anything."""
    if "failed" in answer:
        return str(answer["failed"])[:1000]
    places = answer.get("places")
    if isinstance(places, list) and all(
        isinstance(place, dict) and {"at", "message"} <= set(place) for place in places
    ):
        return ""
    return "it gave no answer"
