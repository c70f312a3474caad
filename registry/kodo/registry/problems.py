"""Refusals over HTTP: RFC 9457 problem details.

`type` is `about:blank` (section 4.2.1), so `title` is the status phrase; `reason` is the stable word that programs
compare, `detail` a sentence for people, and further members are facts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from kodo.p2p.errors import CallError

__all__ = ["PROBLEM_TYPE", "problem", "problem_of", "problems"]

PROBLEM_TYPE = "application/problem+json"

logger = logging.getLogger(__name__)

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def problem_of(error: CallError) -> web.Response:
    """Return the response that says `error`; `retry_after_s` in its data becomes `Retry-After`."""
    try:
        title = HTTPStatus(error.code).phrase
    except ValueError:
        title = "Refused"
    body: dict[str, Any] = {
        **error.data,
        "type": "about:blank",
        "title": title,
        "status": error.code,
        "reason": error.reason,
        "detail": error.message,
    }
    headers = {"Cache-Control": "no-store"}
    if error.code == 401:
        headers["WWW-Authenticate"] = "Kodo"  # RFC 9110, section 15.5.2
    if "retry_after_ms" in error.data:
        body["retry_after_s"] = -(-int(body.pop("retry_after_ms")) // 1000)
    if "retry_after_s" in body:
        headers["Retry-After"] = str(body["retry_after_s"])
    if "allow" in error.data:
        headers["Allow"] = ", ".join(error.data["allow"])
    return web.Response(
        status=error.code, headers=headers, body=json.dumps(body).encode(), content_type=PROBLEM_TYPE, charset="utf-8"
    )


def problem(code: int, reason: str, message: str, **data: object) -> CallError:
    """Make the refusal to raise."""
    return CallError(code, reason, message, data)


@web.middleware
async def problems(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Make every refusal of the routes and of aiohttp a problem; what nobody foresaw is logged and answered 500."""
    try:
        return await handler(request)
    except CallError as error:
        return problem_of(error)
    except web.HTTPMethodNotAllowed as error:
        allowed = sorted(error.allowed_methods)
        return problem_of(
            problem(405, "method-not-allowed", f"{request.path[:128]} accepts {', '.join(allowed)}", allow=allowed)
        )
    except web.HTTPRequestEntityTooLarge:
        return problem_of(problem(413, "too-large", "the body is larger than this call accepts"))
    except web.HTTPNotFound:
        return problem_of(problem(404, "no-such-page", "there is nothing at this path"))
    except web.HTTPError as error:
        return problem_of(problem(error.status, "refused", error.reason))
    except Exception:
        logger.exception("a %s request failed", request.method)
        return problem_of(problem(500, "internal", "the registry failed to answer this request; see its log"))
