"""Test what differs between two readings of the settings, and that each key is decided: taken, or needs a restart."""

from pathlib import Path

import pytest

from relay.domain.model import AUTODISCOVER, Role
from relay.settings.changes import Changes, compare, is_fixed
from relay.settings.sections import SECTIONS, known_keys
from relay.settings.values import Origin
from tests.installation import Installation

FILE = Path("/etc/push-relay/api.pem")


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def changes(before: Origin, after: Origin) -> Changes:
    return compare(before, before, after)


def test_nothing_has_changed_in_the_same_files(site: Installation) -> None:
    assert changes(site.load().origin, site.load().origin) == Changes()


def test_a_default_that_is_written_out_is_no_change(site: Installation) -> None:
    before = site.load().origin
    site.replace("[api]", '[log]\nlevel = "info"\n\n[api]\nport = 8443')

    assert [key for key in changes(before, site.load().origin).live if key != "log"] == []


def test_values_that_differ_are_named_as_in_toml(site: Installation) -> None:
    before = site.load().origin
    site.replace('domains = ["Example.com"]', 'domains = ["example.org"]\nreturn_rate = 7')
    site.replace("[api]", "[api]\nport = 9443\nrequests_per_minute = 7")

    found = changes(before, site.load().origin)

    assert set(found.live) == {"servers.main.domains", "servers.main.return_rate", "api.requests_per_minute"}
    assert found.fixed == ("api.port",)
    assert found.servers == {"main"}


def test_a_file_with_another_content_changes_the_key_that_names_it(site: Installation) -> None:
    before = site.load().origin
    site.write("api.pem", (site.folder / "api.pem").read_bytes() + b"\n")

    assert changes(before, site.load().origin) == Changes(live=("api.certificate_file",))


def test_a_server_that_is_added_or_removed_is_a_change_of_that_server(site: Installation) -> None:
    before = site.load().origin
    site.configure(site.toml.read_text() + '\n[servers.branch]\nurl = "https://branch.example.com"\n')
    after = site.load().origin

    assert changes(before, after).servers == {"branch"}
    assert changes(after, before).servers == {"branch"}
    assert changes(before, after).fixed == ()


def test_a_provider_that_is_added_or_removed_needs_a_restart(site: Installation) -> None:
    before = site.load().origin
    text = site.toml.read_text()
    site.configure(text[: text.index("[fcm]")])

    assert "fcm" in changes(before, site.load().origin).fixed


def test_what_autodiscover_finds_counts_as_a_server_of_its_own() -> None:
    assert Changes(live=("autodiscover.hosts",)).servers == {AUTODISCOVER}
    assert Changes(live=("api.port",)).servers == frozenset()


def test_what_needs_a_restart_is_compared_with_the_start_and_the_rest_with_what_runs() -> None:
    started = Origin({"api.port": 1, "log.level": "info"})
    running = Origin({"api.port": 2, "log.level": "debug"})

    assert compare(started, running, Origin({"api.port": 2, "log.level": "debug"})) == Changes(fixed=("api.port",))
    assert compare(started, running, Origin({"api.port": 1, "log.level": "info"})) == Changes(live=("log.level",))


def test_a_file_that_the_relay_made_itself_after_its_start_is_no_change() -> None:
    made = Origin({"egress.key_file": None}, {"egress.key_file": {FILE: b"1"}})

    assert changes(Origin({"egress.key_file": None}), made) == Changes()


def test_a_table_is_touched_by_its_keys_alone() -> None:
    found = Changes(live=("apns.accounts.other.topics",))

    assert found.touch("api", "apns")
    assert not found.touch("api", "fcm")


@pytest.mark.parametrize("role", list(Role))
def test_every_key_that_a_role_reads_is_known(site: Installation, role: Role) -> None:
    if role is not Role.ALL:
        site.configure(site.toml.read_text() + '\n[database]\nurl = "postgresql://relay@db.example.com/relay"\n')
    values = site.load(role).origin.values
    known = {key.replace("NAME", "main") for key in known_keys()}

    named = {key for key in values if key.count(".") and not key.startswith("servers.main")}
    assert named - SECTIONS.keys() <= known


def test_what_a_process_holds_open_needs_a_restart() -> None:
    keys = ["database.url", "relay.state_dir", "ops.port", "api.host", "egress.folder"]

    assert all(map(is_fixed, keys))
    live = [
        "api.certificate_file",
        "api.client_ca_file",
        "admin.audit_key_file",
        "sealing.private_key_file",
        "log.level",
        "registrations.x",
    ]
    assert not any(map(is_fixed, live))


def test_no_secret_is_kept_to_compare_with(site: Installation) -> None:
    origin = site.load().origin

    assert "PRIVATE KEY" not in str(origin)
    assert "origin" not in repr(site.load())


@pytest.mark.parametrize(
    ("key", "restarting"),
    [
        ("servers.main.return_rate", set()),
        ("servers.main.refused_logins", set()),
        ("servers.main.url", {"main"}),
        ("servers.main.heartbeat_start", {"main"}),
        ("servers.directory", {"directory"}),
        ("servers.directory.directory", set()),
        ("autodiscover.lockout_window", set()),
        ("autodiscover.hosts", {AUTODISCOVER}),
        ("api.client_ca_file", set()),
    ],
)
def test_only_what_changes_the_way_to_a_server_gives_its_mailboxes_new_watches(key: str, restarting: set[str]) -> None:
    assert Changes(live=(key,)).restarting == restarting
