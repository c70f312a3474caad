"""One registry is enough: whoever sits behind whatever NAT runs flows of a node behind another one."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.koco import KOCO, environment
from tests.support.lab import needs_root
from tests.support.lab_page import ORIGIN
from tests.support.nat_lab import REGISTRY, REGISTRY_TOO, Nat, Site, Sites, sites
from tests.support.turn_server import PORT, SECRET

pytestmark = needs_root

URL = f"http://{REGISTRY}:8360"
NODE = "far.example.com"
READY_SECONDS = 60.0
FLOW = '''
import asyncio

from kodo.flow import flow, output, progress


@flow(name="Ticks", author="you@example.com", organization="Example", release="0.1.0")
async def ticks(count: int, size: int = 0) -> str:
    """Tell of progress 20 times a second, and write a file."""
    for number in range(count):
        await progress(100 * number // count, f"tick {number}")
        await asyncio.sleep(0.05)
    if size:
        await output.write("file.bin", bytes(size))
    return "over"
'''


class World:
    """A registry, a node at site b, and a user at site a: each `koco` in a process of its own."""

    def __init__(self, net: Sites, folder: Path) -> None:
        self.net, self.folder = net, folder
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, host: str, *words: str, **more: str) -> None:
        """Start `koco` on a host, and wait until it is ready."""
        process = subprocess.Popen(
            self.net.lab.command(host, KOCO, *words, "--json"),
            env=environment(self.folder / host, KODO_LAN="false", **more),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["ready"] is True

    def user(self, *words: str) -> list[dict[str, Any]]:
        """Run `koco` as the user; return its lines."""
        done = subprocess.run(self._command(*words), **self._settings(), check=False, timeout=READY_SECONDS)
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-4000:])
        return [json.loads(line) for line in done.stdout.splitlines()]

    def run(self, *inputs: str, at: dict[int, Callable[[], None]] | None = None) -> dict[str, Any]:
        """Run the flow as the user, do things after some of its events, and return how it ended."""
        process = subprocess.Popen(
            self._command("run", f"{NODE}/Ticks", *inputs, "--registry", URL), **self._settings(stderr=None)
        )
        with process:
            assert process.stdout is not None
            lines: list[dict[str, Any]] = []
            for line in process.stdout:
                lines.append(json.loads(line))
                if at and len(lines) in at:
                    at[len(lines)]()
        assert process.returncode == 0, lines
        return lines[-1]

    def reached(self, way: str = "") -> dict[str, Any]:
        """Wait until the relay has heard from where the node is now; return what `doctor` says of its ways.

        Args:
            way: also wait until this one answers: the session may have come about just after it was asked.
        """
        deadline = time.monotonic() + READY_SECONDS
        asking = self._command("doctor", "--to", NODE, "--registry", URL)
        while True:
            done = subprocess.run(asking, **self._settings(), check=False, timeout=60)
            if done.returncode == 0:
                told: dict[str, Any] = json.loads(done.stdout)
                if not way or any(each["answered"] and each["address"] == way for each in told["ways"]):
                    return told
            assert time.monotonic() < deadline, done.stdout[-2000:]

    def _command(self, *words: str) -> list[str]:
        return self.net.lab.command("a", KOCO, *words, "--json")

    def _settings(self, **more: Any) -> Any:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
        return {"env": environment(self.folder / "a", KODO_LAN="false"), "cwd": self.folder, **pipes}

    def close(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    (folder / "ticks.py").write_text(FLOW)
    with sites(Nat.SYM, Nat.SYM) as net, contextlib.closing(World(net, folder)) as made:
        turn = {"KODO_TURN": f"turn:{REGISTRY_TOO}:{PORT}?transport=tcp", "KODO_TURN_SECRET": SECRET}
        made.start("registry", "registry", "--host", REGISTRY, "--open", "--origin", ORIGIN, **turn)
        made.start("b", "up", "ticks.py", "--executor", "process", "--name", NODE, "--open", "--registry", URL)
        # Until the record has the relay's address.
        deadline = time.monotonic() + READY_SECONDS
        while not any(REGISTRY in each for row in made.user("nodes", "--registry", URL) for each in row["addrs"]):
            assert time.monotonic() < deadline
        yield made


def become(world: World, kinds: tuple[Nat, Nat]) -> None:
    sides: tuple[Site, Site] = ("a", "b")
    for side, kind in zip(sides, kinds, strict=True):
        if world.net.kinds[side] is not kind:
            world.net.become(side, kind)


def test_behind_symmetric_nats_a_run_goes_over_the_relay(world: World) -> None:
    become(world, (Nat.SYM, Nat.SYM))
    ended = world.run("count=3", "size=300000")
    assert (ended["state"], ended["route"]) == ("done", "relay")
    [output] = ended["outputs"]
    assert output["size"] == 300_000


def test_a_run_goes_on_when_the_users_nat_forgets_him_and_when_he_moves(world: World) -> None:
    become(world, (Nat.SYM, Nat.SYM))
    ended = world.run("count=60", at={10: lambda: world.net.rebind("a"), 25: lambda: world.net.renumber("a")})
    assert (ended["state"], ended["route"]) == ("done", "relay")


def test_behind_other_nats_a_run_leaves_the_relay(world: World) -> None:
    become(world, (Nat.CONE, Nat.CONE))
    world.reached()
    ended = world.run("count=60", "size=300000")
    assert (ended["state"], ended["route"]) == ("done", "punched")
    [output] = ended["outputs"]
    assert output["size"] == 300_000
    # And goes back to it when the user's NAT begins to give each destination another port.
    ended = world.run("count=80", at={40: lambda: world.net.become("a", Nat.SYM)})
    assert (ended["state"], ended["route"]) == ("done", "relay")


@pytest.mark.parametrize("kinds", [(Nat.NOUDP, Nat.SYM), (Nat.NOUDP, Nat.NOUDP)], ids="–".join)
def test_where_udp_is_blocked_on_either_side_a_run_goes_over_the_relay_by_tcp(
    world: World, kinds: tuple[Nat, Nat]
) -> None:
    become(world, kinds)
    told = world.reached(f"relay of {REGISTRY}, by TCP")
    assert told["session"]["route"] == "relay"
    ended = world.run("count=3", "size=300000")
    assert (ended["state"], ended["route"]) == ("done", "relay")
    [output] = ended["outputs"]
    assert output["size"] == 300_000


def test_where_udp_is_blocked_doctor_says_that_the_relay_is_used_by_tcp(world: World) -> None:
    become(world, (Nat.NOUDP, world.net.kinds["b"]))
    [told] = world.user("doctor", "--registry", URL)
    assert any("the relay over TCP" in each["found"] for each in told["findings"] if each["check"] == "nat")


def test_a_run_goes_on_when_udp_is_blocked_in_its_midst_and_when_it_passes_again(world: World) -> None:
    become(world, (Nat.CONE, Nat.CONE))
    world.reached()
    at = {
        20: lambda: world.net.become("a", Nat.NOUDP),
        60: lambda: world.net.become("b", Nat.NOUDP),
        120: lambda: world.net.become("a", Nat.SYM),
    }
    ended = world.run("count=160", at=at)
    assert (ended["state"], ended["route"]) == ("done", "relay")
