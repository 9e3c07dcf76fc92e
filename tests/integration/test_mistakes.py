"""The mistakes of an Exchange administrator: each message names the setting, what is wrong, and what to do."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from relay.domain.errors import SettingsInvalid
from relay.domain.model import Role
from relay.settings import load
from tests.fakes.chains import Authority
from tests.installation import Installation, explained
from tests.integration.spoiling import BOM, EC, EC_PEM, Host, Spoil, account, content, p7b, p12, pem_of, setting

URL: Final = "servers.main.url"
DOMAINS: Final = "servers.main.domains"
CA: Final = "servers.main.ca_file"
P8: Final = "apns.key_file"
JSON: Final = "fcm.service_account_file"
TOML: Final = "relay.toml"
GOOGLE_SERVICES: Final = {"project_info": {"project_number": "1"}, "client": [{}], "configuration_version": "1"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Installation(tmp_path_factory.mktemp("template")).folder


@pytest.fixture
def host(template: Path, tmp_path: Path) -> Host:
    return Host(template, tmp_path / "host")


def text(change: Callable[[str], str]) -> Spoil:
    """Edit relay.toml by hand."""
    return lambda host: host.toml.write_text(change(host.toml.read_text()))


def replaced(old: str, new: str) -> Spoil:
    return text(lambda toml: toml.replace(old, new, 1))


def named(key: str, name: str, made: Callable[[Host], bytes]) -> Spoil:
    """Put a file there, and name it in a setting."""

    def spoil(host: Host) -> None:
        host.write(name, made(host))
        host.put(key, name)

    return spoil


def several(*spoils: Spoil) -> Spoil:
    def spoil(host: Host) -> None:
        for each in spoils:
            each(host)

    return spoil


def without(table: str, *keys: str) -> Spoil:
    def spoil(host: Host) -> None:
        for key in keys:
            host.tables[table].pop(key)

    return spoil


def chain_upside_down(host: Host) -> bytes:
    """Return the certificate of the server behind that of its CA."""
    return (host.folder / "ca.pem").read_bytes() + (host.folder / "api.pem").read_bytes()


def weak_api(host: Host) -> None:
    """Give the API a certificate with an RSA key of 1024 bits."""
    both = Authority().server(key=rsa.generate_private_key(65537, 1024))  # noqa: S505 -- the weak key
    for name in ("api.pem", "api.key"):
        content(name, lambda _: both)(host)


def apns_certificate(name: str) -> Spoil:
    return several(without("apns", "key_file", "key_id"), setting("apns.certificate_file", name))


MISTAKES: Final[list[tuple[str, Spoil, str, str, str]]] = [
    ("URL of OWA", setting(URL, "https://mail.example.com/owa"), URL, "Outlook on the web (OWA)", "https://HOST"),
    ("URL of EWS", setting(URL, "https://mail.example.com/EWS/Exchange.asmx"), URL, "(EWS)", "https://HOST"),
    ("old OWA", setting(URL, "https://mail.example.com/exchange/"), URL, "of older versions", "https://HOST"),
    ("URL without TLS", setting(URL, "http://mail.example.com"), URL, "is not https://", "https://HOST"),
    ("host alone", setting(URL, "mail.example.com"), URL, "does not begin with https://", "https://HOST"),
    ("backslashes", setting(URL, "https:\\\\mail.example.com"), URL, "holds a backslash", "https://HOST"),
    ("login in the URL", setting(URL, "https://ann:x@mail.example.com"), URL, "holds a user", "https://HOST"),
    ("domain with user", setting(DOMAINS, ["EXAMPLE\\ann"]), DOMAINS, "Windows domain or login", "mail domains"),
    ("domain with @ within", setting(DOMAINS, ["ann@example.com"]), DOMAINS, "holds an address", "mail domains"),
    (
        "login as a domain of logins",
        setting("servers.main.user_domains", ["EXAMPLE\\ann"]),
        "servers.main.user_domains",
        "holds what is no domain of logins",
        "mail and Windows domains",
    ),
    ("key as CA", named(CA, "ca.pem", lambda _: EC_PEM), CA, "but a private key", "BEGIN CERTIFICATE"),
    ("CA as DER", named(CA, "ca.cer", lambda _: pem_of("der")), CA, "is a binary file (DER)", "openssl x509"),
    ("CA in PKCS #12", named(CA, "ca.pfx", lambda _: p12()), CA, "PKCS #12", "openssl pkcs12 -in"),
    (
        "CA in PKCS #7",
        named(CA, "ca.p7b", lambda _: b"-----BEGIN PKCS7-----\nMII=\n-----END PKCS7-----\n"),
        CA,
        "PKCS #7",
        "openssl pkcs7 -print_certs",
    ),
    (
        "CA in PKCS #7 as Windows exports it",
        named(CA, "ca.p7b", lambda _: p7b()),
        CA,
        "PKCS #7",
        "openssl pkcs7 -inform DER -print_certs",
    ),
    ("CA without line ends", content("ca.pem", lambda pem: pem.replace(b"\n", b"")), CA, "damaged", "Copy the file"),
    *(
        (
            f"{what} of the API {how}",
            content(name, change),
            setting_name,
            f"holds a {what} that is damaged",
            "Copy the file again",
        )
        for what, name, setting_name in (
            ("certificate", "api.pem", "api.certificate_file"),
            ("key", "api.key", "api.key_file"),
        )
        for how, change in (
            ("with CR alone", lambda pem: pem.replace(b"\n", b"\r")),
            ("indented", lambda pem: b"".join(b"  " + line for line in pem.splitlines(keepends=True))),
        )
    ),
    (
        "chain with a cut end",
        content("api.pem", lambda pem: pem + pem[:200]),
        "api.certificate_file",
        "damaged",
        "Copy",
    ),
    ("weak key of the API", weak_api, "api.certificate_file", "cannot be used: EE_KEY_TOO_SMALL", "RSA 2048 or longer"),
    ("CA that is cut", content("ca.pem", lambda pem: pem[:-40]), CA, "damaged", "Copy the file"),
    (
        "CA in UTF-16 without BOM",
        content("ca.pem", lambda pem: pem.decode().encode("utf-16-le")),
        CA,
        "UTF-16",
        "UTF-8",
    ),
    ("CA with BOM", content("ca.pem", lambda pem: BOM + pem), CA, "byte order mark", "without a byte order mark"),
    (
        "request as certificate",
        content("api.pem", lambda _: b"-----BEGIN CERTIFICATE REQUEST-----\nMII=\n-----END CERTIFICATE REQUEST-----\n"),
        "api.certificate_file",
        "but a certificate request, which a CA must sign",
        "BEGIN CERTIFICATE",
    ),
    (".p12 as .p8", content("apns.p8", lambda _: p12()), P8, "PKCS #12", "openssl pkcs12 -in"),
    ("certificate as .p8", setting(P8, "api.pem"), P8, "no ECDSA P-256 key, but a certificate", "Download the key"),
    (
        ".p8 as certificate",
        apns_certificate("apns.p8"),
        "apns.certificate_file",
        "names a .p8 key",
        "Name it in apns.key_file",
    ),
    (
        "key id and team id swapped",
        several(
            named(P8, "AuthKey_ABCDE12345.p8", lambda _: EC_PEM),
            setting("apns.key_id", "TEAM567890"),
            setting("apns.team_id", "ABCDE12345"),
        ),
        "apns.team_id",
        "is the id of the key, too",
        "Membership",
    ),
    ("one id twice", setting("apns.key_id", "TEAM567890"), "apns.team_id", "is the id of the key", "Membership"),
    ("key id too short", setting("apns.key_id", "ABCDE1234"), "apns.key_id", "ten letters and digits", "key_file"),
    (
        "topic with the team",
        setting("apns.topics", ["TEAM567890.com.example.mail"]),
        "apns.topics",
        "begins with the id of the team",
        "Write the bundle id alone",
    ),
    ("topic with wildcard", setting("apns.topics", ["com.example.*"]), "apns.topics", "holds a wildcard", "bundle ids"),
    ("topic as URL", setting("apns.topics", ["https://example.com"]), "apns.topics", "no bundle id", "bundle ids"),
    ("the app's JSON", content("fcm.json", lambda _: json.dumps(GOOGLE_SERVICES).encode()), JSON, "for the app", "new"),
    ("the app's plist", content("fcm.json", lambda _: b"<plist></plist>"), JSON, "GoogleService-Info.plist", "new key"),
    ("a legacy key", content("fcm.json", lambda _: b"AAAA:APA91bX"), JSON, "a legacy server key", "new key"),
    ("the web app's code", content("fcm.json", lambda _: b"const firebaseConfig = {};"), JSON, "of a web app", "new"),
    ("an OAuth client", content("fcm.json", lambda _: b'{"installed": {}}'), JSON, "an OAuth client", "new key"),
    ("EC key in the account", account(private_key=EC_PEM.decode()), JSON, "must be an RSA key", "new key"),
    ("app id of Firebase", setting("fcm.apps", ["1:12:android:ab"]), "fcm.apps", "an app id of Firebase", "package"),
    ("wildcard app", setting("fcm.apps", ["*"]), "fcm.apps", "holds a wildcard", "package names"),
    ("app with a slash", setting("fcm.apps", ["com/example"]), "fcm.apps", "no package name", "package names"),
    (
        "one port twice",
        several(setting("api.port", 9443), setting("ops.port", 9443)),
        "ops.port",
        "is 9443, which api.port is too",
        "different ports",
    ),
    (
        "key of another certificate",
        setting("api.key_file", "old.key"),
        "api.key_file",
        "is not the key of",
        "the key the certificate was made for",
    ),
    (
        "chain upside down",
        named("api.certificate_file", "chain.pem", chain_upside_down),
        "api.certificate_file",
        "begins with another certificate",
        "own certificate first",
    ),
    (
        "expired certificate",
        several(setting("api.certificate_file", "old.pem"), setting("api.key_file", "old.key")),
        "api.certificate_file",
        "expired on 2026-01-02",
        "Renew it",
    ),
    (
        "world-readable key",
        lambda host: (host.folder / "api.key").chmod(0o644),
        "api.key_file",
        "everybody on this host (mode 0644)",
        "chmod 600",
    ),
    ("typing error", setting("ops.prot", 9090), "ops.prot", "is unknown", "Did you mean port?"),
    ("table's typing error", setting("server.main.url", "x"), "server", "is unknown", "Did you mean servers?"),
    ("value as a table", setting("shadow.apps", "x"), "shadow", "is unknown", 'Did you mean push.mode = "shadow"?'),
    ("key as a table", setting("console.on", "true"), "console", "is unknown", "Did you mean admin.console?"),
    ("path", setting("webapp.base_path", "app"), "webapp.base_path", "is not in the form", "/ and one word of small"),
    ("number in words", setting("api.port", "https"), "api.port", "must be a whole number", "1 to 65535"),
    ("minutes", setting("servers.main.lockout_window", 30), "servers.main.lockout_window", "at least 60", "seconds"),
    ("port too high", setting("ops.port", 90900), "ops.port", "must be at most 65535", "port of health"),
    ("yes or no", setting("autodiscover.enabled", "maybe"), "autodiscover.enabled", "must be true or false", "true"),
    ("no text", setting("fcm.service_account_file", 5), JSON, "must be a text in quotes", "JSON"),
    ("table twice", text(lambda toml: f"{toml}\n[ops]\nport = 1\n"), TOML, "twice", "Keep one table of that name"),
    ("key twice", replaced("[api]", "[api]\nport = 1\nport = 2"), TOML, "Cannot overwrite", "Keep one of the two"),
    ("Windows path", replaced('"api.pem"', '"C:\\keys\\api.pem"'), TOML, "Unescaped", "two backslashes"),
    ("curly quotes", replaced('"api.pem"', "“api.pem”"), TOML, "Invalid value", "straight quotes"),
    ("no quotes", replaced('"api.pem"', "api.pem"), TOML, "Invalid value", "straight quotes"),
    ("colon", replaced("port =", "port:"), TOML, "after a key", "key = value"),
    (
        "Windows-1252",
        lambda host: host.toml.write_bytes(b"# Schl\xfcssel\n" + host.toml.read_bytes()),
        TOML,
        "is no UTF-8 (line 1)",
        "Save it as UTF-8",
    ),
    (
        "password in the URL",
        setting("database.url", "postgresql://relay:canary@db.example.com/relay"),
        "database.url",
        "holds a password",
        "database.password_file",
    ),
    ("SQL Server", setting("database.url", "mssql://sa@db/x"), "database.url", "neither sqlite", "postgresql://USER"),
    (
        "scheme in ops.hosts",
        setting("ops.hosts", ["http://relay.example.com"]),
        "ops.hosts",
        "is a URL: write the host alone",
        "names and addresses",
    ),
    ("port in ops.hosts", setting("ops.hosts", ["relay:9090"]), "ops.hosts", "has a port", "names and addresses"),
    (
        "name as a proxy",
        setting("api.proxies", ["proxy.example.com"]),
        "api.proxies",
        "no address or network",
        "not names",
    ),
    (
        "user in the proxy's URL",
        setting("network.proxy", "http://ann:x@proxy.example.com:3128"),
        "network.proxy",
        "holds a user",
        "http://HOST:PORT",
    ),
]


def unlisted(faults: Iterable[tuple[str, str, str]], kind: str = "") -> list[str]:
    """Return the messages that docs/troubleshoot.md does not explain."""
    messages = [f"{kind}{key} {wrong}" for key, wrong, _ in faults]
    return [message for message in messages if not any(text.search(message) for text in explained())]


@pytest.mark.parametrize(
    ("spoil", "key", "wrong", "remedy"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES]
)
def test_a_mistake_is_named_with_its_setting_and_its_remedy(
    host: Host, spoil: Spoil, key: str, wrong: str, remedy: str
) -> None:
    host.put(CA, "ca.pem")
    host.put("relay.state_dir", "state")
    spoil(host)

    faults = host.checked()

    assert len(faults) == 1, faults
    (found, said, advised) = faults[0]
    assert (Path(found).name if key == TOML else found) == key
    assert wrong in said
    assert remedy in advised
    assert unlisted(faults) == []
    assert "canary" not in str(faults)


def test_the_embedded_database_with_one_role_is_refused(host: Host) -> None:
    with pytest.raises(SettingsInvalid) as raised:
        load(host.toml, {}, Role.WATCH)

    faults = {key: (wrong, remedy) for key, wrong, remedy in raised.value.faults}
    assert faults["database.url"][0] == "is SQLite, which role watch cannot share with others"
    assert "postgresql://USER@HOST/NAME" in faults["database.url"][1]


def test_a_certificate_and_its_key_in_each_others_place_are_both_named(host: Host) -> None:
    """The certificate may be read by everybody: nobody is told to make a new key."""
    host.put("api.certificate_file", "api.key")
    host.put("api.key_file", "api.pem")

    faults = host.checked()

    assert [(key, wrong.partition(" holds ")[2]) for key, wrong, _ in faults] == [
        ("api.certificate_file", "no certificate, but a private key"),
        ("api.key_file", "no private key that opens without a password, but a certificate"),
    ]


@pytest.mark.parametrize(
    ("spoil", "key", "noted"),
    [
        (setting(URL, "https://outlook.office365.com"), "servers.main.credentials", "takes no passwords"),
        (setting(DOMAINS, ["EXAMPLE"]), DOMAINS, "holds example, which has no dot"),
        (
            several(
                named(P8, "AuthKey_ABCDE12345.p8", lambda _: EC_PEM),
                setting("apns.key_id", "ZYXWV12345"),
            ),
            "apns.key_id",
            "is not the id in the name of the file, ABCDE12345",
        ),
    ],
)
def test_what_may_be_meant_so_is_a_warning(host: Host, spoil: Spoil, key: str, noted: str) -> None:
    spoil(host)

    warnings = load(host.toml, {}, Role.ALL).warnings

    assert [(name, noted in text) for name, text, _ in warnings] == [(key, True)], warnings
    assert unlisted(warnings, "warning: ") == []


def test_a_certificate_without_the_ca_that_issued_it_is_a_warning(host: Host) -> None:
    issuing = Authority("Issuing CA", issuer=Authority())
    with_place = issuing.server(["relay.example.com"], key=EC, issuer_at="http://pki.example.com/ca.crt")
    host.write("api.pem", with_place)
    host.write("api.key", EC_PEM)

    ((key, noted, remedy),) = load(host.toml, {}, Role.ALL).warnings
    assert key == "api.certificate_file"
    assert noted.endswith("holds one certificate and not the CA that issued it, CN=Issuing CA")
    assert "below the root" in remedy
    assert unlisted([(key, noted, remedy)], "warning: ") == []

    host.write("api.pem", with_place + issuing.pem)
    assert load(host.toml, {}, Role.ALL).warnings == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (URL, "https://mail.example.com/Microsoft-Server-ActiveSync/"),
        ("apns.key_id", "abcde12345"),
        ("apns.team_id", " team567890"),
        ("servers.main.versions", [16.1, "14.1"]),
        ("servers.main.user_domains", ["@example.com", "EXAMPLE\\"]),
        ("servers.main.heartbeat_maximum", "1800"),
        ("ops.hosts", "relay.example.com, [2001:db8::5]"),
    ],
)
def test_what_is_meant_without_doubt_is_taken(host: Host, key: str, value: object) -> None:
    host.put(key, value)

    assert host.checked() == []


def test_spellings_reach_the_settings_in_one_form(host: Host) -> None:
    host.put(URL, "https://mail.example.com/Microsoft-Server-ActiveSync/")
    host.put("servers.main.user_domains", ["@example.com", "EXAMPLE\\"])
    host.put("apns.team_id", "team567890")

    found = load(host.toml, {}, Role.ALL)

    assert found.servers["main"].url == "https://mail.example.com/Microsoft-Server-ActiveSync"
    assert found.servers["main"].accounts.domains == {"example.com", "example"}
    assert found.apns is not None
    assert "TEAM567890" in str(found.apns.accounts[0].authentication)
