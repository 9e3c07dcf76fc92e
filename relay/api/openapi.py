"""The OpenAPI 3.1 document of the API, made of the operations and of the models that validate."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from relay.api import pushes
from relay.api.documents import ProblemAnswer
from relay.api.operations import ID, Operation, Reply
from relay.domain.model import Platform
from relay.http.kinds import Kind

Json = dict[str, Any]

API_VERSION: Final = "1.0.0"
JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
PLACE: Final = "#/components/schemas/{model}"
TITLE: Final = "The registration API of the push relay"
ABOUT: Final = (
    "Apps name the mailbox to watch and the device to push to. Pushes say that there is something new, never what. "
    "Decide by the `code` of a problem. Later versions add fields to answers: ignore those that you do not know."
)
HEADERS: Final[Mapping[str, tuple[str, Json]]] = {
    "Location": ("path of the registration", {"type": "string"}),
    "Retry-After": ("seconds to wait before the next request", {"type": "integer", "minimum": 1}),
    "Vary": ("the document may come compressed", {"type": "string"}),
    "Content-Encoding": ("gzip, where Accept-Encoding has it", {"type": "string"}),
    "ETag": ("names this version of the document", {"type": "string"}),
    "Accept-Encoding": ("how a body may be compressed; with `unknown-encoding`", {"type": "string"}),
    "WWW-Authenticate": ("Bearer, with error=invalid_token for a wrong secret", {"type": "string"}),
    "RateLimit-Policy": ("the limits that count this request: requests (q) in seconds (w)", {"type": "string"}),
    "RateLimit": ("what is left of each limit (r), and the seconds until all of it is (t)", {"type": "string"}),
}
"""Every header that answers may have, with its meaning and form."""
EVERYWHERE: Final = ("RateLimit-Policy", "RateLimit")
"""The headers of every answer to a request that was counted."""
PATHS: Final[Mapping[str, Json]] = {
    "id": {"type": "string", "pattern": f"^{ID}$"},
    "test": {"type": "string", "pattern": f"^{ID}$"},
    "code": {"type": "string", "pattern": "^[a-z-]{1,64}$"},
}
"""The forms of what stands in braces in a path."""
ENROLMENT_KEY: Final[Json] = {
    "name": "Enrolment-Key",
    "in": "header",
    "description": "a key of the administrator, where capabilities demand the mode `key`",
    "schema": {"type": "string", "maxLength": 512},
}
PLATFORMS: Final = {Platform.APNS: "APNs", Platform.FCM: "FCM", Platform.WEBPUSH: "WebPush"}


def document(operations: Iterable[Operation], kinds: Iterable[Kind]) -> Json:
    """Return the whole document; raises KeyError for an operation with a code that no kind has."""
    rows = tuple(operations)
    schemas = _Schemas(rows)
    by_code = {kind.code: kind for kind in kinds}
    paths: Json = {}
    for row in rows:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row, schemas, by_code)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": API_VERSION, "description": ABOUT, "license": _license()},
        "servers": [{"url": "/"}],
        "paths": paths,
        "webhooks": {platform.value: _webhook(platform, schemas) for platform in pushes.MODELS},
        "components": {
            "schemas": schemas.components,
            "headers": {name: {"description": text, "schema": form} for name, (text, form) in HEADERS.items()},
            "securitySchemes": {
                "secret": {"type": "http", "scheme": "bearer", "description": "the secret of the registration"}
            },
        },
    }


def written(openapi: Json) -> bytes:
    """Return a document as the bytes that are served and shipped."""
    return json.dumps(openapi, ensure_ascii=False, indent=1).encode() + b"\n"


def _license() -> Json:
    return {"name": "Apache License 2.0", "identifier": "Apache-2.0"}


class _Schemas:
    """The JSON schemas of all models, and references to them."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(ProblemAnswer, "serialization"): None}
        for row in operations:
            if row.body is not None:
                wanted[row.body, "validation"] = None
            wanted |= {(reply.model, "serialization"): None for reply in row.replies if reply.model is not None}
        wanted |= {(model, "serialization"): None for model in pushes.MODELS.values()}
        self._references, found = models_json_schema(list(wanted), ref_template=PLACE)
        self.components: Json = {name: _plain(schema) for name, schema in found["$defs"].items()}

    def reference(self, model: type[BaseModel], mode: JsonSchemaMode = "serialization") -> Json:
        """Return a reference to the schema of a model."""
        return dict(self._references[model, mode])


def _plain(schema: Any) -> Any:
    r"""Return a schema as other languages read it: `$` for the `\Z` of Python, sets as lists that may repeat."""
    match schema:
        case {"uniqueItems": True, **rest}:
            return _plain({key: value for key, value in rest.items() if key != "maxItems"})
        case {"pattern": str(pattern), **rest}:
            return {**_plain(rest), "pattern": pattern.replace("\\Z", "$")}
        case dict():
            return {key: _plain(value) for key, value in schema.items()}
        case list():
            return [_plain(value) for value in schema]
        case _:
            return schema


def _operation(row: Operation, schemas: _Schemas, by_code: Mapping[str, Kind]) -> Json:
    made: Json = {"operationId": row.name, "summary": row.summary}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": form}
        for name, form in PATHS.items()
        if f"{{{name}}}" in row.path
    ] + [
        {
            "name": each.name,
            "in": place,
            "description": each.meaning,
            "schema": {"type": "string", "minLength": 1, "maxLength": each.largest},
        }
        for place, several in (("query", row.query), ("header", row.headers))
        for each in several
    ]
    if row.enrols:
        parameters.append(dict(ENROLMENT_KEY))
    if parameters:
        made["parameters"] = parameters
    if row.secret:
        made["security"] = [{"secret": []}]
    if row.body is not None:
        content = {"schema": schemas.reference(row.body, "validation"), "example": row.body_example}
        made["requestBody"] = {"required": True, "content": {JSON: content}}
    made["responses"] = {str(reply.status.value): _reply(reply, schemas) for reply in row.replies}
    made["responses"] |= _problems([by_code[code] for code in row.codes], schemas)
    return made


def _reply(reply: Reply, schemas: _Schemas) -> Json:
    made: Json = {"description": reply.meaning, "headers": _headers(*reply.headers, *EVERYWHERE)}
    if reply.model is not None:
        made["content"] = {JSON: {"schema": schemas.reference(reply.model), "example": reply.example}}
    elif reply.media:
        made["content"] = {reply.media: {"schema": {"type": "object" if reply.media == JSON else "string"}}}
    return made


def _problems(kinds: Iterable[Kind], schemas: _Schemas) -> Json:
    """Return the answers with problems by status; several codes of one status are one answer with examples."""
    by_status: dict[HTTPStatus, list[Kind]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    made: Json = {}
    for status, alike in sorted(by_status.items()):
        headers = ["WWW-Authenticate"] if status == HTTPStatus.UNAUTHORIZED else []
        if status in {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}:
            headers.append("Retry-After")
        if status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            headers.append("Accept-Encoding")
        codes = {"properties": {"code": {"enum": [kind.code for kind in alike]}}}
        made[str(status.value)] = {
            "description": "; ".join(f"`{kind.code}`: {kind.title}" for kind in alike),
            "headers": _headers(*headers, *EVERYWHERE),
            "content": {
                PROBLEM: {
                    "schema": {"allOf": [schemas.reference(ProblemAnswer), codes]},
                    "examples": {kind.code: {"value": _problem(kind)} for kind in alike},
                }
            },
        }
    return made


def _problem(kind: Kind) -> Json:
    return {"type": f"/problems/{kind.code}", "title": kind.title, "status": kind.status.value, "code": kind.code}


def _headers(*names: str) -> Json:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _webhook(platform: Platform, schemas: _Schemas) -> Json:
    """Return what an app gets from the relay through a provider."""
    examples = {name: {"value": body} for name, body in pushes.examples(platform).items()}
    content = {"schema": schemas.reference(pushes.MODELS[platform]), "examples": examples}
    return {
        "post": {
            "operationId": f"{platform.value}_push",
            "summary": f"What the app gets by {PLATFORMS[platform]}",
            "requestBody": {"required": True, "content": {JSON: content}},
            "responses": {"200": {"description": "the app answers nothing: the provider delivers"}},
        }
    }
