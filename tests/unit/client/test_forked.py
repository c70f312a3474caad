"""A client in a process that was forked since it was opened: every use says so, and none waits for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAD = """
import asyncio, os, sys
from pathlib import Path
from kodo.client import Client
from kodo.client.resolve import Target
from kodo.client.sync import Client as SyncClient
from kodo.p2p.core.identity import Identity
from kodo.p2p.errors import UsageError
from kodo.p2p.net.memory import MemoryNetwork, MemoryTransport

given = dict(lan=False, registries=[], transport=MemoryTransport(MemoryNetwork()))
home = Path(sys.argv[1])
node = str(Identity.from_seed(b"n" * 32).peer_id)

def in_child(use):
    child = os.fork()
    if not child:
        try:
            use()
        except UsageError as error:
            os._exit(7 if "forked" in str(error) else 8)
        except BaseException:
            os._exit(9)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

SYNC = """
with SyncClient(home, **given) as client:
    print(in_child(lambda: {use}))
    client.nodes()
"""

ASYNC = """
async def main():
    async with Client(home, **given) as client:
        remote = client._directory.remote(Target(Identity.from_seed(b"n" * 32).peer_id, ()))
        print(in_child(lambda: asyncio.run({use})))

asyncio.run(main())
"""


def code(script: str, folder: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + script, str(folder)], capture_output=True, check=True, timeout=120
    )
    return int(done.stdout)


@pytest.mark.parametrize(
    "use",
    [
        "client.nodes()",
        "list(client.flows())",
        "client.launch('a', node=node)",
        "client.whoami(node)",
        "client.locks()",
    ],
)
def test_without_async_every_use_in_a_forked_process_says_so(use: str, tmp_path: Path) -> None:
    assert code(SYNC.format(use=use), tmp_path) == 7


def test_leaving_the_block_of_a_client_in_a_forked_process_is_quiet(tmp_path: Path) -> None:
    assert code(SYNC.format(use="client.__exit__(None, None, None)"), tmp_path) == 0


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        ("remote.request('node.state', {})", 7),
        ("client.__aexit__(None, None, None)", 0),
    ],
)
def test_a_forked_process_is_told_and_may_leave(use: str, expected: int, tmp_path: Path) -> None:
    assert code(ASYNC.format(use=use), tmp_path) == expected
