"""A registry that is killed at any moment has everything that it acknowledged when it starts again."""

import asyncio
import random
import signal
import sys
import time

import pytest

from kodo.p2p.errors import CallError, KodoError
from kodo.registry.client.client import RegistryClient
from kodo.registry.records.record import verify_heartbeat, verify_record
from kodo.registry.store.store import Store
from tests.support.records import flow, identity, signed_goodbye, signed_heartbeat, signed_record

SERVE = """
import asyncio, sys
from pathlib import Path
from kodo.registry.server import Registry, RegistryConfig

async def main():
    async with Registry(RegistryConfig(home=Path(sys.argv[1]), port=0, heartbeat_s=1)) as registry:
        print(registry.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def serve(home):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVE, str(home), stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        url = (await process.stdout.readline()).decode().strip()
    return process, url


async def talk(client, number, seq, told, acknowledged):
    """Announce, beat and leave without end; note what was acknowledged."""
    of, name = identity(number), f"node{number}"
    while True:
        seq += 1
        now = time.time_ns() // 1_000_000
        fields = {"name": name, "seq": seq, "issued_at": now, "ttl_s": 3600}
        signed = signed_record(of, flow(f"f{seq}"), flow("same"), **fields)
        await client.up(signed)
        told[number] = {"seq": seq, "signed": signed}
        acknowledged.put_nowait(seq)
        at = seq * 1000
        await client.state(signed_heartbeat(of, seq=seq, at=at))
        told[number]["at"] = at
        if seq % 3 == 0:
            await client.down(signed_goodbye(of, seq=seq))
            told[number]["left"] = True


async def test_nothing_acknowledged_is_lost_to_a_kill(tmp_path):
    rng = random.Random(20)
    told = {}
    for _ in range(3):
        process, url = await serve(tmp_path)
        try:
            async with RegistryClient(url) as client:
                acknowledged = asyncio.Queue()
                # One further than what may have been stored without being acknowledged.
                starts = {number: told.get(number, {"seq": 0})["seq"] + 1 for number in range(1, 9)}
                talks = [
                    asyncio.ensure_future(talk(client, number, seq, told, acknowledged))
                    for number, seq in starts.items()
                ]
                # The moment is counted in acknowledgements, not in time.
                async with asyncio.timeout(60):
                    for _ in range(rng.randrange(20, 60)):
                        await acknowledged.get()
                process.send_signal(signal.SIGKILL)
                ends = await asyncio.gather(*talks, return_exceptions=True)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        assert all(isinstance(end, KodoError) for end in ends), ends
        async with Store(tmp_path / "registry.db") as store:
            for number, each in told.items():
                await check(store, str(identity(number).peer_id), number, each)


async def check(store, peer_id, number, each):
    signed = await store.signed_record(peer_id)
    if signed != each["signed"]:
        # What was not acknowledged may be there all the same.
        assert verify_record(signed).seq == each["seq"] + 1
        return
    now = time.time_ns() // 1_000_000
    beat = signed_heartbeat(identity(number), seq=each["seq"], at=each.get("at", 0))
    if "at" in each or "left" in each:
        with pytest.raises(CallError) as caught:
            await store.heartbeat(verify_heartbeat(beat), beat, now, gap_ms=0)
        assert caught.value.reason in (("left",) if "left" in each else ("not-rising", "left"))
