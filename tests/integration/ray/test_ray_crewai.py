"""crewAI crews, unchanged, as flows: real crewAI, and a local server that speaks the chat API from a script."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kodo.protocol.ids import make_id
from tests.support.chat import ChatServer, call_tool, fail, say

pytestmark = pytest.mark.asyncio(loop_scope="module")
pytest.importorskip("crewai", reason="test_crewai_apart.py runs them where it is installed")

SCOPE = Path(__file__).parent / "scope"
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


async def test_a_crew_that_an_app_of_kodosumi_launches_is_told_as_any_other(run):
    with ChatServer([say("O stars")]) as server:
        made = await run("hymn:enter", topic="stars", base_url=server.url)
        end = await made.end()
    assert (end["event"], end.get("result")) == ("final", "O stars"), end
    assert [(data["name"], data["agent"]) for data in told(made, "task")] == [("hymn", "Writer")]
    assert KEY not in str(made.events)


async def test_a_crew_that_a_function_starts_itself_is_told_as_any_other(run):
    with ChatServer([say("a page on stars"), say("a page on moons")]) as server:
        made = await run("crew_flows:starting", base_url=server.url)
        end = await made.end()
    assert (end["event"], end.get("result")) == ("final", ["a page on stars", "a page on moons"]), end
    assert [data["name"] for data in told(made, "agent")] == ["Researcher"]
    assert [data["description"] for data in told(made, "task")] == ["research stars", "research moons"]
    assert [data["text"] for data in told(made, "result")] == end["result"]
    assert "╭" not in str(told(made, "stdout"))
    assert KEY not in str(made.events)


@pytest.mark.parametrize("name", ["streaming", "streamed"])
async def test_a_crew_that_streams_is_run_to_its_end(run, name):
    with ChatServer([say("a page on stars")]) as server:
        end = await (await run(f"crew_flows:{name}", topic="stars", base_url=server.url)).end()
        assert server.asked
    assert (end["event"], end.get("result")) == ("final", "a page on stars"), end


async def test_a_tool_that_fails_is_an_action_error_and_the_crew_goes_on(run):
    with ChatServer([call_tool("lookup", word="dark"), say("it is dark")]) as server:
        made = await run("crew_flows:crew", topic="x", base_url=server.url)
        end = await made.end()
    assert end["event"] == "final", end
    errors = [data for data in told(made, "action-error") if data.get("tool") == "lookup"]
    assert "nothing to see" in errors[0]["message"]


async def test_a_model_that_refuses_is_told_without_the_key_and_ends_the_run(run):
    with ChatServer([fail(401, f"Incorrect API key provided: {KEY}")]) as server:
        made = await run("crew_flows:crew", topic="x", base_url=server.url)
        end = await made.end()
    assert end["event"] == "fatal", end
    assert told(made, "action-error")
    assert "Incorrect API key provided" in str(told(made, "action-error"))
    assert [data["task"] for data in told(made, "result-error") if "task" in data] == ["research"]
    assert KEY not in str([event for event in made.events if event.event not in ("stdout", "stderr", "log")])


@pytest.mark.parametrize(("name", "shown"), [("asking", "stars, says [key]"), ("AskingSteps", "stars, says")])
async def test_a_task_that_asks_a_human_is_a_lock_until_the_human_is_content(run, name, shown):
    async def answer(number, text):
        while len(told(made, "lock")) < number:
            made.events += await made.runner.poll(made.events[-1].rseq if made.events else 0, 5.0)
            assert not told(made, "fatal") + told(made, "final"), made.events
        asked = told(made, "lock")[-1]
        await made.runner.answer(asked["lid"], make_id(number, os.urandom(10)), text)
        return asked

    with ChatServer([say(f"stars, says {KEY}"), say("stars shine"), say("nobody asked")]) as server:
        made = await run(f"crew_flows:{name}", topic="stars", base_url=server.url)
        first = await answer(1, "say what they do")
        second = await answer(2, "")
        end = await made.end()
    assert (end["event"], end.get("result")) == ("final", "stars shine"), end
    assert first["title"] == second["title"] == "Feedback on research?"
    assert shown in first["schema"]["description"]
    assert "stars shine" in second["schema"]["description"]
    assert len(server.asked) == 2
    assert "say what they do" in str(server.asked[1]["messages"])
    assert [data["text"] for data in told(made, "result") if "text" in data] == ["stars shine"]


async def test_a_crewai_flow_tells_its_methods(run):
    made = await run("crew_flows:Steps", topic="moons")
    end = await made.end()
    assert end["event"] == "final", end
    assert end["result"] == "saw moons twice"
    assert [data["name"] for data in told(made, "task")] == ["first", "second"]
    assert [data["value"] for data in told(made, "result")] == ["saw moons", "saw moons twice"]
    assert told(made, "stdout") == []


async def test_a_crewai_flow_asks_its_human_by_locks(run):
    made = await run("crew_flows:Reviewed", topic="moons")
    asked = []
    for answer in ("say how many", "ana"):
        while len(told(made, "lock")) == len(asked):
            made.events += await made.runner.poll(made.events[-1].rseq if made.events else 0, 5.0)
            assert not told(made, "fatal") + told(made, "final"), made.events
        asked.append(told(made, "lock")[-1])
        await made.runner.answer(asked[-1]["lid"], make_id(len(asked), os.urandom(10)), answer)
    end = await made.end()
    assert (end["event"], end.get("result")) == ("final", ["say how many", "ana"]), end
    assert [each["title"] for each in asked] == ["Is this right?", "Who signs?"]
    assert "saw moons by" in asked[0]["schema"]["description"]


async def test_a_crews_process_connects_to_nothing_but_its_model(run):
    with ChatServer([say("done")]) as server:
        end = await (await run("crew_flows:watched", topic="x", base_url=server.url)).end()
    assert end["result"] == ["127.0.0.1"]


async def test_the_names_in_a_crews_texts_and_the_state_of_a_flow_make_the_form():
    lines = ["crew_flows:standing", "./pages/crew.py", "pages.crew:Count"]
    request = json.dumps({"roots": [str(SCOPE)], "flows": lines})
    done = subprocess.run(  # noqa: ASYNC221 (nothing else runs here)
        [sys.executable, "-m", "kodo.flow._runtime.describe"],
        input=request,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    standing, pages, count = json.loads(done.stdout)["flows"]
    form = {"type": "object", "properties": {"topic": {"type": "string"}}, "required": ["topic"]}
    assert standing["schema"] == form
    assert (pages["path"], pages["description"], pages.get("error")) == ("pages.crew.Pages", "Write a page.", None)
    assert pages["schema"]["required"] == ["topic", "readers"]
    assert list(count["schema"]["properties"]) == ["topic", "times"]


async def test_a_crew_as_crewais_projects_have_it_runs(run):
    with ChatServer([say("a page")]) as server:
        variables = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
        resources = {"num_cpus": 0, "runtime_env": {"env_vars": variables}}
        made = await run("pages.crew:Pages", resources, topic="stars", readers="children")
        end = await made.end()
        assert "for children" in str(server.asked[0]["messages"])
    assert (end["event"], end.get("result")) == ("final", "a page"), end
    (task,) = told(made, "task")
    assert (task["name"], task["description"]) == ("page", "Write a page about STARS.")
    assert [data["name"] for data in told(made, "tool")] == ["count"]
    end = await (await run("pages.crew:Count", topic="ab", times=2)).end()
    assert (end["event"], end.get("result")) == ("final", "abab"), end


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


@pytest.mark.parametrize("own", [True, False])
async def test_the_sample_crew_takes_any_endpoint_and_gives_its_key_to_the_nodes_own_alone(run, own):
    with ChatServer([say("facts"), say("# Bikes")]) as server:
        place = server.url if own else "http://127.0.0.1:9/v1"
        variables = {"KODO_CREW_API_KEY": KEY, "KODO_CREW_BASE_URL": place, "KODO_CREW_MODEL": "test-model"}
        given = {} if own else {"base_url": server.url, "model": "test-model"}
        asked = {"runtime_env": {"env_vars": {**variables, "OPENAI_API_KEY": KEY}}}
        made = await run("kodo.samples.crew:crew", asked, topic="bikes", **given)
        end = await made.end()
        assert (end["event"], end.get("result")) == ("final", "# Bikes"), end
        assert set(server.keys) == {f"Bearer {KEY if own else 'no-key'}"}
        assert server.asked[0]["model"] == "test-model"
    assert [data["name"] for data in told(made, "task")] == ["gather", "write"]
    assert KEY not in str(made.events)
