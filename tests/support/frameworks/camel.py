"""CAMEL: one agent, one answer."""

from camel.agents import ChatAgent
from camel.models import ModelFactory
from camel.types import ModelPlatformType

REQUIRES = ["camel-ai"]


def work(url):
    platform = ModelPlatformType.OPENAI_COMPATIBLE_MODEL
    model = ModelFactory.create(model_platform=platform, model_type="test-model", url=url, api_key="sk-x")
    return ChatAgent("Write.", model=model).step("How is it?").msgs[0].content
