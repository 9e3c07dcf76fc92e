"""Checks of [canary]: its mailbox, the server that takes its mails, and what is wanted of them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from relay.domain.canary import CanaryMailbox, Goal, Submission
from relay.domain.model import Platform, Role
from relay.domain.users import Accounts
from relay.network.urls import is_loopback
from relay.registration.identity import normalise
from relay.security.credentials import CredentialKind
from relay.settings.files import Files
from relay.settings.mail_sections import CanarySection
from relay.settings.source import Sections
from relay.settings.spellings import MAIL_ADDRESS
from relay.settings.values import CanarySettings, ServerSettings

TABLE: Final = "canary"
REGISTERS: Final = frozenset({Role.ALL, Role.API})
SENDS: Final = frozenset({Role.ALL, Role.WATCH})
PUSHES: Final = frozenset({Role.ALL, Role.PUSH})
NEVER: Final = datetime.fromtimestamp(0, UTC)


def canary_settings(
    sections: Sections,
    files: Files,
    role: Role,
    servers: Mapping[str, ServerSettings],
    *,
    receipts: bool,
    webpush: bool,
) -> CanarySettings | None:
    """Return what a role needs of the canary; None without the table. Faults go to `files.faults`.

    `receipts`: pushes have ids; `webpush`: the table [webpush] is there.
    """
    section = sections.read(TABLE, CanarySection, files.faults)
    if TABLE not in sections.tables:
        return None
    return _Checks(section, files, role).settings(servers, receipts=receipts, webpush=webpush)


class _Checks:
    def __init__(self, section: CanarySection, files: Files, role: Role) -> None:
        self._section = section
        self._files = files
        self._faults = files.faults
        self._role = role
        self._own_device = "webpush" in section.platforms

    def settings(self, servers: Mapping[str, ServerSettings], *, receipts: bool, webpush: bool) -> CanarySettings:
        section = self._section
        if not receipts:
            wrong = "is false, and devices of the canary say by receipts what they showed"
            self._faults.add("push.receipts", wrong, "Remove it, or remove the table [canary].")
        if self._own_device and not webpush and self._role is not Role.WATCH:
            remedy = "Add [webpush] with its key; or set canary.platforms to those of phones that you register."
            wrong = "has webpush, the relay's own device, and there is no [webpush]"
            self._faults.add("canary.platforms", wrong, remedy)
        if section.goal_seconds > section.interval_seconds:
            wrong = "is longer than canary.interval_seconds, after which a mail counts as lost"
            self._faults.add("canary.goal_seconds", wrong, "Make it shorter, or the interval longer.")
        goal = Goal(
            frozenset(map(Platform, section.platforms)),
            section.goal_seconds,
            section.goal_percent / 100,
            section.interval_seconds,
        )
        submission, written_at = self._submission() if self._role in SENDS else (None, NEVER)
        return CanarySettings(self._mailbox(servers), goal, submission, written_at)

    def _mailbox(self, servers: Mapping[str, ServerSettings]) -> CanaryMailbox:
        section, user = self._section, self._section.user or ""
        self._require("server", section.server, "Name one of your tables [servers.NAME].")
        self._require("user", section.user, "Write the login of a mailbox that is for the canary alone.")
        try:
            user = normalise(user) if user else ""
        except ValueError as error:
            self._faults.add("canary.user", str(error), "Write the login as a phone sends it.")
        server = servers.get(section.server or "")
        if self._role is not Role.PUSH and section.server and server is None:
            remedy = f"Name one of {', '.join(sorted(servers)) or 'your tables [servers.NAME]'}."
            self._faults.add("canary.server", "is no mail server here", remedy)
        accounts = Accounts() if server is None else server.accounts
        if not self._own_device or self._role not in REGISTERS:
            return CanaryMailbox(section.server or "", user, accounts)
        if server is not None and CredentialKind.BASIC not in server.credentials:
            wrong = "takes no passwords, which the relay registers its own device with"
            remedy = "Let a phone register the mailbox, and name its platform in canary.platforms."
            self._faults.add("canary.server", wrong, remedy)
        password, written_at = self._password("password_file", section.password_file)
        return CanaryMailbox(section.server or "", user, accounts, password, written_at)

    def _submission(self) -> tuple[Submission | None, datetime]:
        """Return where mails go, and when the password for that was written."""
        section = self._section
        self._require("smtp_host", section.smtp_host, "Name the host that takes mails by SMTP.")
        to = section.smtp_to or section.user or ""
        if section.user and not MAIL_ADDRESS.fullmatch(to):
            self._faults.require("canary.smtp_to", None, "Write the address of the mailbox, since canary.user is none.")
        if section.smtp_tls == "none" and section.smtp_host and not is_loopback(section.smtp_host):
            wrong = "is none, and canary.smtp_host is another host"
            self._faults.add("canary.smtp_tls", wrong, "Set it to starttls, or to tls with the port 465.")
        ca_file = self._files.ca("canary.smtp_ca_file", section.smtp_ca_file)
        password, written_at = "", NEVER
        if section.smtp_user is not None:
            found, written_at = self._password("smtp_password_file", section.smtp_password_file)
            password = found or ""
        elif section.smtp_password_file is not None:
            self._require("smtp_user", None, "Write whose password canary.smtp_password_file has.")
        if not section.smtp_host:
            return None, written_at
        sender = section.smtp_from or to
        user = section.smtp_user or ""
        port, tls = section.smtp_port, section.smtp_tls
        return Submission(section.smtp_host, port, tls, sender, to, ca_file, user, password), written_at

    def _password(self, name: str, file: str | None) -> tuple[str | None, datetime]:
        """Return a password, and when its file was written."""
        if not self._require(name, file, "Name a file with the password in its first line.") or file is None:
            return None, NEVER
        path = self._files.path(file)
        password = self._files.password(f"{TABLE}.{name}", path)
        if password is None:
            return None, NEVER
        return password, _changed_at(path)

    def _require(self, name: str, given: object, remedy: str) -> bool:
        return self._faults.require(f"{TABLE}.{name}", given, remedy)


def _changed_at(path: Path) -> datetime:
    """Return when a file was written or put in its place, by this host's clock.

    What it says itself (its mtime) may be older, since a copy keeps it, or ahead, which would say for ever that it was
    written since.
    """
    try:
        return datetime.fromtimestamp(path.stat().st_ctime, UTC)
    except OSError:  # it was there when it was read: the next look sees what is there now
        return NEVER
