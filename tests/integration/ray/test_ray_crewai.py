"""crewAI crews in runners on Ray: real crewAI, and a local server that speaks the chat API from a script.

Each run has a process that imports crewAI, which takes seconds. So here is what shows only there; what crews tell and
ask is in `../crews_that_are_told.py`.
"""

import importlib.util

import pytest

from tests.support.chat import ChatServer, call_tool, fail, say

pytestmark = pytest.mark.asyncio(loop_scope="module")
if importlib.util.find_spec("crewai") is None:  # this process needs not import it
    pytest.skip("test_crewai_apart.py runs them where it is installed", allow_module_level=True)

KEY = "sk-canary-0c5d1b7e"


def told(run, name):
    return [event.data for event in run.events if event.event == name]


async def test_agents_tasks_tools_actions_and_results_become_events(run):
    with ChatServer([call_tool("lookup", word="star"), say("stars shine"), say("a page on stars")]) as server:
        made = await run("crew_flows:crew", topic="stars", base_url=server.url)
        end = await made.end()
        assert server.keys[0] == f"Bearer {KEY}"
    assert end["event"] == "final", end
    assert end["result"] == "a page on stars"
    (agent,) = told(made, "agent")
    assert (agent["name"], agent["model"]) == ("Researcher", "test-model")
    (tool,) = told(made, "tool")
    assert (tool["name"], tool["agent"]) == ("lookup", "Researcher")
    assert [data["name"] for data in told(made, "task")] == ["research", "write"]
    assert told(made, "task")[0]["description"] == "research stars"
    assert [(data["task"], data["agent"], data["text"]) for data in told(made, "result")] == [
        ("research", "Researcher", "stars shine"),
        ("write", "Researcher", "a page on stars"),
    ]
    started, ended = [data for data in told(made, "action") if data.get("tool") == "lookup"]
    assert (started["phase"], started["arguments"], started["agent"]) == ("start", {"word": "star"}, "Researcher")
    assert (ended["phase"], ended["output"]) == ("end", "meaning of star")
    phases = [data["phase"] for data in told(made, "action") if data.get("name") == "Researcher"]
    assert phases == ["start", "end", "start", "end"]
    assert KEY not in str(made.events)


async def test_a_model_that_refuses_is_told_without_the_key_and_ends_the_run(run):
    with ChatServer([fail(401, f"Incorrect API key provided: {KEY}")]) as server:
        made = await run("crew_flows:crew", topic="x", base_url=server.url)
        end = await made.end()
    assert end["event"] == "fatal", end
    assert told(made, "action-error")
    assert "Incorrect API key provided" in str(told(made, "action-error"))
    assert [data["task"] for data in told(made, "result-error") if "task" in data] == ["research"]
    assert KEY not in str([event for event in made.events if event.event not in ("stdout", "stderr", "log")])


async def test_a_crews_process_connects_to_nothing_but_its_model(run):
    with ChatServer([say("done")]) as server:
        end = await (await run("crew_flows:watched", topic="x", base_url=server.url)).end()
    assert end["result"] == ["127.0.0.1"]


async def test_a_crew_in_yaml_alone_runs(run):
    with ChatServer([say("notes"), say("a page")]) as server:
        variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
        resources = {"num_cpus": 0, "runtime_env": {"env_vars": variables}}
        made = await run("page.yaml", resources, topic="stars", readers="children")
        end = await made.end()
    assert end["event"] == "final", end
    assert end["result"] == "a page"
    assert [(data["task"], data["agent"], data["text"]) for data in told(made, "result")] == [
        ("research", "stars researcher", "notes"),
        ("write", "Writer", "a page"),
    ]
    assert "notes" in str(server.asked[1]["messages"])
    assert KEY not in str(made.events)
