from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eas_watcher.commands.request import HttpReply
from eas_watcher.commands.sync import Add, CollectionReply, CollectionRequest, Sync, SyncReply
from eas_watcher.errors import (
    EasError,
    HierarchyChanged,
    NotProvisioned,
    ProtocolViolation,
    RequestRefused,
    ServerBusy,
    StateLost,
    TooManyCollections,
)
from eas_watcher.names import NO_SYNC_KEY, CollectionClass, CollectionId, ProtocolVersion, ServerId, SyncKey
from eas_watcher.wbxml.decode import decode
from eas_watcher.wbxml.element import AIRSYNC, AIRSYNCBASE, Element
from eas_watcher.wbxml.encode import encode
from tests.unit.eas_watcher.wbxml.vectors import VECTORS, body_of

V12_1, V14_1 = ProtocolVersion.V12_1, ProtocolVersion.V14_1
NEWER = [version for version in ProtocolVersion if version > V12_1]
LEAST = AIRSYNCBASE("BodyPreference", AIRSYNCBASE("Type", "1"), AIRSYNCBASE("TruncationSize", "1"))
NO_MIME = AIRSYNC("MIMESupport", "0"), AIRSYNC("MIMETruncation", "0")


def request(cls: CollectionClass = CollectionClass.EMAIL, key: str = "17", id_: str = "5") -> CollectionRequest:
    return CollectionRequest(CollectionId(id_), cls, SyncKey(key))


def collection(*content: Element) -> Element:
    return AIRSYNC("Sync", AIRSYNC("Collections", AIRSYNC("Collection", *content)))


def read(body: bytes) -> SyncReply:
    return Sync((request(),)).read(HttpReply(200, {}, body))


def read_one(*content: Element) -> CollectionReply:
    [found] = read(encode(collection(AIRSYNC("CollectionId", "5"), AIRSYNC("Status", "1"), *content))).collections
    return found


def read_add(*properties: Element) -> Add:
    added = AIRSYNC("Add", AIRSYNC("ServerId", "5:1"), AIRSYNC("ApplicationData", *properties))
    [found] = read_one(AIRSYNC("Commands", added)).adds
    return found


@pytest.mark.parametrize("version", NEWER)
def test_primes_with_nothing_but_key_and_id(version: ProtocolVersion) -> None:
    assert Sync((request(key=NO_SYNC_KEY),)).encode(version) == body_of("sync-request-key0-v14")
    assert Sync.name == "Sync"


def test_primes_with_the_class_in_old_versions() -> None:
    assert Sync((request(key=NO_SYNC_KEY),)).encode(V12_1) == body_of("sync-request-key0-v121-class")


@pytest.mark.parametrize("version", NEWER)
def test_asks_for_the_least_content(version: ProtocolVersion) -> None:
    assert decode(Sync((request(),)).encode(version)) == collection(
        AIRSYNC("SyncKey", "17"),
        AIRSYNC("CollectionId", "5"),
        AIRSYNC("WindowSize", "25"),
        AIRSYNC("Options", AIRSYNC("FilterType", "3"), *NO_MIME, LEAST),
    )


def test_old_versions_want_class_and_get_changes_too() -> None:
    assert decode(Sync((request(),)).encode(V12_1)) == collection(
        AIRSYNC("Class", "Email"),
        AIRSYNC("SyncKey", "17"),
        AIRSYNC("CollectionId", "5"),
        AIRSYNC("GetChanges"),
        AIRSYNC("WindowSize", "25"),
        AIRSYNC("Options", AIRSYNC("FilterType", "3"), *NO_MIME, LEAST),
    )


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (CollectionClass.CALENDAR, (AIRSYNC("FilterType", "4"), LEAST)),
        (CollectionClass.TASKS, (AIRSYNC("FilterType", "8"), LEAST)),
        (CollectionClass.CONTACTS, (LEAST,)),
        (CollectionClass.NOTES, (LEAST,)),
    ],
)
def test_filters_by_class(cls: CollectionClass, options: tuple[Element, ...]) -> None:
    tree = decode(Sync((request(cls),)).encode(V14_1))

    assert tree.children[0].children[0].find("Options") == AIRSYNC("Options", *options)


def test_asks_for_several_collections_at_once() -> None:
    tree = decode(Sync((request(), request(CollectionClass.CALENDAR, key="4", id_="2"))).encode(V14_1))

    assert [[part.string for part in asked.children[:2]] for asked in tree.children[0].children] == [
        ["17", "5"],
        ["4", "2"],
    ]


def test_an_empty_answer_means_that_nothing_changed() -> None:
    assert read(b"") == SyncReply(empty=True)


def test_an_answer_may_hold_no_collections() -> None:
    assert read(encode(AIRSYNC("Sync", AIRSYNC("Status", "1")))) == SyncReply(empty=False)


def test_reads_the_first_key() -> None:
    reply = CollectionReply(CollectionId("5"), 1, SyncKey("1325652803"), more_available=False, has_commands=False)

    assert read(body_of("sync-response-key0")) == SyncReply(empty=False, collections=(reply,))
    assert read(body_of("sync-response-key0-v121-class")) == SyncReply(empty=False, collections=(reply,))


def test_reads_new_mails() -> None:
    [reply] = read(body_of("sync-response-one-add-v14")).collections

    assert reply == CollectionReply(
        CollectionId("5"),
        1,
        SyncKey("1325652804"),
        more_available=False,
        has_commands=True,
        adds=(Add(ServerId("5:17"), read=False, received=datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)),),
    )


def test_reads_that_more_is_available() -> None:
    [reply] = read(body_of("sync-response-two-adds-more")).collections

    assert reply.more_available
    assert [add.server_id for add in reply.adds] == ["5:18", "5:19"]


def test_changes_and_deletes_are_commands_but_not_new_items() -> None:
    [reply] = read(body_of("sync-response-change-delete-softdelete")).collections

    assert reply.has_commands
    assert reply.adds == ()


def test_an_empty_list_of_commands_holds_none() -> None:
    assert not read_one(AIRSYNC("Commands")).has_commands


def test_responses_are_not_new_items() -> None:
    responses = AIRSYNC("Responses", AIRSYNC("Add", AIRSYNC("ServerId", "5:9"), AIRSYNC("Status", "6")))

    assert read_one(responses) == CollectionReply(CollectionId("5"), 1, None, more_available=False, has_commands=False)


def test_items_of_other_classes_have_neither_flag_nor_receive_time() -> None:
    for vector in ("sync-response-calendar-add", "sync-response-contact-add"):
        [reply] = read(body_of(vector)).collections
        assert all(add == Add(add.server_id) for add in reply.adds)
        assert reply.adds


def test_an_item_may_come_without_data() -> None:
    assert read_one(AIRSYNC("Commands", AIRSYNC("Add", AIRSYNC("ServerId", "5:1")))).adds == (Add(ServerId("5:1")),)


def test_an_item_must_have_an_id() -> None:
    with pytest.raises(ProtocolViolation, match="Add has no ServerId"):
        read_one(AIRSYNC("Commands", AIRSYNC("Add", AIRSYNC("ApplicationData"))))


@pytest.mark.parametrize(("text", "expected"), [("0", False), ("1", True), ("", None), ("yes", None)])
def test_reads_whether_a_mail_was_read(text: str, expected: bool | None) -> None:
    assert read_add(Element("Email", "Read", text=text)).read is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2025-03-04T05:06:07.000Z", datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)),
        ("2025-03-04T05:06:07.250Z", datetime(2025, 3, 4, 5, 6, 7, 250_000, tzinfo=UTC)),
        ("20250304T050607Z", datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)),
        ("2025-03-04T05:06:07", datetime(2025, 3, 4, 5, 6, 7, tzinfo=UTC)),
        ("2025-03-04T05:06:07+02:00", datetime(2025, 3, 4, 3, 6, 7, tzinfo=UTC)),
        ("0001-01-01T00:00:00+02:00", None),
        ("yesterday", None),
        ("", None),
        (b"\xff", None),
    ],
)
def test_reads_when_a_mail_was_received(text: str | bytes, expected: datetime | None) -> None:
    assert read_add(Element("Email", "DateReceived", text=text)).received == expected


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_any_date_reads_as_a_moment_in_utc_or_none(text: str) -> None:
    received = read_add(Element("Email", "DateReceived", text=text)).received

    assert received is None or received.tzinfo is UTC


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (3, StateLost),
        (4, RequestRefused),
        (5, ServerBusy),
        (6, ServerBusy),
        (7, ServerBusy),
        (8, HierarchyChanged),
        (9, ServerBusy),
        (12, HierarchyChanged),
        (13, ServerBusy),
        (14, RequestRefused),
        (15, TooManyCollections),
        (16, ServerBusy),
        (99, ProtocolViolation),
        (132, StateLost),
        (142, NotProvisioned),
    ],
)
def test_a_failing_status_of_the_whole_answer_raises_its_error(status: int, remedy: type[EasError]) -> None:
    with pytest.raises(EasError, match=rf"\b{status}\b") as caught:
        read(encode(AIRSYNC("Sync", AIRSYNC("Status", str(status)))))

    assert type(caught.value) is remedy


@pytest.mark.parametrize(("limit", "named"), [((), None), ((AIRSYNC("Limit", "2"),), 2)])
def test_says_how_many_collections_the_server_takes(limit: tuple[Element, ...], named: int | None) -> None:
    with pytest.raises(TooManyCollections) as caught:
        read(encode(AIRSYNC("Sync", AIRSYNC("Status", "15"), *limit)))

    assert caught.value.limit == named


def test_a_full_mailbox_is_not_asked_again_soon() -> None:
    with pytest.raises(ServerBusy) as caught:
        read(encode(AIRSYNC("Sync", AIRSYNC("Status", "9"))))

    assert caught.value.retry_after == 900


@pytest.mark.parametrize("status", [3, 4, 5, 8, 12, 142])
def test_a_failure_of_one_collection_is_a_value(status: int) -> None:
    failed = AIRSYNC("Collection", AIRSYNC("CollectionId", "5"), AIRSYNC("Status", str(status)))
    good = AIRSYNC(
        "Collection",
        AIRSYNC("SyncKey", "9"),
        AIRSYNC("CollectionId", "2"),
        AIRSYNC("Status", "1"),
        AIRSYNC("Responses"),
    )

    reply = read(encode(AIRSYNC("Sync", AIRSYNC("Collections", failed, good))))

    assert [(c.id, c.status, c.sync_key) for c in reply.collections] == [("5", status, None), ("2", 1, "9")]


@pytest.mark.parametrize("content", [(AIRSYNC("Status", "1"),), (AIRSYNC("CollectionId", "5"),)])
def test_a_collection_needs_an_id_and_a_status(content: tuple[Element, ...]) -> None:
    with pytest.raises(ProtocolViolation):
        read(encode(collection(*content)))


def test_takes_no_key_from_an_answer_that_broke_off() -> None:
    body = body_of("sync-response-key0")

    for length in range(1, len(body)):
        with pytest.raises(ProtocolViolation):
            read(body[:length])
    with pytest.raises(ProtocolViolation):
        Sync((request(),)).read(HttpReply(500, {}, body))


@pytest.mark.parametrize(
    "name", [vector.name for vector in VECTORS if vector.name.startswith("sync-response-") and b"\x5d" in vector.body]
)
def test_keeps_no_content_of_an_item(name: str) -> None:
    try:
        kept = repr(read(body_of(name)))
    except EasError as error:
        kept = str(error)

    for content in ("example", "Gr", "Meeting", "Review", "Jane", "Room"):
        assert content not in kept
