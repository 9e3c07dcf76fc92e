from eas_watcher.commands.cookies import KEPT, LENGTH, header, merge


def test_returns_what_the_server_set() -> None:
    kept = merge({}, ("X-BackEndCookie=abc123; expires=Tue, 01-Dec-2026 00:00:00 GMT; path=/; secure; HttpOnly",))

    assert header(kept) == "X-BackEndCookie=abc123"


def test_a_new_value_replaces_the_old_one() -> None:
    assert merge({"a": "1", "b": "2"}, ("a=3; path=/",)) == {"b": "2", "a": "3"}


def test_an_emptied_or_expired_cookie_is_forgotten() -> None:
    assert merge({"a": "1", "b": "2"}, ("a=", "b=9; Max-Age=0")) == {}


def test_nothing_set_changes_nothing() -> None:
    kept = {"a": "1"}

    assert merge(kept, ()) is kept


def test_a_malformed_cookie_is_ignored() -> None:
    assert merge({"a": "1"}, ("\x00=1", "nonsense", "x\x01y=2", "b/c=3")) == {"a": "1"}


def test_keeps_a_bounded_number_of_bounded_values() -> None:
    kept = merge({}, tuple(f"c{n}=v" for n in range(100)))

    assert len(kept) == KEPT
    assert "big" not in merge({}, (f"big={'x' * (LENGTH + 1)}",))
