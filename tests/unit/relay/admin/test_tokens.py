"""The tokens of the admin API."""

from relay.admin.tokens import AdminToken, Scope, digest_of, find

READER = AdminToken("monitor", digest_of("r" * 40), frozenset({Scope.READ}))
ACTOR = AdminToken("helpdesk", digest_of("a" * 40), frozenset(Scope))


def test_a_token_is_found_by_what_was_shown() -> None:
    assert find((READER, ACTOR), "a" * 40) is ACTOR
    assert find((READER, ACTOR), "r" * 40) is READER


def test_another_text_is_no_token() -> None:
    assert find((READER, ACTOR), "") is None
    assert find((READER, ACTOR), "a" * 39) is None
    assert find((), "a" * 40) is None


def test_a_token_does_not_print() -> None:
    assert "digest" not in repr(ACTOR)


def test_bytes_that_are_no_text_are_no_token() -> None:
    tokens = (AdminToken("monitor", digest_of("r" * 40), frozenset({Scope.READ})),)

    assert find(tokens, b"\xff".decode(errors="surrogateescape") * 40) is None
