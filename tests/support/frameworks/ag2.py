"""AG2: an assistant, and whoever asks it."""

from autogen import ConversableAgent

REQUIRES = ["ag2[openai]"]


def work(url):
    config = {"config_list": [{"model": "test-model", "base_url": url, "api_key": "sk-x"}]}
    asker = ConversableAgent("asker", human_input_mode="NEVER", llm_config=False)
    writer = ConversableAgent("writer", human_input_mode="NEVER", llm_config=config)
    return asker.initiate_chat(writer, message="How is it?", max_turns=1).chat_history[-1]["content"]
