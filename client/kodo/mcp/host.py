"""What the bridge needs of an MCP host, whichever revision that speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from kodo.mcp.runs import Standing

__all__ = ["AskAgain", "Host", "MadeTask", "Question", "Reply", "Round"]


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked: by a form, or at a URL.

    Attributes:
        key: names it in a round; a question that is asked again after an answer has a new one.
        message: what the person reads.
        schema: of the flat form; None: at `url`.
    """

    key: str
    message: str
    schema: Mapping[str, Any] | None = None
    url: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a person did with a question, and what they filled in."""

    action: Literal["accept", "decline", "cancel"]
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AskAgain:
    """The host has to ask these and repeat the call, with the replies and `state` (revision 2026-07-28)."""

    questions: tuple[Question, ...]
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MadeTask:
    """The call goes on as a task: this run, which is durable."""

    standing: Standing


@dataclass(frozen=True, slots=True)
class Round:
    """What a repeated call brings: the `state` of the one before, which is the bridge's own, and the replies."""

    state: Mapping[str, Any] = field(default_factory=dict)
    replies: Mapping[str, Reply] = field(default_factory=dict)


class Host(Protocol):
    """A host, for the length of one call.

    Attributes:
        forms: it can show forms to a person.
        urls: it can send a person to a URL.
        rounds: it is asked by the result of a call, and repeats the call; else by a request of the server's.
        tasks: it follows tasks.
    """

    forms: bool
    urls: bool
    rounds: bool
    tasks: bool

    async def progress(self, percent: float | None, text: str) -> None:
        """Report progress, if the host asked for it."""
        ...

    async def ask(self, question: Question) -> Reply:
        """Ask a person, and wait for it; only where `rounds` is false."""
        ...
