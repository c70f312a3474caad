"""One run as its user deals with it: follow it, answer it, end it, fetch what it made."""

from __future__ import annotations

import html
import logging
import secrets
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from kodo.client.flow import FlowOnNode, flow_on
from kodo.client.inputs import is_data, to_data, to_inputs
from kodo.client.links import Share, share_with
from kodo.client.notebook import Cell, follow_in, open_cell
from kodo.client.peer import RemoteNode
from kodo.client.proof import Proofs
from kodo.client.resolve import safe_text
from kodo.client.transfer import Download, ManifestPage, OnProgress, download
from kodo.client.upload import upload_inputs
from kodo.p2p.core.identity import PeerId
from kodo.p2p.errors import BrokenSessionError, CallError, KodoError, NotFoundError, PeerError, UsageError
from kodo.p2p.net.calls import Call
from kodo.protocol.bounds import MAX_SHARE_SECONDS
from kodo.protocol.events import Event, RunView
from kodo.protocol.manifest import CHUNK_BYTES
from kodo.protocol.room import ENDLESS, Room
from kodo.protocol.run_state import launched_state, shown_state
from kodo.protocol.texts import several
from kodo.settings.units import parse_seconds

__all__ = ["VERDICT_SECONDS", "Run", "run_html"]

logger = logging.getLogger(__name__)

VERDICT_SECONDS = 90.0
"""How long an answer's verdict is waited for: the node gives a flow 60 s unless the lock says otherwise."""


class Run:
    """A run on a node; from `Client.launch` or `Client.run`.

    Attributes:
        fid: the run's id.
        view: what the events that were followed so far add up to.
        launched_state: the state that the node told when this client launched it: `queued` or `running`; of an
            older node `pending`.
    """

    def __init__(
        self,
        fid: str,
        remote: RemoteNode,
        *,
        patience: float,
        launched_state: str | None = None,
        proofs: Proofs | None = None,
    ):
        self.fid = fid
        self.view = RunView()
        self.launched_state = launched_state
        self._remote = remote
        self._patience = patience
        self._proofs = proofs
        self._known = False

    @property
    def node(self) -> str:
        """The node's name, or its peer id when it was not asked for by name."""
        return str(self._remote)

    @property
    def peer_id(self) -> PeerId:
        """The node's peer id."""
        return self._remote.peer_id

    @property
    def address(self) -> str:
        """What to write to come back to this run: `NODE/FID`."""
        return f"{self._remote.reach}/{self.fid}"

    @property
    def route(self) -> str | None:
        """The way that the latest session takes: `lan`, `direct`, `punched` or `relay`; None before the first."""
        return self._remote.route

    @property
    def by_link(self) -> bool:
        """Whether it is reached by a link, and by nothing that this user could do without that."""
        return self._remote.by_link

    def __repr__(self) -> str:
        return f"<Run {self.address}: {self.view.state if self.view.last_seq else 'not followed yet'}>"

    def _repr_html_(self) -> str:
        return run_html(self.address, self.view)

    async def state(self) -> dict[str, Any]:
        """Return the run as the node describes it now (`run.state`), with `queued` or `running` for `pending`."""
        answer = await self._remote.request("run.state", {"fid": self.fid})
        if not isinstance(answer, Mapping):
            raise PeerError("the answer to run.state is not a map")
        self._knows()
        state = answer.get("state")
        return {**answer, "state": shown_state(state, answer.get("queue_position"))} if state else dict(answer)

    def _knows(self) -> None:
        """Remember that the node knows this run."""
        if not self._known and self._proofs is not None:
            self._proofs.remember(self.fid, self.peer_id)
        self._known = True

    async def prove(self) -> None:
        """Check that something private may go to the run's node.

        Raises:
            IdentityError: nothing but its own claim speaks for it, and nobody confirmed it.
        """
        if self._proofs is not None:
            await self._proofs.check_run(self.fid, self._remote)

    async def follow(
        self, after: int = 0, *, live: bool = True, patience: float | None = None
    ) -> AsyncGenerator[Event, None]:
        """Yield the events with `seq` > `after`, each once and in order, until the run is over.

        A lost session is dialled again and its stream taken up where it ended; the caller does not notice. Leaving
        the loop leaves the run alone.

        Args:
            after: the last `seq` that is known already.
            live: wait for what comes; False gives what there is.
            patience: seconds to look for a lost node before giving up.

        Raises:
            CallError: 404, there is no such run for this user.
            NetworkError, DeadlineError: the node stayed away for longer than `patience`.
        """
        patience = self._patience if patience is None else patience
        async with aclosing(self._remote.events(self.fid, after, follow=live, patience=patience)) as events:
            async for event in events:
                self._knows()
                self.view.apply(event)
                yield event

    async def wait(self) -> RunView:
        """Follow the run to its end; give what its events add up to."""
        async with aclosing(self.follow(self.view.last_seq)) as events:
            async for _ in events:
                pass
        return self.view

    async def show(self) -> RunView:
        """Follow the run to its end, as `wait` does, and show it in the notebook's cell as it is at each moment."""
        return await self._show(open_cell(self))

    async def _show(self, cell: Cell | None) -> RunView:
        async with aclosing(self.follow(self.view.last_seq)) as events:
            await follow_in(cell, events)
        return self.view

    async def lock(self, lid: str) -> dict[str, Any]:
        """Return what an open lock demands: `fid, lid, title, schema, default?, expires_at`.

        Raises:
            CallError: 404 no such lock, 410 it is answered or expired.
        """
        answer = await self._remote.request("lock.get", {"fid": self.fid, "lid": lid})
        if not isinstance(answer, Mapping):
            raise PeerError("the answer to lock.get is not a map")
        self._knows()
        return dict(answer)

    async def answer(
        self, lid: str, candidate: Any, *, timeout: float = VERDICT_SECONDS, key: str | None = None
    ) -> dict[str, Any]:
        """Answer a lock and wait for the verdict.

        Args:
            candidate: what the lock's schema demands; dates, decimals, models and other typed values are sent in the
                form that it takes.
            timeout: seconds to wait for the verdict.
            key: the same key is the same answer, and considered once; None: a new one.

        Returns:
            The `unlock` event's data.

        Raises:
            UsageError: it cannot be sent.
            CallError: 400 it does not fit the schema, with `places`; 409 `denied` with the flow's `reasons`, or
                `busy`; 410 too late.
            IdentityError: the run was launched without inputs on a node that merely claims to offer the flow, and
                nobody confirmed that it is the one that is meant.
        """
        await self.prove()
        candidate = await self._as_data(lid, candidate)
        args = {"fid": self.fid, "lid": lid, "candidate": candidate, "key": key or secrets.token_hex(16)}
        answer = await self._remote.request("lock.answer", args, timeout=timeout)
        unlock = answer.get("unlock") if isinstance(answer, Mapping) else None
        return dict(unlock) if isinstance(unlock, Mapping) else {}

    async def _as_data(self, lid: str, candidate: Any) -> Any:
        if is_data(candidate):
            return candidate
        open_lock = self.view.locks.get(lid)
        schema = open_lock.schema if open_lock is not None else (await self.lock(lid)).get("schema")
        root = schema if isinstance(schema, Mapping) else {}
        try:
            return to_data(candidate, root, root)
        except ValueError as error:
            place = str(getattr(error, "place", "")).removeprefix(".")
            raise UsageError(f"{place or 'the answer'} should be {error}") from None

    async def kill(self) -> dict[str, Any]:
        """End the run: it gets `kill`, then `fatal`.

        Raises:
            CallError: 400 when it is over already.
        """
        answer = await self._remote.request("run.kill", {"fid": self.fid}, repeat=False)
        return dict(answer) if isinstance(answer, Mapping) else {}

    async def flow(self) -> FlowOnNode:
        """Return the flow of this run and its form, as its node offers it now.

        Raises:
            NotFoundError: the node does not offer it any more.
        """
        return await flow_on(self._remote, str((await self.state()).get("path", "")))

    async def restart(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        tags: str | Sequence[str] | None = None,
        strict: bool = False,
    ) -> Run:
        """Start a new run of the same flow, with the same inputs or some of them changed; give it.

        Secrets, and files that the node does not have any more, are asked for by a lock.

        Args:
            inputs: those to change. A `Path` inside them is uploaded first.
            key: as for `Client.launch`.
            tags: instead of those of this run.
            strict: refuse the launch when required inputs are missing.

        Raises:
            CallError: 404 the flow is not offered any more; 400 it takes other inputs by now.
            IdentityError: as `answer`.
            PeerError: the node runs a kodo that cannot change inputs.
        """
        await self.prove()
        args: dict[str, Any] = {}
        if inputs:
            schema = {} if is_data(dict(inputs)) else (await self.flow()).inputs_schema
            args["inputs"] = await upload_inputs(self._remote, to_inputs(inputs, schema), patience=self._patience)
        if tags is not None:
            args["tags"] = list(several(tags))
        if strict:
            args["strict"] = True
        if args or key is not None:
            args["key"] = key or secrets.token_hex(16)
        try:
            # Without a key not made again when the answer was lost: that would start a second one.
            answer = await self._remote.request("run.restart", {"fid": self.fid, **args}, repeat="key" in args)
        except CallError as error:
            if error.reason == "bad-args" and "Extra inputs" in error.message and error.data.get("arg") in args:
                raise PeerError(
                    f"{self._remote} runs an older kodo, which restarts runs unchanged only; launch the flow instead"
                ) from error
            raise
        fid = answer.get("fid") if isinstance(answer, Mapping) else None
        if not isinstance(fid, str):
            raise PeerError(f"{self._remote} restarted the run but did not return its fid")
        state, proofs = launched_state(answer), self._proofs
        started = Run(fid, self._remote, patience=self._patience, launched_state=state, proofs=proofs)
        started._knows()
        return started

    async def ack(self) -> dict[str, Any]:
        """Acknowledge the run: its outcome was received, and the node may delete it when its retention has passed.

        Raises:
            CallError: 400 when it is not over.
        """
        answer = await self._remote.request("run.ack", {"fid": self.fid})
        return dict(answer) if isinstance(answer, Mapping) else {}

    async def delete(self) -> dict[str, Any]:
        """Delete the run and everything about it from the node.

        Raises:
            CallError: 400 when it is not over.
        """
        answer = await self._remote.request("run.delete", {"fid": self.fid}, repeat=False)
        return dict(answer) if isinstance(answer, Mapping) else {}

    async def share(
        self,
        to: str | Sequence[str] | None = None,
        *,
        level: int | None = None,
        mode: str = "r",
        expires: str | float = "7d",
        downloads: int | None = None,
    ) -> Share:
        """Share the run: with users and roles, or by a link, for whoever has it.

        Args:
            to: `user:NAME`, `role:NAME`, a peer id, or several; None makes a link.
            level: 0, 1 or 2: which of the run's events are shown, 1 and more its outputs too; 1 by default.
            mode: `x` lets users and roles answer its locks and kill it.
            expires: `7d`, `12h`, or seconds.
            downloads: how many complete downloads are allowed; any number by default.

        Raises:
            CallError: 403, the run is not this user's, or seen at a lower level.
            UsageError: an argument is none.
            IdentityError: as `answer`.
        """
        seconds = parse_seconds(expires)
        if not isinstance(seconds, (int, float)) or not 1 <= seconds <= MAX_SHARE_SECONDS:
            said = safe_text(expires, 40)
            raise UsageError(
                f"a share expires after a duration such as 30m, 12h or 7d, at most 10 years, not {said!r}"
            )
        args: dict[str, Any] = {"fid": self.fid, "mode": mode, "expires_s": float(seconds)}
        args |= {"link": True} if to is None else {"to": share_with(to)}
        args |= {name: value for name, value in (("level", level), ("downloads", downloads)) if value is not None}
        await self.prove()
        # Not made again when the answer was lost: that would make a second one.
        return Share.from_wire(self.fid, await self._remote.request("run.share", args, repeat=False))

    async def shares(self) -> list[dict[str, Any]]:
        """Return the run's shares, ended ones too: the rows of `share.list`."""
        return [row async for row in self._remote.pages("share.list", {"fid": self.fid})]

    async def unshare(self, share: Share | str) -> None:
        """Revoke a share of the run, by its sid; whatever goes on by it ends within a second."""
        await self._remote.request("share.revoke", {"sid": share.sid if isinstance(share, Share) else share})

    async def settle(self, have: Mapping[str, str]) -> bool:
        """Acknowledge the run if this user launched it, it is over, and `have` holds all it made.

        Args:
            have: the outputs that were received and verified: name → SHA-256 (hex).

        Returns:
            Whether it is acknowledged. That it could not be is no error: what was received is received.
        """
        try:
            state = await self.state()
            if state.get("acknowledged"):
                return True
            made = {str(row["name"]): str(row["sha256"]) for row in await self.made(state)}
            seen_all = all(have.get(name) == digest for name, digest in made.items())
            if not state.get("own") or state.get("state") not in ("done", "error") or not seen_all:
                return False
            await self.ack()
        except (KodoError, KeyError, TypeError, TimeoutError) as error:
            logger.debug("%s was not acknowledged: %s", self.fid, error)
            return False
        return True

    async def outputs(self) -> list[dict[str, Any]]:
        """Return the outputs there are: `name, size, media_type, sha256`."""
        return [row async for row in self._remote.pages("output.list", {"fid": self.fid})]

    async def made(self, state: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the outputs there are, given the run's `state()`, which shows a part of them where they are many."""
        shown = [dict(row) for row in state.get("outputs") or () if isinstance(row, Mapping)]
        totals = state.get("totals")
        count = totals.get("outputs") if isinstance(totals, Mapping) else None
        return await self.outputs() if isinstance(count, int) and count > len(shown) else shown

    async def download(
        self,
        directory: str | Path,
        *,
        names: str | Sequence[str] | None = None,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
        keep: bool = False,
        room: Room = ENDLESS,
        check: Callable[[Sequence[str]], None] | None = None,
    ) -> list[Download]:
        """Download outputs into `directory`, verified; one that was cut is taken up where it was.

        Args:
            names: which one, or which; all of them by default.
            overwrite: replace files of the same name and other content.
            on_progress: told after every MiB.
            keep: do not acknowledge. Else a run that this user launched and that is over is acknowledged once all
                its outputs were received and verified by this call.
            room: where room on the disk is promised, before and while files are written; by default nobody is asked.
            check: called with the names of what is going to be written, before anything is; may raise.

        Raises:
            NotFoundError: the run has no output of that name.
            UsageError, IntegrityError, CapacityError, NetworkError: as `kodo.client.transfer.download`.
        """
        chosen = dict.fromkeys(several(names or ()))
        have = [str(row.get("name", "")) for row in await self.outputs()]
        for name in chosen:
            if name not in have:
                known = ", ".join(map(safe_text, have)) or "none"
                raise NotFoundError(f"this run has no output {safe_text(name)!r}; it has: {known}")
        source = _RunSource(self._remote, self.fid)
        if check is not None:
            check(list(chosen) or have)
        files = await download(
            source, list(chosen) or have, Path(directory), overwrite=overwrite, on_progress=on_progress, room=room
        )
        if not keep:
            await self.settle({file.name: file.sha256 for file in files})
        return files


class _RunSource:
    """A run's outputs, for `transfer`."""

    def __init__(self, remote: RemoteNode, fid: str):
        self._remote = remote
        self._fid = fid

    async def manifest(self, name: str, first: int, count: int) -> ManifestPage:
        args = {"fid": self._fid, "name": name, "from": first, "count": count}
        answer = await self._remote.request("output.manifest", args)
        try:
            if answer["chunk_bytes"] != CHUNK_BYTES:
                raise PeerError(f"{self._remote} cuts files in chunks of {answer['chunk_bytes']} bytes; update kodo")
            chunks = tuple(bytes(chunk) for chunk in answer["chunks"])
            return ManifestPage(int(answer["size"]), bytes.fromhex(answer["sha256"]), int(answer["from"]), chunks)
        except (KeyError, TypeError, ValueError) as error:
            raise PeerError(f"the answer to output.manifest is malformed: {error!r}") from None

    async def read(self, name: str, offset: int) -> AsyncGenerator[bytes, None]:
        session = await self._remote.session()
        args = {"fid": self._fid, "name": name, "offset": offset}
        try:
            async with Call(session, "output.read", self._remote.about(args)) as call:
                async for piece in call:
                    if not isinstance(piece, bytes):
                        raise PeerError("output.read gave something that is not bytes")
                    yield piece
                await call.done()
        except CallError as error:
            if await self._remote.may_go_on(error):
                raise BrokenSessionError(f"the download of {name} was interrupted: {error.message}") from error
            raise


def run_html(address: str, view: RunView) -> str:
    """Describe a run for a notebook. All text is escaped: it comes from elsewhere."""
    rows = [("run", address), ("state", str(view.state) if view.last_seq else "not followed yet")]
    if view.flow.get("name"):
        rows.insert(0, ("flow", str(view.flow["name"])))
    if view.progress:
        percent = view.progress.get("percent")
        shown = f"{percent:.0f} % " if isinstance(percent, (int, float)) else ""
        rows.append(("progress", shown + str(view.progress.get("text") or "")))
    rows += [("lock", lock.title) for lock in view.locks.values()]
    rows += [("output", f"{name} ({output.get('size')} bytes)") for name, output in view.outputs.items()]
    if view.fatal:
        rows.append(("fatal", f"{view.fatal.get('type')}: {view.fatal.get('message')}"))
    elif view.final:
        rows.append(("final", str(view.final.get("result"))))
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
        f"<td><pre style='margin:0;white-space:pre-wrap'>{html.escape(safe_lines(text))}</pre></td></tr>"
        for label, text in rows
    )
    return f"<table>{cells}</table>"


def safe_lines(text: str, limit: int = 10_000) -> str:
    """Keep line breaks, drop every other control character."""
    return "\n".join(safe_text(line, limit) for line in text[:limit].splitlines())
