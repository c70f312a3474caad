"""LangChain, and LangGraph below it: an agent with one answer."""

from langchain.agents import create_agent
from langchain_openai import ChatOpenAI

REQUIRES = ["langchain", "langchain-openai", "langgraph"]


def work(url):
    agent = create_agent(ChatOpenAI(model="test-model", base_url=url, api_key="sk-x"), tools=[])
    return agent.invoke({"messages": [("user", "How is it?")]})["messages"][-1].content
