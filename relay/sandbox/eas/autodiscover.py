"""The Autodiscover service of the simulated server: both versions name the server itself to users with a mailbox.

A failure that is scripted for the command `Autodiscover` or `Autodiscover-v2` replaces the answer, e.g. a redirect.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Final
from xml.parsers import expat

from eas_watcher.autodiscover.pox import REQUEST_SCHEMA, RESPONSE_SCHEMA
from relay.sandbox.eas.failures import AnswerHttp
from relay.sandbox.eas.messages import Request, Response
from relay.sandbox.eas.requests import read_authorization
from relay.sandbox.eas.simulator import EasSimulator

V1: Final = "/autodiscover/autodiscover.xml"
V2: Final = "/autodiscover/autodiscover.json"
PATHS: Final = frozenset({V1, V2})
OUTER_SCHEMA: Final = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"


class Autodiscover:
    """The answers of Autodiscover."""

    def __init__(self, simulator: EasSimulator) -> None:
        """Answer for the mailboxes of `simulator`."""
        self._simulator = simulator

    def answer(self, request: Request) -> Response:
        """Answer a request to one of the two paths."""
        asked, method = (self._version_1, "POST") if request.target.path == V1 else (self._version_2, "GET")
        if request.method != method:
            return Response(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("Allow", method),))
        return asked(request)

    def _version_1(self, request: Request) -> Response:
        """Answer in XML to a user with a password."""
        login = read_authorization(request.headers.get("authorization"))
        user = login[0] if login else ""
        if (failed := self._record(user, "Autodiscover")) is not None:
            return failed
        if login is None or not self._simulator.admit(*login):
            return Response(
                HTTPStatus.UNAUTHORIZED, headers=(("WWW-Authenticate", 'Basic realm="simulated mailboxes"'),)
            )
        if not _is_asked_for_phones(request.body):
            self._simulator.complain(user, "Autodiscover", "the request is none in the schema for phones")
            return Response(HTTPStatus.BAD_REQUEST)
        server = f"<Server><Type>MobileSync</Type><Url>{self._simulator.url}</Url></Server>"
        text = (
            '<?xml version="1.0" encoding="utf-8"?>'
            f'<Autodiscover xmlns="{OUTER_SCHEMA}"><Response xmlns="{RESPONSE_SCHEMA}"><Culture>en:us</Culture>'
            f"<Action><Settings>{server}</Settings></Action></Response></Autodiscover>"
        )
        return Response(HTTPStatus.OK, text.encode(), (("Content-Type", "text/xml; charset=utf-8"),))

    def _version_2(self, request: Request) -> Response:
        """Answer in JSON, without authentication; 404 for a user without a mailbox."""
        query = request.target.query
        user = query.get("Email", "")
        if (failed := self._record(user, "Autodiscover-v2")) is not None:
            return failed
        if "authorization" in request.headers:
            self._simulator.complain(user, "Autodiscover-v2", "the request has a credential that was not asked for")
        if query.get("Protocol", "").lower() != "activesync":
            return _json(HTTPStatus.BAD_REQUEST, {"ErrorCode": "InvalidProtocol"})
        if user not in self._simulator.users:
            return Response(HTTPStatus.NOT_FOUND)
        return _json(HTTPStatus.OK, {"Protocol": "ActiveSync", "Url": self._simulator.url})

    def _record(self, user: str, command: str) -> Response | None:
        """Record a request; return the answer of its scripted failure."""
        self._simulator.records.note(user, command, asyncio.get_running_loop().time())
        failure = self._simulator.failures.take(user, command)
        if not isinstance(failure, AnswerHttp):
            return None
        return Response(failure.status, failure.body.encode(), tuple(failure.headers.items()))


def _json(status: HTTPStatus, document: dict[str, str]) -> Response:
    return Response(status, json.dumps(document).encode(), (("Content-Type", "application/json"),))


def _is_asked_for_phones(body: bytes) -> bool:
    names: list[str] = []
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = lambda name, _: names.append(name)
    try:
        parser.Parse(body, True)  # noqa: FBT003 -- `isfinal`, which cannot be a keyword argument
    except expat.ExpatError:
        return False
    wanted = ("Autodiscover", "Request", "EMailAddress", "AcceptableResponseSchema")
    return names == [f"{REQUEST_SCHEMA} {name}" for name in wanted]
