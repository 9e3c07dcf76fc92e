"""Own the checks of the APNs accounts: a key or a certificate each, and which apps and environments it is for."""

from collections.abc import Mapping
from typing import Final

from relay.domain.model import Environment
from relay.push.apns.config import ApnsAccount, ApnsCertificate, ApnsToken, Authentication
from relay.settings.files import Files
from relay.settings.sections import ApnsAccountSection, ApnsSection

PLAIN: Final = "apns"


class ApnsChecks:
    """Turn [apns] and [apns.accounts.NAME] into accounts; what is wrong goes to the faults of `files`."""

    def __init__(self, section: ApnsSection, accounts: Mapping[str, ApnsAccountSection], files: Files) -> None:
        """Take the table itself, which is an account if it names a key, a certificate or apps, and those below it."""
        self._files = files
        self._faults = files.faults
        plain = section.key_file or section.certificate_file or section.topics
        tables: dict[str, ApnsAccountSection] = {PLAIN: section} if plain or not accounts else {}
        self._tables = tables | {f"{PLAIN}.accounts.{name}": account for name, account in accounts.items()}

    @property
    def topics(self) -> frozenset[str]:
        """Name the apps of all accounts."""
        return frozenset(topic for section in self._tables.values() for topic in section.topics)

    def accounts(self) -> tuple[ApnsAccount, ...] | None:
        """Check all accounts, files included; None when one cannot be used."""
        owners: dict[tuple[str, Environment], str] = {}
        accounts = []
        for table, section in self._tables.items():
            self._require(f"{table}.topics", section.topics, "List the bundle ids of your apps.")
            environments = frozenset(Environment(name) for name in section.environments)
            self._own(table, section, environments, owners)
            authentication = self._authentication(table, section)
            if authentication is not None:
                accounts.append(ApnsAccount(frozenset(section.topics), authentication, environments, table))
        return tuple(accounts) if len(accounts) == len(self._tables) else None

    def _own(
        self,
        table: str,
        section: ApnsAccountSection,
        environments: frozenset[Environment],
        owners: dict[tuple[str, Environment], str],
    ) -> None:
        """Note which account is for an app; report one that another one is for already."""
        for topic in section.topics:
            for environment in sorted(environments):
                owner = owners.setdefault((topic, environment), table)
                if owner != table:
                    wrong = f"names {topic}, which {owner} is for already in {environment.value}"
                    self._faults.add(f"{table}.topics", wrong, "Name it once, or give the two different environments.")
                    return

    def _require(self, key: str, given: object, remedy: str) -> bool:
        if not given and key not in self._faults:
            self._faults.add(key, "is missing", remedy)
        return bool(given)

    def _authentication(self, table: str, section: ApnsAccountSection) -> Authentication | None:
        if section.certificate_file is not None:
            key = f"{table}.certificate_file"
            if section.key_file is not None:
                wrong = f"is set beside {table}.key_file"
                self._faults.add(key, wrong, "Keep one of the two; the .p8 key does not expire.")
            path = self._files.path(section.certificate_file)
            self._files.certificate(key, path, key, path)
            return ApnsCertificate(path)
        remedy = f"Set {table}.key_file, {table}.key_id and {table}.team_id, or {table}.certificate_file."
        there = self._require(f"{table}.key_file", section.key_file, remedy)
        team = self._require(f"{table}.team_id", section.team_id, remedy)
        if section.key_file is None:
            self._require(f"{table}.key_id", section.key_id, remedy)
            return None
        token = ApnsToken(self._files.path(section.key_file), section.key_id, section.team_id or "")
        named = self._require(
            f"{table}.key_id", token.present_key_id, f"{remedy} A file named AuthKey_KEYID.p8 needs no key_id."
        )
        good = self._files.apns_key(f"{table}.key_file", token.file)
        return token if there and team and named and good else None
