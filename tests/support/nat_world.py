"""A registry, a node behind one NAT and a user behind another one: each `koco` in a process of its own, in a lab."""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.koco import KOCO, environment
from tests.support.lab_page import ORIGIN
from tests.support.nat_lab import REGISTRY, REGISTRY_TOO, Nat, Sites, sites
from tests.support.turn_server import PORT, SECRET

__all__ = ["NODE", "URL", "World", "running_world"]

URL = f"http://{REGISTRY}:8360"
NODE = "far.example.com"
READY_SECONDS = 60.0
FLOW = '''
import asyncio

from kodo.flow import flow, output, progress


@flow(name="Ticks", author="you@example.com", organization="Example", release="0.1.0")
async def ticks(count: int, size: int = 0) -> str:
    """Report progress 20 times a second, then write a file."""
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
        self._second = False
        """Whether the node's host has a second address."""

    @functools.cached_property
    def node(self) -> dict[str, Any]:
        """The node's row at the registry."""
        [row] = self.user("nodes", "--registry", URL)
        return row

    @functools.cached_property
    def flow(self) -> dict[str, Any]:
        """The flow's row at the registry."""
        [row] = self.user("flows", "--registry", URL)
        return row

    def become(self, user: Nat, node: Nat) -> None:
        """Put other NATs before the two.

        The node's host also gets another address, or loses it: so the node asks its relay at once whether it is still
        attached, not when it would have done so anyway.
        """
        if self.net.kinds["a"] is not user:
            self.net.become("a", user)
        if self.net.kinds["b"] is not node:
            self.net.become("b", node)
            self._second = not self._second
            self.net.second_address("b", self._second)

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


@contextlib.contextmanager
def running_world(folder: Path) -> Iterator[World]:
    """Start all of it, behind symmetric NATs; it ends with the block."""
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
