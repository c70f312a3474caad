"""The data of a `fatal` event, made so that it always fits one: the last word of a run must not fail."""

from __future__ import annotations

from typing import Any

__all__ = ["MAX_MESSAGE_CHARACTERS", "MAX_TRACEBACK_CHARACTERS", "exact_text", "make_fatal"]

MAX_MESSAGE_CHARACTERS = 10_000
"""Of the message its beginning is kept."""

MAX_TRACEBACK_CHARACTERS = 50_000
"""Of the traceback its end is kept: what went wrong stands there."""

_MAX_WORD_CHARACTERS = 1000
# A character has at most four bytes, so all of it together is below the 256 KiB of an event.


def make_fatal(kind: str, message: str, *, where: str = "", traceback: str = "", signal: str = "") -> dict[str, Any]:
    """Return the data of a `fatal` event; whatever the texts are, it is at most `MAX_EVENT_BYTES` as msgpack.

    Args:
        kind: what ended the run, as the name of an exception's class.
        message: for people.
        where: file, line and function, or `node`.
        traceback: seen at level 2 only.
        signal: what ended the process, as `SIGSEGV`.
    """
    data = {"type": exact_text(kind)[:_MAX_WORD_CHARACTERS], "message": exact_text(message)[:MAX_MESSAGE_CHARACTERS]}
    more = {
        "where": exact_text(where)[:_MAX_WORD_CHARACTERS],
        "signal": exact_text(signal)[:_MAX_WORD_CHARACTERS],
        "traceback": exact_text(traceback)[-MAX_TRACEBACK_CHARACTERS:],
    }
    return data | {name: text for name, text in more.items() if text}


def exact_text(text: str) -> str:
    """Return `text` as a `str` proper that has a UTF-8 form: a lone surrogate becomes its escape.

    A subclass of `str` is user code; none of its methods is called.
    """
    return str.encode(text, "utf-8", "backslashreplace").decode()
