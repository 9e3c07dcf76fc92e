import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.domain.canary import APP, Goal, Submission
from relay.domain.model import Platform, Role
from relay.push.webpush.vapid import make_key
from tests.installation import Installation

SECRETS = ("the password of the canary", "the password for sending")
WEBPUSH = (
    '[webpush]\nhosts = ["push.example.com"]\napps = ["web"]\n'
    'vapid_key_file = "vapid.pem"\nsubject = "mailto:push@example.com"\n'
)
GOOD: dict[str, Any] = {
    "server": "main",
    "user": "canary@example.com",
    "password_file": "canary.password",
    "smtp_host": "mail.example.com",
    "smtp_user": "sender",
    "smtp_password_file": "smtp.password",
}


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    made = Installation(tmp_path)
    made.write("vapid.pem", make_key())
    made.write("canary.password", SECRETS[0].encode())
    made.write("smtp.password", SECRETS[1].encode())
    return made


def configure(site: Installation, webpush: str = WEBPUSH, more: str = "", **changes: Any) -> None:
    keys = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    table = "".join(f"{name} = {value!r}\n" for name, value in keys.items())
    site.configure(f"{site.toml.read_text()}\n{webpush}\n{more}\n[canary]\n{table}")


def test_without_the_table_there_is_no_canary(site: Installation) -> None:
    assert site.load().canary is None


def test_a_good_table_becomes_mailbox_goal_and_submission(site: Installation) -> None:
    configure(site, smtp_ca_file="ca.pem", goal_seconds=20, goal_percent=90, interval_seconds=120)

    own = site.load().canary

    assert own is not None
    assert (own.mailbox.server, own.mailbox.user, own.mailbox.password) == ("main", "canary@example.com", SECRETS[0])
    assert own.mailbox.written_at is not None
    written = (site.folder / "canary.password").stat().st_ctime
    assert own.mailbox.written_at.timestamp() == pytest.approx(written, abs=0.001)
    assert own.goal == Goal(frozenset({Platform.WEBPUSH}), 20.0, 0.9, 120)
    assert own.submission == Submission(
        "mail.example.com",
        587,
        "starttls",
        "canary@example.com",
        "canary@example.com",
        site.folder / "ca.pem",
        "sender",
        SECRETS[1],
    )
    assert not any(secret in repr(own) for secret in SECRETS)


def test_each_role_reads_what_it_needs(site: Installation) -> None:
    configure(site, smtp_user=None, smtp_password_file=None)
    postgres = {"RELAY__DATABASE__URL": "postgresql://relay@db.example.com/relay"}
    watch = site.load(Role.WATCH, postgres).canary
    assert watch is not None
    assert watch.mailbox.password is None
    assert watch.submission is not None
    assert watch.submission.user == ""
    push = site.load(Role.PUSH, postgres).canary
    assert push is not None
    assert (push.mailbox.password, push.submission) == (None, None)


def test_in_shadow_mode_the_canary_is_pushed_to(site: Installation) -> None:
    configure(site, more='[push]\nmode = "shadow"\n')

    assert APP in site.load().push.mode.live_apps


def test_every_fault_is_named_at_once(site: Installation) -> None:
    configure(
        site,
        webpush="",
        more="[push]\nreceipts = false\n",
        server="other",
        user="canary",
        password_file=None,
        smtp_host="mail.example.com",
        smtp_tls="none",
        smtp_user=None,
        goal_seconds=400,
    )

    faults = dict(site.faults())

    assert faults == {
        "push.receipts": "is false, and devices of the canary say by receipts what they showed",
        "canary.platforms": "has webpush, the relay's own device, and there is no [webpush]",
        "canary.goal_seconds": "is longer than canary.interval_seconds, after which a mail counts as lost",
        "canary.server": "is no mail server here",
        "canary.password_file": "is missing",
        "canary.smtp_to": "is missing",
        "canary.smtp_tls": "is none, and canary.smtp_host is another host",
        "canary.smtp_user": "is missing",
    }


def test_a_server_without_passwords_needs_a_phone(site: Installation) -> None:
    site.replace("[servers.main]", '[servers.main]\ncredentials = ["certificate"]')
    configure(site)
    assert "canary.server" in dict(site.faults())


def test_phones_alone_need_neither_webpush_nor_the_password(site: Installation) -> None:
    configure(site, webpush="", platforms=["apns"], password_file=None)

    own = site.load().canary

    assert own is not None
    assert own.mailbox.password is None
    assert own.goal.platforms == {Platform.APNS}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"user": "canary:x@example.com", "smtp_to": "canary@example.com"}, "canary.user"),
        ({"smtp_to": "canary"}, "canary.smtp_to"),
        ({"smtp_from": "a b@example.com"}, "canary.smtp_from"),
        ({"smtp_from": "a,b@example.com"}, "canary.smtp_from"),
        ({"user": "jürgen@example.com", "smtp_to": None}, "canary.smtp_to"),
        ({"interval_seconds": 5}, "canary.interval_seconds"),
        ({"password_file": "missing"}, "canary.password_file"),
        ({"smtp_host": None}, "canary.smtp_host"),
        ({"platforms": []}, "canary.platforms"),
    ],
)
def test_a_value_that_cannot_be_is_named(site: Installation, changes: dict[str, Any], key: str) -> None:
    configure(site, **changes)
    assert key in dict(site.faults())


def test_a_password_was_written_when_its_file_came_whatever_the_file_says(site: Installation) -> None:
    """A copy keeps the moment of its original; one that is ahead would have a refused password shown again for ever."""
    configure(site)
    began = datetime.now(UTC) - timedelta(seconds=5)  # noqa: TID251 -- files have the time of the host
    for moment in (began - timedelta(days=9), began + timedelta(days=9)):
        for name in ("canary.password", "smtp.password"):
            os.utime(site.folder / name, (moment.timestamp(), moment.timestamp()))

        own = site.load().canary

        assert own is not None
        assert own.mailbox.written_at is not None
        for written in (own.mailbox.written_at, own.submission_written_at):
            assert began < written < began + timedelta(minutes=5)
