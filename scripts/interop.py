"""Let other libp2p dial a peer of kodo's: interop.py [--json] [--only NAME …] [--streams N] [--bytes N]

Unmodified go-libp2p, of the version in `tests/interop/go/go.mod`, built once below `.run/interop`, and js-libp2p, of
the version in `tests/interop/package.json`, dial on loopback, with each version of the handshake that they have: they
check the peer id, identify, ping, open streams at once and send one stream's bytes each way, all of it compared.
Prints what each step took. Where a toolchain is missing it says so.
The exit code is 1 when a step failed, or nothing could be run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kodo.p2p.core.identity import Identity
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host
from kodo.p2p.net.stream import Stream

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tests" / "interop"
BUILT = ROOT / ".run" / "interop"
ECHO = "/kodo/interop/echo/1"
STEPS = ("dial", "identify", "ping", "streams", "transfer")
BUILD_SECONDS = 3600
DIAL_SECONDS = 330
PLACES = (Path("/usr/local/go/bin"),)
"""Where the toolchain is installed beside what is on the path."""


@dataclass(frozen=True)
class Caller:
    """A stack that dials.

    Attributes:
        tool: the command of its toolchain.
        build: the words after that; none where there is nothing to build.
        program: what is built, or run by the tool.
        words: what stands between its address and the protocol, as the handshake's version.
        pinned: the file and the pattern that tell its version.
    """

    name: str
    tool: str
    build: tuple[str, ...]
    program: Path
    words: tuple[str, ...]
    pinned: tuple[Path, str]
    help: str

    def version(self) -> str:
        """Return the version that is built."""
        path, pattern = self.pinned
        found = re.search(pattern, path.read_text())
        return found[1] if found else "?"

    def command(self) -> list[str]:
        """Return what runs it."""
        return [str(self.program)] if self.build else [find_tool(self.tool) or self.tool, str(self.program)]


_GO_BUILD = ("build", "-C", str(SOURCES / "go"), "-o", str(BUILT / "go"), ".")
_GO = (SOURCES / "go" / "go.mod", r"github\.com/libp2p/go-libp2p (v\S+)")
_JS = (SOURCES / "package.json", r'"libp2p": "(\S+)"')
_PACKAGES = SOURCES / "node_modules" / "libp2p"
CALLERS = (
    Caller("go-libp2p v1", "go", _GO_BUILD, BUILT / "go", ("1",), _GO, "https://go.dev/doc/install"),
    Caller("go-libp2p v2", "go", _GO_BUILD, BUILT / "go", ("2",), _GO, "https://go.dev/doc/install"),
    Caller("js-libp2p v1", "node", (), SOURCES / "echo.mjs", (), _JS, "https://nodejs.org"),
)


def find_tool(name: str) -> str | None:
    """Return where a toolchain's command is."""
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *map(str, PLACES)]))


def build(caller: Caller) -> str | None:
    """Build a caller; return why it could not be."""
    tool = find_tool(caller.tool)
    if tool is None:
        return f"not run: {caller.tool} is not installed ({caller.help})"
    if not caller.build:
        return None if _PACKAGES.is_dir() else "not run: its packages are missing; scripts/test installs them"
    BUILT.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(Path(tool).parent), os.environ.get("PATH", os.defpath)])
    words, variables = [tool, *caller.build], {**os.environ, "PATH": path}
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    return f"it could not be built: {done.stderr[-2000:]}" if done.returncode else None


async def echo(stream: Stream) -> None:
    """Send back what comes, to its end."""
    while data := await stream.read():
        await stream.write(data)
    await stream.close_write()


async def dial(caller: Caller, streams: int, size: int) -> dict[str, Any]:
    """Let one caller dial a fresh peer; return its steps, or its error."""
    async with Host(Identity.from_seed(os.urandom(32)), WebRtcTransport()) as host:
        host.handle(ECHO, echo)
        [address] = await host.listen(["127.0.0.1"])
        process = await asyncio.create_subprocess_exec(
            *(*caller.command(), str(address), *caller.words, ECHO, str(streams), str(size)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                out, problems = await process.communicate()
        except TimeoutError:
            return {"error": f"not done within {DIAL_SECONDS} s"}
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        steps = {step["step"]: step for step in map(json.loads, out.decode().splitlines())}
        error = check(steps, str(host.peer_id), streams, size)
        if process.returncode:
            error = problems.decode()[-2000:].strip() or f"exit code {process.returncode}"
        return {"steps": steps, "error": error}


def check(steps: dict[str, Any], peer: str, streams: int, size: int) -> str | None:
    """Return what is wrong with what a caller says; it compares the bytes itself."""
    missing = [step for step in STEPS if step not in steps]
    if missing:
        return f"without {', '.join(missing)}"
    if steps["dial"]["peer_id"] != peer:
        return f"it reached {steps['dial']['peer_id']}"
    if not steps["identify"]["agent"].startswith("kodo/") or ECHO not in steps["identify"]["protocols"]:
        return f"identify said {steps['identify']}"
    if (steps["streams"]["streams"], steps["transfer"]["bytes"]) != (streams, size):
        return "it did less than it was asked to"
    return None


def row(caller: Caller, told: dict[str, Any]) -> str:
    """Return one row of the table."""
    if told["error"]:
        return f"| {caller.name} | {caller.version()} | {told['error']} |"
    steps = told["steps"]
    speed = steps["transfer"]["bytes"] / max(steps["transfer"]["ms"], 1) / 1000
    return (
        f"| {caller.name} | {caller.version()} | {steps['dial']['ms']} ms | {steps['ping']['rtt_us'] / 1000:.1f} ms "
        f"| {steps['streams']['streams']} in {steps['streams']['ms']} ms | {speed:.1f} MB/s |"
    )


def main(arguments: Sequence[str]) -> int:
    """Build and run all callers that this machine can."""
    parser = argparse.ArgumentParser(prog="scripts/interop", description="Let libp2p of Go and JavaScript dial kodo.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="those whose names begin so")
    parser.add_argument("--streams", type=int, default=64, help="streams at once (64)")
    parser.add_argument("--bytes", type=int, default=64 << 20, help="bytes each way (64 MiB)")
    options = parser.parse_args(arguments)
    callers = [each for each in CALLERS if not options.only or each.name.startswith(tuple(options.only))]
    results: dict[str, dict[str, Any]] = {}
    for caller in callers:
        problem = build(caller)
        told = {"error": problem} if problem else asyncio.run(dial(caller, options.streams, options.bytes))
        results[caller.name] = {"version": caller.version(), **told}
        if not options.json:
            print(row(caller, told), flush=True)
    if options.json:
        print(json.dumps(results))
    ran = [each for each in results.values() if "steps" in each]
    failed = [each for each in results.values() if each["error"] and not each["error"].startswith("not run")]
    return 1 if failed or not ran else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
