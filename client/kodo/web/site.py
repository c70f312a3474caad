"""The page: its built files, read once, and the headers that bound what it may do.

`dist/` beside this module is what `client/web` is built into. A name with a hash in it never changes its content, so
browsers keep it for good; `index.html` names the others and is asked for each time.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import mimetypes
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import aiohttp
from aiohttp import hdrs, web

from kodo.p2p.errors import UsageError

__all__ = ["BUILD_COMMAND", "Site", "policy", "security_headers"]

DIST = Path(__file__).parent / "dist"
BUILD_COMMAND = "scripts/page"
"""Builds the files in a checkout."""

_HASHED = re.compile(r"-[A-Z0-9]{8}\.[a-z0-9]+(\.[a-z]+)?$")
"""How the build marks a file by its content: `main-3FJ2KQ7A.js`."""

_MOST_FILES = 200
_MOST_BYTES = 16 << 20

_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_MARK = b'data-host=""'
"""In `index.html`, filled with who serves the page."""
_ISSUER_MARK = b'data-issuer=""'
"""And with the one issuer that a registry asks for it."""

Host = Literal["web", "registry"]


def policy(registries: Sequence[str] = ()) -> str:
    """Return the content security policy: nothing but the page's own files acts, and nothing foreign is asked.

    WebRTC needs no `connect-src`. PDF and HTML outputs are shown in frames of blob URLs, which inherit this policy.

    Args:
        registries: origins that the page may ask besides its own.
    """
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            " ".join(["connect-src 'self'", *registries]),
            "worker-src 'self'",
            "frame-src blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types kodo",
        ]
    )


def security_headers(registries: Sequence[str] = ()) -> Mapping[str, str]:
    """Return the headers of every answer that a browser may show."""
    return MappingProxyType(
        {
            "Content-Security-Policy": policy(registries),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
            "X-Frame-Options": "DENY",
        }
    )


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    packed: bytes | None
    media_type: str
    tag: str
    is_kept: bool


class Site:
    """The files of the page, in memory; `routes` are those of an aiohttp application.

    Args:
        host: who serves it: `koco web`, which also answers below `/api/`, or a registry, which is asked directly.
        issuer: URL of the issuer of a registry's users, which it asks for the page (`issuer_routes`).
        folder: of the built files.

    Raises:
        UsageError: they are not there; it names the command that builds them.
    """

    def __init__(self, host: Host, *, issuer: str = "", folder: Path = DIST) -> None:
        self._files = {name: _prepared(name, body, host, issuer) for name, body in _read(folder).items()}
        self._headers = security_headers()

    @staticmethod
    def is_built(folder: Path = DIST) -> bool:
        """Return whether there is a page to serve."""
        return (folder / "index.html").is_file()

    @property
    def paths(self) -> list[str]:
        """The paths that it answers, `/` first."""
        return ["/", *(f"/{name}" for name in sorted(self._files) if name != "index.html")]

    def routes(self) -> list[web.RouteDef]:
        """Return a route for each file. Only these paths exist, so no request can name another file."""
        return [web.get(path, self._handler(path[1:] or "index.html")) for path in self.paths]

    def _handler(self, name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        file = self._files[name]

        async def answer(request: web.Request) -> web.StreamResponse:
            headers = {**self._headers, hdrs.VARY: "Accept-Encoding"}
            if file.is_kept:
                headers[hdrs.CACHE_CONTROL] = "public, max-age=31536000, immutable"
            else:
                headers[hdrs.CACHE_CONTROL] = "no-store" if name == "index.html" else "no-cache"
                known = request.if_none_match or ()
                if name != "index.html" and any(other.value == file.tag for other in known):
                    not_modified = web.Response(status=304, headers=headers)
                    not_modified.etag = aiohttp.ETag(file.tag, is_weak=True)
                    return not_modified
            body = file.body
            if file.packed is not None and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, "").lower():
                headers[hdrs.CONTENT_ENCODING] = "gzip"
                body = file.packed
            response = web.Response(body=body, content_type=file.media_type, headers=headers)
            if file.media_type.startswith("text/"):
                response.charset = "utf-8"
            response.etag = aiohttp.ETag(file.tag, is_weak=True)
            return response

        return answer


def _read(folder: Path) -> dict[str, bytes]:
    if not Site.is_built(folder):
        raise UsageError(f"the page is not built; in a checkout of kodo `{BUILD_COMMAND}` builds it")
    files: dict[str, bytes] = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".map" and not path.name.startswith("."):
            body = path.read_bytes()
            files[path.relative_to(folder).as_posix()] = body
            size += len(body)
    if len(files) > _MOST_FILES or size > _MOST_BYTES:
        raise UsageError(f"{folder} holds {len(files)} files of {size} bytes: more than the page can have")
    return files


def _prepared(name: str, body: bytes, host: Host, issuer: str) -> _File:
    if name == "index.html":
        body = body.replace(_MARK, f'data-host="{host}"'.encode())
        body = body.replace(_ISSUER_MARK, f'data-issuer="{html.escape(issuer)}"'.encode())
    suffix = Path(name).suffix
    media_type = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    packed = (
        gzip.compress(body, 9, mtime=0) if media_type.startswith(("text/", "application/", "image/svg")) else None
    )
    is_packed = packed is not None and len(packed) < len(body)
    return _File(
        body,
        packed if is_packed else None,
        media_type,
        hashlib.sha256(body).hexdigest()[:32],
        _HASHED.search(name) is not None,
    )
