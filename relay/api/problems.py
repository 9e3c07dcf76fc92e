"""The refusals of the API: the one table from error type to status, code and title, for problem documents [RFC 9457].

Each code has a paragraph in docs/api.md; a code never changes its meaning.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from relay.api.guard import PAUSE
from relay.api.schema import MalformedJson
from relay.domain.errors import MailboxExists, MailboxFull, RelayError, StoreUnavailable
from relay.http.kinds import BAD_REQUEST, BY_STATUS, ENCODINGS, INTERNAL, UNKNOWN_ENCODING, Kind
from relay.http.problems import document
from relay.registration.errors import (
    Busy,
    CredentialRefused,
    EnrolmentRefused,
    FieldRefused,
    Gone,
    InvalidRequest,
    KeyReused,
    MailboxWiped,
    NoSecret,
    NoSuchTest,
    NotActive,
    NotAuthorized,
    OtherMailbox,
    Replaced,
    TooManyChallenges,
    TooManyOfRegistration,
    TooManyRefusals,
    TooManyRegistrations,
    TooManyRequests,
    TooManyTests,
    UnknownApp,
    UnknownServer,
    UnsupportedCredential,
    UnsupportedDevice,
    Wiped,
    WrongProof,
)

CHALLENGE: Final = 'Bearer realm="registration"'
STORE_PAUSE: Final = 5  # seconds until a client asks again while the database is away


class CrossSite(RelayError):
    """A page of another site lets a browser send the request."""


class NotJson(RelayError):
    """The body has another media type than JSON."""


class UnknownEncoding(RelayError):
    """The body is compressed in a way that the relay does not read."""


class TooSlow(RelayError):
    """The body did not arrive in time."""


class BrokenBody(RelayError):
    """The body ended early or is not encoded as its headers say."""


_CLOSED: Final = Kind(HTTPStatus.UNAUTHORIZED, "not-authorized", "The registration does not open")
BY_ERROR: Final[Mapping[type[RelayError], Kind]] = {
    MalformedJson: Kind(HTTPStatus.BAD_REQUEST, "malformed-json", "The body is not JSON"),
    InvalidRequest: Kind(HTTPStatus.BAD_REQUEST, "invalid-request", "Some fields are missing or wrong"),
    BrokenBody: Kind(HTTPStatus.BAD_REQUEST, "broken-body", "The body could not be read"),
    NotAuthorized: _CLOSED,
    NoSecret: _CLOSED,
    CredentialRefused: Kind(HTTPStatus.FORBIDDEN, "credential-refused", "The mailbox's server refused the credential"),
    MailboxWiped: Kind(HTTPStatus.FORBIDDEN, "mailbox-wiped", "An administrator wiped the mailbox's device"),
    TooSlow: Kind(HTTPStatus.REQUEST_TIMEOUT, "too-slow", "The body did not arrive in time"),
    Replaced: Kind(HTTPStatus.CONFLICT, "replaced", "The registration was removed or replaced meanwhile"),
    CrossSite: Kind(HTTPStatus.FORBIDDEN, "cross-site", "A page of another site sent the request"),
    WrongProof: Kind(HTTPStatus.FORBIDDEN, "wrong-proof", "The nonce is not that of the last challenge"),
    TooManyChallenges: Kind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-challenges", "Too many challenges"),
    NoSuchTest: Kind(HTTPStatus.NOT_FOUND, "no-such-test", "There is no test push of this id"),
    Wiped: Kind(HTTPStatus.GONE, "wiped", "An administrator wiped the device"),
    Gone: Kind(HTTPStatus.GONE, "gone", "The registration has ended"),
    NotActive: Kind(HTTPStatus.CONFLICT, "not-active", "The registration is not active"),
    NotJson: Kind(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "not-json", "The body must be application/json"),
    EnrolmentRefused: Kind(HTTPStatus.FORBIDDEN, "enrolment-refused", "This device may not register"),
    UnknownEncoding: UNKNOWN_ENCODING,
    UnknownServer: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-server", "No configured server is meant"),
    UnknownApp: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "unknown-app", "The relay may not push to this app"),
    UnsupportedDevice: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "unsupported-device", "The device cannot be pushed to"),
    KeyReused: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "key-reused", "The Idempotency-Key belongs to another request"),
    UnsupportedCredential: Kind(
        HTTPStatus.UNPROCESSABLE_ENTITY, "unsupported-credential", "The server takes other credentials"
    ),
    OtherMailbox: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, "other-mailbox", "A registration keeps its mailbox"),
    TooManyRefusals: Kind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-refusals", "Too many credentials were refused"),
    TooManyTests: Kind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-tests", "Too many test pushes"),
    MailboxFull: Kind(HTTPStatus.CONFLICT, "mailbox-full", "The mailbox has too many registrations"),
    TooManyRequests: Kind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", "Too many requests"),
    TooManyRegistrations: Kind(HTTPStatus.TOO_MANY_REQUESTS, "too-many-registrations", "Too many new registrations"),
    TooManyOfRegistration: Kind(
        HTTPStatus.TOO_MANY_REQUESTS, "too-many-for-registration", "Too many requests for one registration"
    ),
    Busy: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "busy", "Too many requests come at once"),
    StoreUnavailable: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The relay cannot serve this now"),
    MailboxExists: Kind(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "The relay cannot serve this now"),
}

KINDS: Final = tuple(dict.fromkeys((*BY_ERROR.values(), *BY_STATUS.values(), BAD_REQUEST, INTERNAL)))
"""Every kind of problem of the API."""


def refusal(error: RelayError) -> web.Response | None:
    """Return the answer for an error; None if the table does not have it."""
    kind = next((BY_ERROR[cls] for cls in type(error).__mro__ if cls in BY_ERROR), None)
    if kind is None:
        return None
    errors: list[dict[str, str]] = []
    detail = str(error)
    match error:
        case MalformedJson():
            detail = error.faults[0][1]
        case InvalidRequest():
            detail = "see `errors`"
            errors = [{"field": field, "detail": fault} for field, fault in error.faults]
        case FieldRefused():
            errors = [{"field": error.field, "detail": detail}]
        case StoreUnavailable() | MailboxExists():
            # The text of the error may name hosts and drivers.
            detail = "the database did not answer; ask again"
        case _:
            pass
    answer = document(kind, detail, headers=_headers(error), errors=errors)
    if isinstance(error, (TooManyRequests, Busy)):
        answer.force_close()  # the client connects again at the pace of the listener
    return answer


def _headers(error: RelayError) -> dict[str, str]:
    """Return the headers that say what to send instead, or when to ask again."""
    headers: dict[str, str] = {}
    match error:
        case NoSecret():
            headers[hdrs.WWW_AUTHENTICATE] = CHALLENGE
        case NotAuthorized():
            headers[hdrs.WWW_AUTHENTICATE] = f'{CHALLENGE}, error="invalid_token"'  # [RFC 6750 3]
        case UnknownEncoding():
            headers[hdrs.ACCEPT_ENCODING] = ", ".join(ENCODINGS)  # [RFC 9110 15.5.16]
        case TooManyRefusals() | TooManyRequests() | TooManyTests() | TooManyChallenges():
            headers[hdrs.RETRY_AFTER] = str(error.retry_after)
        case Busy():
            headers[hdrs.RETRY_AFTER] = str(PAUSE)
        case StoreUnavailable() | MailboxExists():
            headers[hdrs.RETRY_AFTER] = str(STORE_PAUSE)
        case _:
            pass
    return headers
