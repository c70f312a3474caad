"""Shares at a node that knows its users: for one of them, for a role, and by a link for whoever has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kodo.client import Client
from kodo.client.peer import RemoteNode
from kodo.p2p.errors import CallError
from tests.integration.access.conftest import address, client_of, node_at


async def enrolled(operator: RemoteNode, client: Client, place: str, name: str, *grants: str) -> None:
    await operator.request("user.add", {"name": name, "roles": []})
    for grant in grants:
        await operator.request("grant.add", {"user": name, "grant": grant})
    code = (await operator.request("user.enrol", {"name": name, "peer_id": str(client.peer_id)}))["code"]
    await client.login(place, code=code)


async def test_a_link_lets_a_stranger_in_to_its_run_alone(tmp_path: Path) -> None:
    home = tmp_path / "node"
    async with (
        node_at(home, auth="local", access_s=0.2) as node,
        client_of(home) as op,
        client_of(tmp_path / "a") as ana,
        client_of(tmp_path / "b") as bob,
        client_of(tmp_path / "e") as eve,
    ):
        place = address(node)
        operator = await op.node(place)
        await enrolled(operator, ana, place, "ana", "node://here.*", "flow://flows.*/1/x")
        await enrolled(operator, bob, place, "bob", "node://here.*", "flow://nothing/0/r")
        run = await ana.launch("flows.work", node=place)
        await run.wait()
        other = await ana.launch("flows.work", node=place)
        await other.wait()

        # Not above her own level.
        with pytest.raises(CallError, match="at level 1"):
            await run.share(level=2)
        await run.share("bob", level=0)
        [row] = await bob.runs(place)
        assert (row["fid"], row["own"], row["level"]) == (run.fid, False, 0)
        with pytest.raises(CallError, match="koco login"):
            await eve.runs(place)

        share = await run.share(downloads=1)
        got = await eve.get(str(share))
        [file] = await got.download(tmp_path / "out")
        assert (file.name, file.to.read_bytes()) == ("report.md", b"# Report")
        state = await got.state()
        assert (state["level"], state["modes"], state["own"], state["shares"]) == (1, ["r"], False, [])
        # In the same session nothing else is hers, and she is not let in otherwise.
        session = await got._remote.session()
        for op_, args in (
            ("run.state", {"fid": other.fid}),
            ("run.kill", {"fid": run.fid}),
            ("run.share", {"fid": run.fid, "link": True}),
            ("run.list", {}),
            ("flow.list", {}),
            ("share.list", {}),
        ):
            with pytest.raises(CallError) as caught:
                await got._remote.request(op_, args)
            assert caught.value.reason == "login-needed", op_
        assert await got._remote.session() is session

        # A role that was taken away takes its shares along.
        await operator.request("role.add", {"name": "readers"})
        await operator.request("role.assign", {"user": "bob", "role": "readers"})
        await other.share("role:readers")
        assert {row["fid"] for row in await bob.runs(place)} == {run.fid, other.fid}
        await operator.request("role.unassign", {"user": "bob", "role": "readers"})
        assert {row["fid"] for row in await bob.runs(place)} == {run.fid}

        # The operator, who sees nothing of what the run is about, sees with whom it is shared, and may end that.
        rows = [row async for row in operator.pages("share.list", {"fid": run.fid})]
        assert {(row["link"], *row["to"]["users"]) for row in rows} == {(True,), (False, "bob")}
        await operator.request("share.revoke", {"sid": share.sid})
        with pytest.raises(CallError, match="revoked"):
            await got.state()
