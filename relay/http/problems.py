"""Problem documents [RFC 9457], and those for requests that the web framework itself refuses."""

import json
from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web

from relay.http.kinds import BAD_REQUEST, BY_STATUS, Kind

MEDIA_TYPE: Final = "application/problem+json"


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
