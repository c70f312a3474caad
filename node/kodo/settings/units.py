"""Durations and sizes as people write them. The only place where they are read."""

from __future__ import annotations

import re

__all__ = ["parse_bytes", "parse_seconds"]

_NUMBER = r"\s*(\d{1,18}(?:\.\d{1,18})?)\s*"
_SIZE = re.compile(_NUMBER + r"([kmgt]?)(i?)b?\s*\Z", re.ASCII | re.IGNORECASE)
_SECONDS = re.compile(_NUMBER + r"(ms|s|min|m|h|d)?\s*\Z", re.ASCII | re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_bytes(value: object) -> object:
    """Read `200MB`, `1.5 GiB` or a number as bytes; anything else is left for the model to refuse."""
    if isinstance(value, str) and (match := _SIZE.match(value)):
        step = 1024 if match[3] else 1000
        return int(float(match[1]) * step ** " kmgt".index(match[2].lower() or " "))
    return value


def parse_seconds(value: object) -> object:
    """Read `60s`, `500 ms`, `5m`, `5min`, `1.5h`, `7d` or a number as seconds; anything else is left as it is."""
    if isinstance(value, str) and (match := _SECONDS.match(value)):
        return float(match[1]) * _UNITS[(match[2] or "s").lower()]
    return value
