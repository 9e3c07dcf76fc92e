import pytest

from eas_watcher.wbxml.element import AIRSYNC, Element
from eas_watcher.wbxml.encode import PLACE, Template, encode
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


def test_a_template_writes_what_the_tree_with_its_texts_encodes() -> None:
    def tree(key: str, id_: str) -> Element:
        collection = AIRSYNC("Collection", AIRSYNC("SyncKey", key), AIRSYNC("CollectionId", id_), AIRSYNC("GetChanges"))
        return AIRSYNC("Sync", AIRSYNC("Collections", collection))

    template = Template(tree(PLACE, PLACE))

    for texts in (("1", "5"), ("k\x03e", PLACE), ("schl\u00fcssel", "mail%2Finbox")):
        assert template.fill(texts) == encode(tree(*texts))


@pytest.mark.parametrize("text", ["", "a\0b", "\ud800"])
def test_a_template_refuses_text_that_no_place_can_hold(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- two kinds of it; that it is raised is the point
        Template(AIRSYNC("SyncKey", PLACE)).fill([text])


@pytest.mark.parametrize("texts", [[], ["1", "2"]])
def test_a_template_wants_a_text_for_each_place(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="argument 2"):
        Template(AIRSYNC("SyncKey", PLACE)).fill(texts)
