"""What is shown of flows that others offer."""

from __future__ import annotations

import shlex

from kodo.cli.find import _command, _without_rows


def test_an_example_is_a_command_that_a_shell_reads_as_it_is_meant() -> None:
    evil = {"topic": "it's $(touch x) `id`", "a; id": ["\x1b[2J", 1], "n": 3}
    words = shlex.split(_command("node.example/Flow $(id)", evil))
    assert words[:3] == ["koco", "run", "node.example/Flow $(id)"]
    assert words[3] == "topic=it's $(touch x) `id`"
    assert words[4].startswith("a; id=")
    assert words[5:] == ["n=3"]


def test_an_example_without_inputs_is_the_flow_alone() -> None:
    assert _command("n/f", None) == "koco run n/f"


def test_an_input_of_an_example_is_no_option() -> None:
    words = shlex.split(_command("n/f", {"--out": "/root", "a": 1}))
    assert words == ["koco", "run", "--", "n/f", "--out=/root", "a=1"]


def test_a_flow_whose_inputs_nobody_knows_is_not_said_to_take_none() -> None:
    assert _without_rows({"type": "object", "properties": {}, "additionalProperties": True}).startswith("Its inputs")
    assert _without_rows({"type": "object", "additionalProperties": {"type": "string"}}).endswith("it takes any.")
    for schema in ({"type": "object", "properties": {}, "additionalProperties": False}, {"type": "object"}, None):
        assert _without_rows(schema) == "It takes no inputs."
