"""Networks for tests, of Linux network namespaces: hosts, wires between them, and programs that run on a host.

Real kernels' routing, MTUs and addresses, which loopback has none of. It takes root and `ip` (iproute2); without
root the tests are skipped, and as root whatever is missing fails them. `nat_lab` lays networks with NATs.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Lab", "Program", "Programs", "lab", "needs_root"]

ROOT = Path(__file__).resolve().parents[2]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces take root")
ANSWER_SECONDS = 60.0
_CLONE_NEWNET = 0x40000000
_count = itertools.count()


def ip(*words: str, given: str = "") -> None:
    """Run `ip`; what it says when it fails is the error."""
    done = subprocess.run(["ip", *words], input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _enter(namespace: int) -> None:
    """Take this thread into a network namespace."""
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Lab:
    """Hosts by their names; each is a network namespace."""

    def __init__(self) -> None:
        self._mark = f"kodo{os.getpid()}x{next(_count)}"
        self._hosts: dict[str, str] = {}
        self._processes: list[subprocess.Popen[bytes]] = []

    def host(self, name: str, *, forwards: bool = False) -> None:
        """Make a host, with loopback only."""
        namespace = self._hosts[name] = f"{self._mark}-{name}"
        ip("netns", "add", namespace)
        settings = {"net.ipv6.conf.default.accept_dad": 0}  # an address can be used at once
        if forwards:
            settings |= {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
        self._set(name, settings, "ip link set lo up")

    def ip(self, name: str, *words: str) -> None:
        """Run `ip` on a host."""
        ip("-n", self._hosts[name], *words)

    def ips(self, name: str, *lines: str) -> None:
        """Run `ip` on a host for each of these lines, in one process."""
        ip("-n", self._hosts[name], "-batch", "-", given="".join(f"{line}\n" for line in lines))

    def set(self, name: str, setting: str, value: int) -> None:
        """Set a kernel parameter of a host."""
        self._set(name, {setting: value})

    def _set(self, name: str, settings: Mapping[str, int], *more: str) -> None:
        writes = [f"echo {value} > /proc/sys/{setting.replace('.', '/')}" for setting, value in settings.items()]
        self.run(name, "sh", "-ec", "\n".join([*writes, *more]))

    def command(self, name: str, *words: str) -> list[str]:
        """Return the words that run a command on a host."""
        return ["ip", "netns", "exec", self._hosts[name], *words]

    def run(self, name: str, *words: str, given: str = "") -> None:
        """Run a command on a host to its end; what it says when it fails is the error."""
        done = subprocess.run(
            self.command(name, *words), input=given, capture_output=True, text=True, check=False, timeout=20
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} on {name}: {done.stderr.strip()}")

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Open sockets and start processes of this thread on a host; they stay there after the block."""
        with Path("/proc/thread-self/ns/net").open("rb") as outside:
            with Path("/run/netns", self._hosts[name]).open("rb") as namespace:
                _enter(namespace.fileno())
            try:
                yield
            finally:
                _enter(outside.fileno())

    def wire(self, a: str, b: str) -> None:
        """Lay a wire between two hosts: an interface on each, with the other host's name."""
        ends = ["name", b, "netns", self._hosts[a], "type", "veth", "peer", "name", a, "netns", self._hosts[b]]
        ip("link", "add", *ends)
        self.ip(a, "link", "set", "dev", b, "up")
        self.ip(b, "link", "set", "dev", a, "up")

    def slow_wire(self, a: str, b: str, delay_s: float) -> None:
        """Lay a wire on which packets take so long, each way. It is slower than `wire`, and has no link layer."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.slow_wires", str(delay_s), self._hosts[a], b, self._hosts[b], a],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._processes.append(process)
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the wire's process ended")

    def address(self, name: str, interface: str, *addresses: str) -> None:
        """Give an interface addresses, as `10.0.0.1/24`."""
        for address in addresses:
            self.ip(name, "addr", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))

    def route(self, name: str, via: str) -> None:
        """Have a host send everything else by a router."""
        self.ip(name, *(["-6"] if ":" in via else []), "route", "replace", "default", "via", via)

    @contextlib.asynccontextmanager
    async def programs(self) -> AsyncIterator[Programs]:
        """Run `lab_peer`'s programs on many hosts, in processes that share what they have loaded."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.lab_peers"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        programs = Programs(process, self._hosts)
        try:
            yield programs
        finally:
            await programs.aclose()

    @contextlib.asynccontextmanager
    async def program(self, name: str, *words: str) -> AsyncIterator[Program]:
        """Run `python -m tests.support.lab_peer WORDS` on a host; it ends with the block."""
        process = await asyncio.create_subprocess_exec(
            *self.command(name, sys.executable, "-m", "tests.support.lab_peer", *words),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            yield Program(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def close(self) -> None:
        """Remove all hosts, and with them what is between them."""
        for process in self._processes:
            process.communicate()
        for namespace in self._hosts.values():
            with contextlib.suppress(RuntimeError):
                ip("netns", "del", namespace)


class Program:
    """A program on a host: it says one JSON value a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def send_signal(self, number: int) -> None:
        """Send the program a signal."""
        self._process.send_signal(number)

    def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def says(self) -> Any:
        """Return the next thing that it says.

        Raises:
            RuntimeError: it has ended.
        """
        assert self._process.stdout is not None
        async with asyncio.timeout(ANSWER_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the program ended with code {await self._process.wait()}")
        return json.loads(line)


class Programs:
    """Programs on many hosts, whose words come as one stream."""

    def __init__(self, process: asyncio.subprocess.Process, namespaces: Mapping[str, str]) -> None:
        self._process, self._namespaces = process, namespaces

    def start(self, name: str, *words: str) -> None:
        """Run `python -m tests.support.lab_peer WORDS` on a host, until the end of all."""
        assert self._process.stdin is not None
        line = json.dumps([self._namespaces[name], name, words])
        self._process.stdin.write(line.encode() + b"\n")

    async def says(self) -> tuple[str, Any]:
        """Return what one of them says next, and on which host it is.

        Raises:
            RuntimeError: all have ended.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the programs ended with code {await self._process.wait()}")
        name, value = json.loads(line)
        return name, value

    async def aclose(self) -> None:
        """End all."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


@functools.cache
def _sweep() -> None:
    """Remove once what test processes left that were killed; those that live have their process ids in the names."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    for namespace in re.findall(r"^kodo\d+x\d+-\S+", listed, re.MULTILINE):
        if not Path(f"/proc/{namespace[4:].partition('x')[0]}").exists():
            with contextlib.suppress(RuntimeError):
                ip("netns", "del", namespace)


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """Make a lab without hosts."""
    _sweep()
    made = Lab()
    try:
        yield made
    finally:
        made.close()
