"""Every op in every standing against the tables of node/ACCESS.md: who may do what, and what is shown."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kodo.node.runs.launch import Order
from kodo.node.shares.invitations import guest_id
from kodo.node.store.invitation_rows import InvitationRow
from kodo.node.store.schedule_rows import ScheduleRow
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import CallError
from kodo.protocol.access import Grant, Principal, Role, parse_grant
from kodo.protocol.calls import OPS
from tests.unit.node.conftest import StillClock, fid_of
from tests.unit.node.service_rig import LID, Node, node_of

ACCESS = (Path(__file__).parents[3] / "node" / "ACCESS.md").read_text("utf-8")


def tables() -> Iterator[list[list[str]]]:
    """Give the tables of the page: rows of cells, the header first, signs without their ticks."""
    for block in re.findall(r"(?:^\|.*\n)+", ACCESS, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        yield [rows[0], *rows[2:]]


def table(first: str, *, last: bool = False) -> list[list[str]]:
    """The first, or the last, table whose first column has that head."""
    return [rows for rows in tables() if rows[0][0] == first][-1 if last else 0]


def words(cell: str) -> list[str]:
    return re.findall(r"[^\s`]+", cell)


SIGNS = {row[0]: row[1] for row in table("sign")[1:]}
STANDINGS = table("op")[0][1:]
EXPECTED = {row[0].strip("`"): dict(zip(STANDINGS, row[1:], strict=True)) for row in table("op")[1:]}
SHOWN = {standing: row[1:] for row in table("standing", last=True)[1:] for standing in words(row[0])}

DEVICE = str(Identity.from_seed(bytes(32)).peer_id)
ANSWERS = frozenset(
    ["bad-state", "stopping", "bad-login", "bad-code", "no-such-user", "no-such-role", "no-such-grant"]
)
"""Refusals of what was asked, not of who asks."""
SHARES: dict[str, tuple[int, str]] = {"s0r": (0, "r"), "s1r": (1, "r"), "s2x": (2, "x"), "link": (1, "r")}
"""Standings to which runs are shared: level and mode."""

LAST = ("share.revoke", "schedule.remove", "lock.answer", "run.delete", "node.shutdown")
TEXT = b"a file"
SOMEBODY = "somebody"


def principal(standing: str) -> Principal:
    """Give the caller of a standing; its runs are `me`'s."""
    node = Grant("node", "flows.example.com")
    if standing == "stranger":
        return Principal("peer", "peer", roles=frozenset(), grants=())
    if standing == "outsider":
        return Principal("me", "peer", "me", grants=(Grant("node", "elsewhere.*"), Grant("flow", "*", 2, "x")))
    if standing == "none":
        return Principal("me", "peer", "me", grants=(node, Grant("flow", "other.*", 2, "x")))
    if re.fullmatch("[012][rx]", standing):
        grant = parse_grant(f"flow://flows.*/{standing[0]}/{standing[1]}")
        return Principal("me", "peer", "me", grants=(node, grant))
    if standing in ("link", "guest"):
        return Principal("peer", "peer", roles=frozenset(), grants=())
    if standing in SHARES:
        return Principal("me", "peer", "me", grants=(node, Grant("flow", "other.*", 2, "x")))
    whole = (node, Grant("flow", "*", 2, "x"))
    match standing.rstrip("+"):
        case "other":
            roles, develops = {Role.USER, Role.DEVELOPER}, ("other.*", "flows.worker")
        case "dev":
            roles, develops = {Role.DEVELOPER}, ("flows.*",)
        case "op":
            roles, develops = {Role.OPERATOR}, ()
        case _:
            raise AssertionError(f"the test knows no standing {standing!r}; teach it")
    return Principal("me", "peer", "me", roles=frozenset(roles), grants=whole, develops=develops)


def whose(standing: str) -> str:
    return "me" if re.fullmatch("none|[012][rx]", standing) else SOMEBODY


def args_of(op: str, done: str, asking: str) -> dict[str, Any]:
    """Give args with which the op is answered when it may be: on a run that is over, or on one that asks."""
    if op in ("lock.get", "lock.answer"):
        return {"fid": asking, "lid": LID} | ({"candidate": True} if op == "lock.answer" else {})
    if op in ("output.manifest", "output.read"):
        return {"fid": done, "name": "report.md"}
    if op == "input.write":
        return {"name": "x", "size": len(TEXT), "sha256": hashlib.sha256(TEXT).hexdigest()}
    known: dict[str, dict[str, Any]] = {
        "node.scale": {"runners": 1},
        "auth.login": {"token": "wrong"},
        "auth.password": {"name": "ana", "password": "wrong"},
        "auth.enrol": {"proof": bytes(32)},
        "user.add": {"name": "bob"},
        "user.remove": {"name": "ana"},
        "user.enrol": {"name": "ana", "peer_id": DEVICE},
        "user.logout": {"name": "ana"},
        "user.password": {"name": "ana", "password": "a long one"},
        "role.add": {"name": "guests"},
        "role.remove": {"name": "guests"},
        "role.assign": {"user": "ana", "role": "guests"},
        "role.unassign": {"user": "ana", "role": "guests"},
        "grant.add": {"user": "ana", "grant": "node://x"},
        "grant.remove": {"user": "ana", "grant": "node://x"},
        "memory.list": {"scope": "long", "of": "flows.work"},
        "memory.put": {"scope": "long", "of": "flows.work", "key": "k", "value": 1},
        "flow.schema": {"path": "flows.work"},
        "run.launch": {"path": "flows.work", "inputs": {"n": 1}},
        "run.share": {"fid": done, "link": True},
        "schedule.add": {"path": "flows.work", "inputs": {"n": 1}, "every_s": 60},
        "invitation.add": {"path": "flows.work", "inputs": {"n": 1}},
    }
    return known.get(op, {"fid": done} if "fid" in OPS[op].model_fields else {})


class Scene:
    """A node with a run that is over and one that asks, belonging to `owner`; the caller is `who`."""

    def __init__(self, node: Node, who: Principal, owner: str, standing: str = ""):
        self.node = node
        self.owner = owner
        self.standing = standing
        self.guests: dict[str, InvitationRow] = {}

        async def identify(peer_id: str, token: str | None = None) -> Principal:
            return who

        async def present(principal: str) -> Principal:
            return Principal(principal, principal, grants=(Grant("node", "*"), Grant("flow", "*")))

        node.provider.identify = identify  # type: ignore[method-assign]
        node.provider.present = present  # type: ignore[method-assign]

    async def run_of(self, entry: str) -> str:
        rig = self.node.rig
        if guest := self.guests.get(f"flows.{entry}"):
            self.owner = guest_id(guest)
        order = Order(self.owner, f"flows.{entry}", entry.upper(), entry, {"n": 3}, tags=("secret tag",))
        fid, _ = await rig.runs.launch(order)
        await (rig.until(fid, "lock") if entry == "ask" else rig.all_events(fid))
        if self.standing in SHARES:
            level, mode = SHARES[self.standing]
            if self.standing == "link":
                await self.node.call("share.open", "peer", secret=(await self.share(fid, level, mode, link=True))[1])
            else:
                await self.share(fid, level, mode, users=["me"])
        return fid

    async def share(self, fid: str, level: int, mode: str, **to: Any) -> tuple[str, bytes | None]:
        row = await self.node.rig.store.run(fid)
        assert row is not None
        terms: dict[str, Any] = {"level": level, "mode": mode, "expires_s": 60.0, "downloads": None}
        share, secret = await self.node.rig.shares.add(row, self.owner, **terms, **({"link": False} | to))
        return share.sid, secret

    async def invite(self) -> None:
        """Let the caller open an invitation to the flows, whose runs are those that this scene makes."""
        for path in ("flows.ask", "flows.work"):
            row = InvitationRow(
                **{"sid": "", "principal": SOMEBODY, "payer": SOMEBODY, "digest": b"", "path": path, "name": "WORK"},
                **{"inputs": {}, "note": "", "level": 1, "launches": 5, "see": False, "created": 0, "expires": 0},
            )
            made, secret = await self.node.invitations.add(row, 60.0)
            await self.node.call("share.open", "peer", secret=secret)
            self.guests[path] = made

    async def schedule(self) -> str:
        row = ScheduleRow(
            **{"sid": "", "principal": self.owner, "payer": self.owner, "path": "flows.work", "name": "WORK"},
            **{"inputs": {"n": 1}, "tags": [], "cron": None, "tz": "UTC", "at": None, "every_s": 3600},
            **{"missed": "once", "overlap": "skip", "created": 0, "due": None},
        )
        return (await self.node.schedules.add(row)).sid

    async def answer(self, op: str, args: dict[str, Any]) -> str:
        """Make the call; give the sign of what came back."""
        if self.guests and "invitation" in OPS[op].model_fields:
            asks = op in ("lock.get", "lock.answer")
            args = {**args, "invitation": self.guests["flows.ask" if asks else "flows.work"].sid}
        try:
            await self.node.call(op, "peer", [TEXT] if op == "input.write" else (), **args)
        except CallError as error:
            refusal = f"{error.code} `{error.reason}`"
            for sign, meaning in SIGNS.items():
                if meaning.startswith(refusal):
                    return sign
            if error.reason not in ANSWERS:
                return f"{refusal}, which the page does not know"
        return "✓"


def at(tmp_path: Path, clock: StillClock, standing: str) -> Any:
    roles = {"dev+": ["developer"], "op+": ["operator"]}.get(standing, [])
    return node_of(tmp_path, clock, contents_for=roles, auth="local")


def test_the_table_has_every_op() -> None:
    assert sorted(EXPECTED) == sorted(OPS), "every op has a row in node/ACCESS.md"
    assert {sign for row in EXPECTED.values() for sign in row.values()} <= SIGNS.keys()


@pytest.mark.parametrize("standing", STANDINGS)
async def test_each_op_is_answered_as_the_table_says(tmp_path: Path, clock: StillClock, standing: str) -> None:
    async with at(tmp_path, clock, standing) as node:
        scene = Scene(node, principal(standing), whose(standing), standing)
        if standing == "guest":
            await scene.invite()
        done, asking = await scene.run_of("work"), await scene.run_of("ask")
        # Of a run of its own: an opened link shows it.
        linked = await Scene(node, principal(standing), whose(standing)).run_of("work")
        sid, secret = await scene.share(linked, 0, "r", link=True)
        scheduled = {"sid": await scene.schedule()}
        told: dict[str, dict[str, Any]] = {"share.revoke": {"sid": sid}, "share.open": {"secret": secret}}
        told |= {"schedule.pause": scheduled, "schedule.remove": scheduled}
        # Last what ends things, so that all else finds them.
        order = sorted(OPS, key=lambda op: LAST.index(op) if op in LAST else -1)
        found = {op: await scene.answer(op, told.get(op) or args_of(op, done, asking)) for op in order}
        assert found == {op: EXPECTED[op][standing] for op in order}


@pytest.mark.parametrize("standing", STANDINGS)
async def test_what_is_shown_is_what_the_table_says(tmp_path: Path, clock: StillClock, standing: str) -> None:
    if EXPECTED["run.state"][standing] != "✓":
        assert standing not in SHOWN
        return
    events, fields = SHOWN[standing]
    async with at(tmp_path, clock, standing) as node:
        scene = Scene(node, principal(standing), whose(standing), standing)
        by = {}
        if standing == "guest":
            await scene.invite()
            by = {"invitation": scene.guests["flows.work"].sid}
        fid = await scene.run_of("work")
        state = await node.call("run.state", "peer", fid=fid, **by)
        private = {"inputs", "progress", "final", "outputs", "agents"}
        shown = {
            name for name in private if state[name] and state[name] != {"runtime_s": state["final"]["runtime_s"]}
        }
        assert shown == {word.strip(",") for word in words(fields)}
        told = whose(standing) if state["own"] or standing.startswith("op") else None
        assert state["launcher"] == told
        if events:
            await node.call("run.stream", "peer", fid=fid, **by)
            assert [item["event"] for item in node.items] == words(events)
        assert bool(state["shares"]) == (standing in SHARES and state["own"])
        if EXPECTED["run.list"][standing] != "✓":
            return
        rows = (await node.call("run.list", "peer", others=True, details=True, **by))["result"]
        assert bool(rows[0]["inputs"]) == bool(fields)
        assert [(row["fid"], row["launcher"]) for row in rows] == [(fid, told)]
        assert bool(rows[0]["tags"]) == bool(rows[0]["progress"]) == bool(state["tags"]) == bool(fields)
        mine = (await node.call("run.list", "peer", **by))["result"]
        assert bool(mine) == (whose(standing) == "me" or standing in SHARES or standing == "guest")


@pytest.mark.parametrize("standing", ["stranger", "outsider", "other"])
async def test_a_run_that_is_not_theirs_and_one_that_never_was_are_answered_alike(
    tmp_path: Path, clock: StillClock, standing: str
) -> None:
    async with at(tmp_path, clock, standing) as node:
        scene = Scene(node, principal(standing), whose(standing))
        done, asking = await scene.run_of("work"), await scene.run_of("ask")
        reads: list[str] = []
        read = node.rig.store._read

        async def counted(ask: Any) -> Any:
            reads.append("read")
            return await read(ask)

        node.rig.store._read = counted  # type: ignore[method-assign]
        for op in OPS:
            args = args_of(op, done, asking) if op != "share.open" else {}
            if "fid" not in args:
                continue
            answers = []
            for fid in (args["fid"], fid_of(7)):
                reads.clear()
                error = await node.refused(op, "peer", **{**args, "fid": fid})
                answers.append((error.code, error.reason, error.message, error.data, len(reads)))
            assert answers[0] == answers[1], op


async def test_an_error_of_somebody_elses_run_is_its_type_alone(tmp_path: Path, clock: StillClock) -> None:
    async with at(tmp_path, clock, "op") as node:
        scene = Scene(node, principal("op"), SOMEBODY)
        order = Order(SOMEBODY, "flows.work", "WORK", "work", {"n": "no number"}, tags=())
        fid, _ = await node.rig.runs.launch(order)
        await node.rig.all_events(fid)
        assert (await node.call("run.state", "peer", fid=fid))["fatal"] == {"type": "ValueError"}
        assert (await node.call("run.list", "peer", others=True))["result"][0]["error"] == "ValueError"
        assert await scene.answer("run.stream", {"fid": fid}) == "P"


async def test_an_operator_ends_and_deletes_the_run_of_a_user_who_was_removed(
    tmp_path: Path, clock: StillClock
) -> None:
    async with at(tmp_path, clock, "op") as node:
        ana = Principal("ana", "peer", "ana", grants=(Grant("node", "*"), Grant("flow", "*", 2, "x")))
        Scene(node, principal("op"), SOMEBODY)
        await node.call("user.add", "peer", name="ana")
        fid = await Scene(node, ana, "ana").run_of("ask")
        Scene(node, principal("op"), SOMEBODY)
        await node.call("user.remove", "peer", name="ana")
        row = (await node.call("run.list", "peer", others=True))["result"][0]
        assert (row["fid"], row["launcher"], row["own"]) == (fid, "ana", False)
        assert (await node.call("run.kill", "peer", fid=fid))["state"] == "error"
        assert (await node.rig.all_events(fid))[-2].data == {"by": "me"}
        await node.rig.gone(fid)
        assert (await node.call("run.delete", "peer", fid=fid))["deleted"]
        assert (await node.refused("run.state", "peer", fid=fid)).reason == "no-such-run"


async def test_whose_a_run_is_that_a_node_launched_for_a_run_of_its_own_is_that_node(
    tmp_path: Path, clock: StillClock
) -> None:
    async with at(tmp_path, clock, "op") as node:
        fid = await Scene(node, principal("op"), f"{fid_of(1)}/far").run_of("work")
        assert (await node.call("run.state", "peer", fid=fid))["launcher"] == "far"
