"""What a client sends to a registry over plain HTTP that others could read: nothing of what is private."""

import asyncio
import inspect

import pytest

from kodo.client import Client
from kodo.client.login import LoginKeeper
from kodo.client.logins import Logins
from kodo.client.registry_account import RegistryDesk
from kodo.p2p.errors import CallError
from kodo.registry.client.client import RegistryClient
from kodo.registry.client.operators import OperatorClient
from kodo.registry.client.signed_requests import Claimant
from kodo.registry.http.access import ACCESS_OPS
from tests.support.records import identity

ME = identity(1)

CALLS = {
    "register": ("node.example",),
    "unregister": ("node.example",),
    "registered": (),
    "annotate": ("node.example", {"hidden": True}),
    "stale": (),
    "clean": (),
    "audit": (),
    "operators": (),
    "code": (),
    "dismiss": (str(ME.peer_id),),
    "mesh": (),
    "add_to_mesh": ("https://other.example",),
    "remove_from_mesh": ("https://other.example",),
    "enrol": ("7K3M-0PQR-W9XZ",),
    "shutdown": (),
}
"""Every call of an operator."""


@pytest.fixture
async def listener():
    """Gives a URL that is not one of this machine as far as a client can tell, and what arrives there."""
    arrived = []

    async def answer(reader, writer):
        arrived.append(await reader.read(1 << 16))
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        # The kernel takes this address for its own; it is none by which anybody could tell so.
        yield f"http://0.0.0.0:{server.sockets[0].getsockname()[1]}", arrived


def refuses():
    return pytest.raises(CallError, match="tls-only")


@pytest.mark.parametrize("op", sorted(set(ACCESS_OPS) - {"auth.info"}))
async def test_no_call_about_users_is_sent(op, listener):
    url, arrived = listener
    async with RegistryClient(url, claimant=Claimant(ME)) as client:
        with refuses():
            await client.access(op, {"name": "ana", "password": "a password"})
    assert arrived == []


async def test_every_call_of_an_operator_is_listed_here():
    public = {name for name, _ in inspect.getmembers(OperatorClient, inspect.isfunction) if name[0] != "_"}
    assert public == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
async def test_no_call_of_an_operator_is_sent(name, listener):
    url, arrived = listener
    async with OperatorClient(url, Claimant(ME)) as client:
        with refuses():
            await getattr(client, name)(*CALLS[name])
    assert arrived == []


async def test_nobody_is_asked_for_a_password_in_vain(listener, tmp_path):
    url, arrived = listener
    with refuses():
        async with RegistryDesk(url, LoginKeeper(Logins(tmp_path / "logins.json", keyring=False), ME), 10.0):
            pass
    with refuses():
        async with Client(home=tmp_path / "home") as client:
            await client.login(url, name="ana", password="a password")
    assert arrived == []
