"""What `koco up` says of the node that it started."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from kodo.access import http
from kodo.access.oidc import OidcConfig
from kodo.cli.nodes import node_config, oidc_config, print_ready, telling, warn_of_unbound
from kodo.cli.runtime import Context
from kodo.client.config import Loaded
from kodo.node.app import Node
from kodo.node.catalog.catalog import Flow
from kodo.node.config import NodeConfig
from kodo.p2p.errors import UnreachableError, UsageError
from kodo.settings.home import Settings
from tests.support.virtual_time import run_virtual


class OpenNode:
    """What is read of a node that takes calls."""

    name, peer_id, addresses = "here.example", "12D3KooW", ("/ip4/127.0.0.1/udp/4711",)
    flows = (
        Flow("a.A", "Alpha", "a:A"),
        Flow("b.B", "Beta", "b:B"),
        Flow("c", "c", "c", error="ModuleNotFoundError: No module named 'x'"),
    )

    def __init__(self, executor: Literal["ray", "process"] = "ray"):
        self.config = NodeConfig(home=Path(), executor=executor)

    access = "everybody"

    def describe_access(self) -> str:
        """Say who is let in."""
        return self.access


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
    assert (said["lets_in"], said["executor"]) == ("everybody", "ray")
    assert "the flow c is broken" in err


def test_up_says_that_it_does_without_ray(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    print_ready(context(tmp_path, json=False), cast(Node, OpenNode("process")), [])
    assert "without Ray\n" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 100, 160])
def test_up_fits_the_terminal_and_cuts_nothing(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    node = OpenNode("process")
    node.addresses = tuple(
        f"/{kind}/{host}/udp/4711/webrtc-direct/certhash/uEi{'x' * 43}/p2p/12D3KooW{'y' * 44}"
        for kind, host in [("ip4", "127.0.0.1"), ("ip4", "192.0.2.7"), ("ip6", "fd00::2"), ("ip6", "::1")]
    )  # type: ignore[assignment]
    node.access = "no login: " + "everybody on this machine and its local networks may use all flows " * 2
    print_ready(context(tmp_path, json=False), cast(Node, node), [], "http://127.0.0.1:8361/" + "t" * 43)
    out = capsys.readouterr().out.splitlines()
    longest = max(len(each) for each in out if "ttt" not in each)
    assert longest <= columns
    assert "192.0.2.7:4711, [fd00::2]:4711, 127.0.0.1:4711, [::1]:4711" in " ".join(each.strip() for each in out)
    assert "certhash" not in "".join(out)
    told = " ".join(each[12:].strip() for each in out)
    assert node.access.strip() in told
    assert "http://127.0.0.1:8361/" + "t" * 43 in told


def config_of(tmp_path: Path, **settings: Any) -> NodeConfig:
    return node_config(Loaded(tmp_path, Settings.model_validate(settings), {}), scope=None, registries=())


@pytest.mark.parametrize(("installed", "expected"), [(True, "ray"), (False, "process")])
def test_a_node_has_ray_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: bool, expected: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed and name == "ray" else None)
    assert config_of(tmp_path).chosen_executor == expected
    assert config_of(tmp_path, executor="process").chosen_executor == "process"
    assert config_of(tmp_path, ray_address="127.0.0.1:6379").chosen_executor == "ray"


def test_a_cluster_is_joined_by_ray_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ray_address is for the executor ray"):
        config_of(tmp_path, executor="process", ray_address="127.0.0.1:6379")


@pytest.mark.parametrize(
    ("algs", "bound", "told"),
    [
        (["EdDSA"], False, ""),
        (["Ed25519", "ES256"], True, ""),
        (["ES256"], False, "can use it here"),
        (None, True, "nobody can log in"),
        ("EdDSA", False, "can use it here"),
    ],
)
async def test_up_warns_of_an_issuer_that_cannot_bind_tokens(
    tmp_path: Any,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    algs: Any,
    bound: bool,
    told: str,
) -> None:
    async def discover(issuer: str) -> dict[str, Any]:
        return {"issuer": issuer, "dpop_signing_alg_values_supported": algs}

    monkeypatch.setattr(http, "discover", discover)
    config = OidcConfig("https://issuer.example", "https://nodes.example", "kodo", bound=bound)
    await warn_of_unbound(context(tmp_path, json=False), config)
    err = capsys.readouterr().err
    assert told in err
    assert bool(told) == ("warning: https://issuer.example cannot bind" in err)


async def test_up_says_when_the_issuer_does_not_answer(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def discover(issuer: str) -> dict[str, Any]:
        raise UnreachableError("away")

    monkeypatch.setattr(http, "discover", discover)
    await warn_of_unbound(context(tmp_path, json=False), OidcConfig("https://i.example", "a", "c"))
    assert "does not answer" in capsys.readouterr().err


def test_the_setting_demands_bound_tokens() -> None:
    terms = {"oidc_issuer": "https://i.example", "oidc_audience": "a", "oidc_client_id": "c"}
    for text, bound in (("yes", True), ("no", False)):
        assert oidc_config(Settings.model_validate({**terms, "auth_oidc_bound": text})).bound is bound


def told_while(phases: list[tuple[str, float]]) -> list[str]:
    """What is told of a start that waits for each of these for so many seconds."""
    told: list[str] = []

    async def start() -> None:
        now = [phases[0][0]]
        async with telling(told.append, lambda: now[0]):
            for phase, seconds in phases:
                now[0] = phase
                await asyncio.sleep(seconds)
        await asyncio.sleep(100)

    run_virtual(start())
    return told


@pytest.mark.parametrize(
    ("phases", "told"),
    [
        ([("its port", 0.5), ("flows", 0.5)], []),
        ([("flows", 30.0)], ["waiting for flows"]),
        ([("flows", 0.5), ("Ray to start", 30.0)], ["waiting for Ray to start"]),
        ([("flows", 5.0), ("Ray to start", 5.0)], ["waiting for flows", "waiting for Ray to start"]),
    ],
)
def test_what_a_start_waits_for_is_told_once_it_takes_a_moment(
    phases: list[tuple[str, float]], told: list[str]
) -> None:
    assert told_while(phases) == told
