"""The chain of the audit log: what was changed, moved or removed is found, and a user is found by the keyed hash."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from relay.admin.audit import START, Act, AuditKey, Stamp, What, new_act, verify

NOW = datetime(2026, 11, 24, 8, 30, 15, 250_000, tzinfo=UTC)
KEY, OLDER = AuditKey(b"k" * 32), AuditKey(b"o" * 32)
STAMP = Stamp("cleo", "cli", NOW, (KEY, OLDER))
KEYS = {KEY.id: KEY, OLDER.id: OLDER}


def log(*stamps: Stamp) -> list[Act]:
    acts: list[Act] = []
    last = (0, START)
    for stamp in stamps:
        acts.append(new_act(stamp, What.MAILBOX_PAUSE, last, server="office", user="ann@example.com"))
        last = (acts[-1].number, acts[-1].digest)
    return acts


def test_a_whole_log_has_no_faults_and_says_its_end() -> None:
    acts = log(STAMP, replace(STAMP, keys=(OLDER,)), STAMP)

    found = verify(acts, KEYS)

    assert (found.entries, found.end, found.faults) == (3, acts[-1].digest, ())
    assert verify([], KEYS).entries == 0


@pytest.mark.parametrize(
    "change",
    [
        {"who": "nobody"},
        {"via": "api"},
        {"at": NOW + timedelta(seconds=1)},
        {"what": "mailbox.resume"},
        {"server": "other"},
        {"subject": ""},
        {"detail": "more"},
    ],
    ids=str,
)
def test_an_entry_that_was_changed_is_found(change: dict[str, object]) -> None:
    first, second, third = log(STAMP, STAMP, STAMP)

    found = verify([first, replace(second, **change), third], KEYS)  # type: ignore[arg-type]

    assert found.faults == ("entry 2: it, or the one before it, was changed",)


def test_an_entry_that_is_gone_is_found() -> None:
    first, _, third = log(STAMP, STAMP, STAMP)

    assert "entry 3: follows 1, so entries in between are gone" in verify([first, third], KEYS).faults
    assert "entry 3: follows 0, so entries in between are gone" in verify([third], KEYS).faults


def test_an_entry_whose_key_is_not_here_is_said_to_be_unchecked() -> None:
    assert verify(log(STAMP), {}).faults == (f"entry 1: its key {KEY.id} is not here, so it cannot be checked",)


def test_a_moment_counts_whatever_its_time_zone() -> None:
    [act] = log(STAMP)
    elsewhere = replace(act, at=act.at.astimezone(timezone(timedelta(hours=2))))

    assert verify([elsewhere], KEYS).faults == ()


def test_all_spellings_of_a_user_have_one_hash_that_tells_nothing() -> None:
    hashes = {KEY.subject(user) for user in ("ann@example.com", "ANN", r"EXAMPLE\Ann")}

    assert len(hashes) == 1
    assert "ann" not in hashes.pop()
    assert KEY.subject("ann") != OLDER.subject("ann")
    assert STAMP.subjects("ann") == {KEY.subject("ann"), OLDER.subject("ann")}


def test_an_act_about_nobody_has_no_subject() -> None:
    assert new_act(STAMP, What.RESTORED, (0, START)).subject == ""


def test_keys_do_not_print() -> None:
    assert "kkk" not in repr(STAMP)
