"""Inputs of an earlier run, some of them changed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kodo.p2p.errors import UsageError
from kodo.protocol.secrets import masked

__all__ = ["changed"]


def changed(given: Mapping[str, Any], earlier: Any, words: Sequence[str]) -> dict[str, Any]:
    """Return the inputs to send, where `place.city=Ulm` changes one field of what the earlier run had as `place`.

    Args:
        given: what `words` and a file say.
        earlier: the inputs of the earlier run, as its state shows them.

    Raises:
        UsageError: a part of something that holds a secret is named: secrets are not kept, so all of it is needed.
    """
    before = earlier if isinstance(earlier, Mapping) else {}
    names = [word.partition("=")[0] for word in words]
    whole = dict(given)
    for name, value in given.items():
        # A name with a dot may be a field's own.
        if name in names or not any(each.startswith(f"{name}.") for each in names) or name not in before:
            continue
        if masked(before[name]):
            raise UsageError(f"{name} holds a secret, and secrets are not kept with a run: give {name} whole")
        whole[name] = _over(before[name], value)
    return whole


def _over(before: Any, value: Any) -> Any:
    """Lay `value` over what was there: field by field where both are objects, else in its place."""
    if not isinstance(before, Mapping) or not isinstance(value, Mapping):
        return value
    return {**before, **{key: _over(before.get(key), part) for key, part in value.items()}}
