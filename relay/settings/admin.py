"""Checks of [admin]: the keys of the audit log, the tokens of the admin API, and who uses the console."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from relay.admin.people import GROUP, TrustedProxy
from relay.admin.tokens import AdminToken, Scope, digest_of
from relay.domain.model import Role
from relay.http.addresses import Proxies
from relay.settings.contents import nothing_at, text_misfit
from relay.settings.files import EGRESS_KEYS, Files
from relay.settings.network import read_networks
from relay.settings.sections import AdminProxySection, AdminSection, AdminTokenSection
from relay.settings.source import Faults, Sections
from relay.settings.values import AdminSettings

AUDIT_KEY: Final = "admin-audit.key"
"""The default file of the keys of the audit log, in relay.state_dir."""
SERVES: Final = frozenset({Role.ALL, Role.API})
"""Roles that serve the admin API, and the console unless the settings say otherwise."""
TOKEN: Final = re.compile(r"[!-~]{32,512}", re.ASCII)
HASHED: Final = re.compile(r"sha256:[0-9a-fA-F]{64}", re.ASCII)
MAKE: Final = "Write one token of 32 to 512 letters and digits: `openssl rand -hex 32` makes one."


def admin_settings(sections: Sections, files: Files, role: Role, state_dir: Path) -> AdminSettings:
    """Return who may use the admin API and the console, for a role that serves them; faults go to `files.faults`."""
    section = sections.read("admin", AdminSection, files.faults)
    path = audit_key_file(files, section, state_dir)
    named = sections.admin_tokens(files.faults)
    asked = sections.read("admin.proxy", AdminProxySection, files.faults)
    if section.console is False or (section.console is None and role not in SERVES):
        asked = AdminProxySection()
    if role not in SERVES and not section.console:
        return AdminSettings(path)
    proxy = _proxy(asked, files.faults)
    if not named and asked == AdminProxySection():
        if section.console:
            remedy = "Add a table [admin.tokens.NAME] or [admin.proxy], or remove it."
            files.faults.add("admin.console", "is true, but nobody may use the console", remedy)
        return AdminSettings(path)
    if role in SERVES and not nothing_at(path):
        content = files.read("admin.audit_key_file", path, secret=True)
        if content is not None and not EGRESS_KEYS.fullmatch(content):
            remedy = "Restore it from your backup; without the file the next act makes a new key."
            files.faults.add("admin.audit_key_file", f"{path} holds no keys of an audit log", remedy)
    read = {name: _token(name, table, files) for name, table in named.items()}
    tokens = tuple(token for token in read.values() if token is not None)
    for token in tokens:
        twin = next(other for other in tokens if other.digest == token.digest)
        if twin is not token:
            wrong = f"is the same token as that of admin.tokens.{twin.name}"
            files.faults.add(f"admin.tokens.{token.name}.file", wrong, "Make one for each: the audit log names them.")
    return AdminSettings(path, tokens, proxy, console=section.console is not False)


def audit_key_file(files: Files, section: AdminSection, state_dir: Path) -> Path:
    """Return the path of the keys of the audit log, which need not exist."""
    return state_dir / AUDIT_KEY if section.audit_key_file is None else files.path(section.audit_key_file)


A_GROUP: Final = re.compile(f"{GROUP}.")
OF_CLIENTS: Final = frozenset({"authorization", "cookie", "host", "origin", "referer", "user-agent"})
"""Headers that no proxy says by who somebody is."""


def _proxy(section: AdminProxySection, faults: Faults) -> TrustedProxy | None:
    """Return the proxy that says who uses the console; None: the table is empty or has faults."""
    if section == AdminProxySection():
        return None
    named = faults.require("admin.proxy.header", section.header, "Name the header, such as X-Forwarded-User.")
    known = faults.require("admin.proxy.peers", section.peers, "List the addresses of the proxies that set the header.")
    faults.require("admin.proxy.read", section.read, "List who may look; nobody sees a page without that.")
    networks = read_networks("admin.proxy.peers", section.peers, faults)
    if any(network.is_loopback for network in networks):
        noted = "trusts this host: anyone who may run a program on it can name any person"
        faults.warn("admin.proxy.peers", noted, "Let nobody else log in to the host, or put the proxy on another one.")
    if section.header is None or not named or not known:
        return None
    if section.header.lower() == (section.groups_header or "").lower():
        faults.add("admin.proxy.groups_header", "is the header of the person", "Name another one, or leave it out.")
    scopes = {Scope.READ: section.read, Scope.ACT: section.act, Scope.FORGET: section.forget}
    _check_headers(section, faults)
    _check_people(scopes, faults)
    listed = {scope: frozenset(names) for scope, names in scopes.items()}
    if section.groups_header is None and any(name.startswith(GROUP) for names in scopes.values() for name in names):
        wrong = "is missing, and groups are listed"
        faults.add("admin.proxy.groups_header", wrong, "Name the header in which the proxy lists a person's groups.")
    return TrustedProxy(section.header, section.groups_header, Proxies(networks), MappingProxyType(listed))


def _check_headers(section: AdminProxySection, faults: Faults) -> None:
    for key, header in (("header", section.header), ("groups_header", section.groups_header)):
        if (header or "").lower() in OF_CLIENTS:
            wrong = "is a header that every client sends, so it says nothing of the proxy"
            faults.add(f"admin.proxy.{key}", wrong, "Name one that the proxy sets and removes, as X-Forwarded-User.")


def _check_people(scopes: Mapping[Scope, Sequence[str]], faults: Faults) -> None:
    """Name what lets nobody in, though somebody was meant."""
    readers = scopes[Scope.READ]
    for scope, names in scopes.items():
        if any(name.lower().startswith(GROUP) and not A_GROUP.match(name) for name in names):
            faults.add(f"admin.proxy.{scope}", "has a group that is none", "Write group:NAME, group in small letters.")
        if readers and not any(each.lower().startswith(GROUP) for each in readers) and not set(names) <= set(readers):
            wrong = "names somebody who may not read, and sees no page to act on"
            faults.add(f"admin.proxy.{scope}", wrong, "Add the name to admin.proxy.read, too.")


def _token(name: str, section: AdminTokenSection, files: Files) -> AdminToken | None:
    key = f"admin.tokens.{name}.file"
    if not files.faults.require(key, section.file, "Name a file with the token.") or section.file is None:
        return None
    path = files.path(section.file)
    content = files.read(key, path, secret=True, remedy=MAKE)
    if content is None:
        return None
    if (misfit := text_misfit(content)) is not None:
        files.faults.add(key, f"{path} {misfit[0]}", misfit[1])
        return None
    line = content.decode("utf-8-sig").partition("\n")[0].strip()
    if HASHED.fullmatch(line):
        digest = bytes.fromhex(line.removeprefix("sha256:"))
    elif TOKEN.fullmatch(line):
        digest = digest_of(line)
    else:
        files.faults.add(key, f"{path} holds a token that is too short, too long or has blanks", MAKE)
        return None
    return AdminToken(name, digest, frozenset(map(Scope, section.scopes)))
