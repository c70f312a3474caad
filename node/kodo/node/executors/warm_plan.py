"""Which processes are kept ready: each has imported one flow's module and no other, so that no run meets another's.

What a module does when it is imported (it prints, sets variables, changes filters and levels) stays in processes of
its own flows. The module that was asked for last has as many processes as the node keeps ready, each other one has
one, the most recent first; where not all of them are kept, one process that has imported nothing is. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from kodo.node.executors.runner.imports import group_of

__all__ = ["BLANK", "MAX_GROUPS", "WarmPlan"]

MAX_GROUPS = 8
"""Modules for which processes are kept ready."""

BLANK = ""
"""The group of what has imported no flow."""


class WarmPlan:
    """Counts what is missing. A group is a module's name, `BLANK` that of a process for any flow.

    Args:
        wanted: processes to keep ready.
        entries: gives the entries of the flows that may be asked for, at any time.
    """

    def __init__(self, wanted: int, entries: Callable[[], Sequence[str]]):
        self.wanted = wanted
        self._entries = entries
        self._recent: list[str] = []
        self._given_up: set[str] = set()

    def use(self, group: str) -> None:
        """Note that a run of this group begins."""
        if group in self._recent:
            self._recent.remove(group)
        self._recent = [group, *self._recent][:MAX_GROUPS]

    def give_up(self, group: str) -> None:
        """Make no more processes ready for a group whose module cannot be imported ahead of time."""
        self._given_up.add(group)

    def targets(self) -> Counter[str]:
        """Return how many processes of which group there should be, the most urgent group first."""
        if not self.wanted:
            return Counter()
        offered = dict.fromkeys(group_of(entry) for entry in self._entries())
        groups = [group for group in self._recent if group in offered]
        groups += [group for group in offered if group not in groups]
        ready = [group for group in groups if group != BLANK and group not in self._given_up]
        kept = ready[:MAX_GROUPS]
        found = Counter(dict.fromkeys(kept, 1))
        if kept:
            found[kept[0]] = self.wanted
        if len(kept) < len(groups) or not groups:
            found[BLANK] = 1 if kept else self.wanted
        return found

    def missing(self, there: Iterable[str]) -> list[str]:
        """Return the groups of the processes to make, when those of `there` are ready or being made."""
        return list((self.targets() - Counter(there)).elements())

    def surplus(self, there: Iterable[str]) -> list[str]:
        """Return the groups of the processes that are too many."""
        return list((Counter(there) - self.targets()).elements())
