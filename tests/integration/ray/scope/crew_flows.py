"""crewAI crews as flows; nothing in them knows of kodo but for one decorator. The model is at `base_url`."""

import sys

from crewai import LLM, Agent, Crew, Task
from crewai.flow.flow import Flow, listen, start
from crewai.flow.human_feedback import human_feedback
from crewai.tools import tool

from kodo.flow import flow

KEY = "sk-canary-0c5d1b7e"

connections: list[object] = []


@sys.addaudithook
def watch(name, arguments):
    """Note where this process connects to, and what names it looks up."""
    if name == "socket.connect" and isinstance(arguments[1], tuple):
        connections.append(arguments[1][0])
    elif name == "socket.getaddrinfo":
        connections.append(arguments[0])


@tool("lookup")
def lookup(word: str) -> str:
    """Look a word up."""
    if word == "dark":
        raise ValueError("nothing to see")
    return f"meaning of {word}"


def made(base_url, names=("research",)):
    model = LLM(model="openai/test-model", base_url=base_url, api_key=KEY)
    agent = Agent(
        role="Researcher", goal="know {topic}", backstory="curious", llm=model, tools=[lookup], max_retry_limit=0
    )
    tasks = [Task(name=name, description=f"{name} {{topic}}", expected_output="text", agent=agent) for name in names]
    return Crew(agents=[agent], tasks=tasks)


@flow
def crew(topic: str, base_url: str):
    """Give a crew."""
    return made(base_url, ("research", "write"))


@flow
def streaming(topic: str, base_url: str):
    """Give a crew that streams: it runs only while its pieces are taken."""
    streams = made(base_url)
    streams.stream = True
    return streams


@flow
def starting(base_url: str):
    """Start crews, as a script does, and return what they give."""
    crews = [made(base_url), made(base_url)]
    for each in crews:
        each.verbose = each.agents[0].verbose = True
    return [each.kickoff(inputs={"topic": topic}) for each, topic in zip(crews, ("stars", "moons"), strict=True)]


@flow
def streamed(topic: str, base_url: str):
    """Start one, and return what it gives."""
    return streaming(topic, base_url).kickoff(inputs={"topic": topic, "base_url": base_url})


@flow
def asking(topic: str, base_url: str):
    """Give a crew that asks a human about what it wrote."""
    return asking_crew(base_url)


def asking_crew(base_url):
    asks = made(base_url)
    asks.tasks[0].human_input = True
    return asks


class AskingSteps(Flow):
    """A crewAI flow that awaits such a crew."""

    @start()
    async def first(self):
        done = await asking_crew(self.state["base_url"]).akickoff(inputs={"topic": self.state["topic"]})
        return done.raw


@flow
def watched(topic: str, base_url: str):
    """Say where a crew's process connects to."""
    made(base_url).kickoff(inputs={"topic": topic})
    return sorted(map(str, set(connections)))


class Steps(Flow):
    """A crewAI flow."""

    @start()
    def first(self):
        return f"saw {self.state['topic']}"

    @listen(first)
    def second(self, seen):
        return f"{seen} twice"


class Reviewed(Flow):
    """A crewAI flow that has a human say something of what it gave, and asks another thing."""

    @start()
    @human_feedback(message="Is this right?")
    def first(self):
        return f"saw {self.state['topic']} by {KEY}"

    @listen(first)
    async def second(self):
        return [self.last_human_feedback.feedback, self.ask("Who signs?")]


standing = made("http://127.0.0.1:9/v1")
