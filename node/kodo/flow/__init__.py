"""What a flow's author imports: `from kodo.flow import flow, progress, lock, output`.

Outside of a node everything here works too: events are printed, locks asked on the terminal, outputs written to
`./outputs`. So a flow is plain Python that can be called and tested alone.
"""

from __future__ import annotations

from kodo.flow import mcp, memory, output
from kodo.flow._runtime.context import LockExpiredError
from kodo.flow._runtime.current import fid
from kodo.flow.decorator import FlowDefinition, event, flow
from kodo.flow.delegation import DelegatedError, delegate
from kodo.flow.emit import action, agent, emit, progress, result, task, tool
from kodo.flow.file_input import File
from kodo.flow.locks import lock

__all__ = [
    "DelegatedError",
    "File",
    "FlowDefinition",
    "LockExpiredError",
    "action",
    "agent",
    "delegate",
    "emit",
    "event",
    "fid",
    "flow",
    "lock",
    "mcp",
    "memory",
    "output",
    "progress",
    "result",
    "task",
    "tool",
]
