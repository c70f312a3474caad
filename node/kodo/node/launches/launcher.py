"""A launch, whoever asks for it: may they, do the inputs fit, are their files here."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgpack

from kodo.node.catalog.catalog import Catalog, Flow
from kodo.node.files.uploads import Uploads
from kodo.node.runs.launch import Order, too_large
from kodo.node.runs.runs import Runs
from kodo.node.store.rows import check_packed
from kodo.node.store.transaction import Transaction
from kodo.p2p.errors import CallError
from kodo.protocol.access import Principal
from kodo.protocol.events import RunState
from kodo.protocol.secrets import MAX_SECRET_BYTES, Secrets, hide

__all__ = ["Launcher"]


class Launcher:
    """Checks and starts runs of the flows of a catalog."""

    def __init__(self, catalog: Catalog, uploads: Uploads, runs: Runs):
        self._catalog = catalog
        self._uploads = uploads
        self._runs = runs

    async def start(
        self,
        principal: Principal,
        payer: str,
        flow: Flow,
        inputs: dict[str, Any],
        *,
        tags: tuple[str, ...] = (),
        key: str | None = None,
        strict: bool = False,
        again: Sequence[str] = (),
        about: Mapping[str, Any] | None = None,
        also: Callable[[sqlite3.Connection, str], None] | None = None,
        then: Callable[[Transaction, str], None] | None = None,
    ) -> tuple[str, RunState]:
        """Launch a flow; give the run's fid and state.

        Args:
            payer: against whose bounds the run counts.
            strict: whether required inputs that are missing are refused.
            again: inputs to ask for, besides required ones that are missing.
            about: further data of the run's `flow` event.
            also, then: see `Order`.

        Raises:
            CallError: 400 `bad-inputs`, 403 `not-granted`, and what `Runs.launch` refuses with.
        """
        shown, secrets, demand = await self.check(principal, payer, flow, inputs, strict=strict, again=again)
        order = Order(
            principal=principal.id,
            path=flow.path,
            name=flow.name,
            entry=flow.entry,
            inputs=shown,
            secrets=secrets,
            resources=flow.resources,
            about={**flow.about(), **(about or {})},
            tags=tags,
            key=key,
            demand=demand,
            payer=payer,
            code=flow.code,
            limit=flow.limits.concurrent_runs,
            check=partial(self._catalog.check_by_author, flow, inputs, payer)
            if flow.has_check and demand is None
            else None,
            also=also,
            then=then,
        )
        return await self._runs.launch(order)

    async def check(
        self,
        principal: Principal,
        payer: str,
        flow: Flow,
        inputs: dict[str, Any],
        *,
        strict: bool = False,
        again: Sequence[str] = (),
    ) -> tuple[dict[str, Any], Secrets, dict[str, Any] | None]:
        """Check a launch only; give the inputs without secrets, the secrets, and what is to be asked for.

        Raises:
            CallError: as `start`, but for what the node has no room for.
        """
        if principal.flow_grant(flow.path, "x") is None:
            raise CallError(403, "not-granted", f"you may see {flow.path}, but not run it")
        try:
            check_packed(inputs)
        except ValueError as error:
            raise too_large(error) from None
        judge = self._catalog.judge
        demand = await flow.demand(inputs, judge, payer, again, strict=strict)
        shown, secrets = await judge.do(partial(hide, flow.schema, inputs), payer)
        if len(msgpack.packb(secrets)) > MAX_SECRET_BYTES:
            raise CallError(413, "too-large", f"secrets may have at most {MAX_SECRET_BYTES} bytes in all")
        self._uploads.check(principal.id, flow.schema, inputs)
        return shown, secrets, demand
