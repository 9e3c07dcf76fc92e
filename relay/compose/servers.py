"""The mail servers of a watch process: a transport to each, and to the hosts that their mailboxes may be sent to."""

import ssl
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Final

from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.negotiate import KerberosCredential
from eas_watcher.autodiscover.urls import host_and_port
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.ports import Done, HeldRequest, Transport
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.client_certificate import IdentifiedTransport, show_certificate
from eas_watcher.transport.http import HttpTransport, open_transport
from eas_watcher.transport.negotiate import NegotiateTransport
from eas_watcher.transport.tokens import TokenEndpoint
from relay.domain.clock import Clock
from relay.domain.model import AUTODISCOVER
from relay.ops.mail_server import Used
from relay.security.credentials import CredentialKind
from relay.settings.values import AutodiscoverSettings, OAuthSettings, ServerSettings
from relay.watch.accounts import EasServer
from relay.watch.discovery import Discovery

HOSTS: Final = 256  # URLs of mail servers whose hosts are remembered


class HostRouter:
    """The transport of one server whose mailboxes may be sent to other hosts."""

    def __init__(self, own: Transport, others: Mapping[str, Transport]) -> None:
        """Take the server's own transport and those of other hosts, by host and port as `host_and_port` writes them."""
        self._own = own
        self._others = others

    async def send(self, request: HttpRequest) -> HttpReply:
        """Send a request over the transport of its host."""
        return await self._of(request).send(request)

    async def hold(self, request: HttpRequest, done: Done) -> HeldRequest:
        """Hold a request over the transport of its host."""
        return await self._of(request).hold(request, done)

    def _of(self, request: HttpRequest) -> Transport:
        return self._others.get(_host(request.url.partition("?")[0]), self._own) if self._others else self._own


@lru_cache(HOSTS)
def _host(address: str) -> str:
    """Return the host of a URL without its query, of which there are few: they are read for each request."""
    return host_and_port(address) or ""


Trust = Callable[[Path | None], ssl.SSLContext]
"""Returns a context that trusts the CAs of a file; None: those of the system."""


async def open_servers(
    configured: Mapping[str, ServerSettings],
    found: AutodiscoverSettings,
    trust: Trust,
    admissions: Admissions,
    stack: AsyncExitStack,
    connections: dict[str, Used] | None = None,
) -> dict[str, EasServer]:
    """Open a transport for each server; a mailbox that is sent to another server's host uses that server's transport.

    If hosts of Autodiscover are configured, the name AUTODISCOVER stands for all servers that they name. `connections`
    gets by URL what returns the connections of each configured server.
    """
    clock = admissions.now
    own = {
        name: await stack.enter_async_context(
            open_transport(
                trust(server.ca_file), sources=server.sources, http2=trust(server.ca_file) if server.http2 else None
            )
        )
        for name, server in configured.items()
    }
    if connections is not None:
        connections |= {server.url: own[name].used for name, server in configured.items()}
    elsewhere: dict[str, Transport] = {}
    if found.hosts:
        searched = await stack.enter_async_context(open_transport(trust(found.ca_file)))
        elsewhere |= dict.fromkeys(found.hosts, searched)
    elsewhere |= {host_and_port(server.url) or "": own[name] for name, server in configured.items()}
    single_use = await _open_single_use(configured, found, trust, stack)
    servers = {
        name: EasServer(
            server.url,
            HostRouter(own[name], elsewhere),
            server.policy,
            tokens=await _open_tokens(server.oauth, trust, clock, stack),
            basic=CredentialKind.BASIC in server.credentials,
            identify=_identification(own[name], server, trust, clock),
            tries=server.tries,
            delegate=_delegation(server, single_use.get(host_and_port(server.url) or ""), single_use, stack),
        )
        for name, server in configured.items()
    }
    if found.hosts:
        router = HostRouter(searched, elsewhere)
        discovery = Discovery(router, found.hosts, admissions, found.policy.return_rate)
        servers[AUTODISCOVER] = EasServer("", router, found.policy, tries=found.tries, discovery=discovery)
    return servers


async def _open_tokens(
    oauth: OAuthSettings | None, trust: Trust, clock: Clock, stack: AsyncExitStack
) -> TokenEndpoint | None:
    """Open the token endpoint of a server; None if it takes no OAuth credentials."""
    if oauth is None:
        return None
    return TokenEndpoint(oauth.client, await stack.enter_async_context(open_transport(trust(oauth.ca_file))), clock)


async def _open_single_use(
    configured: Mapping[str, ServerSettings], found: AutodiscoverSettings, trust: Trust, stack: AsyncExitStack
) -> dict[str, Transport]:
    """Open a transport to each host that uses a connection for one request only, if any server takes tickets.

    On a connection that a ticket has authenticated, a server may answer the next request in the same user's name.
    """
    if all(server.kerberos is None for server in configured.values()):
        return {}
    hosts = dict.fromkeys(found.hosts, (found.ca_file, tuple[str, ...]()))
    hosts |= {host_and_port(server.url) or "": (server.ca_file, server.sources) for server in configured.values()}
    return {
        host: await stack.enter_async_context(open_transport(trust(file), reuse=False, sources=sources))
        for host, (file, sources) in hosts.items()
    }


def _delegation(
    server: ServerSettings, own: Transport | None, single_use: Mapping[str, Transport], stack: AsyncExitStack
) -> Callable[[KerberosCredential, datetime | None], Transport] | None:
    """Return what makes a transport for an invited user; None if the server takes no tickets."""
    if server.kerberos is None or server.kerberos.service is None or own is None:
        return None
    from eas_watcher.transport.kerberos import Kerberos  # noqa: PLC0415 -- needs the optional extra

    kerberos = Kerberos(server.kerberos.service)
    stack.callback(kerberos.close)
    invited, router = server.kerberos.invited, HostRouter(own, single_use)

    def delegate(credential: KerberosCredential, shown_at: datetime | None) -> Transport:
        invited.check(credential, shown_at)
        return NegotiateTransport(router, kerberos.tickets(invited.principal(credential.user)))

    return delegate


def _identification(
    transport: HttpTransport, server: ServerSettings, trust: Trust, clock: Clock
) -> Callable[[CertificateCredential], Transport] | None:
    """Return what makes a transport for a client certificate; None if the server takes none.

    Each call loads the CAs again, because the ssl module cannot share them between contexts. For a mailbox that is sent
    to another server, the CAs of this server are trusted there.
    """
    if CredentialKind.CERTIFICATE not in server.credentials:
        return None

    def identify(credential: CertificateCredential) -> Transport:
        context = trust(server.ca_file)
        show_certificate(context, credential)
        return IdentifiedTransport(credential, transport.with_tls(context), clock)

    return identify
