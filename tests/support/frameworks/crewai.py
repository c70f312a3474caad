"""crewAI: a crew of one agent with one task."""

from crewai import LLM, Agent, Crew, Task

REQUIRES = ["crewai"]


def work(url):
    model = LLM(model="openai/test-model", base_url=url, api_key="sk-x")
    agent = Agent(role="Writer", goal="write", backstory="curious", llm=model)
    task = Task(description="write {topic}", expected_output="text", agent=agent)
    return Crew(agents=[agent], tasks=[task]).kickoff({"topic": "it"}).raw
