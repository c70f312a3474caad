"""The reference of the settings, from their model."""

from __future__ import annotations

from kodo.client.config import ENVIRONMENT, Settings

from .blocks import table

__all__ = ["settings"]


def settings() -> str:
    """Return every setting: its key in `kodo.toml`, its variable, its default and what it is for."""
    return table(
        ["`kodo.toml`", "Environment", "Default", "What it is"],
        (
            [f"`{name}`", f"`{ENVIRONMENT[name]}`", f"`{field.default}`", field.description or ""]
            for name, field in Settings.model_fields.items()
        ),
    )
