"""The mail servers of a watch process: a transport to each, and to the hosts that their mailboxes may be sent to."""

import ssl
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from eas_watcher.auth.certificate import CertificateCredential
from eas_watcher.auth.negotiate import KerberosCredential, Principal
from eas_watcher.autodiscover.urls import host_and_port
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.ports import Done, HeldRequest, Transport
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.client_certificate import IdentifiedTransport, show_certificate
from eas_watcher.transport.http import HttpTransport, open_transport
from eas_watcher.transport.negotiate import NegotiateTransport, Tickets
from eas_watcher.transport.tokens import TokenEndpoint
from relay.domain.clock import Clock
from relay.domain.model import AUTODISCOVER
from relay.ops.mail_server import Used
from relay.security.credentials import CredentialKind
from relay.settings.values import AutodiscoverSettings, ServerSettings
from relay.watch.accounts import EasServer
from relay.watch.discovery import Discovery

HOSTS: Final = 256  # URLs of mail servers whose hosts are remembered
V = TypeVar("V")
Retire: TypeAlias = Callable[[], Awaitable[None]]


class HostRouter:
    """The transport of one server whose mailboxes may be sent to other hosts."""

    def __init__(self, own: Transport, others: Mapping[str, Transport]) -> None:
        """Take the server's own transport and those of other hosts, by host and port as `host_and_port` writes them."""
        self._own = own
        self._others = others

    def send(self, request: HttpRequest) -> Coroutine[Any, Any, HttpReply]:
        """Send a request over the transport of its host."""
        return self._of(request).send(request)

    def hold(self, request: HttpRequest, done: Done) -> Coroutine[Any, Any, HeldRequest]:
        """Hold a request over the transport of its host."""
        return self._of(request).hold(request, done)

    def _of(self, request: HttpRequest) -> Transport:
        return self._others.get(_host(request.url.partition("?")[0]), self._own) if self._others else self._own


@lru_cache(HOSTS)
def _host(address: str) -> str:
    """Return the host of a URL without its query, of which there are few: they are read for each request."""
    return host_and_port(address) or ""


Trust = Callable[[Path | None], ssl.SSLContext]
"""Returns a context that trusts the CAs of a file; None: those of the system."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """What is open for one server."""

    own: HttpTransport
    single_use: HttpTransport | None = None
    """Uses each connection for one request only.

    On a connection that a ticket has authenticated, a server may answer the next request in the same user's name.
    """
    tokens: TokenEndpoint | None = None
    tickets: Callable[[Principal], Tickets] | None = None
    """Returns what gets tickets for a principal; None: the server takes none."""
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)


class MailServers:
    """The servers that a process may ask, by name; other settings may take the place of the present ones.

    A mailbox that is sent to another server's host uses that server's transport. If hosts of Autodiscover are
    configured, the name AUTODISCOVER stands for all servers that they name.
    """

    def __init__(self, trust: Trust, admissions: Admissions, connections: dict[str, Used]) -> None:
        """Begin without servers; `connections` gets by URL what returns the connections of each configured one."""
        self._trust = trust
        self._admissions = admissions
        self._connections = connections
        self.servers: dict[str, EasServer] = {}
        """Always those of the present settings."""
        self._opened: Mapping[str, _Opened] = {}
        self._elsewhere: dict[str, Transport] = {}
        self._single_use: dict[str, Transport] = {}
        self._retired: list[AsyncExitStack] = []
        """What watches may still use that begun under earlier settings."""
        self._unused: list[AsyncExitStack] = []
        """What was opened for settings that came not into use."""

    async def open(
        self, configured: Mapping[str, ServerSettings], found: AutodiscoverSettings, changed: Collection[str]
    ) -> "Opening":
        """Open what the `changed` servers need, and leave the present ones in use; raises OSError or ValueError."""
        await self._drop_unused()
        tickets = any(server.kerberos is not None for server in configured.values())
        opened: dict[str, _Opened] = {}
        async with AsyncExitStack() as undo:
            wanted = {*configured, *([AUTODISCOVER] if found.hosts else [])}
            for name in wanted:
                present, server = self._opened.get(name), configured.get(name)
                if name not in changed and present is not None:
                    # Watches go on over what is open. It may lack what the first server that takes tickets demands.
                    if tickets and present.single_use is None:
                        alone = await self._open_alone(server, found, present.stack)
                        present = replace(present, single_use=alone)
                    opened[name] = present
                    continue
                stack = await undo.enter_async_context(AsyncExitStack())
                opened[name] = await self._open(server, found, stack, tickets=tickets)
                self._unused.append(stack)
            undo.pop_all()
        return Opening(self, configured, found, opened)

    def use(self, opening: "Opening") -> Retire:
        """Go over to what was opened; return what closes that which is in use no more."""
        configured, found, opened = opening.configured, opening.found, opening.opened
        stay = [each.stack for each in opened.values()]
        gone = [each.stack for each in self._opened.values() if each.stack not in stay]
        self._retired += gone
        self._unused.clear()
        self._opened = opened
        hosts = {name: host_and_port(server.url) or "" for name, server in configured.items()}
        names = dict.fromkeys(found.hosts, AUTODISCOVER) | {host: name for name, host in hosts.items()}
        _replace(self._elsewhere, {host: opened[name].own for host, name in names.items()})
        _replace(
            self._single_use,
            {host: single for host, name in names.items() if (single := opened[name].single_use) is not None},
        )
        _replace(self._connections, {server.url: opened[name].own.used for name, server in configured.items()})
        servers = {name: self._server(server, opened[name]) for name, server in configured.items()}
        if found.hosts:
            router = HostRouter(opened[AUTODISCOVER].own, self._elsewhere)
            discovery = Discovery(router, found.hosts, self._admissions, found.policy.return_rate)
            servers[AUTODISCOVER] = EasServer("", router, found.policy, tries=found.tries, discovery=discovery)
        _replace(self.servers, servers)
        for server in configured.values():
            if (admission := self._admissions.known(server.url)) is not None:
                admission.allow(server.policy.return_rate)

        async def retire() -> None:
            for stack in gone:
                if stack in self._retired:
                    self._retired.remove(stack)
                    await stack.aclose()

        return retire

    async def close(self) -> None:
        """Close all that is open."""
        await self._drop_unused()
        for stack in (*self._retired, *(each.stack for each in self._opened.values())):
            await stack.aclose()
        self._retired.clear()
        self._opened = {}

    async def _drop_unused(self) -> None:
        for stack in self._unused:
            await stack.aclose()
        self._unused.clear()

    async def _open(
        self, server: ServerSettings | None, found: AutodiscoverSettings, stack: AsyncExitStack, *, tickets: bool
    ) -> _Opened:
        """Open what one server needs; None: all those that Autodiscover finds."""
        trust = self._trust
        alone = await self._open_alone(server, found, stack) if tickets else None
        if server is None:
            own = await stack.enter_async_context(open_transport(trust(found.ca_file), proxy=found.proxy))
            return _Opened(own, alone, stack=stack)
        http2 = trust(server.ca_file) if server.http2 else None
        own = await stack.enter_async_context(
            open_transport(trust(server.ca_file), sources=server.sources, http2=http2, proxy=server.proxy)
        )
        tokens = await self._open_tokens(server, stack)
        return _Opened(own, alone, tokens, _open_tickets(server, stack), stack)

    async def _open_alone(
        self, server: ServerSettings | None, found: AutodiscoverSettings, stack: AsyncExitStack
    ) -> HttpTransport:
        """Open a transport that uses each connection for one request only."""
        ca_file, proxy = (found.ca_file, found.proxy) if server is None else (server.ca_file, server.proxy)
        sources = () if server is None else server.sources
        trust = self._trust(ca_file)
        return await stack.enter_async_context(open_transport(trust, reuse=False, sources=sources, proxy=proxy))

    async def _open_tokens(self, server: ServerSettings, stack: AsyncExitStack) -> TokenEndpoint | None:
        """Open the token endpoint of a server, by the server's own way; None if it takes no OAuth credentials."""
        oauth = server.oauth
        if oauth is None:
            return None
        transport = await stack.enter_async_context(open_transport(self._trust(oauth.ca_file), proxy=server.proxy))
        return TokenEndpoint(oauth.client, transport, self._admissions.now)

    def _server(self, server: ServerSettings, opened: _Opened) -> EasServer:
        return EasServer(
            server.url,
            HostRouter(opened.own, self._elsewhere),
            server.policy,
            tokens=opened.tokens,
            basic=CredentialKind.BASIC in server.credentials,
            identify=_identification(opened.own, server, self._trust, self._admissions.now),
            tries=server.tries,
            delegate=self._delegation(server, opened),
        )

    def _delegation(
        self, server: ServerSettings, opened: _Opened
    ) -> Callable[[KerberosCredential, datetime | None], Transport] | None:
        """Return what makes a transport for an invited user; None if the server takes no tickets."""
        if server.kerberos is None or opened.tickets is None or opened.single_use is None:
            return None
        invited, tickets = server.kerberos.invited, opened.tickets
        router = HostRouter(opened.single_use, self._single_use)

        def delegate(credential: KerberosCredential, shown_at: datetime | None) -> Transport:
            invited.check(credential, shown_at)
            return NegotiateTransport(router, tickets(invited.principal(credential.user)))

        return delegate


@dataclass(frozen=True, slots=True)
class Opening:
    """What was opened for other settings, and is not in use yet."""

    servers: MailServers
    configured: Mapping[str, ServerSettings]
    found: AutodiscoverSettings
    opened: Mapping[str, _Opened]


def _open_tickets(server: ServerSettings, stack: AsyncExitStack) -> Callable[[Principal], Tickets] | None:
    """Return what gets tickets for users of a server; None if it takes none."""
    if server.kerberos is None or server.kerberos.service is None:
        return None
    from eas_watcher.transport.kerberos import Kerberos  # noqa: PLC0415 -- needs the optional extra

    kerberos = Kerberos(server.kerberos.service)
    stack.callback(kerberos.close)
    return kerberos.tickets


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


def _replace(mapping: dict[str, V], content: Mapping[str, V]) -> None:
    """Give a mapping that others hold another content, in one step of the loop."""
    mapping.clear()
    mapping.update(content)
