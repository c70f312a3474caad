"""`run.*`: launched, seen, followed, managed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from kodo.node.answers.audit import AuditAnswers
from kodo.node.answers.caller import Caller, Handlers, granted
from kodo.node.answers.read_ahead import ReadAhead
from kodo.node.answers.shares import share_fields
from kodo.node.answers.visibility import Sight, no_such_run
from kodo.node.catalog.catalog import Catalog, Flow
from kodo.node.clock import Clock
from kodo.node.files.uploads import Uploads
from kodo.node.housekeeping.deletion import Manager
from kodo.node.launches.launcher import Launcher
from kodo.node.runs.runs import Runs
from kodo.node.shares.invitations import Invitations
from kodo.node.shares.shares import Shares
from kodo.node.store.follow import Feed
from kodo.node.store.queries import RunFilter
from kodo.node.store.rows import RunRow, SearchTooLongError
from kodo.node.store.share_rows import gone
from kodo.node.store.store import Store
from kodo.p2p.errors import CallError
from kodo.protocol.access import Principal
from kodo.protocol.args.runs import ChainLink, FidArgs, LaunchArgs, RestartArgs, RunListArgs, RunMatch, StreamArgs
from kodo.protocol.bounds import MAX_SHARE_SECONDS
from kodo.protocol.events import RunState, RunView
from kodo.protocol.pages import fitted, paged
from kodo.protocol.run_state import shown_state
from kodo.protocol.secrets import secret_names

__all__ = ["RunAnswers"]

_LISTED = ("steps", "locks", "shares", "outputs", "config", "agents", "tasks", "tools")
"""What of a run's state grows with what its flow does."""

_INPUTS, _INPUT_CHARACTERS = 4, 80
"""How many inputs a row of `run.list` shows, and how much of each."""


class RunAnswers:
    """Answers what is about runs.

    Args:
        node: who this node is: the `node` of `run.state`, `{name, peer_id}`.
    """

    def __init__(
        self,
        node: dict[str, str],
        sight: Sight,
        catalog: Catalog,
        store: Store,
        feed: Feed,
        runs: Runs,
        uploads: Uploads,
        launcher: Launcher,
        invitations: Invitations,
        manager: Manager,
        shares: Shares,
        clock: Clock,
        audit: AuditAnswers,
    ):
        self._node = node
        self._sight = sight
        self._catalog = catalog
        self._store = store
        self._feed = feed
        self._runs = runs
        self._uploads = uploads
        self._launcher = launcher
        self._invitations = invitations
        self._manager = manager
        self._shares = shares
        self._clock = clock
        self._audit = audit

    def handlers(self) -> Handlers:
        """Return the handlers of these ops."""
        return {
            "run.launch": self._launch,
            "run.list": self._list,
            "run.state": self._state,
            "run.stream": self._stream,
            "run.kill": self._kill,
            "run.restart": self._restart,
            "run.ack": self._ack,
            "run.delete": self._delete,
        }

    async def _launch(self, caller: Caller, args: LaunchArgs) -> dict[str, Any]:
        if (args.path is None) == (args.name is None):
            raise CallError(400, "bad-args", "run.launch: path: pass either a path or a name", {"arg": "path"})
        flow = self._catalog.find(path=args.path, name=args.name, granted=granted(caller.principal))
        chain = await self._check_chain(caller, flow, args.chain)
        if args.invitation is not None:
            return await self._launch_by(caller, flow, args)
        if chain:
            caller = replace(caller, principal=caller.principal.on_behalf(chain[-1]["fid"]))
        return await self._start(
            caller, flow, args.inputs, tuple(args.tags), args.key, strict=args.strict, chain=chain
        )

    async def _launch_by(self, caller: Caller, flow: Flow, args: LaunchArgs) -> dict[str, Any]:
        """Launch a flow by an invitation, which counts it, and show the run to who made it where that is said."""
        assert args.invitation is not None
        invitation = await self._invitations.get(args.invitation)
        if invitation is None or args.chain:
            raise gone("expired", "invitation")
        then = None
        if invitation.see:
            then = self._shares.shown_to(
                invitation.principal, caller.principal.id, level=invitation.level, expires_s=MAX_SHARE_SECONDS
            )
        fid, state = await self._launcher.start(
            caller.principal,
            caller.payer,
            flow,
            args.inputs,
            tags=tuple(args.tags),
            key=args.key,
            strict=args.strict,
            about={"invitation": {"sid": args.invitation}},
            also=self._invitations.count(args.invitation),
            then=then,
        )
        return self._launched(fid, state)

    def _launched(self, fid: str, state: RunState) -> dict[str, Any]:
        return {"fid": fid, "state": state.value, "queue_position": self._runs.queue.position(fid)}

    async def _check_chain(self, caller: Caller, flow: Flow, chain: Sequence[ChainLink]) -> list[dict[str, str]]:
        """Check on whose behalf a run is launched: the caller's own, and not this flow's, which would never end.

        Raises:
            CallError: 403 `not-yours`, 409 `cycle`.
        """
        if chain and chain[-1].peer_id != caller.principal.peer_id:
            raise CallError(403, "not-yours", "the chain must end with a run of the node that calls")
        for link in chain:
            earlier = await self._store.run(link.fid) if link.peer_id == self._node["peer_id"] else None
            if earlier is not None and earlier.path == flow.path:
                raise CallError(
                    409,
                    "cycle",
                    f"{flow.path} would launch itself again and again: it is already in the chain of this launch",
                )
        return [link.model_dump() for link in chain]

    async def _restart(self, caller: Caller, args: RestartArgs) -> dict[str, Any]:
        """Launch the same flow, as it is now, with the run's inputs and what is changed of them, and its tags.

        Whoever launched the run on another run's behalf starts it again on that run's behalf. The new run of anybody
        else is their own.
        """
        seen = await self._sight.run(caller, args.fid)
        seen.check_mode()
        flow = self._catalog.find(path=seen.row.path, granted=granted(caller.principal))
        view = await self._store.view(args.fid)
        if view is None:
            raise no_such_run()
        kept = {name: value for name, value in view.inputs.items() if name not in args.inputs}
        # Secrets are not kept beyond their run, nor files for ever: the new one asks for them.
        again = await self._catalog.judge.do(partial(secret_names, flow.schema, kept), caller.payer)
        again += self._uploads.absent(caller.principal.id, flow.schema, kept)
        if again and args.strict:
            message = f"{flow.path}: give these again, the node has kept none: {', '.join(again)[:512]}"
            raise CallError(400, "bad-inputs", message, {"places": [], "missing": again[:100]})
        inputs = {name: value for name, value in kept.items() if name not in again} | args.inputs
        told = view.flow.get("chain", []) if seen.own else []
        chain = await self._check_chain(caller, flow, [ChainLink.model_validate(link) for link in told])
        tags = seen.row.tags if args.tags is None else tuple(args.tags)
        return await self._start(caller, flow, inputs, tags, args.key, strict=args.strict, again=again, chain=chain)

    async def _start(
        self,
        caller: Caller,
        flow: Flow,
        inputs: dict[str, Any],
        tags: tuple[str, ...],
        key: str | None,
        *,
        strict: bool = False,
        again: Sequence[str] = (),
        chain: Sequence[Mapping[str, str]] = (),
    ) -> dict[str, Any]:
        about = {"chain": list(chain)} if chain else {}
        fid, state = await self._launcher.start(
            caller.principal, caller.payer, flow, inputs, tags=tags, key=key, strict=strict, again=again, about=about
        )
        return self._launched(fid, state)

    async def _list(self, caller: Caller, args: RunListArgs) -> dict[str, Any]:
        principal = caller.principal
        others = _known_flows(principal) if args.others else None
        given = await self._shares.given(principal)
        match = args.match or RunMatch()
        chosen = RunFilter(
            principal.id,
            state=args.state,
            path=args.path,
            since=args.since,
            until=match.until,
            flow=match.flow,
            tag=match.tag,
            search=match.search,
            queued=self._runs.queue.fids(),
            others=others,
            shared=tuple(given),
        )
        try:
            page = await self._store.runs(chosen, p=args.p, pp=args.pp)
        except SearchTooLongError as error:
            raise CallError(422, "too-slow", str(error)) from None
        found = (self._sight.of(principal, row, given.get(row.fid)) for row in page.rows)
        seen = [each for each in found if each is not None]
        errors = await self._store.fatal_types([each.row.fid for each in seen if each.row.state is RunState.ERROR])
        open_to = [each.row.fid for each in seen if each.contents]
        inputs = await self._store.inputs(open_to) if args.details else {}
        rows = [
            {
                "fid": row.fid,
                "path": row.path,
                "name": row.name,
                "state": row.state.value,
                "progress": row.progress if each.contents else None,
                "created": row.created,
                "modified": row.modified,
                "runtime_s": self._runtime(row),
                "error": errors.get(row.fid),
                "tags": list(row.tags) if each.contents else [],
                "acknowledged": row.acknowledged is not None,
                "queue_position": self._runs.queue.position(row.fid),
                **self._waits(row.fid),
                "own": each.own,
                "launcher": each.launcher,
                "level": each.level,
            }
            for each in seen
            for row in (each.row,)
        ]
        if args.details:
            for each, row in zip(seen, rows, strict=True):
                row["state"] = shown_state(row["state"], row["queue_position"])
                row["inputs"] = _first_inputs(inputs.get(each.row.fid, {}))
        return paged(rows, page.total, page.filtered, args.p, args.pp)

    async def _state(self, caller: Caller, args: FidArgs) -> dict[str, Any]:
        seen = await self._sight.run(caller, args.fid)
        row, level = seen.row, seen.level
        live = self._runs.live.get(args.fid)
        view = live.view if live is not None else await self._store.view(args.fid)
        if view is None:
            raise no_such_run()
        if not seen.contents:
            view = _bare(view)
        shares = [share_fields(each) for each in await self._shares.of_run(row.fid)] if seen.manages else []
        answer = {
            "fid": row.fid,
            "node": self._node,
            "path": row.path,
            "name": row.name,
            "state": view.state.value,
            "progress": view.progress,
            "steps": list(view.steps.values()),
            "inputs": view.inputs,
            "version": view.version,
            "runtime_s": self._runtime(row),
            "final": view.final,
            "fatal": _fatal(view, level),
            "acknowledged": view.acknowledged,
            "locks": [
                {"lid": lock.lid, "title": lock.title, "expires_at": lock.expires_at}
                for lock in ([] if view.state.over else view.locks.values())
            ],
            "shares": shares,
            "outputs": list(view.outputs.values()) if level >= 1 else [],
            "config": view.config if level >= 2 else {},
            "agents": view.agents if level >= 2 else [],
            "tasks": view.tasks if level >= 2 else [],
            "tools": view.tools if level >= 2 else [],
            "author": view.flow.get("author", ""),
            "organization": view.flow.get("organization", ""),
            "release": view.flow.get("release", ""),
            "schedule": view.flow.get("schedule"),
            "created": view.created,
            "modified": view.modified,
            "last_seq": view.last_seq,
            "tags": list(row.tags) if seen.contents else [],
            "contents": seen.contents,
            "level": level,
            "queue_position": self._runs.queue.position(row.fid),
            **self._waits(row.fid),
            "own": seen.own,
            "launcher": seen.launcher,
            "modes": list(seen.modes),
        }
        answer["totals"] = {name: len(answer[name]) for name in ("locks", "outputs", "shares")}
        return fitted(answer, _LISTED)

    def _waits(self, fid: str) -> dict[str, str]:
        live = self._runs.live.get(fid)
        return {"waits": live.waits} if live is not None and live.waits else {}

    async def _stream(self, caller: Caller, args: StreamArgs) -> dict[str, Any]:
        seen = await self._sight.run(caller, args.fid)
        seen.check_contents()
        last = args.after
        window = None if args.ahead is None else ReadAhead(args.ahead, caller.asked)
        following = self._feed.follow(args.fid, args.after, follow=args.follow)
        async with self._shares.using(seen.share, caller.asked.abort), contextlib.aclosing(following) as batches:
            async for batch in batches:
                for part in [batch] if window is None else window.parts(batch):
                    frames = part.frames(seen.level, manages=seen.manages)
                    if frames:
                        if window is not None:
                            await window.room(part.last_seq, len(frames))
                        await caller.asked.send_frames(frames)
                last = batch.last_seq
        after = await self._store.run(args.fid)
        return {"last_seq": last, "state": (after or seen.row).state.value}

    async def _kill(self, caller: Caller, args: FidArgs) -> dict[str, Any]:
        seen = await self._sight.run(caller, args.fid)
        seen.check_end()
        if seen.operates and not seen.own and not seen.row.state.over:
            await self._audit.note(caller, "run.kill", fid=args.fid)
        state = await self._runs.kill(args.fid, caller.principal.id)
        return {"fid": args.fid, "state": state.value}

    async def _ack(self, caller: Caller, args: FidArgs) -> dict[str, Any]:
        (await self._sight.run(caller, args.fid)).check_own()
        state = await self._manager.acknowledge(args.fid, caller.principal.id)
        return {"fid": args.fid, "state": state.value, "acknowledged": True}

    async def _delete(self, caller: Caller, args: FidArgs) -> dict[str, Any]:
        seen = await self._sight.run(caller, args.fid)
        seen.check_delete()
        if seen.operates and not seen.own:
            await self._audit.note(caller, "run.delete", fid=args.fid)
        return {"fid": args.fid, "deleted": True, "erased": await self._manager.delete(args.fid)}

    def _runtime(self, row: RunRow) -> float:
        if row.runtime_s is not None:
            return row.runtime_s
        end = row.modified if row.state.over else self._clock.now_ms()
        return max(end - row.created, 0) / 1000


def _first_inputs(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the beginning of the first inputs, as text."""
    return {name[:_INPUT_CHARACTERS]: _beginning(value) for name, value in list(inputs.items())[:_INPUTS]}


def _beginning(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _INPUT_CHARACTERS else text[: _INPUT_CHARACTERS - 1] + "…"


def _known_flows(principal: Principal) -> Callable[[str], bool]:
    """Return the test whether others' runs of a flow are known to this principal."""
    return lambda path: principal.operator or principal.develops_flow(path)


def _bare(view: RunView) -> RunView:
    """Return of a view what is not about its contents: its state and times, the flow, the type of its error."""
    return RunView(
        last_seq=view.last_seq,
        created=view.created,
        modified=view.modified,
        version=view.version,
        flow=view.flow,
        locks={lid: replace(lock, title="") for lid, lock in view.locks.items()},
        final=None if view.final is None else {"runtime_s": view.final.get("runtime_s")},
        fatal=None if view.fatal is None else {"type": view.fatal.get("type")},
        acknowledged=view.acknowledged,
    )


def _fatal(view: RunView, level: int) -> dict[str, Any] | None:
    if view.fatal is None or level >= 2:
        return view.fatal
    return {key: value for key, value in view.fatal.items() if key != "traceback"}
