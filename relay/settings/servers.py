"""Checks of [servers.NAME] and [autodiscover]: mail servers, their policies, and where others may be discovered."""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Final

from eas_watcher.auth.bearer import SENDABLE
from eas_watcher.auth.grant import OAuthClient
from eas_watcher.autodiscover.urls import host_and_port
from eas_watcher.commands.provision import Acknowledgement
from eas_watcher.heartbeat import Heartbeat
from eas_watcher.machine.state import Policy
from eas_watcher.names import ProtocolVersion
from relay.domain.model import AUTODISCOVER, Role
from relay.domain.tries import TryLimits
from relay.domain.users import Accounts
from relay.network.urls import secure_url
from relay.registration.capabilities import OAuthFacts
from relay.security.credentials import CredentialKind
from relay.settings.files import Files
from relay.settings.kerberos import check_kerberos
from relay.settings.mail_sections import AutodiscoverSection, ServerSection
from relay.settings.network import read_addresses
from relay.settings.proxies import ProxyChecks
from relay.settings.source import Sections
from relay.settings.urls import UrlInvalid, eas_url, scheme_of
from relay.settings.values import AutodiscoverSettings, OAuthSettings, ServerSettings

OAUTH: Final = (
    "oauth_token_endpoint",
    "oauth_client_id",
    "oauth_authorization_endpoint",
    "oauth_redirect_uris",
    "oauth_client_secret_file",
    "oauth_scope",
    "oauth_audience",
    "oauth_ca_file",
)
"""The keys that only the credential kind oauth uses; it requires the first two."""
ONLINE: Final = ("outlook.office365.com", "outlook.office.com")
"""Where Exchange Online answers ActiveSync."""
PRIVATE_SCHEME: Final = re.compile(r"[a-z][a-z0-9+-]*(?:\.[a-z0-9+-]+)+:/", re.ASCII)
"""A scheme that an app has by a domain of its maker, in reverse [RFC 8252 7.1]."""
KNOWS_PASSWORDS: Final = frozenset({Role.ALL, Role.WATCH})
"""The roles that open credentials."""


class ServerChecks:
    """Checks mail servers for one role; faults go to `files.faults`."""

    def __init__(self, sections: Sections, files: Files, role: Role, proxies: ProxyChecks) -> None:
        """`role` decides which files are read: only some roles open credentials."""
        self._sections = sections
        self._files = files
        self._proxies = proxies
        self._faults = files.faults
        self._role = role

    def autodiscover(self) -> AutodiscoverSettings:
        """Return where servers may be discovered; no hosts if Autodiscover is off."""
        section = self._sections.read(AUTODISCOVER, AutodiscoverSection, self._faults)
        key, hosts = "autodiscover.hosts", set()
        for text in section.hosts:
            host = host_and_port(f"https://{text}")
            if host is None or "/" in text:
                self._faults.add(key, "holds what is no host", "Write mail.example.com, or mail.example.com:8443.")
            else:
                hosts.add(host)
        if section.enabled:
            remedy = "List autodiscover.DOMAIN and the mail servers that it may lead to."
            self._faults.require(key, section.hosts, remedy)
            named = self._sections.tables.get("servers")
            if isinstance(named, dict) and AUTODISCOVER in named:
                wrong = "has the name of what Autodiscover finds"
                self._faults.add(f"servers.{AUTODISCOVER}", wrong, "Name the server otherwise.")
        allowed = frozenset(hosts) if section.enabled else frozenset[str]()
        ca_file = self._ca("autodiscover.ca_file", section.ca_file)
        return AutodiscoverSettings(
            allowed,
            ca_file,
            Policy(hosts=allowed, discovered=True, lockout_window=section.lockout_window),
            _tries(section),
            self._proxies.check(AUTODISCOVER, section, opens=self._role in KNOWS_PASSWORDS),
        )

    def servers(self, sections: Mapping[str, ServerSection], discovered: frozenset[str]) -> dict[str, ServerSettings]:
        """Return the mail servers by name; each may redirect a mailbox to the others, and to the hosts `discovered`."""
        hosts = discovered.union(filter(None, (host_and_port(section.url or "") for section in sections.values())))
        owners: dict[str, str] = {}
        servers = {}
        for name, section in sections.items():
            table = f"servers.{name}"
            domains = frozenset(section.domains)
            for domain in sorted(domains):
                owner = owners.setdefault(domain, name)
                if owner != name:
                    wrong = f"{domain} is claimed by servers.{owner} too"
                    self._faults.add(f"{table}.domains", wrong, "Leave each domain to one server.")
                if "." not in domain:
                    remedy = "Write what addresses end in, as example.com; Windows domains go into user_domains."
                    self._faults.warn(f"{table}.domains", f"holds {domain}, which has no dot", remedy)
            if CredentialKind.BASIC.value in section.credentials and _in_microsoft_365(section.url):
                remedy = 'Write credentials = ["oauth"], and the keys oauth_... that belong to it.'
                wrong = "lists basic, but Exchange Online takes no passwords"
                self._faults.warn(f"{table}.credentials", wrong, remedy)
            servers[name] = ServerSettings(
                self._eas_url(f"{table}.url", section.url),
                self._ca(f"{table}.ca_file", section.ca_file),
                domains,
                self._policy(table, section, hosts),
                frozenset(map(CredentialKind, section.credentials)),
                self._oauth(table, section),
                check_kerberos(self._files, name, section, domains, opens=self._role in KNOWS_PASSWORDS),
                read_addresses(f"{table}.source_addresses", section.source_addresses, self._faults),
                _tries(section),
                http2=section.http2 == "auto",
                accounts=Accounts(section.user_case == "kept", frozenset(map(str.lower, section.user_domains))),
                oauth_facts=_oauth_facts(section),
                redirects=frozenset(section.oauth_redirect_uris),
                proxy=self._proxies.check(table, section, opens=self._role in KNOWS_PASSWORDS),
            )
        return servers

    def _oauth(self, table: str, section: ServerSection) -> OAuthSettings | None:
        """Return how refresh tokens are exchanged; None if the role does not open credentials."""
        given = [name for name in OAUTH if getattr(section, name)]
        if CredentialKind.OAUTH.value not in section.credentials:
            if given and f"{table}.credentials" not in self._faults:
                wrong = "is set, but credentials does not list oauth"
                self._faults.add(f"{table}.{given[0]}", wrong, 'Add "oauth" to credentials, or remove it.')
            return None
        endpoint, client_id = section.oauth_token_endpoint, section.oauth_client_id
        for name in OAUTH[:2]:
            remedy = "Set oauth_token_endpoint and oauth_client_id, which your identity provider tells."
            self._faults.require(f"{table}.{name}", getattr(section, name), remedy)
        if not endpoint or not client_id:
            return None
        if scheme_of(endpoint) != "https" or not secure_url(endpoint):
            key = f"{table}.oauth_token_endpoint"
            self._faults.add(key, "is no https:// URL", "Write it as your identity provider's metadata has it.")
        self._check_codes(table, section)
        if self._role not in KNOWS_PASSWORDS:
            return None
        secret, file = None, section.oauth_client_secret_file
        if file is not None:
            secret = self._files.password(f"{table}.oauth_client_secret_file", self._files.path(file))
        audience = frozenset(section.oauth_audience)
        claims = frozenset(section.oauth_user_claims)
        client = OAuthClient(endpoint, client_id, secret or "", section.oauth_scope or "", audience, claims)
        return OAuthSettings(client, self._ca(f"{table}.oauth_ca_file", section.oauth_ca_file))

    def _check_codes(self, table: str, section: ServerSection) -> None:
        """Report what is wrong where users sign in, and where they come back with a code."""
        endpoint, uris = section.oauth_authorization_endpoint, section.oauth_redirect_uris
        key = f"{table}.oauth_authorization_endpoint"
        if endpoint is not None and not _takes_queries(endpoint):
            remedy = "Write it as your identity provider's metadata has it, without a fragment."
            self._faults.add(key, "is no https:// URL", remedy)
        if uris and endpoint is None:
            wrong = "is set, but oauth_authorization_endpoint is not, so the relay takes no codes"
            self._faults.add(f"{table}.oauth_redirect_uris", wrong, "Set both, or neither.")
        for uri in uris:
            if not _is_redirect(uri):
                remedy = "Write https://HOST/PATH, http://127.0.0.1:PORT/PATH, or com.example.mail:/PATH."
                self._faults.add(f"{table}.oauth_redirect_uris", f"holds {uri}, which no app of yours owns", remedy)

    def _eas_url(self, key: str, url: str | None) -> str:
        if not self._faults.require(key, url, "Set it to the server's https:// URL.") or url is None:
            return ""
        try:
            return eas_url(url)
        except UrlInvalid as error:
            self._faults.add(key, str(error), "Write https://HOST, or https://HOST:PORT/PATH.")
            return ""

    def _ca(self, key: str, file: str | None) -> Path | None:
        return self._files.ca(key, file) if self._role in KNOWS_PASSWORDS else None

    def _policy(self, table: str, section: ServerSection, hosts: frozenset[str]) -> Policy:
        """Return how the relay speaks to a server; `hosts` are those that mailboxes may be redirected to."""
        start, least, most = section.heartbeat_start, section.heartbeat_minimum, section.heartbeat_maximum
        keys = [f"{table}.heartbeat_{name}" for name in ("start", "minimum", "maximum")]
        if not least <= start <= most and not any(key in self._faults for key in keys):
            wrong = f"is {start}, outside heartbeat_minimum {least} to heartbeat_maximum {most}"
            self._faults.add(keys[0], wrong, "Choose minimum <= start <= maximum.")
        others = [other for other in section.acknowledgement_fallback if other != section.acknowledgement]
        return Policy(
            versions=tuple(version for version in ProtocolVersion if version.wire in section.versions),
            acknowledgement=Acknowledgement(section.acknowledgement),
            fallbacks=tuple(dict.fromkeys(map(Acknowledgement, others))),
            hosts=hosts,
            heartbeat=Heartbeat(start, least, most),
            poll_interval=section.poll_interval if section.mode == "poll" else None,
            return_rate=section.return_rate,
            lockout_window=section.lockout_window,
        )


def _in_microsoft_365(url: str | None) -> bool:
    """Return whether a mail server is Exchange Online [Microsoft: Deprecation of Basic authentication]."""
    host = (host_and_port(url or "") or "").partition(":")[0]
    return host in ONLINE or host.endswith(tuple(f".{name}" for name in ONLINE))


def _oauth_facts(section: ServerSection) -> OAuthFacts | None:
    if CredentialKind.OAUTH.value not in section.credentials:
        return None
    return OAuthFacts(
        section.oauth_token_endpoint or "",
        section.oauth_client_id or "",
        section.oauth_scope or "",
        frozenset(section.oauth_audience),
        section.oauth_authorization_endpoint or "",
    )


def _takes_queries(endpoint: str) -> bool:
    """Return True if an authorization endpoint is reached over TLS and has no fragment [RFC 6749 3.1]."""
    return scheme_of(endpoint) == "https" and secure_url(endpoint) and "#" not in endpoint


def _is_redirect(uri: str) -> bool:
    """Return True if an app can own a URI [RFC 8252 7]: by its host, on its device, or by its scheme."""
    if not SENDABLE.fullmatch(uri) or "#" in uri:
        return False
    return secure_url(uri) or PRIVATE_SCHEME.match(uri) is not None


def _tries(section: ServerSection | AutodiscoverSection) -> TryLimits:
    return TryLimits(timedelta(seconds=section.lockout_window), section.refused_logins, section.directory or "")
