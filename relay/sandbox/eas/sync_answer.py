"""Writes the answer to a Sync: most have one new mail, and such an answer is a template to fill in."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from eas_watcher.names import CollectionClass, CollectionId, ProtocolVersion, ServerId, SyncKey
from eas_watcher.wbxml.element import AIRSYNC, Element
from eas_watcher.wbxml.encode import PLACE, Template, encode
from relay.sandbox.eas.items import mail_texts, write_item
from relay.sandbox.eas.mailboxes import SimulatedItem

OK: Final = 1
TEMPLATES_KEPT: Final = 64  # mails that differ in more than mailbox and time
LONGEST: Final = 4096  # characters of a mail's body; a mail with a longer one is written each time


class CollectionAnswer(NamedTuple):
    """What a Sync answers for one collection."""

    id: CollectionId
    key: SyncKey | str
    status: int
    commands: Sequence[tuple[str, ServerId, SimulatedItem | None]] = ()
    """The tag of each change, the item's id, and the item unless the client is to forget it."""
    more: bool = False
    """Whether more changes are left."""
    cls: str = ""
    """The Class to name, for versions before 14.0 [MS-ASCMD 2.2.3.27.5]; empty: none."""


def write_sync(answers: Sequence[CollectionAnswer], user: str, version: ProtocolVersion) -> bytes:
    """Return the answer to a Sync in WBXML; an empty body, if no collection has changes [MS-ASCMD 2.2.1.21]."""
    if not answers:
        return b""
    if len(answers) == 1 and len(answers[0].commands) == 1:
        answer = answers[0]
        tag, _, item = answer.commands[0]
        if item is not None and item.cls is CollectionClass.EMAIL and len(item.body) <= LONGEST:
            template = _template(tag, item.subject, item.sender, item.body, item.read, answer.more, answer.cls, version)
            return template.fill([answer.key, answer.id, *mail_texts(item, user)])
    return encode(_write(answers, user, version))


@lru_cache(TEMPLATES_KEPT)
def _template(
    tag: str,
    subject: str,
    sender: str,
    body: str,
    read: bool,
    more: bool,
    cls: str,
    version: ProtocolVersion,
) -> Template:
    """Return the answer with one mail, without its keys and ids, its user and its time."""
    id_ = ServerId(PLACE)
    item = SimulatedItem(id_, CollectionClass.EMAIL, subject, sender, body, datetime.min.replace(tzinfo=UTC), read)
    answer = CollectionAnswer(CollectionId(PLACE), PLACE, OK, [(tag, id_, item)], more, cls)
    return Template(_write([answer], PLACE, version, date=PLACE))


def _write(answers: Sequence[CollectionAnswer], user: str, version: ProtocolVersion, date: str = "") -> Element:
    collections = [_write_collection(answer, user, version, date) for answer in answers]
    return AIRSYNC("Sync", AIRSYNC("Collections", *collections))


def _write_collection(answer: CollectionAnswer, user: str, version: ProtocolVersion, date: str) -> Element:
    parts = [AIRSYNC("Class", answer.cls)] if answer.cls else []
    parts += [
        AIRSYNC("SyncKey", answer.key),
        AIRSYNC("CollectionId", answer.id),
        AIRSYNC("Status", str(answer.status)),
    ]
    if answer.more:
        parts.append(AIRSYNC("MoreAvailable"))
    if answer.commands:
        commands = [
            AIRSYNC(tag, AIRSYNC("ServerId", id_)) if item is None else write_item(tag, item, user, version, date)
            for tag, id_, item in answer.commands
        ]
        parts.append(AIRSYNC("Commands", *commands))
    return AIRSYNC("Collection", *parts)
