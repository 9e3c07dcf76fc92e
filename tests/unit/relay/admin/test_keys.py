"""What administrators see of sealing keys, and when one may be made the present one or taken out of use."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from relay.admin.keys import KeyState, ShownKey, document, in_use, left_to_do, rotatable, survey
from relay.domain.model import Role
from relay.domain.sealing_keys import KeyHolder, KeyOrigin, KeySource
from tests.contract.samples import LATER, NOW

A, B, C = "aa" * 8, "bb" * 8, "cc" * 8
OLD = KeySource(A, KeyOrigin.FILE, "/keys/sealing-private.pem", NOW)
NEW = KeySource(B, KeyOrigin.FILE, f"/keys/sealing-private-{B}.pem", LATER)
WATCH = KeyHolder("watch-1", Role.WATCH, frozenset({A}), A)
API = KeyHolder("api-1", Role.API, frozenset(), A)


def head(key: str) -> bytes:
    return b"\x02" + bytes.fromhex(key)


def shown(
    *sources: KeySource, counts: dict[bytes, tuple[int, int]] | None = None, holders: Sequence[KeyHolder] = ()
) -> tuple[ShownKey, ...]:
    return survey(sources, sources[0].id, {head(A): (3, 1)} if counts is None else counts, holders)


def test_each_key_is_shown_with_where_it_is_and_what_is_sealed_for_it() -> None:
    elsewhere = KeyHolder("watch-2", Role.WATCH, frozenset({C}), C)
    counts = {head(A): (3, 1), head("dd" * 8): (2, 0), b"\x01" + b"random77": (1, 0), b"\x01" + b"other778": (1, 1)}

    found = shown(OLD, NEW, counts=counts, holders=[WATCH, API, elsewhere])

    assert [(key.id, key.state, key.records) for key in found] == [
        (A, KeyState.PRESENT, 4),
        (B, KeyState.OPENS, 0),
        (C, KeyState.ELSEWHERE, 0),
        ("dd" * 8, KeyState.MISSING, 2),
        ("older-version", KeyState.ELSEWHERE, 3),
    ]
    assert document(found[0]) == {
        "id": A,
        "state": "present",
        "origin": "file",
        "where": "/keys/sealing-private.pem",
        "made_at": NOW.isoformat(timespec="seconds"),
        "credentials": 3,
        "candidates": 1,
        "opened_by": ["watch-1"],
        "sealed_by": ["watch-1", "api-1"],
    }
    assert document(found[2])["origin"] is None


def test_what_may_not_be_counted_is_not_shown_as_nothing() -> None:
    (key,) = survey((), A, None, ())

    assert (key.credentials, key.candidates, key.records) == (None, None, None)


def test_a_key_that_nobody_has_is_named_with_the_way_out() -> None:
    (told,) = left_to_do(shown(OLD, counts={head(B): (2, 1)}), [])

    assert told.startswith(f"3 records are sealed for {B}, which no process has: restore that key")


def test_what_is_left_to_do_names_the_processes() -> None:
    assert left_to_do(shown(OLD, holders=[WATCH, API]), [WATCH, API]) == []

    told = left_to_do(shown(NEW, OLD, holders=[WATCH, API]), [WATCH, API])

    lagging = f"seals with {A}, this host with {B}: rotate the older one"
    assert [each.partition(", on an api host")[0].partition(": put its")[0] for each in told] == [
        f"watch-1 cannot open {B}",
        f"watch-1 {lagging}",
        f"api-1 {lagging}",
        f"4 records are still sealed for {A}: the watch role seals them again",
    ]


def test_nothing_is_asked_for_a_process_that_was_killed() -> None:
    killed = replace(WATCH, leased=False)

    told = left_to_do(shown(NEW, OLD, counts={}, holders=[killed]), [killed])

    assert told == [f"watch-1 cannot open {B}, and starts or has ended without a word: look again in a minute or two"]


def test_the_newer_key_becomes_the_present_one() -> None:
    chosen = rotatable(shown(OLD, NEW), None)

    assert isinstance(chosen, ShownKey)
    assert chosen.id == B
    assert "no key is newer" in str(rotatable(shown(NEW, OLD), None))
    another = KeySource(C, KeyOrigin.FILE, "/keys/c.pem", LATER + timedelta(hours=1))
    assert rotatable(shown(OLD, NEW, another), None) == (
        f"several keys are newer than the present one: name one of {B}, {C}"
    )
    unknown = KeySource(A, KeyOrigin.ENVIRONMENT, "environment:KEY", None)
    assert "no key is newer" in str(rotatable(shown(unknown, NEW), None)), "the age of the present one is unknown"


def test_a_key_that_is_named_becomes_the_present_one_if_its_private_half_is_here() -> None:
    keys = shown(NEW, OLD, counts={head(C): (1, 0)})

    assert rotatable(keys, A) is keys[1], "the way back to a former key is open"
    assert rotatable(keys, B) is keys[0]
    for wanted in (C, "ee" * 8):
        assert rotatable(keys, wanted) == (
            f"this host has no private key {wanted}: `relay keys list` shows those that it has"
        )


@pytest.mark.parametrize(
    ("keys", "obstacle"),
    [
        (shown(OLD, NEW), "is the present key"),
        (shown(NEW, counts={head(A): (1, 0)}), "this host has no private key"),
        (shown(NEW, OLD, holders=[API]), "api-1 still seals with"),
        (shown(NEW, OLD), "3 credentials and 1 that wait for their check are sealed for"),
        (survey((NEW, OLD), B, None, ()), "use that of the watch role"),
        (shown(NEW), "this host has no private key"),
    ],
)
def test_a_key_that_is_needed_is_not_taken_out_of_use(keys: tuple[ShownKey, ...], obstacle: str) -> None:
    assert obstacle in str(in_use(keys, A))


def test_a_key_for_which_nothing_is_sealed_any_more_is_taken_out_of_use() -> None:
    assert in_use(shown(NEW, OLD, counts={head(B): (4, 0)}), A) is None
