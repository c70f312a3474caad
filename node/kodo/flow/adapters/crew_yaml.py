"""A crew that is written in YAML alone: agents and tasks as in crewAI's own `agents.yaml` and `tasks.yaml`.

An agent's `llm` may also be a map, as `{model: small, provider: openai, base_url: "http://…"}`, for any model that
speaks the OpenAI chat API.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kodo.flow.adapters.crew_names import names_in
from kodo.p2p.errors import UsageError
from kodo.protocol.texts import several

__all__ = ["YamlCrew"]

_AGENT = frozenset(["role", "goal", "backstory"])
_MODELS = ("llm", "function_calling_llm")
_TASK = frozenset(["description", "expected_output", "agent"])
_CREW = frozenset(["agents", "tasks", "process", "manager_llm"])


class YamlCrew:
    """The `crew:` of a YAML file; crewAI is imported when it is run.

    Raises:
        UsageError: it lacks something, or names an agent or a task that is not there.
    """

    def __init__(self, said: Any):
        if not isinstance(said, Mapping) or set(said) - _CREW:
            raise UsageError(f"`crew` is a map of {', '.join(sorted(_CREW))}")
        self._agents = _parts(said, "agents", _AGENT)
        self._tasks = _parts(said, "tasks", _TASK)
        self._options = {name: said[name] for name in ("process", "manager_llm") if name in said}
        earlier: set[str] = set()
        for name, task in self._tasks.items():
            if task["agent"] not in self._agents:
                raise UsageError(f"the task {name} is for the agent {task['agent']!r}, which is not among `agents`")
            missing = [other for other in several(task.get("context") or ()) if other not in earlier]
            if missing:
                raise UsageError(f"the context of the task {name} names {missing[0]!r}, which is not an earlier task")
            earlier.add(name)

    def schema(self) -> dict[str, Any]:
        """Return the form of the inputs: the names in braces, as `{topic}`, in the order in which they come."""
        texts = [text for part in (*self._agents.values(), *self._tasks.values()) for text in part.values()]
        names = names_in(texts)
        return {
            "type": "object",
            "properties": {name: {"type": "string"} for name in names},
            "required": names,
            "additionalProperties": False,
        }

    def kickoff(self, inputs: Mapping[str, Any]) -> Any:
        """Make the crew and run it."""
        from kodo.flow.adapters.crewai import run

        return run(self.make(), inputs)

    def make(self) -> Any:
        """Return it as a `crewai.Crew`."""
        import crewai

        def model(said: Any) -> Any:
            return crewai.LLM(**said) if isinstance(said, Mapping) else said

        agents = {
            name: crewai.Agent(**{key: model(part) if key in _MODELS else part for key, part in said.items()})
            for name, said in self._agents.items()
        }
        tasks: dict[str, Any] = {}
        for name, said in self._tasks.items():
            given = {**said, "agent": agents[said["agent"]], "name": name}
            if said.get("context"):
                given["context"] = [tasks[other] for other in several(said["context"])]
            tasks[name] = crewai.Task(**given)
        return crewai.Crew(agents=list(agents.values()), tasks=list(tasks.values()), **self._options)


def _parts(said: Mapping[str, Any], kind: str, needed: frozenset[str]) -> dict[str, dict[str, Any]]:
    parts = said.get(kind)
    if not isinstance(parts, Mapping) or not parts:
        raise UsageError(f"`crew` has no `{kind}`")
    found: dict[str, dict[str, Any]] = {}
    for name, part in parts.items():
        lacking = sorted(needed - set(part)) if isinstance(part, Mapping) else sorted(needed)
        if lacking:
            raise UsageError(f"in `crew`, {name} of `{kind}` lacks {', '.join(lacking)}")
        # What YAML folds over lines ends with a line end.
        found[str(name)] = {str(key): text.strip() if isinstance(text, str) else text for key, text in part.items()}
    return found
