"""Compares answers of the API with its OpenAPI document, which promises them to apps."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from relay.api.openapi import document
from relay.api.operations import OPERATIONS
from relay.api.problems import KINDS

TABLE: Final = "relay/api/operations.py"
OF_NO_OPERATION: Final = frozenset({404, 405, 429, 500, 503})
"""What answers at paths and by methods that are no operation."""
HEADERS: Final = {"location", "retry-after", "etag", "www-authenticate"}
"""Headers that an answer must not have unless the document promises them."""


@cache
def promised() -> Mapping[str, Any]:
    return document(OPERATIONS, KINDS)


def broken_promise(method: str, path: str, status: int, headers: Mapping[str, str], text: str) -> str | None:
    """Return what of an answer the document does not promise, and where that belongs; None: the answer keeps to it."""
    path = path.partition("?")[0]
    template = next((each for each in promised()["paths"] if _matches(each, path)), path)
    operation = promised()["paths"].get(template, {}).get("get" if method == "HEAD" else method.lower())
    if operation is None:
        served = method != "OPTIONS" and status not in OF_NO_OPERATION
        return f"{method} {template} is served, but has no row in {TABLE}" if served else None
    wrong = _wrong(operation["responses"].get(str(status)), headers, "" if method == "HEAD" else text)
    return None if wrong is None else f"{method} {template} answers {status} {wrong}, which {TABLE} does not have"


def _wrong(promise: Mapping[str, Any] | None, headers: Mapping[str, str], text: str) -> str | None:
    if promise is None:
        return text[:200]
    if undocumented := {name.lower() for name in headers} & HEADERS - {name.lower() for name in promise["headers"]}:
        return f"with {sorted(undocumented)}"
    media = headers.get("Content-Type", "").partition(";")[0]
    if text and media not in promise.get("content", {}):
        return f"with a body of {media!r}"
    if not text or "json" not in media:
        return None
    schema = {**promise["content"][media]["schema"], "components": promised()["components"]}
    found = best_match(Draft202012Validator(schema).iter_errors(json.loads(text)))
    return None if found is None else f"with {found.json_path}: {found.message}"


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path) is not None
