"""The engine in Firefox, which scripts/test installs: dial, follow, download. It gathers no loopback candidate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import ifaddr
import pytest

from kodo.node.executors.in_process import InProcessExecutor
from tests.support.bidi import open_firefox
from tests.support.web_page import content, node_at, serve, target

ADDRESSES = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
OUTWARD = [ip for ip in ADDRESSES if isinstance(ip, str) and not ip.startswith("127.")]

pytestmark = [
    pytest.mark.skipif(not OUTWARD, reason="this machine has no address but loopback"),
]


async def test_firefox_dials_follows_and_downloads(tmp_path: Path, built: Path, executor: InProcessExecutor) -> None:
    size = 9 << 20
    async with (
        node_at(tmp_path / "home", executor, hosts=(OUTWARD[0],), open=True) as node,
        serve(built) as url,
        open_firefox(tmp_path / "firefox", url) as page,
    ):
        answer = await page.run(
            """
            const engine = openEngine(), node = engine.node(target)
            const { fid } = await node.ask('run.launch', { path: 'flows.make', inputs: { files: { x: size } } })
            const run = node.follow(fid)
            const view = await run.done()
            const bytes = await node.read(fid, 'x')
            const hash = Array.from(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))
            const kept = await node.download(fid, 'x', { sink: 'opfs' }).done
            const { loopback, sinks } = await engine.capabilities()
            const again = openEngine()
            return { state: view.state, hash, kept: kept.sink, loopback, sinks,
                     same: await again.identity.peerId() === (await node.logins.whoami()).peer_id }
            """,
            target=target(node),
            size=size,
        )
    assert bytes(answer["hash"]) == hashlib.sha256(content(size)).digest()
    assert (answer["state"], answer["kept"], answer["same"]) == ("done", "opfs", True)
    assert answer["loopback"] is False
    assert answer["sinks"] == ["opfs", "stream", "blob"]
