"""Runs as the bridge deals with them: launched, found again, watched for a while. A run is never the bridge's own."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from kodo.client.client import Client
from kodo.client.resolve import parse_run
from kodo.client.run import Run
from kodo.mcp.catalog import Catalog, Offer
from kodo.mcp.files import Folders
from kodo.mcp.options import BridgeOptions
from kodo.mcp.texts import one_line
from kodo.p2p.errors import CallError, KodoError, NotFoundError, UsageError
from kodo.protocol.events import Event, OpenLock, is_whole
from kodo.protocol.ids import is_id
from kodo.protocol.numbers import finite

__all__ = ["Lock", "OnProgress", "Runs", "Standing", "run_ref"]

OnProgress = Callable[[float | None, str], Awaitable[None]]
"""Told of progress: percent, if it is known, and a text from the flow."""

LOOK_SECONDS = 3.0

_TURN = frozenset(["lock", "unlock", "lock-timeout", "unlock-deny", "unlock-timeout", "final", "fatal", "kill"])
_RUNS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Lock:
    """An open lock.

    Attributes:
        mine: this user may answer it.
        denials: how many candidates the flow has denied.
        reasons: why it denied the latest.
    """

    lock: OpenLock
    mine: bool
    denials: int = 0
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands: what `run.state` says, and its open locks.

    Attributes:
        lost: why nothing newer is known, when the node did not answer.
    """

    run: Run
    state: Mapping[str, Any]
    locks: tuple[Lock, ...] = ()
    lost: str = ""

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.state.get("state") in ("done", "error")


@dataclass(slots=True)
class _Followed:
    """What of a run's log was read: its view, and the denied candidates of its locks."""

    run: Run
    denials: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, event: Event) -> None:
        lid = str(event.data.get("lid"))
        if event.event == "unlock-deny":
            count, _ = self.denials.get(lid, (0, ()))
            reasons = event.data.get("reasons")
            said = reasons if isinstance(reasons, (list, tuple)) else ()
            self.denials[lid] = (count + 1, tuple(one_line(each, 300) for each in said[:10]))
        elif event.event in ("unlock", "lock-timeout"):
            self.denials.pop(lid, None)


def run_ref(run: Run) -> str:
    """Return what a run is called by: `PEER/FID`."""
    return f"{run.peer_id}/{run.fid}"


class Runs:
    """The runs of this user that the bridge may deal with."""

    def __init__(self, client: Client, options: BridgeOptions, catalog: Catalog, folders: Folders):
        self._client = client
        self._options = options
        self._catalog = catalog
        self._folders = folders
        self._kept: OrderedDict[str, _Followed] = OrderedDict()

    @property
    def recent(self) -> list[Run]:
        """The runs that were dealt with since the bridge started, the latest first."""
        return [followed.run for followed in reversed(self._kept.values())]

    async def launch(self, offer: Offer, inputs: Mapping[str, Any], key: str) -> Run:
        """Launch a flow. Cancelling is safe: the same key gives the same run for 24 h.

        Raises:
            UsageError: it may not be launched, or a file that is not in one of the folders.
            KodoError: as `Client.launch`.
        """
        self.check_launch(offer)
        flow = await self._catalog.flow(offer)
        filled = self._folders.fill(inputs, flow.inputs_schema)
        return self._keep(await self._client.launch(flow, inputs=filled, key=key)).run

    def check_launch(self, offer: Offer) -> None:
        """Check that a flow may be launched.

        Raises:
            UsageError: the user does not allow it.
        """
        if not self._options.launches(offer.node, offer.peer_id, offer.path):
            why = "--read-only" if self._options.read_only else "--flow and --allow"
            raise UsageError(f"{offer.label} may not be launched: the user restricted this bridge by {why}")

    def _keep(self, run: Run) -> _Followed:
        followed = self._kept.pop(run_ref(run), None) or _Followed(run)
        self._kept[run_ref(run)] = followed
        while len(self._kept) > _RUNS_KEPT:
            self._kept.popitem(last=False)
        return followed

    async def open(self, ref: str) -> Standing:
        """Return a run that a model means, and how it stands.

        Args:
            ref: `PEER/FID`, `NODE/FID`, or a fid.

        Raises:
            UsageError: there is no such run, or the bridge may not show it.
            KodoError: it is not there, or its node is away.
        """
        run = await self._named(ref)
        state = await run.state()
        node = state.get("node")
        name = str(node.get("name")) if isinstance(node, Mapping) else run.node
        if not self._options.shows(name, str(run.peer_id), str(state.get("path"))):
            raise UsageError(
                f"the run {run_ref(run)} is of a flow that the user does not show here (koco mcp --flow)"
            )
        return Standing(self._keep(run).run, state)

    async def _named(self, ref: str) -> Run:
        kept = self._kept.get(ref)
        if kept is not None:
            return kept.run
        if len(ref) > 2000:
            raise UsageError("that is not a run: use PEER/FID, as the tools return it")
        if (only := self._options.node) is None:
            return await self._client.run(ref)
        reference = parse_run(ref)
        run = await self._client.run(reference.rest, node=only)
        if reference.node not in (None, only, str(run.peer_id), run.node):
            raise NotFoundError(f"the bridge deals with the node {one_line(only)} only (koco mcp --node)")
        return run

    async def rows(self, state: str | None) -> list[dict[str, Any]]:
        """Return the runs of this user that may be shown: the rows of `Client.runs`, the latest first."""
        rows = await self._client.runs(self._options.node, state=state)
        return [
            row
            for row in rows
            if is_id(row.get("fid"))
            and self._options.shows(str(row.get("node")), str(row.get("peer_id")), str(row.get("path")))
        ]

    async def standing(self, run: Run) -> Standing:
        """Return how a run stands now, its locks too."""
        state = await run.state()
        if not state.get("locks") or state.get("state") in ("done", "error"):
            return Standing(run, state)
        followed = self._keep(run)
        async with followed.turn, aclosing(run.follow(run.view.last_seq, live=False)) as events:
            async for event in events:
                followed.take(event)
        mine = await self._mine(run)
        locks = [
            Lock(lock, lock.lid in mine, *followed.denials.get(lock.lid, (0, ()))) for lock in run.view.locks.values()
        ]
        return Standing(run, state, tuple(locks))

    def reject(self, run: Run, lid: str, reasons: Sequence[str]) -> None:
        """Note that the node refused an answer before the flow saw it; the log has nothing of that."""
        denials = self._keep(run).denials
        denials[lid] = (denials.get(lid, (0, ()))[0] + 1, tuple(reasons))

    async def _mine(self, run: Run) -> frozenset[str]:
        """Return the locks of a run that this user may answer."""
        node = self._options.node or str(run.peer_id)
        rows = await self._client.locks(node)
        return frozenset(str(row.get("lid")) for row in rows if row.get("fid") == run.fid)

    async def watch(
        self, run: Run, seconds: float, on_progress: OnProgress, *, stop: Callable[[Standing], bool]
    ) -> Standing:
        """Wait until a run is over, or `stop` says so of how it stands, or the time is up. Cancelling is safe.

        A node that is away for a while is waited for; the run goes on there.
        """
        latest = Standing(run, {})
        try:
            async with asyncio.timeout(seconds):
                while True:
                    latest = await self.standing(run)
                    if latest.over or stop(latest):
                        return latest
                    await self._until_it_turns(run, latest, on_progress)
        except TimeoutError:
            return await self._last_look(latest)
        except KodoError as error:
            if isinstance(error, CallError) and error.code in (403, 404):
                raise
            return Standing(run, latest.state, latest.locks, one_line(error, 300))

    async def _last_look(self, latest: Standing) -> Standing:
        """Return how a run stands once its time is up: what was known before may be as old as the wait."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await self.standing(latest.run)
        except (KodoError, TimeoutError):
            return Standing(latest.run, latest.state, latest.locks, "it did not answer in time")

    async def _until_it_turns(self, run: Run, standing: Standing, on_progress: OnProgress) -> None:
        """Follow a run until something happens that changes how it stands; tell of its progress meanwhile."""
        seq = standing.state.get("last_seq")
        shown = standing.state.get("progress")
        percent, text = _progress(shown if isinstance(shown, Mapping) else {})
        await on_progress(percent, text or str(standing.state.get("state")))
        after = seq if isinstance(seq, int) else 0
        async with aclosing(run.follow(after)) as events:
            async for event in events:
                if event.event in _TURN:
                    return
                if event.event == "progress" and is_whole(event.data):
                    percent, text = _progress(event.data)
                    await on_progress(percent, text)


def _progress(data: Mapping[str, Any]) -> tuple[float | None, str]:
    return finite(data.get("percent")), one_line(data.get("text") or "", 200)
