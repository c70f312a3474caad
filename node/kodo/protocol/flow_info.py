"""`FlowInfo`: what is said of a flow, on its whole way from an author's decorator to a row of a registry. Pure.

The process that imports flows makes one of each, as a map of plain values; the node's catalogue keeps it, lists it
and tells registries of it. What an author says may be longer than registries take: they get `FlowInfo.cut`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

__all__ = [
    "MAX_DESCRIPTION_CHARACTERS",
    "MAX_PATH_CHARACTERS",
    "MAX_RELEASE_CHARACTERS",
    "MAX_RETURNS_CHARACTERS",
    "MAX_TAGS",
    "MAX_TAG_CHARACTERS",
    "MAX_TEXT_CHARACTERS",
    "FlowInfo",
]

MAX_PATH_CHARACTERS = 512
"""Of a path, and of a source."""

MAX_TEXT_CHARACTERS = 256
"""Of a name, an author and an organization."""

MAX_DESCRIPTION_CHARACTERS = 4096
MAX_RELEASE_CHARACTERS = 64
MAX_TAGS, MAX_TAG_CHARACTERS = 32, 64
MAX_RETURNS_CHARACTERS = 32_000
"""Of the schema of a result, as JSON; of a larger one nothing is said."""

_LATEST_MS = (1 << 53) - 1
"""JSON's largest whole number."""

_LISTED = ("path", "name", "description", "author", "organization", "release", "published")
_OF_RUNS = ("path", "name", "release", "author", "organization", "description")


@dataclass(frozen=True, slots=True)
class FlowInfo:
    """What is said of one flow.

    Attributes:
        path: qualified name or file path; the flow's identity on its node.
        name: display name.
        entry: what is imported to run it, `module:attribute` or a file.
        source: where its code stands, as `flows/market.py`.
        description: for people; Markdown is allowed.
        author: who to ask, as an e-mail address.
        organization: whom the author works for.
        release: version of the flow.
        published: when this release was first offered, ms UTC; 0 when not known.
        tags: words to find it by.
        schema: JSON Schema of its inputs.
        example: inputs that fit it.
        returns: JSON Schema of its result, by its return hint, to which nobody holds it; empty when not known.
        resources: what it asks of Ray.
        needs_ray: whether its code imports Ray, or it asks for resources.
        has_check: whether a function of its author judges inputs before a launch.
        error: why it cannot be run, when it is broken.
    """

    path: str
    name: str
    entry: str
    source: str = ""
    description: str = ""
    author: str = ""
    organization: str = ""
    release: str = ""
    published: int = 0
    tags: tuple[str, ...] = ()
    schema: dict[str, Any] = field(default_factory=dict)
    example: dict[str, Any] = field(default_factory=dict)
    returns: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    needs_ray: bool = False
    has_check: bool = False
    error: str | None = None

    @classmethod
    def from_map(cls, said: Mapping[str, Any]) -> Self:
        """Read what `to_map` wrote; what is absent is not said.

        Raises:
            KeyError: there is no path.
        """
        error = said.get("error")
        return cls(
            path=str(said["path"]),
            name=str(said.get("name") or said["path"]),
            entry=str(said.get("entry") or ""),
            source=str(said.get("source") or ""),
            description=str(said.get("description") or ""),
            author=str(said.get("author") or ""),
            organization=str(said.get("organization") or ""),
            release=str(said.get("release") or ""),
            published=int(said.get("published") or 0),
            tags=tuple(str(tag) for tag in said.get("tags") or ()),
            schema=said.get("schema") or {"type": "object"},
            example=dict(said.get("example") or {}),
            returns=dict(said.get("returns") or {}),
            resources=dict(said.get("resources") or {}),
            needs_ray=bool(said.get("needs_ray")),
            has_check=bool(said.get("has_check")),
            error=None if error is None else str(error),
        )

    def to_map(self) -> dict[str, Any]:
        """Return all of it as plain values; `published`, `returns` and `error` only where there are any."""
        said = {each.name: getattr(self, each.name) for each in fields(FlowInfo)}
        said["tags"] = list(self.tags)
        absent = [name for name in ("published", "returns", "error") if not said[name]]
        return {name: value for name, value in said.items() if name not in absent}

    def row(self) -> dict[str, Any]:
        """Return the row of `flow.list`."""
        return {**{name: getattr(self, name) for name in _LISTED}, "tags": list(self.tags), "broken": self.error}

    def about(self) -> dict[str, Any]:
        """Return the data of a run's `flow` event."""
        return {name: getattr(self, name) for name in _OF_RUNS}

    def cut(self) -> Self:
        """Return it within the bounds of what registries take, in texts that UTF-8 can say; its path stays whole."""
        tags = [_text(tag) for tag in self.tags if tag]
        return replace(
            self,
            path=_text(self.path),
            name=_text(self.name)[:MAX_TEXT_CHARACTERS],
            source=_text(self.source)[:MAX_PATH_CHARACTERS],
            description=_text(self.description)[:MAX_DESCRIPTION_CHARACTERS],
            author=_text(self.author)[:MAX_TEXT_CHARACTERS],
            organization=_text(self.organization)[:MAX_TEXT_CHARACTERS],
            release=_text(self.release)[:MAX_RELEASE_CHARACTERS],
            published=min(max(self.published, 0), _LATEST_MS),
            tags=tuple([tag for tag in tags if len(tag) <= MAX_TAG_CHARACTERS][:MAX_TAGS]),
        )


def _text(text: str) -> str:
    """Return a text as UTF-8 can say it: half of a surrogate pair it cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")
