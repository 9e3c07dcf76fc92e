"""Test how often and how many mailboxes are looked for anew; what is asked in which order is the search's."""

import asyncio

import pytest

from eas_watcher.commands.request import HttpReply, HttpRequest
from eas_watcher.errors import AccessDenied, Unauthorized
from relay.watch.discovery import AGAIN, AT_ONCE, Discovery
from tests.unit.eas_watcher.running import account

pytestmark = pytest.mark.looptime

URL = "https://mail.example.com/Microsoft-Server-ActiveSync"
HOSTS = frozenset({"example.com", "mail.example.com"})
KNOWN = HttpReply(200, {}, b'{"Protocol": "ActiveSync", "Url": "https://mail.example.com"}')


class Host:
    """Answer version 2 and version 1 of Autodiscover."""

    def __init__(self, version_2: HttpReply, version_1: int = 401, seconds: float = 0.0) -> None:
        self.version_2 = version_2
        self.version_1 = version_1
        self.seconds = seconds
        self.requests: list[HttpRequest] = []
        self.now = self.most = 0

    async def send(self, request: HttpRequest) -> HttpReply:
        self.requests.append(request)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.seconds)
        self.now -= 1
        return self.version_2 if request.method == "GET" else HttpReply(self.version_1, {}, b"")


async def test_a_mailbox_is_looked_for_once_an_hour() -> None:
    host = Host(KNOWN)
    discovery = Discovery(host, HOSTS).watches

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
    discovery = Discovery(host, HOSTS).watches

    with pytest.raises(Unauthorized):
        await discovery.seek(account(), show=True)
    with pytest.raises(AccessDenied, match="refuses the credential"):
        await discovery.seek(account(), show=True)

    assert ["Authorization" in request.headers for request in host.requests] == [False, True]


async def test_no_question_carries_a_credential_that_is_not_to_be_shown() -> None:
    host = Host(HttpReply(404, {}, b""))

    with pytest.raises(AccessDenied, match="tells nothing without the credential"):
        await Discovery(host, HOSTS).watches.seek(account(), show=False)

    assert [request.method for request in host.requests] == ["GET"]


async def test_all_mailboxes_of_a_server_that_went_are_looked_for_few_at_a_time() -> None:
    host = Host(KNOWN, seconds=5.0)
    discovery = Discovery(host, HOSTS).watches

    found = await asyncio.gather(*(discovery.seek(account(f"m{number}"), show=True) for number in range(3 * AT_ONCE)))

    assert set(found) == {URL}
    assert host.most == AT_ONCE


async def test_what_is_said_to_one_credential_says_nothing_about_another() -> None:
    host = Host(HttpReply(404, {}, b""))
    discovery = Discovery(host, HOSTS)
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
    discovery = Discovery(host, HOSTS)
    fleet = [discovery.watches.seek(account(f"m{number}"), show=True) for number in range(5 * AT_ONCE)]

    async def register() -> float:
        await asyncio.sleep(1)
        assert await discovery.for_candidate().seek(account("new"), show=True) == URL
        return asyncio.get_running_loop().time()

    ended, *_ = await asyncio.gather(register(), *fleet)

    assert ended == 6.0
