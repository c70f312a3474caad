"""Which path to a peer its dialler takes: what is checked when, which address answers, which is best. Pure.

A check is a STUN binding request. First all addresses are checked at once, and the first that answers carries the
handshake. From then on the path that is taken is checked as often as its silence gives reason to: shortly after
something that was awaited has stopped coming, then ever more rarely, and every `IDLE_SECONDS` while nothing is
awaited. The answer tells from which address our packets arrive; a new one means that a NAT has forgotten us or that
this machine has moved. An address of a better rank replaces the path as soon as it answers, any other one only after
`UNANSWERED` checks in a row went unanswered, or `UNANSWERED_THOUGH_HEARD` of them where something still comes: the
peer may send again and again what it has no acknowledgement of, because nothing of ours arrives.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import Final

from kodo.p2p.core.hosts import is_link_local, is_local, is_loopback

__all__ = [
    "AWAITED_SECONDS",
    "IDLE_SECONDS",
    "LATE_SECONDS",
    "QUIET_SECONDS",
    "UNANSWERED",
    "UNANSWERED_THOUGH_HEARD",
    "Candidate",
    "Change",
    "Network",
    "Paths",
    "Rank",
    "Target",
    "rank_targets",
]

Network = ipaddress.IPv4Interface | ipaddress.IPv6Interface
"""One of this machine's addresses and the network that it is in."""

AWAITED_SECONDS: Final = 2.5
"""Most between two checks while something is awaited."""
IDLE_SECONDS: Final = 10.0
"""Between two checks while nothing is awaited."""
QUIET_SECONDS: Final = 0.2
"""Silence after which a check asks why; each further one waits twice as long."""
UNANSWERED: Final = 2
"""Checks in a row without an answer after which a path that is no better is taken."""
UNANSWERED_THOUGH_HEARD: Final = 6
"""The same where data still comes: it says less than an answer, as it does not show that our packets arrive."""
LATE_SECONDS: Final = 0.1
"""How much later than the others addresses are checked that are probably somebody else's."""
FIRST_RETRY_SECONDS: Final = 0.05
LAST_RETRY_SECONDS: Final = 1.0
OPENING_SECONDS: Final = 0.5
"""Most between two checks through a relay just after the choice: each makes the peer try to open its NAT for us."""
UPGRADE_SECONDS: Final = 4.0
"""How long after the choice better addresses are checked like new ones; then every `IDLE_SECONDS`."""
_LEAST_WAIT, _MOST_WAIT = 0.2, 1.0
"""Bounds of the time that an answer may take, twice the last round trip."""
_LEAST_FIRST_WAIT, _FIRST_ROUND_TRIPS = 0.12, 1.5
"""The same of the first check in a silence: while a router changes, one is easily lost."""


class Rank(IntEnum):
    """How good a path is."""

    STREAMED = -1
    """Through a relay, and to it by a connection: UDP does not get there."""
    RELAYED = 0
    """Through a relay, as the answer to a check tells."""
    PUNCHED = 1
    """Through a NAT that the peer has opened for us; without that it would be as good as none."""
    FAR = 2
    """Through routers."""
    NEAR = 3
    """Within a network that this machine is in, or within the machine."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where packets go.

    Attributes:
        host: IPv4 or IPv6 address.
        port: UDP.
        interface: number of the network interface, for a link-local IPv6 address; else 0.
        connection: number of the connection by which they go to the relay there; 0: they go by UDP.
    """

    host: str
    port: int
    interface: int = 0
    connection: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address that may lead to the peer.

    Attributes:
        target: the address.
        rank: how good the path is.
        late: whether others are checked first: the address is probably that of another machine.
    """

    target: Target
    rank: Rank
    late: bool = False


class Change(Enum):
    """What an answer has changed."""

    NOTHING = 0
    MOVED = 1
    """Another path is taken from now on."""
    REMAPPED = 2
    """The path is the same, and our packets arrive from another address than before."""


def rank_targets(targets: Sequence[Target], networks: Iterable[Network]) -> list[Candidate]:
    """Return how near the addresses of one peer are, the nearest first.

    Private addresses outside of this machine's networks are late: they are mostly those of bridges to containers. So
    are this machine's own addresses where the peer has others too: bridges have the same address on many machines.
    """
    known = list(networks)
    own = {str(network.ip) for network in known}
    elsewhere = any(not is_loopback(target.host) and target.host not in own for target in targets)
    found = []
    for target in targets:
        address = ipaddress.ip_address(target.host)
        near = is_loopback(target.host) or is_link_local(target.host)
        near = near or any(address.version == network.version and address in network.network for network in known)
        late = (not near and is_local(target.host)) or (elsewhere and target.host in own)
        found.append(Candidate(target, Rank.NEAR if near else Rank.FAR, late))
    if all(each.late for each in found):
        found = [replace(each, late=False) for each in found]  # there is nothing to wait for
    return sorted(found, key=lambda each: (each.late, -each.rank, not is_loopback(each.target.host)))


class _Known:
    """What is known of one candidate."""

    __slots__ = ("candidate", "due_at", "early", "refused", "wait")

    def __init__(self, candidate: Candidate, due_at: float) -> None:
        self.candidate = candidate
        self.due_at = due_at
        self.wait = FIRST_RETRY_SECONDS
        self.refused = False
        self.early = False
        """Whether it has answered before it could be taken."""


class Paths:
    """The paths to one peer. The owner sends the checks and tells what came of them.

    Attributes:
        current: the target of the path that is taken; None until one has answered.
        settled: whether a better path may replace the current one; until then the peer could not follow.
        awaiting: whether something is awaited from the peer.
    """

    def __init__(self, candidates: Iterable[Candidate], now: float) -> None:
        self.current: Target | None = None
        self.settled = False
        self.awaiting = True
        self._known: dict[Target, _Known] = {}
        self._mapped: tuple[str, int] | None = None
        self._begun_at = now
        self._chosen_at = now
        self._heard_at = now
        self._asked_at = now
        self._quiet = 0
        """Checks since something was heard."""
        self._unanswered = 0
        """Checks since an answer, or since something was heard."""
        self._unechoed = 0
        """Checks since an answer."""
        self._rtt = 0.0
        for candidate in candidates:
            self.add(candidate, now)

    def add(self, candidate: Candidate, now: float) -> None:
        """Check one more address from now on."""
        due = max(now, self._begun_at + LATE_SECONDS) if candidate.late else now
        self._known.setdefault(candidate.target, _Known(candidate, due))

    def __contains__(self, target: Target) -> bool:
        return target in self._known

    @property
    def targets(self) -> list[Target]:
        """All targets."""
        return list(self._known)

    @property
    def all_refused(self) -> bool:
        """Whether the network says of every address that nobody is there."""
        return all(known.refused for known in self._known.values())

    def rank_of(self, target: Target) -> Rank:
        """Return how good a path is.

        Raises:
            KeyError: the target is none of the candidates.
        """
        return self._known[target].candidate.rank

    # when to check what

    def get_timer(self) -> float | None:
        """When `take_due` has something; None for never."""
        times = [known.due_at for known in self._checked()]
        if self.current is not None:
            times.append(self._current_due())
        return min(times) if times else None

    def take_due(self, now: float) -> list[Target]:
        """Return the targets to check now; each is due again later."""
        due = []
        if self.current is not None and now >= self._current_due():
            self._asked_at = now
            self._quiet += 1
            self._unanswered += 1
            self._unechoed += 1
            due.append(self.current)
        upgrading = self.current is not None and not self.lost and now > self._chosen_at + UPGRADE_SECONDS
        for known in self._checked():
            if now >= known.due_at:
                due.append(known.candidate.target)
                known.due_at = now + (IDLE_SECONDS if upgrading else known.wait)
                known.wait = min(2 * known.wait, LAST_RETRY_SECONDS)
        return due

    def _checked(self) -> list[_Known]:
        """The candidates that are checked beside the current one: all until there is one and while it is lost."""
        current = self.current
        if current is None:
            # Once the network has said that nobody is there, asking again is no use.
            return [known for known in self._known.values() if not known.refused]
        others = [known for target, known in self._known.items() if target != current]
        if self.lost:
            return others
        rank = self._known[current].candidate.rank
        return [known for known in others if known.candidate.rank > rank and not known.candidate.late]

    @property
    def _is_relayed(self) -> bool:
        return self.current is not None and self._known[self.current].candidate.rank is Rank.RELAYED

    @property
    def lost(self) -> bool:
        """Whether the path that is taken answers no more: any other one is as good."""
        return self._unanswered > UNANSWERED or self._unechoed > UNANSWERED_THOUGH_HEARD

    def _current_due(self) -> float:
        if self._unechoed:
            if self._unechoed == 1:
                return self._asked_at + min(max(_FIRST_ROUND_TRIPS * self._rtt, _LEAST_FIRST_WAIT), _MOST_WAIT)
            wait = min(max(2 * self._rtt, _LEAST_WAIT), _MOST_WAIT) * 2.0 ** (min(self._unechoed, 5) - 1)
            return self._asked_at + min(wait, AWAITED_SECONDS)
        if self._asked_at < self._chosen_at + UPGRADE_SECONDS and self._is_relayed:
            return self._asked_at + OPENING_SECONDS
        if not self.awaiting:
            return self._asked_at + IDLE_SECONDS
        quiet = min(QUIET_SECONDS * 2.0 ** min(self._quiet, 5), AWAITED_SECONDS)
        return min(self._asked_at + AWAITED_SECONDS, max(self._heard_at, self._asked_at) + quiet)

    # what came of it

    def settle(self, now: float) -> None:
        """Allow better paths to replace the current one, and check those at once that have answered before."""
        if not self.settled:
            self.settled = True
            for known in self._known.values():
                if known.early:
                    known.due_at = now

    def heard(self, now: float) -> None:
        """Note that something authentic came from the peer over the current path."""
        self._heard_at = now
        self._quiet = self._unanswered = 0

    def answered(
        self, target: Target, mapped: tuple[str, int], now: float, rtt: float, *, relayed: bool = False
    ) -> Change:
        """Take the answer to a check, which tells from where the check arrived, and whether through a relay."""
        known = self._known[target]
        known.refused = False
        if relayed:
            known.candidate = replace(known.candidate, rank=min(known.candidate.rank, Rank.RELAYED))
        if target == self.current:
            self._rtt = rtt
            self._unanswered = self._unechoed = 0
            before, self._mapped = self._mapped, mapped
            if before in (None, mapped):
                return Change.NOTHING
            if self._is_relayed:
                # To the peer this is somebody new, for whom it opens its NAT anew.
                self._chosen_at = now
                self._look_anew(now)
            return Change.REMAPPED
        current = self.current
        if current is not None:
            better = known.candidate.rank > self._known[current].candidate.rank
            known.early = better and not self.settled
            if known.early or not (better or self.lost) or not self.settled:
                return Change.NOTHING
        self.current, self._mapped, self._rtt = target, mapped, rtt
        self._chosen_at = self._asked_at = self._heard_at = now
        self._quiet = self._unanswered = self._unechoed = 0
        self._look_anew(now)
        return Change.MOVED

    def introduced(self, target: Target) -> None:
        """Note that a relay at a target tells where else to ask: it is no path itself."""
        known = self._known[target]
        known.refused = False
        known.candidate = replace(known.candidate, rank=min(known.candidate.rank, Rank.RELAYED))

    def refused(self, target: Target) -> None:
        """Note that the network says that nobody is at a target."""
        known = self._known.get(target)
        if known is not None and not known.refused:
            known.refused = True
            self._hurry()

    def drop(self, target: Target) -> None:
        """Check a target no more: this machine has no way there. It is not the current one."""
        if self._known.pop(target, None) is not None:
            self._hurry()

    def gone(self, target: Target, now: float) -> None:
        """Note that a path has ended, the current one or another, and look for the next one at once if need be."""
        self._known.pop(target, None)
        if target == self.current:
            self.current = self._mapped = None
            self._look_anew(now)

    def _hurry(self) -> None:
        """Check late targets at once where no other is left; only until there is a path, which has its own times."""
        left = [known for known in self._known.values() if not known.refused]
        if self.current is None and all(known.candidate.late for known in left):
            for known in left:
                known.due_at = min(known.due_at, self._begun_at)

    def networks_changed(self, now: float) -> None:
        """Check the current path and better ones at once: this machine's addresses are not those they were."""
        self._asked_at = now - AWAITED_SECONDS - IDLE_SECONDS
        self._unanswered = self._unechoed = 0
        self._chosen_at = now
        self._look_anew(now)

    def _look_anew(self, now: float) -> None:
        for known in self._known.values():
            known.due_at, known.wait = now, FIRST_RETRY_SECONDS
