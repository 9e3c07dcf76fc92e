"""How often and for how many mailboxes the relay searches; the order of the questions is the search's."""

import asyncio
from collections import Counter

import pytest

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import AccessDenied, ServerBusy, Unauthorized, Unreachable
from eas_watcher.machine.state import RATE
from eas_watcher.server.admissions import Admissions
from eas_watcher.server.breaker import DISTINCT
from eas_watcher.transport.holding import HoldsInTask
from relay.watch.discovery import AGAIN, AT_ONCE, Discovery
from tests.unit.eas_watcher.running import Middle, account
from tests.unit.eas_watcher.watching import NOW

pytestmark = pytest.mark.looptime

URL = "https://mail.example.com/Microsoft-Server-ActiveSync"
HOSTS = frozenset({"example.com", "mail.example.com"})
SHORT = 64
KNOWN = HttpReply(200, {}, b'{"Protocol": "ActiveSync", "Url": "https://mail.example.com"}')


class Host(HoldsInTask):
    """Answer version 2 and version 1 of Autodiscover."""

    def __init__(self, version_2: HttpReply, version_1: int = 401, seconds: float = 0.0) -> None:
        self.version_2 = version_2
        self.version_1 = version_1
        self.seconds = seconds
        self.requests: list[HttpRequest] = []
        self.moments: list[float] = []
        self.now = self.most = 0

    async def send(self, request: HttpRequest) -> HttpReply:
        self.requests.append(request)
        self.moments.append(asyncio.get_running_loop().time())
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.seconds)
        self.now -= 1
        return self.version_2 if request.method == "GET" else HttpReply(self.version_1, {}, b"")


def discovery_at(host: Host) -> Discovery:
    return Discovery(host, HOSTS, Admissions(SHORT, Middle(), lambda: NOW), RATE)


async def test_a_mailbox_is_looked_for_once_an_hour() -> None:
    host = Host(KNOWN)
    discovery = discovery_at(host).watches

    assert await discovery.seek(account(), show=True) == URL
    await asyncio.sleep(AGAIN - 1)
    with pytest.raises(AccessDenied, match=r"^Autodiscover names mail\.example\.com \(asked within the hour\)$"):
        await discovery.seek(account(), show=True)
    assert await discovery.seek(account("m2"), show=True) == URL
    assert len(host.requests) == 2

    await asyncio.sleep(1)
    assert await discovery.seek(account(), show=True) == URL
    assert len(host.requests) == 3


async def test_a_refused_credential_is_neither_tried_nor_counted_again_within_the_hour() -> None:
    host = Host(HttpReply(404, {}, b""))
    discovery = discovery_at(host).watches

    with pytest.raises(Unauthorized):
        await discovery.seek(account(), show=True)
    with pytest.raises(AccessDenied, match="refuses the credential"):
        await discovery.seek(account(), show=True)

    assert ["Authorization" in request.headers for request in host.requests] == [False, True]


async def test_no_question_carries_a_credential_that_is_not_to_be_shown() -> None:
    host = Host(HttpReply(404, {}, b""))

    with pytest.raises(AccessDenied, match="tells nothing without the credential"):
        await discovery_at(host).watches.seek(account(), show=False)

    assert [request.method for request in host.requests] == ["GET"]


async def test_all_mailboxes_of_a_server_that_went_are_looked_for_few_at_a_time() -> None:
    host = Host(KNOWN, seconds=5.0)
    discovery = discovery_at(host).watches

    found = await asyncio.gather(*(discovery.seek(account(f"m{number}"), show=True) for number in range(3 * AT_ONCE)))

    assert set(found) == {URL}
    assert host.most == AT_ONCE


async def test_what_is_said_to_one_credential_says_nothing_about_another() -> None:
    host = Host(HttpReply(404, {}, b""))
    discovery = discovery_at(host)
    first, second = discovery.for_candidate(), discovery.for_candidate()
    with pytest.raises(Unauthorized):
        await first.seek(account(), show=True)
    with pytest.raises(AccessDenied, match="tells nothing without the credential"):
        await discovery.watches.seek(account(), show=False)

    host.version_2 = KNOWN

    assert await second.seek(account(), show=True) == URL
    with pytest.raises(AccessDenied, match=r"refuses the credential .*asked within the hour"):
        await first.seek(account(), show=True)


async def test_who_registers_waits_behind_no_fleet() -> None:
    host = Host(KNOWN, seconds=5.0)
    discovery = discovery_at(host)
    fleet = [discovery.watches.seek(account(f"m{number}"), show=True) for number in range(5 * AT_ONCE)]

    async def register() -> float:
        await asyncio.sleep(1)
        assert await discovery.for_candidate().seek(account("new"), show=True) == URL
        return asyncio.get_running_loop().time()

    ended, *_ = await asyncio.gather(register(), *fleet)

    assert ended == 6.0


async def test_a_thousand_candidates_ask_a_host_at_the_rate_and_few_at_once() -> None:
    host = Host(KNOWN, seconds=2.0)
    discovery = discovery_at(host)

    found = await asyncio.gather(*(discovery.for_candidate().find(account(f"m{n}")) for n in range(1000)))

    assert set(found) == {URL}
    assert host.most == SHORT
    assert max(Counter(int(moment) for moment in host.moments).values()) <= RATE + 1


async def test_a_host_that_is_away_is_left_out_while_another_one_knows() -> None:
    first = "https://autodiscover.example.com"

    class Away(Host):
        async def send(self, request: HttpRequest) -> HttpReply:
            if request.url.startswith(first):
                self.moments.append(asyncio.get_running_loop().time())
                raise Unreachable("no connection: refused", reached=False)
            return await super().send(request)

    host = Away(KNOWN)
    admissions = Admissions(SHORT, Middle(), lambda: NOW)
    discovery = Discovery(host, HOSTS | {"autodiscover.example.com"}, admissions, RATE)
    for number in range(100):
        assert await discovery.for_candidate().find(account(f"m{number}")) == URL
    assert len(host.moments) == 1 + 100
    away = admissions.known(first)
    assert away is not None
    assert away.state == "away"

    await asyncio.sleep(5)
    await asyncio.gather(*(discovery.for_candidate().find(account(f"m{number}")) for number in range(100)))
    assert len(host.moments) == 1 + 100 + 1 + 100


async def test_a_host_that_names_a_time_to_several_candidates_is_left_alone_until_then() -> None:
    host = Host(HttpReply(503, {"retry-after": "600"}, b""), version_1=503)
    discovery = discovery_at(host)
    for number in range(20):
        with pytest.raises((ServerBusy, Unreachable)):
            await discovery.for_candidate().find(account(f"m{number}"))
    assert len(host.requests) <= 2 * DISTINCT

    await asyncio.sleep(600)
    with pytest.raises(Unreachable):
        await discovery.for_candidate().find(account())
    assert len(host.requests) <= 2 * DISTINCT


async def test_a_candidate_that_is_withdrawn_before_its_turn_is_not_looked_for() -> None:
    host = Host(KNOWN)

    async def withdrawn() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await discovery_at(host).for_candidate(withdrawn).find(account())
    assert host.requests == []
