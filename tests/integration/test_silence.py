"""A framework's flow, with the variables of a runner, says nothing to anybody; the rest by `scripts/silence`."""

from __future__ import annotations

import sys
from pathlib import Path

from kodo.node.executors.runner.telemetry import TELEMETRY_OFF, silenced
from scripts.silence import frameworks, heeded, listen_to, requirements


def test_every_flow_says_what_it_needs():
    assert {"crewai", "haystack", "langgraph", "openai-agents"} <= set(frameworks())
    assert all(requirements(name) for name in frameworks())


def test_the_switches_that_frameworks_heed_are_set_in_runners():
    heeding = {name: heeded(name) for name in frameworks()}
    assert heeding["agno"] == ["AGNO_TELEMETRY"]
    assert {switch for switches in heeding.values() for switch in switches} <= set(TELEMETRY_OFF)


def test_what_somebody_has_set_stays():
    assert silenced({}) == TELEMETRY_OFF
    assert "MEM0_TELEMETRY" not in silenced({"MEM0_TELEMETRY": "True"})


def test_a_graph_is_silent():
    heard = listen_to("langgraph", Path(sys.executable))
    assert heard.answer == "all is well", heard.said
    assert heard.calls == []
