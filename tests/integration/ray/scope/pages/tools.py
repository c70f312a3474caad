"""A tool of the project."""

from crewai.tools import tool


@tool("count")
def count(text: str) -> int:
    """Count words."""
    return len(text.split())
