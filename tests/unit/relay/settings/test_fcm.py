import json
from pathlib import Path

import pytest

from relay.domain.model import Platform
from relay.push.fcm.config import FcmAccount
from tests.installation import GOOD, Installation

OTHER = """
[fcm.accounts.other-app]
service_account_file = "fcm-other.json"
apps = ["com.example.other"]
"""
NO_PLAIN = GOOD[: GOOD.index("[fcm]")]


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    site = Installation(tmp_path)
    document = json.loads((tmp_path / "fcm.json").read_text()) | {"project_id": "another-project"}
    site.write("fcm-other.json", json.dumps(document).encode())
    site.configure(GOOD + OTHER)
    return site


def accounts(site: Installation) -> tuple[FcmAccount, ...]:
    fcm = site.load().fcm
    assert fcm is not None
    return fcm.accounts


def test_more_projects_may_stand_beside_the_table_fcm_and_their_apps_may_register(site: Installation) -> None:
    plain, other = accounts(site)

    assert plain == FcmAccount(frozenset({"com.example.mail"}), site.folder / "fcm.json")
    file, table = site.folder / "fcm-other.json", "fcm.accounts.other-app"
    assert other == FcmAccount(frozenset({"com.example.other"}), file, table)
    assert other.file_setting == "fcm.accounts.other-app.service_account_file"
    assert site.load().apps[Platform.FCM] == {"com.example.mail", "com.example.other"}


def test_projects_need_no_service_account_in_the_table_fcm(site: Installation) -> None:
    site.configure(NO_PLAIN + '[fcm]\nurl = "https://fcm.example.com"\n' + OTHER)

    assert [account.table for account in accounts(site)] == ["fcm.accounts.other-app"]


def test_the_environment_overrides_a_project_even_with_a_hyphen(site: Installation) -> None:
    fcm = site.load(environ={"RELAY__FCM__ACCOUNTS__OTHER_APP__APPS": "com.example.a, com.example.b"}).fcm

    assert fcm is not None
    assert fcm.accounts[1].apps == {"com.example.a", "com.example.b"}


@pytest.mark.parametrize(
    ("old", "new", "key", "wrong"),
    [
        ("com.example.other", "com.example.mail", "apps", "names com.example.mail, which fcm is for already"),
        ("fcm-other.json", "fcm.json", "service_account_file", "is for the same Firebase project as fcm."),
        ("fcm-other.json", "none.json", "service_account_file", "cannot be read"),
        ('service_account_file = "fcm-other.json"', "", "service_account_file", "is missing"),
        ('apps = ["com.example.other"]', "", "apps", "is missing"),
        ('apps = ["com.example.other"]', 'app = "x"', "app", "is unknown"),
        ('apps = ["com.example.other"]', 'apps = ["*"]', "apps", "wildcard"),
    ],
)
def test_faults_of_a_project_are_reported_under_its_keys(
    site: Installation, old: str, new: str, key: str, wrong: str
) -> None:
    site.replace(old, new)

    found = site.faults()

    assert any(each == f"fcm.accounts.other-app.{key}" and wrong in text for each, text in found), found


def test_an_unusable_name_and_projects_that_are_no_table_are_reported(site: Installation) -> None:
    site.replace("other-app]", "Other_App]")
    assert any(key == "fcm.accounts.Other_App" and "is no account name" in wrong for key, wrong in site.faults())

    site.configure(GOOD.replace("[fcm]", '[fcm]\naccounts = "x"'))
    assert ("fcm.accounts", "is no table") in site.faults()
