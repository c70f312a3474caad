"""A Ray cluster that somebody else runs: what travels to it, its machines, and what happens when one is lost.

The flows' sources travel once, when the cluster is joined. From then on the head and the machines are looked at every
few seconds: a head that was restarted is joined again, and runs of a machine that is lost are told to be over; what
they had there is removed when it comes back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from kodo.flow._runtime.kept_code import kept_sources
from kodo.flow._runtime.projects import GRAPHS, has_environment
from kodo.node.executors.ray.connection import RayLink, prepare
from kodo.node.executors.ray.machines import KNOCK_SECONDS, LOST_AFTER_S, Machine, Machines, knock_at, look
from kodo.node.executors.ray.on_machine import clear_up, versions
from kodo.node.executors.ray.package import gather, stage
from kodo.p2p.errors import KodoError, UsageError

__all__ = ["LOOK_SECONDS", "TOLD_WITHIN_S", "JoinedCluster"]

logger = logging.getLogger(__name__)

LOOK_SECONDS = 3.0
"""How often the head and the machines are looked at."""
TOLD_WITHIN_S = LOOK_SECONDS + LOST_AFTER_S + LOOK_SECONDS + KNOCK_SECONDS
"""Seconds in which a silent machine is told of at the latest, however its silence and the knocks coincide."""
_LOOK_TIMEOUT = 10.0
_TASK_TIMEOUT = 60.0
"""Seconds in which a machine must do what it is asked: starting a process of its own included."""
_MAX_LEFT = 1000
"""Runners whose machines are away, and of which it is remembered that something may be left there."""


class _Placed(Protocol):
    """A runner, and the id of its machine."""

    name: str
    handle: Any
    machine: str | None


class JoinedCluster:
    """What a node knows of the cluster that it joined.

    Args:
        home: the node's home.
        address: of the head, `host:port`.
        roots: folders that flows are imported from, resolved.
        entries: gives what the catalogue offers; see `gather`.
        files: patterns of further files that travel.
        wait_s: how long a run waits for a machine that has what its flow asks for.
        knock: tells which machines answer.
        code: gives the file with the sources as they were when the flows were described; empty: none is kept.
    """

    def __init__(
        self,
        home: Path,
        address: str,
        roots: Sequence[Path],
        entries: Callable[[], Sequence[str]],
        files: Sequence[str],
        wait_s: float = 0.0,
        *,
        knock: Callable[[Iterable[Machine]], Awaitable[dict[str, bool]]] = knock_at,
        code: Callable[[], str] = str,
    ):
        self.address = address
        self._knock = knock
        self._home = home
        self._roots = list(roots)
        self._entries = entries
        self._files = list(files)
        self._code = code
        self._places: list[Path] | None = None
        self._wait_s = wait_s
        self._cluster_id = ""
        self._machines = Machines()
        self._left: dict[str, list[str]] = {}
        """By address of a machine that is away: runners of which something may be left there."""
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, namespace: str) -> RayLink:
        """Connect, with the sources as they were when the flows were described; blocks.

        Raises:
            UnreachableError: the cluster does not answer, or demands another token.
            UsageError, CapacityError: the sources cannot travel.
        """
        prepare(self.address)
        view = look(self.address)
        if self._places is None:  # one that is joined anew gets what it had: the forms are the same
            self._places = self._pack()
        link = RayLink.join(self.address, namespace, self._places)
        self._cluster_id = view.cluster_id
        self._machines = Machines()
        self._machines.update(view.machines)
        return link

    def _pack(self) -> list[Path]:
        """Copy what travels; return a folder for each root."""
        kept = kept_sources(self._code())
        package = gather(self._roots, self._entries(), self._files, not_in=self._home, kept=kept)
        for (_, name), size in sorted(package.files.items(), key=lambda item: item[0][1]):
            logger.debug("to the Ray cluster travels %s, %d bytes", name, size)
        for name in package.kept_back:
            logger.debug("kept back, as it may be a secret or leads elsewhere: %s", name)
        logger.info(
            "to the Ray cluster at %s travel %d files, %d bytes%s (--verbose lists them)",
            self.address,
            len(package.files),
            package.bytes,
            f"; {len(package.kept_back)} are kept back" if package.kept_back else "",
        )
        for root in filter(has_environment, self._roots):
            logger.warning(
                "the variables of `env` in %s do not travel to the Ray cluster: set them on its machines, or by "
                "`runtime_env` of the flow",
                root / GRAPHS,
            )
        return stage(package, self._roots, self._home / "ray" / "sent", kept)

    def begin(self, link: RayLink) -> None:
        """Look at the machines of a cluster that was just joined, in the background."""
        self._meet(link, self._machines.here)

    async def watch(
        self,
        link: Callable[[], RayLink | None],
        placed: Callable[[], Iterable[_Placed]],
        drop: Callable[[str], Any],
        again: Callable[[], Any],
    ) -> None:
        """Look at the cluster for ever.

        Args:
            link: gives the connection now.
            placed: gives the runners that there are.
            drop: forgets a warm runner, by its name.
            again: joins the cluster anew, after its head was restarted.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_head(link, placed, drop, again))
            tasks.create_task(self._watch_machines(link, placed, drop))

    async def _watch_head(
        self,
        link: Callable[[], RayLink | None],
        placed: Callable[[], Iterable[_Placed]],
        drop: Callable[[str], Any],
        again: Callable[[], Any],
    ) -> None:
        """Take up which machines the head knows, and join it anew once it is another."""
        answers = True
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = link()
            if now is None or now.lost:
                continue
            try:
                view = await now.block(lambda: look(self.address), _LOOK_TIMEOUT, "the head of Ray did not answer")
            except KodoError as error:
                if answers:
                    logger.warning("%s; runs that have begun go on meanwhile", error)
                answers = False
                continue
            if not answers:
                logger.info("the head of Ray at %s answers again", self.address)
            answers = True
            if view.cluster_id != self._cluster_id:
                await again()
                continue
            new, gone = self._machines.update(view.machines)
            self._meet(now, new)
            for machine in gone:
                self._lose(now, machine, "has left the Ray cluster", placed(), drop)

    async def _watch_machines(
        self,
        link: Callable[[], RayLink | None],
        placed: Callable[[], Iterable[_Placed]],
        drop: Callable[[str], Any],
    ) -> None:
        """Knock at the machines, however long the head takes to answer, so that `TOLD_WITHIN_S` holds."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = link()
            if now is None or now.lost:
                continue
            began = loop.time()
            heard = await self._knock(self._machines.here)
            for machine in self._machines.heard(heard, began):
                self._lose(now, machine, "does not answer any more", placed(), drop)

    async def check(self, asked: Mapping[str, float]) -> None:
        """Make sure that a machine has what a flow asks for, by Ray's names; wait for one as long as was chosen.

        Raises:
            UsageError: none has it.
        """
        deadline = asyncio.get_running_loop().time() + self._wait_s
        told = False
        while lacking := self._machines.lacking(asked):
            if asyncio.get_running_loop().time() >= deadline:
                waited = f" after {self._wait_s:g} s" if self._wait_s else ""
                raise UsageError(f"no machine of the Ray cluster has {lacking}{waited}")
            if not told:
                logger.warning("a run waits up to %g s: no machine of the Ray cluster has %s", self._wait_s, lacking)
                told = True
            await asyncio.sleep(min(1.0, self._wait_s))

    async def fate(self, runner: _Placed) -> str | None:
        """Return why a runner is gone, where that is its machine's doing: it is knocked at once more."""
        machine = self._machines.get(runner.machine)
        if machine is None:
            return None
        if (await self._knock([machine]))[machine.id]:
            return None
        return f"the machine {machine}, which ran the flow, does not answer any more"

    def leave(self) -> None:
        """Stop what goes on in the background."""
        for task in self._tasks:
            task.cancel()

    def _lose(
        self, link: RayLink, machine: Machine, how: str, placed: Iterable[_Placed], drop: Callable[[str], Any]
    ) -> None:
        mine = [runner for runner in placed if runner.machine == machine.id]
        logger.error("the machine %s %s; runs that are lost with it: %d", machine, how, len(mine))
        for runner in mine:
            link.lose_one(runner.name, f"the machine {machine}, which ran the flow, {how}")
            link.kill(runner.handle)
            drop(runner.name)
        if sum(map(len, self._left.values())) < _MAX_LEFT:
            self._left.setdefault(machine.address, []).extend(runner.name for runner in mine)
        rest = [each for each in self._machines.here if each.id != machine.id]
        self._machines.update(rest)

    def _meet(self, link: RayLink, machines: Iterable[Machine]) -> None:
        for machine in machines:
            task = asyncio.get_running_loop().create_task(self._look_at(link, machine))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _look_at(self, link: RayLink, machine: Machine) -> None:
        """Clear up what was left on a machine that has come, and tell when flows cannot run there."""
        self._machines.heard(await self._knock([machine]), asyncio.get_running_loop().time())
        try:
            left = self._left.pop(machine.address, None)
            if left:
                await self._do(link, machine, clear_up, left)
                logger.info("the machine %s is back; what %d runs had there is removed", machine, len(left))
            told, own = await self._do(link, machine, versions), versions()
        except KodoError as error:
            logger.warning("the machine %s of the Ray cluster cannot run flows: %s", machine, error)
            return
        if told != own:
            theirs, ours = (
                f"Python {each.get('python')} and kodo {each.get('kodo')}"
                for each in (told if isinstance(told, dict) else {}, own)
            )
            logger.warning(
                "the machine %s of the Ray cluster has %s, this node %s: install the same, or runs there fail",
                machine,
                theirs,
                ours,
            )

    async def _do(self, link: RayLink, machine: Machine, work: Callable[..., Any], *args: Any) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        def ask() -> Any:
            task = link.ray.remote(work).options(
                num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(machine.id, soft=False)
            )
            return task.remote(*args)

        return await link.ask(ask, _TASK_TIMEOUT, "it started no process for kodo")
