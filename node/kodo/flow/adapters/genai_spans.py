"""Any other framework: OpenTelemetry spans that follow its conventions for generative AI (`gen_ai.*`), as events.

| span | becomes |
|---|---|
| `invoke_agent`, `create_agent` | `agent`, once; `action` when it starts and ends |
| `chat`, `generate_content`, `text_completion` | `action` with the model, the tokens used in the end |
| `execute_tool` | `action` with the tool, its arguments and what it gives, where the span has them |
| one of these fails | `action-error` |

Spans are taken in the process of the run and go nowhere: as long as the flow's author sets no tracer provider, there
is one here that exports nothing and puts nothing into requests; to one that an author sets, this only listens. What
models are asked and answer is not told. Frameworks that have an adapter of their own are left to that.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry import trace

from kodo.flow.adapters.telling import Span, Teller
from kodo.flow.emit import emit

__all__ = ["Provider", "Spans", "instrument"]

MAX_TOLD = 2000
"""Spans of one run that are told."""

_MAX_OPEN = 10_000
_MAX_ATTRIBUTES = 128
_ADAPTED = (
    "pydantic-ai",
    "crewai",
    "langgraph",
    "llama_index",
    "openai.agents",
    "opentelemetry.instrumentation.openai_agents",
)
_MODELS = frozenset(["chat", "generate_content", "text_completion"])
_AGENTS = frozenset(["invoke_agent", "create_agent"])
_OPERATIONS = _MODELS | _AGENTS | {"execute_tool"}
_OPERATION = "gen_ai.operation.name"


@contextlib.contextmanager
def instrument() -> Iterator[None]:
    """Report spans within the block."""
    spans, original = Spans(Teller()), trace.set_tracer_provider
    before: Any = trace._TRACER_PROVIDER

    def set_and_listen(provider: Any) -> None:
        if getattr(provider, "_disabled", False):  # nobody would get anything of it
            return
        if trace._TRACER_PROVIDER is _provider:
            trace._TRACER_PROVIDER = None
        original(provider)
        _listen(provider, spans)

    vars(trace)["set_tracer_provider"] = set_and_listen
    if before is None:
        trace._TRACER_PROVIDER = _provider
    _provider.spans = spans
    _listen(before, spans)
    try:
        yield
    finally:
        spans.active = False
        _provider.spans = None
        vars(trace)["set_tracer_provider"] = original
        if trace._TRACER_PROVIDER is _provider:
            trace._TRACER_PROVIDER = before


def _listen(provider: Any, spans: Spans) -> None:
    if provider is not _provider and hasattr(provider, "add_span_processor"):
        provider.add_span_processor(spans)


class Spans:
    """Turns spans into events, as what OpenTelemetry calls a span processor. Called in any thread.

    Args:
        without: instrumentation scopes whose spans are passed over, by how their names begin.

    Attributes:
        active: whether spans are told at all.
    """

    def __init__(self, teller: Teller, without: tuple[str, ...] = _ADAPTED):
        self._teller, self._without = teller, without
        self._guard = threading.Lock()
        self._open: dict[int, Span] = {}
        self._told = 0
        self.active = True

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Report what starts, if the span says so already."""
        if not self.active or len(self._open) >= _MAX_OPEN:
            return
        attributes = _attributes(span)
        about = self._about(span, attributes)
        if about is not None and _OPERATION in attributes and self._has_room():
            opened = self._begin(about)
            with self._guard:
                self._open[_key(span)] = opened

    def on_end(self, span: Any) -> None:
        """Report how it ended."""
        with self._guard:
            opened = self._open.pop(_key(span), None)
        attributes = _attributes(span)
        about = self._about(span, attributes)
        if not self.active or about is None:
            return
        if opened is None:
            if not self._has_room():
                return
            opened = self._begin(about)
        status: Any = getattr(span, "status", None)
        if getattr(status, "status_code", None) is trace.StatusCode.ERROR:
            opened.fail(status.description or str(attributes.get("error.type") or "failed"))
        elif "tool" in about:
            opened.end(arguments=about.get("arguments"), output=_read(attributes.get("gen_ai.tool.call.result")))
        elif "model" in about:
            tokens = {each: attributes.get(f"gen_ai.usage.{each}") for each in ("input_tokens", "output_tokens")}
            opened.end(usage={each: count for each, count in tokens.items() if isinstance(count, int)} or None)
        else:
            opened.end()

    def _on_ending(self, span: Any) -> None:
        """Change nothing."""

    def shutdown(self) -> None:
        """Hold nothing back."""

    def force_flush(self, timeout_millis: int = 0) -> bool:
        """Hold nothing back."""
        return True

    def _begin(self, about: dict[str, Any]) -> Span:
        if "name" in about:
            self._teller.announce("agent", about["name"])
        return self._teller.span(**about)

    def _about(self, span: Any, attributes: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a span is about; None when it is none of those that are told."""
        scope = str(getattr(getattr(span, "instrumentation_scope", None), "name", ""))
        if scope.startswith(self._without) or not any(name.startswith("gen_ai.") for name in attributes):
            return None
        first, _, rest = str(span.name).partition(" ")
        operation = attributes.get(_OPERATION) or first
        if operation not in _OPERATIONS:
            return None
        agent = attributes.get("gen_ai.agent.name")
        if operation in _AGENTS:
            return {"name": str(agent or rest or "agent")}
        if operation in _MODELS:
            model = attributes.get("gen_ai.request.model") or attributes.get("gen_ai.response.model") or rest
            return {"model": str(model or "model"), "agent": agent}
        arguments = _read(attributes.get("gen_ai.tool.call.arguments"))
        return {"tool": str(attributes.get("gen_ai.tool.name") or rest or "tool"), "arguments": arguments}

    def _has_room(self) -> bool:
        with self._guard:
            self._told += 1
            told = self._told
        if told == MAX_TOLD + 1:
            text = f"more than {MAX_TOLD} calls of agents, models and tools: the further ones are not shown"
            emit("log", {"level": "WARNING", "logger": "kodo.flow", "text": text})
        return told <= MAX_TOLD


class Provider(trace.TracerProvider):
    """Makes spans that are told, and exported to nobody.

    Attributes:
        spans: what tells them; None: nothing does.
    """

    def __init__(self, spans: Spans | None = None):
        self.spans = spans

    def get_tracer(self, instrumenting_module_name: str, *args: Any, **kwargs: Any) -> trace.Tracer:
        """Return what makes spans for a library."""
        return _Tracer(self, instrumenting_module_name)


_provider = Provider()
"""The one for all blocks: libraries keep the tracer that they once got."""


class _Tracer(trace.Tracer):
    def __init__(self, provider: Provider, name: str):
        self._provider, self._scope = provider, _Scope(name)

    def start_span(
        self, name: str, context: Any = None, kind: Any = None, attributes: Any = None, *args: Any, **kwargs: Any
    ) -> trace.Span:
        """Make a span."""
        return _Made(self._provider.spans, self._scope, name, attributes)

    @contextlib.contextmanager
    def start_as_current_span(  # type: ignore[override]
        self, name: str, context: Any = None, kind: Any = None, attributes: Any = None, *args: Any, **kwargs: Any
    ) -> Iterator[trace.Span]:
        """Make a span that is the current one within the block."""
        span = self.start_span(name, context, kind, attributes)
        ends = kwargs.get("end_on_exit", True)
        with trace.use_span(span, end_on_exit=ends, record_exception=True, set_status_on_exception=True):
            yield span


class _Scope:
    def __init__(self, name: str):
        self.name = name


class _Made(trace.Span):
    """A span. It has no ids, so that nothing of it is put into requests."""

    def __init__(self, spans: Spans | None, scope: _Scope, name: str, attributes: Mapping[str, Any] | None):
        self.name, self.instrumentation_scope = name, scope
        self.attributes: dict[str, Any] = {}
        self.status: trace.Status | None = None
        self._spans = spans
        self.set_attributes(attributes or {})
        if spans is not None:
            spans.on_start(self)

    def end(self, end_time: int | None = None) -> None:
        """End it, once."""
        spans, self._spans = self._spans, None
        if spans is not None:
            spans.on_end(self)

    def get_span_context(self) -> trace.SpanContext:
        """Return the context of no span."""
        return trace.INVALID_SPAN_CONTEXT

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set some attributes."""
        for key, value in attributes.items():
            self.set_attribute(key, value)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute, of a bounded number."""
        if key in self.attributes or len(self.attributes) < _MAX_ATTRIBUTES:
            self.attributes[key] = value

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        """Drop an event: those of such spans hold prompts and answers."""

    def update_name(self, name: str) -> None:
        """Change the name."""
        self.name = name

    def is_recording(self) -> bool:
        """Return whether it is told when it ends."""
        return self._spans is not None

    def set_status(self, status: Any, description: str | None = None) -> None:
        """Set whether it went well."""
        self.status = status if isinstance(status, trace.Status) else trace.Status(status, description)

    def record_exception(self, exception: BaseException, *args: Any, **kwargs: Any) -> None:
        """Drop an exception: the status has its message."""


def _key(span: Any) -> int:
    return id(span) if isinstance(span, _Made) else int(span.get_span_context().span_id)


def _attributes(span: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    return found


def _read(value: Any) -> Any:
    """Return an attribute as data where it is JSON."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value
