"""Flows are used: find them, launch them, follow them, answer them, download what they made.

    async with Client() as kodo:
        run = await kodo.launch("flows.example.com/Competitor Analysis", topic="bikes")
        async for event in run.follow():
            print(event.event, event.data)
        await run.download("out/")

`kodo.client.sync` is the same without async.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kodo.client.client import Client
    from kodo.client.flow import FlowOnNode
    from kodo.client.inbox import Inbox
    from kodo.client.links import Share
    from kodo.client.run import Run
    from kodo.client.run_selection import FoundRuns, RunSelection
    from kodo.client.transfer import Download, Progress
    from kodo.protocol.events import Event, RunState, RunView

__all__ = [
    "Client",
    "Download",
    "Event",
    "FlowOnNode",
    "FoundRuns",
    "Inbox",
    "Progress",
    "Run",
    "RunSelection",
    "RunState",
    "RunView",
    "Share",
]

_HOMES = {
    "Client": "kodo.client.client",
    "FlowOnNode": "kodo.client.flow",
    "Run": "kodo.client.run",
    "Inbox": "kodo.client.inbox",
    "FoundRuns": "kodo.client.run_selection",
    "RunSelection": "kodo.client.run_selection",
    "Share": "kodo.client.links",
    "Download": "kodo.client.transfer",
    "Progress": "kodo.client.transfer",
    "Event": "kodo.protocol.events",
    "RunState": "kodo.protocol.events",
    "RunView": "kodo.protocol.events",
}


def __getattr__(name: str) -> Any:
    # On first use: the transport takes longer to import than many a command takes to run.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
