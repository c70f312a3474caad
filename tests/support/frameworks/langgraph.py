"""LangGraph: a graph of one node."""

from typing import TypedDict

from langgraph.graph import END, START, StateGraph

REQUIRES = ["langgraph"]


class Said(TypedDict):
    """What goes through the graph."""

    text: str


def work(url):
    builder = StateGraph(Said)
    builder.add_node("write", lambda state: {"text": "all is well"})
    builder.add_edge(START, "write")
    builder.add_edge("write", END)
    return builder.compile().invoke({"text": "How is it?"})["text"]
