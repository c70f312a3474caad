"""The reference of `koco`, from its commands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kodo.cli.command import COMMON
from kodo.cli.commands import COMMANDS, load
from kodo.cli.examples import EXAMPLES

from .blocks import table

__all__ = ["commands", "common_options"]


def commands() -> str:
    """Return a section for each command, by the sections of `koco --help`."""
    parts: list[str] = []
    for panel in dict.fromkeys(entry.panel for entry in COMMANDS.values()):
        parts.append(f"## {panel}")
        for name, entry in COMMANDS.items():
            if entry.panel == panel:
                parts += _command(f"koco {name}", load(name), entry.help)
    return "\n\n".join(parts)


def common_options() -> str:
    """Return the options that every command takes."""
    found = [each for each in load("nodes").params if each.name in COMMON]
    return table(["Option", "What it does"], ([_option(each), each.help or ""] for each in found))


def _command(name: str, command: Any, help_text: str) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner:
        yield f"### {name}\n\n{help_text}"
        for word, each in inner.items():
            yield from _body(f"{name} {word}", each, each.help or "", "####")
    else:
        yield from _body(name, command, help_text, "###")


def _body(name: str, command: Any, help_text: str, heading: str) -> Iterator[str]:
    own = [each for each in command.params if each.name not in COMMON]
    arguments = [each for each in own if each.param_type_name == "argument"]
    options = [each for each in own if each.param_type_name == "option"]
    usage = " ".join([name, *(_argument(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    yield f"{heading} {name}\n\n{_text(help_text)}\n\n```text\n{usage}\n```"
    rows = [[f"`{_metavar(each)}`", each.help or ""] for each in arguments if each.help]
    rows += [[_option(each), each.help or ""] for each in options if not each.hidden]
    if rows:
        yield table(["Argument or option", "What it does"], rows)
    if examples := EXAMPLES.get(command.callback.__name__):
        yield "```sh\n" + "\n".join(examples) + "\n```"


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _argument(parameter: Any) -> str:
    text = _metavar(parameter) + (" …" if parameter.nargs == -1 and "…" not in _metavar(parameter) else "")
    return text if parameter.required else f"[{text}]"


def _option(parameter: Any) -> str:
    words = [*parameter.opts, *parameter.secondary_opts]
    # `--x/--no-x` are two spellings of one switch; `--yes`, `--defaults` two names of one option.
    shown = " / ".join(f"`{word}`" for word in words)
    return shown if parameter.is_flag else f"{shown} `{_metavar(parameter)}`"


def _text(help_text: str) -> str:
    return " ".join(help_text.replace("\b", "").split())
