"""A day with two nodes: of a person who uses flows and has a friend without an account, and of the operator."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kodo.cli import main
from tests.support.koco import NodeProcess, end_all, eventually

ORDER = '''
from kodo.flow import flow, lock, output

@flow(name="Order", author="a@example.com", organization="Shop", release="1")
async def order(item: str, count: int = 1, ask: bool = False, size: int = 0) -> str:
    """Order something.

    Args:
        item: what is ordered.
    """
    if ask and not await lock(f"Order {count} {item}?", bool):
        return "# Nothing"
    await output.write("order.txt", f"{count} {item}" + " " * size)
    return f"# {count} {item}"
'''

NAMES = ("first.example", "second.example")


class Told(BaseHTTPRequestHandler):
    """A webhook's receiver."""

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        self.server.notices.append(json.loads(self.rfile.read(length)))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@dataclass
class Shop:
    """What runs, and who is there: `ana` has an account, `friend` has none; each is a home."""

    scope: Path
    homes: list[Path]
    ports: list[int]
    settings: dict[str, str]
    ana: Path
    friend: Path
    notices: list[dict[str, Any]]
    nodes: list[NodeProcess] = field(default_factory=list)

    def start(self, number: int, *words: str) -> NodeProcess:
        class Node(NodeProcess):
            scope = self.scope

        options = ("--executor", "process", "--runners", "0", "--auth", "local", "--keep-runs", "--host", "127.0.0.1")
        here = ("--name", NAMES[number], "--port", str(self.ports[number]))
        metrics, registry = f"127.0.0.1:{self.ports[2]}", str(self.ports[3])
        more = ("--metrics", metrics, "--with-registry", "--registry-port", registry)
        return Node(self.homes[number], *options, *here, *(() if number else more), *words, **self.settings)

    def koco(self, home: Path, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """Run `koco` in this process, with the registry of these nodes; returns the lines of `--json`."""
        said, complained = io.StringIO(), io.StringIO()
        registry = () if home in self.homes else ("--registry", self.settings["KODO_REGISTRY"])
        common = ("--home", str(home), "--no-lan", *registry, "--json")
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            got = main.run([*words, *common])
        assert got == code, (words, got, said.getvalue()[-2000:], complained.getvalue()[-2000:])
        return [json.loads(line) for line in said.getvalue().splitlines()]

    def state(self, run: str) -> str:
        return str(self.koco(self.ana, "state", run)[0]["state"])

    def told(self, kind: str, fid: str) -> bool:
        """Whether the webhook was told of that."""
        return any((each["type"], each["data"]["run"]) == (f"kodo.run.{kind}", fid) for each in self.notices)


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory,
    unused_udp_port_factory: Callable[[], int],
    unused_tcp_port_factory: Callable[[], int],
) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("day")
    (folder / "order.py").write_text(ORDER)
    (folder / "scope.yaml").write_text("flows: [order]\n")
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Told)
    receiver.notices = []  # type: ignore[attr-defined]
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    ports = [
        unused_udp_port_factory(),
        unused_udp_port_factory(),
        unused_tcp_port_factory(),
        unused_tcp_port_factory(),
    ]
    settings = {
        "KODO_REGISTRY": f"http://127.0.0.1:{ports[3]}",
        "KODO_WEBHOOKS": f"http://127.0.0.1:{receiver.server_port}/",
        "KODO_WEBHOOKS_PRIVATE": "true",
    }
    homes = [folder / "first", folder / "second"]
    made = Shop(
        folder / "scope.yaml", homes, ports, settings, folder / "ana", folder / "friend",
        receiver.notices,  # type: ignore[attr-defined]
    )  # fmt: skip
    try:
        for number in range(2):
            made.nodes.append(made.start(number))
        peer = made.koco(made.ana, "id")[0]["user"]["peer_id"]
        for home, name in zip(homes, NAMES, strict=True):
            made.koco(home, "user", "add", "ana")
            code = made.koco(home, "user", "enrol", "ana", peer)[0]["code"]
            made.koco(made.ana, "login", "--node", name, "--code", code)
        yield made
        for node in made.nodes:
            assert node.stop() == 0, node.stderr
    finally:
        for node in made.nodes:
            if node.process.poll() is None:
                node.kill()
        for home in homes:
            end_all(home)
        receiver.shutdown()
        receiver.server_close()


def test_five_flows_on_two_nodes_are_launched_answered_found_repeated_and_shared_with_a_friend(
    shop: Shop, tmp_path: Path
) -> None:
    (first, second), koco, ana = NAMES, shop.koco, shop.ana
    rows = tmp_path / "orders.csv"
    rows.write_text("item,count\nlamps,3\nchairs,4\ntables,2\n")
    # Far enough away for a busy machine to be in time with it.
    soon = (datetime.now(UTC) + timedelta(seconds=20)).isoformat()
    [planned] = koco(ana, "schedule", f"{second}/Order", "item=milk", "--at", soon)
    each = koco(ana, "run", f"{first}/Order", "--each", str(rows), "--tag", "office")
    assert len({row["fid"] for row in each[:3]}) == 3
    [plain] = koco(ana, "run", f"{second}/Order", "item=pens", "--detach")
    [asked] = koco(ana, "run", f"{second}/Order", "item=desks", "ask=true", "--detach")

    # Told: by the operators' webhook and in the inbox over both nodes, and what was launched by the schedule too.
    eventually(lambda: shop.told("done", plain["fid"]) and shop.told("locked", asked["fid"]))
    eventually(lambda: all(shop.told("done", row["fid"]) for row in each[:3]))
    [inbox] = koco(ana, "inbox")
    assert [row["title"] for row in inbox["waiting"]] == ["Order 1 desks?"]
    assert {row["fid"] for row in [*each[:3], plain]} <= {row["fid"] for row in inbox["ended"]}
    koco(ana, "answer", f"{second}/{asked['fid']}", "true")
    eventually(lambda: shop.told("done", asked["fid"]))
    eventually(lambda: koco(ana, "schedules", "--node", second)[0]["result"][0]["launches"] == 1)
    assert all("lamps" not in json.dumps(notice) for notice in shop.notices), "what is in a run is told to nobody"

    # An old run is found, and run again with one input changed.
    [found] = koco(ana, "ps", "--search", "lamps", "--since", "1d", "--flow", "*order*")[0]["result"]
    assert found["fid"] in {row["fid"] for row in each[:3]}  # told as they end
    assert found["tags"] == ["office"]
    again = koco(ana, "run", "--like", f"{first}/{found['fid']}", "count=7", "--out", str(tmp_path / "out"))
    assert again[-1]["final"]["result"] == "# 7 lamps"
    assert (tmp_path / "out" / "order.txt").read_text() == "7 lamps"

    # A friend without an account gets in by the link alone.
    refused = koco(shop.friend, "run", f"{first}/Order", "item=tea", "--yes", code=4)
    assert refused[-1]["error"]["code"] in (401, 403)
    [invited] = koco(ana, "invite", f"{first}/Order", "count=2", "--launches", "1")
    opened = koco(shop.friend, "open", invited["link"], "item=tea", "--out", str(tmp_path / "tea"))
    assert opened[-1]["final"]["result"] == "# 2 tea"
    assert (tmp_path / "tea" / "order.txt").read_text() == "2 tea"
    assert planned["sid"]


def test_an_operator_sees_metrics_restarts_with_runs_open_meets_the_quota_and_removes_a_user(shop: Shop) -> None:
    (first, second), koco, ana, home = NAMES, shop.koco, shop.ana, shop.homes[1]
    with urllib.request.urlopen(f"http://127.0.0.1:{shop.ports[2]}/metrics", timeout=60) as answer:
        scraped = answer.read().decode()
    assert "kodo_runs_ended_total{" in scraped

    # Restarted with a run open: its question is still there, and its answer counts.
    [asked] = koco(ana, "run", f"{second}/Order", "item=shelves", "ask=true", "--detach")
    run = f"{second}/{asked['fid']}"
    eventually(lambda: shop.state(run) == "locked")
    assert shop.nodes[1].stop() == 0
    shop.nodes[1] = shop.start(1, "--quota", "20MB")
    assert shop.state(run) == "locked"
    koco(ana, "answer", run, "true")
    eventually(lambda: shop.state(run) == "done")

    # The quota is reached: the run says that it waits, doctor and cleanup say what would make room.
    [large] = koco(ana, "run", f"{second}/Order", "item=large", "size=8000000", "--detach")
    eventually(lambda: shop.state(f"{second}/{large['fid']}") == "done")
    [waits] = koco(ana, "run", f"{second}/Order", "item=larger", "size=12000000", "--detach")
    waiting = eventually(lambda: koco(ana, "ps", "--node", second, "--search", "larger")[0]["result"][0].get("waits"))
    assert waiting == "room"
    findings = koco(home, "doctor", code=1)[0]["findings"]
    assert [each["ok"] for each in findings if "runs that wait for room: 1" in each["found"]] == [False]
    [tidy] = koco(home, "cleanup", "--dry-run")
    assert large["fid"] in {each["fid"] for each in tidy["largest"]}
    koco(ana, "delete", f"{second}/{large['fid']}", "--yes")
    eventually(lambda: shop.state(f"{second}/{waits['fid']}") == "done")

    # A user is removed: nothing more is launched in her name, and others see no more than before.
    koco(home, "user", "remove", "ana")
    refused = koco(ana, "run", f"{second}/Order", "item=more", "--yes", code=4)
    assert refused[-1]["error"]["code"] in (401, 403)
    assert shop.state(f"{first}/{koco(ana, 'ps', '--node', first)[0]['result'][0]['fid']}") == "done"
