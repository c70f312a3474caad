"""Warm runners: processes that are ready before there is a run for them, and are replaced as they are taken."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kodo.flow._runtime.event_socket import EVENTS_VARIABLE, fits
from kodo.flow._runtime.kept_code import CODE
from kodo.node.executors.ray.connection import RayLink
from kodo.node.executors.ray.package import place_name
from kodo.node.executors.runner.imports import split_group
from kodo.node.executors.runner.storage import FOLDER, GIVEN
from kodo.node.executors.runner.telemetry import silenced
from kodo.node.executors.runner_calls import CALL_TIMEOUT
from kodo.node.executors.warm_plan import BLANK, WarmPlan
from kodo.p2p.errors import KodoError, UsageError
from kodo.p2p.net.turns import for_nobody

__all__ = ["NAME_PREFIX", "StaleLinkError", "Warm", "WarmPool"]

logger = logging.getLogger(__name__)

NAME_PREFIX = "runner-"

SETUP_TIMEOUT = 300
"""Seconds that making a flow's own `runtime_env` may take, unless its `config` says otherwise."""

REFILL_SECONDS = 0.1
"""How long after a run has begun its runner is replaced when no other one is ready."""

UNHURRIED_SECONDS = 0.5
"""The same when another one is."""


class StaleLinkError(KodoError):
    """The link is to a head that is there no more; another one answers at its address."""


@dataclass(slots=True)
class Warm:
    """A runner without a run, and what awaits its imports; `pid` is what it then says of its process."""

    name: str
    link: RayLink
    handle: Any
    ready: Future[Any]
    group: str = BLANK
    born: float = field(default_factory=time.monotonic)
    pid: object = None
    machine: str | None = None


class WarmPool:
    """Keeps runners warm as a `WarmPlan` says, on the link that `use` gave last.

    Args:
        preload: gives the entries of the flows for which runners are made ready.
        folders: where each runner of this machine has a folder; None: they are on other machines.

    Attributes:
        made: the names of the runners that this pool has made, until they are known to have ended.
    """

    def __init__(
        self,
        namespace: str,
        roots: Sequence[Path],
        preload: Callable[[], Sequence[str]],
        folders: Path | None,
        wanted: int,
    ):
        self._namespace = namespace
        self._roots = roots
        self._plan = WarmPlan(wanted, preload)
        self._folders = folders
        self._coming: list[str] = []  # the groups of runners that are being made
        self._warm: deque[Warm] = deque()
        self.made: set[str] = set()
        self._link: RayLink | None = None
        self._group: asyncio.TaskGroup | None = None

    def __len__(self) -> int:
        return len(self._warm)

    def __iter__(self) -> Iterator[Warm]:
        return iter(self._warm)

    @property
    def ready(self) -> int:
        """How many have done their imports."""
        return sum(warm.ready.done() for warm in self._warm)

    @property
    def settled(self) -> bool:
        """Whether none is being made just now."""
        return not self._coming

    async def use(self, link: RayLink, group: asyncio.TaskGroup) -> None:
        """Start warm runners on a link, not waiting until they are ready; `group` gets the tasks of later ones."""
        self._link, self._group = link, group
        for wanted in self._plan.missing(warm.group for warm in self._warm):
            try:
                self._warm.append(await self.spawn(link, {}, wanted))
            except KodoError as error:
                logger.error("no runner could be warmed: %s", error)
                return

    def forget(self) -> None:
        """Forget the link and its runners: their Ray has died."""
        self._link = None
        self._warm.clear()

    def close(self) -> None:
        """End all warm runners, and make no more."""
        self._link = None
        for warm in self._warm:
            warm.link.kill(warm.handle)
        self._warm.clear()

    def scale(self, wanted: int) -> None:
        """Keep so many from now on."""
        self._plan.wanted = wanted
        self.refresh()

    def refresh(self) -> None:
        """Replace runners of code that is offered no more."""
        for group in self._plan.surplus(warm.group for warm in self._warm):
            warm = next(each for each in self._warm if each.group == group)
            self._warm.remove(warm)
            warm.link.kill(warm.handle)
        self.refill()

    def give_up(self, group: str) -> None:
        """Make no more runners ready for a group; those that there are end."""
        self._plan.give_up(group)
        for warm in [each for each in self._warm if each.group == group]:
            self._warm.remove(warm)
            warm.link.kill(warm.handle)
        self.refill()

    async def spawn(self, link: RayLink, options: Mapping[str, Any], group: str = BLANK) -> Warm:
        """Ask Ray for a runner of a group; returns before it is ready.

        Raises:
            RunnerDiedError: Ray is gone.
            KodoError: Ray refused.
        """
        from ray.exceptions import AuthenticationError, RayError

        from kodo.node.executors.ray.actor import RunnerActor
        from kodo.node.executors.runner.service import kodo_version

        name = NAME_PREFIX + secrets.token_hex(8)
        module, code = split_group(group)
        self.made.add(name)
        local = self._folders is not None
        given: Mapping[str, Any] = options.get("runtime_env") or {}
        if given:
            given = {"config": {"setup_timeout_seconds": SETUP_TIMEOUT}, **given}
        variables = {
            **silenced(os.environ),
            **(given.get("env_vars") or {}),
            # Unlike for every runner: so the workers of its Ray tasks, which inherit it, are never shared.
            "KODO_RUNNER": name,
            "KODO_NAMESPACE": self._namespace,
            "KODO_VERSION": kodo_version(),
            "KODO_ROOTS": json.dumps([str(root) for root in self._roots] if local else []),
            "KODO_PACKAGES": json.dumps([] if local else [place_name(number) for number in range(len(self._roots))]),
            GIVEN: json.dumps(sorted(given.get("env_vars") or {})),
            "RAY_USAGE_STATS_ENABLED": "0",
            **({CODE: code} if code and local else {}),
        }
        folder = self._folders / name if self._folders is not None else None
        if folder is not None:
            variables[FOLDER] = str(folder)
        if folder is not None and fits(folder / "events"):
            variables[EVENTS_VARIABLE] = str(folder / "events")  # for Ray tasks; the flow has it from its runner

        def ask() -> Warm:
            handle = (
                link.actor_class(RunnerActor)
                .options(
                    **{"num_cpus": 0, **options, "runtime_env": {**given, "env_vars": variables}},
                    name=name,
                    lifetime="detached",
                    max_restarts=0,
                    max_task_retries=0,
                    max_concurrency=64,
                )
                .remote([f"{module}:"] if module else [], str(folder) if folder else None)
            )
            return Warm(name, link, handle, handle.ready.remote().future(), group)

        try:
            return await link.block(ask, CALL_TIMEOUT, "Ray did not take a new runner")
        except AuthenticationError as error:
            raise StaleLinkError("the head of the Ray cluster was restarted and is not joined again yet") from error
        except RayError as error:
            raise KodoError(f"Ray did not take a new runner: {type(error).__name__}") from error
        except (TypeError, ValueError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise UsageError(f"Ray cannot take the flow's resources or runtime_env: {first[:500]}") from error

    def refill_soon(self) -> None:
        """Replace what was taken, in a moment: a process that starts takes CPU from the run that just begins."""
        asyncio.get_running_loop().call_later(UNHURRIED_SECONDS if self.ready else REFILL_SECONDS, self.refill)

    def refill(self) -> None:
        """Begin to make as many as are missing."""
        link, group = self._link, self._group
        if link is None or group is None:
            return
        for wanted in self._plan.missing([*(warm.group for warm in self._warm), *self._coming]):
            self._coming.append(wanted)
            group.create_task(self._add(link, wanted), context=for_nobody())

    async def _add(self, link: RayLink, wanted: str) -> None:
        try:
            warm = await self.spawn(link, {}, wanted)
        except KodoError as error:
            logger.warning("a runner could not be warmed: %s", error)
        else:
            if self._link is not link or link.lost or not self._plan.wanted:
                link.kill(warm.handle)
            else:
                self._warm.append(warm)
        finally:
            self._coming.remove(wanted)

    def spare(self, names: Collection[str], warm_s: float) -> list[str]:
        """Return the warm ones that are not among `names`, those that live, or are warm for `warm_s` seconds."""
        before = time.monotonic() - warm_s
        return [
            warm.name for warm in self._warm if warm.ready.done() and (warm.name not in names or warm.born < before)
        ]

    def dismiss(self, name: str) -> bool:
        """End a warm one, and replace it; say whether there is one of that name."""
        for warm in list(self._warm):
            if warm.name == name:
                self._warm.remove(warm)
                warm.link.kill(warm.handle)
                self.made.discard(name)
                self.refill()
                return True
        return False

    def take(self, group: str) -> Warm | None:
        """Take a warm runner for a run of a group: its own, else one for any flow; None: there is none.

        One that is ready is taken first; one of the group that is not yet has begun to import what the run needs.
        """
        self._plan.use(group)
        for wanted in dict.fromkeys((group, BLANK)):
            fitting = [warm for warm in self._warm if warm.group == wanted]
            if fitting:
                taken = next((warm for warm in fitting if warm.ready.done()), fitting[0])
                self._warm.remove(taken)
                return taken
        return None
