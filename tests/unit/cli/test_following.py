"""What is said of a run that is followed."""

from __future__ import annotations

import shlex
from types import SimpleNamespace
from typing import Any

from kodo.cli.following import _how, again


def test_how_a_lock_is_answered_is_a_command_that_a_shell_reads_as_it_is_meant() -> None:
    run: Any = SimpleNamespace(address="node.example/" + "0" * 26, by_link=False)
    lock: Any = SimpleNamespace(lid="$(id); x", schema={"type": "object", "properties": {"a`id`": {}}})
    words = shlex.split(_how(run, lock))
    assert words == ["koco", "answer", run.address, "$(id); x", "a`id`=…"]


def test_a_form_that_is_asked_again_keeps_what_was_entered_but_no_secrets() -> None:
    form = {"properties": {"city": {"type": "string"}}}
    secret = {"properties": {"key": {"type": "string", "writeOnly": True}}}
    assert again(form, {"city": "Ulm"}, (None, False)) == ({"city": "Ulm"}, True)
    assert again(secret, {"key": "hunter2"}, (None, False)) == (None, False)
