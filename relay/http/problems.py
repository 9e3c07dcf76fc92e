"""Problem documents [RFC 9457], and those for requests that the web framework itself refuses."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

MEDIA_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Kind:
    """The common parts of all problems of one kind."""

    status: HTTPStatus
    code: str
    title: str


BY_STATUS: Final[Mapping[int, Kind]] = {
    404: Kind(HTTPStatus.NOT_FOUND, "no-such-resource", "There is nothing at this path"),
    405: Kind(HTTPStatus.METHOD_NOT_ALLOWED, "method-not-allowed", "This path has no such method"),
    413: Kind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "The body is too large"),
}
"""The refusals of the web framework itself."""

BAD_REQUEST: Final = Kind(HTTPStatus.BAD_REQUEST, "bad-request", "The request makes no sense")
INTERNAL: Final = Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The relay failed")


def framework_refusal(error: web.HTTPException) -> web.Response:
    """Return the answer to a request that aiohttp refuses by itself."""
    kind = BY_STATUS.get(error.status, BAD_REQUEST)
    allow = error.headers.get(hdrs.ALLOW)
    return document(kind, "", headers={} if allow is None else {hdrs.ALLOW: allow})


def document(
    kind: Kind,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    errors: list[dict[str, str]] | None = None,
    instance: str | None = None,
) -> web.Response:
    """Return a problem document; `type` is a relative reference that ends with the code."""
    body: dict[str, object] = {
        "type": f"/problems/{kind.code}",
        "title": kind.title,
        "status": kind.status.value,
        "code": kind.code,
    }
    if detail:
        body["detail"] = detail
    if errors:
        body["errors"] = errors
    if instance is not None:
        body["instance"] = instance
    return web.Response(
        status=kind.status, body=json.dumps(body).encode(), content_type=MEDIA_TYPE, headers=dict(headers or {})
    )
