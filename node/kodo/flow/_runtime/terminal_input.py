"""`input()` and `getpass.getpass()` of a flow and of libraries that it calls ask by a lock: a run has no terminal."""

from __future__ import annotations

import builtins
import contextlib
import getpass
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import SecretStr

from kodo.flow._runtime.current import current
from kodo.flow.locks import lock
from kodo.protocol.flow_limits import MAX_TITLE_CHARACTERS

__all__ = ["ask_by_locks", "asking_by_locks"]

_PYTHONS = (builtins.input, getpass.getpass)


@contextlib.contextmanager
def asking_by_locks() -> Iterator[None]:
    """Make them ask by locks within the block, unless somebody has replaced them, as a test may."""
    before = (builtins.input, getpass.getpass)
    if before == _PYTHONS:
        ask_by_locks(str)
    try:
        yield
    finally:
        builtins.input, getpass.getpass = before


def ask_by_locks(last_line: Callable[[], str]) -> None:
    """Make `input` and `getpass` of this process ask by locks from now on.

    Args:
        last_line: returns what was printed last: the question, where it is not the call's argument.
    """

    def ask(prompt: Any, form: Any) -> Any:
        if current().fid is None:
            raise EOFError("there is nobody to ask while a module is imported: call input() in the flow")
        title = str(prompt).strip() or last_line().strip() or "Input?"
        # In a thread of its own, for an event loop may run in this one: it waits as `input` makes it wait.
        with ThreadPoolExecutor(1, "kodo-input") as apart:
            return apart.submit(lock, title[:MAX_TITLE_CHARACTERS], form).result()

    def ask_text(prompt: object = "", /) -> str:
        """Ask for a line of text."""
        return str(ask(prompt, str))

    def ask_secret(prompt: str = "Password: ", stream: Any = None, **_: Any) -> str:
        """Ask for a secret, which is stored nowhere."""
        return str(ask(prompt, SecretStr).get_secret_value())

    builtins.input = ask_text
    getpass.getpass = ask_secret
