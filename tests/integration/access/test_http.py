"""An issuer that answers nonsense, too much, or sends us elsewhere."""

from __future__ import annotations

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from kodo.access.http import MAX_ANSWER_BYTES, discover, get_json, post_form
from kodo.p2p.errors import NetworkError, PeerError


async def redirect(request: web.Request) -> web.Response:
    raise web.HTTPFound("/good")


ANSWERS: dict[str, web.Response] = {
    "/good": web.json_response({"a": 1}),
    "/large": web.Response(body=b'"' + b"x" * (MAX_ANSWER_BYTES + 1) + b'"'),
    "/list": web.json_response([1]),
    "/html": web.Response(text="<html>"),
    "/deep": web.Response(text="[" * 200_000),
    "/broken": web.Response(status=500, text="{}"),
    "/missing": web.json_response({"error": "no"}, status=404),
    "/.well-known/openid-configuration": web.json_response({"issuer": "https://evil.example"}),
}


async def answer(request: web.Request) -> web.Response:
    kept = ANSWERS[request.path]
    return web.Response(status=kept.status, body=kept.body)


async def test_only_a_json_object_of_a_bounded_size_is_an_answer() -> None:
    app = web.Application()
    app.router.add_route("*", "/redirect", redirect)
    app.router.add_route("*", "/{rest:.*}", answer)
    async with TestServer(app) as server:
        place = f"http://127.0.0.1:{server.port}"
        assert await get_json(f"{place}/good") == {"a": 1}
        for path in ("/large", "/list", "/html", "/deep"):
            with pytest.raises(PeerError):
                await get_json(place + path)
        for path in ("/broken", "/missing"):
            with pytest.raises(NetworkError):
                await get_json(place + path)
        with pytest.raises((NetworkError, PeerError)):
            await get_json(f"{place}/redirect")
        assert (await post_form(f"{place}/missing", {"a": "b"})).body == {"error": "no"}
        with pytest.raises(PeerError, match="evil"):
            await discover(place)
    with pytest.raises(NetworkError):
        await get_json(f"{place}/good")
