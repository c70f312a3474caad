"""How a run stands, told to a model: structured content, and Markdown that marks what is from elsewhere. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from kodo.mcp.page import lock_page
from kodo.mcp.resources import MAX_LINKS, link
from kodo.mcp.returned import fits
from kodo.mcp.runs import Lock, Standing, run_ref
from kodo.mcp.texts import MAX_TEXT, as_json, bounded, lines, one_line, quoted

__all__ = ["OUTPUT_SCHEMA", "Result", "failed", "of_run", "output_schema", "plain"]

Result = dict[str, Any]
"""The result of a tool: `content`, `structuredContent`, `isError`."""

OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "run": {"type": "string", "description": "The run, PEER/FID: what the other tools take."},
        "flow": {"type": "string"},
        "node": {"type": "string"},
        "state": {
            "type": "string",
            "description": "queued, running, locked, done, error; or unknown: the node is away.",
        },
        "progress": {"type": "object"},
        "result": {"description": "What the flow returned."},
        "other_result": {"description": "What the flow returned, when it is not what its author said it would be."},
        "error": {"type": "object", "properties": {"type": {"type": "string"}, "message": {"type": "string"}}},
        "locks": {"type": "array", "items": {"type": "object"}, "description": "Questions that wait for a person."},
        "outputs": {"type": "array", "items": {"type": "object"}},
        "next": {"type": "string", "description": "What to do next."},
    },
    "required": ["run", "state"],
}
"""What is structured in the result of a tool about a run. The run of a flow that went wrong has an `error`."""

MAX_LOCKS = 20


def output_schema(returns: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the output schema of a flow's tool: that of all runs, with what this flow returns.

    Args:
        returns: as `returned_schema` makes it; None: nothing is known.
    """
    if returns is None:
        return OUTPUT_SCHEMA
    fields = OUTPUT_SCHEMA["properties"]
    return {**OUTPUT_SCHEMA, "properties": {**fields, "result": {**fields["result"], **returns}}}


def plain(text: str, structured: Mapping[str, Any] | None = None) -> Result:
    """Return a result with a text."""
    made: Result = {"content": [{"type": "text", "text": text}]}
    if structured is not None:
        made["structuredContent"] = dict(structured)
    return made


def failed(text: str) -> Result:
    """Return a result that says what went wrong, and what to do next."""
    return {**plain(text), "isError": True}


def of_run(
    standing: Standing,
    *,
    returns: Mapping[str, Any] | None = None,
    page: str | None = None,
    notes: Sequence[str] = (),
) -> Result:
    """Return the result of a tool about a run.

    Args:
        returns: what the host was told of the flow's result. One that does not fit is given by another name: hosts
            refuse structured content that is not as the tool's output schema says.
        page: the address of this run's page, where the user's browser may see it.
        notes: what else to say first, in words of the bridge.
    """
    state, run = standing.state, standing.run
    ref = run_ref(run)
    facts: dict[str, Any] = {"run": ref, "state": str(state.get("state") or "unknown")}
    facts["flow"] = one_line(state.get("name") or state.get("path") or "")
    node = state.get("node")
    facts["node"] = one_line(node.get("name") if isinstance(node, Mapping) else run.node)
    source = f"the flow {facts['flow']} on the node {facts['node']}"
    said = [*notes, f"Run {ref}: {facts['state']}."]
    content: list[dict[str, Any]] = []
    if not standing.over:
        said += _unfinished(standing, facts, page, source)
    elif state.get("state") == "done":
        final = state.get("final")
        result = final.get("result") if isinstance(final, Mapping) else None
        value = bounded(result, MAX_TEXT)
        facts["result" if returns is None or fits(value, returns) else "other_result"] = value
        shown = lines(result) if isinstance(result, str) else as_json(result)
        said.append(quoted(shown, source))
    else:
        fatal = state.get("fatal")
        fatal = fatal if isinstance(fatal, Mapping) else {}
        facts["error"] = {"type": one_line(fatal.get("type"), 100), "message": lines(fatal.get("message", ""), 4000)}
        said.append(quoted(f"{facts['error']['type']}: {facts['error']['message']}", source))
    links = _links(standing, facts)
    if links:
        said.append("Files it made are linked below: read_output reads a text, save_output makes a file of one.")
    content = [{"type": "text", "text": "\n\n".join(said)}, *links]
    made: Result = {"content": content, "structuredContent": facts}
    if state.get("state") == "error":
        made["isError"] = True
    return made


def _links(standing: Standing, facts: dict[str, Any]) -> list[dict[str, Any]]:
    rows = standing.state.get("outputs")
    found = [made for row in rows or () if isinstance(row, Mapping) and (made := link(standing.run, row))]
    if found:
        facts["outputs"] = [
            {key: each[key] for key in ("name", "uri", "size", "mimeType") if key in each}
            for each in found[:MAX_LINKS]
        ]
    return found[:MAX_LINKS]


def _unfinished(standing: Standing, facts: dict[str, Any], page: str | None, source: str) -> list[str]:
    said: list[str] = []
    if standing.lost:
        said.append(f"Its node does not answer now ({standing.lost}). The run goes on there if it can.")
    progress = standing.state.get("progress")
    if isinstance(progress, Mapping):
        facts["progress"] = bounded(dict(progress), 1000)
        said.append(quoted(as_json(progress, 1000), source))
    if standing.locks:
        facts["locks"] = [_lock_facts(each) for each in standing.locks[:MAX_LOCKS]]
        said += [_lock_words(each, standing, page, source) for each in standing.locks[:MAX_LOCKS]]
    facts["next"] = f"call run_wait with run={facts['run']}"
    said.append(
        "The run goes on without this chat. To wait for it, call run_wait; a person's answer can take hours, and the"
        " run can be found later by the tool runs."
    )
    return said


def _lock_facts(each: Lock) -> dict[str, Any]:
    facts: dict[str, Any] = {"lid": one_line(each.lock.lid), "title": one_line(each.lock.title, 300)}
    facts["may_answer"] = each.mine
    if not each.mine:
        facts["awaited"] = _awaited(each)
    return facts


def _awaited(each: Lock) -> list[str]:
    who = [f"user {one_line(name, 80)}" for name in each.lock.users[:10]]
    return who + [f"role {one_line(name, 80)}" for name in each.lock.roles[:10]] or ["others"]


def _lock_words(each: Lock, standing: Standing, page: str | None, source: str) -> str:
    asked = quoted(lines(each.lock.title, 1000), source)
    if not each.mine:
        return f"It waits for an answer of {', '.join(_awaited(each))}, not of this user:\n{asked}"
    command = f"koco answer {shlex.quote(run_ref(standing.run))} {shlex.quote(one_line(each.lock.lid))}"
    where = f"in a terminal by `{command}`" + (f", or at {lock_page(page, each.lock.lid)}" if page else "")
    return f"It waits for the user, who alone can answer, {where}:\n{asked}"
