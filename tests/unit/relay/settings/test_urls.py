from pathlib import Path

import pytest

from relay.settings.urls import (
    UrlInvalid,
    eas_url,
    postgresql_url,
    sqlite_file,
    sqlite_url,
    with_password,
)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("https://mail.example.com", "https://mail.example.com/Microsoft-Server-ActiveSync"),
        ("https://mail.example.com:8443/", "https://mail.example.com:8443/Microsoft-Server-ActiveSync"),
        ("https://mail.example.com/SOGo/eas", "https://mail.example.com/SOGo/eas"),
        ("HTTPS://[::1]:444", "https://[::1]:444/Microsoft-Server-ActiveSync"),
    ],
)
def test_an_activesync_url_gets_its_path(given: str, taken: str) -> None:
    assert eas_url(given) == taken


@pytest.mark.parametrize(
    "url",
    [
        "http://mail.example.com",
        "mail.example.com",
        "https://",
        "https://[::1",
        "https://mail.example.com:0",
        "https://mail.example.com:x",
        "https://ann@mail.example.com",
        "https://mail.example.com?Cmd=Ping",
        "https://mail.example.com#x",
    ],
)
def test_other_urls_are_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(UrlInvalid) as caught:
        eas_url(url)

    assert "example" not in str(caught.value)


def test_sqlite_paths_start_from_the_folder_or_the_root() -> None:
    assert sqlite_file("sqlite:///a/b.db", Path("/etc/relay")) == Path("/etc/relay/a/b.db")
    assert sqlite_file("sqlite:////var/b.db", Path("/etc/relay")) == Path("/var/b.db")
    assert sqlite_url(Path("/var/b.db")) == "sqlite:////var/b.db"


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///", "sqlite://host/x", "sqlite:///x?mode=ro"])
def test_sqlite_without_a_plain_file_is_refused(url: str) -> None:
    with pytest.raises(UrlInvalid):
        sqlite_file(url, Path("/etc/relay"))


def test_postgresql_may_be_reached_through_a_local_socket() -> None:
    url = postgresql_url("postgresql://relay@/relay?host=/run/postgresql")

    assert url == "postgresql+asyncpg://relay@/relay?host=/run/postgresql"


def test_postgresql_gets_its_driver_and_later_its_password() -> None:
    url = postgresql_url("postgres://relay@db.example.com:5433/relay?ssl=require")

    assert url == "postgresql+asyncpg://relay@db.example.com:5433/relay?ssl=require"
    assert with_password(url, "a@b:c/d") == (
        "postgresql+asyncpg://relay:a%40b%3Ac%2Fd@db.example.com:5433/relay?ssl=require"
    )


@pytest.mark.parametrize(
    "url",
    [
        "mysql://relay@db/relay",
        "postgresql://db/relay",
        "postgresql://relay@db",
        "postgresql://relay:canary@db/relay",
        "postgresql://relay@/relay?host=run",
        "postgresql://relay@db/relay?password=canary",
        "postgresql://relay@/relay?host=/run&password=canary",
        "postgresql://relay:canary@/relay?host=/run",
    ],
)
def test_other_databases_and_passwords_in_urls_are_refused(url: str) -> None:
    with pytest.raises(UrlInvalid) as caught:
        postgresql_url(url)

    assert "canary" not in str(caught.value)
