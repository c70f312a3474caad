"""crewAI's memory and knowledge in `memory.long`, so that crews go on over runs, for whoever launched them.

Each text is a value of the flow's long-term memory, with its vector, in the part that its launcher has for
themselves; it goes with that memory. What is read is what was there when the run first asked, and what the run
itself has added. A memory or a knowledge that its author gives another storage keeps that.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
from crewai.knowledge.storage.base_knowledge_storage import BaseKnowledgeStorage
from crewai.knowledge.storage.factory import set_knowledge_storage_factory
from crewai.memory.storage.backend import EmbeddingDimensionMismatchError
from crewai.memory.storage.factory import set_memory_storage_factory
from crewai.memory.types import MemoryRecord, ScopeInfo
from pydantic import PrivateAttr

from kodo.flow.memory import Memory

__all__ = ["LongKnowledge", "LongMemory", "kept_over_runs", "take_memory_of"]

_DEFAULT = "lancedb"
"""What crewAI stores memories in, unless an author says otherwise."""

_READERS = 8
"""Values that are read at once, when a memory is read."""


@contextlib.contextmanager
def kept_over_runs() -> Iterator[None]:
    """Keep memories and knowledge that are made within the block, unless their authors chose a storage."""
    memory = LongMemory()
    set_memory_storage_factory(lambda spec: memory if spec == _DEFAULT else None)
    set_knowledge_storage_factory(_knowledge)
    try:
        yield
    finally:
        set_memory_storage_factory(None)
        set_knowledge_storage_factory(None)


def take_memory_of(crew: Any) -> None:
    """Keep the memory of a crew that was made before the run, such as one of a module, too."""
    for owner in (crew, *(getattr(crew, "agents", None) or [])):
        for name in ("_memory", "memory"):
            memory: Any = getattr(owner, name, None)
            if getattr(memory, "storage", None) == _DEFAULT and not isinstance(memory._storage, LongMemory):
                memory._storage = LongMemory()


def _knowledge(embedder: Any, collection: str | None) -> Any:
    from crewai.rag.config.utils import _rag_context

    chosen = _rag_context.get() is not None and embedder is None
    return None if chosen else LongKnowledge(embedder=embedder, collection=collection or "")


class _Texts:
    """Values with vectors below a prefix of the launcher's part: read at once, written one by one. Thread-safe."""

    def __init__(self, prefix: str):
        self._memory = Memory("long", own=True)
        self._prefix = prefix
        self._guard = threading.RLock()
        self._rows: dict[str, dict[str, Any]] | None = None

    def all(self) -> dict[str, dict[str, Any]]:
        """Return all, by id; each has its `vector`, which may be empty."""
        with self._guard:
            if self._rows is None:
                keys = self._memory.pages("keys", self._prefix)
                with ThreadPoolExecutor(_READERS) as readers:
                    found = readers.map(lambda key: self._memory.ask("get", {"key": key})["value"], keys)
                    self._rows = {row["id"]: {**row, "vector": _read(row["vector"])} for row in found if row}
            return dict(self._rows)

    def put(self, row: Mapping[str, Any], vector: Any) -> None:
        """Store one; when this returns it is in the memory."""
        vector = np.asarray([] if vector is None else vector, dtype="<f4")
        with self._guard:
            sizes = {len(each["vector"]) for each in self.all().values() if len(each["vector"])}
            if len(vector) and sizes and len(vector) not in sizes:
                raise EmbeddingDimensionMismatchError(next(iter(sizes)), len(vector))
            kept = {**row, "vector": base64.b64encode(vector.tobytes()).decode()}
            self._memory.ask("set", {"key": self._key(row["id"]), "value": kept, "version": None})
            assert self._rows is not None
            self._rows[row["id"]] = {**row, "vector": vector}

    def drop(self, of: str) -> None:
        """Remove one."""
        with self._guard:
            self._memory.ask("delete", {"key": self._key(of)})
            if self._rows is not None:
                self._rows.pop(of, None)

    def _key(self, of: str) -> str:
        return f"{self._prefix}{_name_of(of)}"


def _name_of(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _now() -> datetime:
    """Return the time as crewAI has it: UTC, without saying so."""
    return datetime.now(UTC).replace(tzinfo=None)


def _best(scores: Any, limit: int) -> list[tuple[float, int]]:
    """Return the highest scores with their places, the best first."""
    return [(scores[at], at) for at in np.argsort(-scores, kind="stable")[:limit]]


def _read(vector: str) -> Any:
    return np.frombuffer(base64.b64decode(vector), dtype="<f4")


class LongMemory:
    """What crewAI calls a storage backend of its unified memory; scores are those of its own one."""

    def __init__(self) -> None:
        self._texts = _Texts("crewai/memory/")

    def save(self, records: list[MemoryRecord]) -> None:
        """Store records."""
        for record in records:
            self._texts.put(record.model_dump(mode="json"), record.embedding)

    def update(self, record: MemoryRecord) -> None:
        """Store a record in the place of the one with its id."""
        self.save([record])

    def touch_records(self, record_ids: list[str]) -> None:
        """Note that records were used just now."""
        rows, now = self._texts.all(), _now().isoformat()
        for each in record_ids:
            if each in rows:
                vector = rows[each]["vector"]
                self._texts.put({**_without_vector(rows[each]), "last_accessed": now}, vector)

    def get_record(self, record_id: str) -> MemoryRecord | None:
        """Return a record by its id."""
        row = self._texts.all().get(record_id)
        return _record(row) if row else None

    def search(
        self,
        query_embedding: list[float],
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        metadata_filter: dict[str, Any] | None = None,
        limit: int = 10,
        min_score: float = 0.0,
    ) -> list[tuple[MemoryRecord, float]]:
        """Return the records nearest to a vector, with their scores, the best first."""
        rows = [row for row in self._rows(scope_prefix, categories, metadata_filter) if len(row["vector"])]
        if not rows:
            return []
        query = np.asarray(query_embedding, dtype="<f4")
        if len(query) != len(rows[0]["vector"]):
            raise EmbeddingDimensionMismatchError(len(rows[0]["vector"]), len(query))
        distances = np.square(np.stack([row["vector"] for row in rows]) - query).sum(axis=1)
        scored = _best(1.0 / (1.0 + distances), limit)
        return [(_record(rows[at]), float(score)) for score, at in scored if score >= min_score]

    def delete(
        self,
        scope_prefix: str | None = None,
        categories: list[str] | None = None,
        record_ids: list[str] | None = None,
        older_than: datetime | None = None,
        metadata_filter: dict[str, Any] | None = None,
    ) -> int:
        """Remove the records that all of this is true of; give how many."""
        found = [_record(row) for row in self._rows(scope_prefix, categories, metadata_filter)]
        gone = [
            each.id
            for each in found
            if (record_ids is None or each.id in record_ids) and (older_than is None or each.created_at < older_than)
        ]
        for each in gone:
            self._texts.drop(each)
        return len(gone)

    def list_records(self, scope_prefix: str | None = None, limit: int = 200, offset: int = 0) -> list[MemoryRecord]:
        """Return records, the newest first."""
        found = sorted(map(_record, self._rows(scope_prefix)), key=lambda each: each.created_at, reverse=True)
        return found[offset : offset + limit]

    def get_scope_info(self, scope: str) -> ScopeInfo:
        """Return what there is in a scope."""
        found = [_record(row) for row in self._rows(scope)]
        times = [each.created_at for each in found]
        return ScopeInfo(
            path=scope or "/",
            record_count=len(found),
            categories=sorted({category for each in found for category in each.categories}),
            oldest_record=min(times, default=None),
            newest_record=max(times, default=None),
            child_scopes=self.list_scopes(scope),
        )

    def list_scopes(self, parent: str = "/") -> list[str]:
        """Return the scopes right below one."""
        prefix = f"{parent.rstrip('/')}/"
        below = [row["scope"].removeprefix(prefix) for row in self._rows(parent) if row["scope"].startswith(prefix)]
        return sorted({prefix + rest.partition("/")[0] for rest in below if rest})

    def list_categories(self, scope_prefix: str | None = None) -> dict[str, int]:
        """Return how many records each category has."""
        counts: dict[str, int] = {}
        for row in self._rows(scope_prefix):
            for category in row["categories"]:
                counts[category] = counts.get(category, 0) + 1
        return counts

    def count(self, scope_prefix: str | None = None) -> int:
        """Return how many records there are."""
        return len(self._rows(scope_prefix))

    def reset(self, scope_prefix: str | None = None) -> None:
        """Remove all records of a scope."""
        self.delete(scope_prefix)

    async def asave(self, records: list[MemoryRecord]) -> None:
        """Do `save` in a thread."""
        await asyncio.to_thread(self.save, records)

    async def asearch(
        self, query_embedding: list[float], *args: Any, **more: Any
    ) -> list[tuple[MemoryRecord, float]]:
        """Do `search` in a thread."""
        return await asyncio.to_thread(self.search, query_embedding, *args, **more)

    async def adelete(self, *args: Any, **more: Any) -> int:
        """Do `delete` in a thread."""
        return await asyncio.to_thread(self.delete, *args, **more)

    def _rows(
        self,
        scope: str | None = None,
        categories: list[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        top = (scope or "").rstrip("/")
        return [
            row
            for row in self._texts.all().values()
            if f"{row['scope']}/".startswith(f"{top}/")
            and (not categories or set(categories) & set(row["categories"]))
            and all(row["metadata"].get(key) == value for key, value in (metadata or {}).items())
        ]


def _record(row: Mapping[str, Any]) -> MemoryRecord:
    return MemoryRecord(**_without_vector(row), embedding=row["vector"].tolist() or None)


def _without_vector(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "vector"}


class LongKnowledge(BaseKnowledgeStorage):  # type: ignore[misc]
    """Knowledge whose vectors are kept: what was read before is not sent to the embedder again.

    A run that adds sources finds those alone, for what a run before had added may be of another matter; one that adds
    none finds all.
    """

    embedder: Any = None
    collection: str = ""
    _texts: Any = PrivateAttr(default=None)
    _added: set[str] = PrivateAttr(default_factory=set)
    _function: Any = PrivateAttr(default=None)

    def search(
        self,
        query: list[str],
        limit: int = 5,
        metadata_filter: dict[str, Any] | None = None,
        score_threshold: float = 0.6,
    ) -> list[Any]:
        """Return the documents nearest to a question, the best first: `{id, content, metadata, score}`."""
        rows = [row for of, row in self._kept().all().items() if not self._added or of in self._added]
        if not query or not rows:
            return []
        asked = np.asarray(self._embed([" ".join(query)])[0], dtype="<f4")
        vectors = np.stack([row["vector"] for row in rows])
        if vectors.shape[1] != len(asked):
            raise EmbeddingDimensionMismatchError(vectors.shape[1], len(asked))
        lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(asked)
        scores = 0.5 + 0.5 * (vectors @ asked) / np.maximum(lengths, 1e-12)
        best = _best(scores, limit)
        return [
            {"id": rows[at]["id"], "content": rows[at]["content"], "metadata": {}, "score": float(score)}
            for score, at in best
            if score >= score_threshold
        ]

    def save(self, documents: list[str]) -> None:
        """Store documents; those that are known are not embedded anew."""
        named = {_name_of(each): each for each in documents}
        known = self._kept().all()
        missing = [of for of in named if of not in known]
        vectors = self._embed([named[of] for of in missing]) if missing else []
        for of, vector in zip(missing, vectors, strict=True):
            self._kept().put({"id": of, "content": named[of]}, vector)
        self._added |= set(named)

    def reset(self) -> None:
        """Remove all documents."""
        for of in self._kept().all():
            self._kept().drop(of)
        self._added = set()

    async def asearch(self, query: list[str], *args: Any, **more: Any) -> list[Any]:
        """Do `search` in a thread."""
        return await asyncio.to_thread(self.search, query, *args, **more)

    async def asave(self, documents: list[str]) -> None:
        """Do `save` in a thread."""
        await asyncio.to_thread(self.save, documents)

    async def areset(self) -> None:
        """Do `reset` in a thread."""
        await asyncio.to_thread(self.reset)

    def _kept(self) -> _Texts:
        if self._texts is None:
            of = _name_of(json.dumps([self.collection, _model_of(self.embedder)]))
            self._texts = _Texts(f"crewai/knowledge/{of}/")
        made: _Texts = self._texts
        return made

    def _embed(self, texts: list[str]) -> list[Any]:
        if self._function is None:
            self._function = _function_of(self.embedder)
        return list(self._function(texts))


def _model_of(embedder: Any) -> list[str]:
    """Return what tells the vectors of one embedder from another's; no key is in it."""
    if not isinstance(embedder, dict):
        return [getattr(embedder, "__qualname__", type(embedder).__qualname__)]
    config = embedder.get("config") or {}
    names = [config.get(name) for name in ("model_name", "model", "dimensions")]
    return [str(each) for each in (embedder.get("provider"), *names)]


def _function_of(embedder: Any) -> Callable[[list[str]], Any]:
    """Return what makes vectors of texts: of an author's embedder, else the one that crewAI takes."""
    if embedder is not None:
        from crewai.rag.embeddings.factory import build_embedder

        made: Callable[[list[str]], Any] = build_embedder(embedder)
        return made
    from crewai.rag.chromadb.config import ChromaDBConfig

    usual: Callable[[list[str]], Any] = ChromaDBConfig().embedding_function
    return usual
