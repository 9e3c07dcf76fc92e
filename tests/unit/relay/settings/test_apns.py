from pathlib import Path

import pytest

from relay.domain.model import Environment, Platform
from relay.push.apns.config import ApnsAccount, ApnsCertificate, ApnsToken
from tests.installation import GOOD, Installation

OTHER = """
[apns.accounts.other-team]
key_file = "AuthKey_FGHIJ67890.p8"
team_id = "TEAM098765"
topics = ["com.example.other"]
"""
NO_PLAIN = GOOD[: GOOD.index("[apns]")] + GOOD[GOOD.index("[fcm]") :]


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    site = Installation(tmp_path)
    site.write("AuthKey_FGHIJ67890.p8", (tmp_path / "apns.p8").read_bytes())
    site.configure(GOOD + OTHER)
    return site


def accounts(site: Installation) -> tuple[ApnsAccount, ...]:
    apns = site.load().apns
    assert apns is not None
    return apns.accounts


def test_more_accounts_may_stand_beside_the_table_apns_and_their_apps_may_register(site: Installation) -> None:
    plain, other = accounts(site)

    assert plain.table == "apns"
    token = ApnsToken(site.folder / "AuthKey_FGHIJ67890.p8", None, "TEAM098765")
    assert other == ApnsAccount(frozenset({"com.example.other"}), token, table="apns.accounts.other-team")
    assert token.present_key_id == "FGHIJ67890"
    assert other.file_setting == "apns.accounts.other-team.key_file"
    assert site.load().apps[Platform.APNS] == {"com.example.mail", "com.example.other"}


def test_accounts_need_no_account_in_the_table_apns(site: Installation) -> None:
    site.configure(NO_PLAIN + OTHER)

    assert [account.table for account in accounts(site)] == ["apns.accounts.other-team"]


def test_an_account_may_have_a_certificate(site: Installation) -> None:
    certified = '[apns.accounts.old]\ncertificate_file = "api-both.pem"\ntopics = "com.example.old"\n'
    site.configure(GOOD + certified)

    (_, old) = accounts(site)

    assert old.authentication == ApnsCertificate(site.folder / "api-both.pem")
    assert old.file_setting == "apns.accounts.old.certificate_file"


def test_two_accounts_may_share_an_app_in_different_environments(site: Installation) -> None:
    site.replace('topics = ["com.example.other"]', 'topics = ["com.example.mail"]\nenvironments = ["sandbox"]')
    site.replace("[fcm]", 'environments = ["production"]\n[fcm]')

    plain, other = accounts(site)

    assert plain.environments == {Environment.PRODUCTION}
    assert other.environments == {Environment.SANDBOX}


def test_the_environment_overrides_an_account_even_with_a_hyphen(site: Installation) -> None:
    apns = site.load(environ={"RELAY__APNS__ACCOUNTS__OTHER_TEAM__TOPICS": "com.example.a, com.example.b"}).apns

    assert apns is not None
    assert apns.accounts[1].topics == {"com.example.a", "com.example.b"}


def test_the_name_of_the_target_of_a_link_gives_the_key_id(site: Installation) -> None:
    (site.folder / "present.p8").symlink_to("AuthKey_FGHIJ67890.p8")
    site.replace('key_file = "AuthKey_FGHIJ67890.p8"', 'key_file = "present.p8"')

    (_, other) = accounts(site)

    assert isinstance(other.authentication, ApnsToken)
    assert other.authentication.present_key_id == "FGHIJ67890"


@pytest.mark.parametrize(
    ("old", "new", "faults"),
    [
        ("com.example.other", "com.example.mail", [("apns.accounts.other-team.topics", "which apns is for already")]),
        ("other-team]", "Other_Team]", [("apns.accounts.Other_Team", "is no account name")]),
        ("AuthKey_FGHIJ67890", "p384", [("apns.accounts.other-team.key_id", "is missing")]),
        ('team_id = "TEAM098765"', "", [("apns.accounts.other-team.team_id", "is missing")]),
        ('topics = ["com.example.other"]', "", [("apns.accounts.other-team.topics", "is missing")]),
        ("FGHIJ67890.p8", "KLMNO67890.p8", [("apns.accounts.other-team.key_file", "cannot be read")]),
        ('team_id = "TEAM098765"', 'team = "x"', [("apns.accounts.other-team.team", "is unknown")]),
        ("[apns.accounts.other-team]", "[apns.accounts]\nother = 1\n[log]", [("apns.accounts.other", "is no table")]),
        (
            'team_id = "TEAM098765"',
            'certificate_file = "api-both.pem"',
            [("apns.accounts.other-team.certificate_file", "is set beside")],
        ),
    ],
)
def test_faults_of_an_account_are_reported_under_its_keys(
    site: Installation, old: str, new: str, faults: list[tuple[str, str]]
) -> None:
    site.replace(old, new)

    found = site.faults()

    for key, wrong in faults:
        assert any(found_key == key and wrong in found_wrong for found_key, found_wrong in found), found


def test_accounts_that_are_no_table_are_reported(site: Installation) -> None:
    site.configure(GOOD.replace("[apns]", '[apns]\naccounts = "x"'))

    assert ("apns.accounts", "is no table") in site.faults()
