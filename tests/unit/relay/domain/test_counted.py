import pytest

from relay.domain.counted import counted


@pytest.mark.parametrize(
    ("number", "word", "said"),
    [
        (0, "push", "0 pushes"),
        (1, "push", "1 push"),
        (2, "mailbox", "2 mailboxes"),
        (1, "registration", "1 registration"),
        (5, "certificate", "5 certificates"),
    ],
)
def test_a_number_of_things_is_said_with_their_name(number: int, word: str, said: str) -> None:
    assert counted(number, word) == said
