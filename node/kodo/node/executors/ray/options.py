"""What a flow may ask of Ray, as options of its actor. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kodo.p2p.errors import CapacityError, UsageError

__all__ = ["actor_options", "amounts"]

_RESOURCES = frozenset(["num_cpus", "num_gpus", "memory_mb", "resources", "runtime_env"])


def actor_options(resources: Mapping[str, Any], totals: Mapping[str, float] | None) -> dict[str, Any]:
    """Turn what a flow asks for into an actor's options.

    Args:
        resources: `num_cpus, num_gpus, memory_mb, resources, runtime_env`.
        totals: what there is in all, by Ray's names; None: that is not known, nor fixed.

    Raises:
        UsageError: it asks for something unknown, or in a wrong form.
        CapacityError: it asks for more than there is.
    """
    unknown = set(resources) - _RESOURCES
    if unknown:
        raise UsageError(f"Ray does not know {', '.join(sorted(unknown))}; known are {', '.join(sorted(_RESOURCES))}")
    options = {name: value for name, value in resources.items() if value is not None}
    for name in ("num_cpus", "num_gpus", "memory_mb"):
        value = options.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise UsageError(f"{name} is a number of at least 0, not {value!r}")
    for name in ("runtime_env", "resources"):
        if not isinstance(options.get(name, {}), dict):
            raise UsageError(f"{name} is a map")
    if "memory_mb" in options:
        options["memory"] = int(options.pop("memory_mb") * 1024 * 1024)
    if totals is not None:
        for name, amount in amounts(options).items():
            if amount > totals.get(name, 0):
                raise CapacityError(f"the flow asks for {amount:g} {name}; this node has {totals.get(name, 0):g}")
    return options


def amounts(options: Mapping[str, Any]) -> dict[str, float]:
    """Return how much an actor with these options takes, by Ray's names."""
    asked = {"CPU": options.get("num_cpus", 0), "GPU": options.get("num_gpus", 0)}
    return asked | {"memory": options.get("memory", 0), **(options.get("resources") or {})}
