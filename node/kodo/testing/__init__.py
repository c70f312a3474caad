"""Tests of flows: `run(flow, …)` runs one in this process as a node's runner does, without a node and without Ray.

    done = run(plan, budget=500, answers={"Where to?": {"city": "Ulm"}})
    assert done.result == "Ulm"
    assert done.outputs["trip.md"].text == "# Ulm\\n"

Inputs are taken by the flow's form, locks are answered, memory begins empty, and events and outputs are kept in what
`run` returns. The result has the form that clients get.
"""

from __future__ import annotations

from kodo.testing.answers import EXPIRE, Lock, UnansweredError, tries
from kodo.testing.delegates import Ask, Makes, Tells
from kodo.testing.run import Event, Output, Run, run

__all__ = ["EXPIRE", "Ask", "Event", "Lock", "Makes", "Output", "Run", "Tells", "UnansweredError", "run", "tries"]
