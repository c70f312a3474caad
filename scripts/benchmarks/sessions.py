"""Sessions against stock aiortc, two processes each: set-up to an authenticated session, and bulk with CPU time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from benchmarks.measure import Row, Table, interleave

from kodo.p2p.core.identity import Identity
from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net.calls import CALL_PROTOCOL, Call, CallServer, Request, request
from kodo.p2p.net.direct import WebRtcTransport
from kodo.p2p.net.host import Host

MESSAGE_BYTES = 64 << 10
BULK_MESSAGES = 256
SETUPS = 10
CALLS = 200


def cpu_ms() -> float:
    """CPU time of this process, ms."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1000


# the other process


async def serve_kodo() -> None:
    """Answer `cpu`, `none` and `pump`."""

    async def answer(call: Request) -> object:
        if call.op == "pump":
            payload = bytes(MESSAGE_BYTES)
            for _ in range(call.args["n"]):
                await call.send(payload)
        return cpu_ms()

    async with Host(Identity.from_seed(b"b" * 32), WebRtcTransport()) as host:
        host.handle(CALL_PROTOCOL, CallServer(answer))
        print(json.dumps(str((await host.listen(["127.0.0.1"]))[0])), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


async def serve_aiortc() -> None:
    """Answer offers that come line by line; a message on a channel asks for as many messages as it says."""
    loop = asyncio.get_running_loop()
    connections: list[RTCPeerConnection] = []
    print(json.dumps("ready"), flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        connections.append(connection)

        @connection.on("datachannel")
        def opened(channel: RTCDataChannel) -> None:
            @channel.on("message")
            def message(text: str) -> None:
                if text == "cpu":
                    channel.send(str(cpu_ms()))
                for _ in range(0 if text == "cpu" else int(text)):
                    channel.send(bytes(MESSAGE_BYTES))

        await connection.setRemoteDescription(RTCSessionDescription(json.loads(line), "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        print(json.dumps(connection.localDescription.sdp), flush=True)
    for connection in connections:
        await connection.close()


# this process


@contextlib.asynccontextmanager
async def other_process(kind: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run one of the two servers."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.sessions",
        kind,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[1],
        limit=1 << 20,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()


async def read_line(process: asyncio.subprocess.Process) -> str:
    """Read what the other process says next."""
    assert process.stdout is not None
    return str(json.loads(await asyncio.wait_for(process.stdout.readline(), 30)))


async def dial_aiortc(process: asyncio.subprocess.Process) -> tuple[RTCPeerConnection, RTCDataChannel]:
    """Make one stock connection and wait until its channel is open."""
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = connection.createDataChannel("bench")
    opened = asyncio.Event()
    channel.on("open", opened.set)
    await connection.setLocalDescription(await connection.createOffer())
    assert process.stdin is not None
    process.stdin.write(json.dumps(connection.localDescription.sdp).encode() + b"\n")
    await connection.setRemoteDescription(RTCSessionDescription(await read_line(process), "answer"))
    await asyncio.wait_for(opened.wait(), 30)
    return connection, channel


async def measure(rounds: int) -> Table:
    """Measure the table."""
    megabytes = BULK_MESSAGES * MESSAGE_BYTES / 1e6
    async with (
        other_process("kodo") as kodo,
        other_process("aiortc") as aiortc,
        Host(Identity.from_seed(b"a" * 32), WebRtcTransport()) as host,
    ):
        address = Multiaddr.parse(await read_line(kodo))
        await read_line(aiortc)

        async def kodo_setup() -> list[float]:
            begin = time.perf_counter()
            for _ in range(SETUPS):
                await (await host.connect([address])).aclose()
            return [(time.perf_counter() - begin) * 1000 / SETUPS]

        async def aiortc_setup() -> list[float]:
            begin = time.perf_counter()
            for _ in range(SETUPS):
                connection, _ = await dial_aiortc(aiortc)
                await connection.close()
            return [(time.perf_counter() - begin) * 1000 / SETUPS]

        async def kodo_bulk() -> list[float]:
            session = await host.connect([address])
            there, here, begin = await request(session, "cpu"), cpu_ms(), time.perf_counter()
            async with Call(session, "pump", {"n": BULK_MESSAGES}) as call:
                received = sum([len(item) async for item in call])
                elapsed = time.perf_counter() - begin
                there = await call.done() - there
            assert received == BULK_MESSAGES * MESSAGE_BYTES
            return [megabytes / elapsed, there / megabytes, (cpu_ms() - here) / megabytes]

        async def aiortc_bulk() -> list[float]:
            connection, channel = await dial_aiortc(aiortc)
            messages: asyncio.Queue[bytes | str] = asyncio.Queue()
            channel.on("message", messages.put_nowait)
            channel.send("cpu")
            there, here, begin = float(await messages.get()), cpu_ms(), time.perf_counter()
            channel.send(str(BULK_MESSAGES))
            received = sum([len(await messages.get()) for _ in range(BULK_MESSAGES)])
            elapsed = time.perf_counter() - begin
            assert received == BULK_MESSAGES * MESSAGE_BYTES
            here = cpu_ms() - here
            channel.send("cpu")
            there = float(await messages.get()) - there
            await connection.close()
            return [megabytes / elapsed, there / megabytes, here / megabytes]

        async def kodo_calls() -> list[float]:
            session = await host.connect([address])
            begin = time.perf_counter()
            for _ in range(CALLS):
                await request(session, "none")
            return [(time.perf_counter() - begin) * 1000 / CALLS]

        (setup,), (stock_setup,) = await interleave(rounds, kodo_setup, aiortc_setup)
        bulk, stock_bulk = await interleave(rounds, kodo_bulk, aiortc_bulk)
        ((calls,),) = await interleave(rounds, kodo_calls)
    stock = "stock aiortc"
    return Table(
        "Sessions",
        [
            Row("set-up to authenticated", "ms", setup, stock_setup, f"{stock} RTCPeerConnection"),
            Row("bulk", "MB/s", bulk[0], stock_bulk[0], f"{stock} data channel", higher_is_better=True),
            Row("bulk, CPU of the sender", "ms/MB", bulk[1], stock_bulk[1], stock),
            Row("bulk, CPU of the receiver", "ms/MB", bulk[2], stock_bulk[2], stock),
            Row("call round trip, idle session", "ms", calls),
        ],
        [
            f"bulk: {megabytes:.0f} MB in messages of 64 KiB, two processes on loopback; set-up: mean of {SETUPS},"
            " closing included on both sides",
        ],
    )


if __name__ == "__main__":
    asyncio.run({"kodo": serve_kodo, "aiortc": serve_aiortc}[sys.argv[1]]())
