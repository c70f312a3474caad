"""A local flow: a node of its own inside this process, for this one run."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kodo.client.config import Loaded
from kodo.p2p.errors import NotFoundError, UsageError
from kodo.p2p.net.keystore import load_identity, make_home

if TYPE_CHECKING:
    from kodo.cli.runtime import Context
    from kodo.client import Client

__all__ = ["describe_local", "embedded_node", "local_entry", "only_flow"]

_FILE_AND_NAME = re.compile(r"(?s)(.+\.py)(:[A-Za-z_][\w.]*)?\Z")


def local_entry(text: str, folder: Path) -> tuple[str, Path]:
    """Return the entry that means this local flow, and the folder that its code is imported from.

    `./dir/x.py:flow` is module `x` in `dir`, and `./dir/x.py` each `@flow` in it; a module is looked for in `folder`,
    the working directory.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is not a local flow.
    """
    if match := _FILE_AND_NAME.match(text):
        file = _file(match[1], folder)
        if not file.stem.isidentifier():
            raise UsageError(f"{file.name} cannot be imported: its name is not a Python name")
        return file.stem + (match[2] or ""), file.parent
    if text.lower().endswith((".yaml", ".yml")):
        return str(Path(text).expanduser()), _file(text, folder).parent
    if ":" in text and not text.startswith((".", "/", "~")):
        return text, folder
    raise UsageError(f"{text!r} is not a local flow; write ./file.py:flow, module:flow or ./file.yaml")


def _file(text: str, folder: Path) -> Path:
    path = (folder / Path(text).expanduser()).resolve()
    if not path.is_file():
        raise NotFoundError(f"there is no file {path}")
    return path


@contextlib.asynccontextmanager
async def embedded_node(context: Context, flow: str, executor: str | None = None) -> AsyncIterator[str]:
    """Run a node that offers `flow` alone, to this user alone, on loopback, not announced; gives its address.

    Its home is a temporary folder that goes with it; the user's own key and settings stay in use.

    Raises:
        UsageError: the flow needs Ray, which is not installed, or this is no local flow.
        NotFoundError: there is no such file.
    """
    from kodo.cli.nodes import node_config, running_node

    entry, folder = local_entry(flow, Path.cwd())
    settings = context.loaded.override(
        host=["127.0.0.1"], port=0, lan=False, name="local", open=False, auth="null", executor=executor
    )
    if settings.sources.get("runners") == "default":
        settings = settings.override(runners=1)
    home = Path(tempfile.mkdtemp(prefix="koco-"))
    try:
        context.say("starting a node for this run")
        config = node_config(
            Loaded(home, settings.settings, settings.sources),
            scope=None,
            registries=(),
            entries=(entry,),
            roots=(folder,),
            runner_user=None,  # it is this user's own flow
            # Everybody on this machine reaches loopback, and the other providers know users of other nodes.
            only=str(load_identity(make_home(context.loaded.home), "user").peer_id),
            executor=settings.settings.executor or "auto",
            outlive=False,
        )
        async with running_node(config) as node:
            yield str(node.addresses[0])
    finally:
        context.say("stopping the node of this run")
        await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


async def only_flow(client: Client, node: str) -> str:
    """Return the path of the one flow that an embedded node offers.

    Raises:
        UsageError: it cannot be run; says why.
    """
    return str(_only([row async for row in client.flows(node=node)])["path"])


async def describe_local(flow: str) -> dict[str, Any]:
    """Describe a local flow as `flow.schema` of a node would, without a node.

    Raises:
        UsageError: it cannot be run; says why.
        NotFoundError: there is no such file.
    """
    from kodo.node.catalog.catalog import describe_flows

    entry, folder = local_entry(flow, Path.cwd())
    infos = await describe_flows({"roots": [str(folder)], "flows": [entry], "base": str(Path.cwd())})
    info = _only([{**info, "broken": info.get("error")} for info in infos])
    return {key: info[key] for key in ("path", "name", "description", "schema", "example", "returns") if key in info}


def _only(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    if len(rows) != 1:
        names = ", ".join(str(row.get("path")).rpartition(".")[2] for row in rows[:20])
        raise UsageError(f"that means {len(rows)} flows ({names}); name one: ./file.py:flow or module:flow")
    if rows[0].get("broken"):
        raise UsageError(f"the flow cannot be run: {rows[0]['broken']}")
    return rows[0]
