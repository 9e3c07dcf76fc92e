"""The JSON documents of the API, as models; none has a credential or a device token."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, WithJsonSchema

from eas_watcher.machine.memory import WatchState
from eas_watcher.names import CollectionClass
from relay.domain.model import (
    Environment,
    Mode,
    Platform,
    PushTest,
    PushTestState,
    Quarantine,
    Registration,
    RegistrationState,
    RegistrationView,
)
from relay.domain.reasons import Actor
from relay.push.payload import TEXTS
from relay.registration.capabilities import Capabilities, ServerFacts
from relay.registration.enrolment import EnrolmentMode
from relay.registration.guidance import advise, advise_test, proved, visible_reason
from relay.security.credentials import CredentialKind

Json = dict[str, object]


def _written(moment: datetime) -> str:
    """Return a moment as RFC 3339 in UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Moment = Annotated[
    datetime, PlainSerializer(_written, return_type=str), WithJsonSchema({"type": "string", "format": "date-time"})
]


class Answer(BaseModel):
    """The base of every document; what is not set is left out of the JSON."""

    model_config = ConfigDict(frozen=True)

    def json_document(self) -> Json:
        """Return the document as JSON has it."""
        return self.model_dump(mode="json", exclude_unset=True)


class RemedyAnswer(Answer):
    """Who must act, and what to do."""

    by: Actor
    text: str = Field(description="for people, in English; it may change")


class MailboxAnswer(Answer):
    """The watch of the mailbox; only server and user while no credential of this registration was accepted."""

    server: str
    user: str
    state: WatchState | None = None
    reason: str | None = Field(default=None, description="docs/reasons.md lists them; more may come")
    since: Moment | None = None
    next_try_at: Moment | None = None
    device_id: str | None = Field(default=None, description="the relay's device id at the mail server")
    last_ping_at: Moment | None = None
    last_change_at: Moment | None = None


class DeviceAnswer(Answer):
    """Where pushes go, without the device token."""

    platform: Platform
    app: str
    token_since: Moment
    environment: Environment | None = Field(default=None, description="APNs only")


class CredentialAnswer(Answer):
    """What became of the last new credential."""

    pending: bool
    refused: bool


class QuarantineAnswer(Answer):
    """Why the provider refuses the device token, and when it is tried again."""

    reason: str
    since: Moment
    recheck_at: Moment


class RegistrationAnswer(Answer):
    """A registration as its app may see it."""

    id: str
    state: RegistrationState
    remedy: RemedyAnswer
    mailbox: MailboxAnswer
    device: DeviceAnswer
    classes: tuple[CollectionClass, ...]
    subfolders: tuple[CollectionClass, ...]
    mode: Mode
    locale: str
    credential: CredentialAnswer
    created_at: Moment
    last_push_at: Moment | None
    last_outcome: str | None = Field(description="the provider's answer to the last push")
    quarantine: QuarantineAnswer | None


class RegisteredAnswer(RegistrationAnswer):
    """A new registration with its secret, which is shown this one time only."""

    secret: str


class PushTestAnswer(Answer):
    """A test push, and what became of it."""

    id: str
    state: PushTestState
    remedy: RemedyAnswer
    asked_at: Moment
    ended_at: Moment | None
    reason: str | None = Field(description="the provider's last answer; null: none yet, or it took the push")


class WithTestAnswer(RegistrationAnswer):
    """A registration with the test push that was asked for."""

    test: PushTestAnswer


class WebPushAnswer(Answer):
    """What an app subscribes with at its push service."""

    vapid_public_key: str = Field(description="P-256, base64url")


class PlatformAnswer(Answer):
    """The apps of one platform that may register."""

    apps: tuple[str, ...]
    environments: tuple[Environment, ...] | None = Field(default=None, description="APNs only")
    services: tuple[str, ...] | None = Field(default=None, description="WebPush only: hosts of push services")
    vapid_public_key: str | None = Field(default=None, description="WebPush only")


class EnrolmentAnswer(Answer):
    """What a registration must show besides the credential."""

    alternatives: tuple[tuple[EnrolmentMode, ...], ...] = Field(
        description="one of these is enough; the modes of one are demanded together"
    )
    invitation: bool = Field(description="true: the field `invitation` is demanded too")


class OAuthAnswer(Answer):
    """What an app needs to get a grant for the relay."""

    authorization_endpoint: str | None = Field(description="null: the relay takes refresh tokens, and no codes")
    token_endpoint: str
    client_id: str
    scope: str
    audience: tuple[str, ...]


class ServerAnswer(Answer):
    """The mail server that the mailbox would go to."""

    name: str
    credentials: tuple[CredentialKind, ...]
    oauth: OAuthAnswer | None


class LimitsAnswer(Answer):
    """What the relay allows."""

    body_bytes: int
    requests_per_minute: int = Field(description="of one network address")
    registrations_per_minute: int = Field(description="of one network address")
    requests_per_minute_of_registration: int
    registrations_per_mailbox: int


class CapabilitiesAnswer(Answer):
    """What an app may ask of this relay; whether a mailbox exists has no part in it."""

    version: str
    platforms: dict[Platform, PlatformAnswer]
    classes: tuple[CollectionClass, ...]
    modes: tuple[Mode, ...]
    languages: tuple[str, ...]
    enrolment: EnrolmentAnswer
    receipts: bool = Field(description="true: pushes have an `id`, and the app may say that it showed them")
    server: ServerAnswer | None = Field(description="null: no server takes such a mailbox")
    limits: LimitsAnswer


class FaultAnswer(Answer):
    """A field that is wrong; its value is never repeated."""

    field: str = Field(description="path with dots")
    detail: str


class ProblemAnswer(Answer):
    """A refusal [RFC 9457]: decide by `code`."""

    type: str = Field(description="/problems/ and the code: a page that explains it")
    title: str
    status: int
    code: str
    detail: str | None = Field(default=None, description="for people")
    errors: tuple[FaultAnswer, ...] | None = None
    instance: str | None = Field(default=None, description="number of a failure in the relay's log")


def capabilities(
    able: Capabilities, mailbox: str | None, server: str | None, vapid_public_key: str, limits: LimitsAnswer
) -> Json:
    """Return what an app may ask for a mailbox; raises InvalidRequest for one that is none."""
    found = able.server_of(mailbox, server)
    return CapabilitiesAnswer(
        version=able.version,
        platforms={
            platform: _platform(platform, apps, able, vapid_public_key) for platform, apps in able.apps.items() if apps
        },
        classes=tuple(CollectionClass),
        modes=tuple(Mode),
        languages=tuple(sorted(TEXTS)),
        enrolment=EnrolmentAnswer(
            alternatives=tuple(tuple(sorted(each)) for each in able.enrolment.alternatives), invitation=able.invites
        ),
        receipts=able.receipts,
        server=None if found is None else _server(*found),
        limits=limits,
    ).json_document()


def _platform(platform: Platform, apps: frozenset[str], able: Capabilities, vapid_public_key: str) -> PlatformAnswer:
    named = tuple(sorted(apps))
    match platform:
        case Platform.APNS:
            return PlatformAnswer(apps=named, environments=tuple(Environment))
        case Platform.WEBPUSH:
            return PlatformAnswer(apps=named, services=tuple(sorted(able.services)), vapid_public_key=vapid_public_key)
        case Platform.FCM:  # pragma: no branch -- mypy proves that there is no other
            return PlatformAnswer(apps=named)


def _server(name: str, facts: ServerFacts) -> ServerAnswer:
    oauth = facts.oauth
    return ServerAnswer(
        name=name,
        credentials=tuple(sorted(facts.credentials)),
        oauth=None
        if oauth is None
        else OAuthAnswer(
            authorization_endpoint=oauth.authorization_endpoint or None,
            token_endpoint=oauth.token_endpoint,
            client_id=oauth.client_id,
            scope=oauth.scope,
            audience=tuple(sorted(oauth.audience)),
        ),
    )


def registration(view: RegistrationView) -> Json:
    """Return a registration as its app may see it.

    What the mailbox does is shown only after the mail server accepted a credential of this registration.
    """
    own, advice = view.registration, advise(view)
    return RegistrationAnswer(
        id=own.id,
        state=own.state,
        remedy=RemedyAnswer(by=advice.by, text=advice.text),
        mailbox=_mailbox(view),
        device=_device(own),
        classes=_sorted(own.classes),
        subfolders=_sorted(own.subfolders),
        mode=own.mode,
        locale=own.locale,
        credential=CredentialAnswer(pending=view.candidate_pending, refused=view.candidate_refused),
        created_at=own.created_at,
        last_push_at=own.last_push_at,
        last_outcome=None if own.last_outcome is None else own.last_outcome.line,
        quarantine=_quarantine(own.quarantine),
    ).json_document()


def registered(view: RegistrationView, secret: str) -> Json:
    """Return a new registration with its secret."""
    return {"secret": secret, **registration(view)}


def push_test(test: PushTest) -> Json:
    """Return a test push."""
    advice = advise_test(test)
    return PushTestAnswer(
        id=test.id,
        state=test.state,
        remedy=RemedyAnswer(by=advice.by, text=advice.text),
        asked_at=test.asked_at,
        ended_at=test.ended_at,
        reason=test.reason or None,
    ).json_document()


def with_test(view: RegistrationView, test: PushTest) -> Json:
    """Return a registration with the test push that was asked for."""
    return {**registration(view), "test": push_test(test)}


def _mailbox(view: RegistrationView) -> MailboxAnswer:
    """Return the mailbox: without an accepted credential only its name, or why there is none yet."""
    mailbox, known, reason = view.mailbox, proved(view), visible_reason(view)
    if not known and mailbox.state is not WatchState.VERIFYING:
        return MailboxAnswer(server=mailbox.server, user=mailbox.user)
    condition = MailboxAnswer(
        server=mailbox.server,
        user=mailbox.user,
        state=mailbox.state,
        reason=None if reason is None else reason.value,
        since=mailbox.since,
        next_try_at=mailbox.next_try_at,
    )
    if not known:
        return condition
    watched = {
        "device_id": mailbox.device_id,
        "last_ping_at": mailbox.last_ping_at,
        "last_change_at": mailbox.last_change_at,
    }
    return condition.model_copy(update=watched)


def _quarantine(quarantine: Quarantine | None) -> QuarantineAnswer | None:
    if quarantine is None:
        return None
    return QuarantineAnswer(reason=quarantine.reason, since=quarantine.since, recheck_at=quarantine.recheck_at)


def _device(own: Registration) -> DeviceAnswer:
    if own.platform is Platform.APNS:
        return DeviceAnswer(
            platform=own.platform, app=own.app, token_since=own.token_since, environment=own.environment
        )
    return DeviceAnswer(platform=own.platform, app=own.app, token_since=own.token_since)


def _sorted(classes: frozenset[CollectionClass]) -> tuple[CollectionClass, ...]:
    return tuple(sorted(classes, key=lambda each: each.value))
