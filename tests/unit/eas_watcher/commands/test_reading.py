import pytest

from eas_watcher.commands.reading import (
    IDENTIFIER,
    is_empty,
    read_identifier,
    read_number,
    read_root,
    read_status,
    require_identifier,
)
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import ProtocolViolation, ServerBusy
from eas_watcher.wbxml.decode import WbxmlError
from eas_watcher.wbxml.element import AIRSYNC, PING, Element
from eas_watcher.wbxml.encode import encode

BODY = encode(PING("Ping", PING("Status", "1")))


def test_reads_the_root_of_an_answer() -> None:
    assert read_root(HttpReply(200, {}, BODY), "Ping", "Ping") == PING("Ping", PING("Status", "1"))


def test_reads_an_answer_sparsely_when_asked() -> None:
    body = encode(AIRSYNC("Sync", AIRSYNC("ApplicationData", Element("Email", "Subject", text="canary"))))

    assert read_root(HttpReply(200, {}, body), "AirSync", "Sync", sparse=True) == AIRSYNC(
        "Sync", AIRSYNC("ApplicationData")
    )


@pytest.mark.parametrize("status", [500, 204, 449])
def test_reads_no_answer_but_one_with_status_200(status: int) -> None:
    with pytest.raises(ProtocolViolation, match=str(status)):
        read_root(HttpReply(status, {}, BODY), "Ping", "Ping")


def test_an_empty_answer_means_that_the_server_is_busy() -> None:
    with pytest.raises(ServerBusy, match="Ping is empty"):
        read_root(HttpReply(200, {}, b""), "Ping", "Ping")


def test_another_document_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="another document"):
        read_root(HttpReply(200, {}, BODY), "AirSync", "Sync")


def test_a_broken_document_is_a_wbxml_error() -> None:
    with pytest.raises(WbxmlError):
        read_root(HttpReply(200, {}, BODY[:-1]), "Ping", "Ping")


def test_tells_an_empty_answer_from_a_full_one() -> None:
    assert is_empty(HttpReply(200, {}, b""))
    assert not is_empty(HttpReply(200, {}, BODY))


def test_reads_numbers() -> None:
    assert read_number(PING("Ping", PING("Status", " 12 ")), "Status") == 12
    assert read_number(PING("Ping"), "Status") is None


@pytest.mark.parametrize("text", ["", "-1", "1.0", "\u0661", "canary", "12345678901"])
def test_a_text_that_is_no_number_is_a_violation_that_does_not_quote_it(text: str) -> None:
    with pytest.raises(ProtocolViolation, match="Ping:Status is no number") as caught:
        read_number(PING("Ping", PING("Status", text)), "Status")

    assert "canary" not in str(caught.value)


def test_a_status_must_be_there() -> None:
    assert read_status(PING("Ping", PING("Status", "7"))) == 7
    with pytest.raises(ProtocolViolation, match="Ping:Ping has no Status"):
        read_status(PING("Ping"))


@pytest.mark.parametrize("text", ["mail%2Ff6cb", " 5 ", "Ä", "x" * IDENTIFIER])
def test_reads_identifiers_unchanged(text: str) -> None:
    element = AIRSYNC("Add", AIRSYNC("ServerId", text))

    assert read_identifier(element, "ServerId") == text
    assert require_identifier(element, "ServerId") == text


@pytest.mark.parametrize("element", [AIRSYNC("Add"), AIRSYNC("Add", AIRSYNC("ServerId"))])
def test_an_identifier_may_be_missing_only_where_it_is_not_required(element: Element) -> None:
    assert read_identifier(element, "ServerId") is None
    with pytest.raises(ProtocolViolation, match="AirSync:Add has no ServerId"):
        require_identifier(element, "ServerId")


def test_an_identifier_has_a_bounded_length() -> None:
    with pytest.raises(ProtocolViolation, match="too long"):
        read_identifier(AIRSYNC("Add", AIRSYNC("ServerId", "x" * (IDENTIFIER + 1))), "ServerId")
