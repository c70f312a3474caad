"""Calls: decoded, their caller identified, given to the part that answers them (`kodo.node.answers`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from kodo.access.provider import Provider
from kodo.node.answers.auth import AuthAnswers
from kodo.node.answers.caller import Asked, Caller, Handlers, check_admitted
from kodo.node.answers.flows import FlowAnswers
from kodo.node.answers.locks import LockAnswers
from kodo.node.answers.node import NodeAnswers, NodeFacts
from kodo.node.answers.outputs import OutputAnswers
from kodo.node.answers.runs import RunAnswers
from kodo.node.answers.sight import Sight
from kodo.node.catalog import Catalog
from kodo.node.clock import Clock
from kodo.node.follow import Feed
from kodo.node.load import Load
from kodo.node.locks import Locks
from kodo.node.manage import Manager
from kodo.node.outputs import Outputs
from kodo.node.runs import Runs
from kodo.node.store import Store
from kodo.node.uploads import Uploads
from kodo.protocol.calls import OPS, parse_args

__all__ = ["Service"]


class _Answers(Protocol):
    def handlers(self) -> Handlers:
        """Give the handlers of some ops."""
        ...


class Service:
    """Answers the calls of `OPS`; the handler of a `CallServer`."""

    def __init__(
        self,
        facts: NodeFacts,
        provider: Provider,
        catalog: Catalog,
        store: Store,
        feed: Feed,
        runs: Runs,
        locks: Locks,
        outputs: Outputs,
        uploads: Uploads,
        clock: Clock,
        load: Callable[[], Load],
        manager: Manager,
        contents_for: Iterable[str] = (),
    ):
        self._provider = provider
        self._name = facts.name
        sight = Sight(store, contents_for)
        node = {"name": facts.name, "peer_id": facts.peer_id}
        groups: Sequence[_Answers] = (
            NodeAnswers(facts, runs, manager, clock, load),
            AuthAnswers(provider),
            FlowAnswers(catalog, sight.contents_for),
            RunAnswers(node, sight, catalog, store, feed, runs, uploads, manager, clock),
            LockAnswers(sight, locks),
            OutputAnswers(sight, store, outputs, uploads, catalog, runs),
        )
        self._handlers: Handlers = {op: handler for group in groups for op, handler in group.handlers().items()}
        assert self._handlers.keys() == OPS.keys()

    async def __call__(self, asked: Asked) -> Any:
        """Answer one call.

        Raises:
            CallError: the refusal that the caller gets.
        """
        args = parse_args(asked.op, asked.args)
        principal = await self._provider.identify(str(asked.session.remote_peer))
        check_admitted(asked.op, principal, self._name)
        return await self._handlers[asked.op](Caller(principal, asked), args)
