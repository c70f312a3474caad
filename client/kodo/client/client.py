"""`Client`: find nodes and flows, launch, follow, answer, download."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from kodo.access.outgoing import use_proxy
from kodo.client.accounts import Accounts
from kodo.client.config import Loaded, load_settings
from kodo.client.device_flow import Prompt
from kodo.client.directory import Directory
from kodo.client.flow import FlowOnNode
from kodo.client.inbox import Inbox, ask_for_news, inbox_of
from kodo.client.inputs import to_inputs
from kodo.client.invitations import Invitations, InvitedNode, OpenInvitation
from kodo.client.known_addresses import KnownAddresses
from kodo.client.known_nodes import KnownNodes
from kodo.client.known_runs import KnownRuns
from kodo.client.links import Confirm, LinkedNode, read_link, revoke_share
from kodo.client.login import Approve
from kodo.client.near import Change, rows_of
from kodo.client.peer import RemoteNode
from kodo.client.proof import ConfirmNode, Proofs
from kodo.client.registry_account import RegistryDesk
from kodo.client.resolve import (
    Finder,
    Reference,
    Resolver,
    Target,
    parse_run,
    parse_share,
    safe_text,
)
from kodo.client.run import Run
from kodo.client.run_selection import FoundRuns, RunSelection, latest, selected_rows
from kodo.client.schedules import Schedules
from kodo.client.schemas import properties
from kodo.client.transfer import OnProgress
from kodo.client.upload import upload, upload_inputs
from kodo.p2p.core.identity import Identity, PeerId
from kodo.p2p.errors import LocallyClosedError, NotFoundError, PeerError, UsageError
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.keystore import load_identity, make_home
from kodo.p2p.net.transport import Transport
from kodo.protocol.run_state import launched_state
from kodo.protocol.texts import several
from kodo.registry.client.relaying import carriers_to

__all__ = ["Client"]

logger = logging.getLogger(__name__)

L = TypeVar("L", bound=LinkedNode)


class Client:
    """A user of nodes; `async with`. All its sessions end with it, no run does.

    Args:
        home: the folder with `user.key` and `known_nodes`; `$KODO_HOME`, or the platform's data folder, by default.
        registries: URLs; those of the settings by default.
        lan: look around on the local network; the settings' word by default.
        node: the node meant when none is named (NODE).
        timeout: seconds that a call or a dial may take.
        settings: settings that were loaded already, instead of the environment and `kodo.toml`.
        finders: other places to find nodes in, asked besides `home`.
        transport: how to dial; WebRTC by default.
        identity: whose key; the home's user by default.
        confirm_node: asked before anything goes to a node that merely claims to be the one that is meant: `(node,
            why)`, where `why` says what it claims. Without it that is refused.
    """

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
        flags: dict[str, Any] = {"registry": registries, "lan": lan, "node": node}
        if registries is not None and not isinstance(registries, str):  # a text is read as the setting is
            flags["registry"] = list(registries)
        loaded = settings or load_settings(home, {**flags, "timeout": None if timeout is None else float(timeout)})
        self.home = loaded.home
        self.settings = loaded.settings
        use_proxy(self.settings.proxy)
        self.known = KnownNodes(self.home / "known_nodes")
        near = finders is None and self.settings.lan
        places = KnownAddresses(self.home / "known_addresses") if near else None
        self._directory = Directory(self.home, self.settings, self.known, self._remote, finders, places)
        self._proofs = Proofs(
            KnownRuns(self.home / "known_runs"), self.known, self._directory.nearby, self.home, confirm_node
        )
        self._transport = transport
        self._identity = identity
        self._host: Host | None = None
        self._stack = AsyncExitStack()
        self._accounts = Accounts(
            self.home,
            self.node,
            self.known,
            self._directory.registries,
            timeout_s=self.settings.timeout_s,
            keyring=self.settings.keyring,
        )
        self.logins = self._accounts.logins

    async def __aenter__(self) -> Self:
        identity = self._identity or load_identity(make_home(self.home), "user")
        transport = self._transport or WebRtcTransport(carriers=carriers_to(self.settings.registry))
        self._host = await self._stack.enter_async_context(Host(identity, transport))
        self._stack.push_async_callback(self._directory.aclose)
        self._accounts.open(identity, self._stack, bound=self.settings.login_bound)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        host, self._host = self._host, None
        if host is not None and not host.is_own:
            return  # it is another process's, which has forked this one
        await self._stack.aclose()

    @property
    def peer_id(self) -> PeerId:
        """Who this user is to nodes."""
        return self._open_host().peer_id

    # finding

    async def nodes(self, *, query: str | None = None, node: str | None = None) -> list[dict[str, Any]]:
        """Return the nodes found: `peer_id, name, addrs, source` (`lan` or `registry`) and what else is known.

        One row a node; a node found in several places has the addresses of the nearest.

        Args:
            query: a filter, as the registry's; of near nodes little more than the name is known.
            node: NODE, or by default the settings' node: this one alone, once it has answered.

        Raises:
            UsageError: `query` is not a query.
            NetworkError, NotFoundError: `node` is away, or none.
            CallError: nothing is found, and a registry was not to be read.
        """
        return await self._directory.nodes(query, node)

    def flows(
        self, search: str | None = None, *, query: str | None = None, by: str | None = None, node: str | None = None
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the flows that are found, those of near nodes first: the row with `node, peer_id, addrs, source`.

        Args:
            search: a glob over name, description, author, organization, tags.
            query: a filter, as the registry's.
            by: `field asc|desc`, comma separated; sorts within one place.
            node: only those of this node.

        Raises:
            UsageError: `query` is not a query.
            CallError: nothing is found, and a registry was not to be read.
        """
        return self._directory.flows(search, query, by, node)

    async def find_flow(self, flow: str, *, node: str | None = None) -> FlowOnNode:
        """Find the flow that FLOW means, and its form.

        Args:
            flow: `NODE/path`, `NODE/name`, or a path or name that is unique in what is found.
            node: the node to look on; `flow` is then a path or name there.

        Raises:
            NotFoundError: there is none.
            UsageError: there are several; the message lists them.
        """
        return await self._directory.find_flow(flow, node)

    async def show(self, flow: str, *, node: str | None = None) -> dict[str, Any]:
        """Describe a flow: the answer of `flow.schema`, with `node` and `peer_id`."""
        found = await self.find_flow(flow, node=node)
        return {**found.schema, "node": str(found.remote), "peer_id": str(found.remote.peer_id)}

    async def node(self, text: str) -> RemoteNode:
        """Find the node that NODE means; it is dialled at its first use.

        Raises:
            UsageError, NotFoundError, UnreachableError, IdentityError: as `Resolver.node`.
        """
        return await self._directory.node(text)

    # logging in

    async def whoami(self, node: str) -> dict[str, Any]:
        """Return who this user is to a node: `principal, peer_id, user, roles, develops, grants`, and the node.

        Instead of a node a registry's URL may be given, here and to log in or out.
        """
        return await self._accounts.whoami(node)

    async def desk(self, place: str) -> RemoteNode | RegistryDesk:
        """Return what takes the ops on users: the node that NODE means, or the registry of a URL.

        Raises:
            UsageError, NotFoundError, UnreachableError, IdentityError: as `node`.
        """
        return await self._accounts.desk(place)

    async def login(
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
        """Log in to a node, by a code that its operator made for this device, by name and password or at an issuer.

        The login is kept, and shown to that node again at every session. Naming the issuer approves that the node
        gets new tokens of it; `show` has to tell a person what to open in a browser. `approve` is asked instead of
        naming the issuer, when other terms were approved for this node before, and whether it may have a token that
        was got for other nodes.

        Raises:
            UsageError: none is given, it is not a code, or the node takes tokens of another issuer.
            IdentityError: a password for a node that is asked for by a name for the first time, and nobody confirmed
                that it is the one that is meant.
            CallError: 401 `bad-code`, `bad-login`, `bad-token`, `no-login`; 429 `slow-down`; 503 `provider-away`.
        """
        how = (code, name, password, issuer, show, approve)
        return await self._accounts.login(node, how, self._proofs.check_password)

    async def logout(self, node: str) -> bool:
        """End the login to a node, there and here; say whether there was one.

        Where the node is away, or accepts no more of it, the login is forgotten here, and the log says so.
        """
        return await self._accounts.logout(node)

    # running

    async def launch(
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
        """Launch a flow; the run goes on without this client.

        Args:
            flow: FLOW, or what `find_flow` gave.
            inputs: the inputs; keyword arguments that are not named here are inputs too and win. Dates, decimals,
                models and other typed values are sent in the form that the flow takes. A `Path` inside them is
                uploaded first; one of a folder in a list of files stands for all files in it.
            key: the same key gives the same run for 24 h. One is made when none is given, so that a launch whose
                answer was lost on the way is not done twice.
            tags: a word, or several, to find the run by.
            node: as in `find_flow`.
            strict: refuse the launch when required inputs are missing; else the run begins with a lock that asks
                for them.

        Raises:
            UsageError: an input cannot be sent; or the flow has an input whose name is an option's here, and it is
                not said which of them is meant.
        """
        found = flow if isinstance(flow, FlowOnNode) else await self.find_flow(flow, node=node)
        patience = self.settings.patience_s
        if inputs is None:
            options = {"key": key, "tags": tags, "node": node, "strict": strict or None}
            _check_options(found, [name for name, value in options.items() if value is not None])
        given = to_inputs({**(inputs or {}), **kwargs}, found.inputs_schema)
        await self.prove(found, given)
        given = await upload_inputs(found.remote, given, patience=patience)
        args: dict[str, Any] = {
            "path": found.path,
            "inputs": given,
            "key": key or secrets.token_hex(16),
            "tags": list(several(tags or ())),
        }
        if strict:
            args["strict"] = True
        answer = await found.remote.request("run.launch", args)
        fid = answer.get("fid") if isinstance(answer, Mapping) else None
        if not isinstance(fid, str):
            raise PeerError(f"{found.remote} launched the run but did not return its fid")
        self._proofs.launched(found, fid)
        return self._run(fid, found.remote, launched_state=launched_state(answer))

    async def prove(self, found: FlowOnNode, inputs: Mapping[str, Any]) -> None:
        """See to it that a flow is on a node that may have these inputs; `launch` does so by itself.

        Raises:
            IdentityError: the node only claims to offer the flow that is meant, and nobody confirmed that it is.
        """
        await self._proofs.check_flow(found, inputs)

    async def upload(
        self, path: str | Path, *, node: str | RemoteNode | None = None, on_progress: OnProgress | None = None
    ) -> str:
        """Upload a file to a node; give the id that stands for it in the inputs of a launch there, for 24 h.

        What the node has of this file already is not sent again.

        Args:
            node: NODE, what `node` gave, or by default the settings' node.
            on_progress: called as the file is sent.

        Raises:
            UsageError: the file cannot be read, or no node is said.
            IdentityError: as `Run.answer`.
        """
        node = node or self.settings.node
        if node is None:
            raise UsageError("name the node that the file is for: upload(path, node=…)")
        remote = node if isinstance(node, RemoteNode) else await self.node(node)
        await self._proofs.check_file(remote, "" if isinstance(node, RemoteNode) else node)
        return await upload(remote, Path(path), patience=self.settings.patience_s, on_progress=on_progress)

    async def run(self, fid: str, *, node: str | None = None) -> Run:
        """Return the run that RUN means: `NODE/FID`, a fid on `node`, a fid alone, or one as a table shortens it.

        A fid alone means the node that the run was launched on, followed on or listed by, which this home remembers;
        else the one near node that claims the run, if `confirm_node` agrees.

        Raises:
            UsageError: it is not a fid.
            NotFoundError: no near node knows that run (for this user).
            IdentityError: it is known to be on another node; several nodes claim it; or one does, and nobody
                confirmed that it is the one that is meant.
        """
        reference = parse_run(self._proofs.runs.whole(fid))
        place = reference.node or node or self.settings.node
        if place is not None:
            remote = await self.node(place)
            self._proofs.check_named(reference.rest, remote, place)
            return self._run(reference.rest, remote)
        known = self._proofs.runs.get(reference.rest)
        if known is not None:
            remote = await self.node(str(known))
            remote.label = remote.label or self._proofs.name_of(known)
            return self._run(reference.rest, remote)
        return self._run(reference.rest, await self._proofs.claimant(reference.rest), proved=True)

    async def get(self, link: str, *, confirm: Confirm | None = None) -> Run:
        """Open a link; give the run that it is for, to follow and to download.

        Args:
            link: `https://HOST/#get=TOKEN` or `kodo:TOKEN`.
            confirm: asked, once nothing else helps, whether the registry that the link names may be asked where
                the node is. Without it only the configured registries are.

        Raises:
            UsageError: it is not a link.
            CallError: 410 with what became of it: `expired`, `used-up`, `revoked`, `deleted`; 404 `no-such-link`.
            UnreachableError: the node is away.
        """
        remote = await self._linked(LinkedNode, link, confirm)
        if "invitation" in remote.told:
            raise UsageError("this link is an invitation to a flow; open it with `koco open`, or `Client.open`")
        return self._run(remote.opens, remote, proved=True)

    async def open(self, link: str, *, confirm: Confirm | None = None) -> OpenInvitation:
        """Open an invitation to a flow, to launch that and to follow its runs; needs no account at the node.

        Args:
            link, confirm: as for `get`.

        Raises:
            UsageError: it is not a link, or one that shows a run.
            CallError: 410 `expired`, `revoked`; 404 `no-such-link`.
            UnreachableError: the node is away.
        """
        remote = await self._linked(InvitedNode, link, confirm)
        return OpenInvitation(remote, self.settings.patience_s)

    async def _linked(self, kind: type[L], link: str, confirm: Confirm | None) -> L:
        """Return the node of a link, in a session that has opened it."""
        read = read_link(link)
        remote = kind(
            read,
            self._open_host(),
            self._directory.near,
            Resolver(self._directory.registries, self.known),
            self.known,
            timeout=self.settings.timeout_s,
            confirm=None if read.registry in self.settings.registry else confirm,
        )
        await remote.session()
        return remote

    async def shares(self, node: str | None = None) -> list[dict[str, Any]]:
        """Return the shares of this user's runs, ended ones too: rows of `share.list` with `node` and `peer_id`."""
        return await self._rows("share.list", node, {})

    async def unshare(self, sid: str, *, node: str | None = None) -> dict[str, Any]:
        """Revoke a share: `NODE/SID`, or a sid on `node`, or on any near node.

        Raises:
            UsageError: it is not a sid.
            NotFoundError: no near node has such a share of this user's.
        """
        return await self._change("share", parse_share(sid), node, "share.revoke", revoke_share)

    async def _change(
        self,
        what: str,
        reference: Reference,
        node: str | None,
        op: str,
        change: Change,
    ) -> dict[str, Any]:
        """Change a share or a schedule of this user's, on its node, or on whichever near node knows it."""
        work = partial(change, sid=reference.rest)
        place = reference.node or node or self.settings.node
        if place is not None:
            answers = [await work(await self.node(place))]
        else:
            near = (await self._directory.nearby.ask(work, op)).check()
            answers = [answer for remote, answer in near if self._proofs.may_have(remote, answer)]
        for answer in filter(None, answers):
            return answer
        where = "on the near nodes; say on which it is: NODE/SID" if place is None else f"on {safe_text(place)}"
        raise NotFoundError(f"you have no {what} {reference.rest} of yours {where}")

    @property
    def invitations(self) -> Invitations:
        """Links by which others launch flows in this user's name."""
        return Invitations(self, self._rows)

    @property
    def schedules(self) -> Schedules:
        """Flows that nodes launch at times for this user."""
        return Schedules(self, self.settings.patience_s, self._rows, self._change)

    async def runs(
        self,
        node: str | None = None,
        *,
        state: str | None = None,
        path: str | None = None,
        others: bool = False,
    ) -> list[dict[str, Any]]:
        """Return this user's runs, the latest first: the rows of `run.list` with `node` and `peer_id`.

        Those on `node`, or on all near nodes and all that this user knows by name; the log tells of those that
        could not be asked. `find_runs` gives them, too.

        Args:
            state: `queued`, `running`, `pending` (either of these), `locked`, `done` or `error`.
            path: of the flow.
            others: everybody's too, as far as this user's roles there show them.
        """
        found = await self.find_runs(RunSelection(state=state, path=path, others=others), node)
        for name, why in found.away.items():
            logger.warning("%s: %s", name, why)
        return found.rows

    async def find_runs(self, wanted: RunSelection, node: str | None = None) -> FoundRuns:
        """Return the runs that are meant, as `runs` does, and which nodes could not be asked.

        Raises:
            CallError, NetworkError: of `node`; of all near nodes, when every one refuses the call.
        """
        given, away = await self._directory.ask_known(lambda each: selected_rows(each, wanted), "run.list", node)
        self._proofs.listed(given, named=bool(node or self.settings.node))
        known = set(self.known.all().values())
        groups: dict[str, list[dict[str, Any]]] = {}
        for remote, rows in given:
            told = [{**row, "route": remote.route} for row in rows]
            groups.setdefault("" if remote.peer_id in known else str(remote.peer_id), []).extend(told)
        found = latest(list(groups.values()), wanted.limit)
        return FoundRuns(found, more=len(found) < sum(map(len, groups.values())), away=away)

    async def inbox(self, since: Mapping[str, int] | None = None, node: str | None = None) -> Inbox:
        """Return what waits for this user's answer, and which runs of theirs have ended, as `runs` finds them.

        Args:
            since: by peer id, up to when what has ended was looked at: the `seen` of the last inbox. Without it, and
                for nodes that are not in it, what has ended within a day.

        Raises:
            CallError, NetworkError: of `node`.
        """
        given, away = await self._directory.ask_known(ask_for_news, "lock.list", node)
        self._proofs.listed([(remote, rows) for remote, (_, rows) in given], named=bool(node or self.settings.node))
        return inbox_of(given, away, since or {}, time.time())

    async def locks(self, node: str | None = None) -> list[dict[str, Any]]:
        """Return the open locks that this user may answer, with `node` and `peer_id`."""
        return await self._rows("lock.list", node, {})

    # inside

    def _open_host(self) -> Host:
        if self._host is None:
            raise LocallyClosedError("use a Client inside `async with`")
        self._host.check_process()
        return self._host

    def _remote(self, target: Target) -> RemoteNode:
        return RemoteNode(
            target,
            self._open_host(),
            self._directory.everywhere,
            self.known,
            timeout=self.settings.timeout_s,
            logins=self._accounts.keeper,
            places=self._directory.places,
        )

    def _run(self, fid: str, remote: RemoteNode, *, proved: bool = False, launched_state: str | None = None) -> Run:
        """Return a run; `proved`: that it is there is known already, else it is once the node answered for it."""
        if proved:
            self._proofs.remember(fid, remote.peer_id)
        patience = self.settings.patience_s
        return Run(fid, remote, patience=patience, launched_state=launched_state, proofs=self._proofs)

    async def _rows(self, op: str, node: str | None, filters: Mapping[str, Any]) -> list[dict[str, Any]]:
        node = node or self.settings.node
        if node is not None:
            remote = await self.node(node)
            given = [(remote, await rows_of(remote, op, filters))]
        else:
            given = (await self._directory.nearby.rows(op, filters)).check()
        self._proofs.listed(given, named=node is not None)
        return [row for _, rows in given for row in rows]


def _check_options(found: FlowOnNode, options: Sequence[str]) -> None:
    """Refuse options of `launch` that are names of inputs, too.

    Raises:
        UsageError: saying how to say which is meant.
    """
    both = [name for name in options if name in properties(found.inputs_schema)]
    if both:
        raise UsageError(
            f"{found.path} has an input {both[0]!r}, and launch({both[0]}=…) is an option of the launch: "
            f"give the flow's inputs by inputs={{{both[0]!r}: …}}, or inputs={{}} if the option is meant"
        )
