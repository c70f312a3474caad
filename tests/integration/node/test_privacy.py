"""Rule 1: what a run takes and makes, and who may have it, appears on the client and the node only.

A whole session, from launch to a download by link, with every byte of it that crosses a wire recorded.
"""

from __future__ import annotations

import base64
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from kodo.p2p.core.multiaddr import Multiaddr
from kodo.p2p.net.keystore import make_home
from kodo.protocol.link import decode_token, encode_token
from tests.support.koco import KOCO, environment, koco_json, node
from tests.support.recorders import tcp_recorder, udp_recorder

CANARY = "canary-5f0c1b7e93"


def forms(text: bytes) -> list[bytes]:
    """Give the ways in which somebody might write `text`: as it is, in hexadecimal, in base64 at any offset."""
    inner = [base64.b64encode(bytes(shift) + text)[4:-4] for shift in range(3)]
    return [text, text.hex().encode(), *inner, *(each.translate(bytes.maketrans(b"+/", b"-_")) for each in inner)]


def files_with(words: list[bytes], folder: Path) -> set[str]:
    """Name the files below `folder`, relative to it, that hold one of `words`."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and any(word in path.read_bytes() for word in words)
    }


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry in a process of its own, whose log lies in its home; its URL."""
    home = make_home(tmp_path / "registry")
    with (home / "log").open("wb") as log:
        command = [KOCO, "registry", "--port", "0", "--json", "--verbose"]
        process = subprocess.Popen(command, env=environment(home), stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split('"url":"')[1].split('"')[0]
        finally:
            process.terminate()
            process.communicate(timeout=30)


def test_nothing_of_a_run_or_its_link_is_on_a_wire_in_a_log_or_at_a_registry(tmp_path: Path, registry: str) -> None:
    home, ana, bob = (tmp_path / name for name in ("node", "ana", "bob"))
    url = urlsplit(registry)
    assert url.hostname is not None
    assert url.port is not None
    with (
        tcp_recorder((url.hostname, url.port)) as http,
        node(home, "--verbose", KODO_REGISTRY=f"http://127.0.0.1:{http.port}") as running,
        udp_recorder(("127.0.0.1", Multiaddr.parse(running.address).port)) as udp,
    ):
        address = Multiaddr.parse(running.address)
        assert address.peer_id is not None
        way = Multiaddr.webrtc_direct("127.0.0.1", udp.port, address.certhash, address.peer_id)
        secrets = [CANARY.encode()]
        told = []
        for flow, code in (("tell", 0), ("tell_in_task", 1)):
            words = ("run", f"{way}/story.{flow}", f"secret={CANARY}", "--no-lan", "--out", str(tmp_path / "out"))
            rows = koco_json(ana, *words, exit_code=code)
            told += [str(row["data"]) for row in rows if "data" in row]
            if flow == "tell":
                run = f"{way}/{rows[-1]['fid']}"
        assert any("printed" in text and CANARY in text for text in told), "the user sees what the flow printed"
        assert (tmp_path / "out" / "secret.txt").read_text() == CANARY

        [made] = koco_json(ana, "share", run, "--no-lan")
        link = decode_token(made["token"])
        secrets += [link.secret, made["token"].encode()]
        through = encode_token(replace(link, addresses=(way,)))
        koco_json(bob, "get", f"kodo:{through}", "--no-lan", "--out", str(tmp_path / "got"))
        assert (tmp_path / "got" / "secret.txt").read_text() == CANARY
        koco_json(ana, "unshare", f"{way}/{made['sid']}", "--no-lan")
        koco_json(bob, "get", f"kodo:{through}", "--no-lan", exit_code=3)

        words = [word for secret in secrets for word in forms(secret)]
        answers = [
            urllib.request.urlopen(f"{registry}{path}", timeout=10).read()
            for path in ("/nodes", "/flows", "/state", f"/nodes/{running.ready['peer_id']}")
        ]
        while_running = files_with(words, home)

    # The recorders heard what they should have: the announcement, and a session from its first packet on.
    assert any(b"tests.local" in answer for answer in answers)
    assert running.ready["peer_id"].encode() in http.heard
    assert b"libp2p+webrtc+v" in udp.heard
    assert len(udp.heard) > 20_000
    heard = {"http": bytes(http.heard), "udp": bytes(udp.heard), "answers": b"".join(answers)}
    heard["log"] = "".join(running.stderr).encode()
    assert {name for name, data in heard.items() for word in words if word in data} == set()
    assert files_with(words, tmp_path / "registry") == set()
    # The node keeps inputs, events and outputs, and of a link its hash alone.
    for found in (while_running, files_with(words, home)):
        assert {name for name in found if not name.startswith(("node.db", "outputs/"))} == set()
    assert files_with([word for secret in secrets[1:] for word in forms(secret)], home) == set()
