from pathlib import Path

import pytest

from relay.domain.model import Role
from relay.registration.enrolment import EnrolmentMode, Shown
from relay.registration.errors import EnrolmentRefused
from tests.installation import Installation

FIRST, SECOND = "first-key-0123456789-abcdef", "second-key-0123456789-abcdef"


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    site = Installation(tmp_path)
    site.write("enrolment.keys", f"# MDM, 2026\n{FIRST}\r\n\n".encode())
    site.write("next.keys", f"{SECOND}".encode())
    return site


def enrol(site: Installation, lines: str) -> None:
    site.replace("[api]\n", f"[api]\n{lines}\n")


def test_without_a_word_everybody_may_register(site: Installation) -> None:
    api = site.load().api

    assert api is not None
    assert api.enrolment.alternatives == (frozenset({EnrolmentMode.OPEN}),)


def test_keys_of_several_files_are_valid_at_the_same_time(site: Installation) -> None:
    enrol(site, 'enrolment = ["key"]\nenrolment_key_files = ["enrolment.keys", "next.keys"]')
    api = site.load().api

    assert api is not None
    for key in (FIRST, SECOND):
        api.enrolment.admit(Shown(key))
    with pytest.raises(EnrolmentRefused):
        api.enrolment.admit(Shown("# MDM, 2026"))
    assert FIRST not in repr(api)


def test_ways_to_enrol_are_combined(site: Installation) -> None:
    enrol(
        site,
        'enrolment = ["key + mtls", "mtls"]\nenrolment_key_files = ["enrolment.keys"]\nclient_ca_file = "ca.pem"',
    )
    api = site.load().api

    assert api is not None
    both = frozenset({EnrolmentMode.KEY, EnrolmentMode.MTLS})
    assert api.enrolment.alternatives == (both, frozenset({EnrolmentMode.MTLS}))
    assert api.client_ca_file == site.folder / "ca.pem"


@pytest.mark.parametrize(
    ("lines", "key", "wrong"),
    [
        ('enrolment = ["keys"]', "api.enrolment", "holds what is no way to enrol"),
        ('enrolment = ["open", "mtls"]\nclient_ca_file = "ca.pem"', "api.enrolment", "lists open beside other ways"),
        ('enrolment = ["open+mtls"]\nclient_ca_file = "ca.pem"', "api.enrolment", "lists open beside other ways"),
        ('enrolment = ["key"]', "api.enrolment_key_files", "is missing"),
        ('enrolment = ["mtls"]', "api.client_ca_file", "is missing"),
        ('client_ca_file = "ca.pem"', "api.client_ca_file", "is set, but api.enrolment does not list mtls"),
        (
            'enrolment_key_files = ["enrolment.keys"]',
            "api.enrolment_key_files",
            "is set, but api.enrolment does not list",
        ),
        ('enrolment = ["key"]\nenrolment_key_files = ["none.keys"]', "api.enrolment_key_files", "cannot be read"),
        ('enrolment = ["key"]\nenrolment_key_files = ["short.keys"]', "api.enrolment_key_files", "too short"),
        ('enrolment = ["key"]\nenrolment_key_files = ["blank.keys"]', "api.enrolment_key_files", "has blanks"),
        ('enrolment = ["key"]\nenrolment_key_files = ["empty.keys"]', "api.enrolment_key_files", "holds no key"),
        ('enrolment = ["key"]\nenrolment_key_files = ["utf16.keys"]', "api.enrolment_key_files", "is UTF-16"),
        ('enrolment = ["key"]\nenrolment_key_files = ["open.keys"]', "api.enrolment_key_files", "is open to others"),
        ('enrolment = ["mtls"]\nclient_ca_file = "relay.toml"', "api.client_ca_file", "holds no certificate"),
    ],
)
def test_a_fault_is_named_with_its_key_and_no_secret(site: Installation, lines: str, key: str, wrong: str) -> None:
    site.write("short.keys", b"canary-short\n")
    site.write("blank.keys", b"canary key with blanks in it\n")
    site.write("empty.keys", b"# nothing\n")
    site.write("utf16.keys", FIRST.encode("utf-16"))
    site.write("open.keys", FIRST.encode(), 0o644)
    enrol(site, lines)

    faults = dict(site.faults())

    assert wrong in faults[key]
    assert "canary" not in str(faults)
    assert FIRST not in str(faults)


def test_certificates_of_devices_need_a_relay_that_ends_tls_itself(site: Installation) -> None:
    enrol(site, 'enrolment = ["mtls"]\nclient_ca_file = "ca.pem"\nproxies = ["192.0.2.1"]')
    site.replace('certificate_file = "api.pem"\nkey_file = "api.key"\n', "")

    assert dict(site.faults()) == {"api.enrolment": "lists mtls, but the relay does not end TLS itself"}


def test_a_role_that_serves_no_phones_reads_no_key(site: Installation) -> None:
    enrol(site, 'enrolment = ["key"]\nenrolment_key_files = ["none.keys"]')

    assert not [key for key, _ in site.faults(Role.PUSH) if key.startswith("api.")]
