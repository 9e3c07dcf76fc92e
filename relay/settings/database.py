"""Checks of [database]: SQLite or PostgreSQL, for which role, and TLS to its host."""

from pathlib import Path
from typing import Final

from relay.domain.model import Role
from relay.settings.files import Files
from relay.settings.sections import DatabaseSection
from relay.settings.urls import (
    UrlInvalid,
    names_socket,
    names_sslmode,
    postgresql_url,
    scheme_of,
    sqlite_file,
    sqlite_url,
)
from relay.settings.values import DatabaseSettings, Secret

DATABASE: Final = "relay.sqlite3"
URL: Final = "database.url"
CA_FILE: Final = "database.ca_file"


def database_settings(section: DatabaseSection, files: Files, role: Role, state_dir: Path) -> DatabaseSettings:
    """Return the settings of the database; faults go to `files.faults`."""
    if section.url is None or scheme_of(section.url) == "sqlite":
        return _embedded(section, files, role, state_dir)
    url, password = "", None
    try:
        url = postgresql_url(section.url)
    except UrlInvalid as error:
        remedy = "Write postgresql://USER@HOST:PORT/NAME; the password goes into database.password_file."
        files.faults.add(URL, str(error), remedy)
    if section.password_file is not None:
        password = files.password("database.password_file", files.path(section.password_file))
    ca_file = files.ca(CA_FILE, section.ca_file)
    if ca_file is not None and names_socket(section.url):
        _no_host(files)
    elif ca_file is not None and url and names_sslmode(url):
        files.faults.add(CA_FILE, "is set, and database.url has sslmode too", "Remove sslmode from the URL.")
    return DatabaseSettings(url, None if password is None else Secret(password), ca_file=ca_file)


def _embedded(section: DatabaseSection, files: Files, role: Role, state_dir: Path) -> DatabaseSettings:
    if role is not Role.ALL and URL not in files.faults:
        remedy = "Use PostgreSQL (postgresql://USER@HOST/NAME), or run one process with --role all."
        files.faults.add(URL, f"is SQLite, which role {role} cannot share with others", remedy)
    if section.ca_file is not None and URL not in files.faults:
        _no_host(files)
    file = state_dir / DATABASE
    if section.url is not None:
        try:
            file = sqlite_file(section.url, files.folder)
        except UrlInvalid as error:
            files.faults.add(URL, str(error), "Write sqlite:///FILE; a path from the root has four slashes.")
    return DatabaseSettings(sqlite_url(file), file=file)


def _no_host(files: Files) -> None:
    remedy = "Remove it, or write postgresql://USER@HOST:PORT/NAME."
    files.faults.add(CA_FILE, "is set, but database.url names no host", remedy)
