"""Where notices are sent: an HTTP server that an operator names, or a service by the library Apprise.

A webhook gets a CloudEvent as JSON (structured mode), signed by Standard Webhooks 1.0: `webhook-id`,
`webhook-timestamp` and `webhook-signature`, an HMAC-SHA256 by a secret that this target alone has. Redirects are
not followed: what answers with one did not take the notice.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from kodo.node.webhooks.notices import text_of
from kodo.p2p.core.hosts import is_public, plain_host
from kodo.p2p.distribution import how_to_install
from kodo.p2p.errors import UsageError
from kodo.p2p.net.keystore import make_private
from kodo.p2p.net.unattended import unattended

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver

__all__ = ["MAX_TARGETS", "Apprised", "NotTakenError", "Target", "Webhook", "targets_of"]

MAX_TARGETS = 16
MAX_URL = 2048
SECONDS = 15.0
"""How long a target may take to answer."""

APPRISE_SECONDS = 60.0
MAX_WAIT_S = 3600.0
"""The longest `Retry-After` that is kept to."""


class NotTakenError(Exception):
    """A target did not take a notice; the text says why, without its address.

    Attributes:
        answered: whether somebody answered at all: then it may be this one notice that is not liked.
        wait_s: how long it asked to be left alone, in seconds.
    """

    def __init__(self, why: str, *, answered: bool = False, wait_s: float = 0.0):
        super().__init__(why)
        self.answered = answered
        self.wait_s = wait_s


class Target(Protocol):
    """Where notices go."""

    @property
    def key(self) -> str:
        """What stands for it in the database: of its address, which may hold a secret, a hash."""
        ...

    @property
    def shown(self) -> str:
        """What it is called in logs: without what may be secret in its address."""
        ...

    async def send(self, notice: str, ident: str, now: int) -> None:
        """Send a notice, which has the id `ident`, at `now`, ms UTC. Cancelling is safe.

        Raises:
            NotTakenError: it was not taken.
        """
        ...


@dataclass(frozen=True, slots=True)
class Webhook:
    """An HTTP server.

    Attributes:
        url: `https`, or `http` to addresses of private networks.
        secret: `bytes[32]`, what its notices are signed with.
        private: whether it may be at an address of this machine or of a private network.
    """

    url: str
    secret: bytes
    private: bool = False

    @property
    def key(self) -> str:
        """See `Target`."""
        return _key_of(self.url)

    @property
    def shown(self) -> str:
        """See `Target`."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def shown_secret(self) -> str:
        """The secret as receivers take it."""
        return f"whsec_{base64.b64encode(self.secret).decode()}"

    def headers(self, body: bytes, ident: str, seconds: int) -> dict[str, str]:
        """Return the headers of a request with `body`, sent at `seconds`, Unix time."""
        signed = hmac.digest(self.secret, f"{ident}.{seconds}.".encode() + body, "sha256")
        return {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "User-Agent": "kodo",
            "webhook-id": ident,
            "webhook-timestamp": str(seconds),
            "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
        }

    def admits(self, address: str) -> bool:
        """Whether an IP address may be connected to: in clear text only near ones, and those only if configured."""
        ip = ipaddress.ip_address(plain_host(address))
        if ip.is_unspecified or ip.is_multicast:
            return False
        return self.url.startswith("https:") if is_public(address) else self.private

    async def send(self, notice: str, ident: str, now: int) -> None:
        """See `Target`."""
        import aiohttp  # only where there is a webhook: importing it takes long

        body = notice.encode()
        connector = aiohttp.TCPConnector(resolver=_resolver(self), limit=1, force_close=True)
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        try:
            host = urlsplit(self.url).hostname or ""
            if _is_address(host) and not self.admits(host):
                raise _PrivateError
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post(
                    self.url, data=body, headers=self.headers(body, ident, now // 1000), allow_redirects=False
                ) as response,
            ):
                # What it says besides is not read.
                status, wait = response.status, response.headers.get("Retry-After", "")
        except _PrivateError:
            raise NotTakenError(_why_private(self.url)) from None
        except TimeoutError:
            raise NotTakenError(f"no answer within {SECONDS:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__, _PrivateError):
                raise NotTakenError(_why_private(self.url)) from None
            # Its text may quote the address.
            raise NotTakenError(f"it cannot be reached ({type(error).__name__})") from None
        finally:
            await connector.close()
        if not 200 <= status < 300:
            why = "a redirect, which is not followed" if 300 <= status < 400 else str(status)
            asked = min(float(wait), MAX_WAIT_S) if wait.isdecimal() and len(wait) < 9 else 0.0
            raise NotTakenError(f"it answers with {why}", answered=True, wait_s=asked)


@dataclass(frozen=True, slots=True)
class Apprised:
    """A service, by an address of Apprise. `tell`: sends a title and a text; whether that was taken. Blocks."""

    url: str
    tell: Callable[[str, str], bool]
    _telling: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    @property
    def key(self) -> str:
        """See `Target`."""
        return _key_of(self.url)

    @property
    def shown(self) -> str:
        """See `Target`."""
        return f"{self.url.partition(':')[0]}://…"

    async def send(self, notice: str, ident: str, now: int) -> None:
        """See `Target`."""
        title, text = text_of(notice)

        def tell() -> bool:
            if not self._telling.acquire(blocking=False):
                raise NotTakenError("the try before has not ended")
            try:
                return self.tell(title, text)
            finally:
                self._telling.release()

        try:
            async with asyncio.timeout(APPRISE_SECONDS):
                taken = await unattended(tell, "apprise")
        except TimeoutError:
            raise NotTakenError(f"no answer within {APPRISE_SECONDS:g} s") from None
        except NotTakenError:
            raise
        except Exception as error:
            raise NotTakenError(f"Apprise failed ({type(error).__name__})") from None
        if not taken:
            raise NotTakenError("the service did not take it")


def targets_of(home: Path, webhooks: Sequence[str], apprise: Sequence[str], *, private: bool) -> list[Target]:
    """Return the targets that an operator named; the key that their secrets come from is made on first use. Blocks.

    Raises:
        UsageError: an address is none, there are too many, or Apprise is not installed.
    """
    if len(webhooks) + len(apprise) > MAX_TARGETS:
        raise UsageError(f"webhooks and apprise name more than {MAX_TARGETS} targets together")
    targets: list[Target] = []
    for number, url in enumerate(dict.fromkeys(webhooks), 1):
        _check_url(url, f"webhooks, number {number}", private=private)
        targets.append(Webhook(url, _secret_of(home, url), private))
    for number, url in enumerate(dict.fromkeys(apprise), 1):
        targets.append(Apprised(url, _apprise(url, f"apprise, number {number}")))
    return targets


def _check_url(url: str, what: str, *, private: bool) -> None:
    """Refuse what is no address of a webhook; the address itself is not told, as it may hold a secret."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise UsageError(f"{what}: this is not a URL") from None
    if parts.scheme not in ("https", "http") or not host or parts.fragment or len(url) > MAX_URL:
        raise UsageError(f"{what}: write https://HOST/PATH")
    if parts.scheme == "http" and not private:
        raise UsageError(
            f"{what}: http is for targets in your own network only; use https, or set webhooks_private = true"
        )
    if _is_address(host) and not private and not is_public(host):
        raise UsageError(f"{what}: {_why_private(url)}")


def _why_private(url: str) -> str:
    if url.startswith("http:"):
        return "http goes to private addresses only, and this is none; use https"
    return "it is at a private address; set webhooks_private = true if it shall be"


def _is_address(host: str) -> bool:
    try:
        plain_host(host)
    except ValueError:
        return False
    return True


def _key_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def _secret_of(home: Path, url: str) -> bytes:
    """Return what a target's notices are signed with: no target can speak for the node to another."""
    key = make_private(home / "webhooks.key", secrets.token_hex(32).encode() + b"\n")
    return hmac.digest(key.strip(), f"webhook {url}".encode(), "sha256")


class _PrivateError(OSError):
    """A name stands for addresses that may not be connected to."""


def _resolver(webhook: Webhook) -> AbstractResolver:
    """Return what looks names up and gives only addresses that may be connected to: what is checked is used."""
    from aiohttp.abc import AbstractResolver

    from kodo.http.names import Names

    class Resolver(AbstractResolver):
        def __init__(self) -> None:
            self._plain = Names()

        async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> Any:
            found = await self._plain.resolve(host, port, family)
            if not (admitted := [each for each in found if webhook.admits(each["host"])]):
                raise _PrivateError
            return admitted

        async def close(self) -> None:
            await self._plain.close()

    return Resolver()


def _apprise(url: str, what: str) -> Callable[[str, str], bool]:
    try:
        import apprise
    except ImportError as error:
        raise UsageError(
            f"{what}: this needs Apprise, which is not installed; {how_to_install('apprise')}"
        ) from error
    # It logs addresses.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    asset = apprise.AppriseAsset(app_id="kodo", app_desc="kodo", http_redirects=False)
    made = apprise.Apprise(asset=asset)
    if len(url) > MAX_URL or not made.add(url):
        raise UsageError(f"{what}: this is not an address of Apprise, such as ntfys://HOST/TOPIC or mailtos://…")
    return lambda title, text: bool(made.notify(title=title, body=text))
