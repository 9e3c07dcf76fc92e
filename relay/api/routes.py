"""The paths and methods of the API: each handler reads a request, calls a use case and returns a document."""

import asyncio
import gzip
import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from relay.api import documents
from relay.api.codes import explained
from relay.api.guard import Gate
from relay.api.openapi import document, written
from relay.api.operations import COLLECTION, ID, MAILBOX, OPERATIONS, SERVER, Query
from relay.api.problems import KINDS, BrokenBody, NotJson, TooSlow, UnknownEncoding
from relay.api.schema import Body, ChangeBody, ProofBody, ReceiptsBody, RegistrationBody, parse
from relay.domain.model import RegistrationId, RegistrationState
from relay.http.kinds import ENCODINGS
from relay.registration.capabilities import Capabilities
from relay.registration.enrolment import Shown
from relay.registration.errors import EnrolmentRefused, InvalidRequest, NoSecret, NotAuthorized
from relay.registration.receipts import Receipts
from relay.registration.registrations import CHALLENGE_PAUSE, Registrations
from relay.registration.secret import Access
from relay.security.client_names import user_names

log = logging.getLogger(__name__)

_GZIP: Final = re.compile(r"(?:^|,)\s*gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[^,]*)?\s*(?:,|$)", re.IGNORECASE)

_BEARER: Final = re.compile(r"bearer +([A-Za-z0-9._~+/=-]{1,512})", re.ASCII | re.IGNORECASE)


def read_bearer(registration_id: str, header: str | None) -> Access:
    """Return what the header grants access to; raise NoSecret if it is missing or of another kind."""
    found = None if header is None else _BEARER.fullmatch(header.strip())
    if found is None:
        raise NoSecret("this needs the header Authorization: Bearer, with the secret of the registration")
    return Access(RegistrationId(registration_id), found[1])


ENROLMENT_KEY: Final = "Enrolment-Key"
IDEMPOTENCY_KEY: Final = "Idempotency-Key"
LATER: Final = {hdrs.RETRY_AFTER: "10"}
"""For 202 without a verdict: seconds until the client looks again."""
RESULT: Final = {hdrs.RETRY_AFTER: "2"}
"""For a test push: seconds until the client asks what became of it."""
AGAIN: Final = {hdrs.RETRY_AFTER: str(int(CHALLENGE_PAUSE.total_seconds()))}
"""For a challenge: seconds until the client may ask for another; earlier it would get 429."""
CACHED: Final = "public, max-age=3600"


@dataclass(frozen=True, slots=True)
class Terms:
    """What the relay offers to apps, as its settings say."""

    vapid_public_key: str
    """The key that apps subscribe by WebPush with; empty: the relay does not push that way."""
    capabilities: Capabilities
    limits: documents.LimitsAnswer


class Routes:
    """Serves the registrations over HTTP."""

    def __init__(
        self,
        service: Registrations,
        receipts: Receipts,
        reads: Gate,
        writes: Gate,
        *,
        body_seconds: float,
        terms: Terms,
    ) -> None:
        """Set up with the use cases, and the gates to the database; a body must arrive within `body_seconds`."""
        self.terms = terms
        """What holds for the next request."""
        self._service = service
        self._receipts = receipts
        self._reads = reads
        self._writes = writes
        self._body_seconds = body_seconds

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Add every operation; raises KeyError for one that has no handler here."""
        handlers: Mapping[str, Handler] = {
            "register": self.register,
            "put": self.put,
            "view": self.view,
            "change": self.change,
            "remove": self.remove,
            "challenge": self.challenge,
            "prove": self.prove,
            "receipts": self.receipts,
            "test_push": self.test_push,
            "push_test": self.push_test,
            "webpush": self.webpush,
            "capabilities": self.capabilities,
            "openapi": self.openapi,
            "problem": self.problem,
        }
        for row in OPERATIONS:
            path = row.path.replace("{id}", f"{{id:{ID}}}").replace("{test}", f"{{test:{ID}}}")
            router.add_route(row.method, path, handlers[row.name])
            if row.method == hdrs.METH_GET:
                router.add_route(hdrs.METH_HEAD, path, handlers[row.name])

    async def register(self, request: web.Request) -> web.Response:
        """Answer 201 with an active registration, 202 with one that has no verdict yet."""
        wanted = (await self._read(request, RegistrationBody)).request()
        with self._writes.passing():
            registered = await self._service.register(wanted, request.headers.get(IDEMPOTENCY_KEY))
        own = registered.view.registration
        active = own.state is not RegistrationState.VERIFYING
        return web.json_response(
            documents.registered(registered.view, registered.secret),
            status=HTTPStatus.CREATED if active else HTTPStatus.ACCEPTED,
            headers={hdrs.LOCATION: f"{COLLECTION}/{own.id}"} | ({} if active else LATER),
        )

    async def put(self, request: web.Request) -> web.Response:
        """Answer 201 with an active registration that was made, 200 with one that was there, 202 without a verdict."""
        access = _access(request)
        wanted = (await self._read(request, RegistrationBody)).request()
        with self._writes.passing():
            registered = await self._service.put(access, wanted)
        view = registered.view
        status, headers = HTTPStatus.CREATED if registered.made else HTTPStatus.OK, {}
        if view.candidate_pending or view.registration.state is RegistrationState.VERIFYING:
            status, headers = HTTPStatus.ACCEPTED, LATER
        if registered.made:
            headers = {hdrs.LOCATION: f"{COLLECTION}/{view.registration.id}", **headers}
        return web.json_response(documents.registration(view), status=status, headers=headers)

    async def view(self, request: web.Request) -> web.Response:
        """Answer 200 with the registration."""
        access = _access(request)
        with self._reads.passing():
            view = await self._service.view(access)
        return web.json_response(documents.registration(view))

    async def change(self, request: web.Request) -> web.Response:
        """Answer 200 with the changed registration, 202 if its new credential has no verdict yet."""
        access = _access(request)
        body = await self._read(request, ChangeBody)
        with self._writes.passing():
            view = await self._service.change(access, body.change(), body.login())
        pending = body.credential is not None and view.candidate_pending
        if pending:
            return web.json_response(documents.registration(view), status=HTTPStatus.ACCEPTED, headers=LATER)
        return web.json_response(documents.registration(view))

    async def remove(self, request: web.Request) -> web.Response:
        """Answer 204."""
        access = _access(request)
        with self._writes.passing():
            await self._service.remove(access)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def challenge(self, request: web.Request) -> web.Response:
        """Answer 202 with the registration."""
        access = _access(request)
        with self._writes.passing():
            view = await self._service.challenge(access)
        return web.json_response(documents.registration(view), status=HTTPStatus.ACCEPTED, headers=AGAIN)

    async def prove(self, request: web.Request) -> web.Response:
        """Answer 200 with the registration, which is active now."""
        access = _access(request)
        body = await self._read(request, ProofBody)
        with self._writes.passing():
            view = await self._service.prove(access, body.nonce)
        return web.json_response(documents.registration(view))

    async def receipts(self, request: web.Request) -> web.Response:
        """Answer 204; 404 while the relay takes no receipts."""
        access = _access(request)
        body = await self._read(request, ReceiptsBody)
        if not self.terms.capabilities.receipts:
            raise web.HTTPNotFound
        with self._reads.passing():
            await self._receipts.take(access, body.shown())
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def test_push(self, request: web.Request) -> web.Response:
        """Answer 202 with the registration and the test push."""
        access = _access(request)
        with self._writes.passing():
            view, test = await self._service.test_push(access)
        headers = {hdrs.LOCATION: f"{COLLECTION}/{view.registration.id}/test-pushes/{test.id}", **RESULT}
        return web.json_response(documents.with_test(view, test), status=HTTPStatus.ACCEPTED, headers=headers)

    async def push_test(self, request: web.Request) -> web.Response:
        """Answer 200 with what became of a test push."""
        access = _access(request)
        with self._reads.passing():
            test = await self._service.push_test(access, request.match_info["test"])
        return web.json_response(documents.push_test(test))

    async def webpush(self, _: web.Request) -> web.Response:
        """Answer 200 with what an app needs before it subscribes; public, so without a secret."""
        if not self.terms.vapid_public_key:
            raise web.HTTPNotFound
        return web.json_response(documents.WebPushAnswer(vapid_public_key=self.terms.vapid_public_key).json_document())

    async def capabilities(self, request: web.Request) -> web.Response:
        """Answer 200 from the settings alone: as soon, and in the same words, for mailboxes that there are not."""
        return web.json_response(
            documents.capabilities(
                self.terms.capabilities,
                _asked(request, MAILBOX),
                _asked(request, SERVER),
                self.terms.vapid_public_key,
                self.terms.limits,
            )
        )

    async def openapi(self, request: web.Request) -> web.Response:
        """Answer 200 with the OpenAPI document, 304 if the client has it."""
        found = await asyncio.to_thread(described)
        headers = {hdrs.CACHE_CONTROL: CACHED, hdrs.ETAG: f'W/"{found.tag}"', hdrs.VARY: hdrs.ACCEPT_ENCODING}
        if any(etag.value in {found.tag, "*"} for etag in request.if_none_match or ()):
            return web.Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        body = found.body
        if _GZIP.search(request.headers.get(hdrs.ACCEPT_ENCODING, "")):
            body, headers[hdrs.CONTENT_ENCODING] = found.compressed, "gzip"
        return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers)

    async def problem(self, request: web.Request) -> web.Response:
        """Answer 200 with the paragraph about a code."""
        found = explained().get(request.match_info["code"])
        if found is None:
            raise web.HTTPNotFound
        return web.Response(text=found, headers={hdrs.CACHE_CONTROL: CACHED})

    async def _read(self, request: web.Request, model: type[Body]) -> Body:
        """Return the JSON body.

        Raises EnrolmentRefused, NotJson, UnknownEncoding, TooSlow, BrokenBody, MalformedJson, InvalidRequest.
        """
        enrols, shown_by = issubclass(model, RegistrationBody), _device(request)
        if enrols:
            with _told(shown_by):
                self.terms.capabilities.enrolment.admit(shown_by)
        if request.content_type != "application/json":
            raise NotJson("the header Content-Type must be application/json")
        named = request.headers.getall(hdrs.CONTENT_ENCODING, ["identity"])
        encoding = ", ".join(named).strip().lower()  # several lines are one list [RFC 9110 5.3]
        if encoding not in {"identity", *ENCODINGS}:
            raise UnknownEncoding(f"a body may be compressed by {' or '.join(ENCODINGS)}, or not at all")
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await request.read()
        except TimeoutError as error:
            raise TooSlow(f"the body must arrive within {self._body_seconds:g} seconds") from error
        except (web.RequestPayloadError, HttpProcessingError) as error:
            raise BrokenBody("the body ended early, or is not encoded as its headers say") from error
        read = parse(model, body)
        if isinstance(read, RegistrationBody):
            with _told(shown_by):
                self.terms.capabilities.enrolment.check(shown_by, read.mailbox, read.credential.user)
        return read


@dataclass(frozen=True, slots=True)
class Described:
    """The OpenAPI document as it is served; strangers may ask for it, so that it is compressed once and for all."""

    body: bytes
    compressed: bytes
    """By gzip: less than a tenth."""
    tag: str
    """The value of its weak ETag, which is that of both forms."""


@cache
def described() -> Described:
    """Return the OpenAPI document; the first call takes some 50 ms."""
    body = written(document(OPERATIONS, KINDS))
    return Described(body, gzip.compress(body, mtime=0), hashlib.sha256(body).hexdigest()[:32])


@contextmanager
def _told(shown_by: Shown) -> Iterator[None]:
    """Log which of its proofs a refused device has shown, and nothing of them."""
    try:
        yield
    except EnrolmentRefused:
        proofs = {"key_shown": shown_by.key is not None, "certificate_shown": shown_by.names is not None}
        log.info("enrolment refused", extra=proofs)
        raise


def _device(request: web.Request) -> Shown:
    """Return what a request and its connection show of a device."""
    tls = None if request.transport is None else request.transport.get_extra_info("ssl_object")
    certificate = None if tls is None else tls.getpeercert(binary_form=True)
    names = None if certificate is None else user_names(certificate)
    return Shown(request.headers.get(ENROLMENT_KEY), names)


def _asked(request: web.Request, query: Query) -> str | None:
    """Return a parameter of the query, None if it is missing; raises InvalidRequest."""
    values = request.query.getall(query.name, [])
    if len(values) > 1 or any(not 0 < len(value) <= query.largest for value in values):
        raise InvalidRequest([(query.name, f"must be given once, with 1 to {query.largest} characters")])
    return values[0] if values else None


def _access(request: web.Request) -> Access:
    return read_bearer(request.match_info["id"], request.headers.get(hdrs.AUTHORIZATION))


def shown(request: web.Request) -> Access | None:
    """Return the registration that a request is for, with the secret that it shows; None if either is missing."""
    if "id" not in request.match_info:
        return None
    try:
        return _access(request)
    except NotAuthorized:
        return None
