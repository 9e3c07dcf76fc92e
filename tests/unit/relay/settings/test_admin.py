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


PROXY = """[admin.proxy]
header = "X-Forwarded-User"
groups_header = "X-Forwarded-Groups"
peers = ["192.0.2.10", "192.0.2.64/28"]
read = ["group:helpdesk"]
act = ["ann"]

"""
POSTGRESQL = '[database]\nurl = "postgresql://relay@db.example.com/relay"\n\n[api]\n'


def with_table(folder: Path, table: str) -> Installation:
    site = Installation(folder)
    site.replace("[servers.main]", f"{table}[servers.main]")
    return site


def test_the_console_is_on_where_somebody_may_use_it(site: Installation, tmp_path: Path) -> None:
    assert site.load().admin.console

    site.replace("[admin.tokens.helpdesk]", "[admin]\nconsole = false\n\n[admin.tokens.helpdesk]")

    admin = site.load().admin
    assert (admin.console, len(admin.tokens)) == (False, 1)
    (tmp_path / "other").mkdir()
    assert not Installation(tmp_path / "other").load().admin.console


@pytest.mark.parametrize("role", [Role.WATCH, Role.PUSH])
def test_another_role_serves_the_console_if_it_is_told_to(site: Installation, role: Role) -> None:
    site.replace("[api]\n", POSTGRESQL)
    assert not site.load(role).admin.console

    site.replace("[admin.tokens.helpdesk]", "[admin]\nconsole = true\n\n[admin.tokens.helpdesk]")

    admin = site.load(role).admin
    assert (admin.console, find(admin.tokens, TOKEN) is not None) == (True, True)


def test_a_console_for_nobody_is_a_fault(tmp_path: Path) -> None:
    site = with_table(tmp_path, "[admin]\nconsole = true\n\n")

    assert [key for key, _ in site.faults()] == ["admin.console"]


def test_a_proxy_names_people_with_their_scopes(tmp_path: Path) -> None:
    settings = with_table(tmp_path, PROXY).load()

    assert settings.admin.console
    proxy = settings.admin.proxy
    assert proxy is not None
    helper = proxy.person("192.0.2.70", ["ben"], ["helpdesk"])
    assert helper is not None
    assert (helper.name, helper.scopes) == ("proxy:ben", frozenset({Scope.READ}))
    assert proxy.person("192.0.2.11", ["ben"], ["helpdesk"]) is None
    assert settings.warnings == ()


def test_a_proxy_on_this_host_is_noted(tmp_path: Path) -> None:
    site = with_table(tmp_path, PROXY.replace("192.0.2.10", "127.0.0.1"))

    assert [key for key, _, _ in site.load().warnings] == ["admin.proxy.peers"]


def test_a_proxy_before_an_open_listener_is_noted(tmp_path: Path) -> None:
    site = with_table(tmp_path, f'[ops]\nhost = "*"\n\n{PROXY}')

    assert [key for key, _, _ in site.load().warnings] == ["ops.host"]


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        ('header = "X-Forwarded-User"\n', "", "admin.proxy.header"),
        ('header = "X-Forwarded-User"\n', 'header = "X-Forwarded-User: ann"\n', "admin.proxy.header"),
        ('groups_header = "X-Forwarded-Groups"\n', "", "admin.proxy.groups_header"),
        ("X-Forwarded-Groups", "x-forwarded-user", "admin.proxy.groups_header"),
        ('peers = ["192.0.2.10", "192.0.2.64/28"]\n', "", "admin.proxy.peers"),
        ("X-Forwarded-User", "Cookie", "admin.proxy.header"),
        ("X-Forwarded-Groups", "host", "admin.proxy.groups_header"),
        ('["group:helpdesk"]', '["group:"]', "admin.proxy.read"),
        ('act = ["ann"]', 'act = ["Group:helpdesk"]', "admin.proxy.act"),
        ('read = ["group:helpdesk"]', 'read = ["ben"]', "admin.proxy.act"),
        ("192.0.2.10", "proxy.example.com", "admin.proxy.peers"),
        ("192.0.2.10", "0.0.0.0/0", "admin.proxy.peers"),
        ('read = ["group:helpdesk"]\n', "", "admin.proxy.read"),
        ('act = ["ann"]', 'acts = ["ann"]', "admin.proxy.acts"),
    ],
)
def test_what_is_wrong_with_a_proxy_is_named(tmp_path: Path, before: str, after: str, key: str) -> None:
    assert before in PROXY
    site = with_table(tmp_path, PROXY.replace(before, after))

    assert [faulty for faulty, _ in site.faults()] == [key]


def test_a_proxy_of_a_role_without_the_console_is_not_read(tmp_path: Path) -> None:
    site = with_table(tmp_path, PROXY.replace("192.0.2.10", "nonsense"))
    site.replace("[api]\n", POSTGRESQL)

    assert site.load(Role.PUSH).admin.proxy is None


def test_the_environment_sets_a_proxy(tmp_path: Path) -> None:
    site = with_table(tmp_path, PROXY)

    proxy = site.load(environ={"RELAY__ADMIN__PROXY__HEADER": "X-Remote-User"}).admin.proxy

    assert proxy is not None
    assert proxy.header == "X-Remote-User"
