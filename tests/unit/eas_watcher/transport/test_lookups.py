"""Tests of lookups: shared by their callers, bounded, and none delays another."""

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from eas_watcher.transport import lookups
from eas_watcher.transport.lookups import AddressInfo, LookupHangs, Lookups, look_up, read_numeric

ROOT = Path(__file__).parents[4]
LIMIT = 10.0  # seconds of the loop's clock
V4: AddressInfo = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))
FOUND = [(socket.AF_INET, ("192.0.2.1", 443))]


class NameServers:
    """Name servers that answer after some seconds, each name after its own time."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = seconds
        self.asked: list[str] = []

    async def look_up(self, host: str, _: int) -> Sequence[AddressInfo]:
        self.asked.append(host)
        await asyncio.sleep(self.seconds.get(host, 0.0))
        return [V4]


def now() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.looptime
async def test_callers_at_the_same_time_share_one_lookup() -> None:
    servers = NameServers(mail=1)
    names = Lookups(servers.look_up)

    assert await asyncio.gather(*(names.find("mail", 443, LIMIT) for _ in range(20))) == [FOUND] * 20
    assert servers.asked == ["mail"]


@pytest.mark.looptime
async def test_no_answer_is_kept() -> None:
    servers = NameServers()
    names = Lookups(servers.look_up)

    for _ in range(2):
        assert await names.find("mail", 443, LIMIT) == FOUND
    assert servers.asked == ["mail", "mail"]


@pytest.mark.looptime
async def test_a_lookup_goes_on_when_its_callers_give_up_and_the_next_one_joins_it() -> None:
    servers = NameServers(mail=25)
    names = Lookups(servers.look_up)

    for _ in range(2):
        with pytest.raises(LookupHangs, match="no name server answers for mail: check"):
            await names.find("mail", 443, LIMIT)
    assert await names.find("mail", 443, LIMIT) == FOUND
    assert now() == 25
    assert servers.asked == ["mail"]


@pytest.mark.looptime
async def test_a_name_that_hangs_delays_no_other() -> None:
    hung = {f"silent{n}": 1000.0 for n in range(lookups.AT_ONCE - 1)}
    names = Lookups(NameServers(**hung).look_up)
    waiting = [asyncio.ensure_future(names.find(host, 443, LIMIT)) for host in hung]
    await asyncio.sleep(1)

    assert await names.find("mail", 443, LIMIT) == FOUND
    assert now() == 1
    assert all(isinstance(error, LookupHangs) for error in await asyncio.gather(*waiting, return_exceptions=True))
    await names.close()


@pytest.mark.looptime
async def test_lookups_at_once_are_bounded() -> None:
    hung = {f"silent{n}": 1000.0 for n in range(2 * lookups.AT_ONCE)}
    servers = NameServers(**hung)
    names = Lookups(servers.look_up)

    await asyncio.gather(*(names.find(host, 443, LIMIT) for host in hung), return_exceptions=True)

    assert len(servers.asked) == lookups.AT_ONCE
    await names.close()


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("192.0.2.1", ("192.0.2.1", 443)),
        ("2001:db8::1", ("2001:db8::1", 443, 0, 0)),
        ("fe80::1%lo", ("fe80::1", 443, 0, socket.if_nametoindex("lo"))),
    ],
)
async def test_an_address_asks_no_name_server(host: str, where: tuple[object, ...]) -> None:
    servers = NameServers()

    assert [found for _, found in await Lookups(servers.look_up).find(host, 443, LIMIT)] == [where]
    assert servers.asked == []


@pytest.mark.parametrize("host", ["mail.example.com", "x" * 70 + ".example.com"])
def test_what_is_no_address_is_a_name(host: str) -> None:
    assert read_numeric(host, 443) == []


@pytest.mark.looptime
async def test_a_name_without_an_address_is_not_found() -> None:
    async def nothing(_host: str, _port: int) -> Sequence[AddressInfo]:
        return []

    with pytest.raises(socket.gaierror, match="the name has no address"):
        await Lookups(nothing).find("mail", 443, LIMIT)


@pytest.mark.looptime
async def test_a_failure_is_that_of_all_callers_and_of_no_later_one() -> None:
    failing = True

    async def once(host: str, port: int) -> Sequence[AddressInfo]:
        await asyncio.sleep(1)
        if failing:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [V4]

    names = Lookups(once)
    answers = await asyncio.gather(*(names.find("mail", 443, LIMIT) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, socket.gaierror) for answer in answers)
    failing = False
    assert await names.find("mail", 443, LIMIT) == FOUND


@pytest.mark.looptime
async def test_a_failure_that_comes_too_late_is_no_forgotten_one() -> None:
    async def fail_late(_host: str, _port: int) -> Sequence[AddressInfo]:
        await asyncio.sleep(2 * LIMIT)
        raise socket.gaierror(socket.EAI_AGAIN, "temporary failure")

    with pytest.raises(LookupHangs):
        await Lookups(fail_late).find("mail", 443, LIMIT)
    await asyncio.sleep(2 * LIMIT)
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.looptime
async def test_nothing_runs_on_after_the_end() -> None:
    names = Lookups(NameServers(mail=1000).look_up)
    with pytest.raises(LookupHangs):
        await names.find("mail", 443, LIMIT)

    await names.close()

    assert len(asyncio.all_tasks()) == 1
    assert now() == LIMIT


async def test_this_hosts_resolver_is_asked_in_a_thread() -> None:
    assert (await look_up("127.0.0.1", 443))[0][4] == ("127.0.0.1", 443)
    with pytest.raises(socket.gaierror, match="no host name"):
        await look_up("x" * 70 + ".example.com", 443)


LOOP_LOOKUPS = {
    "getaddrinfo": {"eas_watcher/transport/lookups.py", "relay/http/hosts.py"},  # of the socket module, in a thread
    "sock_connect": set(),
    # A tool that asks one server; the doctor's look at a listener of this host.
    "open_connection": {"eas_watcher/transport/tls_probe.py", "relay/doctor/host.py"},
    "start_connection": set(),
}
"""Names of calls that look names up, and the files that may use them."""


@pytest.mark.parametrize("name", LOOP_LOOKUPS)
def test_no_connection_goes_through_the_lookups_of_the_event_loop(name: str) -> None:
    users = {
        file.relative_to(ROOT).as_posix()
        for package in ("eas_watcher", "relay")
        for file in (ROOT / package).rglob("*.py")
        if f"{name}(" in file.read_text() or f".{name}," in file.read_text()
    }
    assert users == LOOP_LOOKUPS[name]
