import json
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

import pytest
import trustme

from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.state import Policy
from eas_watcher.names import ProtocolVersion
from relay.domain.errors import SettingsInvalid
from relay.domain.model import Platform, Role
from relay.domain.shadow import PushMode
from relay.http.addresses import Proxies
from relay.push.apns.config import ApnsAccount, ApnsCertificate, ApnsConfig, ApnsToken
from relay.push.fcm.config import FcmAccount, FcmConfig
from relay.security.invitations import generate as invitation_keys
from relay.security.sealing import generate
from relay.settings import key_making, load, ops_addresses
from tests.fakes.chains import Authority
from tests.installation import GOOD, Installation


@pytest.fixture
def site(tmp_path: Path) -> Installation:
    return Installation(tmp_path)


def test_a_good_file_becomes_settings(site: Installation) -> None:
    settings = site.load()

    assert settings.role is Role.ALL
    assert settings.state_dir == site.folder / "state"
    assert settings.database.dsn == f"sqlite:///{site.folder}/state/relay.sqlite3"
    assert settings.database.file == site.folder / "state/relay.sqlite3"
    assert settings.api is not None
    assert (settings.api.port, settings.api.certificate_file) == (8443, site.folder / "api.pem")
    assert (settings.ops.hosts, settings.ops.port) == (("127.0.0.1",), 9090)
    main = settings.servers["main"]
    assert main.url == "https://mail.example.com/Microsoft-Server-ActiveSync"
    assert main.domains == {"example.com"}
    assert main.policy == Policy(hosts=frozenset({"mail.example.com"}))
    assert settings.autodiscover.hosts == frozenset()
    key = ApnsToken(site.folder / "apns.p8", "ABCDE12345", "TEAM567890")
    assert settings.apns == ApnsConfig((ApnsAccount(frozenset({"com.example.mail"}), key),))
    assert settings.fcm == FcmConfig((FcmAccount(frozenset({"com.example.mail"}), site.folder / "fcm.json"),))
    assert settings.apps == {
        Platform.APNS: frozenset({"com.example.mail"}),
        Platform.FCM: frozenset({"com.example.mail"}),
        Platform.WEBPUSH: frozenset(),
    }
    assert (settings.log.level, settings.log.format) == ("info", "json")
    assert settings.sealing.public is not None
    assert settings.sealing.private is not None
    assert settings.sealing.private.public_key().raw == settings.sealing.public.raw


def test_a_ca_that_newer_software_refuses_is_a_warning_and_no_fault(site: Installation) -> None:
    site.write("ca.pem", Authority(critical=False).pem)
    site.configure(GOOD.replace("[servers.main]", '[servers.main]\nca_file = "ca.pem"'))
    settings = site.load()

    [(key, wrong, remedy)] = settings.warnings
    assert key == "servers.main.ca_file"
    assert wrong.endswith("ca.pem holds a CA that newer software refuses: basic constraints not critical")
    assert remedy.startswith("The relay accepts it")


def test_one_bad_file_reports_its_faults_all_at_once(site: Installation) -> None:
    (site.folder / "apns.p8").chmod(0o644)
    site.write("fcm.json", b"{}")
    private, _ = generate()
    site.write("state/sealing-private.pem", private)
    site.configure("""
        [relay]
        statedir = "state"
        [api]
        host = "127.0.0.1"
        certificate_file = "old.pem"
        key_file = "old.key"
        port = 9090
        verdict_wait = "soon"
        [ops]
        prot = 9090
        [servers.main]
        url = "http://mail.example.com"
        domains = ["example.com"]
        [servers.branch]
        url = "https://branch.example.com"
        domains = ["EXAMPLE.com"]
        ca_file = "missing.pem"
        versions = ["2.5"]
        [apns]
        key_file = "apns.p8"
        key_id = "short"
        team_id = "TEAM567890"
        [fcm]
        service_account_file = "fcm.json"
        apps = ["com.example.mail"]
        [lgo]
        level = "debug"
    """)

    found = dict(site.faults())

    # sealing: the new private key does not belong to the public key that was left.
    assert found.keys() == {
        "lgo",
        "relay.statedir",
        "sealing.public_key_file",
        "api.verdict_wait",
        "ops.prot",
        "ops.port",
        "api.certificate_file",
        "servers.branch.versions",
        "servers.branch.domains",
        "servers.branch.ca_file",
        "servers.main.url",
        "apns.key_id",
        "apns.topics",
        "apns.key_file",
        "fcm.service_account_file",
    }
    assert "mode 0644" in found["apns.key_file"]
    assert "expired on 2026-01-02" in found["api.certificate_file"]
    assert "claimed by servers.main too" in found["servers.branch.domains"]
    assert "does not belong" in found["sealing.public_key_file"]


def test_the_message_names_key_fault_and_remedy(site: Installation) -> None:
    site.replace('key_file = "apns.p8"', 'keyfile = "apns.p8"')

    with pytest.raises(SettingsInvalid) as caught:
        site.load()

    assert "apns.keyfile: is unknown. Did you mean key_file?" in str(caught.value)
    assert "apns.key_file: is missing. Set apns.key_file, apns.key_id and apns.team_id" in str(caught.value)


def test_a_missing_file_and_a_file_that_is_no_toml_say_where(site: Installation) -> None:
    site.configure("[relay\n")
    ((key, wrong),) = site.faults()
    assert key == str(site.toml)
    assert "line 1" in wrong

    site.toml.unlink()
    assert site.faults() == [(str(site.toml), "cannot be read: No such file or directory")]


def test_the_environment_overrides_the_file(site: Installation) -> None:
    site.replace("[servers.main]", "[servers.main-site]")
    environ = {
        "RELAY__API__PORT": "8444",
        "RELAY__API__PROXIES": "192.0.2.10, 10.1.0.0/28",
        "RELAY__SERVERS__MAIN_SITE__URL": "https://other.example.com/eas",
        "RELAY__SERVERS__MAIN_SITE__VERSIONS": "14.1, 12.1",
        "RELAY__LOG__LEVEL": "debug",
        "PATH": "/bin",
    }

    settings = site.load(environ=environ)

    assert settings.api is not None
    assert (settings.api.port, settings.api.proxies) == (
        8444,
        Proxies((ip_network("192.0.2.10"), ip_network("10.1.0.0/28"))),
    )
    assert settings.servers.keys() == {"main-site"}
    assert settings.servers["main-site"].url == "https://other.example.com/eas"
    assert settings.servers["main-site"].policy.versions == (ProtocolVersion.V12_1, ProtocolVersion.V14_1)
    assert settings.log.level == "debug"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('proxies = ["proxy.example.com"]', ("api.proxies", "holds what is no address or network")),
        ('proxies = ["192.0.2.10:443"]', ("api.proxies", "holds what is no address or network")),
        ('proxies = ["192.0.2.10", "0.0.0.0/0"]', ("api.proxies", "holds a network that everybody is in")),
        ('proxies = ["::/0"]', ("api.proxies", "holds a network that everybody is in")),
        ("behind_proxy = true", ("api.behind_proxy", "is no setting any more")),
        ("behind_proxy = false", ("api.behind_proxy", "is no setting any more")),
    ],
)
def test_only_addresses_say_who_is_a_proxy(site: Installation, line: str, fault: tuple[str, str]) -> None:
    site.replace("[api]", f"[api]\n{line}")

    assert site.faults() == [fault]


def test_a_fault_from_the_environment_names_the_variable(site: Installation) -> None:
    environ = {"RELAY__API__PORT": "many", "RELAY__APSN__HOST": "x", "RELAY__LOG": "debug", "RELAY__API__HSOT": "x"}

    faults = dict(site.faults(environ=environ))

    assert faults["api.port"].endswith("(set by RELAY__API__PORT)")
    assert faults["apsn"] == "is unknown (set by RELAY__APSN__HOST)"
    assert faults["api.hsot"] == "is unknown (set by RELAY__API__HSOT)"
    assert faults["log"] == "is no table (set by RELAY__LOG)"


def test_faults_do_not_repeat_values_because_they_may_be_secrets(site: Installation) -> None:
    site.replace("[relay]", '[database]\nurl = "postgresql://relay:canary@db/relay"\npassword = "canary"\n[relay]')
    environ = {"RELAY__API__PORT": "canary", "RELAY__LOG__LEVEL": "canary"}

    with pytest.raises(SettingsInvalid) as caught:
        site.load(environ=environ)

    assert len(caught.value.faults) == 4
    assert "canary" not in str(caught.value)


def test_secrets_do_not_show_in_representations(site: Installation) -> None:
    site.write("db.password", "canary/p@ss wörd\n".encode())
    site.replace(
        "[relay]", '[database]\nurl = "postgresql://relay@db:5432/relay"\npassword_file = "db.password"\n[relay]'
    )

    settings = site.load()

    assert settings.database.dsn == "postgresql+asyncpg://relay:canary%2Fp%40ss%20w%C3%B6rd@db:5432/relay"
    assert "canary" not in f"{settings!r} {settings.database.password}"
    assert "<secret>" in repr(settings)
    assert "PRIVATE KEY" not in repr(settings)


@pytest.mark.parametrize(
    ("role", "unneeded"),
    [
        (Role.API, ["state/sealing-private.pem", "apns.p8", "fcm.json"]),
        (Role.WATCH, ["api.pem", "api.key", "apns.p8", "fcm.json", "state/sealing-public.pem"]),
        (Role.PUSH, ["api.pem", "api.key", "state/sealing-private.pem", "state/sealing-public.pem"]),
    ],
)
def test_each_role_does_not_need_the_files_of_the_others(site: Installation, role: Role, unneeded: list[str]) -> None:
    site.replace("[relay]", '[database]\nurl = "postgresql://relay@db/relay"\n[relay]')
    for name in unneeded:
        (site.folder / name).unlink()

    settings = site.load(role)

    assert (settings.api is not None) == (role is Role.API)
    assert (settings.sealing.private is not None) == (role is Role.WATCH)
    assert (settings.sealing.public is not None) == (role is not Role.PUSH)
    assert (settings.apns is not None) == (settings.fcm is not None) == (role is Role.PUSH)
    assert bool(settings.servers) == (role is not Role.PUSH)


def test_the_public_sealing_key_may_be_missing_where_the_private_one_is(site: Installation) -> None:
    (site.folder / "state/sealing-public.pem").unlink()

    sealing = site.load().sealing

    assert sealing.public is not None


@pytest.mark.parametrize("role", [Role.API, Role.WATCH, Role.PUSH])
def test_several_processes_cannot_share_sqlite(site: Installation, role: Role) -> None:
    key, wrong = site.faults(role)[0]

    assert key == "database.url"
    assert "is SQLite" in wrong


def test_a_provider_and_a_server_are_required_by_the_roles_that_use_them(site: Installation) -> None:
    site.configure('[database]\nurl = "postgresql://relay@db/relay"\n[api]\nhost = "127.0.0.1"\n')

    assert [key for key, _ in site.faults(Role.ALL)] == ["servers", "apns"]
    assert [key for key, _ in site.faults(Role.API)] == ["servers"]
    assert [key for key, _ in site.faults(Role.WATCH)] == ["servers"]
    assert [key for key, _ in site.faults(Role.PUSH)] == ["apns"]


@pytest.mark.parametrize("provider", ["apns", "fcm"])
def test_one_provider_is_enough(site: Installation, provider: str) -> None:
    begin, end = GOOD.index(f"[{provider}]"), GOOD.find("\n[", GOOD.index(f"[{provider}]"))
    site.configure(GOOD[:begin] + (GOOD[end:] if end >= 0 else ""))

    settings = site.load()

    assert (settings.apns is None) == (provider == "apns")
    assert (settings.fcm is None) == (provider == "fcm")


def test_plain_http_needs_loopback_or_a_proxy(site: Installation) -> None:
    site.replace('certificate_file = "api.pem"\nkey_file = "api.key"\n', "")

    assert site.faults() == [("api.certificate_file", "is missing")]
    assert site.faults(environ={"RELAY__API__PROXIES": "192.0.2.10"}) == []
    for host in ("127.0.0.1", "::1", "localhost"):
        assert site.faults(environ={"RELAY__API__HOST": host}) == []
    assert site.faults(environ={"RELAY__API__HOST": "192.0.2.1"}) == [("api.certificate_file", "is missing")]


def test_two_listeners_need_two_ports_unless_their_addresses_differ(site: Installation) -> None:
    same = {"RELAY__OPS__PORT": "8443"}

    assert [key for key, _ in site.faults(environ=same)] == ["ops.port"]
    assert site.faults(environ={**same, "RELAY__API__HOST": "127.0.0.2"}) == []
    assert [key for key, _ in site.faults(environ={**same, "RELAY__API__HOST": "127.0.0.1"})] == ["ops.port"]


@pytest.mark.parametrize(
    ("old", "new", "key", "wrong"),
    [
        ('url = "https://mail.example.com"', "", "servers.main.url", "is missing"),
        ("https://mail.example.com", "http://mail.example.com", "servers.main.url", "is not https://"),
        ("https://mail.example.com", "https://mail.example.com/?x", "servers.main.url", "more than host"),
        ("https://mail.example.com", "https://ann@mail.example.com", "servers.main.url", "holds a user"),
        ("https://mail.example.com", "https://:443", "servers.main.url", "is no URL"),
        ("https://mail.example.com", "https://mail.example.com:99999", "servers.main.url", "is no URL"),
        ("[servers.main]", "[servers.Main_1]", "servers.Main_1", "is no server name"),
        ("[servers.main]", "[servers.main]\nheartbeat_start = 30", "servers.main.heartbeat_start", "is 30, outside"),
        ("[servers.main]", "[servers.main]\nacknowledgement = 3", "servers.main.acknowledgement", "must be 1, 2 or 4"),
        ("[servers.main]", "[servers.main]\nversions = []", "servers.main.versions", "is empty"),
        ("[servers.main]", '[servers.main]\nca_file = "api.key"', "servers.main.ca_file", "holds no certificate"),
        ('key_file = "api.key"', "", "api.key_file", "is missing"),
        ('key_file = "api.key"', 'key_file = "old.key"', "api.key_file", "is not the key of"),
        ('key_file = "api.key"', 'key_file = "api.pem"', "api.key_file", "holds no private key"),
        ('certificate_file = "api.pem"', 'certificate_file = "api.key"', "api.certificate_file", "no certificate"),
        ('certificate_file = "api.pem"', 'certificate_file = "none.pem"', "api.certificate_file", "cannot be read"),
        ('"apns.p8"', '"fcm.json"', "apns.key_file", "holds no ECDSA P-256 key"),
        ('"apns.p8"', '"p384.p8"', "apns.key_file", "holds no ECDSA P-256 key"),
        ('"apns.p8"', '"none.p8"', "apns.key_file", "cannot be read"),
        ('"apns.p8"', '"apns.p8"\ncertificate_file="api-both.pem"', "apns.certificate_file", "beside apns.key_file"),
        ('"ABCDE12345"', '"abc"', "apns.key_id", "ten letters and digits"),
        ('topics = ["com.example.mail"]', "", "apns.topics", "is missing"),
        ('"fcm.json"', '"none.json"', "fcm.service_account_file", "cannot be read"),
        ('service_account_file = "fcm.json"', "", "fcm.service_account_file", "is missing"),
        ('"fcm.json"', '"apns.p8"', "fcm.service_account_file", "is no service account's JSON"),
        ("[fcm]", '[fcm]\nurl = "http://fcm.example.com"', "fcm.url", "is no https:// URL"),
        ('apps = ["com.example.mail"]', "", "fcm.apps", "is missing"),
        ("[relay]", '[database]\nurl = "mysql://db/relay"\n[relay]', "database.url", "is neither"),
        ("[relay]", '[database]\nurl = "sqlite://"\n[relay]', "database.url", "names no file"),
        ("[relay]", '[database]\nurl = "postgresql://db"\n[relay]', "database.url", "names no user"),
        ('state_dir = "state"', 'state_dir = "api.pem"', "relay.state_dir", "is no folder"),
        ("[relay]", '[sealing]\nprivate_key_file = "apns.p8"\n[relay]', "sealing.private_key_file", "no X25519"),
        ("[relay]", '[sealing]\npublic_key_file = "api.pem"\n[relay]', "sealing.public_key_file", "no X25519"),
    ],
)
def test_each_fault_is_reported_under_its_key(site: Installation, old: str, new: str, key: str, wrong: str) -> None:
    site.replace(old, new)

    found = [(name, text) for name, text in site.faults() if name == key]

    assert len(found) == 1
    assert wrong in found[0][1]


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"type": "authorized_user"}, "is no service account"),
        ({"project_id": ""}, "lacks project_id"),
        ({"token_uri": None}, "lacks token_uri"),
        ({"private_key": "none"}, "no usable private_key"),
        ({"token_uri": "http://oauth2.example.com/token"}, "token_uri that is not https"),
    ],
)
def test_a_service_account_must_be_complete(site: Installation, change: dict[str, str | None], wrong: str) -> None:
    site.write("fcm.json", json.dumps({**site.account, **change}).encode())

    ((key, text),) = site.faults()

    assert key == "fcm.service_account_file"
    assert wrong in text


@pytest.mark.parametrize(
    ("content", "good"), [("0" * 64, True), ("a" * 64 + "\n" + "B" * 64 + "\n", True), ("0" * 63, False)]
)
def test_the_keys_of_the_egress_log_are_checked_once_they_are_made(
    site: Installation, content: str, *, good: bool
) -> None:
    assert site.faults() == []
    site.write("state/egress.key", content.encode())

    faults = [(key, text.partition("egress.key ")[2]) for key, text in site.faults()]

    assert faults == ([] if good else [("egress.key_file", "holds no keys of an egress log")])


@pytest.mark.parametrize("name", ["api.key", "apns.p8", "fcm.json", "state/sealing-private.pem"])
def test_a_secret_file_open_to_others_is_refused(site: Installation, name: str) -> None:
    (site.folder / name).chmod(0o604)

    ((_, wrong),) = site.faults()

    assert wrong == f"{site.folder / name} is open to others than its owner: everybody on this host (mode 0604)"


def test_a_push_certificate_may_replace_the_key(site: Installation) -> None:
    begin, end = GOOD.index("[apns]"), GOOD.index("[fcm]")
    apns = '[apns]\ncertificate_file = "api-both.pem"\ntopics = ["com.example.mail"]\nin_flight = 7\n'
    site.configure(GOOD[:begin] + apns + GOOD[end:])

    loaded = site.load().apns

    account = ApnsAccount(frozenset({"com.example.mail"}), ApnsCertificate(site.folder / "api-both.pem"))
    assert loaded == ApnsConfig((account,), in_flight=7)
    site.replace("api-both.pem", "old-both.pem")
    assert [key for key, _ in site.faults()] == ["apns.certificate_file"]


def test_an_operators_choices_reach_the_policy(site: Installation) -> None:
    site.replace(
        "[servers.main]",
        "[servers.main]\nacknowledgement = 1\nacknowledgement_fallback = [4, 1, 2, 4]\n"
        'versions = ["14.1"]\nca_file = "ca.pem"\n'
        "heartbeat_start = 300\nheartbeat_minimum = 120\nheartbeat_maximum = 900\n"
        'mode = "poll"\npoll_interval = 120\nreturn_rate = 2.5\nlockout_window = 7200',
    )

    main = site.load().servers["main"]

    assert main.ca_file == site.folder / "ca.pem"
    assert main.policy == Policy(
        versions=(ProtocolVersion.V14_1,),
        acknowledgement=Acknowledgement.APPLIED,
        fallbacks=(Acknowledgement.THIRD_PARTY, Acknowledgement.PARTIAL),
        hosts=frozenset({"mail.example.com"}),
        heartbeat=Heartbeat(300, 120, 900),
        poll_interval=120,
        return_rate=2.5,
        lockout_window=7200.0,
    )


def test_a_certificate_must_be_valid_at_the_given_time(site: Installation) -> None:
    assert load(site.toml, {}, Role.ALL, datetime(2026, 1, 1, tzinfo=UTC)).apns is not None
    with pytest.raises(SettingsInvalid, match="valid only from"):
        load(site.toml, {}, Role.ALL, datetime(1990, 1, 1, tzinfo=UTC))


def test_the_password_file_must_not_be_empty(site: Installation) -> None:
    site.write("db.password", b"\n")
    site.replace("[relay]", '[database]\nurl = "postgresql://relay@db/relay"\npassword_file = "db.password"\n[relay]')

    assert site.faults() == [("database.password_file", f"{site.folder / 'db.password'} is empty")]


def test_servers_that_are_no_tables_are_faults(site: Installation) -> None:
    site.configure('servers = "main"\n' + GOOD.replace("[servers.main]", "[log]").split("[log]")[0])

    assert ("servers", "is no table") in site.faults()


def test_paths_may_be_absolute_and_sqlite_elsewhere(site: Installation, tmp_path: Path) -> None:
    site.replace("[relay]", f'[database]\nurl = "sqlite:///{tmp_path}/elsewhere.db"\n[relay]')
    assert site.load().database.file == tmp_path / "elsewhere.db"

    site.replace(f"sqlite:///{tmp_path}/elsewhere.db", "sqlite:///beside.db")
    assert site.load().database.file == site.folder / "beside.db"


def test_the_paths_of_the_sealing_keys_are_known_before_the_keys_exist(site: Installation) -> None:
    (site.folder / "state/sealing-private.pem").unlink()
    site.replace("[relay]", '[sealing]\npublic_key_file = "seal.pub"\n[relay]')

    making = key_making(site.toml, {})
    assert making.private_key_file == site.folder / "state/sealing-private.pem"
    assert making.public_key_file == site.folder / "seal.pub"
    assert making.former == frozenset()
    with pytest.raises(SettingsInvalid):
        key_making(site.toml, {"RELAY__SEALING__KEY": "x"})


def test_former_keys_open_too_and_one_that_is_none_is_a_fault(site: Installation) -> None:
    private, _ = generate()
    site.write("former.pem", private)
    site.replace("[relay]", '[sealing]\nformer_private_key_files = ["former.pem"]\n[relay]')
    keys = site.load().sealing.private
    assert keys is not None
    assert len(keys.ids) == 2
    assert key_making(site.toml, {}).former < keys.ids

    site.write("former.pem", b"no key")

    assert [fault[0] for fault in site.faults()] == ["sealing.former_private_key_files"]
    with pytest.raises(SettingsInvalid, match="holds no X25519 private key"):
        key_making(site.toml, {})


def test_a_pem_file_of_a_ca_may_contain_comments(site: Installation) -> None:
    site.write("bundle.pem", b"# a comment: caf\xc3\xa9\n" + trustme.CA().cert_pem.bytes(), 0o644)
    site.replace("[servers.main]", '[servers.main]\nca_file = "bundle.pem"')

    assert site.faults() == []


def test_missing_files_are_faults_of_the_role_that_needs_them(site: Installation) -> None:
    site.replace("[relay]", '[database]\nurl = "postgresql://relay@db/relay"\npassword_file = "none"\n[relay]')
    (site.folder / "state/sealing-public.pem").unlink()

    assert [key for key, _ in site.faults(Role.API)] == ["database.password_file", "sealing.public_key_file"]
    assert [key for key, _ in site.faults(Role.WATCH)] == ["database.password_file"]


def test_the_environment_cannot_put_a_key_where_there_is_no_table(site: Installation) -> None:
    site.configure('log = "debug"\n' + GOOD)

    assert site.faults(environ={"RELAY__LOG__LEVEL": "debug"}) == [("log", "is no table")]


def test_mailboxes_may_be_redirected_to_configured_servers_and_allowed_hosts_only(site: Installation) -> None:
    site.replace(
        "[servers.main]",
        "[autodiscover]\nenabled = true\nhosts = ['Autodiscover.Example.NET', 'mail.example.net:8443']\n"
        "[servers.branch]\nurl = 'https://branch.example.com:444/eas'\n[servers.main]",
    )

    settings = site.load()

    discovered = frozenset({"autodiscover.example.net", "mail.example.net:8443"})
    assert settings.autodiscover.policy == Policy(hosts=discovered, discovered=True)
    assert settings.autodiscover.hosts == discovered
    for server in settings.servers.values():
        assert server.policy.hosts == discovered | {"mail.example.com", "branch.example.com:444"}


def test_hosts_of_an_autodiscover_that_is_switched_off_are_not_allowed(site: Installation) -> None:
    site.replace("[servers.main]", "[autodiscover]\nhosts = ['autodiscover.example.net']\n[servers.main]")

    settings = site.load()

    assert settings.autodiscover.hosts == frozenset()
    assert settings.servers["main"].policy.hosts == {"mail.example.com"}


def test_autodiscover_without_a_list_of_hosts_is_a_fault(site: Installation) -> None:
    site.replace("[servers.main]", "[autodiscover]\nenabled = true\n[servers.autodiscover]\n[servers.main]")
    with pytest.raises(SettingsInvalid) as caught:
        site.load()
    assert {"autodiscover.hosts", "servers.autodiscover"} <= {key for key, _, _ in caught.value.faults}

    for host in ("https://mail.example.com", "mail.example.com/eas", "*.example.com", "ann@example.com"):
        site.configure(GOOD)
        site.replace("[servers.main]", f"[autodiscover]\nenabled = true\nhosts = ['{host}']\n[servers.main]")
        with pytest.raises(SettingsInvalid, match="no host"):
            site.load()


def test_numbers_in_the_environment_are_comma_separated(site: Installation) -> None:
    name = "RELAY__SERVERS__MAIN__ACKNOWLEDGEMENT_FALLBACK"

    assert site.load(environ={name: "2, 1"}).servers["main"].policy.fallbacks == (
        Acknowledgement.PARTIAL,
        Acknowledgement.APPLIED,
    )
    with pytest.raises(SettingsInvalid, match="acknowledgement_fallback"):
        site.load(environ={name: "2,x"})


def test_everybody_may_need_an_invitation(site: Installation) -> None:
    site.write("invitation-public.pem", invitation_keys()[1], 0o644)
    site.replace("[api]", '[api]\ninvitation_key_file = "invitation-public.pem"')

    api = site.load().api

    assert api is not None
    assert api.invitations is not None


def test_a_file_without_keys_of_invitations_is_a_fault(site: Installation) -> None:
    site.write("invitation-public.pem", b"none", 0o644)
    site.replace("[api]", '[api]\ninvitation_key_file = "invitation-public.pem"')

    assert [key for key, _ in site.faults()] == ["api.invitation_key_file"]


def test_a_setting_may_name_a_credential_of_systemd(site: Installation) -> None:
    folder = site.folder / "credentials"
    folder.mkdir()
    (site.folder / "apns.p8").rename(folder / "apns")
    site.replace('key_file = "apns.p8"', 'key_file = "credential:apns"')

    settings = site.load(environ={"CREDENTIALS_DIRECTORY": str(folder)})

    assert settings.apns is not None
    assert [account.authentication.file for account in settings.apns.accounts] == [folder / "apns"]


def test_a_credential_is_a_fault_in_a_process_without_any(site: Installation) -> None:
    site.replace('key_file = "apns.p8"', 'key_file = "credential:apns"')

    assert site.faults() == [
        ("apns.key_file", "names a credential of systemd, and this process was started without any")
    ]


def test_a_credential_is_never_looked_for_outside_of_its_folder(site: Installation) -> None:
    site.replace('key_file = "apns.p8"', f'key_file = "credential:/{site.folder}/apns.p8"')

    assert [key for key, _ in site.faults(environ={"CREDENTIALS_DIRECTORY": "/run/credentials/relay"})] == [
        "apns.key_file"
    ]


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1", ["http://127.0.0.1:9091"]),
        ("::1", ["http://[::1]:9091"]),
        ("*", ["http://127.0.0.1:9091", "http://[::1]:9091"]),
    ],
)
def test_commands_learn_where_the_ops_listener_answers(tmp_path: Path, host: str, found: list[str]) -> None:
    toml = tmp_path / "relay.toml"
    toml.write_text(f'[ops]\nhost = "{host}"\nport = 9091\n')

    assert ops_addresses(toml, {}) == found


def test_a_faulty_address_of_the_ops_listener_is_a_fault(tmp_path: Path) -> None:
    toml = tmp_path / "relay.toml"
    toml.write_text("[ops]\nport = 0\n")

    with pytest.raises(SettingsInvalid):
        ops_addresses(toml, {})


@pytest.mark.parametrize(
    ("value", "wrong"),
    [("9" * 5000, "is no TOML: a number has too many digits"), ("[" * 3000, "is no TOML: it nests too deep")],
)
def test_a_file_that_python_does_not_read_is_a_fault(site: Installation, value: str, wrong: str) -> None:
    site.toml.write_text(f"a = {value}\n")

    assert site.faults() == [(str(site.toml), wrong)]


def push_table(site: Installation, *keys: str) -> None:
    site.configure("\n".join([GOOD, "[push]", *keys, ""]))


def test_all_pushes_leave_unless_the_file_says_otherwise(site: Installation) -> None:
    settings = site.load()

    assert settings.push.mode == PushMode()
    assert settings.warnings == ()


def test_shadow_mode_is_a_warning(site: Installation) -> None:
    push_table(site, 'mode = "shadow"', 'live_apps = ["com.example.mail"]', 'live_servers = ["main"]')
    settings = site.load()

    mode = PushMode(shadow=True, live_apps=frozenset({"com.example.mail"}), live_servers=frozenset({"main"}))
    assert settings.push.mode == mode
    [(key, noted, remedy)] = settings.warnings
    assert (key, noted) == ("push.mode", f"is {mode.words}")
    assert remedy == "Set it to live when phones shall get pushes."


def test_a_role_that_does_not_push_has_no_such_warning(site: Installation) -> None:
    push_table(site, 'mode = "shadow"')
    environ = {"RELAY__DATABASE__URL": "postgresql://relay@localhost/relay"}

    assert site.load(Role.WATCH, environ).warnings == ()
    assert [key for key, _, _ in site.load(Role.PUSH, environ).warnings] == ["push.mode"]


def test_apps_and_mail_servers_that_do_not_exist_cannot_be_live(site: Installation) -> None:
    push_table(site, 'live_apps = ["com.example.other", "com.example.mail"]', 'live_servers = ["mian", "autodiscover"]')

    with pytest.raises(SettingsInvalid) as refused:
        site.load()
    assert refused.value.faults == [
        (
            "push.live_apps",
            "names com.example.other, which no provider is configured for",
            "Name apps that stand in the tables of the providers.",
        ),
        (
            "push.live_servers",
            "names autodiscover, mian, which is no mail server here",
            "Name mail servers as their tables do: main.",
        ),
    ]


def test_a_push_role_without_the_tables_of_mail_servers_takes_their_names_unseen(site: Installation) -> None:
    site.configure(GOOD.replace('[servers.main]\nurl = "https://mail.example.com"\ndomains = ["Example.com"]\n', ""))
    push = '[push]\nmode = "shadow"\nlive_servers = ["branch"]\n\n[apns]'
    site.replace("[apns]", push)
    environ = {"RELAY__DATABASE__URL": "postgresql://relay@localhost/relay"}

    assert site.load(Role.PUSH, environ).push.mode.live_servers == {"branch"}


def test_a_mode_that_is_none_is_a_fault(site: Installation) -> None:
    push_table(site, 'mode = "dark"')
    with pytest.raises(SettingsInvalid) as refused:
        site.load()
    assert [key for key, _, _ in refused.value.faults] == ["push.mode"]
