"""A flow of which only its YAML file says what it asks of Ray."""

from __future__ import annotations

import os

import ray

from kodo.flow import flow


@flow
def sized() -> dict[str, object]:
    """Say what Ray gave."""
    given = ray.get_runtime_context().get_assigned_resources()
    return {"given": given, "word": os.environ.get("CLI_TEST_WORD")}
