from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import pytest

from eas_watcher.machine.memory import WatchState
from relay.domain.model import Ending
from relay.domain.outcome import OutcomeKind
from relay.domain.timeline import CHANNEL, Denial, Event, EventKind, Happening
from relay.ops.timeline import AROUND, around, clock_time, document, lines, read_moment, verdict, words, zone_of

CET: Final = timezone(timedelta(hours=1), "CET")
NOW: Final = datetime(2026, 11, 29, 14, 0, tzinfo=UTC)


def seen(kind: str, minutes: float = 0, count: int = 1, **fields: str) -> Happening:
    return Happening(NOW + timedelta(minutes=minutes), Event(kind, **fields), count)


HELD: Final = seen(EventKind.STATE, -60, what="watching")
MAIL: Final = seen(EventKind.NOTICED, what="email")
ACCEPTED: Final = seen(EventKind.PUSHED, 0.05, what="email", through="apns", result="delivered", registration_id="reg")


def shown(of: Happening) -> Happening:
    """Return that an app showed the push for an event, four seconds after the mail of NOW."""
    return seen("shown", 4 / 60, what="email", through="apns", code=f"email-{int(of.at.timestamp() * 1000)}-1")


@pytest.mark.parametrize(
    ("happening", "said"),
    [
        (MAIL, "new mail noticed"),
        (seen("noticed", count=3, what="tasks"), "new tasks noticed: 3"),
        (
            seen("noticed", what="email", result="uncertain"),
            "new mail noticed, inferred after the server lost its sync state",
        ),
        (HELD, "Ping held"),
        (seen("state", what="waiting", code="server-busy"), "the watch waits (server-busy)"),
        (seen("state", what="hibernating"), "state hibernating"),
        (ACCEPTED, "push for mail accepted by APNs [reg]"),
        (
            seen("pushed", what="email", through="apns", result="shadowed"),
            "push for mail not sent: shadow mode",
        ),
        (
            seen("pushed", what="test", through="fcm", result="retry-later", code="http-503"),
            "test push not taken by FCM yet: http-503; it is tried again",
        ),
        (
            seen("pushed", what="email", through="webpush", result="refused", code="http-404"),
            "push for mail refused by the push service: http-404; the device token is in quarantine",
        ),
        (
            seen("pushed", what="email", through="apns", result=CHANNEL, code="TopicDisallowed"),
            "push for mail refused by APNs for all phones of the app: TopicDisallowed; see health",
        ),
        (
            seen("pushed", what="email", through="apns", result="token-gone"),
            "push for mail not delivered, APNs says that the app is gone from the device",
        ),
        (seen("pushed", what="email", through="apns", result="lost"), "push for mail lost by APNs"),
        (
            seen("registered", through="apns", result="accepted"),
            "an app registered through APNs: its credential was accepted",
        ),
        (
            seen("registered", through="fcm", result="pending"),
            "an app registered through FCM: the mail server has not said yet whether it takes it",
        ),
        (
            seen("denied", code="credential"),
            "a registration was refused: wrong user or password, says the mail server",
        ),
        (
            seen("denied", what="new credential", code="too-many-refusals"),
            "a new credential was refused: so many credentials were refused that the relay shows none for a while",
        ),
        (
            seen("changed", what="device_token,sealed_candidate"),
            "the app changed its registration: device token, credential",
        ),
        (seen("asked", what="challenge"), "the app asked for a challenge push"),
        (
            seen("shown", what="email", through="apns", code=f"email-{int(NOW.timestamp() * 1000) - 1500}-1"),
            "push for mail shown by the app, 1.5 s after the relay noticed the change",
        ),
        (seen("shown", what="test", through="fcm", code="of a later version"), "test push shown by the app"),
        (seen("ended", result="removed"), "the registration ended: its app removed it"),
        (seen("accepted"), "the mail server accepted the credential"),
        (seen("levitated"), "levitated, an event of a newer version"),
    ],
)
def test_every_event_has_words(happening: Happening, said: str) -> None:
    assert words(happening) == said


def test_no_name_of_this_version_is_unknown() -> None:
    known = [
        *(seen(kind) for kind in EventKind),
        *(seen("state", what=state) for state in WatchState),
        *(seen("denied", code=why) for why in Denial),
        *(seen("ended", result=ending) for ending in Ending),
    ]

    assert [each for each in known if "newer version" in words(each)] == []
    assert [state for state in WatchState if words(seen("state", what=state)).startswith("state ")] == []
    assert [why for why in Denial if words(seen("denied", code=why)).endswith(f": {why}")] == []
    assert [end for end in Ending if words(seen("ended", result=end)).endswith(f": {end}")] == []
    sent = (OutcomeKind.DELIVERED, OutcomeKind.RETRY_LATER, OutcomeKind.TOKEN_GONE, OutcomeKind.REFUSED)
    assert all(f"{kind} by" not in words(seen("pushed", result=kind)) for kind in sent if kind != "refused")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("14:05", NOW - timedelta(minutes=55)),
        ("14:05:30", NOW - timedelta(minutes=54, seconds=30)),
        ("16:00", NOW - timedelta(hours=23)),
        ("2026-11-28T14:05", NOW - timedelta(hours=24, minutes=55)),
        ("2026-11-29T13:05Z", NOW - timedelta(minutes=55)),
        ("13:05+00:00", NOW - timedelta(minutes=55)),
    ],
)
def test_a_moment_is_read_as_people_write_it(text: str, moment: datetime) -> None:
    assert read_moment(text, NOW, CET) == moment


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("noon", "'noon' is no time: write 14:05, or 2026-11-29T14:05"),
        ("2026-11-29T23:00", "2026-11-29T23:00 is in the future: it is 2026-11-29 15:00:00 CET (UTC+01:00) now"),
    ],
)
def test_what_is_no_moment_of_the_past_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the words are compared
        read_moment(text, NOW, CET)

    assert str(refused.value) == wrong


def test_without_a_zone_times_are_those_of_the_host() -> None:
    local = f"{(NOW - timedelta(minutes=5)).astimezone():%Y-%m-%dT%H:%M}"

    assert read_moment(local, NOW) == NOW - timedelta(minutes=5)


def test_lines_have_local_time_and_the_zone_is_named() -> None:
    assert lines([MAIL], CET) == ["  2026-11-29 15:00:00  new mail noticed"]
    assert zone_of(NOW, CET) == "CET (UTC+01:00)"
    assert zone_of(NOW, UTC) == "UTC"
    assert clock_time(NOW, CET) == "2026-11-29 15:00:00"


def test_events_around_a_moment_are_those_within_some_minutes() -> None:
    late = Happening(NOW + AROUND * 2, Event("accepted"))

    assert around([HELD, MAIL, ACCEPTED, late], NOW) == [MAIL, ACCEPTED]


@pytest.mark.parametrize(
    ("happenings", "said"),
    [
        ([MAIL], "What the watch did then is not known"),
        ([HELD], "A Ping was held, since 2026-11-29 13:00:00; the mail server reported nothing new within 10 minutes."),
        ([HELD, MAIL, ACCEPTED], "new mail noticed at 2026-11-29 14:00:00; push for mail accepted by APNs [reg] 3 s"),
        (
            [HELD, MAIL, ACCEPTED, shown(MAIL)],
            "push for mail accepted by APNs [reg] 3 s later; push for mail shown by the app, 4.0 s after",
        ),
        ([HELD, MAIL, ACCEPTED, shown(HELD)], "push for mail accepted by APNs [reg] 3 s later."),
        ([HELD, MAIL], "new mail noticed at 2026-11-29 14:00:00; no push had an answer within 10 minutes."),
        (
            [HELD, MAIL, seen("pushed", 1, what="email", through="apns", result="refused", code="BadDeviceToken")],
            "push for mail refused by APNs: BadDeviceToken; the device token is in quarantine.",
        ),
        (
            [seen("state", -5, what="waiting", code="unreachable")],
            "Nothing could be noticed: the watch waits (unreachable), since 2026-11-29 13:55:00. ",
        ),
        ([seen("state", -5, what="hibernating")], "state hibernating, since 2026-11-29 13:55:00."),
    ],
)
def test_a_moment_is_judged(happenings: list[Happening], said: str) -> None:
    assert said in verdict(happenings, NOW, UTC)


def test_programs_read_events_without_the_hash_of_the_user() -> None:
    (told,) = document([seen("denied", account="canary", code="credential")])

    assert told == {
        "at": "2026-11-29T14:00:00.000Z",
        "kind": "denied",
        "mailbox_id": None,
        "registration_id": None,
        "what": None,
        "through": None,
        "result": None,
        "code": "credential",
        "count": 1,
        "words": "a registration was refused: wrong user or password, says the mail server",
    }
