"""Reads the HTTP requests to the simulated EAS server and checks their form, before any command [MS-ASHTTP 2.2.1].

A request that Exchange answers with an HTTP status raises RefusedByHttp.
"""

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Collection, Mapping
from functools import lru_cache
from re import compile as pattern
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from eas_watcher.names import ProtocolVersion
from eas_watcher.wbxml.decode import WbxmlError, decode
from eas_watcher.wbxml.element import Element
from relay.sandbox.eas.refusals import (
    INVALID_WBXML,
    INVALID_XML,
    ROOTS,
    VERSION_NOT_SUPPORTED,
    RefusedByHttp,
    RefusedByStatus,
)

CONTENT_TYPES: Final = frozenset({"application/vnd.ms-sync.wbxml", "application/vnd.ms-sync"})
DEVICE_ID: Final = pattern(r"[A-Za-z0-9]{1,32}")
DEVICE_TYPE: Final = pattern(r"[A-Za-z0-9]{1,64}")
POLICY_KEY: Final = pattern(r"[0-9]{1,10}")
UNSIGNED: Final = 1 << 32
SPOKEN: Final = {version.wire: version for version in ProtocolVersion}
REQUESTS_KEPT: Final = 32_768  # as many as heads in request_head.py
PINGS_KEPT: Final = 256
SHORT: Final = 1024  # bytes; the body of a longer Ping is read each time
PARAMETERS: Final = ("Cmd", "User", "DeviceId", "DeviceType")


class EasRequest(NamedTuple):
    """The query and headers of a command."""

    command: str
    device_id: str
    version: ProtocolVersion
    policy_key: str | None


@lru_cache(REQUESTS_KEPT)
def read_authorization(value: str | None) -> tuple[str, str] | None:
    """Return user and password of Basic authentication in UTF-8 [RFC 7617 2]; None if there are none."""
    scheme, _, encoded = (value or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = b64decode(encoded, validate=True).decode().partition(":")
    except (Base64Error, UnicodeDecodeError):
        return None
    return (user, password) if user and colon else None


class Target(NamedTuple):
    """The target of a request."""

    path: str
    query: Mapping[str, str]
    """The parameters, decoded; of several of one name the last."""
    repeats: bool
    """Whether a parameter came several times."""


@lru_cache(REQUESTS_KEPT)
def read_target(target: str) -> Target:
    """Return the parts of a target; those of an earlier one are remembered."""
    path, _, query = target.partition("?")
    parts = [part.partition("=") for part in query.split("&") if part]
    parameters = {unquote_plus(name): unquote_plus(value) for name, _, value in parts}
    return Target(path, parameters, len(parameters) < len(parts))


def read_request(
    target: Target,
    headers: Mapping[str, str],
    body: bytes,
    user: str,
    versions: Collection[ProtocolVersion],
) -> EasRequest:
    """Return the query and headers of a POST by the authenticated `user`; names in `headers` are in lower case.

    Raises RefusedByHttp, and RefusedByStatus for a protocol version that the server has stopped serving.
    """
    query = target.query
    if target.repeats or not all(map(query.get, PARAMETERS)):  # the simulator does not read base64 queries
        raise RefusedByHttp(400, "a query has Cmd, User, DeviceId and DeviceType, each once")
    if query["User"] != user:
        raise RefusedByHttp(403, "the query names another user than the authenticated one")
    command = query["Cmd"]
    if command not in ROOTS:
        raise RefusedByHttp(501, "a command that is not served")
    if not DEVICE_ID.fullmatch(query["DeviceId"]):
        raise RefusedByHttp(400, "a DeviceId is 1 to 32 letters and digits")
    if not DEVICE_TYPE.fullmatch(query["DeviceType"]):
        raise RefusedByHttp(400, "a DeviceType is letters and digits")
    _check_content_type(headers, body)
    policy_key = headers.get("x-ms-policykey")
    if policy_key is not None and not (POLICY_KEY.fullmatch(policy_key) and int(policy_key) < UNSIGNED):
        raise RefusedByHttp(400, "X-MS-PolicyKey is an unsigned 32-bit number")
    return EasRequest(command, query["DeviceId"], _read_version(headers, versions), policy_key)


def read_body(request: EasRequest, body: bytes) -> Element | None:
    """Return the body of a command; None for an empty one. Raises RefusedByStatus."""
    if not body:
        if request.command not in {"Ping", "Sync"}:
            raise RefusedByStatus(INVALID_XML, f"{request.command} without a body")
        return None
    try:
        root = _decode_again(body) if request.command == "Ping" and len(body) <= SHORT else decode(body)
    except WbxmlError as error:
        raise RefusedByStatus(INVALID_WBXML, str(error)) from error
    if (root.page, root.tag) != (ROOTS[request.command].name, request.command):
        raise RefusedByStatus(INVALID_XML, "the body is another document")
    return root


_decode_again: Final = lru_cache(PINGS_KEPT)(decode)
"""Reads a body that comes again: the Pings of a fleet are alike."""


def _check_content_type(headers: Mapping[str, str], body: bytes) -> None:
    content_type = headers.get("content-type")
    if body and content_type not in CONTENT_TYPES:
        raise RefusedByHttp(400, "a body is application/vnd.ms-sync.wbxml")
    if not body and content_type is not None:
        raise RefusedByHttp(400, "a Content-Type without a body")


def _read_version(headers: Mapping[str, str], versions: Collection[ProtocolVersion]) -> ProtocolVersion:
    version = SPOKEN.get(headers.get("ms-asprotocolversion", ""))
    if version is None:
        raise RefusedByHttp(400, "MS-ASProtocolVersion is missing or unknown")
    if version in versions:
        return version
    if ProtocolVersion.V14_0 <= version < max(versions):
        raise RefusedByStatus(VERSION_NOT_SUPPORTED, "a protocol version that is not served any more", fault=False)
    raise RefusedByHttp(400, "a protocol version that OPTIONS does not offer")
