"""Tests of what crewAI's crews and flows tell and ask, against the real package; `test_crewai_apart.py` runs them.

They run in one process, which imports crewAI once; `ray/test_ray_crewai.py` has crews in runners on Ray. The model is
on this machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kodo.flow._runtime.describe import describe
from kodo.flow._runtime.load import load_entry
from kodo.flow._runtime.sources import enter_scope
from kodo.testing import Run, run
from tests.support.chat import ChatServer, call_tool, say

SCOPE = Path(__file__).parent / "ray" / "scope"
KEY = "sk-canary-0c5d1b7e"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _in_the_scope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(SCOPE)
    enter_scope([str(SCOPE)])


def ran(entry: str, *, answers: Any = (), **inputs: Any) -> Run:
    """Run a flow of the scope to its end."""
    return run(load_entry(entry).target, inputs, answers=answers)


def test_a_crew_that_an_app_of_kodosumi_launches_is_told_as_any_other():
    with ChatServer([say("O stars")]) as server:
        made = ran("hymn:enter", topic="stars", base_url=server.url)
    assert made.result == "O stars"
    assert [(data["name"], data["agent"]) for data in made.told("task")] == [("hymn", "Writer")]
    assert KEY not in str(made.events)


def test_a_crew_that_a_function_starts_itself_is_told_as_any_other(capfd: pytest.CaptureFixture[str]):
    with ChatServer([say("a page on stars"), say("a page on moons")]) as server:
        made = ran("crew_flows:starting", base_url=server.url)
    assert made.result == ["a page on stars", "a page on moons"]
    assert [data["name"] for data in made.told("agent")] == ["Researcher"]
    assert [data["description"] for data in made.told("task")] == ["research stars", "research moons"]
    assert [data["text"] for data in made.told("result")] == made.result
    assert "╭" not in "".join(capfd.readouterr())
    assert KEY not in str(made.events)


@pytest.mark.parametrize("name", ["streaming", "streamed"])
def test_a_crew_that_streams_is_run_to_its_end(name: str):
    with ChatServer([say("a page on stars")]) as server:
        made = ran(f"crew_flows:{name}", topic="stars", base_url=server.url)
        assert server.asked
    assert made.result == "a page on stars"


def test_a_tool_that_fails_is_an_action_error_and_the_crew_goes_on():
    with ChatServer([call_tool("lookup", word="dark"), say("it is dark")]) as server:
        made = ran("crew_flows:crew", topic="x", base_url=server.url)
    assert made.result == "it is dark"
    errors = [data for data in made.told("action-error") if data.get("tool") == "lookup"]
    assert "nothing to see" in errors[0]["message"]


@pytest.mark.parametrize(("name", "shown"), [("asking", "stars, says [key]"), ("AskingSteps", "stars, says")])
def test_a_task_that_asks_a_human_is_a_lock_until_the_human_is_content(name: str, shown: str):
    with ChatServer([say(f"stars, says {KEY}"), say("stars shine"), say("nobody asked")]) as server:
        made = ran(f"crew_flows:{name}", answers=["say what they do", ""], topic="stars", base_url=server.url)
    first, second = made.locks
    assert made.result == "stars shine"
    assert first.title == second.title == "Feedback on research?"
    assert shown in first.schema["description"]
    assert "stars shine" in second.schema["description"]
    assert len(server.asked) == 2
    assert "say what they do" in str(server.asked[1]["messages"])
    assert [data["text"] for data in made.told("result") if "text" in data] == ["stars shine"]


def test_a_crewai_flow_tells_its_methods(capfd: pytest.CaptureFixture[str]):
    made = ran("crew_flows:Steps", topic="moons")
    assert made.result == "saw moons twice"
    assert [data["name"] for data in made.told("task")] == ["first", "second"]
    assert [data["value"] for data in made.told("result")] == ["saw moons", "saw moons twice"]
    assert capfd.readouterr().out == ""


def test_a_crewai_flow_asks_its_human_by_locks():
    made = ran("crew_flows:Reviewed", answers=["say how many", "ana"], topic="moons")
    assert made.result == ["say how many", "ana"]
    assert [each.title for each in made.locks] == ["Is this right?", "Who signs?"]
    assert "saw moons by" in made.locks[0].schema["description"]


def test_the_names_in_a_crews_texts_and_the_state_of_a_flow_make_the_form():
    lines = ["crew_flows:standing", "./pages/crew.py", "pages.crew:Count"]
    standing, pages, count = describe({"roots": [str(SCOPE)], "flows": lines})["flows"]
    form = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}
    assert standing["schema"] == form
    assert (pages["path"], pages["description"], pages.get("error")) == ("pages.crew.Pages", "Write a page.", None)
    assert pages["schema"]["required"] == ["topic", "readers"]
    assert list(count["schema"]["properties"]) == ["topic", "times"]


def test_a_crew_as_crewais_projects_have_it_runs(monkeypatch: pytest.MonkeyPatch):
    with ChatServer([say("a page")]) as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        made = ran("pages.crew:Pages", topic="stars", readers="children")
        assert "for children" in str(server.asked[0]["messages"])
    assert made.result == "a page"
    (task,) = made.told("task")
    assert (task["name"], task["description"]) == ("page", "Write a page about STARS.")
    assert [data["name"] for data in made.told("tool")] == ["count"]
    assert ran("pages.crew:Count", topic="ab", times=2).result == "abab"


@pytest.mark.parametrize("own", [True, False])
def test_the_sample_crew_takes_any_endpoint_and_gives_its_key_to_the_nodes_own_alone(
    own: bool, monkeypatch: pytest.MonkeyPatch
):
    with ChatServer([say("facts"), say("# Bikes")]) as server:
        place = server.url if own else "http://127.0.0.1:9/v1"
        variables = {"KODO_CREW_API_KEY": KEY, "KODO_CREW_BASE_URL": place, "KODO_CREW_MODEL": "test-model"}
        for name, value in {**variables, "OPENAI_API_KEY": KEY}.items():
            monkeypatch.setenv(name, value)
        given = {} if own else {"base_url": server.url, "model": "test-model"}
        made = ran("kodo.samples.crew:crew", topic="bikes", **given)
        assert made.result == "# Bikes"
        assert set(server.keys) == {f"Bearer {KEY if own else 'no-key'}"}
        assert server.asked[0]["model"] == "test-model"
    assert [data["name"] for data in made.told("task")] == ["gather", "write"]
    assert KEY not in str(made.events)
