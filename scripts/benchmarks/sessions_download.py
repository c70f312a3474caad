"""A 1 GiB output from a node to a file of the client's, every chunk verified: from a flow's `output.write` on; from
the node's disk in one go; and cut in the middle.

The client is a process of its own, so that its memory and its CPU time are its own:
`python -m benchmarks.sessions_download HOME RUN FOLDER CUT_AT`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, interleave
from benchmarks.pairs import KODO, MESSAGE, ROOT, pair
from benchmarks.runs import CPUS, OBJECT_STORE, line, process

from kodo.client import Client
from kodo.client.transfer import Progress

SIZE = 1 << 30
NODE = f"download-{os.getpid()}.bench.local"
BARE = f"bare-{NODE}"
"""The node without Ray."""
BULK_MESSAGES = 4096
SCOPE = f"""
name: {NODE}
flows: ["bench_flows:output"]
"""
Measured = tuple[list[Row], list[str]]


async def download(rounds: int) -> Measured:
    """Measure it beside bulk, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 4 * SIZE:
            raise RuntimeError(f"{folder} has no room for an output of 1 GiB and its copies")
        (folder / "scope.yaml").write_text(SCOPE)
        flows = Path(__file__).with_name("bench_flows.py")
        (folder / flows.name).write_text(flows.read_text())
        home, bare = folder / "home", folder / "bare"
        up = ["up", str(folder / "scope.yaml"), "--json"]
        on_ray = ["--executor", "ray", "--num-cpus", str(CPUS), "--object-store", OBJECT_STORE]
        koco = str(Path(sys.executable).with_name("koco"))
        async with (
            process(koco, *up, *on_ray, KODO_HOME=str(home)) as node,
            process(koco, *up, "--name", BARE, "--executor", "process", KODO_HOME=str(bare)) as other,
            pair(KODO) as ours,
        ):
            await line(node)
            await line(other)
            await ours.connect()
            async with Client(home=home) as client:
                run = await client.launch(f"{NODE}/bench_flows.output", inputs={"size": SIZE})
                view = await run.wait()
                if not view.final:
                    raise RuntimeError(f"the flow that makes the output failed: {view.fatal}")
                digest = str(view.final.get("result"))
                address = run.address

            async def made(home: Path, node: str) -> list[float]:
                """From the call that launches the flow which writes it, on the node of this home."""
                began = time.perf_counter()
                async with Client(home=home) as client:
                    fresh = await client.launch(f"{node}/bench_flows.output", inputs={"size": SIZE})
                    told = await fresh.wait()
                    seconds = time.perf_counter() - began
                    result = str((told.final or {}).get("result"))
                    rate, _, _ = await _fetch(home, fresh.address, folder / "to", result)
                    await fresh.ack()
                    await fresh.delete()
                return [SIZE / 1e6 / (seconds + SIZE / 1e6 / rate)]

            async def whole() -> list[float]:
                return await _fetch(home, address, folder / "to", digest)

            async def cut() -> list[float]:
                await _fetch(home, address, folder / "to", "", cut_at=SIZE // 2)
                return (await _fetch(home, address, folder / "to", digest, least=SIZE // 4))[:1]

            async def bulk() -> list[float]:
                seconds, _, _ = await ours.send(BULK_MESSAGES, MESSAGE)
                return [BULK_MESSAGES * MESSAGE / 1e6 / seconds]

            (rate, memory, cpu), (plain,), (again,), (of_ray,), (of_process,) = await interleave(
                min(rounds, 5), whole, bulk, cut, partial(made, home, NODE), partial(made, bare, BARE)
            )
    return [
        Row("1 GiB, write on Ray → on the client's disk", "MB/s", of_ray, plain, "bulk", higher_is_better=True),
        Row(
            "1 GiB, write without Ray → on the client's disk",
            "MB/s",
            of_process,
            plain,
            "bulk",
            higher_is_better=True,
        ),
        Row("1 GiB output, verified, to disk", "MB/s", rate, plain, "bulk", higher_is_better=True),
        Row("1 GiB output, the client's CPU", "ms/MB", cpu),
        Row("1 GiB output, the client's memory at most", "MiB", memory),
        Row("the rest of it after a cut in the middle", "MB/s", again, plain, "bulk", higher_is_better=True),
    ], ["download: nodes and client in processes of their own; the SHA-256 of the file is compared"]


async def _fetch(home: Path, address: str, to: Path, digest: str, *, cut_at: int = 0, least: int = 0) -> list[float]:
    """Run the client; give MB/s, MiB of memory at most and CPU ms per MB."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.sessions_download",
        str(home),
        address,
        str(to),
        str(cut_at),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    out, _ = await child.communicate()
    if cut_at:
        return []
    if child.returncode:
        raise RuntimeError(f"the client failed with exit code {child.returncode}")
    found: dict[str, Any] = json.loads(out)
    assert await asyncio.to_thread(_digest_and_remove, to) == digest
    assert found["received"] == SIZE if not least else least <= found["received"] < SIZE
    megabytes = found["received"] / 1e6
    return [megabytes / found["seconds"], found["memory"] / 1024, 1000 * found["cpu"] / megabytes]


def _digest_and_remove(folder: Path) -> str:
    [file] = folder.iterdir()
    with file.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    shutil.rmtree(folder)
    return digest


async def _client(home: Path, address: str, to: Path, cut_at: int) -> None:
    """Download as a user does; die hard at `cut_at` bytes if it is not 0."""

    def progress(so_far: Progress) -> None:
        if cut_at and so_far.done >= cut_at:
            os._exit(9)  # as a crash does: nothing is tidied up

    async with Client(home=home) as client:
        run = await client.run(address)
        begin, cpu = time.perf_counter(), time.process_time()
        [file] = await run.download(to, keep=True, on_progress=progress)
        seconds = time.perf_counter() - begin
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {"seconds": seconds, "received": file.received, "memory": memory, "cpu": time.process_time() - cpu}
        )
    )


if __name__ == "__main__":
    home, address, to, cut_at = sys.argv[1:]
    asyncio.run(_client(Path(home), address, Path(to), int(cut_at)))
