import pytest

from eas_watcher.wbxml.codepages import CODE_PAGES, FIRST_TOKEN, TOKENS, names_of


def test_names_the_tags_of_known_pages() -> None:
    assert names_of(0, 0x05) == ("AirSync", "Sync")
    assert names_of(2, 0x0F) == ("Email", "DateReceived")
    assert names_of(2, 0x3F) == ("Email", "DisallowNewTimeProposal")
    assert names_of(4, 0x33) == ("Calendar", "DisallowNewTimeProposal")
    assert names_of(14, 0x3B) == ("Provision", "AccountOnlyRemoteWipe")
    assert names_of(22, 0x17) == ("Email2", "Send")


def test_unassigned_tokens_and_unknown_pages_get_synthetic_names() -> None:
    assert names_of(17, 0x09) == ("AirSyncBase", "tag-09")
    assert names_of(0, 0x3F) == ("AirSync", "tag-3F")
    assert names_of(5, 0x0A) == ("page-5", "tag-0A")


@pytest.mark.parametrize("page", CODE_PAGES)
def test_every_token_of_a_page_fits_into_six_bits_and_has_a_name_of_its_own(page: int) -> None:
    name, tags = CODE_PAGES[page]
    words = [tag for tag in tags.split() if tag != "-"]

    assert len(words) == len(set(words))
    assert all(FIRST_TOKEN <= TOKENS[name, tag][1] <= 0x3F for tag in words)
    assert all(names_of(*TOKENS[name, tag]) == (name, tag) for tag in words)
