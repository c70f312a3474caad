"""A real Chromium behind one NAT uses a node behind another one, over the relay, and leaves that where it can."""

from __future__ import annotations

from pathlib import Path

from tests.nat.test_registry import NODE, URL, World, become, world
from tests.support.lab import needs_root
from tests.support.lab_page import lab_page
from tests.support.nat_lab import REGISTRY, Nat
from tests.support.web_page import build_harness

__all__ = ["world"]

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
    [row] = world.user("nodes", "--registry", URL)
    [flow] = world.user("flows", "--registry", URL)
    async with lab_page(world.net.lab, "a", tmp_path / "profile", built) as page:
        for user, node, way in cases:
            is_new = world.net.kinds["b"] is not node
            become(world, (user, node))
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
