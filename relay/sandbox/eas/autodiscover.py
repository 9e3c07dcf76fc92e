"""The Autodiscover service of the simulated server: both versions name the server itself to users with a mailbox.

A failure that is scripted for the command `Autodiscover` or `Autodiscover-v2` replaces the answer, e.g. a redirect.
"""

import asyncio
from typing import Final
from xml.parsers import expat

from aiohttp import web

from eas_watcher.autodiscover.pox import REQUEST_SCHEMA, RESPONSE_SCHEMA
from relay.sandbox.eas.failures import AnswerHttp
from relay.sandbox.eas.requests import read_authorization
from relay.sandbox.eas.simulator import EasSimulator

V1: Final = "/autodiscover/autodiscover.xml"
V2: Final = "/autodiscover/autodiscover.json"
OUTER_SCHEMA: Final = "http://schemas.microsoft.com/exchange/autodiscover/responseschema/2006"


class Autodiscover:
    """The routes of Autodiscover."""

    def __init__(self, simulator: EasSimulator) -> None:
        """Answer for the mailboxes of `simulator`."""
        self._simulator = simulator

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add the routes of both versions."""
        router.add_post(V1, self.version_1)
        router.add_get(V2, self.version_2)

    async def version_1(self, request: web.Request) -> web.Response:
        """Answer in XML to a user with a password."""
        login = read_authorization(request.headers.get("Authorization"))
        user = login[0] if login else ""
        if (failed := self._record(user, "Autodiscover")) is not None:
            return failed
        if login is None or not self._simulator.admit(*login):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="simulated mailboxes"'})
        body = await request.read()
        if not _is_asked_for_phones(body):
            self._simulator.complain(user, "Autodiscover", "the request is none in the schema for phones")
            return web.Response(status=400)
        server = f"<Server><Type>MobileSync</Type><Url>{self._simulator.url}</Url></Server>"
        text = (
            '<?xml version="1.0" encoding="utf-8"?>'
            f'<Autodiscover xmlns="{OUTER_SCHEMA}"><Response xmlns="{RESPONSE_SCHEMA}"><Culture>en:us</Culture>'
            f"<Action><Settings>{server}</Settings></Action></Response></Autodiscover>"
        )
        return web.Response(text=text, content_type="text/xml")

    async def version_2(self, request: web.Request) -> web.Response:
        """Answer in JSON, without authentication; 404 for a user without a mailbox."""
        user = request.query.get("Email", "")
        if (failed := self._record(user, "Autodiscover-v2")) is not None:
            return failed
        if "Authorization" in request.headers:
            self._simulator.complain(user, "Autodiscover-v2", "the request has a credential that was not asked for")
        if request.query.get("Protocol", "").lower() != "activesync":
            return web.json_response({"ErrorCode": "InvalidProtocol"}, status=400)
        if user not in self._simulator.users:
            return web.Response(status=404)
        return web.json_response({"Protocol": "ActiveSync", "Url": self._simulator.url})

    def _record(self, user: str, command: str) -> web.Response | None:
        """Record a request; return the answer of its scripted failure."""
        self._simulator.records.note(user, command, asyncio.get_running_loop().time())
        failure = self._simulator.failures.take(user, command)
        if not isinstance(failure, AnswerHttp):
            return None
        return web.Response(status=failure.status, headers=failure.headers, body=failure.body.encode() or None)


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
