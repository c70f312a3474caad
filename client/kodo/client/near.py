"""The nodes nearby, asked all at once. Each of them is anybody: what one answers counts for that node only.

Whether it refuses, lies, sends what is no answer, says nothing or moves a byte a second: the others' answers are
given all the same, and the log says which node failed and how.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from kodo.client.known_nodes import KnownNodes, is_name
from kodo.client.peer import RemoteNode
from kodo.client.resolve import Found, Resolver, Target, safe_text
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import CallError, KodoError

__all__ = ["Answers", "Change", "NearNodes", "rows_of"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

Change = Callable[..., Awaitable[dict[str, Any] | None]]
"""Changes what has a sid on a node: `(remote, sid=…)`; None when the node knows no such thing of this user's."""

NODES_AT_ONCE = 64
ASK_SECONDS = 10.0
"""How long all of them together may take: whoever has not answered by then is left out."""

MAX_NODES = 1024
"""Nodes that are asked: anybody may announce as many as it likes. Those that this user knows come first."""


@dataclass(slots=True)
class Answers(Generic[T]):
    """What nodes answered, by name; `refused` is a refusal of the call itself (400): maybe the caller's fault.

    `failed`: the nodes that were asked and gave no answer: what they are called, and why.
    """

    given: list[tuple[RemoteNode, T]] = field(default_factory=list)
    failed: dict[PeerId, tuple[str, str]] = field(default_factory=dict)
    refused: CallError | None = None

    def check(self) -> list[tuple[RemoteNode, T]]:
        """Return what was answered.

        Raises:
            CallError: nobody answered, and somebody said that the call was wrong.
        """
        if self.refused is not None and not self.given:
            raise self.refused
        return self.given


class NearNodes:
    """Asks the nodes that `near` finds.

    Args:
        make: gives the node of a target.
        glance: finds them too, and looks no longer once those are there that this user knows.
    """

    def __init__(
        self,
        near: Resolver,
        known: KnownNodes,
        make: Callable[[Target], RemoteNode],
        glance: Resolver | None = None,
    ):
        self._near = near
        self._glance = glance or near
        self._known = known
        self._make = make

    def labelled(self, found: Found, *, unique: bool = True) -> RemoteNode:
        """Return a node that nobody asked for by name: its name is shown if nothing speaks against it."""
        remote = self._make(Target(found.peer_id, found.addresses))
        pinned = self._known.get(found.name)
        if pinned not in (None, found.peer_id):
            logger.warning("%s claims the name %s of another node", found.peer_id, safe_text(found.name))
        elif unique and is_name(found.name):
            remote.label = found.name
        return remote

    async def ask(
        self, ask: Callable[[RemoteNode], Awaitable[T]], what: str, *, everybody: bool = True, warn: bool = True
    ) -> Answers[T]:
        """Ask every near node at once; one that fails is left out.

        Args:
            everybody: look around to the end. Without it, as for a list that people read, a stranger that is slow to
                say that it is there may be missing.
            warn: tell of those that fail in the log; else `failed` alone does.
        """
        known = set(self._known.all().values())
        found: dict[PeerId, Found] = {}
        everyone = await (self._near if everybody else self._glance).all()
        for each in sorted(everyone, key=lambda each: (each.source != "home", each.peer_id not in known)):
            found.setdefault(each.peer_id, each)
        claims: dict[str, set[PeerId]] = {}
        for each in found.values():
            claims.setdefault(each.name, set()).add(each.peer_id)
        if len(found) > MAX_NODES:
            logger.warning("%d nodes are nearby; %d of them are asked", len(found), MAX_NODES)
        slots = asyncio.Semaphore(NODES_AT_ONCE)
        answers: Answers[T] = Answers()

        def tell(each: Found, why: str) -> None:
            name = safe_text(each.name or each.peer_id)
            answers.failed[each.peer_id] = (name, why)
            if warn:
                logger.warning("%s: %s", name, why)

        async def one(each: Found) -> None:
            # A name that several claim is nobody's here: the node goes by its peer id.
            unique = len(claims[each.name]) == 1
            try:
                async with slots:
                    remote = self.labelled(each, unique=unique)
                    answers.given.append((remote, await ask(remote)))
            except CallError as error:
                if error.code == 400 and answers.refused is None:
                    answers.refused = error
                tell(each, str(error))
            except (KodoError, TimeoutError) as error:
                tell(each, str(error))
            except Exception as error:  # what a stranger says must not end what others are asked for
                tell(each, f"its answer cannot be read: {error!r}")

        tasks = {asyncio.ensure_future(one(each)): each for each in list(found.values())[:MAX_NODES]}
        try:
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=ASK_SECONDS)
                for task in late:
                    tell(tasks[task], f"no answer to {what} within {ASK_SECONDS:g} s")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        answers.given.sort(key=lambda pair: (str(pair[0]), str(pair[0].peer_id)))
        return answers

    async def rows(self, op: str, filters: Mapping[str, Any]) -> Answers[list[dict[str, Any]]]:
        """Return the rows of a paged op of every near node, with `node` and `peer_id`."""
        return await self.ask(lambda remote: rows_of(remote, op, filters), op, everybody=False)


async def rows_of(remote: RemoteNode, op: str, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a paged op of one node, with `node` and `peer_id`."""
    place = {"node": str(remote), "peer_id": str(remote.peer_id)}
    return [{**row, **place} async for row in remote.pages(op, filters)]
