"""Builds the api role: the listener where phones register, and what other settings change of it."""

import logging
import resource
import secrets
import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Final

from aiohttp import web

from relay.api.app import LARGEST, Limits, RegistrationApi
from relay.compose.running import Running, Take, required
from relay.domain import canary
from relay.domain.clock import Clock
from relay.domain.errors import SettingsInvalid
from relay.domain.model import Platform, RegistrationView
from relay.domain.receipts import Receipt
from relay.http.admission import Admission, Pace, api_connections
from relay.http.listeners import Door, open_listener, server_tls
from relay.push.webpush.device import OwnDevice
from relay.registration.canary import CanaryReceipts, CanaryRegistrar
from relay.registration.capabilities import Capabilities, ServerFacts
from relay.registration.certificate_process import CertificateProcess
from relay.registration.credentials import CertificateReader, Logins
from relay.registration.expiry import sweep_forever
from relay.registration.identity import ServerDirectory
from relay.registration.receipts import Receipts
from relay.registration.registrations import Registrations, Rules
from relay.registration.verdicts import VerdictWaiter
from relay.settings import Settings
from relay.settings.changes import Changes
from relay.settings.values import ApiSettings, WebAppSettings
from relay.store.canary import SqlCanaryStore
from relay.store.registrations import SqlRegistrationStore

log = logging.getLogger(__name__)


CONNECTIONS_PER_SECOND: Final = 100.0
"""TLS handshakes that begin in a second, some 1 ms of the loop's time each: a tenth of it."""
CONNECTIONS_AT_ONCE: Final = 20.0  # of these, after a pause
TABLES: Final = ("api", "servers", "autodiscover", "apns", "fcm", "webpush", "push", "registrations", "timeline")
"""The tables of relay.toml that it takes something of."""
OF_CERTIFICATES: Final = ("api.certificate_file", "api.key_file", "api.client_ca_file")
OF_CLIENTS: Final = ("api.client_ca_file", "api.enrolment")
"""Settings whose change ends the connections of clients: these have shown their certificate when they connected."""


async def open_api(running: Running, stack: AsyncExitStack) -> None:
    """Open the listener of the registration API."""
    settings, now = running.settings, running.now
    api = required(settings.api)
    store = SqlRegistrationStore(
        running.database, running.wakeups, running.reads, running.unreadable, settings.retention
    )
    running.looks.append(store.look_again)
    certificates = CertificateProcess()
    rules = partial(_rules, certificates=certificates, now=now)
    verdicts = VerdictWaiter(store, running.wakeups, seconds=api.verdict_wait)
    service = Registrations(
        store,
        verdicts,
        required(settings.sealing.public),
        rules(settings),
        now,
        secrets.token_urlsafe,
        running.timeline,
    )
    required(running.keys).listen(service.seal_with)
    served = RegistrationApi(
        service,
        Receipts(service.view, now, running.timeline, running.receipts, _open_canary(running, store, verdicts, rules)),
        _limits(api),
        secrets.token_urlsafe,
        _capabilities(settings),
        settings.webpush.public_key,
        running.refused_requests,
        None if settings.webapp is None else _web_app(settings.webapp),
    )
    most = api_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    admission = Admission(most, min(api.connections_per_address, most // 4), api.proxies)
    running.listeners["api"] = admission
    door = Door(_tls(api))
    port = await stack.enter_async_context(
        open_listener(
            served.app,
            api.hosts,
            api.port,
            door,
            sockets=running.sockets.get(api.port, ()),
            admission=admission,
            pace=Pace(CONNECTIONS_PER_SECOND, CONNECTIONS_AT_ONCE),
            largest=LARGEST,
        )
    )
    running.jobs.append(("expiry", lambda: sweep_forever(store, now, lambda: store.retention.period)))
    running.takers.append(_Taker(store, verdicts, service, served, admission, door, rules, most).prepare)
    log.info("registration API listens", extra={"hosts": list(api.hosts), "port": port, "tls": door.tls is not None})


def _open_canary(
    running: Running,
    store: SqlRegistrationStore,
    verdicts: VerdictWaiter,
    rules: Callable[[Settings], Rules],
) -> Callable[[RegistrationView, Receipt], Awaitable[None]] | None:
    """Add the job that keeps the canary registered; return what notes the receipts of its phones."""
    settings, now = running.settings, running.now
    if settings.canary is None:
        return None
    canaries = SqlCanaryStore(running.database)

    def its_rules(found: Settings) -> Rules:
        own = {Platform.WEBPUSH: frozenset({canary.APP})}
        return replace(
            rules(found), apps=own, services=frozenset({canary.SERVICE}), invitations=None, proving=frozenset()
        )

    service = Registrations(
        store,
        verdicts,
        required(settings.sealing.public),
        its_rules(settings),
        now,
        secrets.token_urlsafe,
        running.timeline,
    )
    receipts = CanaryReceipts(canaries, settings.canary.mailbox)
    registrar = CanaryRegistrar(canaries, store, service, settings.canary.mailbox, _make_device, now)
    running.jobs.append(("canary's registration", registrar.run))

    async def prepare(found: Settings, changes: Changes) -> Take | None:
        if found.canary is None or not changes.touch("canary", "servers"):
            return None
        mailbox, taken = found.canary.mailbox, its_rules(found)

        async def take() -> None:
            registrar.mailbox = receipts.mailbox = mailbox
            service.rules = taken

        return take

    running.takers.append(prepare)
    return receipts.take


def _make_device() -> tuple[bytes, str]:
    device = OwnDevice.make()
    return device.key, device.token


@dataclass(frozen=True, slots=True)
class _Taker:
    """What of the api role takes other settings."""

    store: SqlRegistrationStore
    verdicts: VerdictWaiter
    service: Registrations
    served: RegistrationApi
    admission: Admission
    door: Door
    rules: Callable[[Settings], Rules]
    most: int
    """Connections at once of all clients."""

    async def prepare(self, settings: Settings, changes: Changes) -> Take | None:
        api = required(settings.api)
        if not changes.touch(*TABLES):
            return None
        tls = self.door.tls
        if any(key in OF_CERTIFICATES for key in changes.live):
            try:
                tls = _tls(api)
            except (OSError, ValueError) as error:  # files that have changed once more since they were checked
                wrong = f"cannot be used: {type(error).__name__}"
                raise SettingsInvalid([("api.certificate_file", wrong, "Give the certificate and its key.")]) from error
        rules, limits, capabilities = self.rules(settings), _limits(api), _capabilities(settings)

        async def take() -> None:
            self.store.retention = settings.retention
            self.verdicts.seconds = api.verdict_wait
            self.service.rules = rules
            self.served.change(limits, capabilities, settings.webpush.public_key)
            self.admission.allow(min(api.connections_per_address, self.most // 4), api.proxies)
            self.door.tls = tls
            if any(key.startswith(OF_CLIENTS) for key in changes.live):
                self.door.see_out()

        return take


def _rules(settings: Settings, *, certificates: CertificateReader, now: Clock) -> Rules:
    api, servers = required(settings.api), settings.servers
    guests = {name: server.kerberos.invited for name, server in servers.items() if server.kerberos is not None}
    return Rules(
        _directory(settings),
        settings.apps,
        Logins(
            {name: server.credentials for name, server in servers.items()},
            certificates,
            now,
            guests,
            _redirects(settings),
        ),
        settings.webpush.services,
        settings.limits,
        invitations=api.invitations,
        proving=api.proving,
        accounts={name: server.accounts for name, server in servers.items()},
    )


def _redirects(settings: Settings) -> dict[str, frozenset[str]]:
    """Return for what redirect URIs each server's codes are taken: none, where users cannot sign in for one."""
    web = settings.webapp
    own = frozenset[str]() if web is None else frozenset({f"{web.origin}{web.return_path}"})
    return {
        name: server.redirects | own
        for name, server in settings.servers.items()
        if server.oauth_facts is not None and server.oauth_facts.authorization_endpoint
    }


def _directory(settings: Settings) -> ServerDirectory:
    domains = {name: tuple(server.domains) for name, server in settings.servers.items()}
    return ServerDirectory(domains, settings.autodiscover.hosts)


def _capabilities(settings: Settings) -> Capabilities:
    api = required(settings.api)
    return Capabilities(
        _directory(settings),
        version("push-relay"),
        settings.apps,
        settings.webpush.services,
        {name: ServerFacts(server.credentials, server.oauth_facts) for name, server in settings.servers.items()},
        api.enrolment,
        invites=api.invitations is not None,
        receipts=settings.push.receipts,
    )


def _limits(api: ApiSettings) -> Limits:
    return Limits(
        registrations_per_minute=api.registrations_per_minute,
        requests_per_minute=api.requests_per_minute,
        proxies=api.proxies,
    )


def _web_app(settings: WebAppSettings) -> Callable[[web.Application], None]:
    """Return what adds the web app; its libraries are loaded only where it is served."""
    from relay.webapp.serving import WebApp, WebAppRoutes

    logo, pages = settings.logo, settings.pages
    return WebAppRoutes(
        WebApp(
            settings.base_path,
            settings.title,
            settings.return_path,
            settings.help_text,
            "" if pages.mail == pages.own else pages.mail,
            None if logo is None else logo.content,
            "" if logo is None else logo.media_type,
        )
    ).add_to


def _tls(api: ApiSettings) -> ssl.SSLContext | None:
    if api.certificate_file is None or api.key_file is None:
        return None
    return server_tls(api.certificate_file, api.key_file, api.client_ca_file)
