"""Checks of [admin]: the keys of the audit log, and the tokens of the admin API."""

import re
from pathlib import Path
from typing import Final

from relay.admin.tokens import AdminToken, Scope, digest_of
from relay.domain.model import Role
from relay.settings.contents import text_misfit
from relay.settings.files import EGRESS_KEYS, Files
from relay.settings.sections import AdminSection, AdminTokenSection
from relay.settings.source import Sections
from relay.settings.values import AdminSettings

AUDIT_KEY: Final = "admin-audit.key"
"""The default file of the keys of the audit log, in relay.state_dir."""
SERVES: Final = frozenset({Role.ALL, Role.API})
"""Roles that serve the admin API."""
TOKEN: Final = re.compile(r"[!-~]{32,512}", re.ASCII)
HASHED: Final = re.compile(r"sha256:[0-9a-fA-F]{64}", re.ASCII)
MAKE: Final = "Write one token of 32 to 512 letters and digits: `openssl rand -hex 32` makes one."


def admin_settings(sections: Sections, files: Files, role: Role, state_dir: Path) -> AdminSettings:
    """Return who may use the admin API, for a role that serves it; faults go to `files.faults`."""
    section = sections.read("admin", AdminSection, files.faults)
    path = audit_key_file(files, section, state_dir)
    named = sections.admin_tokens(files.faults)
    if role not in SERVES or not named:
        return AdminSettings(path)
    if path.exists():
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
    return AdminSettings(path, tokens)


def audit_key_file(files: Files, section: AdminSection, state_dir: Path) -> Path:
    """Return the path of the keys of the audit log, which need not exist."""
    return state_dir / AUDIT_KEY if section.audit_key_file is None else files.path(section.audit_key_file)


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
