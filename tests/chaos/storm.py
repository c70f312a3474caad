"""A node whose parts are killed, stopped, starved and set to other times while it is used; then everything is judged.

    while faults are left:  strike ─► (often) strike again ─► what must be over is over ─► a launch is taken ─► …
    every so often:         the users come to rest ─► judge each run ─► clean up ─► nothing is left

All that happens is drawn from one seed; when it happens is the machine's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kodo.client import Client
from kodo.p2p.errors import CallError, DeadlineError, NetworkError
from tests.chaos.walkers import Walk, Walkers, judge
from tests.support.koco import NodeProcess, end_all, processes_of
from tests.support.small_disk import fill

__all__ = ["FAULTS", "Storm", "StormPlan"]

FAULTS = ("node", "burst", "runner", "warm", "raylet", "gcs_server", "stop", "clock", "disk")
"""kill -9 of the node; of the node while launches are on their way; of a runner with a run; of one without; of the
raylet; of the GCS; SIGSTOP of the node for a while; the clock set to another time; no room on disk for a while."""

EXCUSES = {"raylet": "ray", "gcs_server": "ray", "disk": "disk"}
"""What a strike may have ended, besides the runs that it names."""

RUNNERS = 2
"""Processes that are kept ready for the module that was used last."""
WARM = RUNNERS + 1
"""And one for each other module of the scope."""


@dataclass(frozen=True)
class StormPlan:
    """What a storm is made of.

    Attributes:
        faults: the kinds, in the order given when `shuffled` is false.
        count: how many strikes.
        users: runs under way at once.
        stop_s: for how long a node is stopped.
        long_stop_s: for how long, one time in ten.
        rest_every: strikes between two rests.
        back_s: seconds in which what a fault ended is over, and a launch is taken again; it is over after twice that.
        haste: what pauses between strikes, and before answers, are multiplied with.
        weights: of the kinds.
    """

    faults: tuple[str, ...] = FAULTS
    count: int = 9
    users: int = 4
    stop_s: float = 2.0
    long_stop_s: float = 60.0
    rest_every: int = 40
    shuffled: bool = True
    haste: float = 1.0
    back_s: float = 30.0
    weights: Mapping[str, float] = field(default_factory=dict)


class Storm:
    """One node with a home of its own, and its users.

    Args:
        home: `$KODO_HOME`; a small file system of its own when the disk is to be filled.
        aside: a folder elsewhere.
    """

    def __init__(self, home: Path, aside: Path, seed: int, plan: StormPlan, say: Callable[[str], None] = print):
        self.home, self.aside, self.plan, self.say = home, aside, plan, say
        self.chance = random.Random(seed)
        self.seed = seed
        self.struck: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.taken: list[float] = []
        self.back: list[float] = []
        self.refused_full = 0
        self._number = 0
        self.judged = 0
        self.skew = aside / "skew"
        self.skew.write_text("0")
        self.running: NodeProcess | None = None
        self.walkers: Walkers

    async def rage(self) -> None:
        """Do it all; afterwards `walkers.wrong` is empty, or the node is at fault."""
        self.running = await asyncio.to_thread(self._start)
        try:
            async with Client(self.home, lan=False, registries=[], timeout=20.0) as client:
                address, marks = self.running.address, self.aside / "marks"
                self.walkers = Walkers(client, address, marks, self.aside, self.seed, self._say_and_why)
                left = self.plan.count
                while left > 0:
                    strikes = min(left, self.plan.rest_every)
                    await self._weather(strikes)
                    left -= strikes
                    await self._rest()
            code = await asyncio.to_thread(self.running.stop)
            if code:
                self.walkers.complain("the node did not stop in order", str(code))
            if remains := processes_of(self.home):
                self.walkers.complain("processes outlive the node", str(remains))
        finally:
            if self.running.process.poll() is None:
                self.running.kill()
            end_all(self.home)

    def _say_and_why(self, text: str) -> None:
        assert self.running is not None
        self.say("\n    ".join([text, *(line.rstrip() for line in self.running.stderr[-30:])]))

    # --- the weather ---

    async def _weather(self, strikes: int) -> None:
        calm = asyncio.Event()
        users = asyncio.create_task(self.walkers.keep(self.plan.users, calm, haste=self.plan.haste))
        try:
            while strikes:
                await asyncio.sleep(self.chance.random() * 2 * self.plan.haste)
                kinds = [self._draw()]
                if strikes > 1 and self.plan.shuffled and self.chance.random() < 0.25:
                    kinds.append(self._draw())
                strikes -= len(kinds)
                await self._strike(kinds)
        finally:
            calm.set()
            await users

    def _draw(self) -> str:
        if not self.plan.shuffled:
            return self.plan.faults[sum(self.struck.values()) % len(self.plan.faults)]
        weights = [self.plan.weights.get(kind, 1.0) for kind in self.plan.faults]
        return self.chance.choices(self.plan.faults, weights)[0]

    async def _strike(self, kinds: list[str]) -> None:
        victims: list[Walk] = []
        name = "+".join(kinds)
        before = set(self.walkers.unfinished)
        started = self.walkers.starts()
        faults = {
            "node": self._kill_node,
            "burst": self._kill_node_in_burst,
            "runner": self._kill_runner,
            "warm": self._kill_warm,
            "raylet": self._kill_part,
            "gcs_server": self._kill_part,
            "stop": self._stop_node,
            "clock": self._set_clock,
            "disk": self._fill_disk,
        }
        self.walkers.weather |= {EXCUSES[kind] for kind in kinds if kind in EXCUSES}
        for walk in before:
            walk.excuses |= self.walkers.weather
        for kind in kinds:
            self.struck[kind] += 1
            victims += await faults[kind](kind)
        begin = time.monotonic()
        assert self.running is not None
        if self.running.process.poll() is not None:
            await asyncio.sleep(self.chance.random())
            self.running = await asyncio.to_thread(self._start_again)
        await self._probe(name, begin)
        if {"raylet", "gcs_server"} & set(kinds):
            victims += [walk for walk in before if walk.name in started]
        await self._see_over(name, victims, begin)
        self.walkers.weather.clear()

    async def _probe(self, name: str, begin: float) -> None:
        """See a launch taken in time, and carried out once those before it are."""
        inputs = {"marks": str(self.aside / "probes"), "steps": 1}
        walkers = self.walkers
        taken = 0.0
        while True:
            self._number += 1
            probe = f"probe-{self._number}"

            async def launch(probe: str = probe) -> Any:
                return await walkers.client.launch(
                    "story.walk", node=walkers.address, inputs={**inputs, "name": probe}, key=probe
                )

            run = await walkers.insist(launch)
            taken = taken or time.monotonic() - begin
            view = await run.wait()
            took = time.monotonic() - begin
            if view.final is not None or took > 4 * self.plan.back_s:
                break
            # Ray died under it, perhaps.
            walkers.done["probe again"] += 1
        self.taken.append(taken)
        self.back.append(took)
        # Those who use the node meanwhile have runs before it in the queue.
        if taken > self.plan.back_s or took > 2 * self.plan.back_s:
            load = os.getloadavg()[0]
            walkers.complain(
                "no launch in time", f"{name}: taken after {taken:.1f} s, over {took:.1f} s; load {load:.0f}"
            )

    async def _see_over(self, name: str, victims: list[Walk], begin: float) -> None:
        until = begin + self.plan.back_s
        while any(walk.over_at is None for walk in victims):
            if time.monotonic() > until:
                for walk in victims:
                    if walk.over_at is None:
                        self.walkers.complain("not over in time", f"{name}: {walk.name} {walk.fid}")
                return
            await asyncio.sleep(0.1)

    # --- strikes: each gives the runs that it has ended ---

    async def _kill_node(self, kind: str) -> list[Walk]:
        assert self.running is not None
        if self.running.process.poll() is None:
            await asyncio.to_thread(self.running.kill)
        return []

    async def _kill_node_in_burst(self, kind: str) -> list[Walk]:
        for _ in range(5):
            self.walkers.go(steps=3, may_kill=False)
        await asyncio.sleep(self.chance.random() * 0.2)
        return await self._kill_node(kind)

    async def _kill_runner(self, kind: str) -> list[Walk]:
        starts = self.walkers.starts()
        walking = [walk for walk in self.walkers.unfinished if walk.name in starts and walk.fid]
        if not walking:
            return await self._kill_warm(kind)
        walk = self.chance.choice(walking)
        walk.excuses.add("runner")
        pid = starts[walk.name][-1]
        with contextlib.suppress(psutil.Error):
            if "RunnerActor" in " ".join(psutil.Process(pid).cmdline()):
                os.kill(pid, signal.SIGKILL)
        return [walk]

    async def _kill_warm(self, kind: str) -> list[Walk]:
        busy = {pid for pids in self.walkers.starts().values() for pid in pids}
        warm = [process for process in self._actors() if process.pid not in busy]
        if warm:
            victim = self.chance.choice(warm)
            # Until the node knows of its death it may still be given a run.
            self.walkers.weather.add("runner")
            # It may have been given a run just now: then that run's first mark names it.
            before = set(self.walkers.unfinished)
            with contextlib.suppress(psutil.Error):
                victim.kill()
            starts = self.walkers.starts()
            for walk in before | set(self.walkers.unfinished):
                if victim.pid in starts.get(walk.name, ()) or walk.name not in starts:
                    walk.excuses.add("runner")
        return []

    async def _kill_part(self, kind: str) -> list[Walk]:
        with contextlib.suppress(OSError, ValueError, KeyError, StopIteration, psutil.Error):
            record = json.loads((self.home / "ray" / "cluster.json").read_text())
            pid, created = next((pid, created) for pid, created, part in record["processes"] if part == kind)
            process = psutil.Process(pid)
            if abs(process.create_time() - created) < 1:
                process.kill()
        return []

    async def _stop_node(self, kind: str) -> list[Walk]:
        assert self.running is not None
        if self.running.process.poll() is None:
            self.running.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(self.plan.stop_s if self.chance.random() < 0.9 else self.plan.long_stop_s)
            self.running.process.send_signal(signal.SIGCONT)
        return []

    async def _set_clock(self, kind: str) -> list[Walk]:
        new = self.skew.with_suffix(".new")
        new.write_text(str(self.chance.randint(-7_200_000, 7_200_000)))
        new.replace(self.skew)
        return []

    async def _fill_disk(self, kind: str) -> list[Walk]:
        ballast = self.home / "ballast"

        until = time.monotonic() + 1.0 + self.chance.random() * 3
        try:
            while time.monotonic() < until:
                await asyncio.to_thread(fill, ballast)
                await self._see_refused()
                await asyncio.sleep(0.2)
        finally:
            ballast.unlink(missing_ok=True)
        return []

    async def _see_refused(self) -> None:
        """With the disk full a launch is refused, and says so."""
        walkers = self.walkers
        inputs = {"name": "refused", "marks": str(self.aside / "refused"), "steps": 1}
        try:
            await walkers.client.launch("story.walk", node=walkers.address, inputs=inputs)
            walkers.complain("launched on a full disk", "")
        except CallError as error:
            if error.code == 507:
                self.refused_full += 1
            elif error.code not in (429, 503):
                walkers.complain(f"a full disk gives {error.code}", str(error))
        except (NetworkError, DeadlineError):
            pass  # the node is away, by another fault

    # --- rest ---

    async def _rest(self) -> None:
        """Let everybody come home, judge, clean up, see that nothing is left."""
        walkers = self.walkers
        await walkers.rest(240.0)
        starts = walkers.starts()
        for walk in walkers.walks:
            end = await judge(walkers, walk, starts)
            self.ends[end] += 1
            self.judged += 1
            if walk.run is not None and end != "?":
                with contextlib.suppress(CallError):  # deleted already, by a call whose answer was lost
                    await walkers.insist(walk.run.delete)
        walkers.walks.clear()
        remote = await walkers.client.node(walkers.address)
        for run in await walkers.insist(lambda: walkers.client.runs(walkers.address)):
            if run["state"] in ("done", "error"):
                with contextlib.suppress(CallError):
                    await walkers.insist(lambda fid=run["fid"]: remote.request("run.delete", {"fid": fid}))  # type: ignore[misc]
            else:
                walkers.complain("a run that nobody knows goes on", str(run))
        await walkers.insist(lambda: remote.request("cleanup.run", {}, timeout=60.0))
        until = time.monotonic() + self.plan.back_s
        while remains := self._remains():
            if time.monotonic() > until:
                for what, about in remains:
                    walkers.complain(what, about)
                break
            await asyncio.sleep(0.5)
        self.say(
            f"{sum(self.struck.values())} faults {dict(sorted(self.struck.items()))}, {self.judged} runs"
            f" {dict(sorted(self.ends.items()))}, wrong {dict(walkers.wrong)}"
        )

    def _actors(self) -> list[psutil.Process]:
        found = []
        for process in processes_of(self.home):
            with contextlib.suppress(psutil.Error):
                if "RunnerActor" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def _remains(self) -> list[tuple[str, str]]:
        """Find what should not be there when nothing runs."""
        remains = []
        actors = self._actors()
        if len(actors) != WARM:
            remains.append(("orphan actors", f"{len(actors)} runners, {WARM} are kept"))
        for process in processes_of(self.home):
            with contextlib.suppress(psutil.Error):
                if process.name() == "sleep":
                    remains.append(("orphan processes", str(process)))
        for folder, kept in (("outputs", 0), ("outputs/.part", 0), ("uploads", 0), ("ray/runs", WARM)):
            place = self.home / folder
            names = [each.name for each in place.iterdir() if each.name != ".part"] if place.exists() else []
            if len(names) > kept:
                remains.append((f"orphan files in {folder}", str(names[:5])))
        return remains

    def _start(self) -> NodeProcess:
        program = (sys.executable, "-m", "tests.chaos.skewed_koco")
        root = str(Path(__file__).resolve().parents[2])
        more = {"KODO_TEST_SKEW": str(self.skew), "PYTHONPATH": root, "KODO_RUNNERS": str(RUNNERS)}
        return NodeProcess(self.home, program=program, **more)

    def _start_again(self) -> NodeProcess:
        for _ in range(5):
            try:
                return self._start()
            except AssertionError as error:
                self.walkers.complain("the node did not start", str(error)[-2000:])
        return self._start()
