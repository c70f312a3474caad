"""What the modules of flows print while they are imported for a run: it goes to the node's log."""

from __future__ import annotations

from kodo.node.executors.runner_calls import log_imports
from kodo.node.runs.flow_requests import Question

__all__ = ["imports_said"]


async def imports_said(question: Question) -> None:
    """Take the lines of a run's import, `imports.said`."""
    log_imports(str(question.args.get("entry")), question.args.get("lines"))
