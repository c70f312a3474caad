"""The page's engine in Chromium, each figure beside what a plain connection of the same browser does.

The node is a process of its own, with flows in it: `python -m benchmarks.web HOME` prints where it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Row, Series, Table, interleave
from benchmarks.pairs import ROOT

from kodo.client import Client
from tests.support.browser import open_page, running_chromium
from tests.support.page import Page
from tests.support.web_page import FLOWS, SurvivingExecutor, build_harness, node_at, serve, target

SIZE = 64 << 20
EVENTS = 50_000
BUDGET_BYTES = 40 << 10

PAIR = """
    globalThis.pair = async () => {
      const [a, b] = [new RTCPeerConnection({ iceServers: [] }), new RTCPeerConnection({ iceServers: [] })]
      a.onicecandidate = ({ candidate }) => candidate && b.addIceCandidate(candidate)
      b.onicecandidate = ({ candidate }) => candidate && a.addIceCandidate(candidate)
      const there = new Promise(resolve => { b.ondatachannel = ({ channel }) => resolve(channel) })
      const channel = a.createDataChannel('')
      const open = new Promise(resolve => { channel.onopen = resolve })
      await a.setLocalDescription(await a.createOffer())
      await b.setRemoteDescription(a.localDescription)
      await b.setLocalDescription(await b.createAnswer())
      await a.setRemoteDescription(b.localDescription)
      await open
      return { a, b, channel, there, close() { a.close(); b.close() } }
    }
    globalThis.engine = openEngine()
    const node = engine.node(target), fids = []
    for (const [name, inputs] of [['make', { files: { x: size } }], ['count', { n: events, size: 100 }]]) {
      const { fid } = await node.ask('run.launch', { path: `flows.${name}`, inputs })
      await node.follow(fid).done()
      fids.push(fid)
    }
    return fids
"""
DIAL = """
    await engine.identity.peerId()
    const node = engine.node(target)
    node.close()
    const began = performance.now()
    await node.connect()
    return [performance.now() - began]
"""
DIAL_PLAIN = """
    const began = performance.now()
    const { close } = await pair()
    const took = performance.now() - began
    close()
    return [took]
"""
CALL = """
    const node = engine.node(target), began = performance.now()
    for (let i = 0; i < 50; i++) await node.call('node.state')
    return [(performance.now() - began) / 50]
"""
CALL_PLAIN = """
    const { a, b, close } = await pair()
    b.ondatachannel = ({ channel }) => { channel.onmessage = ({ data }) => channel.send(data) }
    const began = performance.now()
    for (let i = 0; i < 50; i++) {
      const channel = a.createDataChannel('')
      await new Promise(resolve => { channel.onopen = () => channel.send('x'); channel.onmessage = resolve })
      channel.close()
    }
    const took = (performance.now() - began) / 50
    close()
    return [took]
"""
DOWNLOAD = """
    const node = engine.node(target), began = performance.now()
    const bytes = await node.read(fid, 'x', { maxBytes: size })
    return [bytes.length / 1e3 / (performance.now() - began)]
"""
DOWNLOAD_PLAIN = """
    const { channel, there, close } = await pair()
    const other = await there, piece = new Uint8Array(16384)
    channel.bufferedAmountLowThreshold = 1 << 20
    other.binaryType = 'arraybuffer'
    const whole = new Uint8Array(size)
    let received = 0
    const began = performance.now()
    const all = new Promise(resolve => {
      other.onmessage = ({ data }) => {
        whole.set(new Uint8Array(data), received)
        if ((received += data.byteLength) >= size) resolve()
      }
    })
    for (let sent = 0; sent < size; sent += piece.length) {
      if (channel.bufferedAmount > 4 << 20) await new Promise(resolve => { channel.onbufferedamountlow = resolve })
      channel.send(piece)
    }
    await all
    const took = performance.now() - began
    close()
    return [size / 1e3 / took]
"""
FOLLOW = """
    const node = engine.node(target), began = performance.now()
    const run = node.follow(fid)
    await run.done()
    return [run.events.length / (performance.now() - began) * 1e3]
"""


@contextlib.asynccontextmanager
async def node_apart(home: Path) -> AsyncIterator[tuple[int, dict[str, Any]]]:
    """Run a node in a process of its own; gives its pid and where it is."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.web",
        str(home),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.pid, json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
    finally:
        process.stdin.close()
        await process.wait()


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(rounds: int) -> Table:
    """Measure all of it."""
    table = Table("web")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        built = build_harness(folder / "built")
        devtools = stack.enter_context(running_chromium(folder / "chromium"))
        async with (
            node_apart(folder / "home") as (pid, where),
            serve(built) as url,
            open_page(devtools, url, folder / "downloads") as page,
            Client(home=folder / "user") as client,
        ):
            table.rows += await _rows(page, client, pid, where, rounds, folder)
        first = next(built.glob("app-*.js"))
        packed = float(len(gzip.compress(first.read_bytes(), 9))) / 1024
    budget = Series((BUDGET_BYTES / 1024,))
    table.rows.append(
        Row("engine, packed, with all that a first dial loads", "KB", Series((packed,)), budget, "budget")
    )
    table.notes.append(
        f"one Chromium on the same machine; downloads of {SIZE >> 20} MiB, verified, into memory; {EVENTS:,} events"
    )
    return table


async def _rows(page: Page, client: Client, pid: int, where: dict[str, Any], rounds: int, folder: Path) -> list[Row]:
    values = {"target": where["target"], "size": SIZE}
    made, counted = await page.run(PAIR, events=EVENTS, **values)
    run = await client.launch(f"{where['target']['addrs'][0]}/flows.make", inputs={"files": {"x": SIZE}})
    await run.wait()

    async def download() -> list[float]:
        before = _cpu_s(pid)
        [rate] = await page.run(DOWNLOAD, fid=made, **values)
        return [rate, (_cpu_s(pid) - before) * 1e3 / (SIZE / 1e6)]

    async def download_in_python() -> list[float]:
        before, began = _cpu_s(pid), time.perf_counter()
        await run.download(folder / f"to-{time.monotonic_ns()}", keep=True)
        return [SIZE / 1e6 / (time.perf_counter() - began), (_cpu_s(pid) - before) * 1e3 / (SIZE / 1e6)]

    dial, dial_plain = await interleave(rounds * 2, lambda: page.run(DIAL, **values), lambda: page.run(DIAL_PLAIN))
    call, call_plain = await interleave(rounds, lambda: page.run(CALL, **values), lambda: page.run(CALL_PLAIN))
    fetched, plain, in_python = await interleave(
        rounds, download, lambda: page.run(DOWNLOAD_PLAIN, **values), download_in_python
    )
    [followed] = await interleave(rounds, lambda: page.run(FOLLOW, fid=counted, **values))
    two_pages = "two connections of one page"
    return [
        Row("to authenticated", "ms", dial[0], dial_plain[0], f"{two_pages}, to open"),
        Row("a call", "ms", call[0], call_plain[0], f"{two_pages}, a channel and back"),
        Row("a verified download", "MB/s", fetched[0], plain[0], two_pages, True),
        Row("the node's CPU for 1 MB of it", "ms", fetched[1], in_python[1], "to kodo's own client"),
        Row("events followed from the log", "1/s", followed[0], None, "", True),
    ]


async def _serve(home: Path) -> None:
    async with SurvivingExecutor(FLOWS) as executor, node_at(home, executor) as node:
        print(json.dumps({"target": target(node)}), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
