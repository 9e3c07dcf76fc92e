"""The operations of the API, one row each: what a request has, what answers it, and every problem that may.

The router serves these rows and no others; the OpenAPI document is made of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from pydantic import BaseModel

from relay.api import examples
from relay.api.documents import (
    Answer,
    CapabilitiesAnswer,
    PushTestAnswer,
    RegisteredAnswer,
    RegistrationAnswer,
    WebPushAnswer,
    WithTestAnswer,
)
from relay.api.schema import ChangeBody, ProofBody, ReceiptsBody, RegistrationBody
from relay.registration.identity import LONGEST

ID: Final = "[A-Za-z0-9_-]{1,54}"
"""The form of the id of a registration."""
COLLECTION: Final = "/v1/registrations"
ONE: Final = COLLECTION + "/{id}"

ALWAYS: Final = ("bad-request", "too-many-requests", "busy", "internal")
"""The problems that every operation may answer with."""
BODY: Final = (
    "malformed-json",
    "broken-body",
    "invalid-request",
    "too-slow",
    "too-large",
    "not-json",
    "unknown-encoding",
)
"""Those of operations that read a body."""
CHANGES: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
"""The methods that a browser may use for pages of the relay's own origin alone."""
OPENED: Final = ("no-such-resource", "not-authorized", "wiped", "too-many-for-registration", "unavailable")
"""Those of operations on one registration."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer that is no problem."""

    status: HTTPStatus
    meaning: str
    model: type[Answer] | None = None
    """None: no body, unless `media` names a type."""
    media: str = ""
    """The media type of a body without a model."""
    headers: tuple[str, ...] = ()
    example: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter in the query, or a header."""

    name: str
    meaning: str
    largest: int
    """Characters."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    name: str
    method: str
    path: str
    summary: str
    replies: tuple[Reply, ...]
    problems: tuple[str, ...] = ()
    """The codes besides ALWAYS, and those that a body and a secret bring with them."""
    body: type[BaseModel] | None = None
    body_example: Mapping[str, object] | None = None
    secret: bool = False
    """True if the request shows the secret of the registration."""
    query: tuple[Query, ...] = ()
    enrols: bool = False
    """True if the request may have to show an enrolment key."""
    headers: tuple[Query, ...] = ()
    """The headers that a request may have, besides those of HTTP."""

    @property
    def codes(self) -> tuple[str, ...]:
        """Every code that a problem may have."""
        body = BODY if self.body is not None else ()
        opened = OPENED if self.secret else ()
        own = ("cross-site",) if self.method in CHANGES else ()
        return tuple(dict.fromkeys((*ALWAYS, *own, *body, *opened, *self.problems)))


MAILBOX: Final = Query("mailbox", "the address or user name that would be registered", LONGEST)
SERVER: Final = Query("server", "the name of a server, as in a registration", 64)

_PENDING: Final = ("Retry-After",)
_OF_CREDENTIAL: Final = ("unsupported-credential", "credential-refused", "too-many-refusals", "replaced")
_SHOWN: Final = Reply(HTTPStatus.OK, "the registration", RegistrationAnswer, example=examples.REGISTRATION)

OPERATIONS: Final = (
    Operation(
        "register",
        "POST",
        COLLECTION,
        "Register a device for the pushes of a mailbox",
        (
            Reply(
                HTTPStatus.CREATED,
                "the mail server accepted the credential; the registration is active, or proving",
                RegisteredAnswer,
                headers=("Location",),
                example=examples.REGISTERED,
            ),
            Reply(
                HTTPStatus.ACCEPTED,
                "the mail server has not answered yet; the relay asks again by itself",
                RegisteredAnswer,
                headers=("Location", *_PENDING),
                example=examples.VERIFYING,
            ),
        ),
        (
            *_OF_CREDENTIAL,
            "mailbox-wiped",
            "enrolment-refused",
            "unknown-server",
            "unknown-app",
            "unsupported-device",
            "mailbox-full",
            "too-many-registrations",
            "key-reused",
            "gone",
            "wiped",
            "unavailable",
        ),
        body=RegistrationBody,
        body_example=examples.WISH,
        enrols=True,
        headers=(
            Query(
                "Idempotency-Key",
                "at least 128 random bits: the same request with the same key makes no second registration",
                257,
            ),
        ),
    ),
    Operation(
        "put",
        "PUT",
        ONE,
        "Register a device with an id and a secret that the app made, or make a registration what the body says",
        (
            _SHOWN,
            Reply(
                HTTPStatus.CREATED,
                "the mail server accepted the credential; the registration is new and active",
                RegistrationAnswer,
                headers=("Location",),
                example=examples.REGISTRATION,
            ),
            Reply(
                HTTPStatus.ACCEPTED,
                "the mail server has not answered yet; the relay asks again by itself",
                RegistrationAnswer,
                headers=("Location", *_PENDING),
                example=examples.REGISTRATION,
            ),
        ),
        (
            *_OF_CREDENTIAL,
            *("unknown-server", "unknown-app", "unsupported-device", "mailbox-full", "mailbox-wiped", "other-mailbox"),
            *("gone", "enrolment-refused", "too-many-registrations"),
        ),
        body=RegistrationBody,
        body_example=examples.WISH,
        secret=True,
        enrols=True,
    ),
    Operation("view", "GET", ONE, "Look at a registration", (_SHOWN,), ("gone",), secret=True),
    Operation(
        "change",
        "PATCH",
        ONE,
        "Change the device token, the credential or the wishes of a registration",
        (
            _SHOWN,
            Reply(
                HTTPStatus.ACCEPTED,
                "the mail server has not answered about the new credential yet",
                RegistrationAnswer,
                headers=_PENDING,
                example=examples.REGISTRATION,
            ),
        ),
        (*_OF_CREDENTIAL, "unsupported-device", "other-mailbox", "gone"),
        body=ChangeBody,
        body_example=examples.CHANGE,
        secret=True,
    ),
    Operation("remove", "DELETE", ONE, "Remove a registration", (Reply(HTTPStatus.NO_CONTENT, "done"),), secret=True),
    Operation(
        "challenge",
        "POST",
        ONE + "/challenge",
        "Ask for another challenge push",
        (
            Reply(
                HTTPStatus.ACCEPTED,
                "a challenge is on its way, unless the registration is active already",
                RegistrationAnswer,
                headers=_PENDING,
                example=examples.REGISTRATION,
            ),
        ),
        ("not-active", "gone", "too-many-challenges"),
        secret=True,
    ),
    Operation(
        "prove",
        "POST",
        ONE + "/proof",
        "Return the nonce of a challenge push: the registration becomes active",
        (_SHOWN,),
        ("not-active", "gone", "wrong-proof"),
        body=ProofBody,
        body_example=examples.PROOF,
        secret=True,
    ),
    Operation(
        "receipts",
        "POST",
        ONE + "/receipts",
        "Say which pushes the app has shown",
        (Reply(HTTPStatus.NO_CONTENT, "taken; ids that no push had are ignored"),),
        ("gone",),
        body=ReceiptsBody,
        body_example=examples.RECEIPTS,
        secret=True,
    ),
    Operation(
        "test_push",
        "POST",
        ONE + "/test-push",
        "Ask for a test push",
        (
            Reply(
                HTTPStatus.ACCEPTED,
                "the push is on its way; `Location` says later what became of it",
                WithTestAnswer,
                headers=("Location", *_PENDING),
                example=examples.TESTED,
            ),
        ),
        ("not-active", "gone", "too-many-tests"),
        secret=True,
    ),
    Operation(
        "push_test",
        "GET",
        ONE + "/test-pushes/{test}",
        "Ask what became of a test push",
        (Reply(HTTPStatus.OK, "the test push", PushTestAnswer, example=examples.TEST),),
        ("no-such-test", "gone"),
        secret=True,
    ),
    Operation(
        "webpush",
        "GET",
        "/v1/webpush",
        "Ask for the key that an app subscribes with at its push service",
        (Reply(HTTPStatus.OK, "the key", WebPushAnswer, example=examples.WEBPUSH),),
        ("no-such-resource",),
    ),
    Operation(
        "capabilities",
        "GET",
        "/v1/capabilities",
        "Ask what the relay can do for a mailbox, whether it exists or not",
        (Reply(HTTPStatus.OK, "the capabilities", CapabilitiesAnswer, example=examples.CAPABILITIES),),
        ("invalid-request",),
        query=(MAILBOX, SERVER),
    ),
    Operation(
        "openapi",
        "GET",
        "/v1/openapi.json",
        "Ask for this document",
        (
            Reply(
                HTTPStatus.OK,
                "the document",
                media="application/json",
                headers=("ETag", "Vary", "Content-Encoding"),
            ),
            Reply(
                HTTPStatus.NOT_MODIFIED, "the document is the one that If-None-Match names", headers=("ETag", "Vary")
            ),
        ),
    ),
    Operation(
        "problem",
        "GET",
        "/problems/{code}",
        "Ask what a code of a problem means",
        (Reply(HTTPStatus.OK, "what it means and what to do", media="text/plain"),),
        ("no-such-resource",),
    ),
)
