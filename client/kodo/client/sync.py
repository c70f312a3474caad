"""The same library for code that is not async, scripts and notebooks: `from kodo.client.sync import Client`.

An event loop of its own runs in a thread of its own, so it works inside a notebook, whose loop runs already.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from kodo.client import client as asynchronous
from kodo.client.config import Loaded
from kodo.client.device_flow import Prompt
from kodo.client.flow import FlowOnNode
from kodo.client.inbox import Inbox
from kodo.client.invitations import Invitation
from kodo.client.invitations import Invitations as AsyncInvitations
from kodo.client.invitations import OpenInvitation as AsyncOpenInvitation
from kodo.client.links import Confirm, Share
from kodo.client.login import Approve
from kodo.client.memory import memories, put_memory
from kodo.client.notebook import open_cell
from kodo.client.proof import ConfirmNode
from kodo.client.resolve import Finder
from kodo.client.run import VERDICT_SECONDS, run_html
from kodo.client.run import Run as AsyncRun
from kodo.client.run_selection import FoundRuns, RunSelection
from kodo.client.schedules import Schedules as AsyncSchedules
from kodo.client.transfer import Download, OnProgress
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.errors import LocallyClosedError
from kodo.p2p.net.host import forked_error
from kodo.p2p.net.transport import Transport
from kodo.protocol.events import Event, RunView
from kodo.protocol.room import ENDLESS, Room

__all__ = ["Client", "Invitations", "OpenInvitation", "Run", "Schedules"]

T = TypeVar("T")

CLOSE_SECONDS = 10.0


class _Loop:
    """An event loop in a thread; every call into it waits for its end, and cancels it when interrupted."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="kodo-client", daemon=True)
        self._thread.start()

    @property
    def own(self) -> bool:
        """Whether the thread is one of this process: of a process that was forked it is not."""
        return self._pid == os.getpid()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        if not self.own:
            work.close()
            raise forked_error(self._pid)
        if self._loop.is_closed():
            work.close()
            raise LocallyClosedError("this client is closed")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        async def next_item() -> tuple[bool, T | None]:
            try:
                return True, await anext(items)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                more, item = self.call(next_item())
                if not more:
                    return
                yield item  # type: ignore[misc]
        finally:
            if self.own and not self._loop.is_closed():
                self.call(_finish(items))

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()


async def _finish(items: AsyncGenerator[Any, None]) -> None:
    for _ in range(100):
        try:
            await items.aclose()
        except RuntimeError:  # an interrupted step is still being cancelled
            await asyncio.sleep(0.02)
        else:
            return


class Run:
    """A run; every method is that of `kodo.client.Run`, without await."""

    def __init__(self, run: AsyncRun, loop: _Loop):
        self._run = run
        self._loop = loop

    @property
    def fid(self) -> str:
        """The run's id."""
        return self._run.fid

    @property
    def node(self) -> str:
        """The node's name or peer id."""
        return self._run.node

    @property
    def peer_id(self) -> PeerId:
        """The node's peer id."""
        return self._run.peer_id

    @property
    def address(self) -> str:
        """`NODE/FID`."""
        return self._run.address

    @property
    def route(self) -> str | None:
        """The way of the latest session."""
        return self._run.route

    @property
    def view(self) -> RunView:
        """What the events that were followed so far add up to."""
        return self._run.view

    @property
    def by_link(self) -> bool:
        """Whether it is reached by a link."""
        return self._run.by_link

    def __repr__(self) -> str:
        return repr(self._run)

    def _repr_html_(self) -> str:
        return run_html(self.address, self.view)

    def state(self) -> dict[str, Any]:
        """Return the run as the node describes it now."""
        return self._loop.call(self._run.state())

    def follow(self, after: int = 0, *, live: bool = True, patience: float | None = None) -> Iterator[Event]:
        """Return the events with `seq` > `after`, each once and in order, until the run is over."""
        return self._loop.iterate(self._run.follow(after, live=live, patience=patience))

    def wait(self) -> RunView:
        """Follow the run to its end."""
        return self._loop.call(self._run.wait())

    def show(self) -> RunView:
        """Follow the run to its end, as `wait` does, and show it in the notebook's cell as it is at each moment."""
        return self._loop.call(self._run._show(open_cell(self)))

    def lock(self, lid: str) -> dict[str, Any]:
        """Return what an open lock demands."""
        return self._loop.call(self._run.lock(lid))

    def answer(
        self, lid: str, candidate: Any, *, timeout: float = VERDICT_SECONDS, key: str | None = None
    ) -> dict[str, Any]:
        """Answer a lock and wait for the verdict."""
        return self._loop.call(self._run.answer(lid, candidate, timeout=timeout, key=key))

    def kill(self) -> dict[str, Any]:
        """End the run."""
        return self._loop.call(self._run.kill())

    def restart(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        tags: str | Sequence[str] | None = None,
        strict: bool = False,
    ) -> Run:
        """Start a new run of the same flow, with the same inputs or some of them changed."""
        restarting = self._run.restart(inputs, key=key, tags=tags, strict=strict)
        return Run(self._loop.call(restarting), self._loop)

    def ack(self) -> dict[str, Any]:
        """Acknowledge the run."""
        return self._loop.call(self._run.ack())

    def delete(self) -> dict[str, Any]:
        """Delete the run and everything about it from the node."""
        return self._loop.call(self._run.delete())

    def share(
        self,
        to: str | Sequence[str] | None = None,
        *,
        level: int | None = None,
        mode: str = "r",
        expires: str | float = "7d",
        downloads: int | None = None,
    ) -> Share:
        """Share the run: with users and roles, or by a link, for whoever has it."""
        sharing = self._run.share(to, level=level, mode=mode, expires=expires, downloads=downloads)
        return self._loop.call(sharing)

    def shares(self) -> list[dict[str, Any]]:
        """Return the run's shares, ended ones too."""
        return self._loop.call(self._run.shares())

    def unshare(self, share: Share | str) -> None:
        """Revoke a share of the run."""
        self._loop.call(self._run.unshare(share))

    def outputs(self) -> list[dict[str, Any]]:
        """Return the outputs there are."""
        return self._loop.call(self._run.outputs())

    def download(
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
        """Download outputs, verified; `on_progress` is called in the loop's thread."""
        return self._loop.call(
            self._run.download(
                directory,
                names=names,
                overwrite=overwrite,
                on_progress=on_progress,
                keep=keep,
                room=room,
                check=check,
            )
        )


class Invitations:
    """Invitations that a client's user makes; from `Client.invitations`."""

    def __init__(self, invitations: AsyncInvitations, loop: _Loop):
        self._invitations = invitations
        self._loop = loop

    def add(
        self,
        flow: str | FlowOnNode,
        *,
        launches: int = 5,
        expires: str | float = "7d",
        level: int | None = None,
        note: str = "",
        see: bool = False,
        inputs: Mapping[str, Any] | None = None,
        node: str | None = None,
        **kwargs: Any,
    ) -> Invitation:
        """Make a link by which whoever has it launches a flow, and sees those runs only."""
        given = {**(inputs or {}), **kwargs}
        terms: dict[str, Any] = {"launches": launches, "expires": expires, "level": level, "note": note, "see": see}
        return self._loop.call(self._invitations.add(flow, **terms, inputs=given, node=node))

    def list(self, node: str | None = None) -> list[dict[str, Any]]:
        """Return the invitations that this user has made."""
        return self._loop.call(self._invitations.list(node))


class OpenInvitation:
    """An invitation that was opened; from `Client.open`."""

    def __init__(self, opened: AsyncOpenInvitation, loop: _Loop):
        self._opened = opened
        self._loop = loop
        self.sid = opened.sid
        self.about = opened.about
        self.expires_at = opened.expires_at

    @property
    def node(self) -> str:
        """The node's name, or its peer id."""
        return self._opened.node

    def launch(
        self,
        inputs: Mapping[str, Any] | None = None,
        *,
        key: str | None = None,
        tags: str | Sequence[str] | None = None,
        strict: bool = False,
    ) -> Run:
        """Launch the flow."""
        return Run(self._loop.call(self._opened.launch(inputs, key=key, tags=tags, strict=strict)), self._loop)

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs that were launched by this invitation."""
        return self._loop.call(self._opened.runs())

    def locks(self) -> list[dict[str, Any]]:
        """Return the questions of its runs."""
        return self._loop.call(self._opened.locks())

    def run(self, fid: str) -> Run:
        """Return a run that was launched by this invitation."""
        return Run(self._opened.run(fid), self._loop)


class Schedules:
    """Flows that nodes launch at times for a client's user; from `Client.schedules`."""

    def __init__(self, schedules: AsyncSchedules, loop: _Loop):
        self._schedules = schedules
        self._loop = loop

    def add(
        self,
        flow: str | FlowOnNode,
        *,
        cron: str | None = None,
        at: str | datetime | None = None,
        every: str | float | None = None,
        tz: str | None = None,
        missed: Literal["once", "skip"] = "once",
        overlap: Literal["skip", "queue", "allow"] = "skip",
        inputs: Mapping[str, Any] | None = None,
        tags: str | Sequence[str] | None = None,
        node: str | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Launch a flow at set times."""
        times: dict[str, Any] = {"cron": cron, "at": at, "every": every, "tz": tz}
        given = {**(inputs or {}), **kwargs}
        return self._loop.call(
            self._schedules.add(flow, **times, missed=missed, overlap=overlap, inputs=given, tags=tags, node=node)
        )

    def list(self, node: str | None = None, *, others: bool = False) -> list[dict[str, Any]]:
        """Return this user's schedules."""
        return self._loop.call(self._schedules.list(node, others=others))

    def remove(self, sid: str, *, node: str | None = None) -> dict[str, Any]:
        """Remove a schedule by `NODE/SID`, or by its sid."""
        return self._loop.call(self._schedules.remove(sid, node=node))

    def pause(self, sid: str, *, paused: bool = True, node: str | None = None) -> dict[str, Any]:
        """Pause a schedule, or let it go on."""
        return self._loop.call(self._schedules.pause(sid, paused=paused, node=node))


class Client:
    """A user of nodes; `with`. Takes what `kodo.client.Client` takes."""

    def __init__(
        self,
        home: str | Path | None = None,
        *,
        registries: str | Sequence[str] | None = None,
        lan: bool | None = None,
        node: str | None = None,
        timeout: float | None = None,
        settings: Loaded | None = None,
        finders: Sequence[Finder] | None = None,
        transport: Transport | None = None,
        identity: Identity | None = None,
        confirm_node: ConfirmNode | None = None,
    ):
        self._client = asynchronous.Client(
            home,
            registries=registries,
            lan=lan,
            node=node,
            timeout=timeout,
            settings=settings,
            finders=finders,
            transport=transport,
            identity=identity,
            confirm_node=confirm_node,
        )
        self._loop: _Loop | None = None

    def __enter__(self) -> Self:
        loop = _Loop()
        try:
            loop.call(self._client.__aenter__())
        except BaseException:
            loop.close()
            raise
        self._loop = loop
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and loop.own:
            try:
                loop.call(self._client.__aexit__(None, None, None))
            finally:
                loop.close()

    def _open(self) -> _Loop:
        if self._loop is None:
            raise LocallyClosedError("use a Client inside `with`")
        return self._loop

    @property
    def peer_id(self) -> PeerId:
        """Who this user is to nodes."""
        return self._client.peer_id

    def nodes(self, *, query: str | None = None, node: str | None = None) -> list[dict[str, Any]]:
        """Return the nodes that are found."""
        return self._open().call(self._client.nodes(query=query, node=node))

    def flows(
        self, search: str | None = None, *, query: str | None = None, by: str | None = None, node: str | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return the flows that are found."""
        return self._open().iterate(self._client.flows(search, query=query, by=by, node=node))

    def show(self, flow: str, *, node: str | None = None) -> dict[str, Any]:
        """Describe a flow."""
        return self._open().call(self._client.show(flow, node=node))

    def launch(
        self,
        flow: str | FlowOnNode,
        *,
        inputs: Mapping[str, Any] | None = None,
        key: str | None = None,
        tags: str | Sequence[str] | None = None,
        node: str | None = None,
        strict: bool = False,
        **kwargs: Any,
    ) -> Run:
        """Launch a flow; the run goes on without this client."""
        loop = self._open()
        options: dict[str, Any] = {"inputs": inputs, "key": key, "tags": tags, "node": node, "strict": strict}
        launching = self._client.launch(flow, **options, **kwargs)
        return Run(loop.call(launching), loop)

    def whoami(self, node: str) -> dict[str, Any]:
        """Return who this user is to a node."""
        return self._open().call(self._client.whoami(node))

    def login(
        self,
        node: str,
        *,
        code: str | None = None,
        name: str | None = None,
        password: str | None = None,
        issuer: str | None = None,
        show: Callable[[Prompt], None] | None = None,
        approve: Approve | None = None,
    ) -> dict[str, Any]:
        """Log in to a node; `show` and `approve` are called in the loop's thread."""
        return self._open().call(
            self._client.login(
                node, code=code, name=name, password=password, issuer=issuer, show=show, approve=approve
            )
        )

    def logout(self, node: str) -> bool:
        """End the login to a node, there and here."""
        return self._open().call(self._client.logout(node))

    def upload(self, path: str | Path, *, node: str | None = None, on_progress: OnProgress | None = None) -> str:
        """Upload a file to a node; return the id that stands for it in inputs there."""
        return self._open().call(self._client.upload(path, node=node, on_progress=on_progress))

    def run(self, fid: str, *, node: str | None = None) -> Run:
        """Return a run by `NODE/FID`, or by its fid."""
        loop = self._open()
        return Run(loop.call(self._client.run(fid, node=node)), loop)

    def get(self, link: str, *, confirm: Confirm | None = None) -> Run:
        """Open a link; return the run that it is for. `confirm` is called in the loop's thread."""
        loop = self._open()
        return Run(loop.call(self._client.get(link, confirm=confirm)), loop)

    def shares(self, node: str | None = None) -> list[dict[str, Any]]:
        """Return the shares of this user's runs, ended ones too."""
        return self._open().call(self._client.shares(node))

    def unshare(self, sid: str, *, node: str | None = None) -> dict[str, Any]:
        """Revoke a share by `NODE/SID`, or by its sid."""
        return self._open().call(self._client.unshare(sid, node=node))

    def open(self, link: str, *, confirm: Confirm | None = None) -> OpenInvitation:
        """Open an invitation to a flow. `confirm` is called in the loop's thread."""
        loop = self._open()
        return OpenInvitation(loop.call(self._client.open(link, confirm=confirm)), loop)

    @property
    def invitations(self) -> Invitations:
        """Links by which others launch flows in this user's name."""
        return Invitations(self._client.invitations, self._open())

    @property
    def schedules(self) -> Schedules:
        """Flows that nodes launch at times for this user."""
        return Schedules(self._client.schedules, self._open())

    def runs(
        self, node: str | None = None, *, state: str | None = None, path: str | None = None, others: bool = False
    ) -> list[dict[str, Any]]:
        """Return this user's runs."""
        return self._open().call(self._client.runs(node, state=state, path=path, others=others))

    def inbox(self, since: Mapping[str, int] | None = None, node: str | None = None) -> Inbox:
        """Return what waits for this user's answer, and which runs of theirs have ended."""
        return self._open().call(self._client.inbox(since, node))

    def find_runs(self, wanted: RunSelection, node: str | None = None) -> FoundRuns:
        """Return the runs that are meant, and which nodes could not be asked."""
        return self._open().call(self._client.find_runs(wanted, node))

    def memories(self, node: str, scope: str | None = None, of: str | None = None, *, prefix: str = "") -> Any:
        """List what flows of a node remember, for their developer; see `kodo.client.memory`."""

        async def ask() -> list[dict[str, Any]]:
            return await memories(await self._client.node(node), scope, of, prefix=prefix)

        return self._open().call(ask())

    def put_memory(
        self, node: str, scope: str, of: str, key: str, value: Any = None, *, remove: bool = False
    ) -> dict[str, Any]:
        """Publish into the memory of a flow or a shared one, as a developer; see `kodo.client.memory`."""

        async def put() -> dict[str, Any]:
            return await put_memory(await self._client.node(node), scope, of, key, value, remove=remove)

        return self._open().call(put())

    def locks(self, node: str | None = None) -> list[dict[str, Any]]:
        """Return the open locks that this user may answer."""
        return self._open().call(self._client.locks(node))
