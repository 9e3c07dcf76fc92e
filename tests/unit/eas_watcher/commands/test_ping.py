import pytest

from eas_watcher.commands.ping import Ping, PingReply, PingStatus
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, ProtocolViolation, RequestRefused, ServerBusy, StateLost
from eas_watcher.names import CollectionClass, CollectionId, ProtocolVersion
from eas_watcher.wbxml.element import PING, Element
from eas_watcher.wbxml.encode import encode
from tests.unit.eas_watcher.wbxml.vectors import body_of

INBOX = CollectionId("5"), CollectionClass.EMAIL
CALENDAR = CollectionId("2"), CollectionClass.CALENDAR
PING_INBOX = Ping(600, (INBOX,))


def read(body: bytes) -> PingReply:
    return PING_INBOX.read(HttpReply(200, {}, body))


def answer(*content: Element) -> PingReply:
    return read(encode(PING("Ping", *content)))


@pytest.mark.parametrize(
    ("ping", "vector"),
    [
        (PING_INBOX, "ping-request-inbox-600"),
        (Ping(480, (INBOX, CALENDAR)), "ping-request-two-folders-480"),
        (Ping(120, ((CollectionId("mail%2F4d9f2a%2F%C3%84"), CollectionClass.EMAIL),)), "ping-request-sogo-id"),
    ],
)
def test_writes_heartbeat_and_folders_in_full(ping: Ping, vector: str) -> None:
    assert ping.encode(ProtocolVersion.V14_1) == body_of(vector)


def test_carries_no_policy_key() -> None:
    assert not Ping.carries_policy_key
    assert Ping.name == "Ping"


@pytest.mark.parametrize("status", [1, 3, 4, 7, 8])
def test_reads_the_status(status: int) -> None:
    assert answer(PING("Status", str(status))) == PingReply(PingStatus(status))


def test_reads_the_changed_collections_once_each() -> None:
    folders = PING("Folders", PING("Folder", "5"), PING("Folder", "2"), PING("Folder", "5"), PING("Folder"))

    assert answer(PING("Status", "2"), folders) == PingReply(PingStatus.CHANGED, (CollectionId("5"), CollectionId("2")))


@pytest.mark.parametrize("limit", [60, 3540])
def test_reads_the_nearest_heartbeat_allowed(limit: int) -> None:
    assert read(body_of(f"ping-response-status5-heartbeat{limit}")) == PingReply(
        PingStatus.HEARTBEAT_OUT_OF_RANGE, heartbeat=limit
    )


def test_reads_how_many_folders_are_allowed() -> None:
    assert read(body_of("ping-response-status6-maxfolders")) == PingReply(PingStatus.TOO_MANY_FOLDERS, max_folders=200)


def test_an_empty_answer_asks_for_a_full_ping() -> None:
    assert read(b"") == PingReply(PingStatus.PARAMETERS_MISSING)


@pytest.mark.parametrize("status", [0, 9, 100])
def test_an_unknown_status_counts_as_a_busy_server(status: int) -> None:
    with pytest.raises(ServerBusy, match=str(status)):
        answer(PING("Status", str(status)))


def test_common_statuses_raise_the_errors_that_they_mean() -> None:
    with pytest.raises(AccessDenied):
        read(body_of("ping-response-status129"))
    with pytest.raises(StateLost):
        answer(PING("Status", "132"))
    with pytest.raises(RequestRefused):
        answer(PING("Status", "101"))


def test_an_answer_needs_a_status() -> None:
    with pytest.raises(ProtocolViolation, match="no Status"):
        answer()


def test_reads_no_answer_but_one_with_status_200() -> None:
    with pytest.raises(ProtocolViolation):
        PING_INBOX.read(HttpReply(500, {}, b""))
