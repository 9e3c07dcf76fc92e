from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from relay.cli.keygen import KeysExist, write_vapid_key
from relay.domain.model import Platform, Role
from relay.domain.subscription import BROWSERS
from relay.push.webpush.vapid import make_key, public_key, read_key
from relay.settings import vapid_key_file
from relay.settings.webpush import NO_WEBPUSH
from tests.installation import Installation

KEY = make_key()
GOOD: Mapping[str, str] = {
    "hosts": '["Push.Example.com", "10.0.0.7:8443"]',
    "apps": '["com.example.mail"]',
    "vapid_key_file": '"vapid.pem"',
    "subject": '"mailto:push@example.com"',
}


POSTGRES: Final = {"RELAY__DATABASE__URL": "postgresql://relay@db.example.com/relay"}


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    made = Installation(tmp_path)
    made.write("vapid.pem", KEY)
    return made


def configure(site: Installation, **changes: str | None) -> None:
    keys = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    site.configure(site.toml.read_text() + "\n[webpush]\n" + "".join(f"{k} = {v}\n" for k, v in keys.items()))


def test_a_good_table_becomes_the_settings_of_sender_and_api(site: Installation) -> None:
    configure(site, ca_file='"ca.pem"', in_flight="7")

    settings = site.load()

    services = frozenset({"push.example.com", "10.0.0.7:8443"})
    assert settings.webpush.services == services
    assert settings.webpush.public_key == public_key(KEY)
    assert settings.apps[Platform.WEBPUSH] == {"com.example.mail"}
    sender = settings.webpush.sender
    assert sender is not None
    assert (sender.services, sender.subject, sender.in_flight) == (services, "mailto:push@example.com", 7)
    assert (sender.vapid_key_file, sender.ca_file) == (site.folder / "vapid.pem", site.folder / "ca.pem")


def test_one_word_names_the_services_of_a_browser(site: Installation) -> None:
    configure(site, hosts='["Apple", "google", "mozilla", "microsoft", "push.example.com"]')

    services = site.load().webpush.services

    assert services == {*BROWSERS.values(), "push.example.com"}


def test_straight_hosts_are_reached_without_the_proxy_and_others_through_it(site: Installation) -> None:
    configure(site, straight_hosts='["10.0.0.7:8443"]')
    environ = {"RELAY__NETWORK__PROXY": "http://proxy.example.com:3128"}

    sender = site.load(environ=environ).webpush.sender

    assert sender is not None
    assert str(sender.route.proxy) == "proxy.example.com:3128"
    assert sender.direct == {"10.0.0.7:8443"}
    site.replace("[webpush]\n", '[webpush]\nproxy = "none"\n')
    sender = site.load(environ=environ).webpush.sender
    assert sender is not None
    assert sender.route.proxy is None


def test_without_the_table_there_is_no_webpush(site: Installation) -> None:
    settings = site.load()

    assert settings.webpush == NO_WEBPUSH
    assert settings.apps[Platform.WEBPUSH] == frozenset()


def test_webpush_alone_is_enough_of_a_provider(site: Installation) -> None:
    text = site.toml.read_text()
    site.configure(text.partition("[apns]")[0])
    configure(site)

    settings = site.load(Role.PUSH, POSTGRES)

    assert (settings.apns, settings.fcm) == (None, None)
    assert settings.webpush.sender is not None


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"hosts": None}, "webpush.hosts"),
        ({"hosts": "[]"}, "webpush.hosts"),
        ({"hosts": '["https://push.example.com"]'}, "webpush.hosts"),
        ({"hosts": '["*.example.com"]'}, "webpush.hosts"),
        ({"hosts": '["push.example.com:0"]'}, "webpush.hosts"),
        ({"apps": None}, "webpush.apps"),
        ({"vapid_key_file": None}, "webpush.vapid_key_file"),
        ({"vapid_key_file": '"missing.pem"'}, "webpush.vapid_key_file"),
        ({"vapid_key_file": '"p384.p8"'}, "webpush.vapid_key_file"),
        ({"vapid_key_file": '"api.pem"'}, "webpush.vapid_key_file"),
        ({"subject": None}, "webpush.subject"),
        ({"subject": '"ann"'}, "webpush.subject"),
        ({"subject": '"mailto:"'}, "webpush.subject"),
        ({"public_key": '"BBBB"'}, "webpush.public_key"),
        ({"ca_file": '"vapid.pem"'}, "webpush.ca_file"),
        ({"proxy": '"ftp://proxy.example.com"'}, "webpush.proxy"),
        ({"straight_hosts": '["other.example.com"]'}, "webpush.straight_hosts"),
        ({"straight_hosts": '["a/b"]'}, "webpush.straight_hosts"),
        ({"in_flight": "0"}, "webpush.in_flight"),
        ({"host": '["push.example.com"]'}, "webpush.host"),
    ],
    ids=str,
)
def test_each_fault_is_reported_under_its_key(site: Installation, changes: dict[str, Any], key: str) -> None:
    configure(site, **changes)

    assert {named for named, _ in site.faults()} == {key}


def test_the_api_role_has_the_public_half_and_reads_no_key(site: Installation) -> None:
    configure(site, vapid_key_file='"missing.pem"', subject=None)
    assert [key for key, _ in site.faults(Role.API, POSTGRES)] == ["webpush.public_key"]

    site.replace("[webpush]\n", f'[webpush]\npublic_key = "{public_key(KEY)}"\n')

    settings = site.load(Role.API, POSTGRES)
    assert settings.webpush.public_key == public_key(KEY)
    assert settings.webpush.sender is None
    assert settings.webpush.services == {"push.example.com", "10.0.0.7:8443"}


def test_the_watch_role_needs_nothing_of_it(site: Installation) -> None:
    configure(site, vapid_key_file=None, hosts=None)

    assert site.load(Role.WATCH, POSTGRES).webpush == NO_WEBPUSH


def test_a_made_key_is_private_and_never_replaced(site: Installation) -> None:
    configure(site, vapid_key_file='"new/vapid.pem"')
    file = vapid_key_file(site.toml, {})

    write_vapid_key(file)

    assert file == site.folder / "new/vapid.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    made = read_key(file)
    assert site.load().webpush.public_key == public_key(made)
    with pytest.raises(KeysExist, match="subscribe again"):
        write_vapid_key(file)
    assert read_key(file) == made
