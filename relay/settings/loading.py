"""Loads the settings of one role, or only the paths of the keys that commands make.

Only `relay.settings` reads relay.toml and the variables RELAY__*; all other code gets values.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from relay.domain.errors import SettingsInvalid
from relay.domain.model import Role
from relay.http.hosts import reached_at
from relay.settings.admin import audit_key_file
from relay.settings.checks import Checks, state_folder
from relay.settings.database import database_settings
from relay.settings.files import Files, credentials_folder
from relay.settings.push_sections import WebPushSection
from relay.settings.sealing import SealingChecks, beside
from relay.settings.sections import AdminSection, DatabaseSection, OpsSection, RelaySection, SealingSection
from relay.settings.source import Faults, read_sections
from relay.settings.values import DatabaseSettings, KeyMaking, Origin, Settings


def load(
    path: Path, environ: Mapping[str, str], role: Role, now: datetime | None = None, *, first: bool = False
) -> Settings:
    """Return the settings of `role`, checked; certificates must be valid at `now`, by default the present time.

    Before the `first` start, the sealing keys may both be missing: that start makes them.

    Raises SettingsInvalid with all faults: (key as in TOML, what is wrong, what to do).
    """
    sections, faults = read_sections(path, environ), Faults()
    sections.report_unknown_tables(faults)
    files = _files(path, environ, faults, now)
    settings = Checks(sections, files, role, first=first).settings()
    if faults.list:
        raise SettingsInvalid(faults.list)
    # A key may come or go beside the present one.
    folders = (beside(settings.sealing.private_key_file),) if settings.sealing.private is not None else ()
    origin = Origin(sections.values, files.contents, folders)
    return replace(settings, warnings=tuple(faults.warnings), origin=origin)


def key_making(path: Path, environ: Mapping[str, str]) -> KeyMaking:
    """Return what making the sealing keys needs; their files need not exist. Raises SettingsInvalid."""
    sections, faults = read_sections(path, environ), Faults()
    files = _files(path, environ, faults)
    relay = sections.read("relay", RelaySection, faults)
    sealing = sections.read("sealing", SealingSection, faults)
    state_dir = state_folder(files.folder, relay, faults)
    database = database_settings(sections.read("database", DatabaseSection, faults), files, Role.ALL, state_dir)
    admin = sections.read("admin", AdminSection, faults)
    keys = SealingChecks(files, sealing, state_dir)
    former = frozenset(map(bytes.fromhex, keys.opening()))
    if faults.list:
        raise SettingsInvalid(faults.list)
    audit_keys = audit_key_file(files, admin, state_dir)
    return KeyMaking(keys.private_file, keys.public_file, former, database, audit_keys)


def database_of(path: Path, environ: Mapping[str, str], role: Role) -> DatabaseSettings:
    """Return the settings of the database alone, for the commands that need nothing else; raises SettingsInvalid."""
    sections, faults = read_sections(path, environ), Faults()
    files = _files(path, environ, faults)
    state_dir = state_folder(files.folder, sections.read("relay", RelaySection, faults), faults)
    database = database_settings(sections.read("database", DatabaseSection, faults), files, role, state_dir)
    if faults.list:
        raise SettingsInvalid(faults.list)
    return database


def database_named(
    url: str, password_file: str | None, ca_file: str | None, environ: Mapping[str, str]
) -> DatabaseSettings:
    """Return the settings of a database that a command line names; raises SettingsInvalid, as for relay.toml."""
    faults = Faults()
    files = _files(Path("command line"), environ, faults)
    section = DatabaseSection(url=url, password_file=password_file, ca_file=ca_file)
    database = database_settings(section, files, Role.ALL, files.folder)
    if faults.list:
        raise SettingsInvalid(faults.list)
    return database


def vapid_key_file(path: Path, environ: Mapping[str, str]) -> Path:
    """Return the path of the VAPID key, which need not exist; raises SettingsInvalid."""
    sections, faults = read_sections(path, environ), Faults()
    file = sections.read("webpush", WebPushSection, faults).vapid_key_file
    faults.require("webpush.vapid_key_file", file, "Name a file in the table [webpush].")
    if faults.list or file is None:
        raise SettingsInvalid(faults.list)
    return _files(path, environ, faults).path(file)


def _files(path: Path, environ: Mapping[str, str], faults: Faults, now: datetime | None = None) -> Files:
    """Return what reads the files that a relay.toml names."""
    moment = now or datetime.now(UTC)  # noqa: TID251 -- the process begins here, without a clock
    return Files(path.absolute().parent, faults, moment, credentials=credentials_folder(environ), environ=environ)


def ops_addresses(path: Path, environ: Mapping[str, str]) -> list[str]:
    """Return where the ops listener of this host answers, each as http://HOST:PORT; raises SettingsInvalid."""
    sections, faults = read_sections(path, environ), Faults()
    ops = sections.read("ops", OpsSection, faults)
    if faults.list:
        raise SettingsInvalid(faults.list)
    return [_url(host, ops.port) for host in reached_at(ops.host)]


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
