"""OpenTelemetry spans of generative AI as events: mapped, bounded, and in this process alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import propagate, trace

from kodo.flow.adapters.genai_spans import MAX_TOLD
from kodo.testing import Run, run

KEY = "sk-canary-0c5d1b7e"


def told(make: Callable[[trace.Tracer], Any], **options: Any) -> Run:
    return run(lambda: make(trace.get_tracer("somebody's framework")), **options)


def span(tracer: trace.Tracer, name: str, late: Any = None, **attributes: Any) -> None:
    given = {key.replace("__", "."): value for key, value in attributes.items()}
    with tracer.start_as_current_span(name, attributes=given) as made:
        made.set_attributes({key.replace("__", "."): value for key, value in (late or {}).items()})


CHAT = {"gen_ai__operation__name": "chat", "gen_ai__request__model": "small"}
USAGE = {"gen_ai__usage__input_tokens": 3, "gen_ai__usage__output_tokens": 4}
TOOL = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "lookup"}


@pytest.mark.parametrize(
    ("name", "early", "late", "end"),
    [
        ("chat small", CHAT, USAGE, {"model": "small", "usage": {"input_tokens": 3, "output_tokens": 4}}),
        ("chat small", {}, {"gen_ai__system": "x", **USAGE}, {"model": "small"}),
        ("call", {}, {**CHAT, "gen_ai__agent__name": "Ada"}, {"model": "small", "agent": "Ada"}),
        ("execute_tool lookup", TOOL, {"gen_ai__tool__call__result": '["a"]'}, {"tool": "lookup", "output": ["a"]}),
        ("invoke_agent Ada", {"gen_ai__operation__name": "invoke_agent"}, {}, {"name": "Ada"}),
    ],
)
def test_a_span_is_an_action_that_starts_and_ends(name: str, early: Any, late: Any, end: dict[str, Any]):
    made = told(lambda tracer: span(tracer, name, late, **early))
    started, ended = made.told("action")
    assert (started["phase"], ended["phase"]) == ("start", "end")
    assert {key: ended.get(key) for key in end} == end
    assert made.told("agent") == ([{"name": "Ada"}] if "name" in end else [])


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("GET /chat", {"http__route": "/chat"}),
        ("chat small", {}),
        ("embeddings x", {"gen_ai__operation__name": "embeddings"}),
    ],
)
def test_spans_of_other_things_are_not_told(name: str, attributes: Any):
    assert told(lambda tracer: span(tracer, name, **attributes)).events == []


def test_prompts_are_not_told_and_keys_are_cut_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SOME_API_KEY", KEY)
    arguments = {"gen_ai__tool__call__arguments": f'{{"key": "{KEY}"}}', "gen_ai__input__messages": "a secret prompt"}
    made = told(lambda tracer: span(tracer, "execute_tool lookup", **TOOL, **arguments))
    assert made.told("action")[0]["arguments"] == {"key": "[key]"}
    assert "secret prompt" not in str(made.events)


def test_a_span_that_fails_is_told_as_an_error():
    def flow(tracer: trace.Tracer) -> None:
        with tracer.start_as_current_span("chat small", attributes={"gen_ai.operation.name": "chat"}):
            raise ValueError("no such model")

    made = told(flow, check=False)
    (error,) = made.told("action-error")
    assert (error["model"], error["message"]) == ("small", "ValueError: no such model")


def test_more_spans_than_are_told_are_said_to_be_left_out():
    def flow(tracer: trace.Tracer) -> None:
        for _ in range(MAX_TOLD + 10):
            span(tracer, "chat small", **CHAT)

    made = told(flow)
    assert len(made.told("action")) == 2 * MAX_TOLD
    (log,) = made.told("log")
    assert log["text"].startswith(f"more than {MAX_TOLD} calls")


def test_nothing_of_a_span_is_put_into_requests():
    def flow(tracer: trace.Tracer) -> Any:
        with tracer.start_as_current_span("chat small"):
            headers: dict[str, str] = {}
            propagate.inject(headers)
            return headers

    assert told(flow).result == {}


class Own(trace.NoOpTracerProvider):
    """A provider of the author's, as the SDK's: it calls processors."""

    def __init__(self) -> None:
        self.processors: list[Any] = []

    def add_span_processor(self, processor: Any) -> None:
        self.processors.append(processor)


def test_a_provider_of_the_authors_is_taken_and_listened_to():
    import subprocess
    import sys

    program = """
from kodo.testing import run
from tests.unit.flow.test_genai_spans import Own

def flow():
    from opentelemetry import trace
    own = Own()
    trace.set_tracer_provider(own)
    return [trace.get_tracer_provider() is own, len(own.processors)]

print(run(flow).result)
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "[True, 1]\n", done.stderr


def test_after_a_run_there_is_the_provider_of_before():
    before, setter = trace.get_tracer_provider(), trace.set_tracer_provider
    assert told(lambda tracer: trace.get_tracer_provider() is before).result is False
    assert trace.get_tracer_provider() is before
    assert trace.set_tracer_provider is setter
