"""What `kodo.cli.parameters` relies on inside of typer: the values of commands are those that typer makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from typer import _coercion
from typer.models import OptionInfo

from kodo.cli import parameters

ANNOTATIONS = (str, Path, bool, int, float, list[str], list[Path], list[int])
TYPED = (None, "", "text", "5", "0", "yes", "no", "0.5", "ä/ö", "/", "/nowhere/at/all")
"""What a shell gives, or nothing."""
INFOS = {
    "plain": OptionInfo(),
    "bounded": OptionInfo(min=1, max=7),
    "no folder": OptionInfo(dir_okay=False),
    "there": OptionInfo(exists=True),
    "parsed": OptionInfo(parser=repr),
}


class Parameter:
    """As much of a parameter as its values depend on."""

    def __init__(self, *, several: bool) -> None:
        self.multiple = several
        self.nargs = 1


def made(maker: Any, value: Any, *, several: bool) -> tuple[Any, str]:
    try:
        value = maker.coerce(value, param=Parameter(several=several), ctx=None)
    except typer.BadParameter as error:
        return "refused", error.message
    return type(value), repr(value)


@pytest.mark.parametrize("annotation", ANNOTATIONS, ids=str)
@pytest.mark.parametrize("info", INFOS)
def test_values_are_those_that_typer_makes(annotation: Any, info: str) -> None:
    descriptor = _coercion.resolve_type_descriptor(annotation, INFOS[info])
    ours, theirs = parameters._Values(descriptor), _coercion.build_runtime_param(descriptor)
    several = descriptor.is_list
    for value in TYPED:
        given = [value, value] if several and value is not None else value
        assert made(ours, given, several=several) == made(theirs, given, several=several), value


@pytest.mark.parametrize("default", ["text", Path("x"), True, False, 5, 0.5, ["a", "b"], [Path("a")]], ids=repr)
def test_defaults_are_what_they_are(default: Any) -> None:
    kind: Any = type(default)
    descriptor = _coercion.resolve_type_descriptor(list[type(default[0])] if kind is list else kind, OptionInfo())  # type: ignore[misc]
    ours, theirs = parameters._Values(descriptor), _coercion.build_runtime_param(descriptor)
    assert made(ours, default, several=kind is list) == made(theirs, default, several=kind is list)


def test_every_parameter_is_made_here() -> None:
    app = typer.Typer(add_completion=False)

    @app.command("one")
    def one(name: str, several: list[Path], n: int = 3, *, quiet: bool = False) -> None:
        raise typer.Exit(0)

    command = typer.main.get_command(app)
    parameters.spare_pydantic(command)
    context = command.make_context("one", ["ana", "a", "b", "--n", "4", "--quiet"])
    assert context.params == {"name": "ana", "several": [Path("a"), Path("b")], "n": 4, "quiet": True}
    assert {type(each._runtime_param) for each in command.get_params(context)} == {parameters._Values}
