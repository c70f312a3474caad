"""Those who use a node while its parts fail, and the judge of what it did: each run that they launched is one `Walk`.

They launch (with keys, often twice at once), follow from several places, answer locks once and again, kill, download.
What they saw is held against the node's log when all is over, see `judge`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from kodo.client import Client, Run
from kodo.p2p.errors import CallError, DeadlineError, KodoError, NetworkError
from kodo.protocol.events import Event, RunState

__all__ = ["Walk", "Walkers", "judge"]

T = TypeVar("T")

INSIST_SECONDS = 180.0
RESTING = (429, 503, 507)
"""Refusals that say: later."""


@dataclass(eq=False)
class Walk:
    """One run, as its user knows it.

    Attributes:
        seen: what a follower was shown, by seq.
        answers: what was given to its lock.
        killed: the node said that it was killed by its user.
        excuses: faults that may have ended it: `runner`, `ray`, `disk`.
        over_at: `time.monotonic()` when its follower came to its end.
    """

    name: str
    steps: int
    asks: bool
    size: int
    fid: str = ""
    run: Run | None = None
    seen: dict[int, Event] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    killed: bool = False
    excuses: set[str] = field(default_factory=set)
    over_at: float | None = None
    downloaded: bool = False


class Walkers:
    """Users of one node; `wrong` counts what must not be, and says the first of each.

    Args:
        client: dials the node at `address`.
        marks: the file in which each start of a flow leaves a line: name and process id.
        seed: of what they do.
        say: is told of each thing that must not be, when it is found.
    """

    def __init__(
        self, client: Client, address: str, marks: Path, folder: Path, seed: int, say: Callable[[str], None] = print
    ):
        self.client = client
        self.say = say
        self.address = address
        self.marks = marks
        self.folder = folder
        self.chance = random.Random(seed)
        self.walks: list[Walk] = []
        self.weather: set[str] = set()
        self.wrong: Counter[str] = Counter()
        self.first: dict[str, str] = {}
        self.done: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._flow: Any = None

    def complain(self, what: str, about: str) -> None:
        """Count something that must not be."""
        self.wrong[what] += 1
        self.first.setdefault(what, about)
        self.say(f"{time.strftime('%H:%M:%S')} WRONG {what}: {about}")

    @property
    def unfinished(self) -> list[Walk]:
        """Runs whose end no follower has seen."""
        return [walk for walk in self.walks if walk.over_at is None]

    def starts(self) -> dict[str, list[int]]:
        """Give, by name, the processes in which the walk was started."""
        found: dict[str, list[int]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self.marks.read_text().splitlines():
                name, _, pid = line.rpartition(" ")
                found.setdefault(name, []).append(int(pid))
        return found

    def go(self, **options: Any) -> Walk:
        """Begin one more walk."""
        chance = self.chance
        self._number += 1
        steps = int(options.get("steps", chance.randint(1, 60)))
        asks = bool(options.get("asks", chance.random() < 0.3))
        size = int(options.get("size", chance.choice([0, 0, 0, 1000, 3_000_000])))
        walk = Walk(f"walk-{self._number}", steps, asks, size, excuses=set(self.weather))
        self.walks.append(walk)
        inputs = {
            "name": walk.name,
            "marks": str(self.marks),
            "steps": steps,
            "pause_ms": options.get("pause_ms", chance.choice([0, 5, 20, 100])),
            "ask_at": chance.randrange(steps) if asks else -1,
            "size": size,
            "child": chance.random() < 0.1,
        }
        plan = {
            "twice": chance.random() < 0.2,
            "kill_at": chance.randint(1, steps + 3) if options.get("may_kill", True) and chance.random() < 0.1 else 0,
            "answer_after": chance.choice([0.0, 0.0, 0.5, 5.0, 20.0]) * float(options.get("haste", 1.0)),
            "second": chance.random() < 0.3,
        }
        self._spawn(self._walk(walk, inputs, plan))
        return walk

    async def keep(self, count: int, until: asyncio.Event, **options: Any) -> None:
        """Have `count` walks under way until told to stop."""
        while not until.is_set():
            while len(self._tasks) < count:
                self.go(**options)
            await asyncio.sleep(0.05)

    async def rest(self, seconds: float) -> None:
        """Wait until nobody walks any more."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for walk in self.unfinished:
            self.complain("never over", f"{walk.name} {walk.fid}")

    async def insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until there is an answer that is not of the moment."""
        until = time.monotonic() + INSIST_SECONDS
        while True:
            try:
                return await ask()
            except (NetworkError, DeadlineError, TimeoutError) as error:
                lost: Exception = error
            except CallError as error:
                if error.code not in RESTING and error.reason != "no-verdict":
                    raise
                self.done[f"told {error.code} {error.reason}"] += 1
                lost = error
            if time.monotonic() > until:
                raise lost
            await asyncio.sleep(0.2)

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _walk(self, walk: Walk, inputs: dict[str, Any], plan: dict[str, Any]) -> None:
        try:
            await self._go_through(walk, inputs, plan)
        except KodoError as error:
            self.complain(f"a walk was cut: {type(error).__name__}", f"{walk.name} {walk.fid}: {error}")
            walk.over_at = walk.over_at or time.monotonic()

    async def _go_through(self, walk: Walk, inputs: dict[str, Any], plan: dict[str, Any]) -> None:
        key = f"key-{walk.name}"
        if self._flow is None:
            self._flow = await self.insist(lambda: self.client.find_flow("story.walk", node=self.address))

        async def launch() -> Run:
            return await self.client.launch(self._flow, inputs=inputs, key=key)

        launches = [asyncio.create_task(self.insist(launch)) for _ in range(1 + plan["twice"])]
        runs = await asyncio.gather(*launches)
        if len({run.fid for run in runs}) != 1:
            self.complain("one key made two runs", f"{walk.name}: {[run.fid for run in runs]}")
        walk.run = run = runs[0]
        walk.fid = run.fid
        self.done["launched"] += 1
        if plan["second"]:
            self._spawn(self._look(walk))
        aside: set[asyncio.Task[None]] = set()
        try:
            async with aclosing(run.follow(patience=INSIST_SECONDS)) as events:
                async for event in events:
                    self._note(walk, event)
                    if event.event == "lock":
                        aside.add(asyncio.create_task(self._answer(walk, event.data["lid"], plan["answer_after"])))
                    if event.seq == plan["kill_at"] + 3 and plan["kill_at"]:
                        aside.add(asyncio.create_task(self._kill(walk)))
            walk.over_at = time.monotonic()
        finally:
            for task in aside:
                if walk.over_at is None:
                    task.cancel()
            if aside:
                await asyncio.wait(aside)
        if walk.size and any(event.event == "output" for event in walk.seen.values()):
            await self._download(walk)

    def _note(self, walk: Walk, event: Event) -> None:
        known = walk.seen.setdefault(event.seq, event)
        if known != event:
            self.complain("an event came twice, and different", f"{walk.name} {walk.fid} {known} {event}")

    async def _look(self, walk: Walk) -> None:
        """Follow from somewhere, for a while, again and again."""
        assert walk.run is not None
        other = Run(walk.fid, walk.run._remote, patience=INSIST_SECONDS)
        while walk.over_at is None:
            after = self.chance.randrange(len(walk.seen) + 1)
            count, last = self.chance.randint(1, 50), after
            with contextlib.suppress(CallError):  # deleted meanwhile
                async with aclosing(other.follow(after)) as events:
                    async for event in events:
                        if event.seq != last + 1:
                            self.complain("a follower was shown a gap", f"{walk.name}: {last} then {event.seq}")
                        last = event.seq
                        self._note(walk, event)
                        count -= 1
                        if not count:
                            break
            await asyncio.sleep(0.1)

    async def _answer(self, walk: Walk, lid: str, after: float) -> None:
        await asyncio.sleep(after)
        run = walk.run
        assert run is not None
        for attempt in range(1000):
            words = f"answer {attempt}"
            walk.answers.append(words)
            try:
                await self.insist(partial(run.answer, lid, {"approved": True, "why": words}))
            except CallError as error:
                if error.reason == "busy":
                    await asyncio.sleep(0.1)
                    continue
                if error.code not in (404, 410):
                    self.complain(f"an answer was refused: {error.code} {error.reason}", f"{walk.name}: {error}")
            else:
                self.done["answered"] += 1
            break
        # Once more: it must be open no more.
        try:
            await self.insist(partial(run.answer, lid, {"approved": False, "why": "late"}))
            self.complain("a lock was answered twice", walk.name)
        except CallError as error:
            if error.code not in (404, 410):
                self.complain(f"a late answer: {error.code} {error.reason}", f"{walk.name}: {error}")

    async def _kill(self, walk: Walk) -> None:
        assert walk.run is not None
        try:
            await self.insist(walk.run.kill)
            walk.killed = True
            self.done["killed"] += 1
        except CallError as error:
            if error.reason != "bad-state":
                self.complain(f"a kill was refused: {error.code} {error.reason}", f"{walk.name}: {error}")

    async def _download(self, walk: Walk) -> None:
        assert walk.run is not None
        run, to = walk.run, self.folder / walk.name

        async def fetch() -> None:
            await run.download(to, overwrite=True, keep=True)

        await self.insist(fetch)
        content = (to / f"{walk.name}.bin").read_bytes()
        name = walk.name.encode()
        if content != name * (walk.size // len(name)):
            self.complain("a download was another", walk.name)
        walk.downloaded = True
        self.done["downloaded"] += 1


async def judge(walkers: Walkers, walk: Walk, starts: dict[str, list[int]]) -> str:
    """Hold what was seen of a run against its log; give how it ended: `done`, or the type of its `fatal`."""
    complain = walkers.complain
    run = walk.run
    started = len(starts.get(walk.name, ()))
    if started > 1:
        complain("started twice", f"{walk.name} {walk.fid}: {started} times")
    if run is None:
        return "never launched"

    async def whole() -> list[Event]:
        async with aclosing(run.follow(live=False)) as events:
            return [event async for event in events]

    log = await walkers.insist(whole)
    state = await walkers.insist(run.state)
    about = f"{walk.name} {walk.fid}"
    if [event.seq for event in log] != list(range(1, len(log) + 1)):
        complain("a gap in the log", about)
    if [event.at for event in log] != sorted(event.at for event in log):
        complain("time falls in the log", about)
    kept = {event.seq: event for event in log}
    for seq, event in walk.seen.items():
        if seq not in kept:
            complain("an event was lost", f"{about}: {event}")
        elif kept[seq] != event:
            complain("an event became another", f"{about}: {event} {kept[seq]}")
    names = [event.event for event in log]
    numbers = [event.data["number"] for event in log if event.event == "result"]
    if numbers != list(range(len(numbers))):
        complain("results doubled, lost or out of order", f"{about}: {numbers}")
    ends = [event for event in log if event.event in ("final", "fatal")]
    if len(ends) != 1:
        complain("not one end", f"{about}: {[event.event for event in ends]}")
        return "?"
    end = ends[0]
    expected = RunState.DONE if end.event == "final" else RunState.ERROR
    if state["state"] != expected.value or (state["locks"] and end.event == "final"):
        complain("its state is not its log's", f"{about}: {state['state']} {end.event}")
    unlocked = [event.data["lid"] for event in log if event.event == "unlock"]
    if len(unlocked) != len(set(unlocked)):
        complain("a lock was opened twice", about)
    if end.event == "final":
        _judge_final(walkers, walk, log, end, started)
        return "done"
    kind = str(end.data.get("type"))
    told = f"{about}: {kind}: {end.data.get('message')} {end.data.get('traceback')}; excuses {sorted(walk.excuses)}"
    if kind == "Killed":
        if names.count("kill") != 1:
            complain("killed without a kill", told)
    elif kind == "RunnerDied":
        if not walk.excuses & {"runner", "ray"}:
            complain("a runner died that nobody ended", told)
    elif "disk" not in walk.excuses:
        complain(f"a run ended with {kind}", told)
    return kind


def _judge_final(walkers: Walkers, walk: Walk, log: list[Event], end: Event, started: int) -> None:
    complain, about = walkers.complain, f"{walk.name} {walk.fid}"
    numbers = [event.data["number"] for event in log if event.event == "result"]
    if walk.killed:
        complain("a killed run is done", about)
    if started != 1:
        complain("done without one start", f"{about}: {started}")
    if len(numbers) != walk.steps:
        complain("results are missing", f"{about}: {len(numbers)} of {walk.steps}")
    if walk.asks:
        given = [event.data["answer"]["why"] for event in log if event.event == "unlock"]
        if given != [end.data["result"]] or given[0] not in walk.answers:
            complain("the flow got another answer", f"{about}: {given} {end.data['result']} {walk.answers}")
    if walk.size and not walk.downloaded:
        complain("its output could not be had", about)
