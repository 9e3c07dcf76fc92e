"""What a phone shows. Times are seconds of its clock."""

from dataclasses import replace
from itertools import count
from typing import Any, Final

import pytest

from relay.domain.model import Mode, Platform
from relay.sandbox.phone.push import Push
from relay.sandbox.phone.system import DAY, HOUR, Bucket, Happening, Phone, What, text_of

MAIL: Final = Push(
    Platform.APNS,
    "r1",
    "new-items",
    "email",
    title="New mail",
    body="There is.",
    loud=True,
    collapse="r1.email",
    lifetime=3 * DAY,
)
CALENDAR: Final = replace(MAIL, cls="calendar", title="Calendar", collapse="r1.calendar")
SILENT: Final = replace(MAIL, loud=False, certain=False, title="", body="")
ANDROID: Final = replace(MAIL, platform=Platform.FCM, title="", body="", collapse="r1.items")
WEBPUSH: Final = replace(ANDROID, platform=Platform.WEBPUSH, collapse="topic")


def whats(happened: list[Happening]) -> list[What]:
    return [each.what for each in happened]


def iphone(**fields: Any) -> Phone:
    return replace(Phone(Platform.APNS, "r1"), **fields)


def android(**fields: Any) -> Phone:
    return replace(Phone(Platform.FCM, "r1"), **fields)


def test_a_newer_push_of_the_same_collapse_id_replaces_the_banner() -> None:
    phone = iphone()

    assert whats(phone.receive(MAIL, 1)) == [What.BANNER]
    assert whats(phone.receive(replace(MAIL, body="There is more."), 2)) == [What.REPLACED]
    assert whats(phone.receive(CALENDAR, 3)) == [What.BANNER]

    assert [banner.body for banner in phone.banners.values()] == ["There is more.", "There is."]
    assert phone.open_app(4) == []
    assert phone.banners == {}


def test_an_iphone_shows_alerts_of_a_registration_that_its_app_has_not_any_more() -> None:
    assert whats(iphone(registration="").receive(MAIL, 1)) == [What.BANNER]


def test_background_pushes_have_a_budget_and_the_rest_comes_later() -> None:
    phone = iphone()
    for moment in (0, 60, 120):
        assert whats(phone.receive(SILENT, moment)) == [What.WOKE]

    held = phone.receive(SILENT, 180)
    newer = phone.receive(SILENT, 240)

    assert whats(held) == [What.HELD]
    assert "background pushes" in held[0].why
    assert whats(newer) == [What.SUPERSEDED, What.HELD]
    assert whats(phone.receive(MAIL, 300)) == [What.SUPERSEDED, What.BANNER]  # alerts have no budget
    assert phone.banners

    assert whats(phone.receive(replace(SILENT, collapse="other"), 360)) == [What.HELD]
    later = phone.advance(2 * HOUR)
    assert [(each.what, each.at) for each in later] == [(What.WOKE, HOUR)]


def test_of_three_days_off_the_newest_of_each_collapse_id_arrives() -> None:
    phone = iphone()
    phone.turn_off(0)
    happened = [each for moment in (1, 2) for each in phone.receive(replace(MAIL, body=str(moment)), moment)]
    happened += phone.receive(CALENDAR, 3)

    assert whats(happened) == [What.HELD, What.SUPERSEDED, What.HELD, What.HELD]
    assert happened[0].why == "the phone is off"
    assert whats(phone.turn_on(2.9 * DAY)) == [What.BANNER, What.BANNER]
    assert [banner.body for banner in phone.banners.values()] == ["2", "There is."]


def test_what_ran_out_while_the_phone_was_off_never_arrives() -> None:
    phone = iphone()
    phone.turn_off(0)
    phone.receive(MAIL, 10)
    phone.receive(replace(CALENDAR, lifetime=HOUR), 20)

    assert [(each.what, each.at) for each in phone.advance(DAY)] == [(What.EXPIRED, 20 + HOUR)]
    assert [(each.what, each.at) for each in phone.turn_on(4 * DAY)] == [(What.EXPIRED, 10 + 3 * DAY)]
    assert phone.banners == {}


def test_a_push_that_is_not_kept_arrives_at_once_or_never() -> None:
    phone = iphone()
    now_or_never = replace(MAIL, lifetime=0.0)

    assert whats(phone.receive(now_or_never, 1)) == [What.BANNER]
    phone.turn_off(2)
    assert whats(phone.receive(now_or_never, 3)) == [What.EXPIRED]
    assert phone.turn_on(4) == []


def test_apns_may_keep_one_push_of_the_app() -> None:
    phone = iphone(keeps_one=True)
    phone.turn_off(0)

    assert whats(phone.receive(MAIL, 1)) == [What.HELD]
    assert whats(phone.receive(CALENDAR, 2)) == [What.SUPERSEDED, What.HELD]
    assert whats(phone.turn_on(3)) == [What.BANNER]
    assert whats(phone.receive(MAIL, 4)) == [What.BANNER]


def test_doze_lets_high_priority_through_and_holds_the_rest_until_a_window() -> None:
    phone = android()
    phone.doze(100)

    assert whats(phone.receive(ANDROID, 110)) == [What.BANNER]
    held = phone.receive(replace(ANDROID, loud=False, certain=False), 120)
    assert (whats(held), held[0].why) == ([What.HELD], "the phone dozes")
    assert [(each.what, each.at) for each in phone.advance(100 + 2 * HOUR)] == [(What.WOKE, 100 + HOUR)]
    assert phone.window == 100 + 3 * HOUR


def test_an_app_that_is_rarely_used_has_a_quota_of_high_priority() -> None:
    phone = android(bucket=Bucket.RARE)
    phone.doze(0)
    shown = [whats(phone.receive(replace(ANDROID, collapse=None), moment)) for moment in range(1, 6)]
    assert shown == [[What.BANNER]] + [[What.REPLACED]] * 4

    held = phone.receive(ANDROID, 10)

    assert (whats(held), held[0].why) == ([What.HELD], "the phone dozes and its quota of high priority is used up")
    assert whats(phone.wake(20)) == [What.REPLACED]
    assert whats(phone.receive(ANDROID, 2 * DAY)) == [What.REPLACED]


def test_a_push_that_runs_out_before_the_window_never_arrives() -> None:
    phone = android()
    phone.doze(0)
    phone.receive(replace(ANDROID, loud=False, lifetime=60.0), 1)

    assert [(each.what, each.at) for each in phone.advance(2 * HOUR)] == [(What.EXPIRED, 61)]


def test_fcm_keeps_four_collapse_keys() -> None:
    phone = android()
    phone.turn_off(0)
    happened = [each for key in range(5) for each in phone.receive(replace(ANDROID, collapse=f"key{key}"), key)]

    assert whats(happened) == [What.HELD] * 5 + [What.DISCARDED]
    assert len(phone.turn_on(10)) == 4


def test_fcm_gives_up_all_messages_beyond_a_hundred() -> None:
    phone = android()
    phone.turn_off(0)
    moments = count()
    plain = replace(ANDROID, collapse=None)
    for _ in range(100):
        assert whats(phone.receive(plain, next(moments))) == [What.HELD]

    last = phone.receive(plain, next(moments))

    assert whats(last) == [What.HELD] + [What.DISCARDED] * 101
    assert phone.missed
    assert phone.turn_on(1000) == []
    phone.open_app(1001)
    assert not phone.missed


@pytest.mark.parametrize("push", [ANDROID, WEBPUSH])
def test_the_app_makes_banners_of_what_its_user_asked_for(push: Push) -> None:
    def shown(each: Push, mode: Mode = Mode.ALERT, registration: str = "r1") -> list[What]:
        return whats(Phone(push.platform, registration, mode).receive(each, 1))

    assert shown(push) == [What.BANNER]
    assert shown(push, Mode.BACKGROUND) == [What.WOKE]
    assert shown(replace(push, certain=False)) == [What.WOKE]
    assert shown(replace(push, kind="attention", cls=""), Mode.BACKGROUND) == [What.BANNER]
    assert shown(replace(push, kind="challenge", cls="")) == [What.WOKE]
    assert shown(push, registration="") == [What.FOREIGN]


def test_a_webpush_message_replaces_one_of_its_topic_that_waits() -> None:
    phone = Phone(Platform.WEBPUSH, "r1")
    phone.turn_off(0)
    assert whats(phone.receive(WEBPUSH, 1)) == [What.HELD]
    assert whats(phone.receive(WEBPUSH, 2)) == [What.SUPERSEDED, What.HELD]


def test_a_removed_app_shows_nothing_of_what_waited() -> None:
    phone = iphone()
    phone.receive(MAIL, 1)
    phone.turn_off(2)
    phone.receive(CALENDAR, 3)
    phone.forget(4)

    assert phone.turn_on(5) == []
    assert phone.banners == {}


@pytest.mark.parametrize(
    ("push", "text"),
    [
        (MAIL, ("New mail", "There is.")),
        (ANDROID, ("New mail", "")),
        (replace(ANDROID, cls="", kind="attention"), ("Attention needed", "")),
        (replace(ANDROID, cls="", kind="later"), ("Notification", "")),
    ],
)
def test_a_banner_has_the_text_of_the_push_or_of_the_app(push: Push, text: tuple[str, str]) -> None:
    assert text_of(push) == text
