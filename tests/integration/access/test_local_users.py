"""An operator, a user and a stranger at a node whose provider is `local`, over real sessions, through `koco`."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from typing import Any

import pytest

from kodo.p2p.errors import CallError
from tests.integration.access.conftest import address, client_of, koco, node_at, peer_id_of


async def test_an_operator_lets_a_user_in_who_a_stranger_is_not(tmp_path: Path) -> None:
    home, ana, eve = (tmp_path / name for name in ("node", "ana", "eve"))
    async with node_at(home, auth="local") as node:
        place = ("--node", address(node))

        async def operator(*words: str, stdin: str = "") -> dict[str, Any]:
            done = await koco(home, *words, *place, "--json", stdin=stdin)
            assert done.code == 0, done
            return done.row

        stranger = await koco(eve, "flows", *place, "--json")
        assert (stranger.code, stranger.row["error"]["reason"]) == (4, "login-needed")
        await operator("user", "add", "ana", "--role", "user", "--role", "developer:flows.work")
        await operator("role", "add", "readers")
        await operator("role", "grant", "readers", "flow://flows.work/0/r", "node://here.*")
        await operator("user", "grant", "ana", "readers", "flow://flows.ask/1/x")
        grants = (await operator("grant", "list", "--user", "ana"))["result"]
        assert ("readers", "flow://flows.work/0/r") in {(row.get("role"), row["grant"]) for row in grants}
        assert {row["grant"] for row in grants if row.get("user") == "ana"} == {"flow://flows.ask/1/x"}
        code = (await operator("user", "enrol", "ana", peer_id_of(ana)))["code"]

        # What is to be done next is said to each, in words that can be typed.
        said = await koco(ana, "login", *place)
        assert (said.code, f"koco user enrol NAME {peer_id_of(ana)}" in said.err) == (2, True)
        said = await koco(eve, "whoami", *place)
        assert (said.code, "koco login --node here" in (await koco(eve, "ps", *place)).err) == (0, True)
        assert f"koco login --node {address(node)}" in said.err
        said = await koco(ana, "login", "--name", "ana", "--password-file", "-", *place)
        assert (said.code, "empty" in said.err) == (2, True)

        # The code was overheard, and is of no use.
        overheard = await koco(eve, "login", "--code", code, *place, "--json")
        assert (overheard.code, overheard.row["error"]["reason"]) == (4, "bad-code")
        done = await koco(ana, "login", "--code", code.lower(), *place, "--json")
        assert (done.code, done.row["user"]) == (0, "ana")
        assert "token" not in done.out
        kept = ana / "logins.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        # The login is shown again by itself.
        who = (await koco(ana, "whoami", *place, "--json")).row
        assert (who["principal"], sorted(who["roles"])) == ("ana", ["developer", "readers", "user"])
        assert (who["node_peer_id"], who["develops"]) == (node.peer_id, ["flows.work"])
        # Somebody who stole it has no use for it either: it is bound to the user's key.
        eve.mkdir(exist_ok=True)
        (eve / "logins.json").write_bytes(kept.read_bytes())
        (eve / "logins.json").chmod(0o600)
        async with client_of(eve) as thief:
            assert (await thief.whoami(address(node)))["user"] is None
        # Only an operator makes users.
        async with client_of(ana) as user:
            assert (await user.whoami(address(node)))["user"] == "ana"
            with pytest.raises(CallError, match="operator"):
                await (await user.node(address(node))).request("user.add", {"name": "eve"})

        await operator("user", "password", "ana", "--password-file", "-", stdin="a long password\n")
        async with client_of(ana) as user:
            assert (await user.whoami(address(node)))["user"] is None, "a new password ends the logins"
            with pytest.raises(CallError, match="no user has this name and password"):
                await user.login(address(node), name="ana", password="a wrong password")
        right = ("login", "--name", "ana", "--password-file", "-", *place, "--json")
        assert (await koco(ana, *right, stdin="a long password\n")).row["user"] == "ana"
        assert (await koco(ana, "logout", *place, "--json")).row["logged_out"] is True
        assert kept.read_text().find("kodo_") == -1


async def test_who_is_removed_loses_what_is_under_way_within_the_time_that_was_set(tmp_path: Path) -> None:
    home = tmp_path / "node"
    async with (
        node_at(home, auth="local", access_s=0.5) as node,
        client_of(home) as op,
        client_of(tmp_path / "a") as ana,
    ):
        place = address(node)
        remote = await op.node(place)
        await remote.request("user.add", {"name": "ana"})
        code = (await remote.request("user.enrol", {"name": "ana", "peer_id": str(ana.peer_id)}))["code"]
        await ana.login(place, code=code)
        run = await ana.launch("flows.ask", node=place)
        seen = asyncio.Event()

        async def follow() -> None:
            async for event in run.follow():
                if event.event == "lock":
                    seen.set()

        following = asyncio.ensure_future(follow())
        await asyncio.wait_for(seen.wait(), 20)
        [row] = await op.runs(place, others=True)
        assert (row["fid"], row["own"], row["state"], row["progress"]) == (run.fid, False, "locked", None)
        assert await op.runs(place) == []
        # A change of what she may do ends the stream for a moment; she goes on where it was.
        await remote.request("grant.add", {"user": "ana", "grant": "flow://x/1/r"})
        await asyncio.sleep(1.5)
        assert not following.done()
        await remote.request("user.remove", {"name": "ana"})
        with pytest.raises(CallError) as caught:
            await asyncio.wait_for(following, 20)
        assert caught.value.code == 401
        # The run is nobody's business any more, and goes on.
        state = await remote.request("run.state", {"fid": run.fid})
        assert (state["state"], state["contents"], state["inputs"]) == ("locked", False, {})
