"""A program: a cluster of two machines, each a network namespace of its own, whose second is cut off, and comes back.

`test_ray_machines.py` runs it, as root on Linux; it prints what was seen, as one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from kodo.node.executors.executor import RunnerDiedError, RunSpec
from kodo.node.executors.ray.executor import RayExecutor
from kodo.node.executors.runner.storage import place_of_runner
from kodo.p2p.errors import KodoError
from kodo.protocol.ids import make_id

HERE, THERE, PORT = "10.79.0.1", "10.79.0.2", 6391
FLOWS = """
import time
from kodo.flow import progress

def wait():
    progress(1, "there")
    time.sleep(300)

def here():
    return "well"
"""


def run(*words: str, **more: Any) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, **more)


def ray_start(home: Path, *words: str, prefix: tuple[str, ...] = ()) -> None:
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "CUT_CLUSTER": str(home), "RAY_TMPDIR": str(home)}
    log = (home / "ray.log").open("a")
    command = ["start", "--object-store-memory=80000000", "--include-log-monitor=false", *words]
    entry = "from ray.scripts.scripts import main; main()"
    done = subprocess.run(
        [*prefix, sys.executable, "-c", entry, *command], env=environment, stdin=subprocess.DEVNULL,
        stdout=log, stderr=log, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit((home / "ray.log").read_text())


def start_head(home: Path) -> None:
    ray_start(
        home, "--head", f"--node-ip-address={HERE}", f"--port={PORT}", "--num-cpus=1", "--include-dashboard=false",
        f"--temp-dir={home}/h{time.monotonic_ns()}",
    )  # fmt: skip


def end(home: Path, *, but: tuple[str, ...] = ()) -> None:
    """Kill what was started, as a machine that loses power does."""
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("CUT_CLUSTER") == str(home)
            if mine and not any(word in " ".join(process.cmdline()) for word in but):
                process.kill()
        except psutil.Error:
            continue


async def until_over(executor: RayExecutor, runner: Any) -> str:
    after = 0
    try:
        while True:
            for event in await runner.poll(after, 5.0):
                after = event.rseq
                if event.event in ("final", "fatal"):
                    await runner.release()
                    return str(event.data.get("result"))
    except RunnerDiedError as error:
        return str(error)


def spec(flow: str, resources: dict[str, Any]) -> RunSpec:
    return RunSpec(make_id(time.time_ns() // 1_000_000, os.urandom(10)), flow, f"cut_flows:{flow}", {}, resources)


async def refused(executor: RayExecutor, resources: dict[str, Any]) -> str:
    try:
        await executor.launch(spec("here", resources))
    except KodoError as error:
        return str(error)
    return "it was launched"


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def exists(folder: Path) -> bool:
    return folder.exists()


async def seen(home: Path) -> dict[str, Any]:
    scope = home / "scope"
    scope.mkdir()
    (scope / "cut_flows.py").write_text(FLOWS)
    (scope / "session.bin").write_bytes(bytes(1 << 20))
    executor = RayExecutor(
        home / "node",
        "kodo-cut",
        [scope],
        ray_address=f"{HERE}:{PORT}",
        runners=0,
        entries=lambda: ["cut_flows:here"],
    )
    told: dict[str, Any] = {}
    await executor.start()
    try:
        told["refused"] = await refused(executor, {"num_gpus": 3, "resources": {"far": 1}})
        runner = await executor.launch(spec("wait", {"resources": {"far": 1}}))
        folder = Path(place_of_runner(runner.name))
        while not await runner.poll(0, 5.0):
            pass
        told["travelled"] = sorted(
            path.name for path in (home / "node" / "ray" / "sent").rglob("*") if path.is_file()
        )
        run("ip", "link", "set", "to-there", "down")
        begun = time.monotonic()
        told["lost"] = await asyncio.wait_for(until_over(executor, runner), 60)
        told["lost_after_s"] = time.monotonic() - begun
        told["left"] = exists(folder)
        run("ip", "link", "set", "to-there", "up")
        for _ in range(300):
            if not exists(folder):
                break
            await asyncio.sleep(0.2)
        told["cleared"] = not exists(folder)
        killed = await executor.launch(spec("wait", {"resources": {"far": 1}}))
        while not await killed.poll(0, 5.0):
            pass
        for process in psutil.process_iter(["cmdline"]):
            if f"--node_ip_address={THERE}" in (process.info["cmdline"] or ()):
                process.kill()
        told["crashed"] = await asyncio.wait_for(until_over(executor, killed), 60)
        end(home, but=(THERE,))
        start_head(home)
        runner = None
        for _ in range(60):
            try:
                runner = await asyncio.wait_for(executor.launch(spec("here", {})), 60)
                break
            except KodoError as error:
                told["before"] = str(error)
                await asyncio.sleep(1)
        assert runner is not None
        told["again"] = await until_over(executor, runner)
    finally:
        await executor.aclose()
    return told


def main() -> None:
    # A token of its own: whether there is one in this machine's ~/.ray changes nothing.
    os.environ.update({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)})
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "to-there", "type", "veth", "peer", "name", "to-here")
    with tempfile.TemporaryDirectory(prefix="cc-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        there = subprocess.Popen(["unshare", "--net", "--uts", "sh", "-c", "hostname gpu-3; exec sleep 600"])
        try:
            while os.readlink(f"/proc/{there.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                time.sleep(0.02)
            run("ip", "link", "set", "to-here", "netns", str(there.pid))
            run("ip", "addr", "add", f"{HERE}/24", "dev", "to-there")
            run("ip", "link", "set", "to-there", "up")
            run("ip", "route", "add", "default", "dev", "to-there")
            inside = ("nsenter", "-t", str(there.pid), "-n", "-u")
            for words in (
                ["link", "set", "lo", "up"],
                ["addr", "add", f"{THERE}/24", "dev", "to-here"],
                ["link", "set", "to-here", "up"],
            ):
                run(*inside, "ip", *words)
            start_head(home)
            ray_start(
                home, f"--address={HERE}:{PORT}", f"--node-ip-address={THERE}", "--num-cpus=1",
                '--resources={"far": 1}', prefix=inside,
            )  # fmt: skip
            print(json.dumps(asyncio.run(seen(home))), flush=True)
        finally:
            end(home)
            there.kill()
            there.wait()


if __name__ == "__main__":
    main()
