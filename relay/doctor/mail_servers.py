"""The mail servers of the watch role, their token endpoints and KDCs, and Autodiscover: asked without a credential.

No password is sent and no mailbox is named: what is asked is what any client may ask before it logs in.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from random import Random
from typing import Final

from eas_watcher.auth.anonymous import NoCredential
from eas_watcher.auth.bearer import OAuthCredential
from eas_watcher.auth.grant import read_issued, refresh_request
from eas_watcher.auth.negotiate import Service, target_of
from eas_watcher.errors import EasError, Unreachable
from eas_watcher.names import MailboxId
from eas_watcher.peer_clocks import PeerClocks
from eas_watcher.proxy.proxy import Proxy
from eas_watcher.runtime.account import Account, host_of
from eas_watcher.server.admissions import Admissions
from eas_watcher.tools.probe.device import ProbeDevice, probe_device
from eas_watcher.transport.http import HttpTransport, open_transport
from eas_watcher.transport.tls import client_context
from relay.doctor.answers import (
    judge_heartbeat,
    judge_options,
    judge_search,
    judge_spoken,
    judge_ticket,
    judge_token,
)
from relay.doctor.database import Known
from relay.doctor.finding import Finding, Subject
from relay.doctor.reaching import Place, Proxies, ProxyUse, place_of
from relay.domain.clock import Clock
from relay.network.route import Route
from relay.settings.values import AutodiscoverSettings, OAuthSettings, ServerSettings
from relay.watch.discovery import Discovery

ANSWER: Final = 5.0  # seconds for an answer, connecting included
NOBODY: Final = "push-relay-doctor"
"""The user of no mailbox, as whom questions are asked."""
ONE: Final = 1  # request at a time to each server


class MailServers:
    """Asks mail servers and what belongs to them."""

    def __init__(self, now: Clock, random: Random, clocks: PeerClocks, proxies: Proxies | None = None) -> None:
        """`clocks` gets the dates of answers; `proxies` are asked whether they are of use."""
        self._now = now
        self._random = random
        self._clocks = clocks
        self._proxies = proxies or Proxies(now, [])

    async def look(self, name: str, server: ServerSettings, known: Callable[[], Awaitable[Known]]) -> Sequence[Finding]:
        """Return the findings about a server; `known` returns what the database says about it."""
        table = f"servers.{name}"
        place = place_of(table, server.url, server.ca_file, f"{table}.ca_file", Route(server.proxy, server.sources))
        way = await self._proxies.reach(_from(place, f"{table}.source_addresses"))
        asked = await self._ask(name, server) if way.open else []
        return [*way.findings, *asked, *_learnt(name, server, await known(), asked)]

    async def _ask(self, name: str, server: ServerSettings) -> list[Finding]:
        """Send OPTIONS without a credential."""
        subject = Subject("ActiveSync", f"servers.{name}")
        clock = asyncio.get_running_loop().time
        began = clock()
        account = Account(
            MailboxId(NOBODY), server.url, NOBODY, probe_device(server.url, NOBODY), NoCredential(NOBODY, "Bearer")
        )
        try:
            async with asyncio.timeout(ANSWER), _opened(server) as transport:
                device = ProbeDevice(account, transport, Admissions(ONE, self._random, self._now))
                reply = await device.look(transport)
        except TimeoutError:
            return [subject.bad(f"no answer within {ANSWER:g} s", "see what keeps the mail server or its proxy busy")]
        except EasError as error:
            return [subject.bad(str(error), "see that this is the address of ActiveSync, and what answers there")]
        took = clock() - began
        self._clocks.answered(host_of(server.url), reply.headers.get("date", ""), took)
        return judge_options(name, server.url, server.credentials, reply, took)

    async def look_at_oauth(self, name: str, oauth: OAuthSettings, proxy: Proxy | None = None) -> Sequence[Finding]:
        """Return the findings about a token endpoint, which is asked with a made-up refresh token."""
        table = f"servers.{name}"
        endpoint = oauth.client.token_endpoint
        place = place_of(
            f"{table}.oauth_token_endpoint", endpoint, oauth.ca_file, f"{table}.oauth_ca_file", Route(proxy)
        )
        way = await self._proxies.reach(place)
        if not way.open:
            return way.findings
        clock = asyncio.get_running_loop().time
        began = clock()
        error: EasError | None = None
        tls = client_context(oauth.ca_file)
        try:
            async with asyncio.timeout(ANSWER), open_transport(tls, reuse=False, proxy=proxy) as transport:
                reply = await transport.send(refresh_request(oauth.client, OAuthCredential(NOBODY, NOBODY)))
            self._clocks.answered(host_of(endpoint), reply.headers.get("date", ""), clock() - began)
            read_issued(reply, oauth.client, self._now())
        except TimeoutError:
            error = Unreachable("the token endpoint does not answer in time")
        except EasError as raised:
            error = raised
        return [*way.findings, judge_token(name, error, clock() - began)]

    async def look_at_kdc(self, name: str, url: str, service: Service) -> Sequence[Finding]:
        """Return the finding about the relay's own ticket for a mail server."""
        from eas_watcher.transport.kerberos import Kerberos  # noqa: PLC0415 -- needs the optional extra

        kerberos = Kerberos(service)
        try:
            return [await ask_kdc(name, partial(kerberos.tickets(None).get, target_of(url)))]
        finally:
            kerberos.close()

    async def look_at_autodiscover(self, found: AutodiscoverSettings, host: str) -> Sequence[Finding]:
        """Return the findings about a host of Autodiscover, which is asked for a made-up address."""
        route = Route(found.proxy)
        place = place_of(f"autodiscover {host}", f"https://{host}", found.ca_file, "autodiscover.ca_file", route)
        way = await self._proxies.reach(place)
        if not way.open:
            return way.findings
        address = f"{NOBODY}@{host.rpartition(':')[0] or host}".replace("@autodiscover.", "@")
        account = Account(MailboxId(NOBODY), "", address, probe_device(host, address), NoCredential(address))
        clock = asyncio.get_running_loop().time
        began = clock()
        answer: str | EasError
        tls = client_context(found.ca_file)
        try:
            async with asyncio.timeout(ANSWER), open_transport(tls, proxy=found.proxy) as transport:
                admissions = Admissions(ONE, self._random, self._now, clocks=self._clocks)
                discovery = Discovery(transport, found.hosts, admissions, found.policy.return_rate)
                answer = await discovery.find(account, show=False)
        except TimeoutError:
            answer = Unreachable("Autodiscover does not answer in time")
        except EasError as error:
            answer = error
        return [*way.findings, judge_search(place.name, address, answer, clock() - began)]


async def ask_kdc(name: str, get: Callable[[], Awaitable[object]]) -> Finding:
    """Return the finding about a ticket that `get` fetches or raises an EasError for."""
    clock = asyncio.get_running_loop().time
    began = clock()
    error: EasError | None = None
    try:
        async with asyncio.timeout(ANSWER):
            await get()
    except TimeoutError:
        error = Unreachable("no Kerberos ticket in time: the KDC does not answer", reached=False)
    except EasError as raised:
        error = raised
    return judge_ticket(name, error, clock() - began)


def proxies(servers: Mapping[str, ServerSettings], found: AutodiscoverSettings) -> list[ProxyUse]:
    """Return the proxies of all ways to mail servers, each once, with the first host that it is used for."""
    places = [place_of("", server.url, None, "", Route(server.proxy, server.sources)) for server in servers.values()]
    places += [place_of("", f"https://{host}", None, "", Route(found.proxy)) for host in sorted(found.hosts)]
    uses: dict[Proxy, ProxyUse] = {}
    for place in places:
        if place.route.proxy is not None:
            proxy = place.route.proxy
            uses.setdefault(proxy, ProxyUse(proxy, place.route.sources, place.host, place.port))
    return list(uses.values())


def _opened(server: ServerSettings) -> AbstractAsyncContextManager[HttpTransport]:
    tls = client_context(server.ca_file)
    return open_transport(tls, reuse=False, sources=server.sources, proxy=server.proxy)


def _from(place: Place, setting: str) -> Place:
    return Place(place.name, place.host, place.port, place.ca_file, place.ca_setting, place.route, setting)


def _learnt(name: str, server: ServerSettings, known: Known, asked: Sequence[Finding]) -> list[Finding]:
    """Return what the mailboxes of a server have shown, but versions that the server has just named itself."""
    of_server = known.servers.get(name)
    lesson = known.lessons.get(server.url)
    found = [
        judge_heartbeat(
            name,
            server.policy.heartbeat,
            None if of_server is None else of_server.heartbeat,
            None if lesson is None else lesson.cut_off,
        )
    ]
    if all(finding.check != "version" for finding in asked):
        spoken = judge_spoken(name, server.url, server.policy.versions, {} if of_server is None else of_server.versions)
        found += [] if spoken is None else [spoken]
    return found
