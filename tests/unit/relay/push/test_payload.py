import json
import re
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from yarl import URL

from eas_watcher.names import MailboxId
from relay.domain.model import OWN_TEXTS, DuePush, Environment, Mark, Mode, Platform, RegistrationId
from relay.domain.reasons import Cause
from relay.domain.receipts import PushId
from relay.push.payload import (
    CONFIRMED,
    IN_DOUBT,
    LONGEST_PAGE,
    MOST,
    SOME_OWN,
    TEXTS,
    ApnsMessage,
    FcmMessage,
    Notice,
    WebAppMessage,
    WebAppPages,
    WebPushMessage,
    former_apns,
    former_fcm,
)
from relay.push.webpush.encryption import LENGTH, LONGER
from tests.unit.relay.push.pushes import due_push

MAY_LEAVE = {"mark", "count", "certain", "registration_id", "mode", "locale", "cause", "nonce"}
NONCE = "o0Z3kqXb1vT9sWm2cYgRPA"

MOMENTS = st.datetimes(timezones=st.just(UTC), min_value=datetime(2020, 1, 1), max_value=datetime(2040, 1, 1))  # noqa: DTZ001  # Hypothesis wants naive bounds
IDS = st.from_regex(r"[A-Za-z0-9_-]{1,54}", fullmatch=True).map(RegistrationId)
PUSHES = st.builds(
    DuePush,
    registration_id=IDS,
    mark=st.sampled_from(Mark),
    count=st.integers(),
    certain=st.booleans(),
    generation=st.integers(0),
    attempts=st.integers(0),
    first_at=MOMENTS,
    platform=st.sampled_from(Platform),
    app=st.text(),
    environment=st.sampled_from(Environment),
    device_token=st.text(),
    token_since=MOMENTS,
    mode=st.sampled_from(Mode),
    locale=st.text(max_size=12) | st.just(OWN_TEXTS),
    mailbox_id=st.from_regex(r"[A-Za-z0-9_-]{16}", fullmatch=True).map(MailboxId),
    cause=st.sampled_from([None, *Cause]),
    nonce=st.from_regex(r"[A-Za-z0-9_-]{22}", fullmatch=True),
)


def rendered(push: DuePush) -> str:
    notice = Notice.of(push)
    apns, fcm = ApnsMessage(notice), FcmMessage(notice)
    return json.dumps([apns.body, apns.push_type, apns.priority, fcm.data, fcm.android, notice.lifetime])


@given(PUSHES, PUSHES)
def test_nothing_but_the_allowed_fields_can_change_a_body(push: DuePush, other: DuePush) -> None:
    foreign = {field.name: getattr(other, field.name) for field in fields(DuePush) if field.name not in MAY_LEAVE}

    assert rendered(replace(push, **foreign)) == rendered(push)


@given(PUSHES)
@settings(max_examples=50)
def test_the_text_that_leaves_is_the_body_as_json(push: DuePush) -> None:
    message = ApnsMessage(Notice.of(push))
    shape = message.shape

    assert message.rendered == json.dumps(message.body, ensure_ascii=False)
    assert (shape.push_type, shape.priority) == (message.push_type, message.priority)
    assert shape.lifetime == message.notice.lifetime


def test_a_notice_has_no_field_for_anything_else() -> None:
    assert {field.name for field in fields(Notice)} == MAY_LEAVE | {"id"}


@given(PUSHES)
def test_bodies_are_small_and_collapse_ids_fit(push: DuePush) -> None:
    notice = Notice.of(push, receipt=True)

    # 100 bodies fit into HTTP/2's first window of 65,535 bytes.
    assert len(json.dumps(ApnsMessage(notice).body, ensure_ascii=False).encode()) <= 655
    assert len(notice.collapse_id.encode()) <= 64


@given(PUSHES)
def test_a_background_push_never_has_priority_10(push: DuePush) -> None:
    message = ApnsMessage(Notice.of(push))

    assert (message.push_type, message.priority) in {("alert", 10), ("background", 5)}


@pytest.mark.parametrize(
    "mark",
    [Mark.EMAIL, Mark.CALENDAR, Mark.CONTACTS, Mark.TASKS, Mark.NOTES],
)
def test_new_items_ring_on_ios_and_let_the_extension_fetch(mark: Mark) -> None:
    message = ApnsMessage(Notice.of(due_push(mark=mark, count=3, locale="xx")))

    assert (message.push_type, message.priority, message.notice.lifetime) == ("alert", 10, 259_200)
    aps = message.body["aps"]
    assert isinstance(aps, dict)
    assert set(aps) == {"alert", "sound", "mutable-content"}
    assert message.body["relay"] == {
        "v": 1,
        "registration": "registration-1",
        "kind": "new-items",
        "class": mark.value,
        "count": 3,
    }


def test_the_whole_alert_body_is_the_documented_template() -> None:
    assert ApnsMessage(Notice.of(due_push())).body == {
        "aps": {
            "alert": {"title": "New mail", "body": "There is new mail in your mailbox."},
            "sound": "default",
            "mutable-content": 1,
        },
        "relay": {"v": 1, "registration": "registration-1", "kind": "new-items", "class": "email", "count": 2},
    }


@pytest.mark.parametrize("mark", [mark for mark in Mark if mark is not Mark.CHALLENGE])
def test_an_app_may_have_texts_of_its_own(mark: Mark) -> None:
    message = ApnsMessage(Notice.of(due_push(mark=mark, locale=OWN_TEXTS, count=3)))

    alert: dict[str, object] = {"title-loc-key": f"relay.{mark.value}.title", "loc-key": f"relay.{mark.value}.body"}
    if mark not in {Mark.ATTENTION, Mark.TEST}:
        alert["loc-args"] = ["3"]
    assert message.body["aps"] == {
        "alert": alert,
        "sound": "default",
        "mutable-content": 1,
        "category": f"relay.{mark.value}",
        "thread-id": "registration-1",
    }
    assert (message.push_type, message.priority) == ("alert", 10)


def test_the_apps_own_texts_tell_a_doubtful_attention_and_stay_out_of_background_pushes() -> None:
    doubtful = due_push(mark=Mark.ATTENTION, certain=False, locale=OWN_TEXTS)
    silent = due_push(mode=Mode.BACKGROUND)

    assert '"relay.attention-in-doubt.body"' in ApnsMessage(Notice.of(doubtful)).rendered
    own = replace(silent, locale=OWN_TEXTS)
    assert ApnsMessage(Notice.of(own)).rendered == ApnsMessage(Notice.of(silent)).rendered


def test_background_pushes_show_and_ring_nothing() -> None:
    message = ApnsMessage(Notice.of(due_push(mode=Mode.BACKGROUND)))

    assert (message.push_type, message.priority) == ("background", 5)
    assert message.body == {
        "aps": {"content-available": 1},
        "relay": {"v": 1, "registration": "registration-1", "kind": "new-items", "class": "email", "count": 2},
    }


def test_a_change_that_is_only_inferred_goes_silently_and_says_so() -> None:
    notice = Notice.of(due_push(certain=False))

    assert ApnsMessage(notice).body == {
        "aps": {"content-available": 1},
        "relay": {
            "v": 1,
            "registration": "registration-1",
            "kind": "new-items",
            "class": "email",
            "count": 2,
            "certain": False,
        },
    }
    assert FcmMessage(notice).data["certain"] == "false"
    assert FcmMessage(notice).android["priority"] == "NORMAL"


@pytest.mark.parametrize(
    ("mark", "kind", "lifetime"), [(Mark.ATTENTION, "attention", 604_800), (Mark.TEST, "test", 3600)]
)
def test_notices_without_a_class_carry_no_count(mark: Mark, kind: str, lifetime: int) -> None:
    notice = Notice.of(due_push(mark=mark))

    assert notice.lifetime == lifetime
    assert not notice.silent
    assert ApnsMessage(notice).body["relay"] == {"v": 1, "registration": "registration-1", "kind": kind}
    assert FcmMessage(notice).data == {"v": "1", "registration": "registration-1", "kind": kind}


def test_an_attention_that_may_be_the_servers_fault_rings_and_says_so() -> None:
    notice = Notice.of(due_push(mark=Mark.ATTENTION, certain=False))

    said = {"v": 1, "registration": "registration-1", "kind": "attention", "certain": False}
    assert not notice.silent
    assert ApnsMessage(notice).body["relay"] == said
    assert "maybe the server" in ApnsMessage(notice).rendered
    assert FcmMessage(notice).data == {
        "v": "1",
        "registration": "registration-1",
        "kind": "attention",
        "certain": "false",
    }
    assert FcmMessage(notice).wakes
    assert WebPushMessage(notice).body == said


@pytest.mark.parametrize("cause", Cause)
def test_an_attention_says_in_one_word_what_it_is_about(cause: Cause) -> None:
    notice = Notice.of(due_push(mark=Mark.ATTENTION, cause=cause))

    said = {"v": 1, "registration": "registration-1", "kind": "attention", "reason": cause.value}
    assert ApnsMessage(notice).body["relay"] == said
    assert json.loads(ApnsMessage(notice).rendered)["relay"] == said
    assert FcmMessage(notice).data == {**said, "v": "1"}
    assert WebPushMessage(notice).body == said


def test_only_an_attention_has_a_cause() -> None:
    assert Notice.of(due_push(mark=Mark.EMAIL, cause=Cause.WIPED)).cause is None
    with pytest.raises(ValueError, match="cause"):
        replace(Notice.of(due_push(mark=Mark.EMAIL)), cause=Cause.WIPED)


def test_a_test_is_always_certain() -> None:
    assert "certain" not in FcmMessage(Notice.of(due_push(mark=Mark.TEST, certain=False))).data


def test_fcm_gets_data_only_all_of_it_strings() -> None:
    message = FcmMessage(Notice.of(due_push()))

    assert message.data == {
        "v": "1",
        "registration": "registration-1",
        "kind": "new-items",
        "class": "email",
        "count": "2",
    }
    assert message.android == {"priority": "HIGH", "collapse_key": "registration-1.items", "ttl": "259200s"}


def test_a_registration_uses_two_of_the_four_collapse_keys_of_fcm() -> None:
    keys = {mark: FcmMessage(Notice.of(due_push(mark=mark, nonce=NONCE))).android.get("collapse_key") for mark in Mark}

    assert set(keys.values()) == {"registration-1.items", "registration-1.attention", None}
    assert [mark for mark in Mark if keys[mark] == "registration-1.attention"] == [Mark.ATTENTION]
    assert keys[Mark.TEST] is None, "a test replaces nothing that waits"


@pytest.mark.parametrize("mark", [Mark.ATTENTION, Mark.TEST])
def test_attention_and_test_ring_in_background_mode_too(mark: Mark) -> None:
    notice = Notice.of(due_push(mark=mark, mode=Mode.BACKGROUND))
    apns = ApnsMessage(notice)

    assert (apns.push_type, apns.priority) == ("alert", 10)
    assert "alert" in apns.rendered
    assert FcmMessage(notice).android["priority"] == "HIGH"
    assert WebPushMessage(notice).headers["Urgency"] == "high"


def test_a_challenge_is_silent_and_carries_its_nonce_and_nothing_else() -> None:
    notice = Notice.of(due_push(mark=Mark.CHALLENGE, nonce=NONCE, count=7, certain=False))
    data = {"v": 1, "registration": "registration-1", "kind": "challenge", "nonce": NONCE}
    apns, fcm, webpush = ApnsMessage(notice), FcmMessage(notice), WebPushMessage(notice)

    assert json.loads(apns.rendered) == apns.body == {"aps": {"content-available": 1}, "relay": data}
    assert (apns.push_type, apns.priority) == ("background", 5)
    assert fcm.data == {name: str(value) for name, value in data.items()}
    assert fcm.android == {"priority": "NORMAL", "ttl": "3600s"}
    assert webpush.body == data
    assert NONCE not in repr(notice)


@pytest.mark.parametrize(
    ("mark", "nonce"),
    [
        (Mark.CHALLENGE, ""),
        (Mark.CHALLENGE, NONCE + "A"),
        (Mark.CHALLENGE, "a password of ann's!"),
        (Mark.TEST, NONCE),
    ],
)
def test_a_nonce_has_one_form_and_only_a_challenge_has_one(mark: Mark, nonce: str) -> None:
    with pytest.raises(ValueError, match="nonce"):
        Notice(mark, 1, certain=True, registration_id=RegistrationId("r"), mode=Mode.ALERT, locale="en", nonce=nonce)


@pytest.mark.parametrize("mark", [mark for mark in Mark if mark is not Mark.CHALLENGE])
@pytest.mark.parametrize("locale", ["en", "de-AT", OWN_TEXTS])
@pytest.mark.parametrize("certain", [True, False])
def test_a_push_that_an_app_may_acknowledge_has_an_id_last(mark: Mark, locale: str, certain: bool) -> None:
    push = due_push(mark=mark, locale=locale, certain=certain)
    plain, notice = Notice.of(push), Notice.of(push, receipt=True)
    id_ = PushId.of(mark, push.first_at, push.generation).seal(push.mailbox_id, push.registration_id)
    apns, fcm, webpush = ApnsMessage(notice), FcmMessage(notice), WebPushMessage(notice)

    assert json.loads(apns.rendered) == apns.body
    assert apns.rendered == json.dumps(apns.body, ensure_ascii=False)
    assert apns.body["relay"] == webpush.body == {**WebPushMessage(plain).body, "id": id_}
    assert list(fcm.data.items()) == [*FcmMessage(plain).data.items(), ("id", id_)]
    assert (apns.push_type, apns.priority) == (ApnsMessage(plain).push_type, ApnsMessage(plain).priority)


def test_an_id_that_an_app_gave_its_registration_stays_beside_that_of_the_push() -> None:
    push = due_push(registration_id=RegistrationId(SOME_OWN))
    notice = Notice.of(push, receipt=True)

    assert ApnsMessage(notice).rendered == json.dumps(ApnsMessage(notice).body, ensure_ascii=False)


def test_a_challenge_has_no_id() -> None:
    assert Notice.of(due_push(mark=Mark.CHALLENGE, nonce=NONCE), receipt=True).id == ""


@given(PUSHES, MOMENTS)
def test_nobody_without_the_mailbox_reads_in_an_id_when_the_item_came(push: DuePush, moment: datetime) -> None:
    assume(push.mark is not Mark.CHALLENGE)
    id_ = Notice.of(replace(push, first_at=moment), receipt=True).id
    other = replace(push, first_at=moment, mailbox_id=MailboxId("another-mailbox!"))

    assert PushId.open(id_, MailboxId("a-guessed-mailbox"), push.registration_id) is None
    assert Notice.of(other, receipt=True).id != id_


@pytest.mark.parametrize(
    ("mark", "id_"), [(Mark.CHALLENGE, NONCE), (Mark.TEST, "email-1795420797500-3"), (Mark.EMAIL, "a")]
)
def test_an_id_has_one_form_and_a_challenge_has_none(mark: Mark, id_: str) -> None:
    notice = Notice.of(due_push(mark=mark, nonce=NONCE if mark is Mark.CHALLENGE else ""))

    with pytest.raises(ValueError, match="the id of a push"):
        replace(notice, id=id_)


def test_what_former_versions_sent_is_still_known() -> None:
    attention = Notice.of(due_push(mark=Mark.ATTENTION, mode=Mode.BACKGROUND))

    assert json.loads(former_apns(attention)) == {
        "aps": {"content-available": 1},
        "relay": {"v": 1, "registration": "registration-1", "kind": "attention"},
    }
    former = {"priority": "NORMAL", "collapse_key": "registration-1.attention", "ttl": "604800s"}
    assert former_fcm(attention) == former
    assert former_fcm(Notice.of(due_push(certain=False)))["priority"] == "NORMAL"
    assert former_fcm(Notice.of(due_push()))["priority"] == "HIGH"


@pytest.mark.parametrize(("count", "shown"), [(-5, 1), (0, 1), (1, 1), (9999, 9999), (10_000, 9999)])
def test_counts_stay_between_one_and_the_most_an_app_shows(count: int, shown: int) -> None:
    notice = Notice.of(due_push(count=count))

    assert FcmMessage(notice).data["count"] == str(shown)


@pytest.mark.parametrize("id_", ["", "a" * 55, "ann@example.com", "a b", "ä", "a\n"])
def test_an_id_that_is_not_opaque_never_becomes_a_push(id_: str) -> None:
    with pytest.raises(ValueError, match="registration id"):
        Notice.of(due_push(registration_id=RegistrationId(id_)))


@pytest.mark.parametrize(
    ("changes", "wakes"),
    [
        ({}, False),
        ({"mark": Mark.ATTENTION}, True),
        ({"mark": Mark.TEST}, True),
        ({"mark": Mark.ATTENTION, "mode": Mode.BACKGROUND}, True),
        ({"mode": Mode.BACKGROUND}, False),
    ],
)
def test_a_spared_phone_is_woken_only_for_what_asks_for_attention(changes: dict[str, Any], wakes: bool) -> None:
    message = FcmMessage(Notice.of(due_push(**changes)), spare=True)

    assert message.wakes is wakes
    assert message.lowered is (not changes)
    assert message.android["priority"] == ("HIGH" if wakes else "NORMAL")


def test_webpush_gets_data_with_numbers_and_no_text() -> None:
    message = WebPushMessage(Notice.of(due_push(locale="de")))

    assert message.body == {
        "v": 1,
        "registration": "registration-1",
        "kind": "new-items",
        "class": "email",
        "count": 2,
    }
    assert json.loads(message.content) == message.body


@given(PUSHES)
def test_every_webpush_message_fits_into_the_one_length_and_its_headers_are_valid(push: DuePush) -> None:
    longest = replace(push, registration_id=RegistrationId("x" * 54), count=MOST)
    message = WebPushMessage(Notice.of(longest))

    assert len(message.content) <= LENGTH
    assert re.fullmatch(r"[A-Za-z0-9_-]{32}", message.headers["Topic"])
    assert message.headers["Urgency"] == ("normal" if message.notice.silent else "high")
    assert message.headers["TTL"] == str(message.notice.lifetime)


def test_a_topic_hides_what_it_stands_for() -> None:
    topic = WebPushMessage(Notice.of(due_push())).headers["Topic"]

    assert topic != WebPushMessage(Notice.of(due_push(2))).headers["Topic"]
    assert topic != WebPushMessage(Notice.of(due_push(mark=Mark.TASKS))).headers["Topic"]
    assert topic == WebPushMessage(Notice.of(due_push(count=77, mode=Mode.BACKGROUND))).headers["Topic"]
    assert "registration" not in topic


PAGES = WebAppPages("https://relay.example.com:8443/app/", "https://mail.example.com/owa/")


def shown_by_webkit(content: bytes) -> dict[str, Any]:
    """Return what Safari shows of a declarative push message [WebKit: NotificationJSONParser.cpp of 2025]."""
    outer = json.loads(content)
    assert outer["web_push"] == 8030
    notification = outer["notification"]
    assert isinstance(notification, dict)
    assert URL(notification["navigate"]).absolute
    assert notification["title"]
    for name in ("title", "body", "lang", "tag", "navigate"):
        assert isinstance(notification[name], str)
    for name in ("silent", "mutable"):
        assert isinstance(notification.get(name, False), bool)
    assert notification.keys() <= {"title", "body", "lang", "tag", "navigate", "silent", "mutable", "data"}
    return dict(notification)


@given(PUSHES)
def test_every_push_of_the_web_app_shows_a_fixed_text_and_fits_into_one_length(push: DuePush) -> None:
    longest = replace(push, registration_id=RegistrationId("x" * 54), count=MOST)
    page = f"https://relay.example.com/{'x' * (LONGEST_PAGE - 26)}"
    message = WebAppMessage(Notice.of(longest), WebAppPages(page, page))

    shown = shown_by_webkit(message.content)

    assert len(message.content) <= LONGER
    known = [*CONFIRMED.values(), *IN_DOUBT.values(), *(each for texts in TEXTS.values() for each in texts.values())]
    assert (shown["title"], shown["body"]) in known
    assert shown["data"] == WebPushMessage(message.notice).body
    assert message.headers == WebPushMessage(message.notice).headers


def test_a_notification_of_the_web_app_opens_the_mail_or_the_step_that_it_is_about() -> None:
    mail = shown_by_webkit(WebAppMessage(Notice.of(due_push(locale="de-AT")), PAGES).content)
    attention = shown_by_webkit(WebAppMessage(Notice.of(due_push(mark=Mark.ATTENTION)), PAGES).content)
    challenge = Notice.of(due_push(mark=Mark.CHALLENGE, nonce=NONCE))
    confirmed = shown_by_webkit(WebAppMessage(challenge, PAGES).content)

    assert (mail["title"], mail["lang"], mail["tag"], mail["navigate"]) == ("Neue E-Mail", "de", "email", PAGES.mail)
    assert "silent" not in mail
    assert (attention["navigate"], attention["tag"]) == (f"{PAGES.own}#attention", "attention")
    assert confirmed["silent"] is True
    assert confirmed["data"]["nonce"] == NONCE


@pytest.mark.parametrize(
    "page",
    [
        "http://relay.example.com/app/",
        "https://relay.example.com",
        "https://relay.example.com/?subject=canary",
        "https://relay.example.com/#canary",
        "https://ann@relay.example.com/",
        "https://Relay.example.com/",
        "https://relay.example.com/%63anary",
        f"https://relay.example.com/{'x' * LONGEST_PAGE}",
        "http://localhost.example.com/",
        "",
    ],
)
def test_what_notifications_open_has_host_and_path_alone(page: str) -> None:
    with pytest.raises(ValueError, match="host, port and path"):
        WebAppPages(PAGES.own, page)
    with pytest.raises(ValueError, match="host, port and path"):
        WebAppPages(page, PAGES.own)
