from pathlib import Path

import pytest

from relay.domain.model import Platform, Role
from relay.domain.subscription import BROWSERS
from relay.push.payload import WEB_APP
from relay.settings.values import Logo
from tests.installation import Installation

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
WEBPUSH = """
[webpush]
hosts = ["apple", "google"]
vapid_key_file = "vapid.pem"
subject = "mailto:push@example.com"
"""
GOOD = '[webapp]\nenabled = true\norigin = "https://Relay.example.com:8443/"\n'


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def configure(site: Installation, webapp: str, webpush: str = WEBPUSH) -> None:
    site.configure(f"{site.toml.read_text()}{webpush}{webapp}")


def test_without_the_table_there_is_no_web_app(site: Installation) -> None:
    assert site.load().webapp is None
    configure(site, GOOD.replace("true", "false"), WEBPUSH + 'apps = ["com.example.mail"]\n')
    settings = site.load()
    assert settings.webapp is None
    assert WEB_APP not in settings.apps[Platform.WEBPUSH]
    assert settings.webpush.sender is not None
    assert settings.webpush.sender.pages is None


def test_a_good_table_adds_the_app_and_tells_the_sender_what_notifications_open(site: Installation) -> None:
    site.write("logo.png", PNG, 0o644)
    more = 'base_path = "/mail"\ntitle = "Mail"\nopen_url = "https://mail.example.com/owa/"\nlogo_file = "logo.png"\n'
    configure(site, GOOD + more)

    settings = site.load()

    webapp = settings.webapp
    assert webapp is not None
    assert (webapp.origin, webapp.base_path, webapp.title) == ("https://relay.example.com:8443", "/mail", "Mail")
    assert (webapp.pages.own, webapp.pages.mail) == (
        "https://relay.example.com:8443/mail/",
        "https://mail.example.com/owa/",
    )
    assert webapp.logo == Logo(PNG, "image/png")
    assert settings.apps[Platform.WEBPUSH] == {WEB_APP}
    assert settings.webpush.services == {BROWSERS["apple"], BROWSERS["google"]}
    assert settings.webpush.sender is not None
    assert settings.webpush.sender.pages == webapp.pages


@pytest.mark.parametrize(
    "before", ["", "\ufeff", "<?xml version='1.0'?>\n<!-- > -->\n<!DOCTYPE svg [<!ENTITY a 'b'>]>\n"]
)
def test_a_logo_is_an_svg_whatever_a_program_wrote_before_it(site: Installation, before: str) -> None:
    logo = f"{before}<svg xmlns='http://www.w3.org/2000/svg'/>".encode()
    site.write("logo.svg", logo, 0o644)
    configure(site, f'{GOOD}logo_file = "logo.svg"\n')
    webapp = site.load().webapp

    assert webapp is not None
    assert webapp.logo == Logo(logo, "image/svg+xml")


def test_notifications_open_the_web_app_unless_an_address_is_set(site: Installation) -> None:
    configure(site, GOOD)
    webapp = site.load().webapp

    assert webapp is not None
    assert webapp.pages.mail == webapp.pages.own == "https://relay.example.com:8443/app/"
    assert webapp.logo is None


def test_the_push_role_reads_it_and_the_watch_role_does_not(site: Installation) -> None:
    configure(site, GOOD)
    environ = {"RELAY__DATABASE__URL": "postgresql://relay@db.example.com/relay"}

    assert site.load(role=Role.PUSH, environ=environ).webapp is not None
    assert site.load(role=Role.WATCH, environ=environ).webapp is None


@pytest.mark.parametrize(
    ("change", "key", "wrong"),
    [
        (GOOD.replace("origin", "#"), "webapp.origin", "is missing"),
        (GOOD.replace("https://", "http://"), "webapp.origin", "is no https:// address of host and port alone"),
        (GOOD.replace(":8443/", ":8443/mail"), "webapp.origin", "is no https:// address of host and port alone"),
        (GOOD.replace("Relay.", "ann@relay."), "webapp.origin", "is no https:// address of host and port alone"),
        (GOOD + 'open_url = "http://mail.example.com/"', "webapp.open_url", "is no plain https:// address"),
        (GOOD + 'open_url = "https://mail.example.com/?a=b"', "webapp.open_url", "is no plain https:// address"),
        (GOOD + 'open_url = "https://mail.example.com"', "webapp.open_url", "is no plain https:// address"),
        (GOOD + 'base_path = "/v1"', "webapp.base_path", "is /v1, which the API uses"),
        (GOOD + 'base_path = "app"', "webapp.base_path", "is not in the form that it must have"),
        (GOOD + 'base_path = "/a/b"', "webapp.base_path", "is not in the form that it must have"),
        (GOOD + f'title = "{"x" * 41}"', "webapp.title", "at most 40 characters"),
        (GOOD + 'logo_file = "missing.png"', "webapp.logo_file", "cannot be read"),
        (GOOD + 'logo_file = "ca.pem"', "webapp.logo_file", "is no PNG or SVG of at most 200 kB"),
        (GOOD + 'logo_file = "large.png"', "webapp.logo_file", "is no PNG or SVG of at most 200 kB"),
    ],
)
def test_a_fault_names_its_key_and_what_is_wrong(site: Installation, change: str, key: str, wrong: str) -> None:
    site.write("large.png", PNG + bytes(200_000), 0o644)
    configure(site, change)

    found = [text for name, text in site.faults() if name == key]

    assert len(found) == 1
    assert wrong in found[0]


def test_without_webpush_it_cannot_be(site: Installation) -> None:
    configure(site, GOOD, "")

    assert ("webapp.enabled", "needs WebPush, which is not set up") in site.faults()


def test_a_machine_may_show_it_to_itself_without_tls(site: Installation) -> None:
    configure(site, GOOD.replace("https://Relay.example.com:8443/", "http://localhost:8450"))
    webapp = site.load().webapp

    assert webapp is not None
    assert webapp.pages.own == "http://localhost:8450/app/"


def test_all_faults_are_told_at_once_and_none_that_follows_from_another(site: Installation) -> None:
    wrong = GOOD.replace("https://", "ftp://") + 'open_url = "mail"\nlogo_file = "missing.png"\n'
    configure(site, wrong)

    assert {key for key, _ in site.faults()} == {"webapp.origin", "webapp.open_url", "webapp.logo_file"}
