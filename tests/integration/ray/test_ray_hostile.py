"""A flow that means harm: what of it succeeds is what `node/ACCESS.md` says."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from kodo.node.executors.checks import MisconductError
from kodo.node.executors.executor import Runner
from kodo.node.executors.ray.executor import RayExecutor
from tests.integration.ray.conftest import RUNNER_USER

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def settings(home: Path):
    """A node's key, and variables that its user has."""
    given = {"KODO_HOME": str(home), "KODO_REGISTRY": "https://registry.example", "SSH_AUTH_SOCK": "/run/agent"}
    made = {"node.key": "secret", "outputs/secret.txt": "of another run", "node.pid": str(os.getpid())}
    for name, text in made.items():
        (home / name).parent.mkdir(mode=0o700, exist_ok=True)
        (home / name).write_text(text)
        (home / name).chmod(0o644 if name == "node.pid" else 0o600)
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in which any account may write."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


async def until_it_raises(runner: Runner, op: str) -> None:
    while True:
        await (runner.poll(0, 1.0) if op == "poll" else runner.asked(0, 1.0))


@pytest.mark.parametrize("raised", [False, True], ids=["said", "raised"])
@pytest.mark.parametrize("op", ["poll", "asked"])
async def test_what_a_runner_says_does_nothing_in_the_node(run, open_folder, op, raised):
    place = open_folder / "made-by-the-bomb"
    made = await run("bomb", place=str(place), op=op, raised=raised)
    with pytest.raises(MisconductError, match="does not say"):
        await until_it_raises(made.runner, op)
    assert not place.exists()
    assert (await (await run("hello", topic="still")).end())["result"] == "# still 3"


async def test_an_output_that_is_no_bytes_does_nothing_in_the_node(run, open_folder):
    place = open_folder / "made-by-the-bomb"
    made = await run("bomb", place=str(place), op="read_output")
    await made.until("output")
    with pytest.raises(MisconductError, match="does not say"):
        await made.runner.read_output("a.txt", 0, 4)
    assert not place.exists()


async def test_a_flow_may_do_what_its_account_may(run, home, account):
    told = (await (await run("look_around", home=str(home))).end())["result"]
    same = account is None
    assert told == {
        # Held by an account of its own; else open, as whoever may deploy a flow is as trusted as the node's user.
        "reads a key of the node": same,
        "lists the node's files": same,
        "writes among the node's files": same,
        "reads what another run made": same,
        "reads the variables of the node's process": same,
        "signals the node's process": same,
        "becomes root": same and os.getuid() == 0,
        # Open.
        "reads the token of Ray": True,
        "opens a socket of Ray": True,
        # Held.
        "sees the node's settings": False,
        "may ask the node's SSH agent": False,
    }


@pytest.mark.skipif(RUNNER_USER is not None, reason="it is of the process that has Ray, which is not this one")
async def test_a_node_that_starts_again_reads_no_class_that_a_flow_could_have_put_there(run, executor: RayExecutor):
    made = await run("count", n=2)
    link = executor._open_link()
    handle = await link.block(lambda: link.ray.get_actor(made.runner.name), 20, "no actor")
    assert (await link.ask(handle.describe.remote, 20, "no answer"))["pid"] != os.getpid()
    await made.end()
