"""Checks of [fcm] and [fcm.accounts.NAME]: a service account each, with the apps of its Firebase project."""

from collections.abc import Mapping
from typing import Final

from relay.push.fcm.config import FcmAccount
from relay.settings.files import Files
from relay.settings.push_sections import FcmAccountSection, FcmSection

TABLE: Final = "fcm"


class FcmChecks:
    """Checks FCM accounts; faults go to `files.faults`."""

    def __init__(self, section: FcmSection, accounts: Mapping[str, FcmAccountSection], files: Files) -> None:
        """[fcm] itself is an account if it names a service account or apps; `accounts` are the tables below it."""
        self._files = files
        self._faults = files.faults
        is_account = section.service_account_file or section.apps
        tables: dict[str, FcmAccountSection] = {TABLE: section} if is_account or not accounts else {}
        self._tables = tables | {f"{TABLE}.accounts.{name}": account for name, account in accounts.items()}

    @property
    def apps(self) -> frozenset[str]:
        """The apps of all accounts."""
        return frozenset(app for section in self._tables.values() for app in section.apps)

    def accounts(self) -> tuple[FcmAccount, ...] | None:
        """Return all accounts, their files checked; None if one of them cannot be used."""
        owners: dict[str, str] = {}
        projects: dict[str, str] = {}
        accounts = []
        for table, section in self._tables.items():
            self._faults.require(f"{table}.apps", section.apps, "List the package names of your apps.")
            self._claim_apps(table, section, owners)
            key, file = f"{table}.service_account_file", section.service_account_file
            remedy = "Set it to the JSON key of a service account, from the Firebase console."
            if not self._faults.require(key, file, remedy) or file is None:
                continue
            path = self._files.path(file)
            project = self._files.service_account(key, path)
            if project is not None and (owner := projects.setdefault(project, table)) != table:
                wrong = f"is for the same Firebase project as {owner}.service_account_file"
                remedy = f"Move the apps to {owner}.apps, or give the key of their own project."
                self._faults.add(key, wrong, remedy)
            accounts.append(FcmAccount(frozenset(section.apps), path, table))
        return tuple(accounts) if len(accounts) == len(self._tables) else None

    def _claim_apps(self, table: str, section: FcmAccountSection, owners: dict[str, str]) -> None:
        """Add the apps of an account to `owners`; report an app that another account already has."""
        for app in section.apps:
            owner = owners.setdefault(app, table)
            if owner != table:
                remedy = "Name it once: an app is built for one Firebase project, the one in its google-services.json."
                self._faults.add(f"{table}.apps", f"names {app}, which {owner} is for already", remedy)
                return
