"""Durations and sizes: one reading, wherever they are written."""

from __future__ import annotations

import pytest

from kodo.client.config import load_settings
from kodo.flow.locks import seconds
from kodo.settings.units import parse_bytes, parse_seconds

DURATIONS = [("90s", 90), ("500 ms", 0.5), ("5m", 300), ("5min", 300), ("1.5h", 5400), ("7D", 604_800), ("30", 30)]


@pytest.mark.parametrize(("text", "value"), DURATIONS)
def test_a_duration_is_read(text: str, value: float) -> None:
    assert parse_seconds(text) == value


@pytest.mark.parametrize(("text", "value"), DURATIONS)
def test_flows_and_settings_read_it_alike(text: str, value: float, tmp_path: object) -> None:
    assert seconds(text) == value
    assert load_settings(str(tmp_path), environment={"KODO_RETENTION": text}).settings.retention_s == value


@pytest.mark.parametrize("text", ["", "5 minutes", "m", "-1s", "1e3", "٣s", "9" * 400])
def test_what_is_no_duration_is_left_as_it_is(text: str) -> None:
    assert parse_seconds(text) == text


@pytest.mark.parametrize(("text", "value"), [("1k", 1000), ("1KiB", 1024), ("1.5 GiB", 1_610_612_736), ("7", 7)])
def test_a_size_is_read(text: str, value: int) -> None:
    assert parse_bytes(text) == value
