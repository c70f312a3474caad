"""Flows are used: find them, launch them, follow them, answer them, download what they made.

    async with Client() as kodo:
        run = await kodo.launch("flows.example.com/Competitor Analysis", topic="bikes")
        async for event in run.follow():
            print(event.event, event.data)
        await run.download("out/")

`kodo.client.sync` is the same without async.
"""

from kodo.client.client import Client, FlowOnNode
from kodo.client.run import Run
from kodo.client.transfer import Download, Progress
from kodo.protocol.events import Event, RunState, RunView

__all__ = ["Client", "Download", "Event", "FlowOnNode", "Progress", "Run", "RunState", "RunView"]
