"""LangGraph graphs as flows; nothing here knows of kodo but for one decorator."""

import operator
from typing import Annotated

from langchain_core.runnables import RunnableLambda
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt
from typing_extensions import TypedDict

from kodo.flow import flow


class State(TypedDict):
    topic: str
    notes: Annotated[list[str], operator.add]
    approved: bool


def research(state):
    get_stream_writer()({"read": 3})
    return {"notes": [f"note on {state['topic']}"]}


async def review(state):
    first = interrupt({"question": "Approve?", "notes": state["notes"], "schema": {"type": "boolean"}})
    second = interrupt("A comment?")
    return {"approved": first, "notes": [second]}


def left(state):
    return {"notes": [interrupt("left")]}


def right(state):
    return {"notes": [interrupt("right")]}


def fails(state):
    raise ValueError(f"no {state['topic']}")


def built(*nodes, parallel=False, **options):
    builder = StateGraph(State)
    for node in nodes:
        builder.add_node(node)
    names = [node.__name__ for node in nodes]
    if parallel:
        for name in names:
            builder.add_edge(START, name)
            builder.add_edge(name, END)
    else:
        for before, after in zip([START, *names], [*names, END], strict=True):
            builder.add_edge(before, after)
    return builder.compile(**options)


graph = built(research, review)
failing = built(research, fails)
both = built(left, right, parallel=True)
stopping = built(research, interrupt_before=["research"])


@flow
def factory(topic: str = "stars"):
    """Make a graph that runs with the inputs of its factory."""
    return built(research)


def large(state):
    return {"notes": ["x" * 1_000_000]}


large_one = built(large)


nested_builder = StateGraph(State)
nested_builder.add_node("inner", built(research))
nested_builder.add_edge(START, "inner")
nested = nested_builder.compile()


@flow
def uncompiled(topic: str):
    """Give a graph that nobody compiled."""
    builder = StateGraph(State)
    builder.add_node(research)
    builder.add_edge(START, "research")
    return builder


@flow
def chain(topic: str):
    """Give a chain of LangChain's."""
    return RunnableLambda(lambda inputs: {"topic": inputs["topic"].upper()})


@flow
async def chain_of_text(topic: str):
    """Give a chain whose input is one text."""
    return RunnableLambda(shout)


def shout(text: str) -> str:
    return text.upper()
