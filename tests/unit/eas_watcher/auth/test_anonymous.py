from eas_watcher.auth.anonymous import NoCredential


def test_nothing_is_shown_but_a_scheme_if_one_is_named() -> None:
    assert NoCredential("ann").authorization() is None
    assert NoCredential("ann", "Bearer").authorization() == "Bearer"
