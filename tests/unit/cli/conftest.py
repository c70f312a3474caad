"""What tests of commands share with those of the library."""

from __future__ import annotations

from tests.unit.client.conftest import world

__all__ = ["world"]
