"""The node, put together: `async with Node(config)`. Prints nothing, and leaves nothing running."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kodo.access.audit import AuditedTables
from kodo.access.provider import Provider
from kodo.node.answers.node import NodeFacts
from kodo.node.catalog.announce import Announcer, Goodbyes, Said, advertised
from kodo.node.catalog.catalog import Catalog, Describe, Flow, describe_flows
from kodo.node.catalog.code_watch import CodeWatch, running
from kodo.node.catalog.listing import listed
from kodo.node.catalog.load import LoadMeter, has_spare_memory
from kodo.node.catalog.relays import Relays, addresses_told
from kodo.node.catalog.scope import Scope, default_name, load_scope, tell_strays
from kodo.node.catalog.scope_code import ScopeCode, packages_below
from kodo.node.clock import Clock, SystemClock
from kodo.node.config import NodeConfig
from kodo.node.executors.executor import Executor
from kodo.node.files.ledger import Ledger
from kodo.node.files.outputs import Outputs
from kodo.node.files.uploads import UploadLimits, Uploads
from kodo.node.home import hold_home, last_port, remember_port
from kodo.node.housekeeping import cleanup
from kodo.node.housekeeping.deletion import Manager
from kodo.node.launches.launcher import Launcher
from kodo.node.launches.schedules import Schedules
from kodo.node.parts import (
    access_provider,
    apart_executor,
    log_chore,
    outgoing_client,
    ray_executor,
    settle_account,
)
from kodo.node.requests.delegation import Delegations
from kodo.node.requests.imports import imports_said
from kodo.node.requests.memories import Memories
from kodo.node.runs.flow_requests import Asking
from kodo.node.runs.launch import RunSettings
from kodo.node.runs.locks import Locks
from kodo.node.runs.run_log import log_run
from kodo.node.runs.runs import Runs
from kodo.node.runs.vault import Vault
from kodo.node.runs.versions import versions
from kodo.node.service import Service
from kodo.node.shares.invitations import Invitations
from kodo.node.shares.shares import Shares
from kodo.node.store.follow import Feed
from kodo.node.store.store import Store
from kodo.node.twins import Twins, addresses_of, reached
from kodo.node.watch import Watch
from kodo.node.webhooks.notices import Source
from kodo.node.webhooks.targets import targets_of
from kodo.node.webhooks.webhooks import Webhooks
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.distribution import installed_version
from kodo.p2p.errors import UsageError
from kodo.p2p.net.calls import CALL_PROTOCOL, CallServer
from kodo.p2p.net.descriptors import raise_descriptors
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.discovery import Advertisement
from kodo.p2p.net.host import Host
from kodo.p2p.net.interfaces import on_networks_changed
from kodo.p2p.net.keystore import load_certificate, load_identity, make_home
from kodo.p2p.net.session import Session
from kodo.p2p.net.transport import Transport
from kodo.protocol.events import RunState
from kodo.protocol.ids import make_id

if TYPE_CHECKING:
    from kodo.monitor.server import MonitorServer
    from kodo.node.executors.apart.account import Account

__all__ = ["Node"]

logger = logging.getLogger(__name__)


class Node:
    """A node that runs while it is open.

    Args:
        config: the settings.
        executor: what runs the flows; None: what the config says.
        transport: how peers reach the node; None: WebRTC Direct.
        describe: how flows are described; None: by a process of their own.
    """

    def __init__(
        self,
        config: NodeConfig,
        *,
        executor: Executor | None = None,
        transport: Transport | None = None,
        describe: Describe = describe_flows,
    ):
        self.config = config
        self._executor = executor
        self._transport = transport
        self._describe = describe
        self._stack: contextlib.AsyncExitStack | None = None
        self.waits_for = "the node to start"
        """What its start waits for now, for people."""
        self._scope = Scope()
        self._identity: Identity | None = None
        self._provider: Provider | None = None
        self._catalog: Catalog | None = None
        self._host: Host | None = None
        self._name = ""
        self._runs: Runs | None = None
        self._service: Service | None = None
        self._watch = Watch()
        self._twins: Twins | None = None

    async def __aenter__(self) -> Self:
        """Start; when this returns the node takes calls.

        Raises:
            UsageError: the config, the scope or the home is wrong, or another node has the home.
            KodoError: flows cannot be described, Ray cannot be started.
        """
        stack = contextlib.AsyncExitStack()
        try:
            await self._start(stack)
        except BaseException:
            await stack.aclose()
            raise
        self._stack = stack
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send goodbye, end the runs (unless they are kept) and the sessions, stop Ray; bounded."""
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    # --- what the node is ---

    @property
    def name(self) -> str:
        """The node's name."""
        return self._name

    @property
    def peer_id(self) -> str:
        """The node's peer id."""
        assert self._identity is not None, "the node is not open"
        return str(self._identity.peer_id)

    @property
    def addresses(self) -> list[Multiaddr]:
        """Where the node is reached now, each with its peer id."""
        return self._host.addresses() if self._host is not None else []

    @property
    def twins(self) -> list[str]:
        """Where other nodes with the same key were met."""
        return list(self._twins.seen) if self._twins is not None else []

    @property
    def monitor(self) -> MonitorServer | None:
        """What serves its metrics, if that was asked for."""
        return self._watch.monitor

    @property
    def flows(self) -> list[Flow]:
        """What it offers, broken flows too."""
        return self._catalog.flows if self._catalog is not None else []

    async def asked_to_stop(self) -> None:
        """Wait until an operator has asked the node to stop and the runs that it shall wait for are over."""
        assert self._runs is not None, "the node is not open"
        await self._runs.drained.wait()

    def begun(self) -> tuple[int, int]:
        """Return how many runs have begun, and how many of these wait for an answer."""
        runs = [live for live in self._runs.live.values() if live.handed] if self._runs is not None else []
        return len(runs), sum(live.view.state is RunState.LOCKED for live in runs)

    @property
    def keeps_runs(self) -> bool:
        """Whether runs that have begun go on when the node is stopped."""
        return self._runs is not None and self._runs.keep_runs

    def keep_runs(self) -> None:
        """Keep runs that have begun when the node is stopped."""
        assert self._runs is not None, "the node is not open"
        self._runs.keep_runs = True

    def describe_stop(self) -> str:
        """Return one line for the operator: what a stop now does to the runs that have begun; empty without any."""
        begun, _ = self.begun()
        if not begun:
            return ""
        if self.keeps_runs:
            return f"runs that have begun go on until the next start takes them up: {begun}"
        return f"runs that have begun end (--keep-runs lets them go on): {begun}"

    def describe_access(self) -> str:
        """Return one line for the operator: who is let in."""
        if self._provider is None:
            return ""
        shown = self.config.contents_for
        also = f"; the contents of runs are shown to every {' and '.join(shown)} too" if shown else ""
        return self._provider.describe() + also

    # --- start ---

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        config, clock = self.config, SystemClock()
        raise_descriptors()
        home = make_home(config.home)
        stack.enter_context(hold_home(home))
        self._identity = identity = load_identity(home, "node")
        goodbyes = await stack.enter_async_context(Goodbyes())
        new_id = partial(_new_id, clock)
        scope_roots = self._read_scope()
        if config.metrics is not None:
            await stack.enter_async_context(self._watch.serve(config.metrics))
        self.waits_for = "its database to open"
        account = await asyncio.to_thread(settle_account, config, home, [*scope_roots, *config.roots])
        ledger = Ledger(home, reserve_bytes=config.disk_reserve_bytes, quota_bytes=config.quota_bytes)
        store = await stack.enter_async_context(
            Store(home / "node.db", clock=clock, max_bytes=config.max_db_bytes, room=ledger)
        )
        ledger.count(lambda: store.taken, "database")
        ledger.owe(lambda: store.unfolded)
        tables = AuditedTables(store.change, store.ask)
        self._provider = provider = await access_provider(config, identity, home, tables, clock)
        feed = Feed(store)
        outputs = Outputs(home / "outputs", room=ledger)
        outputs.open()
        ledger.count(lambda: outputs.taken, "outputs")
        limits = UploadLimits(keep_s=config.keep_uploads_s)
        uploads = Uploads(home / "uploads", clock=clock, new_id=new_id, room_of=ledger.share_of, limits=limits)
        uploads.open()
        ledger.count(lambda: uploads.taken, "uploads")
        memories = await stack.enter_async_context(Memories(home / "memory", provider, clock, room=ledger))
        ledger.count(lambda: memories.taken, "memory")
        ledger.owe(lambda: memories.unfolded)
        vault = Vault(home / "secrets", home / "secrets.key")
        vault.open()
        if config.reload and config.ray_address is not None:
            raise UsageError("--reload is for flows that this node runs itself, not for a Ray cluster that it joins")
        code = ScopeCode([], home / "code" if config.scope is not None else None, without=home, account=account)
        await asyncio.to_thread(self._watch_code, code)
        await asyncio.to_thread(code.forget)
        self._catalog = catalog = self._make_catalog(scope_roots, account, code if config.scope is not None else None)
        stack.callback(catalog.judge.close)
        self.waits_for = "flows to be described"
        executor = await self._open_executor(
            stack, identity, [*scope_roots, *config.roots], catalog.load(store), account
        )
        certificate, punch = load_certificate(home), config.chosen_punch
        transport = self._transport or WebRtcTransport(certificate, admits=provider.admits, punch=punch)
        self._host = host = await stack.enter_async_context(Host(identity, transport, welcome=self._welcome))
        keep_runs = config.ray_address is not None if config.keep_runs is None else config.keep_runs
        delegations = await stack.enter_async_context(
            Delegations(
                partial(outgoing_client, config, identity),
                provider,
                str(identity.peer_id),
                seal=vault.digest,
                chain_of=self._chain_of,
                folder=home / "delegated",
                store=store,
                clock=clock,
                room_of=ledger.share_of,
            )
        )
        ledger.count(lambda: delegations.taken, "delegated")
        runs = Runs(
            store,
            outputs,
            executor,
            new_id=new_id,
            clock=clock,
            settings=RunSettings(
                max_live=config.max_live,
                max_live_each=config.max_live_each,
                max_runs=config.max_runs,
                grace_s=config.adopt_s,
                keep_runs=keep_runs,
                max_events=config.max_events,
                max_event_bytes=config.max_event_bytes,
                versions={**versions(), "node": self._name},
            ),
            files=uploads.files,
            asking=Asking(
                {"memory": memories.answer, "delegate": delegations.answer, "imports": imports_said},
                [memories.ended, delegations.ended],
            ),
            vault=vault,
            spare=has_spare_memory,
        )
        self._runs = runs
        runs.listen(log_run)
        locks = Locks(store, runs, catalog.judge, catalog.faults)
        named = partial(targets_of, home, config.webhooks, config.apprise, private=config.webhooks_private)
        source = Source(str(identity.peer_id), self._name, frozenset(config.notices))
        webhooks = Webhooks(store, source, await asyncio.to_thread(named), clock, random.random)
        await stack.enter_async_context(webhooks)
        self.waits_for = "runs that went on without the node"
        await stack.enter_async_context(runs)
        locks.start()
        launcher = Launcher(catalog, uploads, runs)
        schedules = await stack.enter_async_context(
            Schedules(store, runs, launcher, catalog, provider, clock, self._name, new_id)
        )
        uploads.keep(schedules.files)
        invitations = Invitations(store, provider, clock, self._name, new_id)
        manager = Manager(
            store,
            runs,
            outputs,
            retention_s=config.retention_s,
            unread_s=config.keep_unread_s,
            housekeeping_s=config.housekeeping_s,
            forget=partial(memories.forget, "short"),
            besides=memories.short,
            more=[
                cleanup.Uploaded(uploads, lambda: [uid for live in runs.live.values() for uid in live.uploads]),
                log_chore(config, executor),
                cleanup.Runners(executor, config.keep_warm_s),
                cleanup.Memory(memories, lambda: runs.live, lambda: [flow.path for flow in catalog.flows]),
            ],
        )
        # It refuses in threads too.
        ledger.tell(partial(asyncio.get_running_loop().call_soon_threadsafe, manager.housekeeping.hurry))
        manager.start()
        meter = LoadMeter(executor, home, waiting=lambda: runs.queue.waiting)
        if config.registry:
            for cut in listed(catalog.flows).cuts:
                logger.warning("registries: %s", cut)
        announcer = Announcer(
            identity,
            config.registry,
            said=lambda: Said(self._name, addresses_told(host), listed(catalog.flows).records),
            ping=meter.ping,
            next_seq=lambda: store.count("record"),
            clock=clock,
            chance=random.random,
            goodbyes=goodbyes,
            met=lambda record: self._twins.listed(record.addrs) if self._twins is not None else None,
        )
        facts = NodeFacts(self._name, str(identity.peer_id), installed_version(), clock.now_ms(), announcer.state)
        facts.webhooks, facts.ledger = webhooks, ledger
        service = Service(
            facts, provider, catalog, store, feed, runs, locks, outputs, uploads, clock, meter.read, manager,
            Shares(store, clock, new_id), host.addresses,
            memories, launcher, schedules, invitations, tables, config.contents_for, config.access_s / 2,
        )  # fmt: skip
        self._service = service
        self._watch.begin(facts, runs, service, meter, lambda: len(host.sessions), ledger)
        host.handle(CALL_PROTOCOL, CallServer(service, service.admit))
        if config.lan or config.registry:
            find = partial(addresses_of, identity.peer_id, config.registry, lan=config.lan)
            dial = partial(reached, partial(outgoing_client, config, identity))
            self._twins = facts.twins = await stack.enter_async_context(Twins(find, host.all_addresses, dial, clock))
        self.waits_for = "its port"
        await self._listen(host, home)
        await stack.enter_async_context(announcer)
        stack.callback(on_networks_changed(announcer.look_again))
        # Attached to no relay where nobody who comes through one is answered.
        urls = config.registry if provider.admits(None) else ()
        await stack.enter_async_context(Relays(identity, urls, host, announcer.taken, announcer.look_again, clock))
        if config.scope is not None:
            watch = CodeWatch(
                code,
                lambda: catalog.seen,
                clock,
                partial(self._reload, catalog, store, executor, code) if config.reload else None,
                keeps=all(flow.code for flow in catalog.flows),
            )
            await stack.enter_async_context(running(watch.run()))
        if config.lan:
            after = self._twins.found if self._twins is not None else None
            await stack.enter_async_context(advertised(self._advertisement, after))
        self._watch.ready(outputs, runs)

    async def _open_executor(
        self,
        stack: contextlib.AsyncExitStack,
        identity: Identity,
        roots: list[Path],
        loading: Awaitable[None],
        account: Account | None,
    ) -> Executor:
        """Return what runs the flows, started; which one that is, the flows may decide, once they are loaded."""
        config, catalog = self.config, self._catalog
        assert catalog is not None
        executor = self._executor
        chosen = config.chosen_executor
        if executor is None and chosen != "ray" and account is None:
            from kodo.node.executors.process.executor import ProcessExecutor

            executor = processes = ProcessExecutor(
                config.home,
                roots=roots,
                preload=catalog.warmed,
                runners=config.runners,
                stays=config.outlive,
            )
            stack.push_async_callback(processes.aclose)
            processes.begin()  # meanwhile the flows are described
        await loading
        needs_ray = any(flow.needs_ray and flow.error is None for flow in catalog.flows)
        on_ray = chosen == "ray" or (chosen == "auto" and needs_ray)
        if self._executor is None and account is not None:
            executor = apart_executor(config, identity, roots, catalog, account, on_ray=on_ray)
        elif self._executor is None and on_ray:
            if executor is not None:
                await executor.aclose()
            where = f"to be joined at {config.ray_address}" if config.ray_address else "to start"
            self.waits_for = f"Ray {where}"
            executor = ray_executor(config, identity, roots, catalog, self._scope.files)
        assert executor is not None
        stack.push_async_callback(executor.aclose)
        await executor.start()
        return executor

    async def _welcome(self, session: Session) -> None:
        if self._twins is not None:
            self._twins.greeted(session)
        if self._service is not None:
            await self._service.admit(session)

    def _chain_of(self, fid: str) -> list[dict[str, str]]:
        live = self._runs.live.get(fid) if self._runs is not None else None
        chain = live.view.flow.get("chain") if live is not None else None
        return [dict(link) for link in chain] if isinstance(chain, list) else []

    def _read_scope(self) -> list[Path]:
        """Read the scope file and settle the name; give the folders that the scope's flows are imported from."""
        config = self.config
        roots: list[Path] = []
        if config.scope is not None:
            self._scope = load_scope(config.scope)
            roots = self._scope.import_roots(config.scope.resolve().parent)
        tell_strays([*roots, *config.roots])
        self._roots = roots
        self._name = config.name or self._scope.name or default_name()
        return roots

    async def _reload(self, catalog: Catalog, store: Store, executor: Executor, code: ScopeCode) -> list[str]:
        """Describe the flows anew, offer them, and have processes ready for them."""
        assert self.config.scope is not None
        self._scope = scope = await asyncio.to_thread(load_scope, self.config.scope)
        self._roots = await asyncio.to_thread(scope.import_roots, self.config.scope.resolve().parent)
        await asyncio.to_thread(self._watch_code, code)
        specs, folders = [*scope.flows, *self.config.entries], [*self._roots, *self.config.roots]
        faults = await catalog.reload(store, specs, scope, folders)
        executor.refresh()
        live = self._runs.live.values() if self._runs is not None else ()
        await asyncio.to_thread(code.forget, {each.code for each in [*catalog.flows, *live]})
        return faults

    def _watch_code(self, code: ScopeCode) -> None:
        """Name the folders with the code of flows, and what stands beside it. Reads files."""
        file, roots = self.config.scope, [*packages_below(self._roots), *self.config.roots]
        code.watch(roots, [file, *self._scope.files_beside(file.resolve().parent)] if file is not None else [])

    def _make_catalog(self, scope_roots: list[Path], account: Account | None, code: ScopeCode | None) -> Catalog:
        config = self.config
        base = scope_roots[0] if scope_roots else Path.cwd()
        return Catalog(
            [*self._scope.flows, *config.entries],
            scope=self._scope,
            roots=[*scope_roots, *config.roots],
            base=base,
            has_ray=config.chosen_executor != "process" or self._executor is not None,
            describe=self._describe,
            account=account,
            code=code,
        )

    async def _listen(self, host: Host, home: Path) -> None:
        port = self.config.port or last_port(home)
        try:
            addresses = await host.listen(self.config.host, port)
        except UsageError:
            if self.config.port:
                raise
            addresses = await host.listen(self.config.host, 0)
        if addresses:
            remember_port(home, addresses[0].port)

    def _advertisement(self) -> Advertisement:
        working = sum(flow.error is None for flow in self.flows)
        return Advertisement(self.peer_id, self._name, working, tuple(self.addresses))


def _new_id(clock: Clock) -> str:
    return make_id(clock.now_ms(), os.urandom(10))
