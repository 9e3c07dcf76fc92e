"""Makes the settings of one role from the sections: what the role requires, and what must fit together."""

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from relay.domain.canary import APP as CANARY_APP
from relay.domain.model import AUTODISCOVER, Platform, Role
from relay.domain.retention import Retention
from relay.domain.shadow import PushMode
from relay.http.addresses import Proxies
from relay.http.hosts import overlap
from relay.network.urls import is_loopback, secure_url
from relay.push.apns.config import ApnsConfig
from relay.push.fcm.config import FcmConfig
from relay.settings.admin import admin_settings
from relay.settings.apns import ApnsChecks
from relay.settings.canary import canary_settings
from relay.settings.contents import missing
from relay.settings.database import DATABASE, database_settings
from relay.settings.enrolment import read_enrolment
from relay.settings.fcm import FcmChecks
from relay.settings.files import Files
from relay.settings.kerberos import read_invitations
from relay.settings.mail_sections import ServerSection
from relay.settings.network import NetworkChecks, read_networks
from relay.settings.proxies import ProxyChecks
from relay.settings.push_sections import ApnsSection, EgressSection, FcmSection, PushSection
from relay.settings.sealing import PRIVATE_KEY, SealingChecks
from relay.settings.sections import (
    ApiSection,
    DatabaseSection,
    LogSection,
    OpsSection,
    RegistrationsSection,
    RelaySection,
    SealingSection,
    TimelineSection,
    TracingSection,
)
from relay.settings.servers import ServerChecks
from relay.settings.source import Faults, Sections
from relay.settings.tracing import read_tracing
from relay.settings.values import (
    ApiSettings,
    EgressSettings,
    LogSettings,
    OpsSettings,
    PushSettings,
    ServerSettings,
    Settings,
)
from relay.settings.webapp import webapp_settings
from relay.settings.webpush import PUSHES, WebPushChecks

EGRESS_KEY: Final = "egress.key"
"""The default file of the keys of its chain, in relay.state_dir."""
EGRESS: Final = "egress"
"""The default folder of the egress log, in relay.state_dir."""
HOUR: Final = 3600.0  # seconds
MEGABYTE: Final = 1_000_000  # bytes
STATE: Final = (PRIVATE_KEY, DATABASE)
"""Files by which a state folder is known."""
ETC: Final = Path("/etc")
STATES: Final = Path("/var/lib")
SERVES_PHONES: Final = frozenset({Role.ALL, Role.API})


class Checks:
    """Makes the settings of one role; faults go to `files.faults`."""

    def __init__(self, sections: Sections, files: Files, role: Role, *, first: bool = False) -> None:
        """`role` decides which keys are required and which files are read; the `first` start makes the sealing keys."""
        self._first = first
        self._sections = sections
        self._files = files
        self._faults = files.faults
        self._role = role
        proxies = ProxyChecks(files)
        self._server_checks = ServerChecks(sections, files, role, proxies)
        self._network = NetworkChecks(sections, files, proxies)

    def settings(self) -> Settings:
        """Return all settings; usable only if there are no faults."""
        read, faults = self._sections.read, self._faults
        relay = read("relay", RelaySection, faults)
        state_dir = state_folder(self._files.folder, relay, faults)
        if os.access(state_dir, os.F_OK) and not state_dir.is_dir():
            faults.add("relay.state_dir", f"{state_dir} is no folder", "Name a folder that only the relay may enter.")
        database = database_settings(read("database", DatabaseSection, faults), self._files, self._role, state_dir)
        keys = SealingChecks(self._files, read("sealing", SealingSection, faults), state_dir)
        sealing = keys.settings(self._role, first=self._first, values=self._sections.values)
        api, ops = self._listeners(read("api", ApiSection, faults), read("ops", OpsSection, faults))
        admin = admin_settings(self._sections, self._files, self._role, state_dir)
        if (admin.tokens or admin.proxy) and not all(map(is_loopback, ops.hosts)):
            noted = "is no loopback address, so tokens of administrators cross the network in clear"
            remedy = "Put a reverse proxy with TLS before it, or keep it on a network that only you can read."
            faults.warn("ops.host", noted, remedy)
        discovery = self._server_checks.autodiscover()
        servers = self._servers(self._sections.servers(faults), discovery.hosts)
        if self._role in PUSHES:
            self._network.check()
        apns, fcm = read("apns", ApnsSection, faults), read("fcm", FcmSection, faults)
        apns_checks = ApnsChecks(apns, self._sections.apns_accounts(faults), self._files)
        fcm_checks = FcmChecks(fcm, self._sections.fcm_accounts(faults), self._files)
        push = read("push", PushSection, faults)
        webapp = webapp_settings(self._sections, self._files, self._role)
        webpush = WebPushChecks(self._sections, self._files, self._role, self._network, webapp).settings()
        apps = {Platform.APNS: apns_checks.topics, Platform.FCM: fcm_checks.apps, Platform.WEBPUSH: webpush.apps}
        mode = self._push_mode(
            push, {app for names in apps.values() for app in names}, discovered=bool(discovery.hosts)
        )
        if "canary" in self._sections.tables:
            mode = replace(mode, live_apps=mode.live_apps | {CANARY_APP})  # its pushes reach no phone
        registrations = read("registrations", RegistrationsSection, faults)
        timeline = read("timeline", TimelineSection, faults)
        egress, log = read("egress", EgressSection, faults), read("log", LogSection, faults)
        return Settings(
            role=self._role,
            state_dir=state_dir,
            database=database,
            sealing=sealing,
            api=api,
            ops=ops,
            admin=admin,
            servers=MappingProxyType(servers),
            autodiscover=discovery,
            apns=self._apns(apns, apns_checks),
            fcm=self._fcm(fcm, fcm_checks),
            webpush=webpush,
            webapp=webapp,
            apps=MappingProxyType(apps),
            push=PushSettings(
                push.coalesce_seconds, push.expire_hours * HOUR, push.jitter_seconds, mode, push.receipts
            ),
            wiped_needs_administrator=registrations.wiped_needs_administrator,
            retention=Retention(
                timedelta(days=registrations.retain_tombstone_days),
                token_gone=_days(registrations.retain_token_gone_days),
                refused=_days(registrations.retain_refused_days),
                untouched=_days(registrations.retain_untouched_days),
                events=timedelta(hours=timeline.keep_hours),
                events_of_one=timeline.per_mailbox,
            ),
            egress=EgressSettings(
                self._files.path(egress.folder) if egress.folder else state_dir / EGRESS,
                egress.file_megabytes * MEGABYTE,
                self._egress_key_file(egress, state_dir),
                timedelta(days=egress.keep_days) if egress.keep_days else None,
                egress.keep_megabytes * MEGABYTE if egress.keep_megabytes else None,
                egress.free_megabytes * MEGABYTE,
            ),
            log=LogSettings(log.level, log.format),
            canary=canary_settings(
                self._sections,
                self._files,
                self._role,
                servers,
                receipts=push.receipts,
                webpush="webpush" in self._sections.tables,
            ),
            tracing=read_tracing(read("tracing", TracingSection, faults), self._files, self._role, self._network),
        )

    def _push_mode(self, section: PushSection, apps: Collection[str], *, discovered: bool) -> PushMode:
        """Check and return which pushes leave; a push role whose file has no mail servers cannot check their names."""
        servers = {*self._sections.tables.get("servers", {}), *([AUTODISCOVER] if discovered else [])}
        if strange := sorted(set(section.live_apps).difference(apps)):
            remedy = "Name apps that stand in the tables of the providers."
            self._faults.add(
                "push.live_apps", f"names {', '.join(strange)}, which no provider is configured for", remedy
            )
        strange = sorted(set(section.live_servers).difference(servers))
        if strange and (servers or self._role is not Role.PUSH):
            remedy = f"Name mail servers as their tables do: {', '.join(sorted(servers))}."
            self._faults.add("push.live_servers", f"names {', '.join(strange)}, which is no mail server here", remedy)
        mode = PushMode(section.mode == "shadow", frozenset(section.live_apps), frozenset(section.live_servers))
        if mode.shadow and self._role in PUSHES:
            self._faults.warn("push.mode", f"is {mode.words}", "Set it to live when phones shall get pushes.")
        return mode

    def _egress_key_file(self, egress: EgressSection, state_dir: Path) -> Path:
        path = self._files.path(egress.key_file) if egress.key_file else state_dir / EGRESS_KEY
        return self._files.egress_keys("egress.key_file", path) if self._role in PUSHES else path

    def _listeners(self, api: ApiSection, ops: OpsSection) -> tuple[ApiSettings | None, OpsSettings]:
        """Return the two listeners; the first is None for a role without the registration API."""
        listener = OpsSettings(ops.host, ops.port, ops.hosts)
        if self._role not in SERVES_PHONES:
            return None, listener
        if api.port == ops.port and overlap(api.host, ops.host):
            self._faults.add(
                "ops.port", f"is {ops.port}, which api.port is too", "Give the two listeners different ports."
            )
        certificate, key = api.certificate_file, api.key_file
        if certificate is not None or key is not None:
            remedy = "Set api.certificate_file and api.key_file both."
            self._faults.require("api.certificate_file", certificate, remedy)
            self._faults.require("api.key_file", key, remedy)
            if certificate and key:
                paths = self._files.path(certificate), self._files.path(key)
                self._files.certificate("api.certificate_file", paths[0], "api.key_file", paths[1])
        elif not api.proxies and not all(map(is_loopback, api.host)):
            remedy = (
                "Set api.certificate_file and api.key_file; or, behind a TLS reverse proxy, api.proxies; "
                'or api.host = "127.0.0.1".'
            )
            self._faults.require("api.certificate_file", None, remedy)
        return ApiSettings(
            hosts=api.host,
            port=api.port,
            certificate_file=None if certificate is None else self._files.path(certificate),
            key_file=None if key is None else self._files.path(key),
            proxies=Proxies(read_networks("api.proxies", api.proxies, self._faults), api.proxy_header),
            verdict_wait=api.verdict_wait,
            registrations_per_minute=api.registrations_per_minute,
            requests_per_minute=api.requests_per_minute,
            connections_per_address=api.connections_per_address,
            enrolment=read_enrolment(api, self._files),
            client_ca_file=self._files.ca("api.client_ca_file", api.client_ca_file),
            proving=frozenset(map(Platform, api.prove_possession)),
            invitations=None
            if api.invitation_key_file is None
            else read_invitations(self._files, "api.invitation_key_file", api.invitation_key_file),
        ), listener

    def _servers(self, sections: Mapping[str, ServerSection], discovered: frozenset[str]) -> dict[str, ServerSettings]:
        if self._role is Role.PUSH:
            return {}
        self._faults.require(
            "servers", sections or self._sections.tables.get("servers"), "Add a table [servers.NAME] with url."
        )
        return self._server_checks.servers(sections, discovered)

    def _apns(self, section: ApnsSection, checks: ApnsChecks) -> ApnsConfig | None:
        if self._role not in PUSHES:
            return None
        if "apns" not in self._sections.tables:
            if not self._sections.tables.keys() & {"fcm", "webpush"}:
                remedy = "Add a table [apns], [fcm] or [webpush]: without a provider nothing can be pushed."
                self._faults.require("apns", None, remedy)
            return None
        accounts, ca_file = checks.accounts(), self._files.ca("apns.ca_file", section.ca_file)
        if accounts is None:
            return None
        return ApnsConfig(
            accounts=accounts,
            host=section.host,
            port=section.port,
            sandbox_host=section.sandbox_host,
            sandbox_port=section.sandbox_port,
            ca_file=ca_file,
            in_flight=section.in_flight,
            route=self._network.route("apns.proxy", section.proxy),
        )

    def _fcm(self, section: FcmSection, checks: FcmChecks) -> FcmConfig | None:
        if self._role not in PUSHES or "fcm" not in self._sections.tables:
            return None
        if not secure_url(section.url):
            self._faults.add("fcm.url", "is no https:// URL", "Remove it, or write https://HOST:PORT.")
        accounts, ca_file = checks.accounts(), self._files.ca("fcm.ca_file", section.ca_file)
        if accounts is None:
            return None
        return FcmConfig(
            accounts,
            endpoint=section.url,
            ca_file=ca_file,
            in_flight=section.in_flight,
            high_priority_per_hour=section.high_priority_per_hour,
            route=self._network.route("fcm.proxy", section.proxy),
        )


def state_folder(folder: Path, relay: RelaySection, faults: Faults, etc: Path = ETC, states: Path = STATES) -> Path:
    """Return the state folder that belongs to the relay.toml in `folder`, no matter who asks.

    Without relay.state_dir it is /var/lib/NAME for a folder /etc/NAME, as systemd's StateDirectory= makes it, otherwise
    the folder `state` beside relay.toml.
    """
    beside = folder / "state"
    if relay.state_dir is not None:
        return (folder / relay.state_dir).absolute()
    if folder.parent != etc:
        return beside.absolute()
    found = states / folder.name
    if not all(missing(beside / name) for name in STATE) and all(missing(found / name) for name in STATE):
        wrong = f"is missing, and the state is not in {found} but in {beside}"
        faults.add("relay.state_dir", wrong, 'Write state_dir = "state", or move the files.')
    return found


def _days(number: float) -> timedelta | None:
    """Return a time that is kept; 0 stands for ever."""
    return timedelta(days=number) if number else None
