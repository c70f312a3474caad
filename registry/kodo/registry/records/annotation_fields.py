"""An admin's words: which fields of nodes and flows can be annotated, and with what. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kodo.p2p.errors import CallError

__all__ = ["FlowWords", "NodeWords", "check_words"]

_Text = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Description = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")]
_Tags = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]], Field(max_length=32)
]


class _Words(BaseModel):
    """None takes a word back."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class NodeWords(_Words):
    """What an admin may say of a node.

    Attributes:
        tags: words to find it by.
        description: for people.
        hidden: whether only admins see it, and its flows.
        availability: share of time that it answers, 0 to 1; until a registry measures it again.
        performance: seconds of a round trip; until a registry measures it again.
    """

    tags: _Tags | None = None
    description: _Description | None = None
    hidden: bool | None = None
    availability: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    performance: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None


class FlowWords(_Words):
    """What an admin may say of a flow; the fields are those of its record.

    Attributes:
        hidden: whether only admins see it.
    """

    name: _Text | None = None
    description: _Description | None = None
    author: _Text | None = None
    organization: _Text | None = None
    tags: _Tags | None = None
    hidden: bool | None = None


def check_words(model: type[_Words], words: Mapping[str, Any]) -> dict[str, Any]:
    """Return `words` when they are of the fields and types of `model`.

    Raises:
        CallError: 400 naming the field that is wrong.
    """
    try:
        return model.model_validate(dict(words)).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        arg = ".".join(str(part)[:64] for part in first["loc"][:3])
        raise CallError(400, "bad-args", f"{arg}: {first['msg'][:256]}", {"arg": arg}) from None
