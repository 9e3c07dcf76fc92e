"""What a role needs of its host before it serves: folders that it can write, addresses, keys that its libraries take.

`relay check`, `relay serve` and `relay doctor` come through here: what one calls good, the other can start with.
"""

import errno
import os
import pwd
import ssl
import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from relay.domain.errors import PortTaken, SettingsInvalid
from relay.http.hosts import CannotListen, bind
from relay.http.listeners import server_tls
from relay.push.apns.config import ApnsToken
from relay.settings import Settings
from relay.settings.webpush import PUSHES
from relay.store.engine import embedded_in_use

Fault = tuple[str, str, str]
"""As in SettingsInvalid: the setting, what is wrong, what to do."""


def prepare(settings: Settings, *, running: bool, ports: Collection[int] = ()) -> None:
    """Raise SettingsInvalid with all that keeps a role from serving on this host, or PortTaken.

    If the relay is `running` already, or may be, its ports may be in use. Sockets on `ports` listen already.
    """
    faults, taken = listener_faults(settings, ports)
    faults += folder_faults(settings) + key_faults(settings)
    if faults:
        raise SettingsInvalid(faults)
    if taken and not running:
        raise PortTaken(taken)


def may_run(settings: Settings) -> bool:
    """Return whether a relay with these settings may run now; with PostgreSQL, this host cannot know."""
    file = settings.database.file
    return file is None or embedded_in_use(file)


def folder_faults(settings: Settings) -> list[Fault]:
    """Return the folders and files of the role that this user cannot write."""
    folders: dict[Path, str] = {}
    if settings.database.file is not None:
        folder = settings.database.file.parent
        folders[folder] = "relay.state_dir" if folder == settings.state_dir else "database.url"
    if settings.role in PUSHES and not any(settings.egress.folder.is_relative_to(folder) for folder in folders):
        folders[settings.egress.folder] = "egress.folder"
    faults = [fault for folder, key in folders.items() if (fault := _unwritable(key, folder)) is not None]
    file = settings.database.file
    if file is not None and not faults:
        for path in (file, file.with_name(file.name + ".lock")):
            if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK, effective_ids=True)):
                return [(folders[file.parent], f"{path} cannot be written", _owner(path))]
    return faults


def _unwritable(key: str, folder: Path) -> Fault | None:
    """Try to make a file in a folder, or in the nearest one above it that exists; return why that fails."""
    there = folder
    try:
        while not there.exists() and there != there.parent:
            there = there.parent
        if not there.is_dir():
            return key, f"{there} is no folder", "Name a folder that only the relay may enter."
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        if error.errno == errno.EROFS:
            return key, f"{folder} is on a file system that is read-only", "Name a folder that the relay may write."
        return key, f"{folder} cannot be written: {error.strerror}", _owner(there)


def _owner(path: Path) -> str:
    """Return what to do about a path that another user made."""
    try:
        owner = pwd.getpwuid(path.stat().st_uid).pw_name
    except (KeyError, OSError):
        owner = "another user"
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return f"It belongs to {owner}, this is {user}: run the command as the user of the relay, or `chown -R` the folder."


def listener_faults(settings: Settings, ports: Collection[int] = ()) -> tuple[list[Fault], dict[str, int]]:
    """Return the listeners whose address this host cannot offer, and those whose port is in use: setting and port."""
    wanted = [("ops", settings.ops.hosts, settings.ops.port)]
    if settings.api is not None:
        wanted.insert(0, ("api", settings.api.hosts, settings.api.port))
    faults: list[Fault] = []
    taken = {}
    for table, hosts, port in wanted:
        if port in ports:
            continue
        try:
            for each in bind(hosts, port):
                each.close()
        except CannotListen as error:
            if error.errno == errno.EADDRINUSE:
                taken[f"{table}.port"] = port
            elif error.errno == errno.EACCES:
                remedy = "Choose a port from 1024 on, or give the relay CAP_NET_BIND_SERVICE."
                faults.append((f"{table}.port", f"is {port}, which this user may not use", remedy))
            else:
                wrong = f"{'is' if len(hosts) == 1 else f'names {error.host}, which is'} no address of this host"
                remedy = 'Write its addresses, or "*" for all of them.'
                faults.append((f"{table}.host", wrong, remedy))
    return faults, taken


def key_faults(settings: Settings) -> list[Fault]:
    """Return the key files that a library of the role does not take, although they look right."""
    readers: list[tuple[str, Path, Callable[[], object]]] = []
    api = settings.api
    if api is not None and api.certificate_file is not None and api.key_file is not None:
        certificate, key = api.certificate_file, api.key_file
        readers.append(("api.certificate_file", certificate, lambda: server_tls(certificate, key)))
    if settings.apns is not None:
        from relay.push.apns.accounts import read_key, read_pem  # noqa: PLC0415 -- the role's own library

        for account in settings.apns.accounts:
            way = account.authentication
            read = partial(read_key, way, way.file) if isinstance(way, ApnsToken) else partial(read_pem, way.file)
            readers.append((account.file_setting, way.file, read))
    if settings.fcm is not None:
        from relay.push.fcm.account import ServiceAccount  # noqa: PLC0415 -- the role's own library

        endpoint = settings.fcm.endpoint
        for each in settings.fcm.accounts:
            path = each.service_account_file
            readers.append(
                (each.file_setting, path, partial(lambda file: ServiceAccount(file.read_bytes(), endpoint), path))
            )
    faults = []
    for setting, path, load in readers:
        try:
            load()
        except (OSError, ValueError, TypeError) as error:
            why = f"TLS does not take it ({error.reason})" if isinstance(error, ssl.SSLError) else _why(error)
            faults.append((setting, f"{path} cannot be used: {why}", "Give the file as you got it, or a new one."))
    return faults


def _why(error: Exception) -> str:
    """Return the relay's own words about a file; never a text that a library made of its content."""
    return str(error) if type(error) is ValueError and not error.__cause__ else type(error).__name__
