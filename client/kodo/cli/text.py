"""Text that comes from elsewhere, made safe for a terminal and for JSON. Everything a peer says is hostile."""

from __future__ import annotations

import base64
import datetime
import json
import math
import shlex
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any

__all__ = [
    "compact",
    "human_bytes",
    "human_seconds",
    "human_time",
    "line",
    "lines",
    "pretty_json",
    "shell_command",
    "shell_word",
    "short",
    "to_json",
]

_UNSAFE = frozenset(["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"])
"""Control and format characters (terminal escapes, bidirectional overrides), surrogates, line separators."""

_JOINERS = frozenset("\u200c\u200d")
"""Zero-width (non-)joiner: scripts and emoji need them, and they cannot reorder text."""


def _safe(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return "�" if unicodedata.category(character) in _UNSAFE else " "


def line(value: object, limit: int = 2000) -> str:
    """Return `value` as one line without control characters."""
    text = str(value)[: limit * 4].replace("\t", " ").replace("\r\n", " ").replace("\n", " ")
    text = "".join(map(_safe, text))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def lines(value: object, limit: int = 200_000) -> str:
    """Return `value` with its line breaks, without other control characters."""
    text = str(value)
    cut = "\n…" if len(text) > limit else ""
    # A lone carriage return would let a later text overwrite an earlier one.
    split = text[:limit].replace("\r\n", "\n").replace("\r", "\n").replace("\t", "    ").split("\n")
    return "\n".join("".join(map(_safe, each)) for each in split) + cut


def short(value: object, limit: int = 32) -> str:
    """Return an address or id as one short word for people: its beginning and, what tells it from others, its end."""
    text = line(value, sys.maxsize)
    return text if len(text) <= limit else f"{text[: limit // 2 - 1]}…{text[-(limit // 2) :]}"


def shell_word(value: object) -> str:
    """Return a text as one word of a shell: quoted where that is needed, whole, and on one line."""
    return shlex.quote(line(value, sys.maxsize))


def shell_command(command: str, *words: object) -> str:
    """Return `command` with words from elsewhere, to be copied into a shell: none of them is anything but a word.

    Each is quoted, and none is taken for an option.
    """
    texts = [line(word, sys.maxsize) for word in words]
    options = ["--"] if any(text.startswith("-") for text in texts) else []
    return f"{command} {shlex.join([*options, *texts])}"


def compact(value: object, limit: int = 500) -> str:
    """Return JSON-like data on one line for people."""
    if isinstance(value, str):
        return line(value, limit)
    return line(json.dumps(_plain(value), ensure_ascii=False, separators=(", ", ": ")), limit)


def to_json(value: object) -> str:
    """Return `value` as strict JSON on one line, ASCII only, so that no character of it can act on a terminal."""
    return json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def pretty_json(value: object) -> str:
    """Return `value` as JSON over several lines, for people."""
    return lines(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, indent=2))


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def human_bytes(size: object) -> str:
    """Return a size for people: `1.2 MB`."""
    if not isinstance(size, (int, float)) or isinstance(size, bool) or size < 0:
        return "?"
    value, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" or value >= 99.5 else f"{value:.1f} {units[0]}"


def human_seconds(seconds: object) -> str:
    """Return a duration for people: `1 min 4 s`."""
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool) or not 0 <= seconds < 1e9:
        return "?"
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    large, small = (f"{hours} h", f"{minutes} min") if hours else (f"{minutes} min", f"{rest} s")
    return large if small[0] == "0" else f"{large} {small}"


def human_time(ms: object) -> str:
    """Return a time in ms UTC for people, in their own time zone: `2026-01-31 18:05`; empty when it is no time."""
    if not isinstance(ms, int) or isinstance(ms, bool) or not 0 <= ms < 253_402_214_400_000:
        return ""
    return datetime.datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")
