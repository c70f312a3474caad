"""CAMEL: one chat agent, one answer. Words are counted here: its own counters load the vocabulary of a model."""

from camel.agents import ChatAgent
from camel.models import ModelFactory
from camel.types import ModelPlatformType
from camel.utils import BaseTokenCounter

REQUIRES = ["camel-ai", "mcp<2"]


class Words(BaseTokenCounter):
    def count_tokens_from_messages(self, messages):
        return sum(len(str(message.get("content")).split()) for message in messages)

    def encode(self, text):
        return list(range(len(text.split())))

    def decode(self, token_ids):
        return " ".join(map(str, token_ids))


def work(url):
    kind = ModelPlatformType.OPENAI_COMPATIBLE_MODEL
    model = ModelFactory.create(kind, "test-model", url=url, api_key="sk-x", token_counter=Words())
    return ChatAgent("Write.", model=model).step("How is it?").msgs[0].content
