"""A real Chromium behind one NAT uses a node behind another one, over the relay, and leaves that where it can."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from pathlib import Path

import pytest
from aioice import stun, turn

from kodo.registry.http.turn import credentials
from tests.support.lab import needs_root
from tests.support.lab_page import lab_page
from tests.support.nat_lab import REGISTRY, REGISTRY_TOO, Nat
from tests.support.nat_world import NODE, URL, World
from tests.support.page import Page
from tests.support.turn_server import SECRET, turn_server
from tests.support.web_page import build_harness

pytestmark = needs_root

USE = """
const node = openEngine().node({ peerId, addrs })
const ways = []
const left = new Promise(resolve => node.on(news => {
  if (news.type !== 'path') return
  ways.push([news.path.route, news.path.relay?.host])
  if (news.path.route === wanted) resolve()
}))
const { name } = await node.ask('node.state')
await left
let ticks = 0, read = 0
const key = crypto.randomUUID()
const { fid } = await node.ask('run.launch', { path, inputs: { count: 10, size: 300000 }, key })
const events = node.stream('run.stream', { fid, after: 0 })
for await (const event of events) if (JSON.stringify(event).includes('"tick ')) ticks++
read = (await node.read(fid, 'file.bin')).length
node.close()
const over = ways.some(([, host]) => host === relay)
return { name, way: ways.at(-1), over, ticks, read, last: node.path.route }
"""


async def test_a_browser_uses_a_node_over_the_relay_and_leaves_it_where_it_can(world: World, tmp_path: Path) -> None:
    built = build_harness(tmp_path / "harness")
    cases = [(Nat.CONE, Nat.CONE, "punched"), (Nat.SYM, Nat.CONE, "relay"), (Nat.LEAKY, Nat.LEAKY, "punched")]
    row, flow = world.node, world.flow
    async with lab_page(world.net.lab, "a", tmp_path / "profile", built) as page:
        for user, node, way in cases:
            is_new = world.net.kinds["b"] is not node
            world.become(user, node)
            if is_new:
                world.reached()
            told = await page.run(
                USE, peerId=row["peer_id"], addrs=row["addrs"], path=flow["path"], wanted=way, relay=REGISTRY
            )
            assert told == {
                "name": NODE,
                "way": [way, REGISTRY if way == "relay" else None],
                "over": True,
                "ticks": 10,
                "read": 300_000,
                "last": way,
            }


TURNED = """
const node = openEngine({ registries: [registry], database }).node({ peerId, addrs })
try {
  const key = crypto.randomUUID()
  const { fid } = await node.ask('run.launch', { path, inputs: { count: 3, size: 300000 }, key })
  let ticks = 0
  const events = node.stream('run.stream', { fid, after: 0 })
  for await (const event of events) if (JSON.stringify(event).includes('"tick ')) ticks++
  const read = (await node.read(fid, 'file.bin')).length
  return { ticks, read, path: node.path }
} catch (error) {
  return { name: error.name, message: error.message }
} finally {
  node.close()
}
"""


async def test_where_no_udp_gets_out_a_page_goes_over_the_turn_server_that_a_registry_names(
    world: World, tmp_path: Path
) -> None:
    built = build_harness(tmp_path / "harness")
    world.become(Nat.NOUDP, Nat.CONE)
    world.reached()
    row, flow = world.node, world.flow
    host = world.net.lab.command("registry")

    async def use(page: Page, database: str) -> object:
        known = {"peerId": row["peer_id"], "addrs": row["addrs"], "path": flow["path"]}
        return await page.run(TURNED, **known, registry=URL, database=database)

    async with lab_page(world.net.lab, "a", tmp_path / "profile", built, URL) as page:
        with turn_server(tmp_path, REGISTRY_TOO, REGISTRY, before=host):
            told = await use(page, "turned")
            assert told == {"ticks": 3, "read": 300_000, "path": {"route": "relay", "turn": REGISTRY_TOO}}
        with turn_server(tmp_path, REGISTRY_TOO, REGISTRY, before=host, secret="another-secret-than-that"):
            told = await use(page, "refused")
            assert isinstance(told, dict)
            assert told["name"] == "TurnError"
            assert re.search(f"The TURN server {REGISTRY_TOO} refuses .* same secret", told["message"])


async def test_a_turn_server_takes_what_a_registry_makes_until_it_expires(tmp_path: Path) -> None:
    now = int(time.time())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def allocate(secret: str, expires_s: int) -> None:
        username, password = credentials(secret, expires_s, "test")
        endpoint = turn.create_turn_endpoint(
            asyncio.DatagramProtocol, ("127.0.0.1", port), username=username, password=password, transport="tcp"
        )
        transport, _ = await endpoint
        transport.close()

    with turn_server(tmp_path, "127.0.0.1", "127.0.0.1", port=port):
        await allocate(SECRET, now + 600)
        for secret, expires_s in ((SECRET, now - 1), ("another-secret-than-that", now + 600)):
            with pytest.raises(stun.TransactionFailed, match="401"):
                await allocate(secret, expires_s)
