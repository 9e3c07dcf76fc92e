"""The properties of a simulated item in a Sync answer: all of them, as a careless server sends them.

The body is complete for any TruncationSize [observed: SOGo 5.8, Z-Push 2.7.1, 2026-11], so that a test can put a mark
into subject, sender or body and search for it.
"""

from datetime import UTC, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Final

from eas_watcher.names import CollectionClass, ProtocolVersion
from eas_watcher.wbxml.element import AIRSYNC, AIRSYNCBASE, Element, Page
from relay.sandbox.eas.mailboxes import SimulatedItem

EMAIL: Final = Page("Email")
EMAIL2: Final = Page("Email2")
CALENDAR: Final = Page("Calendar")
CONTACTS: Final = Page("Contacts")

PREVIEW: Final = 255  # characters [MS-ASAIRS 2.2.2.35]
CONVERSATION_ID: Final = 16  # bytes [MS-ASEMAIL 2.2.2.21]


def write_item(tag: str, item: SimulatedItem, user: str, version: ProtocolVersion, date: str = "") -> Element:
    """Return an Add or a Change with all properties; `date` replaces the time of a mail."""
    data = AIRSYNC("ApplicationData", *_properties(item, user, version, date))
    return AIRSYNC(tag, AIRSYNC("ServerId", item.id), data)


def mail_texts(item: SimulatedItem, user: str) -> tuple[str, str, str, str]:
    """Return the texts of a mail by which it differs from the same mail to others, in their order."""
    return item.id, user, _date(item), user


def _date(item: SimulatedItem) -> str:
    return f"{item.received.astimezone(UTC).isoformat()[:19]}.000Z"


def _properties(item: SimulatedItem, user: str, version: ProtocolVersion, date: str) -> list[Element]:
    match item.cls:
        case CollectionClass.EMAIL:
            return _mail(item, user, version, date or _date(item))
        case CollectionClass.CALENDAR:
            return _appointment(item)
        case CollectionClass.CONTACTS:
            body = _body(f"{item.subject}\n{item.body}", version)
            return [CONTACTS("FileAs", item.subject), CONTACTS("Email1Address", item.sender), body]
        case CollectionClass.TASKS | CollectionClass.NOTES:
            # The relay's encoder does not know their code pages; the body has the subject too.
            return [_body(f"{item.subject}\n{item.body}", version)]


def _mail(item: SimulatedItem, user: str, version: ProtocolVersion, date: str) -> list[Element]:
    content, more = _content(item.subject, item.sender, item.body, version)
    properties = [
        EMAIL("To", user),
        *content,
        EMAIL("DateReceived", date),
        EMAIL("DisplayTo", user),
        EMAIL("ThreadTopic", item.subject),
        EMAIL("Importance", "1"),
        EMAIL("Read", str(int(item.read))),
        *more,
    ]
    if version >= ProtocolVersion.V16_0:
        properties.append(EMAIL2("IsDraft", "0"))
    return properties


@lru_cache(maxsize=64)
def _content(
    subject: str, sender: str, body: str, version: ProtocolVersion
) -> tuple[tuple[Element, ...], tuple[Element, ...]]:
    """Return the properties that are the same in all mailboxes to which a mail is delivered at once."""
    more = [
        _body(body, version),
        EMAIL("MessageClass", "IPM.Note"),
        EMAIL("InternetCPID", "65001"),
        EMAIL("Flag"),
        EMAIL("ContentClass", "urn:content-classes:message"),
        AIRSYNCBASE("NativeBodyType", "1"),
    ]
    if version >= ProtocolVersion.V14_0:
        conversation = sha256(subject.encode()).digest()[:CONVERSATION_ID]
        more += [EMAIL2("ConversationId", conversation), EMAIL2("ConversationIndex", conversation[:5])]
    return (EMAIL("From", sender), EMAIL("Subject", subject)), tuple(more)


def _appointment(item: SimulatedItem) -> list[Element]:
    start = item.received.astimezone(UTC) + timedelta(days=1)
    compact = "%Y%m%dT%H%M%SZ"
    return [
        CALENDAR("DtStamp", item.received.astimezone(UTC).strftime(compact)),
        CALENDAR("StartTime", start.strftime(compact)),
        CALENDAR("Subject", item.subject),
        CALENDAR("UID", sha256(item.id.encode()).hexdigest()),
        CALENDAR("OrganizerEmail", item.sender),
        CALENDAR("EndTime", (start + timedelta(hours=1)).strftime(compact)),
        AIRSYNCBASE("Body", AIRSYNCBASE("Type", "1"), AIRSYNCBASE("Data", item.body)),
        CALENDAR("Sensitivity", "0"),
        CALENDAR("BusyStatus", "2"),
        CALENDAR("AllDayEvent", "0"),
        CALENDAR("MeetingStatus", "0"),
    ]


def _body(text: str, version: ProtocolVersion) -> Element:
    parts = [
        AIRSYNCBASE("Type", "1"),
        AIRSYNCBASE("EstimatedDataSize", str(len(text.encode()))),
        AIRSYNCBASE("Data", text),
    ]
    if version >= ProtocolVersion.V14_0:
        parts.append(AIRSYNCBASE("Preview", text[:PREVIEW]))
    return AIRSYNCBASE("Body", *parts)
