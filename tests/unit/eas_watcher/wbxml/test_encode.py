import pytest

from eas_watcher.wbxml.element import AIRSYNC, Element
from eas_watcher.wbxml.encode import encode
from tests.unit.eas_watcher.wbxml.vectors import Vector, of_kind


@pytest.mark.parametrize("vector", of_kind("request", "response", "tokens"), ids=lambda vector: vector.name)
def test_writes_every_vector_byte_for_byte(vector: Vector) -> None:
    assert encode(vector.tree) == vector.body


def test_writes_the_length_of_opaque_bytes_in_groups_of_seven_bits() -> None:
    # C3 82 00: OPAQUE, 0x100 bytes
    assert (
        encode(Element("AirSync", "ClientId", text=bytes(256)))
        == b"\x03\x01\x6a\x00\x4c\xc3\x82\x00" + bytes(256) + b"\x01"
    )


def test_an_empty_string_is_no_content_but_empty_opaque_bytes_are() -> None:
    assert encode(AIRSYNC("SyncKey", "")) == b"\x03\x01\x6a\x00\x0b"
    assert encode(AIRSYNC("SyncKey", b"")) == b"\x03\x01\x6a\x00\x4b\xc3\x00\x01"


def test_text_comes_before_children() -> None:
    mixed = Element("AirSync", "Sync", (AIRSYNC("Status"),), "a")

    assert encode(mixed) == b"\x03\x01\x6a\x00\x45\x03a\x00\x0e\x01"


def test_refuses_a_name_without_a_token() -> None:
    with pytest.raises(ValueError, match="AirSync:Subject has no token"):
        encode(AIRSYNC("Subject", "1"))


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
def test_refuses_text_that_no_string_can_hold(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- two kinds of it; that it is raised is the point
        encode(AIRSYNC("SyncKey", text))
