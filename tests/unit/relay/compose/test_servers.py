import ssl
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from random import Random

from eas_watcher.auth.negotiate import Naming
from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.machine.state import Policy
from eas_watcher.server.admissions import Admissions
from eas_watcher.transport.holding import HoldsInTask
from eas_watcher.transport.tls import client_context
from relay.compose.servers import HostRouter, MailServers, Retire
from relay.ops.mail_server import Used
from relay.security.invitations import Invitations, InvitedUsers
from relay.settings.values import AutodiscoverSettings, KerberosSettings, ServerSettings
from tests.fakes.ops import NOON


class Named(HoldsInTask):
    def __init__(self) -> None:
        self.urls: list[str] = []

    async def send(self, request: HttpRequest) -> HttpReply:
        self.urls.append(request.url)
        return HttpReply(200, {}, b"")


async def test_each_host_is_reached_by_the_transport_that_trusts_it() -> None:
    own, other = Named(), Named()
    routes = HostRouter(own, {"mail2.example.com": other, "mail.example.com:8443": other})
    there = ["https://mail2.example.com:443/eas?Cmd=Ping", "https://mail.example.com:8443/eas"]
    here = ["https://mail.example.com/eas?Cmd=Ping", "https://mail2.example.com:8443/eas"]

    for url in (*there, *here):
        await routes.send(HttpRequest("POST", url, {}, b"", 1.0))

    assert (other.urls, own.urls) == (there, here)


URL = "https://mail.example.com/Microsoft-Server-ActiveSync"
OTHER = "https://mail2.example.com/Microsoft-Server-ActiveSync"
NOBODY = AutodiscoverSettings(frozenset(), None, Policy())


def configured(url: str = URL, rate: float = 10.0) -> ServerSettings:
    return ServerSettings(url, None, frozenset(), Policy(return_rate=rate))


class Servers:
    """The servers of a process, without a network."""

    def __init__(self) -> None:
        self.admissions = Admissions(8, Random(1), lambda: NOON)
        self.connections: dict[str, Used] = {}
        self.trusted = 0
        self.servers = MailServers(self.trust, self.admissions, self.connections)

    def trust(self, _: Path | None) -> ssl.SSLContext:
        self.trusted += 1
        return client_context()

    async def go_over(self, settings: Mapping[str, ServerSettings], *changed: str) -> Retire:
        return self.servers.use(await self.servers.open(settings, NOBODY, changed))


async def test_a_server_that_has_not_changed_keeps_its_connections() -> None:
    here = Servers()
    await here.go_over({"main": configured()})
    used = here.connections[URL]

    await here.go_over({"main": configured(rate=20.0), "other": configured(OTHER)}, "other")

    assert here.connections.keys() == {URL, OTHER}
    assert here.connections[URL] == used
    assert here.servers.servers["main"].policy.return_rate == 20.0
    await here.servers.close()


async def test_a_server_that_has_changed_has_new_connections_and_the_old_ones_until_they_are_retired() -> None:
    here = Servers()
    await here.go_over({"main": configured()})
    used = here.connections[URL]

    retire = await here.go_over({"main": configured()}, "main")

    assert here.connections[URL] != used
    assert len(here.servers._retired) == 1
    await retire()
    await retire()
    assert here.servers._retired == []
    await here.servers.close()


async def test_the_rate_of_a_server_holds_for_its_admission() -> None:
    here = Servers()
    await here.go_over({"main": configured()})
    admission = here.admissions.admission(URL, 10.0)

    await here.go_over({"main": configured(rate=77.0)})

    assert admission._rate == 77.0
    await here.servers.close()


async def test_what_was_opened_for_settings_that_were_refused_is_closed_with_the_next() -> None:
    here = Servers()
    await here.go_over({"main": configured()})
    await here.servers.open({"main": configured()}, NOBODY, ["main"])
    assert len(here.servers._unused) == 1

    await here.go_over({"main": configured()})

    assert here.servers._unused == []
    await here.servers.close()


async def test_a_server_that_is_removed_is_known_no_more() -> None:
    here = Servers()
    await here.go_over({"main": configured(), "other": configured(OTHER)})

    retire = await here.go_over({"main": configured()}, "other")

    assert here.servers.servers.keys() == {"main"}
    assert here.connections.keys() == {URL}
    await retire()
    await here.servers.close()


async def test_the_first_server_that_takes_tickets_leaves_the_connections_of_others_alone() -> None:
    """Their watches are not restarted, so nothing may be closed under them."""
    here = Servers()
    await here.go_over({"main": configured()})
    used = here.connections[URL]
    invited = InvitedUsers("other", Invitations([]), Naming("EXAMPLE.COM", frozenset()))
    delegated = replace(configured(OTHER), kerberos=KerberosSettings(invited, None))

    await here.go_over({"main": configured(), "other": delegated}, "other")

    assert here.connections[URL] == used
    assert here.servers._retired == []
    assert here.servers._single_use.keys() == {"mail.example.com", "mail2.example.com"}
    await here.servers.close()
