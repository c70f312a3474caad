"""The secrets of runs, where this node keeps any: stored before their run is, erased when it is over."""

from __future__ import annotations

import logging
from typing import Any

from kodo.node.runs.launch import disk_full
from kodo.node.runs.live import LiveRun
from kodo.node.runs.vault import INPUTS, Vault
from kodo.node.store.rows import digest_of
from kodo.p2p.errors import CapacityError, IntegrityError, UsageError
from kodo.protocol.secrets import Secrets, masked

__all__ = ["RunSecrets"]

logger = logging.getLogger(__name__)


class RunSecrets:
    """What belongs in the place of each `MASK` in the inputs and answers of runs.

    Args:
        vault: keeps them; None: this node takes no secrets.
    """

    def __init__(self, vault: Vault | None):
        self.vault = vault

    def digest(self, value: Any, secrets: Secrets) -> bytes:
        """Return what an idempotency key is kept with; of secrets it tells nothing.

        Raises:
            ValueError: it is not plain data.
        """
        if not secrets:
            return digest_of(value)
        if self.vault is None:
            raise UsageError("this node keeps no secrets")
        return self.vault.digest([value, secrets])

    async def put(self, fid: str, secrets: Secrets) -> None:
        """Keep the secrets of a run before it is stored: so it has them also after a crash in between.

        Raises:
            CallError: 507 `disk-full`.
        """
        if secrets and self.vault is not None:
            try:
                await self.vault.put(fid, INPUTS, secrets)
            except CapacityError as error:
                raise disk_full(error) from None

    async def of(self, live: LiveRun) -> Secrets:
        """Return what belongs in the place of each `MASK` in a run's inputs.

        Raises:
            IntegrityError: it is not there, or cannot be read.
        """
        if not masked(live.view.inputs) or self.vault is None:
            return []
        found = await self.vault.get(live.fid, INPUTS)
        if not found:
            raise IntegrityError("the secrets of this run are gone: start it again")
        return found

    async def forget(self, fid: str, name: str | None = None) -> None:
        """Erase the secrets of a run that is over, or was never stored; with `name` those of one answer alone.

        What cannot be erased is reported in the log, and erased with the node's next start.
        """
        if self.vault is None or not self.vault.has(fid):
            return
        try:
            await (self.vault.erase(fid) if name is None else self.vault.drop(fid, name))
        except Exception as error:
            logger.error("run %s: its secrets are erased with the node's next start: %s", fid, error)
