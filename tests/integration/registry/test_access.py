"""Who reads a registry that has users, over real HTTP: each standing at each call."""

import asyncio
import contextlib

import aiohttp
import pytest

from kodo.p2p.errors import CallError
from kodo.p2p.net.keystore import load_identity
from kodo.protocol.enrol import make_proof
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.operators import OperatorClient
from kodo.registry.client.signed_requests import Claimant
from kodo.registry.records.claims import TOKEN_HEADER, authorization
from kodo.registry.records.signed import pack
from kodo.registry.server import RegistryConfig
from tests.support.records import flow, identity, signed_goodbye, signed_heartbeat, signed_record

NODE, MEMBER = identity(1), identity(2)
NAMES = ("stranger", "outsider", "reader", "writer", "chief")
KEYS = {name: identity(number) for number, name in enumerate(NAMES, 60)}


@pytest.fixture
def config(tmp_path):
    return RegistryConfig(
        home=tmp_path / "registry", port=0, name="r.example", auth="local", mesh_members={str(MEMBER.peer_id)}
    )


class World:
    """A registry with a user of each standing, and a node in it."""

    def __init__(self, registry, clock):
        self.registry = registry
        self.clock = clock
        self.owner = load_identity(registry.config.home, "user")
        self.tokens = {}
        # The clock stands still, so a key's claims come from one place, where their times rise.
        keys = {**KEYS, "owner": self.owner, "member": MEMBER}
        self.claimants = {who: Claimant(key, self.shown_by(who), now=clock) for who, key in keys.items()}

    def shown_by(self, who):
        async def token(refused):
            return None if refused else self.tokens.get(who)

        return token

    def claimant(self, who):
        return self.claimants.get(who)

    def client(self, who):
        return RegistryClient(self.registry.url, claimant=self.claimant(who))

    async def do(self, op, **args):
        async with self.client("owner") as client:
            return await client.access(op, args)

    async def enrol(self, who, *roles):
        await self.do("user.add", name=who, roles=list(roles))
        code = (await self.do("user.enrol", name=who, peer_id=str(KEYS[who].peer_id)))["code"]
        async with self.client(who) as client:
            proof = make_proof(code, self.registry.peer_id, str(KEYS[who].peer_id))
            self.log_in(who, await client.access("auth.enrol", {"proof": proof}))

    def log_in(self, who, answer):
        self.tokens[who] = answer["token"]
        self.claimants[who] = Claimant(KEYS[who], self.shown_by(who), now=lambda: self.clock() + 50)

    @contextlib.asynccontextmanager
    async def operator(self, who):
        async with OperatorClient(self.registry.url, self.claimant(who)) as client:
            yield client


@pytest.fixture
async def world(registry, clock):
    made = World(registry, clock)
    await made.do("role.add", name="guest")
    await made.enrol("outsider", "guest")
    await made.enrol("reader", "guest")
    await made.do("grant.add", user="reader", grant="registry://r.*/r")
    await made.enrol("writer", "guest")
    await made.do("grant.add", user="writer", grant="registry://r.example/w")
    await made.enrol("chief", "operator")
    async with RegistryClient(registry.url) as node:
        await node.up(signed_record(NODE, flow()))
    return made


async def said(call):
    try:
        await call
    except CallError as error:
        return error.code, error.reason
    return 200


NEEDED, LACKS, NO_OPERATOR, DONE = (401, "login-needed"), (403, "not-granted"), (403, "operator-only"), 200
CLAIM = (401, "no-claim")


STANDINGS = [
    # who, reading, reading for the mesh, listing names, operating
    ("nobody", NEEDED, NEEDED, CLAIM, CLAIM),
    ("stranger", NEEDED, NEEDED, NO_OPERATOR, NO_OPERATOR),
    ("outsider", LACKS, LACKS, NO_OPERATOR, NO_OPERATOR),
    ("member", NEEDED, DONE, NO_OPERATOR, NO_OPERATOR),
    ("reader", DONE, DONE, NO_OPERATOR, NO_OPERATOR),
    ("writer", DONE, DONE, DONE, NO_OPERATOR),
    ("chief", DONE, DONE, DONE, DONE),
    ("owner", DONE, DONE, DONE, DONE),
]


async def test_each_call_in_each_standing(world):
    for who, reads, mesh, lists, operates in STANDINGS:
        async with world.client(who) as client:
            found = [
                await said(client.nodes()),
                await said(client.flows(search="*", query="online", by="name asc")),
                await said(client.record(str(NODE.peer_id))),
            ]
            assert found == [reads] * 3, who
            assert await said(client.records(0, None, 0)) == mesh, who
            assert (await client.registry_state()).nodes["online"] == 1
            changes = [
                await said(client.access("user.list", {})),
                await said(client.access("grant.add", {"user": "outsider", "grant": "node://x"})),
            ]
            assert changes == [operates] * 2, who
            me = await said(client.access("auth.whoami", {}))
            assert me == (CLAIM if who == "nobody" else DONE)
        if who == "nobody":
            continue
        async with world.operator(who) as operator:
            assert await said(operator.register("new.example")) == lists, who
            assert await said(operator.unregister("new.example")) == lists, who
            changes = [
                await said(operator.audit()),
                await said(operator.annotate("flows.example.com", {"tags": ["x"]})),
            ]
            assert changes == [operates] * 2, who


async def test_nodes_announce_themselves_as_before(world, clock):
    async with RegistryClient(world.registry.url) as node:
        clock.advance(60)
        await node.state(signed_heartbeat(NODE, at=clock.now))
        await node.down(signed_goodbye(NODE, at=clock.now))


async def test_what_is_not_there_is_not_told_to_who_may_not_read(world):
    async with world.client("stranger") as client:
        assert await said(client.record(str(identity(99).peer_id))) == NEEDED
        assert await said(client.flows(query="nonsense(")) == NEEDED
    async with world.client("reader") as client:
        assert await said(client.record(str(identity(99).peer_id))) == (404, "no-such-node")


async def test_a_grant_that_is_taken_away_ends_at_once_also_for_who_has_the_answer(world):
    registry, clock = world.registry, world.clock
    async with world.client("reader") as client, aiohttp.ClientSession(registry.url) as http:
        assert (await client.flows()).total_records == 1

        async def ask(number, **more):
            host = registry.url.removeprefix("http://")
            shown = authorization(KEYS["reader"], host, "GET", "/flows", b"", clock.now + number)
            headers = {"Authorization": shown, TOKEN_HEADER: world.tokens["reader"], **more}
            async with http.get("/flows", headers=headers) as response:
                return response.status, response.headers

        status, headers = await ask(100)
        assert (status, headers["Cache-Control"]) == (200, "private, no-cache")
        assert "Authorization" in headers["Vary"]
        assert (await ask(101, **{"If-None-Match": headers["ETag"]}))[0] == 304
        await world.do("grant.remove", user="reader", grant="registry://r.*/r")
        assert (await ask(102, **{"If-None-Match": headers["ETag"]}))[0] == 403
        assert await said(client.flows()) == LACKS
        await world.do("grant.add", user="reader", grant="registry://*/r")
        assert await said(client.flows()) == DONE
        await world.do("user.logout", name="reader")
        assert await said(client.flows()) == NEEDED


async def test_a_token_is_of_no_use_with_another_key_and_none_without(world):
    registry, clock = world.registry, world.clock
    host, token = registry.url.removeprefix("http://"), world.tokens["reader"]
    async with aiohttp.ClientSession(registry.url) as http:

        async def ask(*headers):
            async with http.get("/flows", headers=headers) as response:
                return response.status, (await response.json(content_type=None)).get("reason")

        def signed(who, number, method="GET"):
            return ("Authorization", authorization(KEYS[who], host, method, "/flows", b"", clock.now + 100 + number))

        assert await ask((TOKEN_HEADER, token)) == NEEDED
        assert await ask(("Authorization", f"Bearer {token}")) == (401, "bad-token")
        assert await ask(signed("stranger", 1), (TOKEN_HEADER, token)) == (401, "bad-token")
        assert await ask(signed("reader", 1), (TOKEN_HEADER, token), (TOKEN_HEADER, token)) == (401, "bad-token")
        assert await ask(signed("reader", 1), (TOKEN_HEADER, "x" * (16 << 10))) == (401, "bad-token")
        assert await ask(signed("reader", 1, "PUT"), (TOKEN_HEADER, token)) == (401, "bad-claim")
        good = signed("reader", 2)
        assert await ask(good, (TOKEN_HEADER, token)) == (200, None)
        assert await ask(good, (TOKEN_HEADER, token)) == (401, "stale-claim")
        async with http.get("/flows") as response:
            assert response.headers["WWW-Authenticate"] == "Kodo"


async def test_headers_of_other_bytes_are_refused_too(world, raw):
    host = world.registry.url.removeprefix("http://")
    claim = authorization(KEYS["reader"], host, "GET", "/flows", b"", world.clock.now + 200)
    for lines, reason in (
        (b"Authorization: Bearer \xff\xfe", b"bad-token"),
        (b"Authorization: Kodo \xff", b"bad-claim"),
        (b"Authorization: " + claim.encode() + b"\r\nKodo-Token: \xff", b"bad-token"),
        (b"Authorization: Bearer", b"bad-claim"),
    ):
        head = b"GET /flows HTTP/1.1\r\nHost: " + host.encode() + b"\r\nConnection: close\r\n"
        answer = await raw(head + lines + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 401"), lines
        assert reason in answer, lines


async def test_who_may_list_names_gets_nobody_elses(world):
    taken = signed_record(identity(5), name="used.example")
    async with world.operator("chief") as chief, world.operator("writer") as writer:
        async with RegistryClient(world.registry.url) as node:
            await node.up(taken)
        await chief.register("theirs.example")
        for call in (
            writer.register("theirs.example"),
            writer.register("used.example"),
            writer.register("used.example", str(NODE.peer_id)),
            writer.unregister("theirs.example"),
            writer.unregister("used.example"),
        ):
            assert await said(call) == (403, "not-yours")
        await writer.register("used.example", str(identity(5).peer_id))
        await writer.register("mine.example", str(NODE.peer_id))
        rows = {row["name"]: row["owner"] for row in (await chief.registered())["result"]}
        assert rows == {"theirs.example": None, "used.example": "writer", "mine.example": "writer"}
        await chief.unregister("mine.example")
        await writer.unregister("used.example")


async def test_each_change_of_users_leaves_a_line_without_its_secrets(world):
    await world.do("user.add", name="bob", roles=["user"], password="a secret of bob")
    async with world.operator("owner") as owner:
        lines = (await owner.audit())["result"]
    assert lines[0]["what"] == "user.add"
    assert lines[0]["data"] == {"name": "bob", "roles": ["user"]}
    assert "secret of bob" not in str(lines)


async def test_a_password_logs_in_and_tries_are_bounded(world):
    await world.do("user.add", name="bob", roles=["user"], password="a secret of bob")
    async with world.client("stranger") as client:
        answer = await client.access("auth.password", {"name": "bob", "password": "a secret of bob"})
        assert (answer["user"], answer["roles"]) == ("bob", ["user"])
        world.log_in("stranger", answer)
    async with world.client("stranger") as client:
        assert await said(client.flows()) == DONE
        assert (await client.access("auth.logout", {}))["logged_out"] is True
        assert await said(client.flows()) == NEEDED
        tries = [await said(client.access("auth.password", {"name": "bob", "password": "wrong"})) for _ in range(6)]
        assert tries[0] == (401, "bad-login")
        assert tries[-1] == (429, "slow-down")


async def test_args_that_are_none_are_refused(world):
    async with aiohttp.ClientSession(world.registry.url) as http:
        headers = {"Content-Type": "application/msgpack"}
        for body in (b"", b"\xc1", b"{}", pack([1]), pack("x"), pack({"x": 1}), b"\x80\x80"):
            async with http.post("/access/auth.info", data=body, headers=headers) as response:
                assert response.status == 400, body
        for op in ("run.launch", "node.shutdown", "x" * 200, "%00"):
            async with http.post(f"/access/{op}", data=b"\x80", headers=headers) as response:
                assert response.status == 404, op


async def test_a_reader_from_elsewhere_is_told_to_use_tls(world, monkeypatch):
    monkeypatch.setattr("aiohttp.web_request.BaseRequest.remote", "192.0.2.9")
    async with world.client("reader") as client:
        assert await said(client.flows()) == (403, "tls-only")
        assert await said(client.records(0, None, 0)) == (403, "tls-only")
        assert await said(client.access("auth.whoami", {})) == (403, "tls-only")


async def test_a_client_signs_nothing_before_it_is_asked_and_nothing_in_the_open(world):
    seen = []

    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        seen.append(b"kodo " in head.lower() or b"kodo-token" in head.lower())
        body = b'{"reason": "login-needed"}'
        writer.write(b"HTTP/1.1 401 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with RegistryClient(f"http://127.0.0.1:{port}", claimant=world.claimant("reader")) as client:
            assert await said(client.flows()) == NEEDED
        assert seen == [False, True]
    elsewhere = RegistryClient("http://192.0.2.1:8360", claimant=world.claimant("reader"))
    assert elsewhere._claimant is None


async def test_a_clock_that_is_off_does_no_harm(world):
    async def token(refused):
        return world.tokens["reader"]

    for minutes in (-90, 90):
        claimant = Claimant(KEYS["reader"], token, now=lambda: world.clock.now + minutes * 60_000)  # noqa: B023
        async with RegistryClient(world.registry.url, claimant=claimant) as client:
            assert await said(client.flows()) == DONE
            assert await said(client.flows()) == DONE
