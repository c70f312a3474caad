"""Logging in and out over calls, and what losing one's access does to calls under way."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from kodo.access.accounts import MAX_GRANTS_HELD, MAX_ROLES_HELD, MAX_ROWS
from kodo.access.devices import MAX_TOKENS
from kodo.p2p.core.callframe import encode_frame
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError
from kodo.protocol.enrol import make_proof
from kodo.protocol.link import decode_token
from tests.unit.node.conftest import StillClock, settled
from tests.unit.node.service_rig import Node, node_of

DEVICE = str(Identity.from_seed(bytes(32)).peer_id)


async def login(node: Node, name: str = "ana", peer: str = DEVICE, roles: tuple[str, ...] = ("user",)) -> str:
    await node.call("user.add", "home", name=name, roles=list(roles))
    code = (await node.call("user.enrol", "home", name=name, peer_id=peer))["code"]
    answer = await node.call("auth.enrol", peer, proof=make_proof(code, "peer-of-node", peer))
    assert answer["user"] == name
    return str(answer["token"])


async def test_a_login_binds_its_session(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        assert (await node.call("auth.info", DEVICE))["login"] == ["enrol", "password"]
        assert (await node.refused("flow.list", DEVICE)).reason == "login-needed"
        token = await login(node)
        assert (await node.call("auth.whoami", DEVICE))["principal"] == "ana"
        assert (await node.call("flow.list", DEVICE))["total_records"] == 2
        node.sessions.clear()
        assert (await node.refused("flow.list", DEVICE)).reason == "login-needed"
        answer = await node.call("auth.login", DEVICE, token=token)
        assert (answer["user"], answer["roles"], answer["grants"]) == (
            "ana",
            ["user"],
            ["flow://*/2/x", "node://*", "registry://*/r"],
        )
        assert "token" not in answer
        assert (await node.call("flow.list", DEVICE))["total_records"] == 2


async def test_a_session_has_its_turns_as_an_account_while_a_login_that_the_node_admits_lasts(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        session = node.session(DEVICE)
        await node.refused("flow.list", DEVICE)
        assert session.account is None
        await login(node)
        assert session.account is None  # it is known for what comes from now on
        await node.call("flow.list", DEVICE)
        assert session.account == "ana"
        await node.call("grant.remove", "home", role="user", grant="node://*")
        await node.call("auth.whoami", DEVICE)
        assert session.account is None
        assert not session.admitted
        assert (await node.refused("flow.list", DEVICE)).reason == "not-admitted"
        await node.call("grant.add", "home", role="user", grant="node://*")
        await node.call("flow.list", DEVICE)
        assert session.account == "ana"
        clock.advance(30 * 86400)
        await node.refused("flow.list", DEVICE)
        assert session.account is None
        assert node.session("home").account == "home"  # the operator's


async def test_where_nobody_logs_in_a_peer_has_its_turns_as_its_source(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        await node.call("flow.list", "ana")
        assert node.session("ana").account is None


async def test_runs_belong_to_the_user_on_every_device(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await login(node)
        fid = (await node.call("run.launch", DEVICE, path="flows.work", inputs={"n": 1}))["fid"]
        await node.call("user.password", "home", name="ana", password="a long password")
        assert (await node.refused("run.state", "phone", fid=fid)).reason == "login-needed"
        await node.call("auth.password", "phone", name="ana", password="a long password")
        assert (await node.call("run.state", "phone", fid=fid))["own"] is True


async def test_a_logout_ends_the_token_too(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        token = await login(node)
        assert await node.call("auth.logout", DEVICE) == {"logged_out": True}
        assert (await node.refused("flow.list", DEVICE)).reason == "login-needed"
        assert (await node.refused("auth.login", DEVICE, token=token)).reason == "bad-token"
        assert await node.call("auth.logout", DEVICE) == {"logged_out": False}


async def test_a_token_that_ended_makes_the_session_nobodys(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await login(node)
        clock.advance(30 * 86400)
        assert (await node.refused("flow.list", DEVICE)).reason == "bad-token"
        assert (await node.refused("flow.list", DEVICE)).reason == "login-needed"
        assert (await node.call("auth.whoami", DEVICE))["user"] is None


async def test_a_stolen_token_is_of_no_use_to_another_peer(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        token = await login(node)
        assert (await node.refused("auth.login", "thief", token=token)).reason == "bad-token"
        assert (await node.refused("flow.list", "thief")).reason == "login-needed"


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"op": "user.remove", "name": "ana"}, 401, "bad-token"),
        ({"op": "user.logout", "name": "ana"}, 401, "bad-token"),
        ({"op": "grant.remove", "role": "user", "grant": "flow://*/2/x"}, 503, "access-changed"),
        ({"op": "role.unassign", "user": "ana", "role": "user"}, 503, "access-changed"),
    ],
)
async def test_a_revoked_user_loses_a_running_stream(
    tmp_path: Path, clock: StillClock, change: dict[str, Any], code: int, reason: str
) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await login(node)
        fid = (await node.call("run.launch", DEVICE, path="flows.ask", inputs={"n": 1}))["fid"]
        following = asyncio.ensure_future(node.call("run.stream", DEVICE, fid=fid))
        await node.rig.until(fid, "lock")
        await settled(lambda: any(due == clock.ms + 30_000 for due, *_ in clock._sleepers))  # the next look
        await node.call(change.pop("op"), "home", **change)
        assert not following.done()
        clock.advance(30)
        with pytest.raises(CallError) as caught:
            await following
        assert (caught.value.code, caught.value.reason) == (code, reason)
        row = await node.rig.store.run(fid)
        assert row is not None
        assert not row.state.over


async def test_a_stream_whose_caller_is_unchanged_goes_on(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await login(node)
        fid = (await node.call("run.launch", DEVICE, path="flows.ask", inputs={"n": 1}))["fid"]
        following = asyncio.ensure_future(node.call("run.stream", DEVICE, fid=fid))
        await node.rig.until(fid, "lock")
        await settled(lambda: any(due == clock.ms + 30_000 for due, *_ in clock._sleepers))  # the next look
        await node.call("user.add", "home", name="bob")
        clock.advance(30)
        await settled(lambda: any(due == clock.ms + 30_000 for due, *_ in clock._sleepers))
        lid = (await node.call("lock.list", DEVICE))["result"][0]["lid"]
        await node.call("lock.answer", DEVICE, fid=fid, lid=lid, candidate=True)
        assert (await following)["state"] == "done"


async def test_a_user_changes_its_own_password_and_no_other(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await node.call("user.add", "home", name="ana", password="the first one")
        await node.call("user.add", "home", name="bob", password="the first one")
        await node.call("auth.password", DEVICE, name="ana", password="the first one")
        own = {"name": "ana", "old": "the first one", "password": "the second one"}
        assert (await node.refused("user.password", DEVICE, **{**own, "name": "bob"})).reason == "operator-only"
        assert (await node.refused("user.password", DEVICE, **{**own, "old": "wrong"})).reason == "bad-login"
        assert (await node.refused("user.password", DEVICE, name="ana", password="x" * 9)).reason == "operator-only"
        await node.call("user.password", DEVICE, **own)
        assert (await node.refused("flow.list", DEVICE)).reason == "bad-token"


async def test_what_is_listed(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await login(node, roles=("user", "developer:flows.*"))
        await node.call("role.add", "home", name="guests")
        await node.call("grant.add", "home", role="guests", grant="flow://flows.work/0/r")
        await node.call("grant.add", "home", user="ana", grant="flow://flows.ask/1/x")
        page = await node.call("user.list", "home")
        assert page["total_records"] == 1
        assert page["result"] == [
            {
                "name": "ana",
                "roles": ["developer:flows.*", "user"],
                "grants": ["flow://flows.ask/1/x"],
                "password": False,
                "created": clock.ms,
                "devices": [{"peer_id": DEVICE, "created": clock.ms, "expires_at": clock.ms + 30 * 86_400_000}],
            }
        ]
        roles = (await node.call("role.list", "home"))["result"]
        assert [(role["name"], role["users"]) for role in roles] == [
            ("developer", 1), ("guests", 0), ("operator", 0), ("user", 1),
        ]  # fmt: skip
        assert (await node.call("grant.list", "home", user="ana"))["result"] == [
            {"user": "ana", "grant": "flow://flows.ask/1/x"}
        ]
        assert {"role": "guests", "grant": "flow://flows.work/0/r"} in (await node.call("grant.list", "home"))[
            "result"
        ]


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("user.add", {"name": "Ana Large"}),
        ("user.add", {"name": "ana", "roles": ["developer"]}),
        ("user.add", {"name": "ana", "password": "short"}),
        ("user.enrol", {"name": "ana", "peer_id": "nonsense"}),
        ("grant.add", {"role": "user", "grant": "flow://x"}),
        ("grant.add", {"role": "user", "user": "ana", "grant": "node://x"}),
        ("grant.add", {"grant": "node://x"}),
        ("auth.enrol", {"proof": b"short"}),
    ],
)
async def test_bad_args_are_named(tmp_path: Path, clock: StillClock, op: str, args: dict[str, Any]) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        assert (await node.refused(op, "home", **args)).reason == "bad-args"


async def test_without_users_there_is_nothing_to_log_in_to(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock) as node:
        for op, args in [
            ("auth.login", {"token": "x"}),
            ("auth.password", {"name": "ana", "password": "x"}),
            ("auth.enrol", {"proof": bytes(32)}),
        ]:
            assert (await node.refused(op, **args)).reason == "no-login"
        assert (await node.refused("user.list", "home")).reason == "no-users"
        assert (await node.call("flow.list"))["total_records"] == 2


async def test_users_with_all_that_they_may_have_fit_an_answer(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        long = "x" * 240

        def fill(database: sqlite3.Connection) -> None:
            for number in range(MAX_ROWS + 1):
                name = f"u{number}".ljust(64, "x")
                database.execute("INSERT INTO access_users VALUES (?, NULL, 0)", (name,))
                for table, values in {
                    "access_user_roles VALUES (?, ?)": [(name, f"{long}{n}") for n in range(MAX_ROLES_HELD)],
                    "access_user_grants VALUES (?, ?)": [(name, f"{long}{n}") for n in range(MAX_GRANTS_HELD)],
                    "access_tokens VALUES (?, ?, ?, ?, ?)": [
                        (f"{name}{n}".encode(), name, DEVICE, clock.ms + 1, clock.ms + 1) for n in range(MAX_TOKENS)
                    ],
                }.items():
                    database.executemany(f"INSERT INTO {table}", values)

        await node.rig.store.change(fill)
        page = await node.call("user.list", "home", pp=500)
        assert (len(page["result"]), page["total_pages"]) == (MAX_ROWS, 2)
        assert len(encode_frame({"done": page})) < 1 << 20


@pytest.mark.parametrize("to", [{"link": True}, {"to": {"users": ["bob"]}, "mode": "x"}])
async def test_a_share_shows_no_more_than_its_maker_may_see_now(
    tmp_path: Path, clock: StillClock, to: dict[str, Any]
) -> None:
    phone = str(Identity.from_seed(bytes(31) + b"p").peer_id)
    async with node_of(tmp_path, clock, auth="local") as node:
        for role, grants in (("guest", ("node://*", "flow://*/2/x")), ("enters", ("node://*",))):
            await node.call("role.add", "home", name=role)
            for grant in grants:
                await node.call("grant.add", "home", role=role, grant=grant)
        await login(node, roles=("guest",))
        await login(node, "bob", phone, roles=("enters",))
        fid = (await node.call("run.launch", DEVICE, path="flows.ask", inputs={"n": 1}))["fid"]
        await node.rig.until(fid, "lock")
        answer = await node.call("run.share", DEVICE, fid=fid, level=2, **to)
        secret = decode_token(answer["token"]).secret if "token" in answer else None
        if secret is not None:
            await node.call("share.open", phone, secret=secret)
        assert (await node.call("run.state", phone, fid=fid))["level"] == 2
        following = asyncio.create_task(node.call("run.stream", phone, fid=fid))
        await settled(lambda: bool(node.rig.shares._uses))
        await node.call("grant.add", "home", role="guest", grant="flow://*/1/r")
        await node.call("grant.remove", "home", role="guest", grant="flow://*/2/x")
        shown = await node.call("run.state", phone, fid=fid)
        assert (shown["level"], shown["modes"]) == (1, ["r"])
        clock.advance(30)
        with pytest.raises(CallError) as ended:
            await following
        assert ended.value.reason == "access-changed"
        following = asyncio.create_task(node.call("run.stream", phone, fid=fid))
        await settled(lambda: bool(node.rig.shares._uses))
        await node.call("user.remove", "home", name="ana")
        reason = "no-such-run" if secret is None else "revoked"
        assert (await node.refused("run.state", phone, fid=fid)).reason == reason
        assert fid not in {row["fid"] for row in (await node.call("run.list", phone))["result"]}
        if secret is not None:
            assert (await node.refused("share.open", phone, secret=secret)).reason == "revoked"
        clock.advance(30)
        with pytest.raises(CallError) as ended:
            await following
        assert ended.value.reason == "revoked"


async def test_a_share_whose_maker_is_gone_reads_suspended(tmp_path: Path, clock: StillClock) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await login(node)
        fid = await node.finished(peer=DEVICE)
        for level in (1, 2):
            await node.call("run.share", DEVICE, fid=fid, link=True, level=level)

        async def states() -> list[tuple[str, int]]:
            rows = (await node.call("share.list", "home", fid=fid))["result"]
            assert rows == (await node.call("run.state", "home", fid=fid))["shares"]
            return [(row["state"], row["level"]) for row in rows]

        assert await states() == [("live", 2), ("live", 1)]
        await node.call("role.unassign", "home", user="ana", role="user")
        for grant in ("node://*", "flow://*/1/r"):
            await node.call("grant.add", "home", user="ana", grant=grant)
        assert await states() == [("live", 1), ("live", 1)]
        await node.call("grant.remove", "home", user="ana", grant="node://*")
        assert {state for state, _ in await states()} == {"suspended"}
        await node.call("user.remove", "home", name="ana")
        assert {state for state, _ in await states()} == {"suspended"}


async def test_a_run_is_shared_with_nobody_who_is_not_there(tmp_path: Path, clock: StillClock) -> None:
    phone = str(Identity.from_seed(bytes(31) + b"p").peer_id)
    async with node_of(tmp_path, clock, auth="local") as node:
        await login(node)
        await node.call("user.add", "home", name="bob")
        await node.call("role.add", "home", name="team")
        fid = await node.finished(peer=DEVICE)
        for to in ({"users": ["bob", phone]}, {"roles": ["team", "developer"]}):
            await node.call("run.share", DEVICE, fid=fid, to=to)
        for to, reason in (
            ({"users": ["bob", "bbo"]}, "no-such-user"),
            ({"users": [phone[:-1]]}, "no-such-user"),
            ({"users": ["team"]}, "no-such-user"),
            ({"roles": ["bob"]}, "no-such-role"),
        ):
            assert (await node.refused("run.share", DEVICE, fid=fid, to=to)).reason == reason
        assert (await node.call("share.list", DEVICE))["total_records"] == 2


async def test_nobody_inherits_what_an_earlier_user_of_its_name_left_unless_the_operator_says_so(
    tmp_path: Path, clock: StillClock
) -> None:
    async with node_of(tmp_path, clock, auth="local") as node:
        await login(node)
        for name in ("bob", "eve"):
            await node.call("user.add", "home", name=name)
        fid = await node.finished(peer=DEVICE)
        token = (await node.call("run.share", DEVICE, fid=fid, link=True))["token"]
        await node.call("run.share", DEVICE, fid=fid, to={"users": ["bob"]})
        assert (await node.refused("user.add", "home", name="ana")).reason == "user-exists"
        for name in ("ana", "bob", "eve"):
            await node.call("user.remove", "home", name=name)
        await node.call("user.add", "home", name="eve")
        for name in ("ana", "bob"):
            assert (await node.refused("user.add", "home", name=name)).reason == "name-used"
        secret = decode_token(token).secret
        assert (await node.refused("share.open", "phone", secret=secret)).reason == "revoked"
        await node.call("user.add", "home", name="ana", again=True)
        assert (await node.call("share.open", "phone", secret=secret))["fid"] == fid
