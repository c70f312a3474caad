"""Secrets, links and codes that a command is given: better not as words, which other processes and the history see.

`-` asks at the terminal without showing what is typed, or reads a line where stdin is none; `env:VARIABLE` reads the
environment. Only where a secret is expected: elsewhere these are texts as any other.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from kodo.p2p.errors import UsageError

if TYPE_CHECKING:
    from kodo.cli.runtime import Context

__all__ = ["confirm_registry", "is_elsewhere", "read_secret", "secret_values", "warn_of"]

MAX_LINE = 65_536
_ENVIRONMENT = "env:"


async def read_secret(text: str, what: str) -> str:
    """Return the secret that a word stands for: `-`, `env:VARIABLE`, or itself.

    Args:
        what: what is asked for, for the prompt and for errors.

    Raises:
        UsageError: there is nothing to be read; says where.
    """
    if text.startswith(_ENVIRONMENT):
        found = os.environ.get(text.removeprefix(_ENVIRONMENT), "")
        if not found:
            raise UsageError(f"{what}: the environment has no variable {text.removeprefix(_ENVIRONMENT)}")
        return found
    if text != "-":
        return text
    if sys.stdin.isatty():
        from kodo.cli.terminal import ask_line

        found = await ask_line(f"{what}:", True)
    else:
        found = (await asyncio.to_thread(sys.stdin.readline, MAX_LINE)).rstrip("\r\n")
    if not found:
        raise UsageError(f"{what}: nothing was entered")
    return found


def confirm_registry(context: Context) -> Callable[[str], Awaitable[bool]]:
    """Return what asks a person whether a link's registry may be told of its node; without a terminal it may not."""

    async def confirm(registry: str) -> bool:
        from kodo.cli.text import line

        question = f"the node is not found nearby; ask the registry {line(registry)} where it is?"
        return context.interactive and await asyncio.to_thread(typer.confirm, question, err=True)

    return confirm


def is_elsewhere(text: str) -> bool:
    """Whether a word says where the secret is, instead of being it: `-`, `env:VARIABLE`, `@FILE`."""
    return text == "-" or text.startswith((_ENVIRONMENT, "@"))


def warn_of(context: Context, name: str) -> None:
    """Warn that a secret was given as a word, and what is better."""
    context.say(
        f"warning: {name} is a secret, and other programs and the shell's history can see the command line;"
        f" better: {name}=- asks for it, {name}=env:VARIABLE or {name}=@FILE reads it"
    )


async def secret_values(context: Context, words: Sequence[str], schema: Any) -> Mapping[str, str]:
    """Return the secrets among `name=value` that are read from elsewhere, by name; warn of those that are not."""
    from kodo.cli.values import secret_fields

    found: dict[str, str] = {}
    for name, text in secret_fields(words, schema):
        if text == "-" or text.startswith(_ENVIRONMENT):
            found[name] = await read_secret(text, name)
        elif text and not is_elsewhere(text):
            warn_of(context, name)
    return found
