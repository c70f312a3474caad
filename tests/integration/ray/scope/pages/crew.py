"""A crew as crewAI's own project template lays it out; nothing in it knows of kodo."""

from crewai import Agent, Crew, Process, Task
from crewai.flow.flow import Flow, start
from crewai.project import CrewBase, agent, before_kickoff, crew, task
from pydantic import BaseModel

from .tools import count


@CrewBase
class Pages:
    """Write a page."""

    agents_config = "config/agents.yaml"
    tasks_config = "config/tasks.yaml"

    @before_kickoff
    def prepare(self, inputs):
        """Change the inputs."""
        return {**inputs, "topic": inputs["topic"].upper()}

    @agent
    def writer(self) -> Agent:
        """Write."""
        return Agent(config=self.agents_config["writer"], tools=[count])

    @task
    def page(self) -> Task:
        """Write a page."""
        return Task(config=self.tasks_config["page"])

    @crew
    def crew(self) -> Crew:
        """Be the crew."""
        return Crew(agents=self.agents, tasks=self.tasks, process=Process.sequential)


class Counted(BaseModel):
    """A flow's state."""

    topic: str = ""
    times: int = 1


class Count(Flow[Counted]):
    """Count."""

    @start()
    def first(self):
        """Count."""
        return self.state.topic * self.state.times
