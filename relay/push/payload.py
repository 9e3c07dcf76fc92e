"""The fixed templates of pushes: everything that may ever leave the company, and nothing else.

A body is made from a `Notice` only, and a notice has no field that could hold mail data: a mark, a count, whether it is
certain, one word of a closed list, the opaque registration id, a random nonce, an opaque id,
the mode and a locale. Senders get a message made of a notice; there is no way to pass a body.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Final, Literal, NamedTuple

from relay.domain.model import OWN_TEXTS, DuePush, Mark, Mode, RegistrationId
from relay.domain.reasons import Cause
from relay.domain.receipts import A_SEALED_ID, PushId

FALLBACK: Final = "en"

TEXTS: Final[Mapping[str, Mapping[Mark, tuple[str, str]]]] = {
    "en": {
        Mark.EMAIL: ("New mail", "There is new mail in your mailbox."),
        Mark.CALENDAR: ("Calendar", "There is something new in your calendar."),
        Mark.CONTACTS: ("Contacts", "There is something new in your contacts."),
        Mark.TASKS: ("Tasks", "There is something new in your tasks."),
        Mark.NOTES: ("Notes", "There is something new in your notes."),
        Mark.ATTENTION: ("Attention needed", "New mail is no longer announced. Open the app to see why."),
        Mark.TEST: ("Test", "This is a test notification."),
    },
    "de": {
        Mark.EMAIL: ("Neue E-Mail", "In Ihrem Postfach ist neue Post."),
        Mark.CALENDAR: ("Kalender", "In Ihrem Kalender gibt es Neues."),
        Mark.CONTACTS: ("Kontakte", "In Ihren Kontakten gibt es Neues."),
        Mark.TASKS: ("Aufgaben", "In Ihren Aufgaben gibt es Neues."),
        Mark.NOTES: ("Notizen", "In Ihren Notizen gibt es Neues."),
        Mark.ATTENTION: (
            "Bitte beachten",
            "Neue E-Mails werden nicht mehr gemeldet. Öffnen Sie die App für den Grund.",
        ),
        Mark.TEST: ("Test", "Dies ist eine Testmitteilung."),
    },
    "fr": {
        Mark.EMAIL: ("Nouveau message", "Votre boîte aux lettres contient un nouveau message."),
        Mark.CALENDAR: ("Calendrier", "Il y a du nouveau dans votre calendrier."),
        Mark.CONTACTS: ("Contacts", "Il y a du nouveau dans vos contacts."),
        Mark.TASKS: ("Tâches", "Il y a du nouveau dans vos tâches."),
        Mark.NOTES: ("Notes", "Il y a du nouveau dans vos notes."),
        Mark.ATTENTION: (
            "Attention requise",
            "Les nouveaux messages ne sont plus annoncés. Ouvrez l'application pour savoir pourquoi.",
        ),
        Mark.TEST: ("Test", "Ceci est une notification de test."),
    },
}

IN_DOUBT: Final[Mapping[str, tuple[str, str]]] = {
    "en": ("Attention needed", "Your mail server refuses your login; maybe the server has a fault. Open the app."),
    "de": (
        "Bitte beachten",
        "Ihr Mailserver lehnt Ihre Anmeldung ab; vielleicht ist der Server gestört. Öffnen Sie die App.",
    ),
    "fr": (
        "Attention requise",
        "Votre serveur refuse votre identification; c'est peut-être une panne du serveur. Ouvrez l'application.",
    ),
}
"""The texts of an `attention` whose cause may be the mail server."""

CONFIRMED: Final[Mapping[str, tuple[str, str]]] = {
    "en": ("Notifications are on", "This device gets notifications of the relay."),
    "de": ("Mitteilungen sind an", "Dieses Gerät erhält Mitteilungen des Relays."),
    "fr": ("Notifications activées", "Cet appareil reçoit les notifications du relais."),
}
"""The texts of a `challenge` in the web app, since browsers want to see something of each push."""


def text(mark: Mark, locale: str, *, certain: bool = True) -> tuple[str, str]:
    """Return title and body in the language of a locale ("de", "de-AT", "de_CH"); other languages get English.

    `certain` is that of the notice.
    """
    language = language_of(locale)
    return IN_DOUBT[language] if mark is Mark.ATTENTION and not certain else TEXTS[language][mark]


def language_of(locale: str) -> str:
    """Return the language of the texts for a locale."""
    language = locale.replace("_", "-").partition("-")[0].lower()
    return language if language in TEXTS else FALLBACK


SCHEMA: Final = 1
"""The version of the data that the app gets; raised when a field changes its meaning."""

MOST: Final = 9999
"""The highest count: an app shows no more, and a body keeps its size."""

OPAQUE_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,54}", re.ASCII)
"""What a registration id may look like; 54 bytes and the longest mark make 64, APNs' limit of a collapse id."""

A_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)
"""What a nonce looks like: 16 bytes in base64url."""

HOUR: Final = 3600  # seconds

LIFETIME: Final = {"new-items": 72 * HOUR, "attention": 168 * HOUR, "test": HOUR, "challenge": HOUR}
"""Seconds a provider keeps a push for a phone that is off: a long weekend, a week; an hour if somebody waits for it."""

SHAPES: Final = 1024
"""Templates that are kept rendered: there are some hundred with the locales of all phones."""
_SOME_ID: Final = "a-registration-id-that-no-text-contains"
_COUNT: Final = '"count": '
SOME_OWN: Final = "any-push-of-22-letters"
"""Stands for the nonce, or the id of the push, in templates that are kept."""

COLLAPSE: Final = {"new-items": "items", "attention": "attention"}
"""The ends of FCM's collapse keys."""

Kind = Literal["new-items", "attention", "test", "challenge"]
KINDS: Final[Mapping[Mark, Kind]] = {
    Mark.ATTENTION: "attention",
    Mark.TEST: "test",
    Mark.CHALLENGE: "challenge",
}
"""The templates of marks without a class; all classes share one."""


@dataclass(frozen=True, slots=True)
class Notice:
    """Everything that a push may depend on; raises ValueError unless the registration id is opaque."""

    mark: Mark
    count: int
    certain: bool
    registration_id: RegistrationId
    mode: Mode
    locale: str
    cause: Cause | None = None
    """What an `attention` is about."""
    nonce: str = field(default="", repr=False)
    """What the app returns to a `challenge`: random, so it says nothing."""
    id: str = ""
    """What the app returns when it has shown the push: opaque, so it says nothing; empty: it returns nothing."""

    def __post_init__(self) -> None:
        challenges = self.mark is Mark.CHALLENGE
        if (challenges or self.nonce) and not (challenges and A_NONCE.fullmatch(self.nonce)):
            raise ValueError("a challenge has a nonce of 16 bytes, and nothing else has one")
        if self.cause is not None and self.mark is not Mark.ATTENTION:
            raise ValueError("only an attention has a cause")
        if self.id and (challenges or not A_SEALED_ID.fullmatch(self.id)):
            raise ValueError("the id of a push has 16 bytes, and a challenge has none")
        if not OPAQUE_ID.fullmatch(self.registration_id):
            raise ValueError("a registration id has 1 to 54 letters, digits, - or _")

    @classmethod
    def of(cls, push: DuePush, *, receipt: bool = False) -> "Notice":
        """Return what of a due push may leave the company; with its id if the app may send a `receipt`."""
        cause = push.cause if push.mark is Mark.ATTENTION else None
        nonce = push.nonce if push.mark is Mark.CHALLENGE else ""
        id_ = ""
        if receipt and push.mark is not Mark.CHALLENGE:
            own = PushId.of(push.mark, push.first_at, push.generation)
            id_ = own.seal(push.mailbox_id, push.registration_id)
        return cls(push.mark, push.count, push.certain, push.registration_id, push.mode, push.locale, cause, nonce, id_)

    @property
    def kind(self) -> Kind:
        """The template."""
        return KINDS.get(self.mark, "new-items")

    @property
    def uncertain(self) -> bool:
        """True if new items are only inferred, or if `attention` may be the mail server's fault and not the user's."""
        return self.kind in {"new-items", "attention"} and not self.certain

    @property
    def silent(self) -> bool:
        """True if the push goes in the background; an inferred change must not ring.

        `attention` and `test` ring in every mode: a person must act, or waits for them. A `challenge` is for the app
        alone.
        """
        if self.kind == "new-items":
            return self.mode is Mode.BACKGROUND or not self.certain
        return self.kind == "challenge"

    @property
    def collapse_id(self) -> str:
        """Names the push that a newer one of the same registration and mark replaces on the phone; at most 64 bytes."""
        return f"{self.registration_id}.{self.mark}"

    @property
    def lifetime(self) -> int:
        """How many seconds the provider keeps the push for a phone that is off."""
        return LIFETIME[self.kind]


class ApnsShape(NamedTuple):
    """What all messages for APNs of one template and language have in common."""

    before: str
    """The text up to the registration id."""
    between: str
    """From there to the count, or to what comes next where there is no count."""
    counts: bool
    """Whether there is a count."""
    after: str
    """From the count to the nonce or the id of the push; all the rest where there is neither."""
    rest: str
    """The text after the nonce or the id."""
    push_type: Literal["alert", "background"]
    priority: Literal[5, 10]
    lifetime: int


class ApnsMessage:
    """A notice for APNs [Apple: Generating a remote notification; Sending notification requests to APNs]."""

    __slots__ = ("notice", "rendered", "shape")

    def __init__(self, notice: Notice) -> None:
        self.notice = notice
        own = notice.nonce or notice.id  # only a challenge has a nonce, and it has no id
        shape = _apns_shape(notice.mark, notice.certain, notice.mode, notice.locale, notice.cause, bool(own))
        self.shape = shape
        """What this message shares with others."""
        count = _clip(notice.count) if shape.counts else ""
        self.rendered = f"{shape.before}{notice.registration_id}{shape.between}{count}{shape.after}{own}{shape.rest}"
        if notice.locale == OWN_TEXTS and not notice.silent:  # names registration and count more than once
            self.rendered = json.dumps(_apns_body(notice), ensure_ascii=False)
        """The text that is sent, and recorded in the egress log: the body as JSON."""

    @property
    def push_type(self) -> Literal["alert", "background"]:
        """The push type."""
        return self.shape.push_type

    @property
    def priority(self) -> Literal[5, 10]:
        """The priority; APNs refuses 10 for background pushes [Apple: Pushing background updates to your App]."""
        return self.shape.priority

    @property
    def body(self) -> dict[str, object]:
        """The payload."""
        return _apns_body(self.notice)


def _apns_body(notice: Notice) -> dict[str, object]:
    """Return the payload; `mutable-content` lets the app's extension fetch the mail from the on-prem server."""
    aps: dict[str, object] = {"content-available": 1}
    if not notice.silent and notice.locale == OWN_TEXTS:
        aps = _own_texts(notice)
    elif not notice.silent:
        title, body = text(notice.mark, notice.locale, certain=notice.certain)
        aps = {"alert": {"title": title, "body": body}, "sound": "default", "mutable-content": 1}
    return {"aps": aps, "relay": _data(notice)}


def _own_texts(notice: Notice) -> dict[str, object]:
    """Return an alert that names texts of the app by fixed keys, with a category and the thread of its registration.

    The system of the phone looks the texts up [Apple: Generating a remote notification, title-loc-key and loc-key].
    """
    in_doubt = notice.mark is Mark.ATTENTION and not notice.certain
    key = f"relay.{notice.mark.value}{'-in-doubt' if in_doubt else ''}"
    alert: dict[str, object] = {"title-loc-key": f"{key}.title", "loc-key": f"{key}.body"}
    if notice.kind == "new-items":
        alert["loc-args"] = [str(_clip(notice.count))]
    category, thread = f"relay.{notice.mark.value}", str(notice.registration_id)
    return {"alert": alert, "sound": "default", "mutable-content": 1, "category": category, "thread-id": thread}


def former_apns(notice: Notice) -> str:
    """Return the text that versions up to 0.1.0 sent in background mode; `attention` and `test` were silent, too."""
    return json.dumps({"aps": {"content-available": 1}, "relay": _data(notice)}, ensure_ascii=False)


def former_fcm(notice: Notice) -> dict[str, str]:
    """Return the delivery options of versions up to 0.1.0: a collapse key for each mark, background mode silent."""
    silent = notice.silent or notice.mode is Mode.BACKGROUND
    return {
        "priority": "NORMAL" if silent else "HIGH",
        "collapse_key": notice.collapse_id,
        "ttl": f"{notice.lifetime}s",
    }


@lru_cache(SHAPES)
def _apns_shape(mark: Mark, certain: bool, mode: Mode, locale: str, cause: Cause | None, own: bool) -> ApnsShape:
    """Render one body and cut it where others differ; `own`: it has a nonce, or the id of its push.

    An id needs no escapes in JSON, whichever it is.
    """
    nonce, id_ = (SOME_OWN, "") if mark is Mark.CHALLENGE else ("", SOME_OWN if own else "")
    notice = Notice(mark, 1, certain, RegistrationId(_SOME_ID), mode, locale, cause, nonce, id_)
    before, _, behind = json.dumps(_apns_body(notice), ensure_ascii=False).partition(_SOME_ID)
    between, counted, after = behind.partition(_COUNT)
    between, after = (between + counted, after.removeprefix("1")) if counted else ("", between)
    after, _, rest = after.partition(SOME_OWN)
    parts = before, between, bool(counted), after, rest
    if notice.silent:
        return ApnsShape(*parts, "background", 5, notice.lifetime)
    return ApnsShape(*parts, "alert", 10, notice.lifetime)


@dataclass(frozen=True, slots=True)
class FcmMessage:
    """A notice as an FCM v1 data message; the app builds what the user sees, so there is no text in it."""

    notice: Notice
    spare: bool = False
    """Whether the phone was woken often enough lately; only `new-items` are sent with less priority then."""

    @property
    def wakes(self) -> bool:
        """True if the message goes with high priority, which wakes a dozing phone."""
        return not self.notice.silent and not self.lowered

    @property
    def lowered(self) -> bool:
        """True if the message has normal priority only because the phone was woken often enough."""
        return self.spare and not self.notice.silent and self.notice.kind == "new-items"

    @property
    def data(self) -> dict[str, str]:
        """The data; FCM takes only strings as values [Google: FCM REST v1, Message.data]."""
        notice = self.notice
        data = {"v": str(SCHEMA), "registration": str(notice.registration_id), "kind": str(notice.kind)}
        if notice.kind == "new-items":
            data |= {"class": notice.mark.value, "count": str(_clip(notice.count))}
        if notice.uncertain:
            data["certain"] = "false"
        if notice.cause is not None:
            data["reason"] = notice.cause.value
        if notice.nonce:
            data["nonce"] = notice.nonce
        if notice.id:
            data["id"] = notice.id
        return data

    @property
    def android(self) -> dict[str, str]:
        """The delivery options; HIGH wakes a dozing phone, NORMAL waits [Google: FCM REST v1, AndroidConfig]."""
        options = {"priority": "HIGH" if self.wakes else "NORMAL", "ttl": f"{self.notice.lifetime}s"}
        return options if self.collapse_key is None else {**options, "collapse_key": self.collapse_key}

    @property
    def collapse_key(self) -> str | None:
        """Names the waiting message that this one replaces at FCM; None: it replaces none.

        FCM keeps four keys for each device at a time and makes no promise which [Google: FCM message types], so a
        registration uses two: one for the new items of all classes, one for `attention`, which no other message may
        replace.
        """
        if self.notice.kind not in COLLAPSE:
            return None
        return f"{self.notice.registration_id}.{COLLAPSE[self.notice.kind]}"


@dataclass(frozen=True, slots=True)
class WebPushMessage:
    """A notice for WebPush: data as for APNs, without a text, since the app builds what the user sees."""

    notice: Notice

    @property
    def body(self) -> dict[str, object]:
        """The data; it is encrypted for the device, so that the push service cannot read it."""
        return _data(self.notice)

    @property
    def content(self) -> bytes:
        """The data as the bytes that are encrypted."""
        return json.dumps(self.body, separators=(",", ":")).encode("ascii")

    @property
    def headers(self) -> dict[str, str]:
        """The headers that the push service reads [RFC 8030 5.2 to 5.4].

        A push replaces an older one with the same topic that still waits. A topic has 32 characters at most, a collapse
        id up to 64: so the topic is the start of a hash, which reveals neither registration nor mark.
        """
        topic = urlsafe_b64encode(sha256(self.notice.collapse_id.encode("ascii")).digest()[:24]).decode("ascii")
        urgency = "normal" if self.notice.silent else "high"
        return {"TTL": str(self.notice.lifetime), "Urgency": urgency, "Topic": topic}


WEB_APP: Final = "push-relay-web"
"""The name that the relay's own web app has as an app."""
PAGE: Final = re.compile(
    r"(?:https://[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|http://localhost)(?::[1-9][0-9]{0,4})?/[A-Za-z0-9._~/-]*",
    re.ASCII,
)
"""What an address that a notification opens looks like: nothing but host, port and path; of this machine also HTTP."""
LONGEST_PAGE: Final = 255  # characters; with the longest template a message stays below its length


@dataclass(frozen=True, slots=True)
class WebAppPages:
    """The addresses that notifications of the web app open; raises ValueError unless each is a plain https:// URL.

    They are settings of the administrator and the same for all: no part of them depends on a mailbox.
    """

    own: str
    """The web app."""
    mail: str
    """What a notification of new items opens, e.g. the webmail."""

    def __post_init__(self) -> None:
        for page in (self.own, self.mail):
            if len(page) > LONGEST_PAGE or not PAGE.fullmatch(page):
                raise ValueError("a page has an https:// URL of lower-case host, port and path alone")

    def of(self, notice: Notice) -> str:
        """Return what a notification opens: for what is no new item the step of the web app that is about it."""
        return self.mail if notice.kind == "new-items" else f"{self.own}#{notice.kind}"


@dataclass(frozen=True, slots=True)
class WebAppMessage(WebPushMessage):
    """A notice for the relay's own web app, which the browser shows by itself where it can.

    [W3C: Push API, declarative push message; WebKit: NotificationJSONParser.cpp of 2025]. A service worker reads the
    same text elsewhere.
    """

    pages: WebAppPages

    @property
    def body(self) -> dict[str, object]:
        """The notification with the data of every app in it; the tag lets it replace an older one of its mark."""
        notice = self.notice
        language = language_of(notice.locale)
        title, words = CONFIRMED[language] if notice.kind == "challenge" else self._text()
        notification: dict[str, object] = {
            "title": title,
            "body": words,
            "lang": language,
            "tag": notice.mark.value,
            "navigate": self.pages.of(notice),
            **({"silent": True} if notice.silent else {}),
            # A service worker may see it first: it answers challenges.
            "mutable": True,
            "data": _data(notice),
        }
        # The draft had `mutable` in both places one after the other; browsers ignore the one they do not know.
        return {"web_push": 8030, "mutable": True, "notification": notification}

    def _text(self) -> tuple[str, str]:
        return text(self.notice.mark, self.notice.locale, certain=self.notice.certain)


def _data(notice: Notice) -> dict[str, object]:
    data: dict[str, object] = {"v": SCHEMA, "registration": notice.registration_id, "kind": notice.kind}
    if notice.kind == "new-items":
        data |= {"class": notice.mark.value, "count": _clip(notice.count)}
    if notice.uncertain:
        data["certain"] = False
    if notice.cause is not None:
        data["reason"] = notice.cause.value
    if notice.nonce:
        data["nonce"] = notice.nonce
    if notice.id:
        data["id"] = notice.id
    return data


def _clip(count: int) -> int:
    return max(1, min(count, MOST))
