"""How the words of a command become values. `typer` does it by pydantic, whose import takes as long as a command.

Texts, paths, lists of them, and what was not given need none of that; for all other values, such as numbers, typer
does what it always does. This uses private parts of typer, so `contract/test_typer_values.py` compares the values.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from typer import _coercion
from typer._param_types import coerce_cli_path

__all__ = ["spare_pydantic"]


class _Values:
    """Makes the values of one parameter, in place of typer's `RuntimeParam`."""

    def __init__(self, descriptor: _coercion.TypeDescriptor) -> None:
        self._descriptor = descriptor
        self._is_list = descriptor.is_list
        self._kind: Any = get_args(descriptor.annotation)[0] if self._is_list else descriptor.annotation

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return what a parameter's words mean; `value` is a default, or what was typed: texts."""
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        if several == self._is_list and self._descriptor.parameter_info.parser is None:
            words = list(value) if self._is_list else [value]
            if all(self._is_plain(word) for word in words):
                made = [self._make(word, param, ctx) for word in words]
                return made if self._is_list else made[0]
        return _coercion.build_runtime_param(self._descriptor).coerce(value, param=param, ctx=ctx)

    def _is_plain(self, word: object) -> bool:
        """Whether a value is of its type already, as defaults and texts are, or is the text of a path."""
        return type(word) is self._kind or (self._kind is Path and type(word) is str and word != "")

    def _make(self, word: Any, param: Any, ctx: Any) -> Any:
        if self._kind is not Path:
            return word
        return coerce_cli_path(Path(word), self._descriptor.parameter_info, path_type=Path, param=param, ctx=ctx)


def spare_pydantic(command: Any) -> None:
    """Make a command, and those of a group, take its words without pydantic where that is possible."""
    get_params = command.get_params

    def get_light_params(ctx: Any) -> list[Any]:
        found: list[Any] = get_params(ctx)  # `--help` is made in there
        for each in found:
            if each._runtime_param is None:
                each._runtime_param = _Values(each.type_descriptor)
        return found

    command.get_params = get_light_params
    for each in getattr(command, "commands", {}).values():
        spare_pydantic(each)
