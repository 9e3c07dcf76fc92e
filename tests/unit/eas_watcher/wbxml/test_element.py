import pytest

from eas_watcher.errors import ProtocolViolation
from eas_watcher.wbxml.element import AIRSYNC, Element, Page

TREE = AIRSYNC("Add", AIRSYNC("ServerId", "5:1"), Element("Email", "Read", text="1"), AIRSYNC("ServerId", "5:2"))


def test_finds_the_first_child_of_a_name() -> None:
    assert TREE.find("ServerId") == AIRSYNC("ServerId", "5:1")


def test_finds_children_of_another_page_only_when_asked() -> None:
    assert TREE.find("Read") is None
    assert TREE.find("Read", "Email") == Element("Email", "Read", text="1")


def test_yields_all_children_of_a_name_in_order() -> None:
    assert [child.string for child in TREE.all("ServerId")] == ["5:1", "5:2"]


def test_opaque_bytes_are_read_as_text() -> None:
    assert Element("AirSync", "ServerId", text="Ä".encode()).string == "Ä"


@pytest.mark.parametrize("text", [b"\xff\xfe", b"5\x00:1"])
def test_bytes_that_are_no_text_are_a_violation_that_does_not_quote_them(text: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        _ = Element("AirSync", "ServerId", text=text).string

    assert "AirSync:ServerId" in str(caught.value)
    assert repr(text) not in str(caught.value)


def test_the_repr_shows_no_text() -> None:
    assert "canary" not in repr(AIRSYNC("Add", AIRSYNC("ServerId", "canary"), Element("Email", "To", text=b"canary")))


def test_a_page_builds_leaves_and_containers() -> None:
    page = Page("Ping")

    assert page("Status", "1") == Element("Ping", "Status", text="1")
    assert page("Folders", page("Folder"), page("Folder")) == Element(
        "Ping", "Folders", (Element("Ping", "Folder"), Element("Ping", "Folder"))
    )


@pytest.mark.parametrize("content", [("1", "2"), ("1", AIRSYNC("Sync"))])
def test_a_page_builds_nothing_mixed(content: tuple[Element | str, ...]) -> None:
    with pytest.raises(ValueError, match="Ping:Status"):
        Page("Ping")("Status", *content)
