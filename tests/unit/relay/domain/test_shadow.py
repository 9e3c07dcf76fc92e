from datetime import timedelta
from typing import Any

import pytest

from relay.domain.model import Mark
from relay.domain.reasons import Cause
from relay.domain.shadow import FORMER, SLACK, PushMode, Shadow
from tests.unit.relay.push.pushes import BEGAN, due_push

LIVE = PushMode()
DARK = PushMode(shadow=True)
MAIL, CHAT = "com.example.mail", "com.example.chat"
ONE_SERVER = PushMode(shadow=True, live_servers=frozenset({"main"}))
SOON = BEGAN + timedelta(minutes=1)


def held(shadow: Shadow, server: str | None = None, **changes: Any) -> bool:
    return shadow.holds_back(due_push(app=MAIL, **changes), server)


@pytest.mark.parametrize(
    ("mode", "app", "server", "held_back"),
    [
        (LIVE, MAIL, "main", False),
        (PushMode(live_apps=frozenset({CHAT})), MAIL, "main", False),
        (DARK, MAIL, "main", True),
        (DARK, MAIL, None, True),
        (PushMode(shadow=True, live_apps=frozenset({MAIL})), MAIL, "main", False),
        (PushMode(shadow=True, live_apps=frozenset({CHAT})), MAIL, "main", True),
        (ONE_SERVER, MAIL, "main", False),
        (ONE_SERVER, MAIL, "branch", True),
        (ONE_SERVER, MAIL, None, True),
        (PushMode(shadow=True, live_apps=frozenset({CHAT}), live_servers=frozenset({"main"})), CHAT, "branch", False),
    ],
)
def test_a_push_leaves_if_its_app_or_its_mail_server_is_live(
    mode: PushMode, app: str, server: str | None, *, held_back: bool
) -> None:
    assert mode.holds_back(app, server) is held_back


def test_operators_read_what_the_mode_means() -> None:
    some = PushMode(shadow=True, live_apps=frozenset({MAIL, CHAT}), live_servers=frozenset({"main"}))

    assert PushMode(live_apps=frozenset({MAIL})).words == ""
    assert DARK.words == "shadow: no push of new items leaves; the timeline has what would have left"
    assert some.words == (
        "shadow: no push of new items leaves but for apps com.example.chat, com.example.mail and mail servers main; "
        "the timeline has what would have left"
    )


@pytest.mark.parametrize(
    "asked", [{"mark": Mark.TEST}, {"mark": Mark.CHALLENGE}, {"mark": Mark.ATTENTION, "cause": Cause.WIPED}]
)
def test_what_an_app_asks_for_and_a_wipe_leave_in_shadow_mode(asked: dict[str, Any]) -> None:
    assert not held(Shadow(DARK), **asked)


@pytest.mark.parametrize("cause", [None, Cause.CREDENTIAL, Cause.BLOCKED])
def test_other_attention_is_held_back(cause: Cause | None) -> None:
    assert held(Shadow(DARK), mark=Mark.ATTENTION, cause=cause)


@pytest.mark.parametrize(
    ("mode", "needed"),
    [
        (LIVE, False),
        (DARK, False),
        (PushMode(shadow=True, live_apps=frozenset({MAIL}), live_servers=frozenset({"main"})), False),
        (ONE_SERVER, True),
    ],
)
def test_the_mail_server_is_needed_only_where_it_decides(mode: PushMode, *, needed: bool) -> None:
    assert Shadow(mode).needs_server(due_push(app=MAIL)) is needed


def test_what_was_set_in_shadow_mode_does_not_leave_later() -> None:
    shadow = Shadow(DARK)
    shadow.follow(LIVE, SOON)

    assert held(shadow, last_at=BEGAN)
    assert not held(shadow, last_at=SOON)
    assert not held(shadow, first_at=BEGAN, last_at=SOON + timedelta(seconds=1))


def test_what_was_set_just_before_the_change_leaves_since_its_commit_may_have_come_after_it() -> None:
    shadow = Shadow(DARK)
    shadow.follow(LIVE, SOON)

    assert not held(shadow, last_at=SOON - SLACK)
    assert held(shadow, last_at=SOON - SLACK - timedelta(microseconds=1))


def test_the_way_back_to_shadow_mode_holds_at_once() -> None:
    shadow = Shadow(LIVE)
    shadow.follow(DARK, SOON)

    assert held(shadow, last_at=BEGAN)
    assert held(shadow, last_at=SOON + timedelta(hours=1))


def test_shadow_mode_is_off_if_it_was_never_on() -> None:
    shadow = Shadow(LIVE)
    assert shadow.off
    shadow.follow(DARK, SOON)
    assert not shadow.off
    shadow.follow(LIVE, SOON)
    assert not shadow.off  # marks of that time are still held back


def test_a_server_that_goes_live_leaves_its_old_marks_behind_too() -> None:
    shadow = Shadow(DARK)
    shadow.follow(ONE_SERVER, SOON)

    assert not shadow.needs_server(due_push(app=MAIL, last_at=BEGAN))
    assert held(shadow, "main", last_at=BEGAN)
    assert shadow.needs_server(due_push(app=MAIL, last_at=SOON))
    assert not held(shadow, "main", last_at=SOON)


def test_a_mode_that_stays_is_no_change_and_few_changes_are_remembered() -> None:
    shadow = Shadow(DARK)
    shadow.follow(PushMode(shadow=True), SOON)
    assert held(shadow, last_at=BEGAN)

    for number in range(FORMER):
        shadow.follow(PushMode(live_apps=frozenset({f"app-{number}"})), SOON)
    assert held(shadow, last_at=BEGAN)
    shadow.follow(LIVE, SOON)
    assert not held(shadow, last_at=BEGAN)
