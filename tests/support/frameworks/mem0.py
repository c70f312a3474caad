"""Mem0: a fact is remembered and found again, by the words of a model here and vectors on the disk."""

from mem0 import Memory

REQUIRES = ["mem0ai"]
HEEDS = ["MEM0_TELEMETRY"]


def work(url):
    model = {"model": "test-model", "openai_base_url": url, "api_key": "sk-x"}
    memory = Memory.from_config(
        {
            "llm": {"provider": "openai", "config": model},
            "embedder": {"provider": "openai", "config": {**model, "embedding_dims": 8}},
            "vector_store": {"provider": "qdrant", "config": {"embedding_model_dims": 8, "path": "vectors"}},
        }
    )
    memory.add("all is well", user_id="ana", infer=False)
    return memory.search("How is it?", filters={"user_id": "ana"})["results"][0]["memory"]
