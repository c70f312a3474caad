"""The node of a local flow answers the user who started it, and nobody else who reaches this machine's loopback."""

from __future__ import annotations

from pathlib import Path

from kodo.protocol.calls import OPS
from tests.unit.node.conftest import StillClock
from tests.unit.node.service_rig import node_of
from tests.unit.node.test_access_table import args_of


async def test_every_op_is_refused_to_everybody_else(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, only="ana") as node:
        fid = await node.finished()
        for op in OPS:
            sid = {"sid": fid}
            told = {"share.revoke": sid, "schedule.pause": sid, "schedule.remove": sid}
            args = {"share.open": {"secret": bytes(16)}, **told}.get(op) or args_of(op, fid, fid)
            refused = await node.refused(op, "eve", **args)
            assert (refused.code, refused.reason) == (403, "not-admitted"), op
        assert (await node.call("run.state", "ana", fid=fid))["state"] == "done"
