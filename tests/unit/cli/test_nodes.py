"""What `koco up` says of the node that it started."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from kodo.cli.nodes import print_ready
from kodo.cli.runtime import Context
from kodo.client.config import Loaded, Settings
from kodo.node.app import Node
from kodo.node.catalog import Flow


class OpenNode:
    """What is read of a node that takes calls."""

    name, peer_id, addresses = "here.example", "12D3KooW", ("/ip4/127.0.0.1/udp/4711",)
    flows = (
        Flow("a.A", "Alpha", "a:A"),
        Flow("b.B", "Beta", "b:B"),
        Flow("c", "c", "c", error="ModuleNotFoundError: No module named 'x'"),
    )

    def describe_access(self) -> str:
        """Say who is let in."""
        return "everybody"


def context(tmp_path: Any, **flags: bool) -> Context:
    return Context(Loaded(tmp_path, Settings.model_validate({}), {}), verbose=False, **flags)


def test_up_says_what_it_offers_and_what_is_broken(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_ready(context(tmp_path, json=False), cast(Node, OpenNode()), [])
    out, err = capsys.readouterr()
    assert "offers    Alpha, Beta\n" in out
    assert "warning: the flow c is broken: ModuleNotFoundError: No module named 'x'\n" in err


def test_up_says_it_in_json_too(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_ready(context(tmp_path, json=True), cast(Node, OpenNode()), [])
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert (said["ready"], said["flows"], said["broken"]) == (True, 2, ["c"])
    assert said["lets_in"] == "everybody"
    assert "the flow c is broken" in err
