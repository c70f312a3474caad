"""LlamaIndex workflows, without the rest of LlamaIndex: one step, one answer."""

from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent

REQUIRES = ["llama-index-workflows"]


class Answers(Workflow):
    """It asks no model."""

    @step
    async def answer(self, ev: StartEvent) -> StopEvent:
        """Answer."""
        return StopEvent(result="all is well")


async def work(url):
    return await Answers().run()
