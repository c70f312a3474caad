"""Where notices are sent: signed as Standard Webhooks say, to nobody who was not named; no answer is read."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kodo.node.webhooks import targets as module
from kodo.node.webhooks.notices import Source, make_test
from kodo.node.webhooks.targets import MAX_TARGETS, Apprised, NotTakenError, Webhook, targets_of
from kodo.p2p.errors import UsageError

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise tries it

NOTICE = make_test(Source("12D3Koo", "flows.example.com", frozenset()), "id-1", 1_700_000_000_000)
SECRET = "zanzibar"


class Server:
    """Reads requests, each from a connection of its own, and answers with what it was told to."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 204 No Content\r\n\r\n"
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers["content-length"]))
        self.asked.append((head[0], headers, body))
        writer.write(self.answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as listening:
        made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/told?key={SECRET}"
        yield made


def webhook(home: Path, url: str, *, private: bool = True) -> Webhook:
    [made] = targets_of(home, [url], [], private=private)
    assert isinstance(made, Webhook)
    return made


async def test_a_receiver_can_check_who_sent_what_and_when(tmp_path: Path, server: Server) -> None:
    target = webhook(tmp_path, server.url)
    await target.send(NOTICE, "id-1", 1_700_000_000_999)
    [(line, headers, body)] = server.asked
    assert line == f"POST /told?key={SECRET} HTTP/1.1"
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("id-1", "1700000000")
    # As the specification has it: the secret is what follows `whsec_`, in base64.
    secret = base64.b64decode(target.shown_secret.removeprefix("whsec_"))
    signed = hmac.new(secret, b"id-1.1700000000." + body, hashlib.sha256).digest()
    assert headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    assert json.loads(body)["specversion"] == "1.0"


def test_each_target_has_a_secret_of_its_own_that_stays(tmp_path: Path) -> None:
    urls = ["https://a.example/x", "https://b.example/x"]
    first = [each.shown_secret for each in targets_of(tmp_path, urls, [], private=False) if isinstance(each, Webhook)]
    again = [each.shown_secret for each in targets_of(tmp_path, urls, [], private=False) if isinstance(each, Webhook)]
    assert first == again
    assert len(set(first)) == 2
    assert (tmp_path / "webhooks.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("answer", "why", "wait_s"),
    [
        (b"302 Found\r\nLocation: http://127.0.0.1:1/", "a redirect, which is not followed", 0),
        (b"404 Not Found", "404", 0),
        (b"503 Busy\r\nRetry-After: 120", "503", 120),
        (b"429 Busy\r\nRetry-After: 99999999", "429", 3600),
        (b"429 Busy\r\nRetry-After: " + b"9" * 5000, "429", 0),
        (b"500 No\r\nRetry-After: Wed, 21 Oct 2015 07:28:00 GMT", "500", 0),
    ],
)
async def test_only_2xx_means_taken(tmp_path: Path, server: Server, answer: bytes, why: str, wait_s: float) -> None:
    server.answer = b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(NotTakenError, match=why) as caught:
        await webhook(tmp_path, server.url).send(NOTICE, "id-1", 0)
    assert (caught.value.answered, caught.value.wait_s) == (True, wait_s)
    assert len(server.asked) == 1


async def test_what_a_target_answers_is_not_read(tmp_path: Path, server: Server) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\nand so on"
    await webhook(tmp_path, server.url).send(NOTICE, "id-1", 0)


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n"]
)
async def test_what_cannot_be_understood_is_not_taken(tmp_path: Path, server: Server, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(NotTakenError, match="cannot be reached") as caught:
        await webhook(tmp_path, server.url).send(NOTICE, "id-1", 0)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "https", "private_https", "private_http"),
    [
        ("8.8.8.8", True, True, False),
        ("2606:4700::1111", True, True, False),
        ("127.0.0.1", False, True, True),
        ("::1", False, True, True),
        ("::ffff:127.0.0.1", False, True, True),
        ("10.1.2.3", False, True, True),
        ("100.64.0.1", False, True, True),
        ("169.254.169.254", False, True, True),
        ("fe80::1%eth0", False, True, True),
        ("fd00::1", False, True, True),
        ("64:ff9b::8.8.8.8", True, True, False),  # what IPv6 addresses lead to by NAT64 and 6to4
        ("64:ff9b::127.0.0.1", False, True, True),
        ("64:ff9b::169.254.169.254", False, True, True),
        ("2002:a01:203::1", False, True, True),
        ("0.0.0.0", False, False, False),
        ("224.0.0.1", False, False, False),
    ],
)
def test_near_addresses_need_the_operators_word_and_clear_text_stays_near(
    address: str, https: bool, private_https: bool, private_http: bool
) -> None:
    secure = [Webhook("https://a.example", b"", private) for private in (False, True)]
    assert [each.admits(address) for each in secure] == [https, private_https]
    assert Webhook("http://a.example", b"", True).admits(address) == private_http


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_a_near_target_is_not_dialled_unless_configured(server: Server, host: str) -> None:
    url = server.url.replace("127.0.0.1", host).replace("http:", "https:")
    with pytest.raises(NotTakenError, match="private address"):
        await Webhook(url, b"", private=False).send(NOTICE, "id-1", 0)
    assert server.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "", "x", "https://", "ftp://a.example", "https://[::1", "https://a.example:99999/", "https://a.example/#x",
        f"http://a.example/{SECRET}", f"https://10.0.0.1/{SECRET}", "https://a.example/" + "x" * 3000,
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_webhook_is_refused_without_being_told(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="webhooks, number 1") as caught:
        targets_of(tmp_path, [url], [], private=False)
    assert SECRET not in str(caught.value)


def test_there_is_a_bound_of_targets(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"more than {MAX_TARGETS}"):
        targets_of(tmp_path, [f"https://a.example/{n}" for n in range(MAX_TARGETS + 1)], [], private=False)


def test_names_in_logs_hold_no_password(tmp_path: Path) -> None:
    urls = [f"https://ana:{SECRET}@a.example:8443/{SECRET}?{SECRET}"]
    targets = targets_of(tmp_path, urls, [f"ntfys://{SECRET}@ntfy.example/{SECRET}"], private=False)
    assert [each.shown for each in targets] == ["https://a.example:8443", "ntfys://…"]
    assert all(SECRET not in each.key for each in targets)


async def test_a_service_is_told_by_apprise_in_words(tmp_path: Path, server: Server) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    [target] = targets_of(tmp_path, [], [server.url.replace("http:", "json:")], private=False)
    await target.send(NOTICE, "id-1", 0)
    [(_, _, body)] = server.asked
    assert json.loads(body)["title"] == "kodo: a test of flows.example.com"
    server.answer = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(NotTakenError, match="did not take it"):
        await target.send(NOTICE, "id-1", 0)


async def test_a_service_that_says_nothing_keeps_one_thread_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    speaks, begun = threading.Event(), threading.Semaphore(0)

    def tell(title: str, text: str) -> bool:
        begun.release()
        return speaks.wait(60)

    target = Apprised("json://s.example", tell)
    monkeypatch.setattr(module, "APPRISE_SECONDS", 0.2)
    with pytest.raises(NotTakenError, match="no answer"):
        await target.send(NOTICE, "id-1", 0)
    assert begun.acquire(timeout=30)
    monkeypatch.setattr(module, "APPRISE_SECONDS", 60.0)
    with pytest.raises(NotTakenError, match="try before"):
        await target.send(NOTICE, "id-1", 0)
    assert not begun.acquire(blocking=False)
    speaks.set()
    for thread in threading.enumerate():
        if thread.name == "apprise":
            thread.join()
    await target.send(NOTICE, "id-1", 0)


def test_what_is_no_address_of_apprise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="apprise, number 1") as caught:
        targets_of(tmp_path, [], [f"nosuchservice://{SECRET}"], private=False)
    assert SECRET not in str(caught.value)
