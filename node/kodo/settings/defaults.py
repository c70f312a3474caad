"""What clients do where nothing is set: most commands need no other settings, and so no model of them."""

from __future__ import annotations

from types import MappingProxyType

__all__ = ["CLIENT_DEFAULTS"]

CLIENT_DEFAULTS = MappingProxyType(
    {
        "node": None,
        "registry": (),
        "lan": True,
        "proxy": None,
        "timeout_s": 30.0,
        "browse_s": 1.5,
        "patience_s": 120.0,
        "keyring": True,
        "login_bound": False,
    }
)
"""The value of each field of `ClientSettings` that nobody has set: a test compares them."""
