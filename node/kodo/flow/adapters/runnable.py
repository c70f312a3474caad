"""LangChain: a chain (any `Runnable`) as a flow. It is run, and gives its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["run", "schema"]


def run(target: Any, inputs: Mapping[str, Any]) -> Any:
    """Run a chain with a map of inputs to its end; one that takes no map gets the only input.

    Raises:
        Exception: whatever it raises.
    """
    if len(inputs) == 1 and not _takes_map(target):
        return target.invoke(next(iter(inputs.values())))
    return target.invoke(dict(inputs))


def schema(target: Any) -> dict[str, Any] | None:
    """Return the JSON Schema of a chain's input; None when its types have none, or it takes no map."""
    found = _schema(target)
    if found.get("type") != "object":
        return None
    return {key: value for key, value in found.items() if key != "title"}


def _takes_map(chain: Any) -> bool:
    found = _schema(chain)
    return found.get("type") in ("object", None) and not found.get("anyOf")


def _schema(target: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = target.get_input_jsonschema()
    except Exception:  # types of the author's, which JSON Schema may not know
        return {}
    return found
