"""`node.audit`, and the lines that it shows: what operators did to the node."""

from __future__ import annotations

from functools import partial
from typing import Any

from kodo.access.audit import ACCOUNT_CHANGES, AuditedTables, AuditLine
from kodo.access.roles import check_operator
from kodo.node.answers.caller import Caller, Handler, Handlers
from kodo.node.clock import Clock
from kodo.protocol.args.base import Args, PageArgs
from kodo.protocol.pages import paged

__all__ = ["AuditAnswers"]

_OF_THE_NODE = frozenset(["node.scale", "node.shutdown", "cleanup.run"])


class AuditAnswers:
    """Answers what is about the audit, and keeps its lines."""

    def __init__(self, tables: AuditedTables, clock: Clock):
        self._tables = tables
        self._clock = clock

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {"node.audit": self._audit}

    def audited(self, handlers: Handlers) -> Handlers:
        """Return the same handlers, of which those that administer the node keep a line with what they do."""
        ways = {
            **dict.fromkeys(ACCOUNT_CHANGES, self._with_change),
            **dict.fromkeys(_OF_THE_NODE, self._before),
        }
        return {op: partial(ways[op], op, handler) if op in ways else handler for op, handler in handlers.items()}

    async def note(self, caller: Caller, what: str, **data: Any) -> None:
        """Keep a line about what is about to be done."""
        await self._tables.note(AuditLine(caller.principal.id, what, data, self._clock.now_ms()))

    async def _audit(self, caller: Caller, args: PageArgs) -> dict[str, Any]:
        check_operator(caller.principal)
        total, rows = await self._tables.lines(args.p, args.pp)
        return paged(rows, total, total, args.p, args.pp)

    async def _with_change(self, op: str, handler: Handler, caller: Caller, args: Args) -> Any:
        with self._tables.told_by(self._line(caller, op, args)):
            return await handler(caller, args)

    async def _before(self, op: str, handler: Handler, caller: Caller, args: Args) -> Any:
        check_operator(caller.principal)
        await self._tables.note(self._line(caller, op, args))
        return await handler(caller, args)

    def _line(self, caller: Caller, op: str, args: Args) -> AuditLine:
        given = args.model_dump(exclude_defaults=True)
        return AuditLine.of_op(caller.principal.id, op, given, self._clock.now_ms())
