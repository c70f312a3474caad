"""Names in braces in the texts of a crew: its inputs."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["names_in"]

_NAME = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")


def names_in(texts: list[Any]) -> list[str]:
    """Return the names in braces in the texts of agents and tasks, as `{topic}`, in the order in which they come."""
    return list(dict.fromkeys(name for text in texts if isinstance(text, str) for name in _NAME.findall(text)))
