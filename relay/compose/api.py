"""Builds the api role: the listener where phones register."""

import logging
import resource
import secrets
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from typing import Final

from relay.api.app import LARGEST, Limits, create_app
from relay.compose.running import Running, required
from relay.http.admission import Admission, Pace, api_connections
from relay.http.listeners import open_listener, server_tls
from relay.registration.capabilities import Capabilities, ServerFacts
from relay.registration.certificate_process import CertificateProcess
from relay.registration.credentials import Logins
from relay.registration.expiry import sweep_forever
from relay.registration.identity import ServerDirectory
from relay.registration.registrations import Registrations
from relay.registration.verdicts import VerdictWaiter
from relay.store.registrations import SqlRegistrationStore

log = logging.getLogger(__name__)


CONNECTIONS_PER_SECOND: Final = 100.0
"""TLS handshakes that begin in a second, some 1 ms of the loop's time each: a tenth of it."""
CONNECTIONS_AT_ONCE: Final = 20.0  # of these, after a pause


async def open_api(running: Running, stack: AsyncExitStack) -> None:
    """Open the listener of the registration API."""
    settings, now = running.settings, running.now
    api = required(settings.api)
    store = SqlRegistrationStore(
        running.database, running.wakeups, running.reads, running.unreadable, settings.retention
    )
    running.looks.append(store.look_again)
    directory = ServerDirectory(
        {name: tuple(server.domains) for name, server in settings.servers.items()}, settings.autodiscover.hosts
    )
    service = Registrations(
        store,
        VerdictWaiter(store, running.wakeups, seconds=api.verdict_wait),
        required(settings.sealing.public),
        directory,
        settings.apps,
        now,
        secrets.token_urlsafe,
        Logins(
            {name: server.credentials for name, server in settings.servers.items()},
            CertificateProcess(),
            now,
            {name: server.kerberos.invited for name, server in settings.servers.items() if server.kerberos is not None},
        ),
        settings.webpush.services,
        settings.limits,
        invitations=api.invitations,
        proving=api.proving,
        accounts={name: server.accounts for name, server in settings.servers.items()},
        timeline=running.timeline,
    )
    limits = Limits(
        registrations_per_minute=api.registrations_per_minute,
        requests_per_minute=api.requests_per_minute,
        proxies=api.proxies,
    )
    tls = None
    if api.certificate_file is not None and api.key_file is not None:
        tls = server_tls(api.certificate_file, api.key_file, api.client_ca_file)
    capabilities = Capabilities(
        directory,
        version("push-relay"),
        settings.apps,
        settings.webpush.services,
        {name: ServerFacts(server.credentials, server.oauth_facts) for name, server in settings.servers.items()},
        api.enrolment,
        invites=api.invitations is not None,
    )
    app = create_app(
        service, limits, secrets.token_urlsafe, capabilities, settings.webpush.public_key, running.refused_requests
    )
    most = api_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    door = Admission(most, min(api.connections_per_address, most // 4), api.proxies)
    running.listeners["api"] = door
    pace = Pace(CONNECTIONS_PER_SECOND, CONNECTIONS_AT_ONCE)
    port = await stack.enter_async_context(
        open_listener(app, api.hosts, api.port, tls, admission=door, pace=pace, largest=LARGEST)
    )
    running.jobs.append(("expiry", partial(sweep_forever, store, now, settings.retention.period)))
    log.info("registration API listens", extra={"hosts": list(api.hosts), "port": port, "tls": tls is not None})
