"""The tools that the bridge lists: one for each flow, or three for many, and those for runs. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kodo.client.flow import FlowOnNode
from kodo.mcp.catalog import Offer
from kodo.mcp.files import Folders
from kodo.mcp.forms import input_schema, missing_inputs, secret_inputs
from kodo.mcp.options import BridgeOptions
from kodo.mcp.results import OUTPUT_SCHEMA, output_schema
from kodo.mcp.returned import returned_schema
from kodo.mcp.texts import lines, one_line, said

__all__ = ["FINDERS", "RUN_TOOLS", "WRITERS", "flow_tool", "own_tools"]

MAX_DESCRIPTION = 1000

FINDERS = ("find_flows", "show_flow", "run_flow")
"""In the place of tools for flows, where there are many."""

RUN_TOOLS = (
    "run_wait",
    "runs",
    "run_events",
    "read_output",
    "save_output",
    "share_run",
    "run_cancel",
)

WRITERS = frozenset(["run_flow", "save_output", "share_run", "run_cancel"])
"""Not there with `--read-only`."""

_RUN = {"type": "string", "description": "PEER/FID, as the other tools give it."}
_LEAVES_OPEN = "Questions that the run has for its user are asked through you; a declined one stays open."

_READS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": True}
_LAUNCHES = {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": False, "openWorldHint": True}
"""What a flow does is its author's choice: it may change anything that it can reach."""


def _tool(
    name: str,
    title: str,
    description: str,
    properties: Mapping[str, Any],
    required: tuple[str, ...],
    annotations: Mapping[str, bool],
    output: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    if required:
        schema["required"] = list(required)
    made = {"name": name, "title": title, "description": description, "inputSchema": schema}
    made["annotations"] = {"title": title, **annotations}
    return {**made, "outputSchema": dict(output)} if output is not None else made


def own_tools(options: BridgeOptions, folders: Folders, *, many: bool) -> list[dict[str, Any]]:
    """Return the tools that are no flows.

    Args:
        many: there are too many flows for a tool each.
    """
    made = {
        "find_flows": _tool(
            "find_flows",
            "Find flows",
            "List the flows that can be run, 20 at a time.",
            {
                "search": {"type": "string", "description": "Words that the name, path or description has."},
                "offset": {"type": "integer", "minimum": 0},
            },
            (),
            _READS,
        ),
        "show_flow": _tool(
            "show_flow",
            "Show a flow",
            "Show what a flow does and which inputs it takes.",
            {"flow": {"type": "string", "description": "As find_flows gives it."}},
            ("flow",),
            _READS,
        ),
        "run_flow": _tool(
            "run_flow",
            "Run a flow",
            f"Run a flow. Waits up to {options.wait_s:.0f} s, then gives the run. {_LEAVES_OPEN}",
            {
                "flow": {"type": "string", "description": "As find_flows gives it."},
                "inputs": {"type": "object", "description": f"By name, as show_flow lists them. {folders.hint}"},
            },
            ("flow",),
            _LAUNCHES,
            OUTPUT_SCHEMA,
        ),
        "run_wait": _tool(
            "run_wait",
            "Wait for a run",
            f"Wait up to {options.wait_s:.0f} s until a run is over or asks something, and tell how it stands."
            f" {_LEAVES_OPEN}",
            {"run": _RUN},
            ("run",),
            _READS if options.read_only else {**_READS, "readOnlyHint": False},
            OUTPUT_SCHEMA,
        ),
        "runs": _tool(
            "runs",
            "List runs",
            "List the user's latest runs, also those of earlier chats.",
            {
                "state": {"type": "string", "enum": ["queued", "running", "pending", "locked", "done", "error"]},
                "limit": {"type": "integer", "minimum": 1, "maximum": 50},
            },
            (),
            _READS,
        ),
        "run_events": _tool(
            "run_events",
            "Read a run's events",
            "Read what happened in a run, in order.",
            {
                "run": _RUN,
                "after": {"type": "integer", "minimum": 0, "description": "The last seq that is known already."},
                "limit": {"type": "integer", "minimum": 1, "maximum": 200},
            },
            ("run",),
            _READS,
        ),
        "read_output": _tool(
            "read_output",
            "Read an output",
            "Read a text that a run made, of up to 100 KB.",
            {"run": _RUN, "name": {"type": "string"}},
            ("run", "name"),
            _READS,
        ),
        "save_output": _tool(
            "save_output",
            "Save an output",
            "Download a file that a run made, verified, into a folder that the user named. Replaces nothing.",
            {
                "run": _RUN,
                "name": {"type": "string"},
                "folder": {
                    "type": "string",
                    "description": "Inside of a folder that the user named; that by default.",
                },
            },
            ("run", "name"),
            {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": True, "openWorldHint": True},
        ),
        "share_run": _tool(
            "share_run",
            "Share a run",
            "Make a link that shows a run and its files to whoever has it, until it expires.",
            {
                "run": _RUN,
                "expires": {"type": "string", "description": "A duration such as 12h or 7d; 1d by default."},
                "downloads": {"type": "integer", "minimum": 1},
            },
            ("run",),
            {"readOnlyHint": False, "destructiveHint": False, "idempotentHint": False, "openWorldHint": True},
        ),
        "run_cancel": _tool(
            "run_cancel",
            "End a run",
            "End a run for good. It cannot be taken up again.",
            {"run": _RUN},
            ("run",),
            {"readOnlyHint": False, "destructiveHint": True, "idempotentHint": True, "openWorldHint": True},
        ),
    }
    names = [*(FINDERS if many or options.read_only else ()), *RUN_TOOLS]
    if options.read_only:
        names = [name for name in names if name not in WRITERS]
    if not folders.named:
        names = [name for name in names if name != "save_output"]
    return [made[name] for name in names]


def _needs(schema: Mapping[str, Any]) -> list[str]:
    """Describe what a flow cannot begin without. No schema says so: hosts would refuse what the user can complete."""
    needed = [one_line(name, 60) for name in missing_inputs(schema, {})[:20]]
    secret = sorted(one_line(name, 60) for name in secret_inputs(schema))[:20]
    parts = [f"It needs {json.dumps(needed)}; the user is asked for what is missing."] if needed else []
    return parts + ([f"It takes secrets, {json.dumps(secret)}: only the user gives those."] if secret else [])


def flow_tool(name: str, offer: Offer, flow: FlowOnNode | None, folders: Folders, wait_s: float) -> dict[str, Any]:
    """Return the tool of a flow.

    Args:
        flow: with its form; None where the node did not give it in time.
    """
    title = one_line(offer.name, 80)
    words = said(lines(offer.description or "(no description)", MAX_DESCRIPTION), offer.label)
    schema = input_schema(flow.inputs_schema, folders.hint) if flow is not None else None
    parts = [
        f"Runs a flow on the node {one_line(offer.node, 80)}. It may take minutes: after {wait_s:.0f} s this returns"
        " the run, and run_wait waits on.",
        words,
    ]
    if flow is not None:
        parts += _needs(flow.inputs_schema)
    if schema is None:
        schema = {"type": "object"}
        parts.append("Its form cannot be shown here; what is missing is asked for.")
    return {
        "name": name,
        "title": title,
        "description": "\n\n".join(parts),
        "inputSchema": schema,
        "outputSchema": output_schema(returned_schema(flow.returns) if flow is not None else None),
        "annotations": {"title": title, **_LAUNCHES},
    }
