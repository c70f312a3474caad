"""The generated parts of the documentation, by the names of their blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from . import api, koco, protocol, settings

__all__ = ["MAKERS"]

MAKERS: Mapping[str, Callable[[], str]] = {
    "koco commands": koco.commands,
    "koco common options": koco.common_options,
    **settings.BLOCKS,
    "args": protocol.args,
    "events": protocol.events,
    "refusals of nodes": partial(protocol.refusals, "node/kodo"),
    "kodo.flow": partial(api.describe, "kodo.flow"),
    "kodo.testing": partial(api.describe, "kodo.testing"),
    "kodo.client": partial(
        api.describe,
        "kodo.client",
        ("kodo.client.memory", "kodo.client.schedules", "kodo.client.invitations", "kodo.client.each"),
    ),
}
