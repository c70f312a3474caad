"""A user beside strangers: how long what it does takes alone, beside idle work, and beside all attacks at once.

    koco up [--auth local] · koco registry · a node with users · a user ─► alone ─► beside strangers
    the same anew                                        ─► beside processes that spin as much as the strangers did

The strangers have processes of their own, step back for the others' work (`nice`), and have addresses of their own,
for all of this runs in a network of its own. What they cost the machine by their own work is no fault of the node:
the user's times beside them are compared with those beside processes that talk to nobody and need as much of the CPU
as the strangers did, the flows that they launched, and the checks of their passwords.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from kodo.client import Client
from kodo.node.executors.niceness import NICE as FLOWS_NICE
from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.errors import CallError, KodoError
from kodo.p2p.net import udp
from kodo.p2p.net.calls import request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.keystore import load_identity
from kodo.registry.client.client import RegistryClient
from tests.chaos.attacks import ATTACKS, NICE
from tests.chaos.slow_callbacks import LEAST_VARIABLE, VARIABLE, read_slow
from tests.chaos.soak import running_registry
from tests.chaos.users_node import PASSWORD, USERS
from tests.support.koco import NodeProcess, end_all
from tests.support.own_network import HERE, USER
from tests.support.small_disk import small_disk

__all__ = ["AUTHS", "GOAL", "Beside", "beside_strangers"]

AUTHS = ("local", "null")
"""Providers of the attacked node: with `local` its user has an account, with `null` it is one source among others."""

SCOPE = Path(__file__).parent / "scope" / "strangers.yaml"
GOAL = 2.0
"""How many times as long as beside idle work an act of the user's may take, at the 99th percentile."""
PATIENCE_S = 30.0
"""After which an act has failed."""
PAUSE_S = 0.05
LEAD_S = 15.0
"""For how long the attacks are under way before the user is looked at."""
CROWDS = 4
"""Processes of strangers."""
OUTPUT_BYTES = 4 << 20
SMALL_BYTES = 256 << 10
DISK_BYTES = 3 << 30
RESERVE_BYTES = 256 << 20
ROUND = ("call", "call", "search", "call", "connect", "call", "download", "call", "search", "run", "call", "login")
"""What the user does in turn: what is short more often, for the 99th percentile wants many."""
FLOWS, USERS_NODE = "flows", "node with users"
LEAST_BUSY = 0.3
"""How much of a CPU strangers have to get together to be any."""
LOGIN_S = 1.2
"""Between two logins: each device may try every 12 s, and there are ten."""


@dataclass
class Acts:
    """How long each act took, and how it failed.

    Attributes:
        took: seconds, by act.
        spent: seconds that the loops of node and registry computed meanwhile, for whomever: what an act waits for
            there, however busy the machine is with other things.
    """

    took: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    spent: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: Counter[str] = field(default_factory=Counter)

    def at(self, act: str, percent: int, *, spent: bool = False) -> float:
        """Return a percentile, in ms."""
        times = sorted((self.spent if spent else self.took)[act])
        if len(times) < 2:
            return 1000 * sum(times)
        return 1000 * statistics.quantiles(times, n=100, method="inclusive")[percent - 1]


@dataclass
class Beside:
    """What came out.

    Attributes:
        alone, spinning, crowded: the user's acts alone, beside processes that spin, and beside strangers.
        told: what strangers did and how it was refused, by attack.
        most: the most memory and descriptors that the node and the registry had, and the least that was left of the
            disk, MiB.
        busy: how much of a CPU each process of strangers took, then their flows and the node with users.
        spent: how much of a CPU everything else took beside them: the node, the registry, runners, the user …
        slow: what kept the loops for long beside strangers: the party, its name, how often, the longest in ms, where.
    """

    alone: Acts
    spinning: Acts
    crowded: Acts
    told: dict[str, dict[str, int]]
    most: dict[str, int]
    busy: list[float]
    spent: dict[str, float]
    slow: list[tuple[str, str, int, float, str]]

    def ratio(self, act: str, *, spent: bool = False) -> float:
        """Return how many times as long an act takes beside strangers, at the 99th percentile."""
        return self.crowded.at(act, 99, spent=spent) / max(self.spinning.at(act, 99, spent=spent), 0.001)


class _Node(NodeProcess):
    scope = SCOPE

    @property
    def address(self) -> str:
        """The address that is not loopback's."""
        return str(next(each for each in self.ready["addrs"] if each.startswith(f"/ip4/{HERE}/")))


class User:
    """Calls, launches and follows, downloads, searches, logs in, without end."""

    def __init__(self, client: Client, node: str, registry: str, users: str, folder: Path):
        self._client, self._node, self._registry, self._folder = client, node, registry, folder
        self._users = Multiaddr.parse(users)
        self.pids: list[int] = []
        """The processes whose loops are looked at."""
        self._logged_in = 0
        self._next_login = 0.0

    async def sign_up(self, home: Path) -> None:
        """Make an account in the home of a node's operator, and log in to it."""
        async with Host(load_identity(home, "user"), WebRtcTransport()) as operator:
            session = await operator.connect([Multiaddr.parse(self._node)], timeout=PATIENCE_S)
            await request(session, "user.add", {"name": "ana", "password": PASSWORD}, timeout=PATIENCE_S)
        await self._client.login(self._node, name="ana", password=PASSWORD)
        async with _client(self._folder / "again", self._client._open_host().identity) as client:
            await client.login(self._node, name="ana", password=PASSWORD)

    async def prepare(self) -> str:
        """Make what is downloaded, log in once from each device; return a link for strangers."""
        large = await self._client.launch("strangers_flows.make", node=self._node, inputs={"size": OUTPUT_BYTES})
        await large.wait()
        self._small = await self._client.launch("strangers_flows.make", node=self._node, inputs={"size": SMALL_BYTES})
        await self._small.wait()
        for _ in USERS:
            await self.login()
        return str(await large.share())

    async def act_for(self, seconds: float) -> Acts:
        """Do all of it in turn."""
        acts = Acts()
        until = time.monotonic() + seconds
        for name in iter(_endless(ROUND).__next__, None):
            if name == "login" and time.monotonic() < self._next_login:
                continue
            begin, computed = time.monotonic(), _computed(self.pids)
            if begin >= until:
                return acts
            act: Callable[[], Awaitable[None]] = getattr(self, name)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await act()
            except CallError as error:
                acts.failed[f"{name}: {error.code} {error.reason}"] += 1
            except (KodoError, OSError, TimeoutError) as error:
                acts.failed[f"{name}: {type(error).__name__}"] += 1
            acts.took[name].append(time.monotonic() - begin)
            acts.spent[name].append(_computed(self.pids) - computed)
            await asyncio.sleep(PAUSE_S)
        raise AssertionError

    async def call(self) -> None:
        """Ask the node how it is, in a session that is there."""
        await (await self._client.node(self._node)).request("node.state")

    async def connect(self) -> None:
        """Begin a session and ask."""
        async with _client(self._folder / "again", self._client._open_host().identity) as client:
            await (await client.node(self._node)).request("node.state")

    async def run(self) -> None:
        """Launch a short flow and follow it to its end."""
        run = await self._client.launch("strangers_flows.work", node=self._node, inputs={"n": 3})
        view = await run.wait()
        assert view.final is not None, view.fatal

    async def download(self) -> None:
        """Download a small output."""
        await self._small.download(self._folder / "downloads", overwrite=True, keep=True)
        await asyncio.to_thread((self._folder / "downloads" / "made.bin").unlink)

    async def search(self) -> None:
        """Search a registry."""
        async with RegistryClient(self._registry) as registry:
            await registry.flows(search="*work*")

    async def login(self) -> None:
        """Log in by password, as the next of several users, each from its own device."""
        self._next_login = time.monotonic() + LOGIN_S
        self._logged_in = (self._logged_in + 1) % len(USERS)
        device = Identity.from_seed(self._logged_in.to_bytes(32, "big"))
        async with Host(device, WebRtcTransport()) as host:
            session = await host.connect([self._users], timeout=PATIENCE_S)
            args = {"name": USERS[self._logged_in], "password": PASSWORD}
            await request(session, "auth.password", args, timeout=PATIENCE_S)


def _computed(pids: Sequence[int]) -> float:
    """Return the seconds of CPU that the main threads of processes have taken."""
    return sum(int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def _endless(names: Sequence[str]) -> Any:
    while True:
        yield from names


def _client(home: Path, identity: Identity | None = None) -> Client:
    return Client(home, lan=False, registries=[], timeout=PATIENCE_S, identity=identity)


@dataclass(frozen=True)
class _Scene:
    """What is attacked, and its user."""

    user: User
    link: str
    addresses: list[str]
    disk: Path
    pids: dict[str, int]
    slow: dict[str, Path]

    def forget_slow(self) -> None:
        """Begin anew with what keeps the loops for long."""
        for path in self.slow.values():
            path.write_text("")

    def tell_slow(self) -> list[tuple[str, str, int, float, str]]:
        """Return what has kept them for long since."""
        return [(name, *row) for name, path in self.slow.items() for row in read_slow(path)]


_TRACED = (sys.executable, "-m", "tests.chaos.slow_callbacks")


@contextlib.asynccontextmanager
async def _scene(folder: Path, auth: str) -> AsyncIterator[_Scene]:
    """Start all of it in a folder."""
    async with contextlib.AsyncExitStack() as stack:
        homes = {name: folder / name for name in ("registry", "users", "user")}
        await asyncio.to_thread(folder.mkdir)
        disk = folder / "node"
        stack.enter_context(small_disk(disk, DISK_BYTES))
        for home in (disk, *homes.values()):
            stack.callback(end_all, home)
        least = {LEAST_VARIABLE: os.environ[LEAST_VARIABLE]} if LEAST_VARIABLE in os.environ else {}
        slow = {name: folder / f"slow-{name.replace(' ', '-')}" for name in ("node", "registry", USERS_NODE)}
        registry_pid, registry = await stack.enter_async_context(
            running_registry(
                homes["registry"], "--host", HERE, program=_TRACED, more={VARIABLE: str(slow["registry"]), **least}
            )
        )
        words = ["--host", HERE, "--registry", registry, "--disk-reserve", f"{RESERVE_BYTES >> 20}MiB"]
        words += [] if auth == "null" else ["--auth", auth]
        node = await asyncio.to_thread(_Node, disk, *words, program=_TRACED, **{VARIABLE: str(slow["node"])}, **least)
        stack.callback(node.stop)
        command = [sys.executable, "-m", "tests.chaos.users_node", str(homes["users"]), HERE]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, VARIABLE: str(slow[USERS_NODE])},
        )
        stack.push_async_callback(_end, process)
        assert process.stdout is not None
        users = json.loads(await process.stdout.readline())["address"]
        client = await stack.enter_async_context(_client(homes["user"]))
        user = User(client, node.address, registry, users, homes["user"])
        if auth != "null":
            await user.sign_up(disk)
        link = await user.prepare()
        await user.act_for(5.0)
        pids = {"node": node.process.pid, "registry": registry_pid, USERS_NODE: process.pid}
        user.pids = list(pids.values())
        yield _Scene(user, link, [node.address, registry, users], disk, pids, slow)


async def beside_strangers(
    folder: Path,
    seconds: float,
    attacks: Sequence[str] = (),
    say: Callable[[str], None] = print,
    profile: Callable[[dict[str, int]], None] = lambda pids: None,
    auth: str = AUTHS[0],
) -> Beside:
    """Measure all three for so many seconds, and tell.

    Args:
        auth: the provider of the attacked node, one of `AUTHS`.
        profile: is called with the process ids, by name, once the attacks are under way.
    """
    chosen = list(attacks) or list(ATTACKS)
    # The node dials itself in one of the attacks: that is not to be the user's source.
    udp.unconnected = lambda family: udp.bind(USER, 0)
    most: dict[str, int] = {}
    async with _scene(folder / "first", auth) as scene:
        spent_alone: dict[str, float] = {}
        with _spending(scene.pids, spent_alone):
            alone = await scene.user.act_for(seconds)
        say(f"alone: {sum(map(len, alone.took.values()))} acts")
        strangers = folder / "strangers"
        given = [*scene.addresses, scene.link, str(strangers), str(seconds + LEAD_S)]
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(_watch(scene.pids, scene.disk, most))
            # Several processes: what an attack costs its own is not to slow the others down.
            crowds = [group.create_task(_crowd(given, chosen[each::CROWDS])) for each in range(CROWDS)]
            await asyncio.sleep(LEAD_S)
            profile(scene.pids)
            spent: dict[str, float] = {}
            scene.forget_slow()
            with _spending(scene.pids, spent):
                crowded = await scene.user.act_for(seconds)
            ended = [await crowd for crowd in crowds]
            watching.cancel()
        slow = scene.tell_slow()
    told = {name: counts for found, _ in ended for name, counts in found.items()}
    busy = [share for _, share in ended]
    async with _scene(folder / "second", auth) as scene, asyncio.TaskGroup() as group:
        # What strangers have others do in processes of their own: their flows, and checks of passwords elsewhere.
        busy = [*busy, *(max(spent[name] - spent_alone[name], 0.0) for name in (FLOWS, USERS_NODE))]
        steps = [NICE] * CROWDS + [FLOWS_NICE, 0]
        spinners = [group.create_task(_spin(share, nice)) for share, nice in zip(busy, steps, strict=True)]
        spinning = await scene.user.act_for(seconds)
        for spinner in spinners:
            spinner.cancel()
    result = Beside(alone, spinning, crowded, told, most, busy, spent, slow)
    tell(result, say)
    return result


async def _crowd(given: Sequence[str], attacks: Sequence[str]) -> tuple[dict[str, dict[str, int]], float]:
    """Have a process carry out some attacks; return what became of them, and how much of a CPU it took."""
    if not attacks:
        return {}, 0.0
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.attacks", *given, *attacks),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    busy = 0.0
    try:
        asking = asyncio.ensure_future(process.communicate())
        begin = time.monotonic()
        while not asking.done():
            with contextlib.suppress(psutil.Error):
                spent = psutil.Process(process.pid).cpu_times()
                busy = (spent.user + spent.system) / max(time.monotonic() - begin, 1.0)
            await asyncio.wait([asking], timeout=1.0)
        told, _ = await asking
    finally:
        await _end(process)
    return json.loads(told or b"{}"), busy


async def _spin(share: float, nice: int) -> None:
    """Have a process use so much of a CPU and talk to nobody."""
    busy, idle = 0.02 * min(share, 1.0), 0.02 * max(1.0 - share, 0.0)
    program = (
        "from tests.chaos.attacking import step_back\nimport time\n"
        f"step_back({nice})\nwhile True:\n until = time.thread_time() + {busy}\n"
        f" while time.thread_time() < until: pass\n time.sleep({idle})"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, start_new_session=True)
    try:
        await process.wait()
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


def _spent(pids: dict[str, int]) -> dict[str, float]:
    """Return the seconds of CPU that each has taken, and the flows together."""
    known = {pid: name for name, pid in pids.items()} | {os.getpid(): "user"}
    spent: dict[str, float] = defaultdict(float)
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            title = known.get(process.pid) or (FLOWS if process.name().startswith("ray::Runner") else "")
            spent[title] += times.user + times.system
    return spent


@contextlib.contextmanager
def _spending(pids: dict[str, int], shares: dict[str, float]) -> Iterator[None]:
    """Note how much of a CPU each takes in the block."""
    before, begin = _spent(pids), time.monotonic()
    yield
    took = time.monotonic() - begin
    for name in (*pids, "user", FLOWS):
        shares[name] = max(_spent(pids)[name] - before[name], 0.0) / took


async def _watch(pids: dict[str, int], disk: Path, most: dict[str, int]) -> None:
    """Note the most that processes have, and the least that is left of the disk."""
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    while True:
        for name, process in processes.items():
            with contextlib.suppress(psutil.Error):
                for what, now in (("MiB", process.memory_info().rss >> 20), ("descriptors", process.num_fds())):
                    most[f"{name} {what}"] = max(most.get(f"{name} {what}", 0), now)
        free = shutil.disk_usage(disk).free >> 20
        most["least free MiB"] = min(most.get("least free MiB", free), free)
        await asyncio.sleep(0.2)


def tell(result: Beside, say: Callable[[str], None]) -> None:
    """Print it."""
    kinds = (("alone", result.alone), ("spinning", result.spinning), ("strangers", result.crowded))
    head = " ".join(f"{f'p50 {name}':>13} {f'p99 {name}':>13}" for name, _ in kinds)
    for title, spent in (("ms", False), ("ms of the loops", True)):
        say(f"{title:15} {head} {'p99 ratio':>9}  acts")
        for act in result.alone.took:
            times = " ".join(
                f"{acts.at(act, 50, spent=spent):13.1f} {acts.at(act, 99, spent=spent):13.1f}" for _, acts in kinds
            )
            counts = " ".join(str(len(acts.took[act])) for _, acts in kinds)
            say(f"{act:15} {times} {result.ratio(act, spent=spent):9.1f}  {counts}")
    for name, acts in kinds:
        if acts.failed:
            say(f"failed, {name}: {dict(acts.failed)}")
    if sum(result.busy[:CROWDS]) < LEAST_BUSY:
        say("the machine was too busy with other things: strangers hardly got to do anything")
    say(f"strangers took {', '.join(f'{share:.2f}' for share in result.busy)} of a CPU, by process")
    say("others took " + ", ".join(f"{name} {share:.2f}" for name, share in result.spent.items() if share >= 0.01))
    say(f"the most: {result.most}")
    for party, name, count, longest, seen in result.slow:
        say(f"slow, {party}: {count} x {name}, {longest:.0f} ms of CPU at most{f', in {seen}' if seen else ''}")
    for attack, told in result.told.items():
        say(f"{attack}: {told}")


def profile_by(command: str) -> Callable[[dict[str, int]], None]:
    """Return what begins a profiler for each process: `command` with `{pid}` and `{name}` in it."""

    def begin(pids: dict[str, int]) -> None:
        import shlex
        import subprocess

        for name, pid in pids.items():
            words = [word.format(pid=pid, name=name.replace(" ", "-")) for word in shlex.split(command)]
            subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))

    return begin
