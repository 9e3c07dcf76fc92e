"""The table [admin]: the tokens of the admin API, and the keys of the audit log."""

import hashlib
from pathlib import Path

import pytest

from relay.admin.tokens import Scope, find
from relay.domain.model import Role
from tests.installation import Installation

TOKEN = "0123456789abcdef" * 2
TABLE = '[admin.tokens.helpdesk]\nfile = "helpdesk.token"\nscopes = ["read", "act"]\n\n'


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    site = Installation(tmp_path)
    site.write("helpdesk.token", f"{TOKEN}\n".encode())
    site.replace("[servers.main]", f"{TABLE}[servers.main]")
    return site


def test_without_tokens_there_is_no_admin_api(tmp_path: Path) -> None:
    admin = Installation(tmp_path).load().admin

    assert admin.tokens == ()
    assert admin.audit_key_file == tmp_path / "state/admin-audit.key"


def test_a_token_is_read_with_its_scopes(site: Installation) -> None:
    admin = site.load().admin

    found = find(admin.tokens, TOKEN)
    assert found is not None
    assert (found.name, found.scopes) == ("helpdesk", frozenset({Scope.READ, Scope.ACT}))
    assert TOKEN not in repr(admin)


def test_tokens_that_cross_the_network_in_clear_are_noted(site: Installation) -> None:
    assert "ops.host" not in [key for key, _, _ in site.load().warnings]

    site.replace("[admin.tokens.helpdesk]", '[ops]\nhost = "*"\n\n[admin.tokens.helpdesk]')

    assert "ops.host" in [key for key, _, _ in site.load().warnings]


def test_a_file_may_hold_the_hash_of_the_token_instead(site: Installation) -> None:
    site.write("helpdesk.token", f"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n".encode())

    assert find(site.load().admin.tokens, TOKEN) is not None


@pytest.mark.parametrize("role", [Role.WATCH, Role.PUSH])
def test_a_role_without_the_admin_api_reads_no_token(site: Installation, role: Role) -> None:
    (site.folder / "helpdesk.token").unlink()
    site.replace("[api]\n", '[database]\nurl = "postgresql://relay@db.example.com/relay"\n\n[api]\n')

    assert site.load(role).admin.tokens == ()


def test_the_file_of_the_audit_keys_is_named_and_checked(site: Installation) -> None:
    site.replace("[admin.tokens.helpdesk]", '[admin]\naudit_key_file = "audit.key"\n\n[admin.tokens.helpdesk]')
    assert site.load().admin.audit_key_file == site.folder / "audit.key"

    site.write("audit.key", b"no keys")

    assert [key for key, _ in site.faults()] == ["admin.audit_key_file"]


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"short\n", "too short, too long or has blanks"),
        (b"two words 0123456789abcdef0123456789abcdef\n", "too short, too long or has blanks"),
        (b"\xff\xfe\x00", ""),
        (b"", ""),
    ],
)
def test_what_is_no_token_is_named_and_not_repeated(site: Installation, content: bytes, wrong: str) -> None:
    site.write("helpdesk.token", content)

    [(key, text)] = site.faults()

    assert key == "admin.tokens.helpdesk.file"
    assert wrong in text
    assert "two words" not in text


def test_a_token_that_others_may_read_is_refused(site: Installation) -> None:
    site.write("helpdesk.token", TOKEN.encode(), 0o644)

    [(key, text)] = site.faults()

    assert key == "admin.tokens.helpdesk.file"
    assert "open to others" in text


def test_a_token_without_a_file_is_named(site: Installation) -> None:
    site.replace('file = "helpdesk.token"\n', "")

    assert [key for key, _ in site.faults()] == ["admin.tokens.helpdesk.file"]


def test_a_file_that_is_missing_is_named(site: Installation) -> None:
    (site.folder / "helpdesk.token").unlink()

    assert [key for key, _ in site.faults()] == ["admin.tokens.helpdesk.file"]


def test_one_token_under_two_names_is_refused(site: Installation) -> None:
    site.replace(TABLE, TABLE + TABLE.replace("tokens.helpdesk", "tokens.monitor"))

    assert [key for key, _ in site.faults()] == ["admin.tokens.monitor.file"]


def test_an_unknown_scope_is_named(site: Installation) -> None:
    site.replace('["read", "act"]', '["root"]')

    assert [key for key, _ in site.faults()] == ["admin.tokens.helpdesk.scopes"]
