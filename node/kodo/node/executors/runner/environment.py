"""The environment of the processes that run flows: the node's own, less what is the node's or its user's alone."""

from __future__ import annotations

from collections.abc import Mapping

from kodo.settings.home import ENVIRONMENT

__all__ = ["NODE", "RUN", "flow_environment"]

RUN = "KODO_FID"
"""The variable that tells a flow, and what it starts, the id of its run."""

NODE = "KODO_NODE"
"""The variable that tells them the name of the node."""

_NOT_FOR_FLOWS = frozenset(
    [
        # What the node itself is told; a client in a flow is not the node's operator by accident.
        "KODO_HOME",
        *ENVIRONMENT.values(),
        # The ways to its user's keys and session, and to its service manager.
        "SSH_AUTH_SOCK",
        "SSH_AGENT_PID",
        "GPG_AGENT_INFO",
        "GNOME_KEYRING_CONTROL",
        "DBUS_SESSION_BUS_ADDRESS",
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
    ]
)
"""Variables that flows do not need, and do not get."""


def flow_environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return what flows get of a node's environment: nothing that steers Ray or sends anything elsewhere."""
    return {
        name: value
        for name, value in own.items()
        if not name.startswith(("RAY_", "__RAY", "OTEL_")) and name not in _NOT_FOR_FLOWS
    }
