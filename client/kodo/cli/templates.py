"""What `koco new` writes. Each kind of project passes its own test, and runs by `koco run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Template

__all__ = ["KINDS", "Kind"]

Text = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of project.

    Attributes:
        code: the module.
        test: its test.
        entry: what the scope file lists and `koco run` is given.
        yaml: the YAML file beside the module, where there is one.
    """

    code: str
    test: str
    entry: str
    yaml: str = ""

    def files(self, module: str) -> Mapping[str, Text]:
        """Return the files' names, and what makes their texts of the module's name."""
        made = {f"{module}.py": self.code, f"test_{module}.py": self.test, "scope.yaml": _SCOPE}
        if self.yaml:
            made[f"{module}.yaml"] = self.yaml
        listed = Template(self.entry).substitute(module=module)
        return {name: _filled(text, listed) for name, text in made.items()}

    def run(self, module: str) -> str:
        """Return what `koco run` is given for it."""
        return f"./{module}.yaml" if self.yaml else f"./{module}.py"


def _filled(text: str, entry: str) -> Text:
    def fill(module: str) -> str:
        title = module.replace("_", " ").capitalize()
        return Template(text).substitute(module=module, title=title, entry=entry)

    return fill


_SCOPE = """\
# What `koco up scope.yaml` offers.
# name: flows.example.com    # the node's name; without it the machine's
flows:
  - $entry
"""

_WORK = """\
    await progress(20, f"collecting facts about {topic}")
    facts = [f"fact {number} about {topic}" for number in range(1, facts + 1)]
    await progress(80, "asking for approval")
    if await lock(f"Publish {len(facts)} facts about {topic}?", bool, default=False):  # waits for a person
        await output.write("report.md", f"# {topic}\\n\\n" + "".join(f"* {fact}\\n" for fact in facts))
        return f"published {len(facts)} facts"
    return "nothing was published"
"""

_TEST = """\
from kodo.testing import run
from $module import $module


def test_a_report_is_published_when_a_person_agrees():
    done = run($module, topic="bees", facts=2, answers=[True])
    assert done.result == "published 2 facts"
    assert done.outputs["report.md"].text == "# bees\\n\\n* fact 1 about bees\\n* fact 2 about bees\\n"


def test_nothing_is_published_when_nobody_answers():
    done = run($module, topic="bees")
    assert done.result == "nothing was published"
    assert done.outputs == {}
"""

_FUNCTION = f'''\
from typing import Annotated

from kodo.flow import flow, lock, output, progress
from pydantic import Field


@flow(name="$title", author="you@example.com", organization="Example", release="1")
async def $module(
    topic: Annotated[str, Field(description="What the report is about.", max_length=200)],
    facts: Annotated[int, Field(description="How many facts it has.", ge=1, le=100)] = 3,
) -> str:
    """Write a report about a topic, if a person agrees."""
{_WORK}'''

_BY_YAML = f"""\
from kodo.flow import lock, output, progress


async def $module(topic: str, facts: int = 3) -> str:
{_WORK}"""

_YAML = """\
# Offers a function without a decorator: what people are told of it, and its form, are here.
flow:
  name: $title
  description: Write a report about a topic, if a person agrees.
  author: you@example.com
  organization: Example
  release: "1"
entry: $module:$module
inputs:
  topic: {type: string, description: What the report is about., maxLength: 200}
  facts: {type: integer, description: How many facts it has., minimum: 1, maximum: 100, default: 3}
"""

_GRAPH = '''\
from typing import TypedDict

from kodo.flow import flow, output
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt


class State(TypedDict, total=False):
    topic: str
    draft: str
    published: bool


def research(state: State) -> State:
    return {"draft": f"All about {state['topic']}."}


def review(state: State) -> State:
    question = f"Publish {state['draft']!r}?"
    return {"published": interrupt({"question": question, "schema": {"type": "boolean"}})}  # waits for a person


async def publish(state: State) -> State:
    if state["published"]:
        await output.write("report.md", f"# {state['topic']}\\n\\n{state['draft']}\\n")
    return {}


builder = StateGraph(State)
builder.add_sequence([research, review, publish])
builder.add_edge(START, "research")
builder.add_edge("publish", END)


@flow(name="$title", author="you@example.com", organization="Example", release="1")
def $module(topic: str):
    """Write a report about a topic, if a person agrees."""
    return builder.compile()
'''

_GRAPH_TEST = """\
from kodo.testing import run
from $module import $module


def test_a_report_is_published_when_a_person_agrees():
    done = run($module, topic="bees", answers=[True])
    assert done.outputs["report.md"].text == "# bees\\n\\nAll about bees.\\n"


def test_nothing_is_published_when_a_person_does_not():
    assert run($module, topic="bees", answers=[False]).outputs == {}
"""

_CREW = '''\
import os
from typing import Any

from crewai import LLM, Agent, Crew, Task
from kodo.flow import flow, lock, output


def model() -> Any:
    """Return the model: any that speaks OpenAI's chat API. Set these variables before `koco run` or `koco up`."""
    return LLM(
        model="openai/" + os.environ.get("MODEL", "small"),
        base_url=os.environ.get("MODEL_URL", "http://127.0.0.1:8000/v1"),
        api_key=os.environ.get("MODEL_API_KEY", "none"),
    )


def crew() -> Crew:
    writer = Agent(role="Writer", goal="Explain {topic}", backstory="You like short sentences.", llm=model())
    page = Task(
        name="page", description="Write a page about {topic}.", expected_output="A page of Markdown.", agent=writer
    )
    return Crew(agents=[writer], tasks=[page])


@flow(name="$title", author="you@example.com", organization="Example", release="1")
async def $module(topic: str) -> str:
    """Write a page about a topic, if a person agrees."""
    page = str(await crew().kickoff_async(inputs={"topic": topic}))
    if await lock(f"Publish the page about {topic}?", bool, default=False):  # waits for a person
        await output.write("report.md", page)
    return page
'''

_CREW_TEST = '''\
import $module as module
from crewai import BaseLLM
from kodo.testing import run


class Canned(BaseLLM):
    """Answers without a model."""

    def call(self, *args, **options):
        return "Thought: I know it.\\nFinal Answer: # Bees"


def test_a_page_is_published_when_a_person_agrees(monkeypatch):
    monkeypatch.setattr(module, "model", lambda: Canned(model="canned"))
    done = run(module.$module, topic="bees", answers=[True])
    assert done.result == "# Bees"
    assert done.outputs["report.md"].text == "# Bees"
'''

KINDS: Mapping[str, Kind] = {
    "function": Kind(_FUNCTION, _TEST, "$module:$module"),
    "yaml": Kind(_BY_YAML, _TEST, "$module.yaml", _YAML),
    "graph": Kind(_GRAPH, _GRAPH_TEST, "$module:$module"),
    "crew": Kind(_CREW, _CREW_TEST, "$module:$module"),
}
"""By name: `function` unless another is asked for."""
