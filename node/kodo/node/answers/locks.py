"""`lock.*`: the questions that wait for the caller."""

from __future__ import annotations

from typing import Any

from kodo.node.answers.caller import Caller, Handlers
from kodo.node.answers.visibility import Sight
from kodo.node.runs.locks import Locks
from kodo.node.shares.shares import Shares
from kodo.protocol.args.runs import LockAnswerArgs, LockGetArgs, LockListArgs
from kodo.protocol.pages import paged

__all__ = ["LockAnswers"]


class LockAnswers:
    """Answers what is about locks."""

    def __init__(self, sight: Sight, locks: Locks, shares: Shares):
        self._sight = sight
        self._locks = locks
        self._shares = shares

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {"lock.list": self._list, "lock.get": self._get, "lock.answer": self._answer}

    async def _list(self, caller: Caller, args: LockListArgs) -> dict[str, Any]:
        given = await self._shares.given(caller.principal)
        shared = {fid for fid, share in given.items() if share.mode == "x"}
        found = self._locks.open_locks(caller.principal, shared)
        rows = [
            {
                "fid": live.fid,
                "lid": lock.lid,
                "title": lock.title,
                "flow": live.row.path,
                "name": live.row.name,
                "expires_at": lock.expires_at,
            }
            for live, lock in found[(args.p - 1) * args.pp : args.p * args.pp]
        ]
        return paged(rows, len(found), len(found), args.p, args.pp)

    async def _get(self, caller: Caller, args: LockGetArgs) -> dict[str, Any]:
        (await self._sight.run(caller, args.fid)).check_contents()
        lock = await self._locks.get(args.fid, args.lid, caller.principal)
        answer = {
            "fid": args.fid,
            "lid": lock.lid,
            "title": lock.title,
            "schema": lock.schema,
            "expires_at": lock.expires_at,
        }
        return {**answer, "default": lock.default} if lock.has_default else answer

    async def _answer(self, caller: Caller, args: LockAnswerArgs) -> dict[str, Any]:
        (await self._sight.run(caller, args.fid)).check_mode()
        unlock = await self._locks.answer(
            args.fid, args.lid, args.candidate, caller.principal, args.key, payer=caller.payer
        )
        return {"unlock": unlock}
