"""The kinds of problems [RFC 9457]: status, code and title, and those that the web framework itself needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final


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

ENCODINGS: Final = ("gzip", "deflate")
"""How a body may be compressed; every build of the web framework reads these."""
UNKNOWN_ENCODING: Final = Kind(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unknown-encoding", "The body is compressed in an unknown way"
)
BAD_REQUEST: Final = Kind(HTTPStatus.BAD_REQUEST, "bad-request", "The request makes no sense")
INTERNAL: Final = Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The relay failed")
