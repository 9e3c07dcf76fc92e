"""Test that `relay check` and `relay serve` agree about every configuration, and never break over one."""

import asyncio
import copy
import os
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from relay import app
from relay.cli.main import cli
from relay.domain.errors import RelayError, SettingsInvalid
from relay.domain.model import Role
from relay.security.secret_files import ACL, group_name, user_name
from relay.settings import load
from relay.settings.sections import known_keys
from tests.installation import Installation, explained
from tests.integration.spoiling import (
    BOM,
    CANARY,
    EC_PEM,
    NOBODY,
    Faults,
    Host,
    Spoil,
    account,
    as_nobody,
    content,
    fifo,
    folder,
    link,
    p12,
    pem_of,
    setting,
)

SECRETS: Final = ("api.key", "apns.p8", "fcm.json", "state/sealing-private.pem")
HEADER: Final = bytes.fromhex("02000000")  # the version of an ACL
ENTRY: Final = struct.Struct("<HHI")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Installation(tmp_path_factory.mktemp("template")).folder


@pytest.fixture
def host(template: Path, tmp_path: Path) -> Host:
    return Host(template, tmp_path / "host")


KEY = "apns.key_file"

CASES: Final[list[tuple[str, Spoil, str, str]]] = [
    ("EC key in the service account", account(private_key=EC_PEM.decode()), "fcm.service_account_file", "RSA"),
    ("service account is a .p12", content("fcm.json", lambda _: p12()), "fcm.service_account_file", "PKCS #12"),
    ("service account nests", content("fcm.json", lambda _: b"[" * 200_000), "fcm.service_account_file", "JSON"),
    ("p8 with BOM", content("apns.p8", lambda pem: BOM + pem), KEY, "byte order mark"),
    ("p8 in UTF-16", content("apns.p8", lambda pem: pem.decode().encode("utf-16")), KEY, "UTF-16"),
    (
        "p8 with an umlaut",
        content("apns.p8", lambda pem: b"# Schl\xfcssel\n" + pem),
        KEY,
        "letters than ASCII (line 1)",
    ),
    ("p8 empty", content("apns.p8", lambda _: b""), KEY, "is empty"),
    ("p8 blank", content("apns.p8", lambda _: b" \n\n"), KEY, "is empty"),
    ("p8 huge", content("apns.p8", lambda pem: pem * 50_000), KEY, "more than 4 MiB"),
    ("p8 random", content("apns.p8", lambda _: bytes(range(256))), KEY, "ASCII"),
    ("p8 is .p12", content("apns.p8", lambda _: p12()), KEY, "PKCS #12"),
    ("p8 is DER", content("apns.p8", lambda _: pem_of("der")), KEY, "DER"),
    ("p8 encrypted", content("apns.p8", lambda _: pem_of("encrypted")), KEY, "encrypted with a password"),
    ("p8 is public", content("apns.p8", lambda _: pem_of("public")), KEY, "no ECDSA P-256 key"),
    ("p8 is Ed25519", content("apns.p8", lambda _: pem_of("ed25519")), KEY, "no ECDSA P-256 key"),
    ("p8 is a web page", content("apns.p8", lambda _: b"<!DOCTYPE html><p>Log in"), KEY, "web page"),
    ("p8 is a folder", folder("apns.p8"), KEY, "it is a folder"),
    ("p8 is a pipe", fifo("apns.p8"), KEY, "it is a pipe"),
    ("p8 is a device", link("apns.p8", "/dev/zero"), KEY, "it is a device"),
    ("p8 links to itself", link("apns.p8", "apns.p8"), KEY, "symbolic links"),
    ("TLS key is a pipe", fifo("api.key"), "api.key_file", "it is a pipe"),
    ("TLS certificate is .p12", content("api.pem", lambda _: p12()), "api.certificate_file", "PKCS #12"),
    ("sealing key is .p12", content("state/sealing-private.pem", lambda _: p12()), "sealing.private_key_file", "PKCS"),
    ("sealing key is EC", content("state/sealing-private.pem", lambda _: EC_PEM), "sealing.private_key_file", "X25519"),
    ("host is a URL", setting("api.host", "http://0.0.0.0"), "api.host", "is a URL"),
    ("host with port", setting("api.host", "0.0.0.0:8443"), "api.host", "has a port"),
    ("host is elsewhere", setting("api.host", "192.0.2.7"), "api.host", "no address of this host"),
    ("host in brackets with port", setting("ops.host", "[::]:9090"), "ops.host", "has a port"),
    ("host is empty", setting("api.host", ""), "api.host", 'write "*" for all'),
    ("no host", setting("ops.host", []), "ops.host", 'write "*" for all'),
    ("host twice", setting("api.host", ["0.0.0.0", "127.0.0.1"]), "api.host", "names an address twice"),
    ("all hosts and one", setting("api.host", ["*", "::1"]), "api.host", "names an address twice"),
    (
        "one of two elsewhere",
        setting("api.host", ["127.0.0.1", "192.0.2.7"]),
        "api.host",
        "names 192.0.2.7, which is no address of this host",
    ),
    ("host is a number", setting("api.host", 8443), "api.host", "must be a text or a list"),
    ("host is a sentence", setting("ops.host", "my host"), "ops.host", "no host name"),
    ("APNs with scheme", setting("apns.host", "https://api.push.apple.com"), "apns.host", "is a URL"),
    ("APNs with port", setting("apns.sandbox_host", "api.push.apple.com:443"), "apns.sandbox_host", "has a port"),
    ("APNs with path", setting("apns.host", "api.push.apple.com/3"), "apns.host", "has a path"),
    ("OWA", setting("servers.main.url", "https://mail.example.com/owa/"), "servers.main.url", "(OWA)"),
    ("EWS", setting("servers.main.url", "https://mail.example.com/EWS/Exchange.asmx"), "servers.main.url", "(EWS)"),
    (
        "Autodiscover",
        setting("servers.main.url", "https://mail.example.com/autodiscover/autodiscover.xml"),
        "servers.main.url",
        "Autodiscover",
    ),
    ("URL with a blank", setting("servers.main.url", "https://mail.example .com"), "servers.main.url", "blank"),
    ("domain with wildcard", setting("servers.main.domains", ["*.example.com"]), "servers.main.domains", "wildcard"),
    ("domain is an address", setting("servers.main.domains", ["ann@example.com"]), "servers.main.domains", "address"),
    ("domain is a URL", setting("servers.main.domains", ["https://example.com"]), "servers.main.domains", "URL"),
    ("topic with blank", setting("apns.topics", ["com.example mail"]), "apns.topics", "blank"),
    ("app with blank", setting("fcm.apps", ["com.example.mail com.example.other"]), "fcm.apps", "blank"),
    ("pasted key", setting("apns.key_file", EC_PEM.decode()), KEY, "line breaks"),
    ("pasted secret", setting("apns.key_file", CANARY), KEY, "what it names cannot be read"),
    ("database in a file", setting("database.url", "sqlite:///api.pem/x.db"), "database.url", "is no folder"),
    ("database is a folder", setting("database.url", "sqlite:///state"), "database.url", "cannot be written"),
    ("egress folder is a file", setting("egress.folder", "api.pem/egress"), "egress.folder", "is no folder"),
    ("egress in /proc", setting("egress.folder", "/proc/egress"), "egress.folder", "cannot be written"),
]


@pytest.mark.parametrize(("spoil", "key", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_cannot_serve_is_named_with_its_setting(host: Host, spoil: Spoil, key: str, words: str) -> None:
    spoil(host)

    faults = host.checked()

    assert all(key and wrong and remedy.endswith((".", "?")) for key, wrong, remedy in faults)
    assert [(found, words in wrong) for found, wrong, _ in faults] == [(key, True)], faults
    assert host.checked(serves=True) == faults
    assert [wrong for _, wrong, _ in faults if not any(text.search(wrong) for text in explained())] == []
    assert CANARY not in str(faults)
    assert "PRIVATE KEY" not in str(faults)


@pytest.mark.parametrize("file", ["fcm.json", "apns.p8", "api.key", "api.pem", "state/sealing-private.pem"])
def test_a_file_to_convert_is_never_answered_by_a_new_key(host: Host, file: str) -> None:
    host.write(file, p12())

    ((_, _, remedy),) = host.checked()

    assert "openssl pkcs12 -in" in remedy
    assert "new" not in remedy.replace(" -out ", "")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("api.host", "[::]"),
        ("api.host", " 127.0.0.1 "),
        ("api.host", "127.0.0.1, ::1"),
        ("api.host", ["127.0.0.1", "[::1]", "127.0.0.1"]),
        ("api.host", ["0.0.0.0", "::"]),
        ("ops.host", "*"),
        ("ops.host", "localhost"),
        ("apns.host", "api.push.apple.com "),
        ("servers.main.url", " https://mail.example.com/ "),
        ("servers.main.domains", ["@Example.COM. ", "example.org"]),
        ("apns.topics", ["com.example.mail "]),
        ("apns.key_id", "ABCDE12345 "),
        ("log.level", "info "),
    ],
)
def test_what_is_meant_without_doubt_is_taken(host: Host, key: str, value: object) -> None:
    host.put(key, value)

    assert host.checked() == []
    host.serve()


def test_many_faults_at_once_are_all_told(host: Host) -> None:
    host.write("apns.p8", BOM + EC_PEM)
    host.put("api.host", "http://relay.example.com")
    host.put("servers.main.url", "https://mail.example.com/owa")
    account(private_key=EC_PEM.decode())(host)

    assert {key for key, _, _ in host.checked()} == {KEY, "api.host", "servers.main.url", "fcm.service_account_file"}


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("utf-8-sig", None),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
        ("cp1252", "no UTF-8 (line 1)"),
    ],
)
def test_settings_in_other_encodings_are_read_or_named(host: Host, encoding: str, words: str | None) -> None:
    host.toml.write_bytes(("# Schlüssel\n" + host.toml.read_text()).encode(encoding))

    faults = host.checked()

    assert [(key, words is not None and words in wrong) for key, wrong, _ in faults] == (
        [] if words is None else [(str(host.toml), True)]
    )


def test_a_password_with_null_bytes_is_no_password(host: Host) -> None:
    host.put("database.url", "postgresql://relay@db.example.com/relay")
    host.put("database.password_file", "password")
    for written, words in ((CANARY.encode("utf-16-le"), "is UTF-16"), (b"a\n" + CANARY.encode() + b"\0", "(line 2)")):
        (host.folder / "password").write_bytes(written)
        (host.folder / "password").chmod(0o600)

        ((key, wrong, _),) = host.checked()

        assert (key, words in wrong, CANARY in wrong) == ("database.password_file", True, False)


def test_a_secret_in_broken_toml_is_not_repeated(host: Host) -> None:
    host.toml.write_text(f"[api]\nhost = {CANARY}\n['{CANARY}']\n")

    ((_, wrong, _),) = host.checked()

    assert "line 2" in wrong
    assert CANARY not in wrong


@pytest.mark.parametrize("key", ["relay.state_dir", "egress.folder"])
def test_a_folder_that_another_user_made_is_named(host: Host, key: str) -> None:
    """The state folder was made by a command that root ran."""
    there = host.folder / "made by root"
    there.mkdir(mode=0o500)
    host.put(key, str(there))
    host.put("sealing.private_key_file", "state/sealing-private.pem")
    host.put("sealing.public_key_file", "state/sealing-public.pem")
    found = load(host.toml, {}, Role.ALL)
    host.folder.parent.chmod(0o755)

    with as_nobody(), pytest.raises(SettingsInvalid) as raised:
        app.look_at_host(found, serves=True)

    (wrong, remedy) = {named: words for named, *words in raised.value.faults}[key]
    assert "cannot be written: Permission denied" in wrong
    assert "chown -R" in remedy


@pytest.fixture
def service(template: Path) -> Iterator[Host]:
    """Give an installation that root made and a service without rights reads, whose own is the state folder."""
    with tempfile.TemporaryDirectory() as open_folder:
        host = Host(template, Path(open_folder) / "host")
        assert host.checked() == []  # loads all modules: nobody may not enter where root keeps its Python
        for folder_ in (host.folder.parent, host.folder):
            folder_.chmod(0o755)
        host.toml.chmod(0o644)
        os.chown(host.folder / "state", NOBODY, NOBODY)
        yield host


@needs_root
def test_secrets_that_root_lends_to_a_group_of_the_relay_are_taken(service: Host) -> None:
    """As Kubernetes mounts a Secret for a pod with an fsGroup."""
    for name in SECRETS:
        os.chown(service.folder / name, 0, NOBODY)
        (service.folder / name).chmod(0o440)

    with as_nobody():
        assert service.checked() == []
        assert service.checked(serves=True) == []


@needs_root
def test_secrets_that_root_lends_by_an_acl_are_taken(service: Host) -> None:
    """As systemd passes a credential (`LoadCredential=`): root:root, and an entry for the user of the service."""
    nobodys = 0xFFFFFFFF
    entries = [(0x01, 4, nobodys), (0x02, 4, NOBODY), (0x04, 0, nobodys), (0x10, 4, nobodys), (0x20, 0, nobodys)]
    for name in SECRETS:
        try:
            os.setxattr(service.folder / name, ACL, b"".join([HEADER, *(ENTRY.pack(*entry) for entry in entries)]))
        except OSError:
            pytest.skip("this file system has no ACLs")
        assert (service.folder / name).stat().st_mode & 0o777 == 0o440

    with as_nobody():
        assert service.checked() == []


@needs_root
def test_secrets_that_root_keeps_are_named_with_the_command_that_lends_them(service: Host) -> None:
    with as_nobody():
        faults = service.checked()

    lent = [
        f"`chgrp {group_name(NOBODY)} {service.folder / name} && chmod 640 {service.folder / name}`" for name in SECRETS
    ]
    assert {remedy.partition("Run as root: ")[2] for _, _, remedy in faults} == {f"{each}." for each in lent}


@needs_root
def test_a_folder_of_secrets_that_the_relay_may_not_enter_is_named(service: Host) -> None:
    (service.folder / "state").chmod(0o700)
    os.chown(service.folder / "state", 0, 0)
    for name in SECRETS:
        os.chown(service.folder / name, NOBODY, NOBODY)

    with as_nobody():
        faults = service.checked()

    found = {key: remedy for key, _, remedy in faults}
    name = user_name(NOBODY)
    let = f"If that is {name}, let it enter {service.folder / 'state'}, or move the file."
    assert found["sealing.private_key_file"].endswith(let)


@needs_root
def test_settings_that_the_relay_may_not_read_are_lent_to_it(service: Host) -> None:
    service.toml.chmod(0o600)

    with as_nobody():
        ((key, wrong, remedy),) = service.checked()

    assert (key, wrong) == (str(service.toml), "cannot be read: Permission denied")
    assert f"chmod 640 {service.toml}" in remedy


@needs_root
@pytest.mark.parametrize(
    ("command", "status"), [("check", 2), ("audit verify", 2), ("check-health", 3), ("check-health --probe alive", 1)]
)
def test_a_command_whose_user_may_not_read_the_settings_names_the_right_that_is_missing(
    service: Host, command: str, status: int
) -> None:
    """An administrator runs `relay check` under a login of his own, or monitoring asks under its own."""
    arguments = [*command.split(), "--config", str(service.toml)]
    CliRunner().invoke(cli, arguments)  # loads all modules
    service.toml.chmod(0o600)

    os.setresuid(NOBODY, NOBODY, 0)
    try:
        ended = CliRunner().invoke(cli, arguments)
    finally:
        os.setresuid(0, 0, 0)

    assert ended.exit_code == status
    assert f"{service.toml} cannot be read: Permission denied" in ended.output
    assert "Usage" not in ended.output


def test_a_first_start_that_cannot_write_its_keys_names_the_setting_of_the_folder(host: Host) -> None:
    host.put("relay.state_dir", "relay.toml/state")

    ended = CliRunner().invoke(cli, ["serve", "--config", str(host.toml)])

    assert ended.exit_code == 2
    assert f"relay.state_dir {host.toml} is no folder" in ended.stderr


def test_all_ports_in_use_are_named(host: Host) -> None:
    with socket.socket() as api, socket.socket() as ops:
        for table, other in (("api", api), ("ops", ops)):
            other.bind(("127.0.0.1", 0))
            other.listen()
            host.put(f"{table}.port", other.getsockname()[1])

        with pytest.raises(RelayError, match=r"api\.port: \d+ is in use .*ops\.port: \d+ is in use"):
            host.checked()


def test_a_port_in_use_is_named_with_its_setting(host: Host) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        host.put("ops.port", other.getsockname()[1])

        with pytest.raises(RelayError, match=r"ops\.port: \d+ is in use"):
            host.checked()


def test_check_leaves_the_ports_of_a_running_relay_alone(host: Host) -> None:
    async def check_beside() -> Faults:
        async with app.opened(load(host.toml, {}, Role.ALL)):
            return host.checked()

    assert asyncio.run(check_beside()) == []


def test_before_the_first_start_the_sealing_keys_may_be_missing(host: Host) -> None:
    for name in ("sealing-private.pem", "sealing-public.pem"):
        (host.folder / "state" / name).unlink()

    assert host.checked() == []


@pytest.mark.parametrize("key", ["sealing.private_key_file", "egress.key_file", "admin.audit_key_file"])
def test_no_key_is_made_where_a_link_leads_nowhere(host: Host, key: str) -> None:
    """Its file is on a disk that is away."""
    token, away = host.folder / "token", host.folder / "away.key"
    token.write_text("a" * 32)
    token.chmod(0o600)
    host.put("admin.tokens.ops", {"file": "token", "scopes": ["read"]})
    host.put(key, away.name)
    if key.startswith("sealing"):
        host.put("sealing.public_key_file", "away.pub")
    assert host.checked() == []

    away.symlink_to("nowhere")

    assert key in [named for named, *_ in host.checked()]
    assert host.checked() == host.checked(serves=True)


# --- at random

VALUES: Final = [
    *(
        "",
        " ",
        "x ",
        "none",
        "http://h",
        "https://h:1/p",
        "[::]",
        "h:1",
        "é",
        "a\nb",
        "\0",
        "A" * 5000,
        CANARY,
        "../..",
    ),
    *("*.example.com", "@example.com", "sqlite:///x.db", "sqlite:///", "postgresql://u:p@h/d", "127.0.0.1", "api.pem"),
    *("apns.p8", "state", "fcm.json", "ca.pem", "info", "10.0.0.0/8"),
    *(-1, 0, 1, 65536, 10**30, 1.5, True, False, [], [""], ["a", "a"], [1], [CANARY], {}, {"x": 1}),
]
CONTENTS: Final[list[Callable[[bytes], bytes]]] = [
    lambda _: b"",
    lambda old: BOM + old,
    lambda old: old.decode("latin-1").encode("utf-16"),
    lambda old: b"# \xfc\n" + old,
    lambda old: old[: len(old) // 2],
    lambda old: old + old,
    lambda old: old.replace(b"\n", b"\r\n"),
    lambda old: b"\n\n" + old + b"\n\n",
    lambda _: EC_PEM,
    lambda _: p12(),
    lambda _: b"[" * 100_000,
    lambda _: b'{"type": "service_account", "private_key": "\\ud800"}',
    *[lambda _, kind=kind: pem_of(kind) for kind in ("ed25519", "public", "encrypted", "der")],
]
FILES: Final = ("api.pem", "api.key", "apns.p8", "fcm.json", "state/sealing-private.pem", "state/sealing-public.pem")
KEYS: Final = sorted(key.replace("NAME", "main") for key in known_keys() if not key.startswith("log."))
SPOILS: Final = st.one_of(
    st.builds(setting, st.sampled_from(KEYS), st.sampled_from(VALUES) | st.text(max_size=20).filter(str.isprintable)),
    st.builds(content, st.sampled_from(FILES), st.sampled_from(CONTENTS)),
    st.builds(content, st.sampled_from(FILES), st.binary(max_size=200).map(lambda made: lambda _: made)),
    st.builds(fifo, st.sampled_from(FILES)),
    st.builds(folder, st.sampled_from(FILES)),
    st.builds(link, st.sampled_from(FILES), st.sampled_from(["nowhere", "/dev/zero", "relay.toml", "api.pem"])),
)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(spoils=st.lists(SPOILS, min_size=1, max_size=3))
def test_check_and_serve_agree_about_whatever_is_configured(
    template: Path, tmp_path_factory: pytest.TempPathFactory, spoils: list[Spoil]
) -> None:
    host = Host(template, tmp_path_factory.mktemp("fuzz") / "host")
    original = copy.deepcopy(host.tables)
    for spoil in spoils:
        try:
            spoil(host)
        except (OSError, AttributeError, TypeError):
            host.tables = copy.deepcopy(original)  # one spoil made another impossible
    try:
        faults = host.checked()
    except RelayError as error:
        assert CANARY not in str(error)  # noqa: PT017 -- the configuration may be good
        return

    assert CANARY not in str(faults)
    assert host.checked(serves=True) == faults
    if not faults and host.tables.get("database", {}).get("url", "sqlite").startswith("sqlite"):
        host.serve()
