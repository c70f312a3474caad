"""An app written for kodosumi whose entry launches a crew by its name."""

from crewai import LLM, Agent, Crew, Task
from kodosumi.core import InputsError, Launch, ServeAPI
from kodosumi.core import forms as F

app = ServeAPI()

writer = Agent(
    role="Writer",
    goal="Write hymns",
    backstory="You sing.",
    llm=LLM(model="openai/test-model", base_url="http://127.0.0.1:1/v1", api_key="sk-canary-0c5d1b7e"),
)
hymn = Task(name="hymn", description="A hymn about {topic}.", expected_output="A hymn.", agent=writer)
crew = Crew(agents=[writer], tasks=[hymn])


@app.enter("/", model=F.Model(F.InputText(name="topic"), F.InputText(name="base_url")), summary="Hymn")
async def enter(request, inputs: dict):
    if not inputs["topic"].strip():
        raise InputsError(topic="Please give me a topic.")
    writer.llm = LLM(model="openai/test-model", base_url=inputs["base_url"], api_key="sk-canary-0c5d1b7e")
    return Launch(request, "hymn:crew", inputs=inputs)
