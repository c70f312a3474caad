"""Tests of crewAI's memory, knowledge and single agents, against the real package; `test_crewai_apart.py` runs them.

The model and the embedder are on this machine, and no node is needed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from crewai import LLM, Agent, Crew, Task
from crewai.knowledge.knowledge import Knowledge
from crewai.knowledge.source.string_knowledge_source import StringKnowledgeSource
from crewai.memory.storage.backend import EmbeddingDimensionMismatchError, StorageBackend
from crewai.memory.types import MemoryRecord
from crewai.memory.unified_memory import Memory

from kodo.flow._runtime.load import LoadedFlow
from kodo.flow.adapters.crewai_memory import LongKnowledge, LongMemory
from kodo.flow.decorator import FlowDefinition
from kodo.testing import Run, run
from tests.support.chat import ChatServer, fail, say

KEY = "sk-canary-0c5d1b7e"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def vectors(texts: list[str]) -> list[list[float]]:
    """An embedder of words that are known, on this machine."""
    words = ("star", "moon", "tree")
    return [[float(word in text.lower()) for word in words] for text in texts]


def record(of: str, text: str, scope: str = "/", **more: Any) -> MemoryRecord:
    return MemoryRecord(id=of, content=text, scope=scope, embedding=vectors([text])[0], **more)


def model(server: ChatServer) -> LLM:
    return LLM(model="openai/test-model", base_url=server.url, api_key=KEY)


def remembers(memory: LongMemory) -> None:
    memory.save([record("1", "a star", "/crew/a/x", categories=["sky"]), record("2", "a moon", "/crew/a")])
    memory.save(
        [record("3", "a tree", "/crew/ab", metadata={"kind": "oak"}, created_at=datetime.fromisoformat("2020-01-01"))]
    )


def test_what_a_memory_holds_is_there_in_the_next_run_and_in_no_others():
    first = run(lambda: remembers(LongMemory()))

    def reads() -> Any:
        memory = LongMemory()
        found = memory.search(vectors(["star"])[0], limit=2)
        return [(each.content, each.categories, round(score, 2)) for each, score in found]

    nearest, next_one = run(reads, long=first.long).result
    assert (nearest, next_one[2]) == (["a star", ["sky"], 1.0], 0.33)
    assert run(reads).result == []


def test_a_memory_is_searched_listed_and_cleared_by_scope_category_and_metadata():
    def flow() -> None:
        memory = LongMemory()
        assert isinstance(memory, StorageBackend)
        remembers(memory)
        star = vectors(["star"])[0]
        assert [each.id for each, _ in memory.search(star, scope_prefix="/crew/a")] == ["1", "2"]
        assert [each.id for each, _ in memory.search(star, categories=["sky"])] == ["1"]
        assert [each.id for each, _ in memory.search(star, metadata_filter={"kind": "oak"})] == ["3"]
        assert [each.id for each, _ in memory.search(star, min_score=0.5)] == ["1"]
        assert memory.list_scopes("/crew") == ["/crew/a", "/crew/ab"]
        assert memory.list_categories() == {"sky": 1}
        assert [each.id for each in memory.list_records(limit=1, offset=2)] == ["3"]
        info = memory.get_scope_info("/crew/a")
        assert (info.record_count, info.child_scopes, info.categories) == (2, ["/crew/a/x"], ["sky"])
        memory.update(record("2", "a moon, again", "/crew/a"))
        memory.touch_records(["2", "unknown"])
        assert (found := memory.get_record("2")) is not None
        assert (found.content, found.embedding) == ("a moon, again", [0.0, 1.0, 0.0])
        assert memory.delete(older_than=datetime.fromisoformat("2021-01-01")) == 1
        assert memory.delete(record_ids=["1"], categories=["sky"]) == 1
        memory.reset("/crew/a")
        assert memory.count() == 0

    assert run(flow).long == {}


def test_vectors_of_another_embedder_are_refused():
    def flow() -> None:
        memory = LongMemory()
        remembers(memory)
        with pytest.raises(EmbeddingDimensionMismatchError):
            memory.search([1.0])
        with pytest.raises(EmbeddingDimensionMismatchError):
            memory.save([MemoryRecord(content="x", embedding=[1.0])])

    run(flow)


def test_a_memory_that_a_flow_makes_is_kept_and_one_with_a_place_of_its_own_is_left_alone(tmp_path: Any):
    def flow() -> list[str]:
        kept = Memory(embedder=vectors)
        kept.remember("a star", scope="/a", categories=["sky"], importance=0.5)
        kept.drain_writes()
        return [type(each._storage).__name__ for each in (kept, Memory(storage=str(tmp_path / "own")))]

    first = run(flow)
    assert first.result == ["LongMemory", "LanceDBStorage"]

    def recalls() -> list[str]:
        return [each.record.content for each in Memory(embedder=vectors).recall("star", depth="shallow")]

    assert run(recalls, long=first.long).result == ["a star"]


def crew_that_remembers(server: ChatServer) -> Crew:
    agent = Agent(role="Writer", goal="write", backstory="curious", llm=model(server), max_retry_limit=0)
    task = Task(name="write", description="write", expected_output="text", agent=agent)
    return Crew(agents=[agent], tasks=[task], memory=Memory(embedder=vectors, llm=model(server)))


def test_the_memory_of_a_crew_that_was_made_with_its_module_is_kept_too():
    with ChatServer([say("stars shine")]) as server:
        crew = crew_that_remembers(server)
        assert type(crew._memory._storage).__name__ == "LanceDBStorage"
        made = run(lambda: crew)
    assert made.result == "stars shine"
    assert type(crew._memory._storage).__name__ == "LongMemory"


asked: list[str] = []


def counted(texts: list[str]) -> list[list[float]]:
    asked.extend(texts)
    return vectors(texts)


def knowing(texts: list[str]) -> list[str]:
    knowledge = Knowledge("book", [StringKnowledgeSource(content=text) for text in texts])
    storage = knowledge.storage
    assert isinstance(storage, LongKnowledge)
    storage._function = counted
    knowledge.add_sources()
    return sorted(each["content"] for each in knowledge.query(["star"], score_threshold=0.1))


def test_knowledge_is_embedded_once_and_a_run_finds_the_sources_that_it_adds():
    asked.clear()
    first = run(knowing, texts=["a star", "a moon"])
    assert first.result == ["a moon", "a star"]
    second = run(knowing, texts=["a star"], long=first.long)
    assert (second.result, run(knowing, texts=[], long=second.long).result) == (["a star"], ["a moon", "a star"])
    assert (asked.count("a star"), asked.count("a moon")) == (1, 1)


def told(made: Run, name: str) -> list[dict[str, Any]]:
    return [data for data in made.told(name) if data.get("name") == "Writer"]


def test_an_agent_that_is_started_by_itself_is_told():
    with ChatServer([say(f"stars shine, says {KEY}")]) as server:

        def flow(topic: str) -> str:
            agent = Agent(role="Writer", goal="write", backstory="curious", llm=model(server))
            return str(agent.kickoff(f"write about {topic}").raw).replace(KEY, "")

        made = run(flow, topic="stars")
    assert made.result == "stars shine, says "
    assert [data["phase"] for data in told(made, "action")] == ["start", "end"]
    assert [data["model"] for data in told(made, "agent")] == ["test-model"]
    assert KEY not in str(made.events)


@pytest.mark.parametrize("script", [[fail(400, "no such model")], [say("stars shine")]])
def test_a_request_to_a_model_is_told_once_however_it_ends_and_a_tasks_text_by_its_result(script: Any):
    with ChatServer(script) as server:

        def flow() -> Any:
            writer = Agent(role="Writer", goal="write", backstory="curious", llm=model(server))
            task = Task(description="Write.", expected_output="text", agent=writer)
            return Crew(agents=[writer], tasks=[task]).kickoff().raw

        made = run(flow, check=False)
    begun = [data for data in made.told("action") if "model" in data and data["phase"] == "start"]
    ended = [data for data in made.told("action") if "model" in data and data["phase"] == "end"]
    failed = [data for data in made.told("action-error") if "model" in data]
    assert begun
    assert len(begun) == len(ended) + len(failed)
    assert sum("stars shine" in str(data) for data in [*made.told("action"), *made.told("result")]) == len(ended)


def test_an_agent_is_a_flow_that_takes_a_prompt():
    with ChatServer([say("stars shine")]) as server:
        agent = Agent(role="Writer", goal="write", backstory="curious", llm=model(server))
        schema = LoadedFlow("f", "m:f", agent, FlowDefinition(name="f"), "").inputs_schema()
        assert schema["required"] == ["prompt"]
        assert run(agent, prompt="What of stars?").result == "stars shine"
        assert "What of stars?" in str(server.asked[0]["messages"])


def test_an_agent_that_fails_is_told():
    with ChatServer([fail(400, "no such model")]) as server:
        agent = Agent(role="Writer", goal="write", backstory="curious", llm=model(server), max_retry_limit=0)
        made = run(agent, prompt="x", check=False)
    assert "no such model" in str(told(made, "action-error"))
    assert made.error is not None
