"""What the page asks of issuers of tokens through its server: a page may ask its own origin alone.

The server carries, and keeps nothing: the person logs in at the issuer's own page, the code comes back to the
browser, and so does what it is traded for. The verifier (PKCE) and the proof of the key (DPoP) are made there.
`koco web` carries to every issuer, for its own user; a registry, whose callers are strangers, to its own alone.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from aiohttp import hdrs, web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kodo.access import http
from kodo.access.throttle import Throttle
from kodo.p2p.core.hosts import source_of
from kodo.p2p.errors import CallError, DeadlineError, KodoError
from kodo.registry.problems import problem

__all__ = ["issuer_routes"]

_MAX_TEXT = 16 << 10
_MAX_BODY = 128 << 10
_BODY_S = 10.0
_Text = Annotated[str, Field(min_length=1, max_length=_MAX_TEXT)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class _About(_Body):
    issuer: Annotated[str, Field(min_length=1, max_length=2048)]


_Asked = TypeVar("_Asked", bound=_About)


class _Form(_Body):
    """A question to a token endpoint: a code is traded (RFC 7636), or a token is renewed (RFC 6749, section 6)."""

    grant_type: Annotated[str, Field(pattern=r"^(authorization_code|refresh_token)$")]
    client_id: _Text
    audience: _Text
    resource: _Text | None = None
    code: _Text | None = None
    code_verifier: _Text | None = None
    redirect_uri: _Text | None = None
    refresh_token: _Text | None = None


class _Token(_About):
    form: _Form
    proof: Annotated[str, Field(max_length=4096, pattern=r"^[A-Za-z0-9_.-]+$")] | None = None


@dataclass(slots=True)
class _Carrier:
    """Carries what is asked to an issuer.

    Attributes:
        only: the one issuer that is asked; None: every one.
        tries: how often one source may ask.
    """

    only: str | None
    tries: Throttle = field(default_factory=lambda: Throttle(burst=20, every_ms=1000))

    async def about(self, request: web.Request) -> web.Response:
        said = await _discovered((await self._asked(request, _About)).issuer)
        endpoints = {name: _place(said, name) for name in ("authorization_endpoint", "token_endpoint")}
        return _json({**endpoints, "binding": http.binding_alg(said) or ""})

    async def token(self, request: web.Request) -> web.Response:
        asked = await self._asked(request, _Token)
        place = _place(await _discovered(asked.issuer), "token_endpoint")
        headers = {} if asked.proof is None else {"DPoP": asked.proof}
        answer = await _carried(http.post_form(place, asked.form.model_dump(exclude_none=True), headers))
        return _json({"status": answer.status, "body": answer.body, "nonce": answer.nonce or ""})

    async def _asked(self, request: web.Request, model: type[_Asked]) -> _Asked:
        if self.only is None:
            return await _read(request, model)
        wait = self.tries.wait_ms(source_of(request.remote), time.monotonic_ns() // 1_000_000)
        if wait:
            seconds = -(-wait // 1000)
            raise problem(429, "too-often", f"too many tries; wait {seconds} s", retry_after_s=seconds)
        asked = await _read(request, model)
        if asked.issuer != self.only:
            raise problem(403, "other-issuer", f"this registry asks its own issuer only: {self.only}")
        return asked


def issuer_routes(only: str | None = None) -> list[web.RouteDef]:
    """Return the routes: `POST /api/issuer`, what an issuer says of itself, and `POST /api/issuer/token`.

    Args:
        only: the URL of the one issuer that is asked, for callers that are strangers, each only so often; None: all.
    """
    carrier = _Carrier(only)
    return [web.post("/api/issuer", carrier.about), web.post("/api/issuer/token", carrier.token)]


async def _discovered(issuer: str) -> dict[str, Any]:
    try:
        http.check_issuer_url(issuer)
    except KodoError as error:
        raise problem(400, "bad-args", str(error), arg="issuer") from None
    said: dict[str, Any] = await _carried(http.discover(issuer))
    return said


async def _carried(asking: Any) -> Any:
    try:
        return await asking
    except CallError:
        raise
    except DeadlineError as error:
        raise problem(504, "no-answer", str(error)) from error
    except KodoError as error:
        raise problem(502, "provider-away", str(error)) from error


def _place(said: dict[str, Any], name: str) -> str:
    place = said.get(name)
    if not isinstance(place, str):
        raise problem(502, "provider-away", f"the issuer does not publish its {name}")
    return place


async def _read(request: web.Request, model: type[_Asked]) -> _Asked:
    if request.content_type != "application/json":
        raise problem(415, "wrong-content-type", "the body is application/json")
    if request.content_length is None or request.content_length > _MAX_BODY:
        raise problem(413, "too-large", f"the body has a known length of at most {_MAX_BODY} bytes", limit=_MAX_BODY)
    try:
        async with asyncio.timeout(_BODY_S):
            body = await request.read()
    except TimeoutError:
        raise problem(408, "too-slow", "the body did not arrive in time") from None
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        arg = ".".join(str(part)[:64] for part in first["loc"][:3])
        raise problem(400, "bad-args", f"{arg or 'body'}: {first['msg'][:256]}", arg=arg) from None


def _json(value: dict[str, Any]) -> web.Response:
    return web.json_response(value, headers={hdrs.CACHE_CONTROL: "no-store", "X-Content-Type-Options": "nosniff"})
