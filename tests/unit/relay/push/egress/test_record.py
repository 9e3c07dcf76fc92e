import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product

import pytest

from relay.domain.fcm_device import FcmDevice
from relay.domain.model import OWN_TEXTS, Mark, Mode, Platform, RegistrationId
from relay.domain.reasons import Cause
from relay.push.egress.record import (
    FIELDS,
    START,
    ChainKey,
    Fault,
    Position,
    Removal,
    Seen,
    device_hash,
    hash_line,
    is_template,
    read_position,
    verify,
    without_token,
    write_entry,
    write_fcm,
    write_lines,
)
from relay.push.payload import (
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

KEY = ChainKey(bytes(32))
KEYS = {KEY.id: KEY}
ID = "Abcdefghijklmnopqrstuv-_"
DEVICE = "d" * 32
TOKEN = FcmDevice("token", "secret token")
FID = FcmDevice.of_fid("cAnInventedFid_0123-ab")
AT = datetime(2026, 11, 24, 8, 30, tzinfo=UTC)
NOTICE = Notice(Mark.EMAIL, 3, certain=True, registration_id=RegistrationId(ID), mode=Mode.ALERT, locale="en")
BODY = ApnsMessage(NOTICE).rendered
NONCE = "o0Z3kqXb1vT9sWm2cYgRPA"
PUSH_ID = "UKsJm0KCaPoCc5G0AEIjcg"
FORMER = [mark for mark in Mark if mark is not Mark.CHALLENGE]


def nonce_of(mark: Mark) -> str:
    return NONCE if mark is Mark.CHALLENGE else ""


def fcm_body(notice: Notice, device: str = DEVICE, to: FcmDevice = TOKEN) -> str:
    message = FcmMessage(notice)
    document = {
        "message": {"android": message.android, "data": message.data, to.kind: to.name},
        "validate_only": False,
    }
    return without_token(write_fcm(document).encode(), to.device_token, device)


def write_line(
    position: Position, at: datetime, provider: Platform, app: str, device: str, body: str, key: ChainKey
) -> tuple[bytes, Position]:
    (line,), (digest,) = write_lines(position, at, provider, [(app, device, body)], key)
    return line, Position(position.n + 1, digest)


def chain(*bodies: str, start: Position | None = None) -> list[tuple[str, bytes]]:
    position, lines = start or Position(), []
    for number, body in enumerate(bodies, start=1):
        line, position = write_line(position, AT, Platform.APNS, "com.example.mail", DEVICE, body, KEY)
        lines.append((f"file:{number}", line.rstrip(b"\n")))
    return lines


def faults(lines: list[tuple[str, bytes]], head: Position | None = None) -> list[Fault]:
    return list(verify(lines, head, keys=KEYS))


def test_a_line_says_what_left_and_which_line_came_before() -> None:
    line, position = write_line(Position(4, "e" * 64), AT, Platform.APNS, "com.example.mail", DEVICE, BODY, KEY)
    entry = json.loads(line)

    assert line.endswith(b"\n")
    assert entry.keys() == FIELDS
    assert (entry["n"], entry["prev"], entry["body"]) == (5, "e" * 64, BODY)
    assert position == Position(5, hash_line(line[:-1], KEY)) == read_position(line[:-1], KEYS)


def test_an_untouched_chain_has_no_fault() -> None:
    lines = chain(BODY, fcm_like := BODY, BODY)

    assert fcm_like == BODY
    assert faults(lines) == []
    assert faults([]) == []


def test_a_chain_begins_later_only_where_the_relay_removed_older_lines() -> None:
    lines = chain(*[BODY] * 5)
    removal = Removal(read_position(lines[1][1], KEYS), "2026-11-24T08:30:00+00:00")

    (fault,) = faults(lines[2:])
    assert fault.text == "is the first one: lines 1 to 2 are missing, and the relay did not remove them"
    assert list(verify(lines[2:], keys=KEYS, removed=removal)) == []
    assert list(verify(lines[3:], keys=KEYS, removed=removal)), "one more is missing"
    assert list(verify(lines, keys=KEYS, removed=removal)) == [], "removed in vain: the relay stopped before"


def test_a_line_without_a_key_after_those_with_one_was_written_anew() -> None:
    lines = chain(BODY, BODY)
    before = read_position(lines[1][1], KEYS)
    line = write_entry(before, AT.isoformat(timespec="milliseconds"), "apns", "app", DEVICE, BODY, None)

    (fault,) = faults([*lines, ("file:3", line)])

    assert "has no key" in fault.text


def test_without_the_key_bodies_are_still_checked() -> None:
    seen = Seen()

    assert list(verify(chain(BODY, "{}"), keys={}, seen=seen)) == [
        Fault("file:2", "has a body that is none of the templates")
    ]
    assert (seen.lines, seen.unverified, seen.registrations) == (2, 2, {ID})


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b'{"n"', b'{ "n"'),
        lambda line: line.replace(b'"app"', b'"ap\\u0070"'),
        lambda line: line.replace(b'"prev"', b'"app":"com.example.mail","prev"'),
        lambda line: line.replace(DEVICE.encode(), b"the password of ann is hunter2!!"),
        lambda line: line.replace(b"com.example.mail", b"the password of ann"),
        lambda line: line.replace(b".000+00:00", b"+00:00"),
    ],
)
def test_a_line_in_another_form_than_the_relays_is_found(change: Callable[[bytes], bytes]) -> None:
    ((where, line),) = chain(BODY)

    assert [fault.text for fault in faults([(where, change(line))])] == [
        "is written in another form than the relay's, which may hide something"
    ]


@pytest.mark.parametrize("id_", ["short", ID + "x", "forty-bytes-of-a-password-or-of-a-mail-in"])
def test_a_registration_id_that_the_relay_does_not_issue_is_found(id_: str) -> None:
    body = BODY.replace(ID, id_)

    assert faults(chain(body))


@pytest.mark.parametrize("count", ["0", "10000", "123456789012345", "3.0", "true", "-1"])
def test_a_count_that_no_template_has_is_found(count: str) -> None:
    assert not is_template("apns", BODY.replace('"count": 3', f'"count": {count}'))
    assert is_template("apns", BODY)


@pytest.mark.parametrize(
    "body",
    [
        BODY + " ",
        BODY.replace(": ", ":  ", 1),
        BODY.replace('"relay"', '"relay": 1, "relay"'),
        BODY[:-1] + ', "aps": {}}',
    ],
)
def test_a_template_in_other_bytes_is_none(body: str) -> None:
    assert not is_template("apns", body)


def test_a_token_in_an_fcm_body_is_that_of_its_line() -> None:
    assert is_template("fcm", fcm_body(NOTICE), DEVICE)
    assert not is_template("fcm", fcm_body(NOTICE, "the password of ann is hunter2!!"), DEVICE)


@pytest.mark.parametrize(("mark", "mode"), list(product(FORMER, Mode)))
def test_what_former_versions_sent_is_a_template(mark: Mark, mode: Mode) -> None:
    notice = Notice(mark, 3, certain=True, registration_id=RegistrationId(ID), mode=mode, locale="en")
    message = {"android": former_fcm(notice), "data": FcmMessage(notice).data, "token": DEVICE}

    assert is_template("apns", former_apns(notice))
    assert is_template("fcm", write_fcm({"message": message, "validate_only": False}), DEVICE)


@pytest.mark.parametrize("removed", [1, 2, 3])
def test_a_removed_line_is_found(removed: int) -> None:
    lines = chain(*[BODY] * 5)
    del lines[removed]

    (fault,) = faults(lines)

    assert fault.where == f"file:{removed + 2}"
    assert "changed, removed" in fault.text


def test_swapped_lines_are_found() -> None:
    lines = chain(*[BODY] * 5)
    lines[1], lines[2] = lines[2], lines[1]

    assert faults(lines)


def test_a_changed_line_is_found_at_the_next_one() -> None:
    lines = chain(*[BODY] * 3)
    lines[1] = (lines[1][0], lines[1][1].replace(b"com.example.mail", b"com.example.evil"))

    assert [fault.where for fault in faults(lines)] == ["file:3"]


def test_a_changed_last_line_is_found_by_the_head() -> None:
    lines = chain(*[BODY] * 3)
    head = read_position(lines[2][1], KEYS)
    lines[2] = (lines[2][0], lines[2][1].replace(b"com.example.mail", b"com.example.evil"))

    assert faults(lines) == []
    assert [fault.where for fault in faults(lines, head)] == ["the end"]


def test_a_lost_end_is_found_by_the_head() -> None:
    lines = chain(*[BODY] * 3)
    head = read_position(lines[2][1], KEYS)

    assert faults(lines, head) == []
    assert [fault.where for fault in faults(lines[:2], head)] == ["the end"]
    assert faults(lines, read_position(lines[1][1], KEYS)) == []
    assert faults([], Position()) == []


def test_a_wrong_number_is_found() -> None:
    first = chain(BODY)
    position = read_position(first[0][1], KEYS)
    line, _ = write_line(position._replace(n=7), AT, Platform.APNS, "app", DEVICE, BODY, KEY)

    (fault,) = faults([*first, ("file:2", line[:-1])])

    assert fault.text == "is number 8, not 2"


def test_a_first_line_that_names_another_is_found() -> None:
    line, _ = write_line(Position(0, "e" * 64), AT, Platform.APNS, "app", DEVICE, BODY, KEY)

    assert [fault.text for fault in faults([("file:1", line[:-1])])] == ["is the first line and names one before it"]
    assert START != "e" * 64


@pytest.mark.parametrize("line", [b"", b"no JSON", b"[]", b'{"n": "x"}', b"7", b"[" * 100_000])
def test_what_is_no_line_is_found(line: bytes) -> None:
    lines = chain(BODY, BODY)

    assert Fault("file:x", "is no line of an egress log") in faults([lines[0], ("file:x", line), lines[1]])


def test_other_fields_are_found() -> None:
    entry = json.loads(chain(BODY)[0][1])
    line = json.dumps(entry | {"subject": "Minutes"}).encode()

    assert [fault.text for fault in faults([("file:1", line)])] == ["has other fields than an egress log"]


def test_a_body_that_is_no_template_is_found() -> None:
    body = json.dumps({"aps": {"alert": {"title": "Minutes", "body": "of Monday"}}, "relay": {}})

    assert [fault.text for fault in faults(chain(BODY, body))] == ["has a body that is none of the templates"]


def test_every_template_is_known() -> None:
    for mark, mode, certain, locale in product(Mark, Mode, (True, False), (*TEXTS, "de-AT", "xx", OWN_TEXTS)):
        notice = Notice(mark, 3, certain, RegistrationId(ID), mode, locale, nonce=nonce_of(mark))
        if mark is not Mark.CHALLENGE:
            acknowledged = replace(notice, id=PUSH_ID)
            assert is_template("apns", ApnsMessage(acknowledged).rendered), notice
            assert is_template("fcm", fcm_body(acknowledged), DEVICE), notice

        assert is_template("apns", ApnsMessage(notice).rendered), notice
        assert is_template("fcm", fcm_body(notice), DEVICE), notice
        assert is_template("fcm", fcm_body(notice, to=FID), DEVICE), notice


@pytest.mark.parametrize("nonce", ["Minutes of Monday", NONCE + NONCE, "", '", "subject": "x'])
def test_a_challenge_whose_nonce_may_say_something_is_no_template(nonce: str) -> None:
    notice = replace(NOTICE, mark=Mark.CHALLENGE, nonce=NONCE)

    for provider, body in (
        ("apns", ApnsMessage(notice).rendered),
        ("fcm", fcm_body(notice)),
        ("webpush", WebPushMessage(notice).content.decode()),
    ):
        assert is_template(provider, body, DEVICE)
        assert not is_template(provider, body.replace(NONCE, nonce), DEVICE)
        assert not is_template(provider, body.replace('"challenge"', '"test"'), DEVICE)


@pytest.mark.parametrize("id_", ["Minutes of Monday", PUSH_ID + PUSH_ID, '", "subject": "x', "email-1795420797500-3"])
def test_a_push_whose_id_may_say_something_is_no_template(id_: str) -> None:
    notice = replace(NOTICE, id=PUSH_ID)

    for provider, body in (
        ("apns", ApnsMessage(notice).rendered),
        ("fcm", fcm_body(notice)),
        ("webpush", WebPushMessage(notice).content.decode()),
    ):
        assert is_template(provider, body, DEVICE)
        assert not is_template(provider, body.replace(PUSH_ID, id_), DEVICE)


def test_own_texts_of_an_app_have_fixed_keys() -> None:
    body = ApnsMessage(replace(NOTICE, locale=OWN_TEXTS)).rendered

    assert is_template("apns", body)
    for fixed in (
        "relay.email.title",
        "relay.email.body",
        '"category": "relay.email"',
        f'"thread-id": "{ID}"',
        '["3"]',
    ):
        assert fixed in body
        assert not is_template("apns", body.replace(fixed, "Minutes of Monday"))
        assert not is_template(
            "apns", body.replace(fixed, fixed.replace("email", "tasks").replace("3", "4").replace("A", "B"))
        )


@pytest.mark.parametrize("cause", Cause)
def test_every_word_about_an_attention_is_known_and_no_other(cause: Cause) -> None:
    notice = replace(NOTICE, mark=Mark.ATTENTION, cause=cause)
    apns, fcm, webpush = ApnsMessage(notice).rendered, fcm_body(notice), WebPushMessage(notice).content.decode()

    assert is_template("apns", apns)
    assert is_template("fcm", fcm, DEVICE)
    assert is_template("webpush", webpush)
    for provider, body in (("apns", apns), ("fcm", fcm), ("webpush", webpush)):
        assert not is_template(provider, body.replace(f'"{cause.value}"', '"Minutes of Monday"'), DEVICE)


@pytest.mark.parametrize("reason", ["wiped", None, "Minutes"])
def test_a_word_about_new_items_is_no_template(reason: object) -> None:
    apns = json.loads(BODY)
    apns["relay"] |= {"reason": reason}

    assert not is_template("apns", json.dumps(apns))


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"kind": "new-things"},
        {"class": "subject of a mail"},
        {"registration": "not opaque: ann@example.com"},
        {"count": "many"},
        {"v": 2},
    ],
)
def test_data_with_anything_else_is_no_template(change: dict[str, object]) -> None:
    apns = json.loads(BODY)
    apns["relay"] |= change
    fcm = json.loads(fcm_body(NOTICE))
    fcm["message"]["data"] |= change

    assert not is_template("apns", json.dumps(apns))
    assert not is_template("fcm", write_fcm(fcm), DEVICE)


@pytest.mark.parametrize("body", ["", "[]", "7", "{}", '{"message": 7}', '{"relay": {"kind": []}}', "null"])
@pytest.mark.parametrize("provider", ["apns", "fcm", "mail"])
def test_any_body_is_verified_without_an_exception(provider: str, body: str) -> None:
    assert not is_template(provider, body)


def test_a_device_is_named_by_a_keyed_hash() -> None:
    assert device_hash(b"key", "token") == device_hash(b"key", "token")
    assert device_hash(b"key", "token") != device_hash(b"another key", "token")
    assert len(device_hash(b"key", "token")) == 32


@pytest.mark.parametrize("token", ["secret token", "1", "v", 'a "quoted" \\ t\u00f6ken', "token"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_the_token_is_not_in_a_logged_fcm_body_however_it_is_written(token: str, separators: tuple[str, str]) -> None:
    message = FcmMessage(NOTICE)
    options = {"android": message.android, "data": message.data}
    document = {"message": {**options, "token": token}, "validate_only": False}
    expected = {"message": {**options, "token": "hash"}, "validate_only": False}

    for ascii_only in (True, False):
        written = json.dumps(document, separators=separators, ensure_ascii=ascii_only).encode()
        assert json.loads(without_token(written, token, "hash")) == expected


def test_the_token_is_not_in_a_logged_fcm_body() -> None:
    body = fcm_body(NOTICE, "hash of the device")

    assert "secret token" not in body
    assert json.loads(body)["message"]["token"] == "hash of the device"


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_fid_is_not_in_a_logged_fcm_body(separators: tuple[str, str]) -> None:
    document = {"message": {"data": FcmMessage(NOTICE).data, "fid": FID.name}, "validate_only": False}

    logged = without_token(json.dumps(document, separators=separators).encode(), FID.device_token, DEVICE)

    assert FID.name not in logged
    assert json.loads(logged)["message"]["fid"] == DEVICE


def test_a_body_with_two_targets_is_no_template() -> None:
    body = json.loads(fcm_body(NOTICE, to=FID))
    body["message"]["token"] = DEVICE

    assert not is_template("fcm", write_fcm(body), DEVICE)


def test_every_webpush_template_is_known_and_no_other_body() -> None:
    for mark, certain, mode in product(Mark, (True, False), Mode):
        notice = Notice(mark, 7, certain, RegistrationId(ID), mode, "de", nonce=nonce_of(mark))
        body = WebPushMessage(notice).content.decode()
        assert is_template("webpush", body), body
        for wrong in ({"subject": "x"}, {"count": "7"}, {"v": 2}, {"certain": None}):
            assert not is_template("webpush", json.dumps(json.loads(body) | wrong)), wrong
    assert not is_template("webpush", "{}")
    assert not is_template("webpush", BODY)


def test_pushes_of_the_web_app_are_known_and_what_they_open_is_shown_to_the_auditor() -> None:
    pages = WebAppPages("https://relay.example.com/app/", "https://mail.example.com/owa/")
    bodies = [
        WebAppMessage(Notice(mark, 3, certain, RegistrationId(ID), Mode.ALERT, locale, nonce=nonce_of(mark)), pages)
        for mark, certain, locale in product(Mark, (True, False), (*TEXTS, "x-app"))
    ]
    seen = Seen()

    for body in bodies:
        content = body.content.decode()
        assert is_template("webpush", content)
        line, _ = write_line(Position(), AT, Platform.WEBPUSH, "push-relay-web", DEVICE, content, KEY)
        assert list(verify([("file:1", line.rstrip(b"\n"))], keys=KEYS, seen=seen)) == []

    assert seen.pages == {pages.own, pages.mail}
    assert seen.registrations == {ID}


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("There is new mail in your mailbox.", "Minutes of Monday"),
        ("https://mail.example.com/", "https://mail.example.com/?subject=Minutes"),
        ("https://mail.example.com/", "https://mail.example.com/#Minutes"),
        ('"tag":"email"', '"tag":"Minutes"'),
        ('"mutable":true,"notification"', '"mutable":false,"notification"'),
        ('"web_push":8030', '"web_push":8030,"more":"Minutes"'),
        ('"navigate":"https://mail.example.com/",', ""),
    ],
)
def test_a_push_of_the_web_app_that_says_anything_else_is_no_template(part: str, other: str) -> None:
    page = "https://mail.example.com/"
    content = WebAppMessage(replace(NOTICE, mode=Mode.ALERT, locale="en"), WebAppPages(page, page)).content.decode()

    assert is_template("webpush", content)
    assert part in content
    assert not is_template("webpush", content.replace(part, other))
