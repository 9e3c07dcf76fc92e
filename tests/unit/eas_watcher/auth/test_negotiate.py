from base64 import b64decode

import pytest

from eas_watcher.auth.credential import UnusableCredential
from eas_watcher.auth.negotiate import (
    BAD_OPTION,
    CLIENT_REVOKED,
    CLIENT_UNKNOWN,
    CLOCK_SKEW,
    KDC_UNREACHABLE,
    POLICY,
    SERVER_UNKNOWN,
    KerberosCredential,
    Naming,
    Principal,
    Step,
    header,
    read_failure,
    read_refusal,
    target_of,
)
from eas_watcher.errors import AccessDenied, CredentialVoid, Unreachable
from eas_watcher.reasons import Reason

NAMING = Naming("EXAMPLE.COM", frozenset({"mail.example"}))
ADDRESSES = Naming("EXAMPLE.COM", frozenset({"mail.example"}), addresses=True)
TARGET = "HTTP/mail.example.com@EXAMPLE.COM"


@pytest.mark.parametrize(
    "user", ["ann", "ann@example.com", "ann@EXAMPLE.COM", "ann@mail.example", "example\\ann", "EXAMPLE\\ann"]
)
def test_every_spelling_of_an_account_means_the_same_principal(user: str) -> None:
    assert NAMING.principal(user) == Principal("ann@EXAMPLE.COM")


@pytest.mark.parametrize(
    "user",
    [
        "",
        "ann@other.example",  # a user of that name in another domain is another person
        "OTHER\\ann",
        "ann/admin",
        "ann\\@example.com",
        "ann@example.com@OTHER.EXAMPLE",
        "host/dc.example.com",
        "an n",
        "a" * 65,
        "ann@",
        "@example.com",
    ],
)
def test_a_name_that_could_mean_another_account_is_refused(user: str) -> None:
    with pytest.raises(UnusableCredential):
        NAMING.principal(user)


def test_users_may_be_known_by_their_address() -> None:
    assert ADDRESSES.principal("ann.smith@mail.example") == Principal("ann.smith@mail.example", enterprise=True)


@pytest.mark.parametrize("user", ["ann", "EXAMPLE\\ann", "ann@other.example", "EXAMPLE\\ann@mail.example"])
def test_a_user_who_is_no_address_of_the_server_is_not_looked_up_as_one(user: str) -> None:
    with pytest.raises(UnusableCredential):
        ADDRESSES.principal(user)


def test_the_service_of_a_url_is_its_host() -> None:
    assert target_of("https://Mail.example.com:444/Microsoft-Server-ActiveSync?Cmd=Ping") == "HTTP@mail.example.com"


def test_a_short_ticket_is_offered_as_kerberos_in_spnego() -> None:
    # 60 1f: frame; SPNEGO; a0 15 30 13: negTokenInit; a0 0d 30 0b: mechTypes, Kerberos; a2 02 04 00: mechToken
    scheme, _, token = header(b"").partition(" ")

    assert scheme == "Negotiate"
    assert b64decode(token).hex() == "601f06062b0601050502a0153013a00d300b06092a864886f712010202a2020400"


@pytest.mark.parametrize("size", [127, 128, 255, 256, 1500, 70_000])
def test_a_ticket_of_any_size_is_framed_in_der(size: int) -> None:
    token = b64decode(header(b"\x60" * size).partition(" ")[2])
    lengths = []
    for _ in range(2):  # the frame, and the negTokenInit in it
        long = token[1] & 0x7F if token[1] & 0x80 else 0
        length = int.from_bytes(token[2 : 2 + long], "big") if long else token[1]
        lengths.append((length, len(token) - 2 - long))
        token = token[2 + long + 8 :]

    assert all(length == rest for length, rest in lengths)
    assert token.endswith(b"\x60" * size)


def test_the_credential_shows_no_invitation() -> None:
    assert "signed" not in repr(KerberosCredential("ann", "signed"))


@pytest.mark.parametrize(
    ("challenge", "code", "words"),
    [
        ("", "kerberos-not-offered", "offers no Negotiate"),
        ('Basic realm="mail"', "kerberos-not-offered", "offers no Negotiate"),
        ("NTLM,negotiate", "kerberos-ticket", "refuses the Kerberos ticket"),
        ("Negotiate oRQwEqADCgEB, NTLM", "kerberos-ticket", "negotiate further"),
    ],
)
def test_a_refusal_says_what_the_server_wants(challenge: str, code: str, words: str) -> None:
    refusal = read_refusal(challenge)

    assert refusal.reason == code
    assert words in str(refusal)


@pytest.mark.parametrize("step", Step)
def test_a_kdc_that_is_away_may_come_back(step: Step) -> None:
    error = read_failure(step, KDC_UNREACHABLE, "Cannot contact any KDC")

    assert isinstance(error, Unreachable)
    assert not error.reached


@pytest.mark.parametrize(
    ("step", "code", "reason"),
    [
        (Step.OWN, CLIENT_UNKNOWN, "kerberos-keytab"),
        (Step.OWN, 0, "kerberos-keytab"),
        (Step.OWN, CLOCK_SKEW, "kerberos-clock"),
        (Step.USER, CLIENT_REVOKED, "kerberos-user-locked"),
        (Step.USER, POLICY, "kerberos-user-locked"),
        (Step.USER, BAD_OPTION, "kerberos-delegation"),
        (Step.TARGET, POLICY, "kerberos-delegation"),
        (Step.TARGET, BAD_OPTION, "kerberos-delegation"),
        (Step.TARGET, SERVER_UNKNOWN, "kerberos-target"),
        (Step.TARGET, 1, "kerberos-refused"),
    ],
)
def test_each_fault_that_the_operator_must_mend_has_its_own_reason(step: Step, code: int, reason: str) -> None:
    error = read_failure(step, code, "words of libkrb5", TARGET)

    assert isinstance(error, AccessDenied)
    assert error.reason == reason


def test_a_user_whom_the_directory_does_not_know_ends_the_watch() -> None:
    error = read_failure(Step.USER, CLIENT_UNKNOWN, "Client not found")

    assert isinstance(error, CredentialVoid)
    assert error.reason == Reason.KERBEROS_USER_UNKNOWN


def test_an_invited_user_has_no_header_of_its_own() -> None:
    assert KerberosCredential("ann", "invitation").authorization() is None  # type: ignore[func-returns-value]  # the point
