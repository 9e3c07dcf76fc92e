from pathlib import Path

import pytest

from eas_watcher.proxy.proxy import Proxy
from relay.domain.model import Role
from tests.installation import GOOD, Installation
from tests.unit.relay.settings.test_kerberos import RELAY

URL = "http://proxy.example.com:3128"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Return a site on a host with the optional library gssapi, here an empty module of that name."""
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries/gssapi.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "libraries")
    site = Installation(tmp_path)
    site.write("proxy.password", b"hunter2\n")
    site.write("long.password", b"x" * 256 + b"\n")
    site.write("proxy.keytab", b"\x05\x02" + RELAY)
    return site


def configure(site: Installation, text: str, table: str = "servers.main") -> None:
    site.configure(GOOD.replace(f"[{table}]", f"[{table}]\n{text}"))


def proxy(site: Installation, text: str) -> Proxy | None:
    configure(site, text)
    return site.load().servers["main"].proxy


def test_a_mail_server_is_reached_directly_unless_it_has_a_proxy_of_its_own(site: Installation) -> None:
    site.configure(GOOD + f'[network]\nproxy = "{URL}"\n')

    assert site.load().servers["main"].proxy is None
    assert proxy(site, 'proxy = "None"') is None


def test_a_mail_server_may_be_behind_a_proxy_that_wants_a_user(site: Installation) -> None:
    text = f'proxy = "{URL}"\nproxy_user = "relay"\nproxy_password_file = "proxy.password"'
    assert proxy(site, text) == Proxy("proxy.example.com", 3128, "servers.main.proxy", "relay", "hunter2")
    assert "hunter2" not in repr(site.load())


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_a_proxy_may_speak_socks(site: Installation, scheme: str) -> None:
    found = proxy(site, f'proxy = "{scheme}://[2001:db8::1]:1080"')

    assert found is not None
    assert (found.host, found.port, found.speaks, found.tls) == ("2001:db8::1", 1080, scheme, False)


def test_a_proxy_may_want_tickets(site: Installation) -> None:
    text = f'proxy = "{URL}"\nproxy_auth = "negotiate"\n'
    found = proxy(site, f'{text}proxy_user = "push-relay@EXAMPLE.COM"\nproxy_keytab_file = "proxy.keytab"')
    assert found is not None
    assert (found.negotiates, found.user, found.keytab) == (
        True,
        "push-relay@EXAMPLE.COM",
        site.folder / "proxy.keytab",
    )

    of_the_process = proxy(site, text)
    assert of_the_process is not None
    assert (of_the_process.negotiates, of_the_process.user, of_the_process.keytab) == (True, "", None)


def test_autodiscover_may_be_behind_a_proxy_too(site: Installation) -> None:
    site.configure(GOOD + f'[autodiscover]\nenabled = true\nhosts = ["autodiscover.example.net"]\nproxy = "{URL}"\n')

    assert site.load().autodiscover.proxy == Proxy("proxy.example.com", 3128, "autodiscover.proxy")


def test_the_api_reads_no_password_of_a_proxy(site: Installation) -> None:
    configure(site, f'proxy = "{URL}"\nproxy_user = "relay"\nproxy_password_file = "missing"')

    environ = {"RELAY__DATABASE__URL": "postgresql://relay@db.example.com/relay"}
    assert site.load(Role.API, environ).servers["main"].proxy is None


def test_what_is_learnt_of_a_refused_credential_holds_for_all_tables_that_have_it(site: Installation) -> None:
    login = f'proxy = "{URL}"\nproxy_user = "relay"\nproxy_password_file = "proxy.password"\n'
    configure(site, login)
    site.toml.write_text(site.toml.read_text() + f"[network]\n{login}")
    settings = site.load()
    server, apns = settings.servers["main"].proxy, settings.apns

    assert server is not None
    assert apns is not None
    assert apns.route.proxy is not None
    assert server.refusals is apns.route.proxy.refusals


@pytest.mark.parametrize(
    ("text", "key", "wrong"),
    [
        ('proxy = "ftp://p:1"', "proxy", "begins with none of http://, https://, socks5:// and socks5h://"),
        ('proxy = "http://müller:1"', "proxy", "names a host in other letters than ASCII"),
        ('proxy = "none"\nproxy_user = "relay"', "proxy_user", "is set, but servers.main.proxy is not"),
        ('proxy_auth = "negotiate"', "proxy_auth", "is set, but servers.main.proxy is not"),
        (
            f'proxy = "{URL}"\nproxy_keytab_file = "proxy.keytab"',
            "proxy_keytab_file",
            "is set, but servers.main.proxy_auth is basic",
        ),
        (
            f'proxy = "{URL}"\nproxy_auth = "negotiate"\nproxy_password_file = "proxy.password"',
            "proxy_password_file",
            "is set, but servers.main.proxy_auth is negotiate",
        ),
        (f'proxy = "{URL}"\nproxy_auth = "negotiate"\nproxy_user = "relay"', "proxy_user", "names no realm"),
        (
            f'proxy = "{URL}"\nproxy_auth = "negotiate"\nproxy_keytab_file = "proxy.keytab"',
            "proxy_user",
            "is missing",
        ),
        (
            'proxy = "socks5://p:1"\nproxy_auth = "negotiate"',
            "proxy_auth",
            "is negotiate, which SOCKS5 proxies are not spoken to with",
        ),
        (
            'proxy = "socks5://p:1"\nproxy_user = "relay"\nproxy_password_file = "long.password"',
            "proxy_password_file",
            "is too long for a SOCKS5 proxy",
        ),
        (f'proxy = "{URL}"\nproxy_user = "a:b"', "proxy_user", "holds a colon or a control character"),
        (
            f'proxy = "{URL}"\nproxy_ca_file = "ca.pem"',
            "proxy_ca_file",
            "is set, but servers.main.proxy is no https:// URL",
        ),
    ],
)
def test_each_mistake_is_named_with_its_key(site: Installation, text: str, key: str, wrong: str) -> None:
    configure(site, text)

    assert (f"servers.main.{key}", wrong) in site.faults()


def test_without_the_library_nothing_negotiates(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.folder / "libraries/gssapi.py").unlink()
    configure(site, f'proxy = "{URL}"\nproxy_auth = "negotiate"')
    monkeypatch.setattr("relay.settings.proxies.find_spec", lambda _: None)

    assert site.faults() == [("servers.main.proxy_auth", "is negotiate, whose library is not installed")]


def test_a_keytab_without_the_key_is_named(site: Installation) -> None:
    text = f'proxy = "{URL}"\nproxy_auth = "negotiate"\nproxy_user = "other@EXAMPLE.COM"\nproxy_keytab_file = '
    configure(site, f'{text}"proxy.keytab"')

    ((key, wrong),) = site.faults()
    assert key == "servers.main.proxy_keytab_file"
    assert wrong.endswith("has no key of other@EXAMPLE.COM")


def test_all_mistakes_are_named_at_once(site: Installation) -> None:
    configure(site, 'proxy = "p"\nproxy_user = "a:b"\nproxy_password_file = "missing"\nproxy_keytab_file = "missing"')

    assert [key for key, _ in site.faults()] == [
        f"servers.main.{key}" for key in ("proxy", "proxy_user", "proxy_keytab_file", "proxy_password_file")
    ]


def test_a_ticket_for_an_address_is_worth_a_warning(site: Installation) -> None:
    configure(site, 'proxy = "http://192.0.2.1:3128"\nproxy_auth = "negotiate"')

    warned = [(key, wrong) for key, wrong, _ in site.load().warnings]
    assert ("servers.main.proxy_auth", "is negotiate, but the proxy has an address and no name") in warned
