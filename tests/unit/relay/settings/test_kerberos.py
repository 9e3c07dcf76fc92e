import sys
from pathlib import Path

import pytest

from eas_watcher.auth.negotiate import Naming, Principal, Service
from relay.domain.model import Role
from relay.security.invitations import generate
from relay.settings.kerberos import principals
from tests.installation import GOOD, Installation

KERBEROS = """domains = ["Example.com"]
credentials = ["kerberos"]
kerberos_realm = "EXAMPLE.COM"
kerberos_principal = "push-relay"
kerberos_keytab_file = "relay.keytab"
kerberos_invitation_key_file = "invitation-public.pem"
"""


def counted(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def entry(realm: str, *components: str) -> bytes:
    """Return a key as ktutil writes it: name, NT-PRINCIPAL, time 0, version 2, AES-256 (18), 32 bytes, version 2."""
    name = len(components).to_bytes(2, "big") + counted(realm) + b"".join(map(counted, components))
    rest = name + bytes.fromhex("00000001 00000000 02 0012 0020") + bytes(32) + bytes.fromhex("00000002")
    return len(rest).to_bytes(4, "big") + rest


RELAY = entry("EXAMPLE.COM", "push-relay")
HTTP = entry("EXAMPLE.COM", "HTTP", "relay.example.com")
HOLE = (-8).to_bytes(4, "big", signed=True) + bytes(8)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    """Return a site on a host with the optional library gssapi, here an empty module of that name."""
    (tmp_path / "libraries").mkdir()
    (tmp_path / "libraries/gssapi.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "libraries")
    site = Installation(tmp_path)
    site.write("relay.keytab", b"\x05\x02" + RELAY)
    site.write("invitation-public.pem", generate()[1], 0o644)
    site.configure(GOOD.replace('domains = ["Example.com"]\n', KERBEROS))
    return site


def test_users_of_a_server_may_be_invited(site: Installation) -> None:
    kerberos = site.load().servers["main"].kerberos

    assert kerberos is not None
    assert kerberos.service == Service("push-relay@EXAMPLE.COM", site.folder / "relay.keytab", "")
    assert kerberos.invited.naming == Naming("EXAMPLE.COM", frozenset({"example.com"}))


def test_the_api_checks_invitations_but_never_reads_the_keytab(site: Installation) -> None:
    (site.folder / "relay.keytab").unlink()

    site.replace("[api]", '[database]\nurl = "postgresql://relay@db.example.com/relay"\n\n[api]')

    kerberos = site.load(Role.API).servers["main"].kerberos

    assert kerberos is not None
    assert kerberos.service is None
    assert kerberos.invited.principal("ann@example.com") == Principal("ann@EXAMPLE.COM")


def test_target_and_addresses_may_be_chosen(site: Installation) -> None:
    target = "HTTP/mail.example.com@EXAMPLE.COM"
    site.replace("[apns]", f'kerberos_target = "{target}"\nkerberos_users = "address"\n[apns]')

    kerberos = site.load().servers["main"].kerberos

    assert kerberos is not None
    assert kerberos.service is not None
    assert kerberos.service.target == target
    assert kerberos.invited.naming.addresses


def test_a_missing_library_is_a_fault(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gssapi", None)

    assert site.faults() == [("servers.main.credentials", "lists kerberos, whose library is not installed")]


@pytest.mark.parametrize("key", ["realm", "principal", "keytab_file", "invitation_key_file"])
def test_the_keys_it_needs_must_be_set(site: Installation, key: str) -> None:
    lines = site.toml.read_text().splitlines()
    site.configure("\n".join(line for line in lines if not line.startswith(f"kerberos_{key} ")))

    assert (f"servers.main.kerberos_{key}", "is missing") in site.faults()


def test_its_keys_without_the_credential_kind_are_a_fault(site: Installation) -> None:
    site.replace('credentials = ["kerberos"]', 'credentials = ["basic"]')

    assert site.faults() == [("servers.main.kerberos_realm", "is set, but credentials does not list kerberos")]


@pytest.mark.parametrize(
    ("name", "content", "key", "wrong"),
    [
        ("relay.keytab", b"no keytab", "kerberos_keytab_file", "is no keytab"),
        ("relay.keytab", b"\x05\x02" + HTTP, "kerberos_keytab_file", "has no key of push-relay@EXAMPLE.COM"),
        ("invitation-public.pem", b"none", "kerberos_invitation_key_file", "holds no Ed25519 public key"),
        ("invitation-public.pem", generate()[0], "kerberos_invitation_key_file", "holds no Ed25519 public key"),
    ],
)
def test_its_files_must_have_the_right_content(
    site: Installation, name: str, content: bytes, key: str, wrong: str
) -> None:
    path = site.write(name, content)

    assert site.faults() == [(f"servers.main.{key}", f"{path} {wrong}")]


@pytest.mark.parametrize("name", ["relay.keytab", "invitation-public.pem"])
def test_its_files_must_exist(site: Installation, name: str) -> None:
    (site.folder / name).unlink()

    ((_, wrong),) = site.faults()

    assert "cannot be read" in wrong


def test_the_keytab_is_a_secret(site: Installation) -> None:
    (site.folder / "relay.keytab").chmod(0o644)

    ((key, wrong),) = site.faults()

    assert key == "servers.main.kerberos_keytab_file"
    assert "open to others" in wrong


def test_a_realm_is_a_name(site: Installation) -> None:
    site.replace('"EXAMPLE.COM"', '"EXAMPLE COM"')
    site.replace('"push-relay"', '"push-relay@EXAMPLE.COM"')

    assert site.faults() == [("servers.main.kerberos_realm", "is no realm")]


def test_a_keytab_names_its_principals_and_holes_are_skipped() -> None:
    found = principals(b"\x05\x02" + RELAY + HOLE + HTTP)

    assert found == {"push-relay@EXAMPLE.COM", "HTTP/relay.example.com@EXAMPLE.COM"}


def test_an_empty_keytab_has_no_names() -> None:
    assert principals(b"\x05\x02") == frozenset()
    assert principals(b"\x05\x02" + bytes(8) + RELAY) == frozenset()


@pytest.mark.parametrize("content", [b"", b"\x05\x01", b"-----BEGIN", b"\x05\x02" + RELAY[:20]])
def test_a_file_that_is_no_keytab_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"no keytab|cut off"):
        principals(content)
