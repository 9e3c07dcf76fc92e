from pathlib import Path

import pytest

from eas_watcher.proxy.proxy import Proxy
from relay.domain.errors import SettingsInvalid
from relay.domain.model import Role
from relay.network.route import DIRECT, Route
from tests.installation import GOOD, Installation


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def routes(site: Installation, text: str) -> tuple[Route, Route]:
    """Return the routes to Apple and to Google."""
    site.configure(GOOD + text)
    settings = site.load()
    assert settings.apns is not None
    assert settings.fcm is not None
    return settings.apns.route, settings.fcm.route


def test_without_settings_the_relay_connects_to_both_providers_directly(site: Installation) -> None:
    assert routes(site, "") == (DIRECT, DIRECT)


def test_one_proxy_serves_both_providers_and_its_password_is_a_file(site: Installation) -> None:
    site.write("proxy.password", b"hunter2\n")

    route = Route(Proxy("proxy.example.com", 3128, user="relay", password="hunter2"))
    assert routes(
        site,
        """
        [network]
        proxy = "http://proxy.example.com:3128"
        proxy_user = "relay"
        proxy_password_file = "proxy.password"
        """,
    ) == (route, route)
    assert "hunter2" not in repr(site.load())


def test_a_provider_may_have_another_proxy_or_none_and_no_other_proxy_gets_the_password(site: Installation) -> None:
    site.write("proxy.password", b"hunter2\n")
    site.configure(
        GOOD.replace("[fcm]", '[fcm]\nproxy = "none"').replace("[apns]", '[apns]\nproxy = "http://[2001:db8::1]:8080/"')
        + """
        [network]
        proxy = "http://proxy.example.com:3128"
        proxy_user = "relay"
        proxy_password_file = "proxy.password"
        source_address = ["192.0.2.7", "2001:DB8::7"]
        """
    )
    settings = site.load()

    assert settings.apns is not None
    assert settings.fcm is not None
    sources = ("192.0.2.7", "2001:db8::7")
    assert settings.apns.route == Route(Proxy("2001:db8::1", 8080, setting="apns.proxy", takes_user=False), sources)
    assert settings.fcm.route == Route(None, sources)


def test_the_connection_to_a_proxy_may_use_tls(site: Installation) -> None:
    text = '[network]\nproxy = "https://proxy.example.com:3129"\nproxy_ca_file = "ca.pem"\n'

    assert routes(site, text)[0] == Route(Proxy("proxy.example.com", 3129, tls=True, ca_file=site.folder / "ca.pem"))


def test_the_environment_sets_the_route_too(site: Installation) -> None:
    settings = site.load(environ={"RELAY__NETWORK__PROXY": "http://p:1", "RELAY__NETWORK__SOURCE_ADDRESS": "192.0.2.7"})

    assert settings.fcm is not None
    assert settings.fcm.route == Route(Proxy("p", 1), ("192.0.2.7",))


def test_proxies_of_the_environment_are_never_used_implicitly(site: Installation) -> None:
    settings = site.load(environ={"HTTPS_PROXY": "http://p:1", "https_proxy": "http://p:1", "ALL_PROXY": "http://p:1"})

    assert settings.apns is not None
    assert settings.apns.route == DIRECT


def test_roles_that_do_not_push_ignore_the_table_network(site: Installation) -> None:
    site.configure(GOOD + '[network]\nproxy = "nonsense"\nproxy_password_file = "missing"\n')

    assert site.faults(Role.WATCH, {"RELAY__DATABASE__URL": "postgresql://relay@db.example.com/relay"}) == []


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("proxy.example.com:3128", "is no URL with a host"),
        ("http://proxy.example.com:0", "is no URL with a host"),
        ("http://", "is no URL with a host"),
        ("socks4://proxy.example.com:1080", "begins with none of http://, https://, socks5:// and socks5h://"),
        ("http://relay:hunter2@proxy.example.com:3128", "holds a user, which does not belong into the URL"),
        ("http://proxy.example.com:3128/pac", "has more than host and port"),
        ("http://proxy.example.com:3128?x", "has more than host and port"),
        ("http://proxy.example.com", "names no port"),
    ],
)
@pytest.mark.parametrize("key", ["network.proxy", "apns.proxy", "fcm.proxy"])
def test_a_url_that_is_no_proxy_is_a_fault_that_does_not_repeat_the_url(
    site: Installation, key: str, url: str, wrong: str
) -> None:
    table = key.partition(".")[0]
    text = GOOD + "[network]\n"
    site.configure(text.replace(f"[{table}]", f'[{table}]\nproxy = "{url}"'))

    assert site.faults() == [(key, wrong)]
    with pytest.raises(SettingsInvalid) as caught:
        site.load()
    assert caught.value.faults[0][2].startswith("Write http://HOST:PORT")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ('proxy_user = "relay"', [("network.proxy_user", "is set, but network.proxy is not")]),
        ('proxy_ca_file = "ca.pem"', [("network.proxy_ca_file", "is set, but network.proxy is not")]),
        ('proxy = "http://p:1"\nproxy_user = "relay"', [("network.proxy_password_file", "is missing")]),
        ('proxy = "http://p:1"\nproxy_password_file = "proxy.password"', [("network.proxy_user", "is missing")]),
        (
            'proxy = "http://p:1"\nproxy_user = "a:b"\nproxy_password_file = "proxy.password"',
            [("network.proxy_user", "holds a colon or a control character")],
        ),
        (
            'proxy = "http://p:1"\nproxy_ca_file = "ca.pem"',
            [("network.proxy_ca_file", "is set, but network.proxy is no https:// URL")],
        ),
        ('source_address = ["mail.example.com"]', [("network.source_address", "holds what is no IP address")]),
        ('source_address = ["0.0.0.0"]', [("network.source_address", "holds an address nobody can come from")]),
        ('source_address = ["ff02::1"]', [("network.source_address", "holds an address nobody can come from")]),
        (
            'source_address = ["192.0.2.7", "192.0.2.8"]',
            [("network.source_address", "holds more than one address of IPv4")],
        ),
    ],
)
def test_keys_that_do_not_fit_together_are_a_fault(
    site: Installation, text: str, faults: list[tuple[str, str]]
) -> None:
    site.write("proxy.password", b"hunter2\n")
    site.configure(f"{GOOD}\n[network]\n{text}\n")

    assert site.faults() == faults


def test_an_open_password_file_is_a_fault(site: Installation) -> None:
    site.write("proxy.password", b"hunter2\n")
    (site.folder / "proxy.password").chmod(0o644)
    site.configure(
        GOOD + '\n[network]\nproxy = "http://p:1"\nproxy_user = "relay"\nproxy_password_file = "proxy.password"\n'
    )

    (fault,) = site.faults()
    assert fault[0] == "network.proxy_password_file"
    assert "is open to others" in fault[1]


def test_a_mail_server_may_be_reached_from_many_addresses(site: Installation) -> None:
    site.replace(
        'domains = ["Example.com"]', 'source_addresses = ["192.0.2.7", "192.0.2.8", "2001:DB8::7", "192.0.2.7"]'
    )

    assert site.load().servers["main"].sources == ("192.0.2.7", "192.0.2.8", "2001:db8::7")


@pytest.mark.parametrize(("written", "spoken"), [("", True), ('http2 = "auto"\n', True), ('http2 = "off"\n', False)])
def test_http_2_to_a_mail_server_can_be_switched_off(site: Installation, written: str, *, spoken: bool) -> None:
    site.replace('domains = ["Example.com"]', f"{written}")

    assert site.load().servers["main"].http2 is spoken


def test_a_name_is_no_source_address_of_a_mail_server(site: Installation) -> None:
    site.replace('domains = ["Example.com"]', 'source_addresses = ["mail.example.com"]')

    assert site.faults() == [("servers.main.source_addresses", "holds what is no IP address")]
