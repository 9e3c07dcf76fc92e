"""Checks of [apns] and [apns.accounts.NAME]: a key or certificate each, with its apps and environments."""

from collections.abc import Mapping
from typing import Final

from relay.domain.model import Environment
from relay.push.apns.config import KEY_FILE, ApnsAccount, ApnsCertificate, ApnsToken, Authentication
from relay.settings.files import Files
from relay.settings.push_sections import ApnsAccountSection, ApnsSection

TABLE: Final = "apns"


class ApnsChecks:
    """Checks APNs accounts; faults go to `files.faults`."""

    def __init__(self, section: ApnsSection, accounts: Mapping[str, ApnsAccountSection], files: Files) -> None:
        """[apns] itself is an account if it names a key, a certificate or apps; `accounts` are the tables below it."""
        self._files = files
        self._faults = files.faults
        is_account = section.key_file or section.certificate_file or section.topics
        tables: dict[str, ApnsAccountSection] = {TABLE: section} if is_account or not accounts else {}
        self._tables = tables | {f"{TABLE}.accounts.{name}": account for name, account in accounts.items()}

    @property
    def topics(self) -> frozenset[str]:
        """The apps of all accounts."""
        return frozenset(topic for section in self._tables.values() for topic in section.topics)

    def accounts(self) -> tuple[ApnsAccount, ...] | None:
        """Return all accounts, their files checked; None if one of them cannot be used."""
        owners: dict[tuple[str, Environment], str] = {}
        accounts = []
        for table, section in self._tables.items():
            self._faults.require(f"{table}.topics", section.topics, "List the bundle ids of your apps.")
            environments = frozenset(Environment(name) for name in section.environments)
            self._claim_topics(table, section, environments, owners)
            authentication = self._authentication(table, section)
            if authentication is not None:
                accounts.append(ApnsAccount(frozenset(section.topics), authentication, environments, table))
        return tuple(accounts) if len(accounts) == len(self._tables) else None

    def _claim_topics(
        self,
        table: str,
        section: ApnsAccountSection,
        environments: frozenset[Environment],
        owners: dict[tuple[str, Environment], str],
    ) -> None:
        """Add the apps of an account to `owners`; report an app that another account already has."""
        for topic in section.topics:
            for environment in sorted(environments):
                owner = owners.setdefault((topic, environment), table)
                if owner != table:
                    wrong = f"names {topic}, which {owner} is for already in {environment.value}"
                    self._faults.add(f"{table}.topics", wrong, "Name it once, or give the two different environments.")
                    return

    def _authentication(self, table: str, section: ApnsAccountSection) -> Authentication | None:
        if section.certificate_file is not None:
            key = f"{table}.certificate_file"
            if section.key_file is not None:
                wrong = f"is set beside {table}.key_file"
                self._faults.add(key, wrong, "Keep one of the two; the .p8 key does not expire.")
            path = self._files.path(section.certificate_file)
            if path.suffix.lower() == ".p8":
                remedy = f"Name it in {table}.key_file, with {table}.key_id and {table}.team_id."
                self._faults.add(key, "names a .p8 key, which is no certificate", remedy)
                return None
            self._files.certificate(key, path, key, path)
            return ApnsCertificate(path)
        remedy = f"Set {table}.key_file, {table}.key_id and {table}.team_id, or {table}.certificate_file."
        require = self._faults.require
        has_file = require(f"{table}.key_file", section.key_file, remedy)
        has_team = require(f"{table}.team_id", section.team_id, remedy)
        if section.key_file is None:
            require(f"{table}.key_id", section.key_id, remedy)
            return None
        token = ApnsToken(self._files.path(section.key_file), section.key_id, section.team_id or "")
        has_id = require(
            f"{table}.key_id", token.present_key_id, f"{remedy} A file named AuthKey_KEYID.p8 needs no key_id."
        )
        self._compare_ids(table, section, token)
        is_key = self._files.apns_key(f"{table}.key_file", token.file)
        return token if has_file and has_team and has_id and is_key else None

    def _compare_ids(self, table: str, section: ApnsAccountSection, token: ApnsToken) -> None:
        """Report ids that are in each other's place, or not those of the file's name."""
        given, team, named = section.key_id, section.team_id, KEY_FILE.fullmatch(token.file.name)
        if team is not None and team in (given, named and named[1]):
            wrong = "is the id of the key, too"
            remedy = "Write the id of your team: Apple's developer site has it under Membership."
            self._faults.add(f"{table}.team_id", wrong, remedy)
        elif given is not None and named is not None and given != named[1]:
            wrong = f"is not the id in the name of the file, {named[1]}"
            self._faults.warn(f"{table}.key_id", wrong, f"Remove {table}.key_id if the file has Apple's name.")
        prefixed = [topic for topic in section.topics if team is not None and topic.startswith(f"{team}.")]
        if prefixed:
            wrong = f"begins with the id of the team: {prefixed[0]}"
            self._faults.add(f"{table}.topics", wrong, "Write the bundle id alone, as com.example.mail.")
