import inspect
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eas_watcher.errors import ProtocolViolation
from eas_watcher.wbxml.codepages import TOKENS
from eas_watcher.wbxml.decode import MAX_DEPTH, MAX_SIZE, MAX_TOKENS, OCTETS_OF_A_TOKEN, UNREAD, WbxmlError, decode
from eas_watcher.wbxml.element import AIRSYNC, FOLDERHIERARCHY, PING, Element
from eas_watcher.wbxml.encode import HEADER, encode
from tests.unit.eas_watcher.wbxml.vectors import Vector, body_of, of_kind

WHOLE = of_kind("request", "response", "tokens", "decode-only")
# What a token can be: page switch, END, string, OPAQUE, tags with and without content, a letter, a closing 00.
SOUP = st.lists(
    st.sampled_from([b"\0\0", b"\0\x02", b"\x01", b"\x03a\0", b"\xc3\x01a", b"\x5d", b"\x55", b"\x0b", b"a", b"\0"])
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = st.sampled_from(sorted(TOKENS))


def leaf(name: tuple[str, str], text: str | bytes) -> Element:
    return Element(name[0], name[1], text=text)


def container(name: tuple[str, str], children: list[Element]) -> Element:
    return Element(name[0], name[1], tuple(children))


TREES = st.recursive(
    st.builds(leaf, NAMES, TEXTS | st.binary(max_size=200)),
    lambda children: st.builds(container, NAMES, st.lists(children, max_size=4)),
    max_leaves=12,
)


def walk(element: Element) -> Iterator[Element]:
    yield element
    for child in element.children:
        yield from walk(child)


def never_surprises(body: bytes) -> None:
    """Read a document or see it refused; nothing else may happen."""
    for sparse in (False, True):
        try:
            decode(body, sparse=sparse)
        except WbxmlError as error:
            assert 0 <= error.offset <= len(body)  # noqa: PT017 -- either outcome is right


@pytest.mark.parametrize("vector", WHOLE, ids=lambda vector: vector.name)
def test_reads_every_vector(vector: Vector) -> None:
    assert decode(vector.body) == vector.tree


@pytest.mark.parametrize("vector", of_kind("malformed"), ids=lambda vector: vector.name)
def test_refuses_every_malformed_vector(vector: Vector) -> None:
    with pytest.raises(WbxmlError):
        decode(vector.body)


@pytest.mark.parametrize("vector", WHOLE, ids=lambda vector: vector.name)
def test_refuses_every_vector_cut_at_any_byte(vector: Vector) -> None:
    for length in range(len(vector.body)):
        for sparse in (False, True):
            with pytest.raises(WbxmlError):
                decode(vector.body[:length], sparse=sparse)


@pytest.mark.parametrize("vector", WHOLE, ids=lambda vector: vector.name)
def test_ignores_bytes_after_the_root(vector: Vector) -> None:
    assert decode(vector.body + b"\x01\xff<html>") == vector.tree


@given(TREES)
def test_reads_back_what_was_written(tree: Element) -> None:
    assert decode(encode(tree)) == tree


@given(st.binary(max_size=300))
@example(HEADER + b"\x45\x4b\xc3\x8f\xff\xff\xff\x7f")
def test_random_bytes_are_read_or_refused(body: bytes) -> None:
    never_surprises(body)


@given(SOUP)
def test_random_tokens_are_read_or_refused(tokens: list[bytes]) -> None:
    never_surprises(HEADER + b"\x45" + b"".join(tokens))


@given(st.sampled_from(WHOLE), st.data())
def test_damaged_documents_are_read_or_refused(vector: Vector, data: st.DataObject) -> None:
    body = bytearray(vector.body)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    never_surprises(bytes(body))


@pytest.mark.parametrize(
    ("body", "offset", "words"),
    [
        (b"\x04\x01\x6a\x00\x05", 0, "not a WBXML"),
        (b"\x03\x01\x04\x00\x05", 2, "charset"),
        (b"\x03\x01\x6a\x7f\x05", 4, "length exceeds"),
        (b"\x03\x01\xff\xff\xff\xff\xff\x7f", 6, "number is too long"),
        (HEADER + b"\x01", 4, "outside of the root"),
        (HEADER + b"\x03a\x00", 4, "outside of the root"),
        (HEADER + b"\xc3\x01a", 4, "outside of the root"),
        (HEADER + b"\x45\x02\x01", 5, "global token"),
        (HEADER + b"\x45\x83\x01", 5, "global token"),
        (HEADER + b"\x45\x43\x01", 5, "global token"),
        (HEADER + b"\xc5\x01", 4, "attributes"),
        (HEADER + b"\x45\x85\x01", 5, "attributes"),
        (HEADER + b"\x45\x03abc", 6, "string does not end"),
        (HEADER + b"\x45\xc3\x04abc", 7, "length exceeds"),
        (HEADER + b"\x45\x00", 6, "ends too early"),
    ],
)
def test_an_error_names_the_fault_and_its_place(body: bytes, offset: int, words: str) -> None:
    with pytest.raises(WbxmlError, match=words) as caught:
        decode(body)

    assert caught.value.offset == offset
    assert str(caught.value).endswith(f"at byte {offset}")


def test_an_error_never_quotes_content() -> None:
    body = body_of("sync-response-one-add-v14")

    for length in range(len(body)):
        with pytest.raises(ProtocolViolation) as caught:
            decode(body[:length])
        assert "example" not in str(caught.value)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_reads_wbxml_1_1_to_1_3(version: int) -> None:
    assert decode(bytes((version, 1, 0x6A, 0, 0x05))) == AIRSYNC("Sync")


def test_steps_over_a_literal_public_id_and_the_string_table() -> None:
    # 03 00 81 05 6A 03 "ab" 00: public id at index 0x85 of the string table, UTF-8, table of 3 bytes
    assert decode(b"\x03\x00\x81\x05\x6a\x03ab\x00\x05") == AIRSYNC("Sync")


def test_joins_a_string_that_is_split_within_a_character() -> None:
    assert decode(HEADER + b"\x4b\x03\xc3\x00\x03\x84\x00\x01") == AIRSYNC("SyncKey", "Ä")


def test_joins_opaque_bytes_and_strings_to_text() -> None:
    assert decode(HEADER + b"\x4b\xc3\x01a\x03b\x00\x01") == AIRSYNC("SyncKey", "ab")


def test_joined_text_with_a_nul_stays_bytes() -> None:
    # 4D: AirSync:ServerId; 03 61 00 C3 03 00 62 00: a string, then an OPAQUE of three octets
    assert decode(HEADER + b"\x4d\x03a\0\xc3\x03\0b\0\x01").text == b"a\0b\0"


def test_text_that_is_not_utf_8_stays_bytes_and_the_rest_is_read() -> None:
    tree = decode(HEADER + b"\x45\x4b\x03\xff\x00\x01\x4e\x031\x00\x01\x01")

    assert tree == AIRSYNC("Sync", AIRSYNC("SyncKey", b"\xff"), AIRSYNC("Status", "1"))


def test_unknown_tags_and_pages_get_synthetic_names_in_the_tree() -> None:
    # 00 05: page 5, which is unknown; 7F: token 3F with content
    tree = decode(HEADER + b"\x45\x00\x05\x7f\x03x\x00\x01\x00\x00\x0e\x3f\x01")

    assert tree == Element(
        "AirSync",
        "Sync",
        (Element("page-5", "tag-3F", text="x"), AIRSYNC("Status"), Element("AirSync", "tag-3F")),
    )


def test_nests_no_deeper_than_the_limit() -> None:
    deepest = b"\x45" * MAX_DEPTH + b"\x01" * MAX_DEPTH

    assert sum(1 for _ in walk(decode(HEADER + deepest))) == MAX_DEPTH
    with pytest.raises(WbxmlError, match="too deep"):
        decode(HEADER + b"\x45" * MAX_DEPTH + b"\x05" + b"\x01" * MAX_DEPTH)


def test_the_depth_counts_skipped_elements() -> None:
    with pytest.raises(WbxmlError, match="too deep"):
        decode(HEADER + b"\x45\x5d" + b"\x47" * MAX_DEPTH, sparse=True)


def test_reads_a_bounded_number_of_tokens() -> None:
    with pytest.raises(WbxmlError, match="too many tokens"):
        decode(HEADER + b"\x45" + b"\x05" * MAX_TOKENS + b"\x01", sparse=True)


def test_an_element_with_a_text_counts_as_three_tokens() -> None:
    one, most = b"\x46\x03x\x00\x01", MAX_TOKENS // 3 - 2

    decode(HEADER + b"\x45" + one * most + b"\x01", sparse=True)
    with pytest.raises(WbxmlError, match="too many tokens"):
        decode(HEADER + b"\x45" + one * (most + 2) + b"\x01", sparse=True)


@pytest.mark.parametrize(
    "skipped",
    [b"\x05", b"\x54\x03a\0\x01", b"\0\x02\x54\x03a\0\x01", b"\x4a\x4b\x05\x01\x01", b"\x4a\xc3\x02\x01\0\x01"],
)
def test_elements_that_are_skipped_at_once_count_by_their_octets(skipped: bytes) -> None:
    # 45 5D: AirSync:Sync, AirSync:ApplicationData
    size = MAX_TOKENS * OCTETS_OF_A_TOKEN

    decode(HEADER + b"\x45\x5d" + skipped * (size // 2 // len(skipped)) + b"\x01\x01", sparse=True)
    with pytest.raises(WbxmlError, match="too many tokens"):
        decode(HEADER + b"\x45\x5d" + skipped * (size // len(skipped)) + b"\x01\x01", sparse=True)


def test_what_cannot_be_skipped_at_once_counts_as_a_token_more() -> None:
    # 4A 03 61 00 03 61 00 01: AirSyncBase:Body with two texts, which are four tokens
    one, most = b"\x4a\x03a\0\x03a\0\x01", MAX_TOKENS // 5 - 2

    decode(HEADER + b"\x45\x5d" + one * most + b"\x01\x01", sparse=True)
    with pytest.raises(WbxmlError, match="too many tokens"):
        decode(HEADER + b"\x45\x5d" + one * (most + 2) + b"\x01\x01", sparse=True)


def test_reads_the_items_of_twenty_folders_with_bodies_that_nobody_asked_for() -> None:
    # 5D: AirSync:ApplicationData; 00 02: Email; 54: Subject; 00 11 4A 4B: AirSyncBase:Body with Data
    body = b"\0\x11\x4a\x4b\x03" + b"a" * 3000 + b"\0\x01\x01"
    item = b"\0\0\x5d\0\x02" + (b"\x54\x03" + b"a" * 60 + b"\0\x01") * 20 + body + b"\x01"

    assert len(decode(HEADER + b"\x45" + item * 20 * 25 + b"\x01", sparse=True).children) == 20 * 25


def test_no_pattern_has_a_possessive_group() -> None:
    # Python 3.11.0 to 3.11.4 go on at the wrong octet after one [CPython: gh-106052].
    assert not re.search(r"\)[*+?}]\+|\(\?>", Path(inspect.getfile(decode)).read_text())


def test_a_hostile_answer_is_not_skipped_to_its_end_at_once() -> None:
    # 54: Subject, then switches of pages to the end.
    body = HEADER + b"\x45\x5d\x54\x03a\0\x01" + b"\0\x02" * (MAX_SIZE // 2 - 20)

    with pytest.raises(WbxmlError, match="too many tokens") as caught:
        decode(body, sparse=True)

    assert caught.value.offset < MAX_TOKENS * OCTETS_OF_A_TOKEN + 2 * UNREAD


@pytest.mark.parametrize(
    "unread",
    [
        b"\x4a\x46\x031\0\x01\x4b\x03text\0\x01\x0c\x01",  # elements in it
        b"\x4e\x4f\x55\x03a\0\x01\x0f\x01\x01",  # elements in these, with tags that are kept elsewhere
        b"\x4a\x4a\x4a\x4a\x031\0\x01\x01\x01\x01",  # deeper ones, which are not skipped at once
        b"\x4a\xc3\x05\0\x01\x01\0a\x01",  # an OPAQUE with octets that mean something elsewhere
        b"\x4a\xc3\x81\x00" + bytes(128) + b"\x01",  # a long one
        b"\x4a\0\x02\x54\x03a\0\x01\0\x11\x01",  # a switch of pages within
        b"\x4a\x01",
        b"\x4a\x03\0\x01",
        b"\x4a\x4b\x03" + b"a" * 200 + b"\0\x01\x01",  # a text that is too long to be skipped at once
    ],
)
def test_whatever_is_in_an_element_that_is_skipped_what_follows_is_read(unread: bytes) -> None:
    # 00 11: AirSyncBase; 00 02: Email; 55: Read
    item = b"\0\x11" + unread + b"\0\x02\x55\x030\0\x01\0\x11" + unread
    body = HEADER + b"\x45\x5d" + item + b"\x01\0\0\x4b\x035\0\x01\x01"

    data, key = decode(body, sparse=True).children

    assert data.children == (Element("Email", "Read", text="0"),)
    assert key == AIRSYNC("SyncKey", "5")


def test_pages_are_switched_among_elements_that_are_skipped_at_once() -> None:
    # 00 02: Email; 54: Subject; 00 11: AirSyncBase; 4B: Data; 55: Read
    skipped = b"\0\x02\x54\x03a\0\x01\0\x11\x4b\x03b\0\x01\0\x02\x54\x03c\0\x01\0\x02"
    body = HEADER + b"\x45\x5d" + skipped + b"\x55\x030\0\x01" + b"\x01\x01"

    kept = decode(body, sparse=True).children[0].children

    assert kept == (Element("Email", "Read", text="0"),)


def test_refuses_a_document_larger_than_the_limit() -> None:
    with pytest.raises(WbxmlError, match="too large"):
        decode(bytes(MAX_SIZE + 1))


@pytest.mark.parametrize(
    ("body", "factor"),
    [
        (HEADER + b"\x45\xc3\x8f\xff\xff\xff\x7f" + bytes(2000), 10),  # claims 4 GiB
        (b"\x03\x01\x6a\x8f\xff\xff\xff\x7f" + bytes(2000), 10),  # a string table of 4 GiB
        (HEADER + b"\x45" + b"\x05" * 4_000, 20),
        (HEADER + b"\x45" + b"\x05\x01" * 4_000, 20),
        (HEADER + b"\x45" + b"\x4b\x03a\x00\x01" * 4_000 + b"\x01", 50),
        (HEADER + b"\x45" + b"\x4b\x05\x01" * 4_000 + b"\x01", 70),
        (HEADER + b"\x45" + b"\x03a\x00" * 4_000 + b"\x01", 10),
    ],
)
def test_takes_memory_in_proportion_to_the_input(body: bytes, factor: int) -> None:
    tracemalloc.start()
    try:
        never_surprises(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < factor * len(body)


def test_sparse_keeps_of_an_item_what_tells_a_new_mail_from_an_old_one() -> None:
    tree = decode(body_of("sync-response-one-add-v14"), sparse=True)

    items = [element for element in walk(tree) if element.tag == "ApplicationData"]
    assert items == [
        AIRSYNC(
            "ApplicationData",
            Element("Email", "DateReceived", text="2025-03-04T05:06:07.000Z"),
            Element("Email", "Read", text="0"),
        )
    ]


def test_sparse_changes_nothing_outside_of_items() -> None:
    body = body_of("sync-response-two-adds-more")
    outside = [element.tag for element in walk(decode(body, sparse=True)) if element.page == "AirSync"]

    assert outside == [element.tag for element in walk(decode(body)) if element.page == "AirSync"]
    assert "MoreAvailable" in outside


@given(st.lists(TREES, max_size=6))
@example(
    [Element("Email", "Subject", text="canary"), Element("Email", "Read", (Element("Email", "Subject", text="x"),))]
)
def test_sparse_never_builds_the_text_of_content(content: list[Element]) -> None:
    kept = {("Email", "Read"), ("Email", "DateReceived")}
    item = AIRSYNC("Sync", AIRSYNC("ServerId", "5:1"), AIRSYNC("ApplicationData", *content), AIRSYNC("Status", "1"))

    tree = decode(encode(item), sparse=True)

    server_id, data, status = tree.children
    assert (server_id.string, status.string) == ("5:1", "1")
    assert [(e.page, e.tag, e.text) for e in data.children] == [
        (e.page, e.tag, e.text) for e in content if (e.page, e.tag) in kept
    ]
    assert all(not element.children for element in data.children)


def test_sparse_drops_text_between_the_properties_of_an_item() -> None:
    body = HEADER + b"\x45\x5d\x03canary\x00\xc3\x06canary\x01\x01"

    assert decode(body, sparse=True) == AIRSYNC("Sync", AIRSYNC("ApplicationData"))


def test_sparse_drops_the_names_of_folders() -> None:
    tree = decode(body_of("foldersync-response-changes"), sparse=True)

    assert not [element for element in walk(tree) if element.tag == "DisplayName"]
    assert FOLDERHIERARCHY("ServerId", "14") in list(walk(tree))


def test_sparse_reads_a_document_without_items_as_usual() -> None:
    body = body_of("ping-response-status5-heartbeat60")

    assert decode(body, sparse=True) == PING("Ping", PING("Status", "5"), PING("HeartbeatInterval", "60"))


def test_sparse_reads_an_item_as_the_root() -> None:
    assert decode(encode(AIRSYNC("ApplicationData", Element("Email", "Subject", text="x"))), sparse=True) == AIRSYNC(
        "ApplicationData"
    )
