"""The machines of a Ray cluster that was joined: which there are, which is lost, and whether its head is another.

Ray itself takes up to a minute to notice that a machine is gone, and a driver whose head was restarted is never told.
So each machine is knocked at, and the head is asked by a connection of its own: those of the driver belong to the
cluster that it joined, and some of Ray's calls end the whole process when another one answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kodo.p2p.errors import UnreachableError, UsageError

__all__ = [
    "KNOCK_SECONDS",
    "LOST_AFTER_S",
    "ClusterView",
    "Machine",
    "Machines",
    "check_token",
    "explain",
    "knock",
    "knock_at",
    "look",
]

LOST_AFTER_S = 10.0
"""Seconds of silence after which a machine that had answered before is lost."""
KNOCK_SECONDS = 3.0
"""How long a machine has to answer a knock."""
_ASK_S = 5.0
_TOKEN = (
    "set RAY_AUTH_MODE=token, and the cluster's token by RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or in ~/.ray/auth_token"
)


class Machine(NamedTuple):
    """One machine: Ray's id of its raylet, its name, address, the raylet's port, and what it has by Ray's names."""

    id: str
    name: str
    address: str
    port: int
    has: Mapping[str, float]

    def __str__(self) -> str:
        return f"{self.name} ({self.address})" if self.name != self.address else self.address


class ClusterView(NamedTuple):
    """What a head says: the id of its cluster, which is another after a restart, and the machines that are alive."""

    cluster_id: str
    machines: tuple[Machine, ...]


def look(address: str) -> ClusterView:
    """Ask a head, by a connection of its own; blocks.

    Raises:
        UnreachableError: it does not answer, or demands a token.
    """
    check_token(os.environ)
    knock(address)
    try:
        raylet: Any = importlib.import_module("ray._raylet")
        client = raylet.GcsClient(address=address)
        cluster_id = client.cluster_id.hex()
        told = client.get_all_node_info(timeout=_ASK_S)
    except Exception as error:  # a foreign library's whole range
        raise UnreachableError(f"Ray at {address} does not answer: {explain(error)}") from error
    alive = [
        Machine(
            key.hex(),
            str(info.node_manager_hostname or info.node_manager_address),
            str(info.node_manager_address),
            int(info.node_manager_port),
            dict(info.resources_total),
        )
        for key, info in told.items()
        if info.state == 0  # ALIVE
    ]
    return ClusterView(cluster_id, tuple(alive))


def check_token(environment: Mapping[str, str]) -> None:
    """Make sure that there is a token where Ray is told to use one: without, it ends the whole process.

    Raises:
        UsageError: there is none.
    """
    if environment.get("RAY_AUTH_MODE", "").lower() != "token" or environment.get("RAY_AUTH_TOKEN"):
        return
    home = environment.get("HOME") or os.path.expanduser("~")
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path(home, ".ray", "auth_token"))
    try:
        if path.read_text(encoding="utf-8").strip():
            return
    except (OSError, UnicodeError):
        pass
    raise UsageError(f"RAY_AUTH_MODE is token, and there is no token; {_TOKEN}")


def explain(error: BaseException) -> str:
    """Return what an error of Ray means for whoever joins: a wrong or missing token, or its first line."""
    text = str(error) or type(error).__name__
    if type(error).__name__ == "AuthenticationError" or "nauthenticated" in text or "uthentication token" in text:
        return f"it demands another token than it was given; {_TOKEN}"
    return text.splitlines()[0][:300]


def knock(address: str) -> None:
    """Make sure that something listens at `host:port`: Ray itself would try for minutes. Blocks.

    Raises:
        UnreachableError: nothing does.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()
    except OSError as error:
        raise UnreachableError(f"no Ray listens at {address!r}; give the head's host:port: {error}") from error


@dataclass(slots=True)
class _Known:
    machine: Machine
    answered: bool = False
    silent_since: float | None = None


@dataclass(slots=True)
class Machines:
    """The machines as they were seen last. Times are those of the caller's clock, seconds."""

    _known: dict[str, _Known] = field(default_factory=dict)

    @property
    def here(self) -> list[Machine]:
        """Those that are there."""
        return [known.machine for known in self._known.values()]

    def get(self, machine_id: str | None) -> Machine | None:
        """Return the machine with this id, if it is there."""
        known = self._known.get(machine_id or "")
        return None if known is None else known.machine

    def update(self, machines: Iterable[Machine]) -> tuple[list[Machine], list[Machine]]:
        """Take what the head says; return the machines that are new, and those that have left."""
        now = {machine.id: machine for machine in machines}
        new = [machine for key, machine in now.items() if key not in self._known]
        left = [known.machine for key, known in self._known.items() if key not in now]
        self._known = {key: self._known.get(key) or _Known(machine) for key, machine in now.items()}
        for key, machine in now.items():
            self._known[key].machine = machine
        return new, left

    def heard(self, answers: Mapping[str, bool], now: float) -> list[Machine]:
        """Take which machines answered a knock; return those that are lost, which are not known from then on.

        A machine that has never answered stands behind something that lets nobody knock: nothing follows from it.
        """
        lost = []
        for key, answered in answers.items():
            known = self._known.get(key)
            if known is None:
                continue
            if answered:
                known.answered, known.silent_since = True, None
            elif known.answered:
                known.silent_since = now if known.silent_since is None else known.silent_since
                if now - known.silent_since >= LOST_AFTER_S:
                    lost.append(known.machine)
        return lost

    def lacking(self, asked: Mapping[str, float]) -> str:
        """Return what of `asked`, by Ray's names, no machine has; empty when one has it all."""
        wanted = {name: amount for name, amount in asked.items() if amount}
        if any(all(machine.has.get(name, 0) >= amount for name, amount in wanted.items()) for machine in self.here):
            return ""
        words = []
        for name, amount in wanted.items():
            most = max((machine.has.get(name, 0) for machine in self.here), default=0)
            if most < amount:
                words.append(f"{amount:g} {name} (the most that one has is {most:g})")
        together = " and ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        return ", ".join(words) or f"{together} together"


async def knock_at(machines: Iterable[Machine]) -> dict[str, bool]:
    """Knock at the raylets of machines, at all of them at once; return by id whether each answered."""

    async def one(machine: Machine) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(KNOCK_SECONDS):
                _, writer = await asyncio.open_connection(machine.address, machine.port)
                writer.close()
                return True
        return False

    listed = list(machines)
    return dict(zip((each.id for each in listed), await asyncio.gather(*map(one, listed)), strict=True))
