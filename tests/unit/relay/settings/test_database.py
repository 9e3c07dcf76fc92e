from pathlib import Path

import pytest

from relay.domain.model import Role
from tests.installation import GOOD, Installation


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def configured(site: Installation, *lines: str) -> Installation:
    site.configure("\n".join((GOOD, "[database]", *lines)))
    return site


def test_a_ca_for_postgresql_is_kept(site: Installation) -> None:
    configured(site, 'url = "postgresql://relay@db.example.com/relay"', 'ca_file = "ca.pem"')

    assert site.load(Role.PUSH).database.ca_file == site.folder / "ca.pem"


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (['ca_file = "ca.pem"'], "is set, but database.url names no host"),
        (['url = "sqlite:///relay.db"', 'ca_file = "ca.pem"'], "is set, but database.url names no host"),
        (
            ['url = "postgresql://relay@/relay?host=/run/postgresql"', 'ca_file = "ca.pem"'],
            "is set, but database.url names no host",
        ),
        (
            ['url = "postgresql://relay@db.example.com/relay?sslmode=require"', 'ca_file = "ca.pem"'],
            "is set, and database.url has sslmode too",
        ),
    ],
)
def test_a_ca_that_would_have_no_effect_is_a_fault(site: Installation, lines: list[str], fault: str) -> None:
    assert configured(site, *lines).faults() == [("database.ca_file", fault)]


def test_a_faulty_url_with_a_ca_is_only_one_fault(site: Installation) -> None:
    configured(site, 'url = "postgresql://[relay@db.example.com/relay"', 'ca_file = "ca.pem"')

    assert [key for key, _ in site.faults()] == ["database.url"]
