"""Progress bars that programs draw into their output, as progress: those of tqdm, rich, pip, Ray Data and Tune.

A bar is a line that is drawn anew after each carriage return. Its latest state is told once a second at most. Pure:
the time is handed in.
"""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["EVERY_S", "Bar", "RayBars", "plain_text"]

EVERY_S = 1.0
"""Seconds between two states that are told."""

MAX_BARS = 1000
"""Of Ray's, that are known at a time."""

_RAY_MARK = "__ray_tqdm_magic_token__"
_MAX_TEXT = 200
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()][0-9A-B]|[@-Z\\^_78=>c])")
_PERCENT = re.compile(r"(?<![\d.,])(\d{1,3}(?:\.\d+)?)\s?%")
_DONE = re.compile(r"(?<![\w./])(\d+(?:\.\d+)?)\s?/\s?(\d+(?:\.\d+)?)(?![\w/.]*/)")
_DRAWN = re.compile(r"[|\[]?[█▏▎▍▌▋▊▉━╸╺╶╴─▰▱░▒▓#=>\- ]{5,}[|\]]?")


def plain_text(text: str) -> str:
    """Return text without the codes by which terminals colour it and move in it."""
    return _ANSI.sub("", text) if "\x1b" in text else text


class Bar:
    """The line that one stream is drawing."""

    def __init__(self) -> None:
        self._since: float | None = None  # the last state was told, or the first one drawn
        self._state = self._told = ""

    @property
    def told(self) -> bool:
        """Whether a state of this line was told."""
        return self._told != ""

    @property
    def waits(self) -> bool:
        """Whether a state is to be told once its time has come."""
        return self._state != self._told

    def draw(self, line: str, now: float) -> dict[str, Any] | None:
        """Take the line as it is now; return the data of a `progress` if that is to be told.

        The first state waits too: most bars are done at once, and then they are lines as any other.
        """
        states = [state.strip() for state in plain_text(line).split("\r")]
        self._state = next((state for state in reversed(states) if state), self._state)
        if self._since is None and self._state:
            self._since = now
        return self.due(now)

    def due(self, now: float) -> dict[str, Any] | None:
        """Return the latest state if it was not told, and is to be now."""
        if self._since is None or not self.waits or now - self._since < EVERY_S:
            return None
        self._since, self._told = now, self._state
        return progress_of(self._state)


def progress_of(text: str) -> dict[str, Any]:
    """Return the data of a `progress` of what a bar shows: `text`, and the numbers that it says."""
    data: dict[str, Any] = {}
    if (found := _PERCENT.search(text)) and float(found[1]) <= 100:
        data["percent"] = float(found[1])
    if found := _DONE.search(text):
        done, total = (float(part) if "." in part else int(part) for part in found.groups())
        if 0 < total >= done:
            data |= {"done": done, "total": total}
            data.setdefault("percent", round(100 * done / total, 2))
            text = f"{text[: found.start()]} {text[found.end() :]}"
    shown = " ".join(_DRAWN.sub(" ", _PERCENT.sub(" ", text)).split()).strip(": ")
    return {**data, "text": shown[:_MAX_TEXT]} if shown else data


class RayBars:
    """The bars of Ray's own tqdm, which are lines of JSON for its driver."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}

    def read(self, line: str, now: float) -> tuple[bool, dict[str, Any] | None]:
        """Return whether a line is one of these, and the data of a `progress` if that is to be told."""
        if _RAY_MARK not in line:
            return False, None
        try:
            state = json.loads(line)
            name, closed = str(state["uuid"]), bool(state["closed"])
            done, total, text = state["x"], state["total"], str(state["desc"])
        except (ValueError, KeyError, TypeError):
            return False, None
        if not closed and now - self._told.get(name, now - EVERY_S) < EVERY_S:
            return True, None
        self._told.pop(name, None)
        if not closed and len(self._told) < MAX_BARS:
            self._told[name] = now
        data: dict[str, Any] = {"id": name, "text": plain_text(text)[:_MAX_TEXT]}
        if isinstance(done, (int, float)) and isinstance(total, (int, float)) and total > 0:
            data |= {"done": done, "total": total, "percent": round(100 * min(done, total) / total, 2)}
        return True, data
