"""Tests of what the answers of mail servers, token endpoints and KDCs mean."""

import pytest

from eas_watcher.commands.options import Capabilities
from eas_watcher.commands.request import HttpReply
from eas_watcher.errors import AccessDenied, CredentialVoid, EasError, ProtocolViolation, ServerBusy, Unreachable
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.names import ProtocolVersion
from eas_watcher.reasons import Reason
from eas_watcher.server.idle_timeout import IdleTimeout
from eas_watcher.tools.probe.finding import Grade
from relay.doctor.answers import (
    SCHEMES,
    in_cloud,
    judge_heartbeat,
    judge_options,
    judge_search,
    judge_spoken,
    judge_ticket,
    judge_token,
    judge_versions,
)
from relay.security.credentials import CredentialKind

ON_PREM = "https://mail.example.com/Microsoft-Server-ActiveSync"
CLOUD = "https://outlook.office365.com/Microsoft-Server-ActiveSync"
BASIC = frozenset({CredentialKind.BASIC})
ALL = tuple(ProtocolVersion)
BEATS = Heartbeat(480, 60, 1680)


def grades(status: int, kinds: frozenset[CredentialKind] = BASIC, **headers: str) -> list[tuple[str, Grade, str]]:
    reply = HttpReply(status, {name.replace("_", "-"): text for name, text in headers.items()}, b"")
    return [(each.check, each.grade, each.text) for each in judge_options("main", ON_PREM, kinds, reply, 0.1)]


def test_a_server_that_asks_for_a_login_is_good() -> None:
    assert grades(401, www_authenticate='Basic realm="x"', ms_server_activesync="15.2") == [
        ("ActiveSync", Grade.GOOD, "asks for a login, server build 15.2"),
        ("login", Grade.GOOD, "offers Basic"),
    ]


def test_a_server_that_names_no_way_to_log_in_may_take_passwords() -> None:
    assert grades(401)[1] == ("login", Grade.GOOD, "names no way to log in")


def test_a_server_that_takes_no_passwords_is_bad() -> None:
    assert grades(401, www_authenticate="Negotiate, NTLM")[1] == (
        "login",
        Grade.BAD,
        "offers Negotiate, NTLM; the settings want Basic",
    )


def test_a_server_that_takes_one_of_two_kinds_is_noted() -> None:
    both = BASIC | {CredentialKind.OAUTH}
    challenge = 'Bearer authorization_uri="https://login.example.com/authorize"'

    assert grades(401, both, www_authenticate=challenge)[1] == (
        "login",
        Grade.NOTE,
        "offers Bearer; tokens of login.example.com; the settings want Basic too",
    )


def test_a_certificate_is_no_scheme_that_a_server_names() -> None:
    assert grades(401, frozenset({CredentialKind.CERTIFICATE}), www_authenticate="Negotiate")[1][1] is Grade.GOOD
    assert SCHEMES.keys() == set(CredentialKind) - {CredentialKind.CERTIFICATE}


def test_versions_are_read_where_no_login_is_asked_for() -> None:
    found = grades(200, ms_asprotocolversions="2.5,16.0,16.1", ms_asprotocolcommands="Sync")

    assert found == [
        ("ActiveSync", Grade.GOOD, "answers without a login"),
        ("version", Grade.GOOD, "offers 2.5, 16.0, 16.1"),
    ]


@pytest.mark.parametrize(
    ("status", "grade", "words"),
    [
        (200, Grade.BAD, "no ActiveSync server"),
        (403, Grade.NOTE, "refuses clients without a login (HTTP 403)"),
        (404, Grade.BAD, "no ActiveSync at this URL (HTTP 404)"),
        (301, Grade.BAD, "no ActiveSync at this URL (HTTP 301)"),
        (502, Grade.BAD, "cannot answer (HTTP 502)"),
        (501, Grade.BAD, "cannot answer (HTTP 501)"),
        (405, Grade.BAD, "does not take OPTIONS (HTTP 405)"),
    ],
)
def test_another_answer_says_that_the_address_is_wrong(status: int, grade: Grade, words: str) -> None:
    ((check, found, text),) = grades(status)

    assert (check, found) == ("ActiveSync", grade)
    assert words in text


def version(url: str, *offered: ProtocolVersion, unknown: tuple[str, ...] = ()) -> Grade:
    return judge_versions("main", url, Capabilities(offered, frozenset(), unknown)).grade


def test_a_server_below_16_1_is_noted_and_bad_in_the_cloud() -> None:
    assert version(ON_PREM, ProtocolVersion.V16_1) is Grade.GOOD
    assert version(ON_PREM, ProtocolVersion.V14_1) is Grade.NOTE
    assert version(CLOUD, ProtocolVersion.V14_1) is Grade.BAD
    assert version(ON_PREM, unknown=("2.5",)) is Grade.BAD
    assert version(ON_PREM) is Grade.BAD


def spoken(url: str, versions: tuple[ProtocolVersion, ...], known: dict[int, int]) -> Grade | None:
    finding = judge_spoken("main", url, versions, known)
    return None if finding is None else finding.grade


def test_the_versions_that_mailboxes_speak_stand_for_those_of_the_server() -> None:
    assert spoken(ON_PREM, ALL, {}) is None
    assert spoken(ON_PREM, ALL, {25: 3}) is None
    assert spoken(ON_PREM, ALL, {161: 3, 141: 1}) is Grade.GOOD
    assert spoken(ON_PREM, ALL, {141: 1}) is Grade.NOTE
    assert spoken(CLOUD, ALL, {141: 1}) is Grade.BAD


def test_settings_without_16_1_are_noted_and_bad_in_the_cloud() -> None:
    old = (ProtocolVersion.V14_1,)

    assert spoken(ON_PREM, old, {141: 1}) is Grade.NOTE
    assert spoken(CLOUD, old, {}) is Grade.BAD


def test_the_cloud_is_known_by_its_domains() -> None:
    assert in_cloud("https://outlook.com/eas")
    assert not in_cloud("https://notoutlook.com/eas")
    assert not in_cloud("")


@pytest.mark.parametrize(
    ("average", "cut", "grade", "words"),
    [
        (None, None, Grade.GOOD, "Pings of 60 to 1680 s"),
        (900.0, None, Grade.GOOD, "900 s on average"),
        (70.0, None, Grade.NOTE, "each mailbox asks often"),
        (290.0, IdleTimeout(298, 302), Grade.NOTE, "cuts longer ones after 300 s"),
        (60.0, IdleTimeout(29, 31), Grade.BAD, "cuts them after 30 s"),
    ],
)
def test_pings_are_judged_by_their_interval_and_their_cuts(
    average: float | None, cut: IdleTimeout | None, grade: Grade, words: str
) -> None:
    finding = judge_heartbeat("main", BEATS, average, cut)

    assert finding.grade is grade
    assert words in finding.text


@pytest.mark.parametrize(
    ("error", "grade"),
    [
        (None, Grade.BAD),
        (CredentialVoid("log in again", Reason.OAUTH_INVALID_GRANT), Grade.GOOD),
        (AccessDenied("refuses the relay", Reason.OAUTH_CLIENT), Grade.BAD),
        (ServerBusy("cannot serve now"), Grade.BAD),
    ],
)
def test_a_token_endpoint_must_refuse_a_made_up_token_only(error: EasError | None, grade: Grade) -> None:
    assert judge_token("main", error, 0.1).grade is grade


@pytest.mark.parametrize(
    ("error", "grade", "remedy"),
    [
        (None, Grade.GOOD, ""),
        (Unreachable("no KDC answers"), Grade.BAD, "port 88"),
        (AccessDenied("clock", Reason.KERBEROS_CLOCK), Grade.BAD, "clock"),
        (ProtocolViolation("strange"), Grade.BAD, "docs/authentication.md"),
    ],
)
def test_a_ticket_that_is_not_given_names_what_to_do(error: EasError | None, grade: Grade, remedy: str) -> None:
    finding = judge_ticket("main", error, 0.1)

    assert finding.grade is grade
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("found", "grade"),
    [
        ("https://mail.example.com/eas", Grade.GOOD),
        (AccessDenied("Autodiscover tells nothing without the credential", Reason.AUTODISCOVER), Grade.GOOD),
        (AccessDenied("Autodiscover leads to another host", Reason.AUTODISCOVER), Grade.BAD),
        (Unreachable("no connection"), Grade.BAD),
    ],
)
def test_autodiscover_may_name_a_server_or_want_the_credential_first(found: str | EasError, grade: Grade) -> None:
    assert judge_search("autodiscover.example.com", "nobody@example.com", found, 0.1).grade is grade
