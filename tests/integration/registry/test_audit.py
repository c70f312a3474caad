"""The audit: no change without its line, and no line of a change that was refused; over real HTTP."""

import contextlib
import sqlite3

import pytest

from kodo.access.audit import ACCOUNT_CHANGES
from kodo.p2p.errors import CallError
from kodo.p2p.net.keystore import load_identity
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.operators import OperatorClient
from kodo.registry.client.signed_requests import Claimant
from kodo.registry.http.admin import Admin
from kodo.registry.server import RegistryConfig
from tests.support.records import flow, identity, signed_record

NODE = identity(1)
DEVICE = str(identity(2).peer_id)
SILENT_S = 8 * 86400

ACCOUNTS = {
    "user.add": {"name": "new"},
    "user.remove": {"name": "ana"},
    "user.enrol": {"name": "ana", "peer_id": DEVICE},
    "user.logout": {"name": "ana"},
    "user.password": {"name": "ana", "password": "correct horse battery"},
    "role.add": {"name": "new"},
    "role.remove": {"name": "reader"},
    "role.assign": {"user": "ana", "role": "reader"},
    "role.unassign": {"user": "ana", "role": "user"},
    "grant.add": {"user": "ana", "grant": "registry://r.example/r"},
    "grant.remove": {"role": "reader", "grant": "registry://r.example/r"},
}
"""Args by which each op changes what is there."""

OPERATORS = {
    "POST /register": lambda at: at.register("new.example.com"),
    "DELETE /register": lambda at: at.unregister("flows.example.com"),
    "PUT /nodes": lambda at: at.annotate("flows.example.com", {"hidden": True}),
    "POST /nodes": lambda at: at.annotate("flows.example.com", {"tags": ["x"]}, replace=True),
    "PUT /flows": lambda at: at.annotate("flows.example.com", {"hidden": True}, path=flow().path),
    "POST /flows": lambda at: at.annotate("flows.example.com", {"tags": ["x"]}, path=flow().path, replace=True),
    "POST /cleanup": lambda at: at.clean(),
    "POST /operators/code": lambda at: at.code(),
    "DELETE /operators": lambda at: at.dismiss(DEVICE),
    "PUT /mesh": lambda at: at.add_to_mesh("http://127.0.0.1:9", feed=True),
    "DELETE /mesh": lambda at: at.remove_from_mesh("http://127.0.0.1:8"),
    "POST /shutdown": lambda at: at.shutdown(),
}
"""What an operator changes by each route."""

NOT_BY_OPERATORS = {"POST /operators": "becomes one by a code; in one transaction with its line, see the admin store"}


@pytest.fixture
def config(tmp_path):
    return RegistryConfig(home=tmp_path / "registry", port=0, name="r.example", auth="local")


@pytest.fixture
async def owner(registry, clock):
    """Gives an operator at a registry that has one of everything."""
    claimant = Claimant(load_identity(registry.config.home, "user"), now=clock)
    async with OperatorClient(registry.url, claimant) as owner, RegistryClient(registry.url) as node:
        await node.up(signed_record(NODE, flow()))
        await access(owner, "role.add", {"name": "reader"})
        await access(owner, "grant.add", {"role": "reader", "grant": "registry://r.example/r"})
        await access(owner, "user.add", {"name": "ana", "roles": ["user"]})
        await owner.add_to_mesh("http://127.0.0.1:8", feed=True)
        await owner.code()
        with contextlib.closing(sqlite3.connect(registry.config.home / "registry.db")) as file:
            file.execute("INSERT INTO operators VALUES (?, 1)", (DEVICE,))
            file.commit()
        clock.advance(SILENT_S)
        yield owner


def access(owner, op, args):
    return owner._client.access(op, args)


def contents(registry):
    """Give all that is kept, but for the audit and what reading and checking claims leave."""
    with contextlib.closing(sqlite3.connect(registry.config.home / "registry.db")) as file:
        tables = [
            name
            for (name,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
            if not name.startswith(("flow_t", "sqlite_")) and name not in ("audit", "mesh_cursors")
        ]
        return {name: sorted(map(repr, file.execute(f"SELECT * FROM {name}"))) for name in tables}


def forbid_lines(registry):
    with contextlib.closing(sqlite3.connect(registry.config.home / "registry.db")) as file:
        file.executescript(
            "CREATE TRIGGER no_line BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'the disk fails here'); END"
        )


async def test_every_change_is_listed_here():
    admin = object.__new__(Admin)
    routes = {f"{route.method} {route.path}" for route in Admin.routes(admin) if route.method != "GET"}
    assert routes == OPERATORS.keys() | NOT_BY_OPERATORS.keys()
    assert set(ACCOUNT_CHANGES) == ACCOUNTS.keys()


@pytest.mark.parametrize("what", [*ACCOUNTS, *OPERATORS])
async def test_a_change_and_its_line_are_there_together_or_neither(what, owner, registry):
    def change():
        return access(owner, what, ACCOUNTS[what]) if what in ACCOUNTS else OPERATORS[what](owner)

    before = contents(registry)
    forbid_lines(registry)
    with pytest.raises(CallError, match="503 storage"):
        await change()
    assert contents(registry) == before
    with contextlib.closing(sqlite3.connect(registry.config.home / "registry.db")) as file:
        file.execute("DROP TRIGGER no_line")
    lines = (await owner.audit())["total_records"]
    await change()
    if what != "POST /shutdown":
        assert contents(registry) != before or what == "user.logout"
        assert (await owner.audit())["total_records"] == lines + 1


@pytest.mark.parametrize("what", sorted(set(ACCOUNTS) - {"user.add", "role.add"}))
async def test_what_is_refused_leaves_no_line(what, owner):
    lines = (await owner.audit())["total_records"]
    args = {**ACCOUNTS[what], ("role" if "role" in ACCOUNTS[what] else "name"): "nobody"}
    args = {"user": "nobody", "grant": args["grant"]} if what.startswith("grant") else args
    with pytest.raises(CallError, match="404"):
        await access(owner, what, args)
    assert (await owner.audit())["total_records"] == lines
