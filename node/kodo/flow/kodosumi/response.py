"""What a flow of a kodosumi app gives as its result: `response.Markdown("# Done")`."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

__all__ = ["HTML", "Markdown", "Response", "Text"]


@dataclass(frozen=True, slots=True)
class Response:
    """Text of one of three kinds: `markdown`, `html` or `text`."""

    body: str
    kind: str

    def to_map(self) -> dict[str, str]:
        """Return it as the data of a `result` event; HTML says what it is."""
        return {"html": self.body} if self.kind == "html" else {"text": self.body}


def Markdown(*args: Any) -> Response:
    """Return Markdown; lines that are all indented, as in a triple-quoted text, lose that."""
    return Response(textwrap.dedent(_joined(args)).strip(), "markdown")


def HTML(*args: Any) -> Response:
    """Return HTML."""
    return Response(_joined(args), "html")


def Text(*args: Any) -> Response:
    """Return plain text."""
    return Response(_joined(args), "text")


def _joined(args: tuple[Any, ...]) -> str:
    parts = args[0] if len(args) == 1 and isinstance(args[0], list) else args
    return "\n".join(map(str, parts))
