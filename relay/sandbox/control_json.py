"""Own what the routes of the push simulators' control share: JSON objects come in, problems go out."""

import json
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request whose values are wrong with what is wrong."""
    try:
        return await handler(request)
    except ValueError as error:
        raise bad_request(str(error)) from error


async def read_fields(request: web.Request) -> dict[str, Any]:
    """Read the JSON object of a request; raises web.HTTPBadRequest."""
    try:
        fields = await request.json()
    except ValueError as error:
        raise bad_request("the body is no JSON") from error
    if not isinstance(fields, dict):
        raise bad_request("the body is no JSON object")
    return fields


def bad_request(detail: str) -> web.HTTPBadRequest:
    """Make the answer to what is wrong."""
    problem = json.dumps({"title": "Bad request", "status": 400, "detail": detail})
    return web.HTTPBadRequest(text=problem, content_type="application/problem+json")
