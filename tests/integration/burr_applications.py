"""Tests of the adapter for Burr, against the real package; `test_agents_apart.py` runs them where it is installed."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from burr.core import ApplicationBuilder, State, action

from kodo.flow import lock
from kodo.flow._runtime.load import LoadedFlow
from kodo.flow.decorator import FlowDefinition
from kodo.p2p.errors import UsageError
from kodo.testing import run


def schema_of(target: Any) -> dict[str, Any]:
    return LoadedFlow("f", "m:f", target, FlowDefinition(name="f"), "").inputs_schema()


@action(reads=[], writes=["draft"])
def draft(state: State, topic: str) -> State:
    return state.update(draft=f"about {topic}")


@action(reads=["draft"], writes=["page"])
def publish(state: State, loud: bool = False) -> State:
    if not lock(f"Publish {state['draft']}?", bool, default=True):
        raise ValueError("not published")
    return state.update(page=state["draft"].upper() if loud else state["draft"])


@action(reads=["draft"], writes=["page"])
async def publish_later(state: State) -> State:
    await lock("Publish?", bool, default=True)
    return state.update(page=state["draft"])


def application(*actions: Any, back: bool = False) -> Any:
    names = [each.name if hasattr(each, "name") else each.__name__ for each in actions]
    ways = [*itertools.pairwise(names), *([(names[-1], names[0])] if back else [])]
    return ApplicationBuilder().with_actions(*actions).with_transitions(*ways).with_entrypoint(names[0]).build()


@pytest.mark.parametrize("last", [publish, publish_later])
def test_an_application_of_burr_that_a_flow_returns_is_run_to_its_end(last: Any):
    def flow(topic: str) -> Any:
        return application(draft, last)

    made = run(flow, topic="stars")
    assert made.result == {"draft": "about stars", "page": "about stars"}
    assert [data["name"] for data in made.told("task")] == ["draft", last.__name__]
    assert [data["phase"] for data in made.told("action")] == ["end", "end"]
    assert len(made.locks) == 1


def test_an_application_of_burr_is_a_flow_whose_form_is_what_its_actions_take():
    made = application(draft, publish)
    schema = schema_of(made)
    assert (list(schema["properties"]), schema["required"]) == (["topic", "loud"], ["topic"])
    assert run(made, topic="stars", loud=True).result["page"] == "ABOUT STARS"


def test_an_action_of_burr_that_fails_is_told():
    made = run(lambda topic: application(draft, publish), topic="x", answers=[False], check=False)
    (error,) = made.told("action-error")
    assert (error["name"], error["message"]) == ("publish", "not published")
    assert isinstance(made.error, ValueError)


def test_an_application_of_burr_that_never_ends_by_itself_says_what_to_call():
    made = run(lambda topic: application(draft, publish, back=True), topic="x", check=False)
    assert isinstance(made.error, UsageError)
    assert "app.run(halt_after=" in str(made.error)
