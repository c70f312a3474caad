"""A local flow: a node of its own inside this process, for this one run."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kodo.client.config import Loaded
from kodo.p2p.errors import NotFoundError, UsageError
from kodo.p2p.net.keystore import load_identity, make_home
from kodo.protocol.breakpoints import TERMINAL

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["LocalFlow", "describe_local", "embedded_node", "local_entry", "prepare_node"]

logger = logging.getLogger(__name__)

_FILE_AND_NAME = re.compile(r"(?s)(.+\.py)(:[A-Za-z_][\w.]*)?\Z")
_GRAPHS = re.compile(r"(?s)(.*\blanggraph\.json)(:[^:]+)?\Z")


def local_entry(text: str, folder: Path) -> tuple[str, list[Path]]:
    """Return the entry that means this local flow, and the folders that its code is imported from, its own first.

    `./dir/x.py:flow` is module `x` in `dir`, and `./dir/x.py` each `@flow` in it; in a package it is `dir.x`.
    A module is looked for in `folder`, the working directory.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is not a local flow.
    """
    from kodo.flow._runtime.projects import roots_of_graphs
    from kodo.flow._runtime.sources import file_of, module_of, root_of

    if match := _FILE_AND_NAME.match(text):
        file = _file(match[1], folder)
        if not file.stem.isidentifier():
            raise UsageError(f"{file.name} cannot be imported: its name is not a Python name")
        roots = list(dict.fromkeys([file.parent, root_of(file)]))
        return module_of(file, roots) + (match[2] or ""), roots
    if match := _GRAPHS.match(text):
        file = _file(match[1], folder)
        return f"{file}{match[2] or ''}", roots_of_graphs(str(file), folder)
    if text.lower().endswith((".yaml", ".yml")):
        return str(Path(text).expanduser()), [_file(text, folder).parent]
    if ":" in text and not text.startswith((".", "/", "~")):
        source = file_of(text, folder)
        return text, list(dict.fromkeys([folder, *([root_of(source)] if source else [])]))
    raise UsageError(f"{text!r} is not a local flow; write ./file.py:flow, module:flow or ./file.yaml")


def _file(text: str, folder: Path) -> Path:
    path = (folder / Path(text).expanduser()).resolve()
    if not os.path.isfile(path):
        raise NotFoundError(f"there is no file {path}")
    return path


@dataclass(frozen=True, slots=True)
class LocalFlow:
    """A flow of this machine, described; nothing runs yet.

    Attributes:
        entry: what a node is told to offer.
        folders: where its code is imported from, the first is its own.
        info: what is said of it, as `FlowInfo.to_map`.
    """

    entry: str
    folders: list[Path]
    info: Mapping[str, Any]


async def describe_local(flow: str) -> LocalFlow:
    """Describe a local flow without a node. An `env` of its `langgraph.json` that is not there is logged.

    Raises:
        UsageError: it cannot be run, or several are meant; says why, and which.
        NotFoundError: there is no such file.
    """
    from kodo.node.catalog.catalog import describe_flows

    entry, folders = local_entry(flow, Path.cwd())
    _warn_of_environment(entry)
    infos = await describe_flows(
        {"roots": [str(folder) for folder in folders], "flows": [entry], "base": str(Path.cwd())}
    )
    if len(infos) != 1:
        names = ", ".join(_attribute(info) for info in infos[:20])
        raise UsageError(f"that means {len(infos)} flows ({names}); name one: ./file.py:flow or module:flow")
    if infos[0].get("error"):
        raise UsageError(f"the flow cannot be run: {infos[0]['error']}")
    return LocalFlow(entry, folders, infos[0])


def _attribute(info: Mapping[str, Any]) -> str:
    """Return what stands behind the colon to name a flow: several may have one function's name."""
    return str(info.get("entry")).partition(":")[2] or str(info.get("path")).rpartition(".")[2]


def _warn_of_environment(entry: str) -> None:
    from kodo.flow._runtime.projects import MISSING_ENVIRONMENT, environment_file, is_graphs, is_missing

    variables = environment_file(entry, Path.cwd()) if is_graphs(entry) else None
    if variables is not None and is_missing(variables):
        logger.warning(MISSING_ENVIRONMENT, variables, entry.partition(":")[0])


async def prepare_node() -> None:
    """Import what a node needs, while something else is waited for."""
    await asyncio.to_thread(importlib.import_module, "kodo.node.app")


@contextlib.asynccontextmanager
async def embedded_node(context: Context, flow: LocalFlow, executor: str | None = None) -> AsyncIterator[str]:
    """Run a node that offers `flow` alone, to this user alone, on loopback, not announced; gives its address.

    Its home is a temporary folder that goes with it; the user's own key and settings stay in use.

    Raises:
        UsageError: the flow needs Ray, which is not installed.
    """
    from kodo.cli.nodes import node_config, running_node

    settings = context.loaded.override(
        host=["127.0.0.1"], port=0, lan=False, name="local", open=False, auth="null", executor=executor
    )
    if settings.sources.get("runners") == "default":
        settings = settings.override(runners=1)
    home = Path(tempfile.mkdtemp(prefix="koco-"))

    async def described(request: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [dict(flow.info)]

    try:
        context.say("starting a node for this run")
        config = node_config(
            Loaded(home, settings.settings, settings.sources),
            scope=None,
            registries=(),
            entries=(flow.entry,),
            roots=tuple(flow.folders),
            runner_user=None,  # it is this user's own flow
            # Everybody on this machine reaches loopback, and the other providers know users of other nodes.
            only=str(load_identity(make_home(context.loaded.home), "user").peer_id),
            executor=settings.settings.executor or "auto",
            outlive=False,
        )
        with _terminal(context):
            async with running_node(config, describe=described) as node:
                broken = next((each.error for each in node.flows if each.error), None)
                if broken:
                    raise UsageError(f"the flow cannot be run: {broken}")
                yield str(node.addresses[0])
    finally:
        context.say("stopping the node of this run")
        await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


@contextlib.contextmanager
def _terminal(context: Context) -> Iterator[None]:
    """Name the terminal that `breakpoint()` uses in the flow's process, if there is one."""
    if not (context.interactive and sys.stdout.isatty()):
        yield
        return
    os.environ[TERMINAL] = os.ttyname(sys.stdin.fileno())
    try:
        yield
    finally:
        del os.environ[TERMINAL]
