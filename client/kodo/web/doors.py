"""Who may ask: pages of this very origin, and below `/api/` only who shows a key that this user's terminal saw.

Loopback is shared by all accounts of a machine and by every page that a browser shows, so an address proves nothing.
A foreign page is told by the headers that a browser sets (Host against DNS rebinding, Origin and Sec-Fetch-Site
against cross-site requests), another account by the key, which it does not have.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware

from kodo.registry.problems import problem

__all__ = ["Keys", "guard", "shown_key"]

_MOST_KEYS = 256
"""Browser profiles that are let in at once; the one let in longest ago is forgotten."""
_KEY_BYTES = 24
_SCHEME = "Bearer "

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Keys:
    """The entry key, which the terminal shows, and the keys that pages got for it: as hashes, in memory alone."""

    def __init__(self) -> None:
        self.entry = secrets.token_urlsafe(_KEY_BYTES)
        """Stands in the fragment of the address that is printed; a page trades it for a key of its own."""
        self._let_in: OrderedDict[bytes, None] = OrderedDict()

    def enter(self, entry: str) -> str:
        """Return a new key for whoever shows the entry key.

        Raises:
            CallError: 401 `bad-key`.
        """
        if not hmac.compare_digest(_hash(entry), _hash(self.entry)):
            raise problem(
                401, "bad-key", "this is not the key of the address that `koco web` or `koco up --web` printed"
            )
        key = secrets.token_urlsafe(_KEY_BYTES)
        self._let_in[_hash(key)] = None
        while len(self._let_in) > _MOST_KEYS:
            self._let_in.popitem(last=False)
        return key

    def check(self, key: str) -> None:
        """Check a page's key.

        Raises:
            CallError: 401 `key-needed`.
        """
        # A look-up by a hash: how long it takes tells nothing of any key.
        if _hash(key) not in self._let_in:
            raise problem(
                401, "key-needed", "open the address that `koco web` or `koco up --web` printed, once in this browser"
            )


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def shown_key(request: web.Request) -> str:
    """Return the key that a request shows, empty for none."""
    shown = request.headers.getall(hdrs.AUTHORIZATION, [])
    return shown[0].removeprefix(_SCHEME) if len(shown) == 1 and shown[0].startswith(_SCHEME) else ""


def guard(port: Callable[[], int], keys: Keys) -> Middleware:
    """Return the middleware that stands before every route.

    Args:
        port: that the server listens at.
        keys: which open `/api/`.
    """

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        own = {f"{name}:{port()}" for name in ("127.0.0.1", "localhost")}
        hosts = [host.lower() for host in request.headers.getall(hdrs.HOST, [])]
        if len(hosts) != 1 or hosts[0] not in own:
            raise problem(421, "wrong-host", "this page is reached by the address that was printed for it alone")
        if any(origin.lower() != f"http://{hosts[0]}" for origin in request.headers.getall(hdrs.ORIGIN, [])):
            raise problem(403, "wrong-origin", "pages of other origins may not ask here")
        is_api = request.path.startswith("/api/")
        if is_api and request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise problem(403, "wrong-origin", "pages of other origins may not ask here")
        if is_api and request.path != "/api/enter":
            keys.check(shown_key(request))
        return await handler(request)

    return check
