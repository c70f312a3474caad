"""How a flow that stops at `breakpoint()` and the `koco run` on whose terminal it does so understand each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["FORM", "LOGGER", "TERMINAL", "is_breakpoint"]

TERMINAL = "KODO_TERMINAL"
"""The variable that names the terminal on which a run's breakpoints stop."""

LOGGER = "kodo.breakpoint"
"""The logger of the `log` event that tells that the flow goes on."""

FORM: dict[str, Any] = {"type": "boolean", "title": "breakpoint", "description": "Go on without the debugger?"}
"""The form of the lock by which a flow asks for the terminal."""


def is_breakpoint(schema: Any) -> bool:
    """Return whether a lock of this form asks for the terminal."""
    return isinstance(schema, Mapping) and dict(schema) == FORM
